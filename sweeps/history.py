"""The fold of a journal into trials and rows: what board, store, MLflow mirror and report all read.

Record types (each has `type`, most have `time`, seconds since 1970):

| type | fields |
| --- | --- |
| open | format, sweep_id, epoch, versions: a driver took the sweep over |
| ask | trial, params, stage, point_id, replicate, group, config (a TrialConfig as plain values) |
| report | group, engine, waited_s, trials: [{trial, update, metrics: {name: value}, score, wall_s, init?, ...}] |
| promote | trial, update: the trial passed the rung at that update |
| end | trial, state, reason, stopped_at_rung, objective, updates, work, wall_s, engine, group |
| retry | trials: failed ones, by number, that train again |
| attach | group, incarnation, host, node, pid, device: a worker of a group trains from now on |
| fault | group, incarnation, cause, words, moved, resident?: a worker died, or its trials went to other groups |
| extend | trials: the budget grew by so many |
| close | reason: finished, interrupted, budget; perhaps note: what could not be done |
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sweeps import journal
from sweeps.busy import Busy
from sweeps.cost import Held
from sweeps.stages import is_confirm
from sweeps.tally import Tally

_KNOWN = 64
"""Bytes at each end of a journal's last line by which it is known again: the first are its checksum."""

END_STATES = ("complete", "stopped", "diverged", "failed", "skipped")


def trial_id(number: int) -> str:
    """The name of a trial that a person sees, `t00012`."""
    return f"t{number:05d}"


@dataclass(slots=True)
class Trial:
    """One trial as the journal knows it. `state` is `running` or one of END_STATES."""

    number: int
    params: dict[str, Any]
    config: dict[str, Any]
    stage: str
    point_id: str
    replicate: int
    group: int
    asked_at: float
    state: str = "running"
    reason: str = ""
    stopped_at_rung: int | None = None
    objective: float | None = None
    updates: int = 0
    work: float = 0.0
    wall_s: float = 0.0
    engine: str = ""
    ended_at: float | None = None
    doomed: str = ""
    """Why its net cannot start, if it was judged so before its first update, whether it was trained or not."""
    traceback: str = ""
    """Where the user's own code failed, as Python tells it."""
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    """Metric values by update."""
    walls: dict[int, float] = field(default_factory=dict)
    """Seconds of training up to each report, by update."""
    scores: dict[int, float] = field(default_factory=dict)
    """What rungs compare, by update: the objective, or its value on a short fork at low momentum."""
    promoted: set[int] = field(default_factory=set)
    """Updates of the rungs this trial passed."""

    @property
    def id(self) -> str:
        """The name a person sees, `t00012`."""
        return trial_id(self.number)


@dataclass(slots=True)
class History:
    """Everything a journal says, by trial number, in order of asking."""

    sweep_id: str = ""
    epoch: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    opened_at: float | None = None
    """When the first driver opened the sweep."""
    trials: dict[int, Trial] = field(default_factory=dict)
    extended: int = 0
    """Trials added to the spec's budget by `--more`."""
    confirming: bool = False
    """Whether points are being confirmed, so that a search that ran out of time is over; extending opens it again."""
    closed: str | None = None
    """Why the last driver left: finished, interrupted, budget; None while one runs or after a crash."""
    residents: dict[int, int] = field(default_factory=dict)
    """How many trials of a group may be in memory at once, where they turned out to be too many."""
    note: str = ""
    """What the last driver could not do, in words, such as confirm points of a search that found none."""
    tally: Tally = field(default_factory=Tally)
    """Counts of the trials, kept while they change."""
    held: Held = field(default_factory=Held)
    """For how long workers held their places."""
    busy: Busy = field(default_factory=Busy)
    """What became of the seconds of their slots."""

    def apply(self, record: journal.Record) -> None:
        """Fold in one record.

        Raises:
            JournalError: an unknown type or a newer format.
        """
        handler = _HANDLERS.get(record["type"])
        if handler is None and record.get("optional"):  # of a newer musweep, which says that we can do without
            return
        if handler is None:
            raise journal.JournalError(
                f"journal record of unknown type {record['type']!r}: written by a newer musweep?"
            )
        handler(self, record)
        self.held.apply(record)
        self.busy.apply(record)


def _open(history: History, record: journal.Record) -> None:
    if record["format"] > journal.FORMAT:
        raise journal.JournalError(f"journal format {record['format']}: this musweep reads up to {journal.FORMAT}")
    history.sweep_id = history.sweep_id or record["sweep_id"]  # its id is for life, though its folder be renamed
    history.epoch = record["epoch"]
    history.versions = record["versions"]
    history.opened_at = history.opened_at or record["time"]
    history.closed, history.note = None, ""


def _ask(history: History, record: journal.Record) -> None:
    trial = history.trials[record["trial"]] = Trial(
        number=record["trial"],
        params=_lean(record["params"]),
        config=_lean(record["config"]),
        stage=record["stage"],
        point_id=record["point_id"],
        replicate=record["replicate"],
        group=record["group"],
        asked_at=record["time"],
    )
    history.tally.asked(trial)
    history.confirming = history.confirming or is_confirm(record["stage"])


def _lean(value: Any) -> Any:
    """The same plain values with each string held once: JSON gives every trial names and words of its own.

    They are most of what a trial takes, and there can be 10,000 trials, each with a history in several places.
    """
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {sys.intern(name): _lean(inner) for name, inner in value.items()}
    return [_lean(inner) for inner in value] if isinstance(value, list) else value


