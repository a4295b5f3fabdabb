"""Which group holds which trials, which groups have a worker, and what happened to those that had one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sweeps.causes import Restarts
from sweeps.round import Place

LOOK_AFTER = 3  # deaths in a row after which trials are trained one by one: one of them may be what kills workers
TWICE = 2  # a machine may fail while it trains an innocent trial
SLOW_S = 10.0  # whom a round has waited for so long is named


@dataclass(slots=True)
class Group:
    """One group: its trials, its worker."""

    number: int
    held: list[int] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    """Trials that its worker has been told of and not yet told to drop."""
    incarnation: int = 0
    attached: bool = False
    """Whether it has a worker that trains."""
    since: float = 0.0
    """When that began to be so, or ceased to be."""
    absent: bool = False
    """It had no worker for so long that its trials went to others; it gets none before it has one again."""
    lost: str = ""
    """Why it was given up."""
    done: bool = False
    """It was told that there is nothing more to do."""
    place: Place | None = None
    """Where its last worker ran."""
    resident: int | None = None
    """How many trials it may have in memory at once."""
    alone: bool = False
    """Whether its next worker shall find out which trial raises errors."""
    trying: int | None = None
    """The trial that its worker trains alone now, having said so before."""
    died_of: Counter[int] = field(default_factory=Counter)
    """How often a worker died while it trained this trial alone."""
    reported: float | None = None
    """When it last reported."""
    restarts: Restarts = field(default_factory=Restarts)

    def died(self, cause: str) -> tuple[bool, int | None]:
        """Its worker died. Whether it gets another, and the trial that is to blame, if there is one."""
        blamed, self.trying = self.trying, None
        if blamed is not None:
            self.died_of[blamed] += 1
            if self.died_of[blamed] < TWICE:
                blamed = None
        again = self.restarts.died(cause)
        if cause == "memory":
            self.resident = max(1, (self.resident or len(self.held)) // 2)
        self.alone = cause == "bug" or self.restarts.row >= LOOK_AFTER
        return again or blamed is not None, blamed

    @property
    def open(self) -> bool:
        """Whether it may be given trials."""
        return not self.lost and not self.absent and not self.done


class Groups:
    """All groups of a sweep.

    Args:
        count: how many.
        timer: monotonic seconds.
        absent_s: how long a group without worker is waited for.
    """

    def __init__(self, count: int, timer: Callable[[], float], absent_s: float) -> None:
        self._timer, self._absent_s = timer, absent_s
        self._groups = [Group(number, since=timer()) for number in range(count)]

    def __getitem__(self, group: int) -> Group:
        return self._groups[group]

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def lost(self) -> dict[int, str]:
        """Groups that were given up, with the reason."""
        return {group.number: group.lost for group in self._groups if group.lost}

    def began(self, number: int) -> Group:
        """A worker of a group trains from now on."""
        group = self._groups[number]
        group.attached, group.absent, group.done, group.lost, group.since = True, False, False, "", self._timer()
        return group

    def ended(self, number: int, since: float | None = None) -> Group:
        """A group has no worker any more, perhaps since some time; whoever still speaks for it is stale."""
        group = self._groups[number]
        group.incarnation += 1
        if group.attached:
            group.attached, group.since = False, self._timer() if since is None else since
        return group

    def left(self, number: int) -> None:
        """A group's worker was told to end."""
        self._groups[number].attached, self._groups[number].done = False, True

    def absentees(self) -> list[Group]:
        """Groups with trials that have been without a worker for too long, while another has one."""
        if not any(group.attached for group in self._groups):
            return []
        before = self._timer() - self._absent_s
        return [
            group
            for group in self._groups
            if group.held and not group.attached and group.open and group.since <= before
        ]

    def deal(self, numbers: Iterable[int], cost: Callable[[int], float]) -> dict[int, int]:
        """Give trials to groups that have a worker, each to the one with least to compute; returns who got which."""
        able = [group for group in self._groups if group.attached and group.open]
        load = {group.number: sum(map(cost, group.held)) for group in able}
        given = {}
        for number in numbers:
            to = min(able, key=lambda group: (load[group.number], group.number))
            to.held.append(number)
            load[to.number] += cost(number)
            given[number] = to.number
        return given

    def seat(self, costs: Sequence[float], slots: int, cost: Callable[[int], float]) -> list[int]:
        """Which group each of so many new trials goes to: the costliest is dealt first, to who has least to compute.

        A round lasts as long as its slowest group, so what is dealt badly has slots waiting until a trial ends.

        Args:
            costs: of the new trials, for which there are free slots.
            slots: of each group.
            cost: of a trial that a group holds.
        """
        free = {group.number: slots - len(group.held) for group in self._groups if group.open}
        load = {number: sum(map(cost, self._groups[number].held)) for number in free}
        dealt = [0] * len(costs)
        for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
            to = min((number for number in free if free[number] > 0), key=lambda number: (load[number], number))
            dealt[place] = to
            load[to] += costs[place]
            free[to] -= 1
        return dealt

    def waited(self) -> dict[int, float]:
        """Seconds since each group's last report."""
        now = self._timer()
        return {group.number: now - group.reported for group in self._groups if group.reported is not None}

    def level(self, waiting: Collection[int], slots: int) -> dict[int, int]:
        """Let groups with free slots have what others that wait hold beyond theirs; returns who got which."""
        full = [self._groups[number] for number in sorted(waiting) if len(self._groups[number].held) > slots]
        if not full:
            return {}
        free = [group for group in self._groups if group.attached and group.open and len(group.held) < slots]
        given = {}
        for group in full:
            while len(group.held) > slots and free:
                to = min(free, key=lambda one: (len(one.held), one.number))
                number = group.held.pop()
                to.held.append(number)
                given[number] = to.number
                free = [one for one in free if len(one.held) < slots]
        return given

    def status(self) -> list[dict[str, Any]]:
        """Each group as the live table shows it."""
        now = self._timer()
        return [
            {
                "group": group.number,
                "state": _state(group),
                "host": group.place.host if group.place else None,
                "device": group.place.device if group.place else None,
                "pid": group.place.pid if group.place else None,
                "trials": len(group.held),
                "since_report_s": None if group.reported is None else round(now - group.reported, 1),
                "restarts": group.restarts.total,
            }
            for group in self._groups
        ]

    def waiting(self, why: str, unheard: Collection[int], waited_s: float) -> str:
        """Which groups have no worker, and why; whom the others have waited for. In words, empty if there is nothing.

        Args:
            why: what a worker needs and what there is.
            unheard: groups that the round waits for.
            waited_s: since when.
        """
        late = self._timer() - (0.0 if why else self._absent_s)  # a worker of our own machine is just starting
        without = [group for group in self._groups if _state(group) == "waiting" and group.since <= late]
        told = []
        if without:
            names = ", ".join(str(group.number) for group in without[:5]) + (", ..." if len(without) > 5 else "")
            told.append(f"no worker for group{'s' * (len(without) > 1)} {names}" + (f": {why}" if why else ""))
        if waited_s > SLOW_S:
            slow = [self._groups[number] for number in sorted(unheard)]
            told += [
                f"waiting for group {group.number} on {group.place.host if group.place else '?'}, {waited_s:.0f} s"
                for group in slow[:3]
                if group.attached
            ]
        return "; ".join(told)


def _state(group: Group) -> str:
    """What a group is, in a word."""
    if group.lost:
        return "lost"
    return "placed" if group.attached else "done" if group.done else "waiting"


def cost(config: Mapping[str, Any]) -> float:
    """Arithmetic of one update of a trial, to balance groups by; nothing is known of a trainer of the user's own."""
    if "net" not in config:
        return 1.0
    widths = config["net"]["widths"]
    return float(config["batch"] * sum(a * b for a, b in pairwise(widths)))
