"""Which queued sweeps start now, and why the others wait: a pure function of the entries, the room and the rules.

By priority; within a priority whoever holds least of their share goes first; then by place in the queue. One that
cannot start keeps what it needs from those behind it: those of lower priority may only take what it could not use,
those of its own priority may go before it a few times. One that waits for its owner's quota keeps back its owner only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.queue import Entry

KINDS = ("cpus", "gpus", "sweeps")
_UNITS = {"cpus": ("CPU", "CPUs"), "gpus": ("GPU", "GPUs"), "sweeps": ("sweep", "sweeps")}
_ROUNDING = 1e-9
"""What sums of thirds of a GPU may be off by."""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is, may be had or is needed; without a number: no limit."""

    cpus: float = math.inf
    gpus: float = math.inf
    sweeps: float = math.inf

    def __add__(self, other: Room) -> Room:
        return Room(self.cpus + other.cpus, self.gpus + other.gpus, self.sweeps + other.sweeps)

    def __sub__(self, other: Room) -> Room:
        return Room(self.cpus - other.cpus, self.gpus - other.gpus, self.sweeps - other.sweeps)

    def short(self, need: Room) -> list[str]:
        """The kinds of which there is less than needed; what is not needed is never short."""
        return [kind for kind in KINDS if _ROUNDING < of(need, kind) > of(self, kind) + _ROUNDING]

    def least(self, other: Room) -> Room:
        """The smaller of both, kind by kind."""
        return Room(*(min(of(self, kind), of(other, kind)) for kind in KINDS))


