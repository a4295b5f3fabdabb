"""How busy a sweep's slots were while it searched, folded from its journal.

A slot is busy while its group trains a round that has a trial of it: a round of n trials that took w seconds of
training kept n slots busy for w seconds, whether they were trained together or in turns. Training a trial's forks, such
as those that rungs compare, is training. All else is not: measuring, checkpoints, messages, waiting for the board or
for other groups' rounds, a slot without a trial, a group without a worker. What a lost worker trained and never
reported counts as without a worker.

The search lasts from its first worker's attaching until its last trial has ended. Refilling can be judged until its
last trial was asked for: after that a freed slot stays empty whatever one does. Pauses between drivers do not count,
nor do other stages after the search; their trials that fill slots while the search's last ones train count as any do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.stages import SEARCH


@dataclass(frozen=True, slots=True)
class Shares:
    """What became of the slot-seconds of so many seconds: shares that add up to 1."""

    seconds: float
    training: float
    forking: float
    """Training forks."""
    measuring: float
    """A trial was there and was measured, stored, reported or decided upon."""
    waiting: float
    """A trial had been reported and waited for the reports of other groups."""
    empty: float
    """A worker was there, but no trial."""
    without: float
    """No worker was there: it was starting, or was lost with what it had not reported."""

    @property
    def busy(self) -> float:
        """The share in which a slot's trial was in training, or its fork."""
        return self.training + self.forking

    @property
    def rest(self) -> dict[str, float]:
        """The other shares by their names for people, the largest first."""
        named = {
            "measuring, storing and deciding": self.measuring,
            "waiting for other groups": self.waiting,
            "empty": self.empty,
            "without a worker, as at the start": self.without,
        }
        return dict(sorted(named.items(), key=lambda item: -item[1]))


@dataclass(slots=True)
class Spell:
    """Seconds of groups that trained equally many trials, and of these the seconds spent in each way that is known."""

    whole: float = 0.0
    training: float = 0.0
    forking: float = 0.0
    waiting: float = 0.0

    def add(self, other: Spell, part: float = 1.0) -> None:
        """Take in a part of others."""
        self.whole += part * other.whole
        self.training += part * other.training
        self.forking += part * other.forking
        self.waiting += part * other.waiting


@dataclass(slots=True)
class Book:
    """What groups did, in seconds since the book was begun, with a mark to which it can be set back."""

    now: float = 0.0
    spells: defaultdict[int, Spell] = field(default_factory=lambda: defaultdict(Spell))
    """By the number of trials that a group trained."""
    begun: dict[int, float] = field(default_factory=dict)
    """Groups that have a worker, and when each began what it is in the middle of."""
    marked: Book | None = None
    """The book as it stood at the mark; what groups were in the middle of is added when they have come to its end."""

    def mark(self) -> None:
        """Put the mark here."""
        self.marked = Book(self.now, defaultdict(Spell), dict(self.begun))
        for count, spell in self.spells.items():
            self.marked.spells[count].add(spell)

    def set_back(self) -> None:
        """What came after the mark, or all without one, is forgotten. No group may be in the middle of anything."""
        marked = self.marked or Book()
        self.now, self.spells = marked.now, marked.spells
        if self.marked is not None:
            self.mark()

    def tell(self, group: int, count: int, *parts: float) -> None:
        """A group with so many trials has come to the end of something, and begins the next.

        Args:
            parts: seconds of it spent training, training forks and waiting.
        """
        whole = left = self.now - self.begun[group]
        kept = []
        for part in parts:
            kept.append(min(part, left))  # clocks can be set back
            left -= kept[-1]
        spell = Spell(whole, *kept)
        self.spells[count].add(spell)
        if self.marked is not None and group in self.marked.begun and whole > 0:  # evenly, as more is not known
            began = self.marked.begun.pop(group)
            self.marked.spells[count].add(spell, (self.marked.now - began) / whole)
        self.begun[group] = self.now

    def lose(self, group: int) -> None:
        """A group has no worker any more, and nobody will tell of what it was in the middle of."""
        self.begun.pop(group, None)
        if self.marked is not None:
            self.marked.begun.pop(group, None)

    def shares(self, groups: int, slots: int, idle: Counter[int]) -> Shares | None:
        """What became of all slot-seconds, but for those that nobody has told of yet; None where there are none.

        Args:
            groups: how many there are to be, with so many slots each.
            idle: the trials of each group; what has none has nothing to tell of.
        """
        untold = sum(self.now - since for group, since in self.begun.items() if idle[group])
        whole = slots * (groups * self.now - untold)
        if whole <= 0:
            return None
        training = forking = measuring = waiting = 0.0
        empty = slots * sum(self.now - since for group, since in self.begun.items() if not idle[group])
        for count, spell in self.spells.items():
            filled = min(count, slots)  # those beyond were taken over from a group that has no worker
            training += filled * spell.training
            forking += filled * spell.forking
            waiting += filled * spell.waiting
            measuring += filled * (spell.whole - spell.training - spell.forking - spell.waiting)
            empty += (slots - filled) * spell.whole
        known = training, forking, measuring, waiting, empty
        return Shares(self.now, *(part / whole for part in (*known, max(0.0, whole - sum(known)))))


