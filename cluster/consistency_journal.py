"""A journal under the magnifying glass: what is damaged, what contradicts itself, and what could be saved of it.

Pure functions of the file's bytes. Salvage keeps, in order, every record that still follows from those before it: what
an `ask` that is lost had begun goes with it, and is asked for again by the next driver.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps import journal
from sweeps.history import END_STATES, History, trial_id
from sweeps.journal import Fence, JournalError, Record


@dataclass(slots=True)
class Audit:
    """What is known of a journal."""

    size: int
    commits: int = 0
    """Sound ones that count."""
    stale: int = 0
    """Sound ones that a writer wrote after another had taken over: they do not count."""
    damage: list[tuple[int, int]] = field(default_factory=list)
    """Damaged stretches with sound commits after them: where each begins and ends, in bytes."""
    tail: tuple[int, bool] | None = None
    """A damaged end: where it begins, and whether it is torn as a crash tears (no newline)."""
    wrong: list[str] = field(default_factory=list)
    """Records that contradict those before them."""
    newer: str = ""
    """Why this musweep is too old for it."""
    history: History = field(default_factory=History)
    """What the records say that do not contradict others."""
    refilled: int = 0
    """Records that were lost here and are told elsewhere."""
    saved: bytes = b""
    """The journal after a salvage."""
    lost: set[int] = field(default_factory=set)
    """Trials that salvage would lose wholly."""
    reopened: set[int] = field(default_factory=set)
    """Trials of which salvage would lose the end."""

    @property
    def sound(self) -> bool:
        """Whether nothing but a torn end is wrong with it."""
        return not (self.damage or self.wrong or self.newer)


def audit(data: bytes, told: Sequence[Record] = ()) -> Audit:
    """Examine a journal's bytes.

    Args:
        data: all of it.
        told: records in order that others tell of it, put where they belong if it has lost them.
    """
    lines = list(_lines(data))
    found = Audit(len(data))
    last = max((index for index, (_, _, commit) in enumerate(lines) if commit is not None), default=-1)
    replay, fence, kept, filler = _Replay(found), Fence(), list[bytes](), _Filler(lines, told)
    hurt = False
    for index, (start, end, commit) in enumerate(lines):
        if (commit is None and index < last) or (index == 0 and not _opens(commit)):
            hurt = hurt or commit is None
            if fill := replay.commit(filler.before(index), start, False):
                found.refilled += len(fill)
                kept.append(journal.encode(fill))
        if commit is None:
            if index > last:
                found.tail = found.tail or (start, data[-1:] != b"\n")
            elif found.damage and found.damage[-1][1] == start:
                found.damage[-1] = found.damage[-1][0], end
            else:
                found.damage.append((start, end))
            continue
        if not fence.admits(commit):
            found.stale += 1
            continue
        found.commits += 1
        left = replay.commit(commit, start, hurt)
        hurt = hurt or left != commit
        if left == commit:
            kept.append(data[start:end])
        elif left:
            kept.append(journal.encode(left, commit[0].get("epoch")))
    running = [trial for trial in found.history.trials.values() if trial.state == "running"]
    if not hurt and running and found.history.closed == "finished":
        named = _named({trial.number for trial in running})
        found.wrong.append(f"{named} never ended, though the sweep was closed as finished")
    found.saved = b"".join(kept)
    found.reopened = {trial.number for trial in running} if hurt else set()
    found.lost -= found.history.trials.keys()
    return found


def _opens(commit: list[Record] | None) -> bool:
    return bool(commit) and commit is not None and commit[0]["type"] == "open"


class _Filler:
    """Records that others tell of, by their place between those that the journal still has."""

    def __init__(self, lines: Sequence[tuple[int, int, list[Record] | None]], told: Sequence[Record]) -> None:
        self._lines, self._told, self._done = lines, told, 0
        self._place = {_key(record): place for place, record in enumerate(told)}
        self._present = {_key(record) for _, _, commit in lines for record in commit or ()}

    def before(self, index: int) -> list[Record]:
        """What belongs before the next record after this line that is told of, too."""
        later = (_key(record) for _, _, commit in self._lines[index:] for record in commit or ())
        until = next((self._place[key] for key in later if key in self._place), len(self._told))
        found = [record for record in self._told[self._done : until] if _key(record) not in self._present]
        self._done = max(self._done, until)
        return found


def _key(record: Record) -> tuple[Any, ...]:
    """What tells a record from all others, but for reports."""
    return record["type"], *(record.get(name) for name in ("time", "trial", "group", "update"))


def _lines(data: bytes) -> Iterator[tuple[int, int, list[Record] | None]]:
    """Begin, end and commit of each line, None where it is damaged."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1
        yield start, end or len(data), _commit(data[start : end - 1]) if end else None
        start = end or len(data)