NOTHING = Room(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a target is shared."""

    target: Room = field(default_factory=Room)
    """What all may have at once."""
    owners: Mapping[str, Room] = field(default_factory=dict)
    """What each of these owners may have at once."""
    anyone: Room = field(default_factory=Room)
    """What an owner not among them may have at once."""
    backfill: int = 4
    """How often sweeps of its own priority may start before one that waits for room."""
    preempt: bool = False
    """Whether sweeps of lower priority are stopped, to go on later, for one that waits for room."""

    def of(self, owner: str) -> Room:
        """What an owner may have at once."""
        return self.owners.get(owner, self.anyone)


@dataclass(frozen=True, slots=True)
class Start:
    """A sweep to start, with how many workers, and those of its priority that it overtakes."""

    id: str
    workers: int
    passing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do now."""

    start: list[Start] = field(default_factory=list)
    stop: dict[str, str] = field(default_factory=dict)
    """Sweeps to stop, each with the id of the one it makes room for."""
    why: dict[str, str] = field(default_factory=dict)
    """Why each of the others waits."""


def of(room: Room, kind: str) -> float:
    """The number of one kind."""
    return float(getattr(room, kind))


def need(entry: Entry, workers: int) -> Room:
    """What an entry holds with so many workers."""
    share = workers / entry.workers
    return Room(entry.cpus * share, entry.gpus * share, 1.0)


def held(entries: Iterable[Entry]) -> Room:
    """What entries under way hold together."""
    return sum((need(each, each.granted or each.workers) for each in entries), NOTHING)


class _Pool:
    """Room that is shared: a limit, what of it is free, and those that wait for it, in order of priority."""

    def __init__(self, limit: Room, used: Room) -> None:
        self.limit, self.free, self.used = limit, limit - used, used
        self.heads: list[Entry] = []
        self._left: Room | None = None
        self._above: dict[int, Room] = {}

    def left(self) -> Room:
        """What those that wait leave to others: nothing of what they lack, of the rest what they do not need."""
        if self._left is None:
            self._left = self.without(self.heads, self.free)
        return self._left

    def left_above(self, priority: int) -> Room:
        """What those of a higher priority leave."""
        if priority not in self._above:
            self._above[priority] = self.without([each for each in self.heads if each.priority > priority], self.free)
        return self._above[priority]

    def left_of(self, free: Room) -> Room:
        """What would be left if so much were free."""
        return self.without(self.heads, free)

    @staticmethod
    def without(heads: Iterable[Entry], rest: Room) -> Room:
        """Room less what is kept for those that wait."""
        for head in heads:
            lacks, wants = rest.short(need(head, head.least)), need(head, head.workers)
            rest = Room(*(_kept(of(rest, kind), of(wants, kind), kind in lacks) for kind in KINDS))
        return rest

    def wait(self, head: Entry) -> None:
        """Have one more wait."""
        self._left = self.without([head], self.left())
        self.heads.append(head)

    def take(self, needed: Room) -> None:
        """Give room away."""
        self.free, self.used = self.free - needed, self.used + needed
        self._left, self._above = None, {}


def _kept(rest: float, wanted: float, lacking: bool) -> float:
    return min(rest, 0.0) if lacking else rest if wanted <= _ROUNDING else max(0.0, rest - wanted)


def choose(entries: Iterable[Entry], capacity: Room, rules: Rules, running: Sequence[Entry]) -> Choice:
    """Decide which of the queued entries start, given those that are under way.

    Args:
        entries: queued ones that may be started.
        capacity: all the room of the place, used or not.
        rules: quotas and manners.
        running: those that hold room, also those that are being stopped.
    """
    return _Choosing(capacity, rules, running).run(sorted(entries, key=lambda each: each.seq))


class _Choosing:
    """One choice in the making."""

    def __init__(self, capacity: Room, rules: Rules, running: Sequence[Entry]) -> None:
        self.capacity, self.rules, self.running = capacity, rules, running
        self.target, self.owners = _Pool(capacity.least(rules.target), held(running)), dict[str, _Pool]()
        self.holders = [(each, each.granted or each.workers) for each in running]
        self.leaving = held(each for each in running if each.wanted)
        self.choice, self._names = Choice(), dict[tuple[object, ...], str]()

    def run(self, waiting: list[Entry]) -> Choice:
        for priority in sorted({each.priority for each in waiting}, reverse=True):
            lines: dict[str, deque[Entry]] = {}
            for entry in waiting:
                if entry.priority == priority:
                    lines.setdefault(entry.owner, deque()).append(entry)
            while lines:
                owner = min(lines, key=lambda each: (self._share(each), lines[each][0].seq))
                self._decide(lines[owner].popleft())
                if not lines[owner]:
                    del lines[owner]
        return self.choice

    def _owner(self, owner: str) -> _Pool:
        if owner not in self.owners:
            used = held(each for each in self.running if each.owner == owner)
            self.owners[owner] = _Pool(self.rules.of(owner), used)
        return self.owners[owner]

    def _share(self, owner: str) -> float:
        """How much of what is theirs an owner holds, of the kind of which they hold most."""
        pool = self._owner(owner)
        limits = pool.limit.least(self.target.limit)
        return max(of(pool.used, kind) / of(limits, kind) if of(limits, kind) > 0 else 0.0 for kind in KINDS)

    def _decide(self, entry: Entry) -> None:
        """Start an entry, or have it wait and say why."""
        least, own = need(entry, entry.least), self._owner(entry.owner)
        if why := self._never(entry, least, own):
            self.choice.why[entry.id] = why
            return
        room, passing = Room(), dict[str, int]()
        for pool in (own, self.target):
            there = pool.left()
            if there.short(least):
                there = pool.left_above(entry.priority)
                passing |= {each.id: each.passed for each in pool.heads if each.priority == entry.priority}
            room = room.least(there)
        room = room.least(_Pool.without(self._above(entry, own), self.target.free))
        if room.short(least) or self._exhausted(passing):
            self._wait(entry, least, own)
            return
        workers = next(n for n in range(entry.workers, 0, -1) if n == entry.least or not room.short(need(entry, n)))
        for pool in (own, self.target):
            pool.take(need(entry, workers))
        self.holders.append((entry, workers))
        self.choice.start.append(Start(entry.id, workers, tuple(passing)))

    def _above(self, entry: Entry, own: _Pool) -> list[Entry]:
        """Those of the same owner and of higher priority that wait for their quota: others need not wait for them."""
        everybodys = {id(head) for head in self.target.heads}
        return [each for each in own.heads if each.priority > entry.priority and id(each) not in everybodys]

    def _exhausted(self, passing: Mapping[str, int]) -> bool:
        """Whether one of these was overtaken often enough."""
        now = [id_ for start in self.choice.start for id_ in start.passing]
        return any(passed + now.count(id_) >= self.rules.backfill for id_, passed in passing.items())

    def _never(self, entry: Entry, least: Room, own: _Pool) -> str:
        """Why an entry could not start even if nothing else were there; empty if it could."""
        for kind in own.limit.short(least):
            may = f"quota: {entry.owner} may have {_amount(own.limit, kind)} at once"
            return f"{may}; this needs {_amount(least, kind)}"
        for kind in self.capacity.short(least):
            return f"needs {_amount(least, kind)}; there are {_number(of(self.capacity, kind))} in all"
        for kind in self.target.limit.short(least):
            return f"quota: all may have {_amount(self.target.limit, kind)} at once; this needs {_amount(least, kind)}"
        return ""

    def _wait(self, entry: Entry, least: Room, own: _Pool) -> None:
        """Keep what an entry needs from those behind it, and say what it waits for."""
        if lacking := own.free.short(least):
            why = self._for_quota(entry, lacking[0], own)
        elif own.left_above(entry.priority).short(least) or self._full(own, entry, least):
            why = f"quota: {_behind(own.heads, entry, least)}"
        elif not self.target.left().short(least) and (above := self._above(entry, own)):
            why = f"quota: {_behind(above, entry, least)}"
        else:
            lacking = self.target.free.short(least)
            why = self._for_room(least, lacking[0]) if lacking else _behind(self.target.heads, entry, least)
            why += self._make_room(entry, least)
            self.target.wait(entry)
        own.wait(entry)
        self.choice.why[entry.id] = why

    def _full(self, own: _Pool, entry: Entry, least: Room) -> bool:
        """Whether those of its own owner and priority have been overtaken often enough."""
        equal = {each.id: each.passed for each in own.heads if each.priority == entry.priority}
        return bool(own.left().short(least)) and self._exhausted(equal)

    def _for_quota(self, entry: Entry, kind: str, own: _Pool) -> str:
        may = f"{entry.owner} may have {_amount(own.limit, kind)} at once and has {_number(of(own.used, kind))}"
        return f"quota: {may}: {self._named(kind, entry.owner)}"

    def _for_room(self, least: Room, kind: str) -> str:
        there = f"{_number(of(self.target.used, kind))} of {_number(of(self.target.limit, kind))}"
        return f"waiting for {_amount(least, kind)}: {there} are held by {self._named(kind)}"

    def _named(self, kind: str, owner: str | None = None) -> str:
        """Who holds something, most first, in words."""
        key = (kind, owner, len(self.holders))
        if key not in self._names:
            self._names[key] = self._listed(kind, owner)
        return self._names[key]

    def _listed(self, kind: str, owner: str | None) -> str:
        holding = [
            (-of(need(each, workers), kind), each.seq, f"{each.id} (priority {each.priority})")
            for each, workers in self.holders
            if of(need(each, workers), kind) > 0 and owner in (None, each.owner)
        ]
        names = [words for _, _, words in sorted(holding)]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    def _make_room(self, entry: Entry, least: Room) -> str:
        """Have sweeps of lower priority stopped for an entry, as few as will do; say which."""
        soon = self.target.free + self.leaving
        if not self.rules.preempt or not self.target.left_of(soon).short(least):
            return ""
        may = [e for e in self.running if e.priority < entry.priority and not e.wanted and e.id not in self.choice.stop]
        chosen: list[Entry] = []
        for victim in sorted(may, key=lambda each: (each.priority, -each.seq)):
            chosen.append(victim)
            if not self.target.left_of(soon + held(chosen)).short(least):
                break
        else:
            return ""
        for victim in reversed(chosen[:-1]):
            fewer = [each for each in chosen if each is not victim]
            if not self.target.left_of(soon + held(fewer)).short(least):
                chosen = fewer
        self.leaving += held(chosen)
        self.choice.stop.update({each.id: entry.id for each in chosen})
        return f"; {', '.join(each.id for each in chosen)} is being stopped for it"


def _behind(heads: Sequence[Entry], entry: Entry, least: Room) -> str:
    """Whom an entry waits behind: the first that wants what it needs."""
    wants = (each for each in heads if any(of(need(each, 1), kind) * of(least, kind) > 0 for kind in KINDS[:2]))
    head = next(wants, heads[0] if heads else entry)
    return f"behind {head.id} (priority {head.priority}), which waits for {_all(need(head, head.least))}"


def _all(room: Room) -> str:
    return " and ".join(_amount(room, kind) for kind in KINDS[:2] if of(room, kind) > 0) or "a place"


def _amount(room: Room, kind: str) -> str:
    number = of(room, kind)
    return f"{_number(number)} {_UNITS[kind][number != 1]}"


def _number(number: float) -> str:
    return f"{number:.6g}"