@dataclass(slots=True)
class Busy:
    """Folds a journal, record by record."""

    _asked: Book = field(default_factory=Book)
    """Marked where the search's last trial was asked for."""
    _ended: Book = field(default_factory=Book)
    """Marked where the search's last trial has ended."""
    _clock: float | None = None
    """The latest time among the present driver's records; None before its first worker has attached."""
    _holder: dict[int, int] = field(default_factory=dict)
    """Which group has a trial that has not ended."""
    _held: Counter[int] = field(default_factory=Counter)
    """How many such trials each group has."""
    _search: set[int] = field(default_factory=set)
    """All trials of the search."""
    _left: int = 0
    """Trials of the search that have not ended."""

    def until_asked(self, groups: int, slots: int) -> Shares | None:
        """The time until the search's last trial was asked for; None where all were when the first worker came."""
        return self._asked.marked.shares(groups, slots, self._held) if self._asked.marked else None

    def until_ended(self, groups: int, slots: int) -> Shares | None:
        """The whole search, so far; None before its first worker has come."""
        book = self._ended if self._left else self._ended.marked
        return book.shares(groups, slots, self._held) if book else None

    def apply(self, record: Mapping[str, Any]) -> None:
        """Fold in one journal record."""
        kind = record["type"]
        if self._clock is not None and "time" in record:
            later = max(self._clock, record["time"])  # clocks can be set back
            for book in self._books:
                book.now += later - self._clock
            self._clock = later
        if kind in ("open", "close"):
            self._driver()
        elif kind == "extend":
            self._more()
        elif kind in _HANDLERS:
            _HANDLERS[kind](self, record)

    @property
    def _books(self) -> tuple[Book, Book]:
        return self._asked, self._ended

    def _leave(self, group: int) -> None:
        for book in self._books:
            if group in book.begun and not self._held[group]:
                book.tell(group, 0)
            book.lose(group)

    def _hold(self, number: int, group: int | None) -> None:
        """A trial goes to a group; None: it has ended, or it is not known where it is."""
        if (old := self._holder.pop(number, None)) is not None:
            self._held[old] -= 1
            for book in self._books:
                if not self._held[old] and old in book.begun:
                    book.tell(old, 1)
        if group is None:
            return
        if not self._held[group]:
            for book in self._books:
                if group in book.begun:
                    book.tell(group, 0)
        self._holder[number] = group
        self._held[group] += 1

    def _driver(self) -> None:
        """A driver has come or gone; what others did after the search is not its time."""
        for group in {*self._asked.begun, *self._ended.begun}:
            self._leave(group)
        self._clock = None
        if not self._left:
            self._ended.set_back()

    def _attach(self, record: Mapping[str, Any]) -> None:
        self._clock = record["time"] if self._clock is None else self._clock
        self._leave(record["group"])
        for book in self._books:
            book.begun[record["group"]] = book.now

    def _ask(self, record: Mapping[str, Any]) -> None:
        self._hold(record["trial"], record["group"])
        if record["stage"] == SEARCH:
            self._search.add(record["trial"])
            self._left += 1
            self._asked.mark()

    def _report(self, record: Mapping[str, Any]) -> None:
        group, entries = record["group"], record["trials"]
        for entry in entries:
            if self._holder.get(entry["trial"]) != group:
                self._hold(entry["trial"], group)
        training, forking = (sum(entry.get(key, 0.0) for entry in entries) for key in ("wall_s", "fork_s"))
        for book in self._books:
            if group in book.begun:
                book.tell(group, len(entries), training, forking, record.get("waited_s", 0.0))

    def _end(self, record: Mapping[str, Any]) -> None:
        self._hold(record["trial"], None)
        self._left -= record["trial"] in self._search
        if not self._left and record["trial"] in self._search:
            self._ended.mark()

    def _retry(self, record: Mapping[str, Any]) -> None:
        for place, number in enumerate(record["trials"]):
            self._hold(number, place)
            self._left += number in self._search
        self._more()

    def _fault(self, record: Mapping[str, Any]) -> None:
        if not record.get("moved"):
            self._leave(record["group"])
        for number in record.get("moved", ()):
            self._hold(number, None)

    def _more(self) -> None:
        """There is more to ask for: since it was thought that there was not, nothing could be refilled."""
        for group in [*self._asked.begun]:
            self._leave(group)
        self._asked.set_back()


def sentence(spec: Mapping[str, Any], busy: Busy) -> str:
    """How busy a sweep's slots were, and what else became of them; empty where it is not known.

    Args:
        spec: as plain values, with what was chosen automatically under `resolved`.
        busy: folded from the sweep's journal.
    """
    resolved = spec.get("resolved") or {}
    groups, slots = int(resolved.get("workers") or 0), int(resolved.get("group_size") or 0)
    asked, ended = busy.until_asked(groups, slots), busy.until_ended(groups, slots)
    if ended is None:
        return ""
    first = asked or ended
    when = "until the search's last trial was asked for" if asked else "until the search's last trial ended"
    forks = f", {first.forking:.0%} by training forks," if first.forking >= _SMALL else ""
    rest = ", ".join(f"{share:.0%} {name}" for name, share in first.rest.items() if share >= _SMALL)
    words = f"Slots were {first.busy:.0%} busy training{forks} {when} ({first.seconds:,.1f} s)"
    words += f"; the rest: {rest}." if rest else "."
    if asked is None:
        return f"{words} All its trials had a slot at once, so none could be refilled."
    words += f" Until its last trial ended ({ended.seconds:,.1f} s) they were {ended.busy:.0%} busy and "
    return f"{words}{ended.empty:.0%} empty, as nothing was left to ask for."


_SMALL = 0.005
"""Shares that would be said to be 0% are left out."""

_HANDLERS = {
    "attach": Busy._attach,
    "ask": Busy._ask,
    "report": Busy._report,
    "end": Busy._end,
    "retry": Busy._retry,
    "fault": Busy._fault,
}