def _report(history: History, record: journal.Record) -> None:
    for entry in record["trials"]:
        trial = history.trials[entry["trial"]]
        update = entry["update"]
        history.tally.reported(trial, update, entry["wall_s"])
        trial.metrics[update] = {sys.intern(name): float(value) for name, value in entry["metrics"].items()}
        if "init" in entry:
            trial.metrics[0] = {sys.intern(name): float(value) for name, value in entry["init"].items()}
        trial.doomed = entry.get("doomed", trial.doomed)
        trial.scores[update] = float(entry["score"])
        trial.updates = max(trial.updates, update)
        trial.wall_s += entry["wall_s"]
        trial.walls[update] = trial.wall_s
        trial.engine = entry.get("engine", record["engine"])
        trial.group = record["group"]


def _promote(history: History, record: journal.Record) -> None:
    trial = history.trials[record["trial"]]
    history.tally.promoted(trial, record["update"])
    trial.promoted.add(record["update"])


def _end(history: History, record: journal.Record) -> None:
    trial = history.trials[record["trial"]]
    updates, seconds = trial.updates, trial.wall_s
    trial.state = record["state"]
    trial.reason = record["reason"]
    trial.traceback = record.get("traceback", "")
    if trial.state == "skipped":
        trial.doomed = trial.reason
    trial.stopped_at_rung = record["stopped_at_rung"]
    trial.objective = None if record["objective"] is None else float(record["objective"])
    trial.updates = record["updates"]
    trial.work = record["work"]
    trial.wall_s = record["wall_s"]
    trial.engine = record["engine"]
    trial.group = record["group"]
    trial.ended_at = record["time"]
    history.tally.ended(trial, updates, seconds)


def _retry(history: History, record: journal.Record) -> None:
    """Failed trials train again: what they measured stays, how they ended is forgotten."""
    for place, number in enumerate(record["trials"]):
        trial = history.trials[number]
        history.tally.retried(trial)
        trial.group = place  # in turn, lest one group gets all
        trial.state, trial.reason, trial.traceback = "running", "", ""
        trial.stopped_at_rung = trial.objective = trial.ended_at = None
        trial.work = 0.0


def _attach(history: History, record: journal.Record) -> None:
    """A group's worker has started: said for people."""


def _fault(history: History, record: journal.Record) -> None:
    if "resident" in record:
        history.residents[record["group"]] = record["resident"]


def _extend(history: History, record: journal.Record) -> None:
    history.extended += record["trials"]
    history.confirming = False


def _close(history: History, record: journal.Record) -> None:
    history.closed, history.note = record["reason"], record.get("note", "")


_HANDLERS = {
    "open": _open,
    "ask": _ask,
    "report": _report,
    "promote": _promote,
    "end": _end,
    "retry": _retry,
    "attach": _attach,
    "fault": _fault,
    "extend": _extend,
    "close": _close,
}


def fold(records: Iterable[journal.Record]) -> History:
    """The history that a sequence of records tells."""
    history = History()
    for record in records:
        history.apply(record)
    return history


def load(folder: Path) -> History:
    """The history of a sweep folder; safe beside a running writer."""
    return fold(journal.read(folder / "journal.jsonl"))


class Reader:
    """Follows a sweep folder's journal beside its writer: what was read is not read again.

    At any moment `history` is what `load` would give for the part that was read. A journal that was cut back or
    replaced is read anew, into another `history`, unless it is a copy of what was read, as a new driver makes one.

    Args:
        folder: of the sweep.
        chunk: bytes read at a time, so that a long journal is never in memory whole.
    """

    def __init__(self, folder: Path, chunk: int = 4_000_000) -> None:
        self._path, self._chunk = folder / "journal.jsonl", chunk
        self._forget()

    def _forget(self) -> None:
        self.history, self._fence = History(), journal.Fence()
        self.offset, self._last, self._end = 0, 0, b""

    def read(self) -> bool:
        """Take in what the journal has gained; whether there was anything.

        Raises:
            JournalError: the journal is damaged, or of a newer musweep.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            gone = self.offset > 0
            self._forget()
            return gone
        with file:
            changed = self._replaced(file)
            size = self._chunk
            while data := _part(file, self.offset, size):
                records, length = journal.scan(data, str(self._path), self._fence)
                if not length and len(data) < size:
                    break  # the writer is in the middle of a line, or died there
                self._apply(records)
                if length:
                    self._note(data[:length])
                    changed = True
                size = self._chunk if length else 2 * size
        return changed

    def _note(self, sound: bytes) -> None:
        """Lines have been read: go on after them, and know the last one again."""
        start = sound.rfind(b"\n", 0, len(sound) - 1) + 1
        line = sound[start:]
        self._last, self._end = self.offset + start, line[:_KNOWN] + line[-_KNOWN:]
        self.offset += len(sound)

    def _apply(self, records: Iterable[journal.Record]) -> None:
        try:
            for record in records:
                self.history.apply(record)
        except BaseException:
            self._forget()  # half of what it says is in the history
            raise

    def _replaced(self, file: BinaryIO) -> bool:
        """Begin anew if the last line that was read is not where it was: its checksum and its times tell it."""
        line = _part(file, self._last, self.offset - self._last)
        if fresh := len(line) < self.offset - self._last or line[:_KNOWN] + line[-_KNOWN:] != self._end:
            self._forget()
        return fresh


def _part(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