def newest_epoch(data: bytes) -> int:
    """The newest epoch that any sound commit carries."""
    sound = (record for _, _, commit in _lines(data) for record in commit or ())
    return max((record["epoch"] for record in sound if isinstance(record.get("epoch"), int)), default=0)


def _commit(line: bytes) -> list[Record] | None:
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        commit = json.loads(line[9:])
    except ValueError:
        return None
    sound = isinstance(commit, list) and all(isinstance(r, dict) and isinstance(r.get("type"), str) for r in commit)
    return commit if sound else None


class _Replay:
    """Folds records into a history and says which of them do not follow."""

    def __init__(self, found: Audit) -> None:
        self.found, self.history = found, found.history

    def commit(self, commit: list[Record], start: int, hurt: bool) -> list[Record]:
        """The records of a commit that follow; once something is lost, words such as `finished` are no longer true."""
        left = []
        for record in commit:
            if hurt and record["type"] == "close":
                continue
            taken, why = self.take(record)
            if why:
                self.found.wrong.append(f"byte {start}: {why}")
            if taken is not None:
                left.append(taken)
        return left

    def take(self, record: Record) -> tuple[Record | None, str]:
        """Fold in a record: what of it follows (None: nothing), and why not all of it."""
        kind, trials = record["type"], self.history.trials
        try:
            why = ""
            if kind == "report":
                record, why = self._report(record)
                if not record["trials"]:
                    return None, why
            elif kind in ("promote", "end") and record["trial"] not in trials:
                return None, f"{kind} of {trial_id(record['trial'])}, which was never asked for"
            elif kind == "end" and trials[record["trial"]].state != "running":
                return None, f"{trial_id(record['trial'])} ends a second time"
            elif kind == "end" and record["state"] not in END_STATES:
                return None, f"{trial_id(record['trial'])} ends as {record['state']!r}"
            elif kind == "ask" and record["trial"] != len(trials):
                self.found.lost.add(record["trial"])
                return None, f"{trial_id(record['trial'])} is asked for where {trial_id(len(trials))} is due"
            elif kind == "retry" and not set(record["trials"]) <= trials.keys():
                return None, "retry of trials that were never asked for"
            elif kind == "open" and record["format"] > journal.FORMAT:
                self.found.newer = f"its format is {record['format']}, this musweep reads up to {journal.FORMAT}"
                return None, self.found.newer
            elif not self.history.sweep_id and kind != "open":
                why = f"{kind} before the sweep was opened"
            self.history.apply(record)
        except JournalError as error:
            self.found.newer = str(error)
            return None, str(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return None, f"a record of type {kind} lacks what it needs ({type(error).__name__}: {error})"
        return record, why

    def _report(self, record: Record) -> tuple[Record, str]:
        trials, entries, wrong = self.history.trials, [], set()
        for entry in record["trials"]:
            known = trials.get(entry["trial"])
            if known is None:
                wrong.add(entry["trial"])
                self.found.lost.add(entry["trial"])
            elif known.state != "running":
                wrong.add(entry["trial"])
            else:
                entries.append(entry)
        if not wrong:
            return record, ""
        return {**record, "trials": entries}, f"report of {_named(wrong)}, not running then"


def _named(numbers: set[int]) -> str:
    """Some trials by name, in few words."""
    names = [trial_id(number) for number in sorted(numbers)]
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def losses(found: Audit) -> str:
    """In words what a salvage would lose."""
    octets = sum(end - start for start, end in found.damage)
    elsewhere = (
        f", of which events.jsonl still has {found.refilled} records, though no measurements" if found.refilled else ""
    )
    parts = [f"{octets} bytes of commits{elsewhere}"] if octets else []
    if found.lost:
        parts.append(f"{_named(found.lost)} wholly (asked for again)")
    if found.reopened:
        parts.append(f"the last words of {_named(found.reopened)} (trained on, or again)")
    return "; ".join(parts) or "nothing but what contradicts the rest"


def sound_records(data: bytes) -> list[Record]:
    """All records of sound commits."""
    return [record for _, _, commit in _lines(data) for record in commit or ()]
