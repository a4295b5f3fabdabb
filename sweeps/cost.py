"""What a sweep costs: seconds of the devices that its workers hold, as the journal tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Devices:
    """What one worker holds."""

    gpus: float = 0.0
    cpus: float = 1.0

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Devices:
        """What a spec, as plain values, reserves for each worker."""
        resources = spec.get("resources") or {}
        return cls(float(resources.get("gpu") or 0.0), float(resources.get("cpu") or 1.0))

    @property
    def kind(self) -> str:
        """`GPU` where workers have any, else `CPU`: what there is little of."""
        return "GPU" if self.gpus else "CPU"

    def seconds(self, worker_s: float) -> float:
        """Device seconds of so many worker seconds."""
        return worker_s * (self.gpus or self.cpus)


CPU = Devices()


@dataclass(slots=True)
class Held:
    """Seconds for which workers held their places, computing or waiting, folded from a journal.

    A worker holds its place from its attaching to the last record that names its group, or to its fault. Journals
    without attachments begin with the group's first trial.
    """

    _closed: float = 0.0
    _open: dict[int, tuple[float, float]] = field(default_factory=dict)
    """First and last second of each group's present worker."""

    @property
    def seconds(self) -> float:
        """Worker seconds so far."""
        return self._closed + sum(map(_length, self._open.values()))

    def apply(self, record: Mapping[str, Any]) -> None:
        """Fold in one journal record."""
        if record["type"] in ("open", "close"):
            for each in [*self._open]:
                self._end(each)
            return
        group, now = record.get("group"), record.get("time")
        if group is None or now is None:
            return
        if record["type"] == "attach":
            self._end(group)
        began, last = self._open.get(group, (now, now))
        self._open[group] = began, max(last, now)
        if record["type"] == "fault":
            self._end(group)

    def _end(self, group: int) -> None:
        if group in self._open:
            self._closed += _length(self._open.pop(group))


def _length(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


class Ledger:
    """Counts of a running sweep by journal record, so that whoever watches it needs no second reading of the whole."""

    def __init__(self) -> None:
        self.held = Held()
        self.updates = 0
        self.worker_s = 0.0
        """Seconds of training, retraining after a crash included."""
        self.faults: dict[str, int] = {}
        """Workers lost, by cause."""
        self.lost_s = 0.0
        """Worker seconds between the last report of a lost worker and its fault."""
        self._trials: dict[int, tuple[str, str, int]] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._seen: dict[int, float] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one journal record."""
        self.held.apply(record)
        kind = record["type"]
        if kind == "report":
            for entry in record["trials"]:
                self._advance(entry["trial"], entry["update"])
                self.worker_s += entry["wall_s"]
        elif kind == "ask":
            self._move(record["trial"], "running", record["stage"])
        elif kind == "end":
            self._move(record["trial"], record["state"])
        elif kind == "retry":
            for number in record["trials"]:
                self._move(number, "running")
        elif kind == "fault" and not record.get("moved"):  # else others take over what a lost one had
            self.faults[record["cause"]] = self.faults.get(record["cause"], 0) + 1
            self.lost_s += max(0.0, record["time"] - self._seen.get(record["group"], record["time"]))
        if kind in ("attach", "report"):
            self._seen[record["group"]] = record["time"]

    def plain(self) -> dict[str, Any]:
        """The counts as JSON has them."""
        by_stage: dict[str, dict[str, int]] = {}
        for (stage, state), count in self._counts.items():
            by_stage.setdefault(stage, {})[state] = count
        return {
            "by_stage": by_stage,
            "updates_done": self.updates,
            "worker_s": self.worker_s,
            "held_s": max(self.held.seconds, self.worker_s),  # clocks of journals can be set back
            "faults": dict(self.faults),
            "lost_s": self.lost_s,
        }

    def _move(self, number: int, state: str, stage: str = "") -> None:
        old_stage, old_state, update = self._trials.get(number, (stage, "", 0))
        if old_state:
            self._counts[old_stage, old_state] -= 1
        self._trials[number] = old_stage, state, update
        self._counts[old_stage, state] = self._counts.get((old_stage, state), 0) + 1

    def _advance(self, number: int, update: int) -> None:
        stage, state, before = self._trials[number]
        if update > before:
            self.updates += update - before
            self._trials[number] = stage, state, update


@dataclass(frozen=True, slots=True)
class Bill:
    """What a sweep's workers cost, in seconds of `kind`, GPU or CPU."""

    kind: str
    training: float
    """Of trials, together."""
    held: float
    """Of all the time that workers held their places; never less than the trials' part."""


def bill(spec: Mapping[str, Any], held: Held, worker_s: float) -> Bill:
    """What a sweep costs, given its spec as plain values and what its trials trained."""
    devices = Devices.of(spec)
    return Bill(devices.kind, devices.seconds(worker_s), devices.seconds(max(held.seconds, worker_s)))
