"""Why a group's worker died, and how often it is started again: by cause, as long as it gets anything done."""

from __future__ import annotations

import re
from dataclasses import dataclass

CAUSES = ("preempted", "memory", "infrastructure", "hung", "bug")
LIMITS = {"preempted": 10, "memory": 10, "infrastructure": 10, "hung": 3, "bug": 3}
"""Deaths in a row, with no report settled between them, after which a group is given up."""
LONGEST_DELAY_S = 15.0

_PREEMPTED = re.compile(r"preempt|spot interruption", re.IGNORECASE)
_MEMORY = re.compile(
    r"OutOfMemoryError|MemoryError|out of memory|memory monitor|\(OOM\)|bad_alloc|Cannot allocate memory|"
    r"CUBLAS_STATUS_ALLOC_FAILED"
)
_RAISED = re.compile(r"raised in its creation task|Traceback|\(pid=\d+")
_LOST = re.compile(
    r"StaleWorkerError|Actor(Died|Unavailable)Error|WorkerCrashedError|NodeDiedError|ObjectLost|OwnerDied|"
    r"ObjectFetchTimedOut|RaySystemError|RpcError|GetTimeoutError|Connection(Reset|Refused|Aborted)?Error|"
    r"BrokenPipeError|TimeoutError|PassingError|StorageError|"
    r"\[Errno (5|28|110|112|113|116|121|122)\]|Stale file handle|CUDA error: (unknown|unspecified|ECC|uncorrectable)"
)
"""Faults of machines, networks and disks in the words of an exception; 5 EIO, 28 ENOSPC, 110 ETIMEDOUT, 116 ESTALE."""


def cause_of(text: str) -> str:
    """The cause of a death, from the words of Ray's or Python's exception."""
    if _PREEMPTED.search(text):
        return "preempted"
    raised = bool(_RAISED.search(text))
    last = last_line(text) if raised else text  # source lines of a traceback may say anything
    if _MEMORY.search(last):
        return "memory"
    return "infrastructure" if not raised or _LOST.search(last) else "bug"


def last_line(text: str) -> str:
    """An exception's own words, the last line of its traceback."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def words_of(text: str) -> str:
    """A death in one line."""
    if not text.strip():
        return "its process died"
    if _RAISED.search(text):
        return last_line(text)
    telling = [
        line.strip()
        for line in text.splitlines()
        if not re.match(r"\s*(class_name|actor_id|pid|name|namespace|ip):|The actor died unexpectedly", line)
    ]
    return next((line for line in telling if line), last_line(text))[:300]


@dataclass(slots=True)
class Restarts:
    """One group's deaths in a row; what it has got done ends the row."""

    total: int = 0
    row: int = 0
    same: int = 0
    """How many of the row's last have one cause."""
    cause: str = ""

    def died(self, cause: str) -> bool:
        """Count a death; False if the group is to be given up."""
        self.total += 1
        self.row += 1
        self.same = self.same + 1 if cause == self.cause else 1
        self.cause = cause
        return self.same < LIMITS[cause] and self.row < max(LIMITS.values())

    def progressed(self) -> None:
        """A report of the group was settled."""
        self.row = self.same = 0

    @property
    def delay_s(self) -> float:
        """How long to wait before the next start: not at all after a first death, then longer and longer."""
        return min(LONGEST_DELAY_S, 0.5 * 2.0 ** (self.row - 2)) if self.row > 1 else 0.0
