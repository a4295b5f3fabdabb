"""Which workers are no longer at work: silent ones, whose beats stop, and stuck ones, that beat and get nothing done.

A worker beats every few seconds, and says how much time of its processors it has used. So one that computes for an
hour between two reports is not taken for one that hangs, and one whose machine or network is gone is found long before
its cluster gives it up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sweeps.round import Place

BEAT_S = 2.0
SILENT_S = 20.0  # beats are late on busy machines; of a worker that is silent for so long nothing is expected
BUSY_SHARE = 0.05  # of one processor: beating itself takes less
LATE = 20.0  # a busy worker is stuck when a report takes so many times the longest that was seen
LOOK_S = 1.0


@dataclass(slots=True)
class Watched:
    """A worker since it has entered its group."""

    place: Place
    beat: float
    used_s: float = 0.0
    """Seconds of processors it had used by its last beat."""
    busy: float = 0.0
    """When it last computed."""
    began: float = 0.0
    """When it was last given something to do."""
    waits: bool = False
    """It has reported, and has nothing to do before it is answered."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A worker to be ended."""

    group: int
    cause: str
    words: str
    since: float
    """Since when nothing was heard of it."""
    place: Place


class Watchdog:
    """Watches all workers of a sweep.

    Args:
        timer: monotonic seconds.
        patience_s: how long a worker may neither report nor compute.
        silent_s: how long it may be without a beat.
    """

    def __init__(self, timer: Callable[[], float], patience_s: float, silent_s: float = SILENT_S) -> None:
        self._timer, self._patience_s, self._silent_s = timer, patience_s, silent_s
        self._watched: dict[int, Watched] = {}
        self._longest = 0.0
        """The longest that a report took."""
        self._looked = timer()

    def entered(self, group: int, place: Place) -> None:
        """A worker has entered a group."""
        now = self._timer()
        self._watched[group] = Watched(place, now, busy=now, began=now)

    def gone(self, group: int) -> None:
        """A group has no worker to watch."""
        self._watched.pop(group, None)

    def beat(self, group: int, used_s: float) -> None:
        """A group's worker beats; it has used so many seconds of processors."""
        now = self._timer()
        if (worker := self._watched.get(group)) is not None:
            if used_s - worker.used_s >= BUSY_SHARE * max(now - worker.beat, BEAT_S / 2):
                worker.busy = now
            worker.beat, worker.used_s = now, used_s

    def reported(self, group: int) -> None:
        """A group's worker has reported and waits."""
        if (worker := self._watched.get(group)) is not None:
            worker.beat = self._timer()
            self._longest = max(self._longest, worker.beat - worker.began)
            worker.waits = True

    def answered(self, group: int) -> None:
        """A group's worker has something to do."""
        if (worker := self._watched.get(group)) is not None:
            worker.began, worker.waits = self._timer(), False

    def look(self) -> list[Suspect]:
        """Workers to be ended, which are watched no longer; call it every `LOOK_S` seconds."""
        now, before = self._timer(), self._looked
        self._looked = now
        if now - before > 5 * LOOK_S:  # it is we who were held up: beats may be waiting to be heard
            for worker in self._watched.values():
                worker.beat = worker.busy = now
            return []
        found = [one for group, worker in self._watched.items() if (one := self._suspect(group, worker, now))]
        for one in found:
            self.gone(one.group)
        return found

    def _suspect(self, group: int, worker: Watched, now: float) -> Suspect | None:
        silent, idle, at_it = now - worker.beat, now - max(worker.busy, worker.began), now - worker.began
        if silent > self._silent_s:
            cause, words = "infrastructure", f"no sign of life for {silent:.0f} s"
        elif not worker.waits and idle > self._patience_s:
            cause, words = "hung", f"no report for {at_it:.0f} s and no computing for {idle:.0f} s"
        elif not worker.waits and self._longest and at_it > max(self._patience_s, LATE * self._longest):
            cause, words = "hung", f"no report for {at_it:.0f} s; the longest took {self._longest:.1f} s"
        else:
            return None
        words = f"{words} (process {worker.place.pid} on {worker.place.host})"
        return Suspect(group, cause, words, worker.beat, worker.place)
