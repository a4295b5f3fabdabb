"""How the board writes: what a round decides is logged at once in memory and committed whole, before any answer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sweeps import journal
from sweeps.groups import Group
from sweeps.history import History
from sweeps.round import Entry, Place

Heard = tuple[int, str, Entry]
"""What was reported of a trial: by which group, with what engine, what."""


class Ledger:
    """A journal and the history that it tells, kept alike.

    Args:
        book: the journal, open for writing.
        history: what it tells.
        guard: called before each write; raises when another driver has taken the sweep over.
        clock: seconds since 1970.
    """

    def __init__(
        self, book: journal.Journal, history: History, guard: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._journal, self._history, self._guard, self._clock = book, history, guard, clock
        self._unwritten: list[journal.Record] = []
        self.trouble = ""
        """What keeps it waiting, for people to see; empty when nothing does."""

    def log(self, kind: str, **fields: Any) -> None:
        """Note something that is true together with all else that the next `write` commits."""
        record = {"type": kind, "time": self._clock(), **fields}
        self._history.apply(record)
        self._unwritten.append(record)

    def write(self) -> None:
        """Commit what was logged. Memory is ahead of the disk here, so a full disk is waited out, never skipped."""
        while self._unwritten:
            try:
                self._guard()
                self._journal.append(self._unwritten)
            except OSError as error:
                if not (words := journal.trouble(error)):
                    raise
                self.trouble = f"{self._journal.path}: {words}"
                time.sleep(1.0)
            else:
                self._unwritten, self.trouble = [], ""

    def attached(self, group: int, incarnation: int, place: Place) -> None:
        """Log that a group has a worker, and where."""
        self.log("attach", optional=True, group=group, incarnation=incarnation, host=place.host, node=place.node,
                 pid=place.pid, device=place.device)  # fmt: skip

    def fault(self, member: Group, cause: str, words: str, moved: Iterable[int] = ()) -> None:
        """Log that a group has lost its worker, or its trials to other groups."""
        resident = {"resident": member.resident} if cause == "memory" else {}
        self.log("fault", optional=True, group=member.number, incarnation=member.incarnation, cause=cause, words=words,
                 moved=list(moved), **resident)  # fmt: skip

    def reports(self, heard: Iterable[Heard], waited: Mapping[int, float]) -> None:
        """Log a round's measurements, a record for each group, with the seconds for which it waited for others."""
        rows: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
        for group, engine, entry in heard:
            if entry.failed is None and not entry.returned and not entry.skipped:
                rows[group, engine].append(_row(entry, engine))
        for group, engine in sorted(rows):
            self.log("report", group=group, engine=engine, waited_s=round(waited.get(group, 0.0), 4),
                     trials=rows[group, engine])  # fmt: skip


def _row(entry: Entry, engine: str) -> dict[str, Any]:
    """A measurement as the journal has it."""
    row = {
        "trial": entry.number,
        "update": entry.update,
        "metrics": _numbers(entry.metrics),
        "score": journal.number(entry.score),
        "wall_s": entry.wall_s,
    }
    own = entry.engine if entry.engine != engine else None
    extra = {"init": entry.init and _numbers(entry.init), "doomed": entry.doomed, "engine": own,
             "fork_s": entry.fork_s}  # fmt: skip
    return row | {key: value for key, value in extra.items() if value}


def _numbers(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Metrics as JSON has them."""
    return {name: journal.number(value) for name, value in metrics.items()}
