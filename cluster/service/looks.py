"""How a sweep folder stands, told from a few small reads: its driver's status, its lease, the end of its journal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster import live
from cluster.folders import Folder, UserError
from cluster.service.models import State, Summary
from sweeps import journal, lease, telemetry
from sweeps.history import END_STATES, trial_id

NAME = re.compile(r"\w[\w .+=@,:~-]{0,199}")
"""Of a sweep folder: no separator, and no dot before all others."""
_END = 4096
"""Bytes of a journal's end that hold its last line most often."""

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a sweep folder found."""

    journal: Stamp = (0, 0, 0)
    """Which file, how long, changed when; zeros where there is none. So are the others."""
    told: Stamp = (0, 0, 0)
    settled: Stamp = (0, 0, 0)
    compared: Stamp = (0, 0, 0)
    held: bool = False
    """Whether a driver works on it."""
    closed: str | None = None
    """Why the last driver left, if its journal says so."""
    status: Mapping[str, Any] = field(default_factory=dict, compare=False)
    spec: Mapping[str, Any] = field(default_factory=dict, compare=False)
    verdict: str = ""
    error: str = ""

    @property
    def size(self) -> int:
        """Bytes of the journal."""
        return self.journal[1]

    @property
    def version(self) -> str:
        """Another one whenever anything is otherwise."""
        stamps = (self.journal, self.told, self.settled, self.compared)
        return f"{hash((stamps, self.held)) & (2**64 - 1):016x}"


def look(path: Path, before: Look | None = None) -> Look:
    """Look at a sweep folder; what has not changed since the look before is not read again."""
    old = before or Look()
    written, told, settled, compared = (
        stamp(path / name) for name in ("journal.jsonl", telemetry.FILE, "spec.json", "comparison.json")
    )
    known = before is not None
    error, spec = old.error, old.spec
    if not (known and settled == old.settled):
        try:
            spec, error = spec_of(path), ""
        except UserError as refused:
            spec, error = {}, str(refused)
    return Look(
        written, told, settled, compared, lease.held(path),
        old.closed if known and written == old.journal else _closed(path / "journal.jsonl"),
        old.status if known and told == old.told else telemetry.load(path),
        spec,
        old.verdict if known and compared == old.compared else _verdict(path / "comparison.json"),
        error,
    )  # fmt: skip


def stamp(path: Path) -> Stamp:
    """Which file a path names, how long it is, when it was changed; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def spec_of(path: Path) -> dict[str, Any]:
    """A sweep's resolved spec as plain values.

    Raises:
        UserError: spec.json is missing or damaged.
    """
    try:
        spec = json.loads((path / "spec.json").read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path.name}: spec.json is missing, so this folder cannot be read as a sweep") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name}/spec.json cannot be read: {error}; restore it from a copy") from None
    if not isinstance(spec, dict):
        raise UserError(f"{path.name}/spec.json is not a spec; restore it from a copy")
    return spec


def _closed(path: Path) -> str | None:
    """The reason of a close at a journal's very end."""
    try:
        records = journal.scan(_last_line(path))[0]
    except (OSError, ValueError):
        return None
    return str(records[-1].get("reason")) if records and records[-1].get("type") == "close" else None


def _last_line(path: Path) -> bytes:
    """The end of a file from the last line break but one."""
    with path.open("rb") as file:
        size, wanted = file.seek(0, os.SEEK_END), _END
        while True:
            file.seek(max(0, size - wanted))
            data = file.read()
            start = data.rfind(b"\n", 0, max(0, len(data) - 1)) + 1
            if start or wanted >= size:
                return data[start:]
            wanted *= 8


def _verdict(path: Path) -> str:
    from sweeps.comparison import Comparison

    try:
        found = Comparison.from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none yet, or of another musweep
        return ""
    return found.primary.sentence if found.primary else ""


def state_of(look: Look) -> State:
    """How a sweep stands, in a word or two."""
    if look.held:
        return "running"
    if look.closed in ("finished", "interrupted"):
        return "finished" if look.closed == "finished" else "interrupted"
    if look.closed == "budget":
        return "out of budget"
    return "failed" if look.status.get("phase") == "failed" else "cut off"


def unreadable(path: Path, look: Look, error: Exception | None = None) -> Summary:
    """A sweep that cannot be read, with the reason."""
    words = str(error or look.error).splitlines() or ["it cannot be read"]
    return Summary(
        id=path.name, state="unreadable", error=words[0][:500], updated_at=_updated(look), version=look.version
    )


def _updated(look: Look) -> float:
    return max(look.journal[2], look.told[2], look.settled[2], look.compared[2]) / 1e9


def told(path: Path, look: Look) -> Summary:
    """A sweep by what its driver told last: at most seconds old while it runs, and how it ended."""
    status = look.status
    trials = status.get("trials") or {}
    best = status.get("best") or {}
    counts = {state: int(trials[state]) for state in ("running", *END_STATES) if trials.get(state)}
    return _made(path, look).model_copy(
        update={
            "sweep_id": str(status.get("sweep_id") or ""),
            "counts": counts,
            "ended": sum(number for state, number in counts.items() if state != "running"),
            "budget": int(trials.get("budget") or 0) or _planned(look.spec),
            "best": None if best.get("objective") is None else float(best["objective"]),
            "best_trial": trial_id(best["trial"]) if "trial" in best else "",
            "best_params": best.get("params") or {},
        }
    )


def counted(folder: Folder, look: Look) -> Summary:
    """A sweep by what its journal says."""
    history = folder.history
    look = replace(look, closed=history.closed)
    states = history.tally.by_state()
    best = history.tally.best(str(folder.spec.get("mode") or "min"))
    return _made(folder.path, look).model_copy(
        update={
            "sweep_id": history.sweep_id,
            "counts": {state: states[state] for state in ("running", *END_STATES) if states[state]},
            "ended": history.tally.ended_trials,
            "budget": folder.budget,
            "best": best.objective if best else None,
            "best_trial": best.id if best else "",
            "best_params": best.params if best else {},
            "opened_at": history.opened_at,
        }
    )


def _made(path: Path, look: Look) -> Summary:
    """What does not need the journal."""
    spec, status, state = look.spec, look.status, state_of(look)
    objective = spec.get("objective", "objective")
    runs = state == "running"
    return Summary(
        id=path.name,
        name=str(spec.get("name") or ""),
        state=state,
        phase=str(status.get("phase") or "starting") if runs else "",
        objective=str(objective.get("metric", "objective") if isinstance(objective, dict) else objective),
        mode="max" if spec.get("mode") == "max" else "min",
        opened_at=None,
        updated_at=_updated(look),
        updates_per_s=status.get("updates_per_s") if runs else None,
        eta_s=status.get("eta_s") if runs else None,
        verdict=look.verdict,
        troubles=[words for words in live.troubles(dict(status)) if words] if runs else [],
        version=look.version,
    )


def _planned(spec: Mapping[str, Any]) -> int:
    return int((spec.get("budget") or {}).get("trials") or 0)
