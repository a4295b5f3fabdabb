"""The board: the one owner of a running sweep's study, rungs and journal. Plain Python, no Ray.

Groups attach, train each of their trials to its next report update, report, and act on the answer. With
`order: number` the board answers when every group that holds trials has reported (a round): decisions are then
taken in trial order and freed slots are filled in trial order, so nothing depends on which worker was faster.
With `order: arrival` each report is answered at once. A group without trials waits for its answer until there are some
for it, perhaps in the next stage, or none will come.

A group whose worker is gone for long is absent: its trials go to groups that have one, which train them to their
report of the same round before it is settled. So what is decided does not depend on who was lost when.

Everything a round decides is one journal commit, on disk before any answer leaves: no decision is ever acted on
that a restart would not know.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeps import history, journal
from sweeps.asking import Asked, Asker
from sweeps.groups import Groups, cost
from sweeps.judging import Judge
from sweeps.ledger import Heard, Ledger
from sweeps.round import Answer, Attached, Entry, Place, Seated, StaleWorkerError
from sweeps.segments import open_journal
from sweeps.spec import SweepSpec
from sweeps.stages import is_confirm


class Board:
    """Owns one sweep. Every method is called from one thread.

    Args:
        folder: the sweep folder; its journal is opened for writing, so the caller holds the lease.
        spec: the resolved spec.
        groups: number of groups, each with `slots` slots; perhaps with more for what is confirmed (`Asker.slots`).
        guard: called before each write; raises when another driver has taken the sweep over.
        clock: seconds since 1970, for records only; budgets use `timer`.
        timer: monotonic seconds.
        absent_s: how long a group without worker is waited for before others take its trials over.
    """

    def __init__(
        self,
        folder: Path,
        spec: SweepSpec,
        groups: int,
        slots: int,
        *,
        epoch: int = 1,
        versions: Mapping[str, str] | None = None,
        guard: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        absent_s: float = 30.0,
    ) -> None:
        self.spec = spec
        self.slots = slots
        self._timer = timer
        self._journal = open_journal(folder, epoch)
        self.history = history.fold(self._journal.records)
        self._asker = Asker(spec, self.history, self._journal.records)
        self._journal.records = []  # they are as large as all that was measured, and in the history now
        self._ledger = Ledger(self._journal, self.history, guard, clock)
        self._log = self._ledger.log
        self._order = spec.early_stopping.order if spec.early_stopping else "number"
        self._judge = Judge(spec, self.history.trials.values())
        self._groups = Groups(groups, timer, absent_s)
        self._holder: dict[int, int] = {}
        """Which group holds a running trial."""
        for trial in self.history.trials.values():
            if trial.state == "running":  # a resume may have fewer groups than the crashed run
                self._hold(trial.group % groups, trial.number)
        for group, size in self.history.residents.items():
            if group < groups:
                self._groups[group].resident = size
        self._heard: dict[int, Heard] = {}
        """What was reported in this round, by trial: group, engine, entry."""
        self._unheard = set(self._holder)
        """Trials that a round in order of number still waits for."""
        self._waiting: set[int] = set()
        """Groups that wait for an answer."""
        self._waited_since = 0.0
        self._leaving = False
        self._seated = False
        searched = (trial.wall_s for trial in self.history.trials.values() if not is_confirm(trial.stage))
        self._spent_before = sum(searched) / max(1, groups)
        self._started = timer()
        self._log("open", format=journal.FORMAT, sweep_id=folder.name, epoch=epoch, versions=dict(versions or {}))
        self._ledger.write()

    # -- what groups call ------------------------------------------------------------------------------------

    def enter(self, group: int) -> int:
        """A worker of a group is being started; returns its incarnation. From now on the one before it is refused."""
        return self._groups.ended(group).incarnation

    def attach(self, group: int, incarnation: int | None = None, place: Place | None = None) -> Attached:
        """A group's worker has started, for the first time or again; what it held before is its own.

        Raises:
            StaleWorkerError: a newer worker has entered this group.
        """
        if not self._seated:  # one commit for all groups: seats do not depend on who started first
            self._seated = True
            self._fill(self._over())
            self._unheard = set(self._holder)
            self._ledger.write()
        incarnation = self.enter(group) if incarnation is None else incarnation
        self.refuse_stale(group, incarnation)
        member = self._groups.began(group)
        self._unhear(member.held)
        self._waiting.discard(group)
        member.told = set(member.held)
        if place is not None:
            member.place = place
            self._ledger.attached(group, incarnation, place)
            self._ledger.write()
        return Attached(incarnation, tuple(map(self._seat, member.held)), member.resident, member.alone)

    def report(self, group: int, incarnation: int, engine: str, entries: list[Entry]) -> dict[int, Answer]:
        """Take a group's measurements; return the answers that are due, perhaps to several groups or to none.

        A group that holds no trial reports none, and is answered when there is something for it to do.

        Raises:
            StaleWorkerError: a newer worker has attached to this group.
        """
        self.refuse_stale(group, incarnation)
        member = self._groups[group]
        due = member.told - self._heard.keys()
        assert {entry.number for entry in entries} == due, "a group reports each of its trials"
        member.reported = self._timer()
        for entry in entries:
            self._heard[entry.number] = group, engine, entry
            self._unheard.discard(entry.number)
        self._waited_since = self._waited_since if self._waiting else self._timer()
        self._waiting.add(group)
        return self._in_between([group]) or self._settle_if_due()

    def fault(self, group: int, cause: str, words: str) -> dict[int, Answer]:
        """A group's worker died. It is started again, unless it has died too often without getting anything done."""
        member = self._groups.ended(group)
        self._waiting.discard(group)
        if member.lost or member.done:
            return {}
        again, blamed = member.died(cause)
        self._ledger.fault(member, cause, words)
        if blamed in member.held:
            self._fail([blamed], f"its worker died twice when it trained alone: {words}")
        elif not again:
            return self.lose(group, words)
        self._ledger.write()
        return self._released() if blamed is None else self._settle_if_due()

    def trying(self, group: int, incarnation: int, number: int) -> None:
        """A group's worker is about to train this trial alone."""
        self.refuse_stale(group, incarnation)
        self._groups[group].trying = number

    def delay(self, group: int) -> float | None:
        """How many seconds to wait before a worker of a group is started again; None: it gets none."""
        member = self._groups[group]
        return None if member.lost or member.done or self._leaving else member.restarts.delay_s

    def lose(self, group: int, reason: str) -> dict[int, Answer]:
        """A group's worker failed for good: its trials end as failed, the others go on."""
        member = self._groups.ended(group)
        self._waiting.discard(group)
        member.lost = reason
        self._fail(list(member.held), f"worker lost: {reason}")
        member.told = set()
        self._ledger.write()
        return self._settle_if_due()

    def missing(self, group: int, since: float) -> None:
        """Nothing is heard of a group's worker: whatever it says when it comes back is refused."""
        self._groups.ended(group, since)
        self._waiting.discard(group)

    def look(self) -> dict[int, Answer]:
        """Have the trials of groups that have had no worker for too long taken over; call it about once a second."""
        if self._leaving:
            return self._released()
        if self._order == "number" and not self._waiting:
            return {}
        given: set[int] = set()
        for member in self._groups.absentees():
            moved, member.held, member.told, member.absent = member.held, [], set(), True
            for number, group in self._groups.deal(moved, self._cost).items():
                self._holder[number] = group
                given.add(group)
            self._ledger.fault(member, member.restarts.cause or "infrastructure", "no worker for too long", moved)
        self._ledger.write()
        return self._in_between(sorted(given & self._waiting))

    def leave(self) -> dict[int, Answer]:
        """Have every group checkpoint and leave with its next answer."""
        self._leaving = True
        return self._released()

    def extend(self, trials: int) -> None:
        """Grow the budget of a finished sweep."""
        self._log("extend", trials=trials)
        self._asker.extended()
        self._ledger.write()

    def close(self, reason: str) -> None:
        """Write why the driver leaves and release the journal."""
        self._log("close", reason=reason, **({"note": self.note} if self.note else {}))
        self._ledger.write()
        self._journal.close()

    # -- what the driver asks --------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """What keeps the board waiting, for people to see; empty when nothing does."""
        return self._ledger.trouble

    @property
    def budget(self) -> int:
        """How many trials the sweep may ask for in all its stages."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> dict[str, int]:
        """How many trials each stage has in all; what is to be confirmed is counted as planned until it is known."""
        return self._asker.sizes()

    @property
    def finished(self) -> bool:
        """Nothing runs and nothing is left to ask for."""
        return not self._holder and not self._asker.left(self._over())

    @property
    def note(self) -> str:
        """What was asked for and cannot be done, in words."""
        return self._asker.missing

    @property
    def lost(self) -> dict[int, str]:
        """Groups whose worker failed for good, with the reason."""
        return self._groups.lost

    @property
    def over(self) -> bool:
        """Nothing more will be done: all is finished, given up or left, and no worker is at it."""
        ended = self._leaving or self.finished or len(self.lost) == len(self._groups)
        return ended and not any(group.attached for group in self._groups)

    def groups(self) -> list[dict[str, Any]]:
        """Each group's state, place and trials, as the live table shows them."""
        return self._groups.status()

    def waiting(self, why: str = "") -> str:
        """Which groups have no worker, and why; whom a round has waited for too long. In words."""
        unheard = {self._holder[number] for number in self._unheard} if self._order == "number" else set()
        waited = self._timer() - self._waited_since if self._waiting else 0.0
        return self._groups.waiting(why, unheard, waited)

    # -- rounds ----------------------------------------------------------------------------------------------

    def _settle_if_due(self) -> dict[int, Answer]:
        if not (self._heard or self._waiting) or (self._order == "number" and self._unheard):
            return self._released()
        return self._settle()

    def _settle(self) -> dict[int, Answer]:
        """Decide a round in trial order, fill freed slots in trial order, write, and only then answer."""
        heard, self._heard = self._heard, {}
        waiting, self._waiting = self._waiting, set()
        self._ledger.reports(heard.values(), self._groups.waited())
        entries = [heard[number][2] for number in sorted(heard)]
        for entry in entries:
            self._judge.note(self.history.trials[entry.number], 0 if entry.skipped else entry.diverged_at)
        over = {} if self._leaving else self._over()
        passed = {entry.number for entry in entries if self._decide(entry, over)}
        self._let_go(heard)
        for group in {group for group, *_ in heard.values()}:
            self._groups[group].restarts.progressed()
        if not self._leaving:
            slots = self._fill(over)
            self._holder |= self._groups.level(waiting, slots)
        self._ledger.write()
        if self._order == "number":
            self._unheard = set(self._holder)
        if not self._leaving and self._holder and self._asker.left(over):
            self._waiting = {group for group in waiting if not self._groups[group].held}
        return {group: self._answer(group, passed) for group in sorted(waiting - self._waiting)}

    def _answer(self, group: int, passed: Collection[int] = ()) -> Answer:
        """Tell a group's worker what has become of its trials, and which it has been given."""
        member = self._groups[group]
        held, now = member.told, set(member.held)
        member.told = now
        if not now or self._leaving:
            self._groups.left(group)
        return Answer(
            drop=tuple(sorted(held - now)),
            new=tuple(self._seat(number) for number in member.held if number not in held),
            checkpoint=any(number in passed for number in held & now),
            done=not now,
            leave=self._leaving,
        )

    def _in_between(self, groups: Iterable[int]) -> dict[int, Answer]:
        """Have groups that wait train what they were given since, which the round still waits for."""
        answers = {}
        for member in (self._groups[group] for group in groups):
            new = [n for n in member.held if n not in member.told and n not in self._heard]
            old, kept = member.told - set(member.held), member.told & set(member.held)
            if new and not self._leaving and (self._order == "number" or not kept):
                seats = tuple(map(self._seat, new))
                answers[member.number] = Answer(tuple(sorted(old)), seats, only_new=bool(kept))
                member.told = kept | set(new)
                self._waiting.discard(member.number)
        return answers

    def _released(self) -> dict[int, Answer]:
        """When all are to leave, nobody waits for a group that has no worker: what it lacks is done after a resume."""
        if not self._leaving:
            return {}
        if self._order == "number" and all(self._groups[self._holder[number]].attached for number in self._unheard):
            return {}
        waiting, self._waiting = self._waiting, set()
        for group in waiting:
            self._groups.left(group)
        return {group: Answer(leave=True) for group in sorted(waiting)}

    # -- who holds what --------------------------------------------------------------------------------------

    def _hold(self, group: int, number: int) -> None:
        self._groups[group].held.append(number)
        self._holder[number] = group

    def _let_go(self, numbers: Iterable[int]) -> None:
        """Free the slots of those of these trials that have ended."""
        ended = [number for number in numbers if self.history.trials[number].state != "running"]
        for group in {self._holder.pop(number) for number in ended}:
            held = self._groups[group].held
            self._groups[group].held = [n for n in held if self.history.trials[n].state == "running"]

    def _fail(self, numbers: Collection[int], reason: str) -> None:
        """End trials whose worker is gone."""
        for number in numbers:
            self._heard.pop(number, None)
            self._unheard.discard(number)
            self._groups[self._holder.pop(number)].held.remove(number)
            self._end(number, "failed", reason)

    def _unhear(self, numbers: Iterable[int]) -> None:
        """Forget what was reported of trials in this round: a new worker reports them again."""
        for number in numbers:
            self._heard.pop(number, None)
            self._unheard.add(number)

    def refuse_stale(self, group: int, incarnation: int) -> None:
        """Raise StaleWorkerError if this is not the group's present worker."""
        now = self._groups[group].incarnation
        if incarnation != now:
            raise StaleWorkerError(f"group {group}: worker {incarnation} was replaced by {now}")

    def _seat(self, number: int) -> Seated:
        trial = self.history.trials[number]
        return Seated(trial.stage, trial.config, trial.updates)

    def _decide(self, entry: Entry, over: Mapping[str, str]) -> bool:
        """End a trial, let it pass its rung (True), or let it go on."""
        trial = self.history.trials[entry.number]
        if entry.failed is not None:
            self._end(entry.number, "failed", entry.failed, traceback=entry.traceback)
        elif entry.returned:
            self._end(entry.number, "complete", f"its trainer ended it at update {trial.updates}")
        elif entry.skipped:
            self._end(entry.number, "skipped", entry.doomed or "")
        elif entry.diverged_at is not None:
            self._end(entry.number, "diverged", f"not finite at update {entry.diverged_at}", updates=entry.diverged_at)
        elif not math.isfinite(entry.score):
            self._end(entry.number, "diverged", f"score {entry.score} at update {entry.update}")
        elif (target := self.spec.target) is not None and target.reached(entry.metrics):
            self._end(entry.number, "complete", f"target: {target.metric} below {target.below:g}")
        elif entry.update >= trial.config["updates"]:
            self._end(entry.number, "complete")
        elif self._judge.judges(trial, entry.update) and not self._promoted(trial, entry):
            pass
        elif trial.stage in over:
            self._end(entry.number, "stopped", over[trial.stage])
        return entry.update in trial.promoted

    def _promoted(self, trial: history.Trial, entry: Entry) -> bool:
        """Judge a trial at a rung; end it if it does not pass."""
        if self._judge.passes(trial, entry.update, entry.score):
            self._log("promote", trial=entry.number, update=entry.update)
            return True
        self._end(entry.number, "stopped", f"rung {entry.update}: not among the best", rung=entry.update)
        return False

    def _fill(self, over: Collection[str]) -> int:
        """Ask for a trial for each free slot and deal them to groups by what they compute; returns a group's slots."""
        able = [group for group in self._groups if group.open]
        slots = self._asker.slots(self.slots, len(able), over)
        room = sum(max(0, slots - len(group.held)) for group in able)
        first, asked = len(self.history.trials), list[Asked]()
        while len(asked) < room and (one := self._asker.next(first + len(asked), over)) is not None:
            asked.append(one)
        dealt = self._groups.seat([cost(one.config) for one in asked], slots, self._cost)
        for number, (one, group) in enumerate(zip(asked, dealt, strict=True), first):
            self._hold(group, number)
            self._log("ask", trial=number, params=one.params, config=one.config, stage=one.stage,
                      replicate=one.replicate, point_id=one.point_id, group=group)  # fmt: skip
        return slots

    # -- records ---------------------------------------------------------------------------------------------

    def _end(
        self, number: int, state: str, reason: str = "", *,
        rung: int | None = None, updates: int | None = None, traceback: str = "",
    ) -> None:  # fmt: skip
        """Log a trial's end and tell the search."""
        trial = self.history.trials[number]
        updates = trial.updates if updates is None else updates
        last = trial.metrics.get(trial.updates, {}).get(self.spec.objective.metric, math.nan)
        told = {"traceback": traceback} if traceback else {}
        objective = last if state in ("complete", "stopped") and math.isfinite(last) else None
        self._log("end", trial=number, state=state, reason=reason, stopped_at_rung=rung, objective=objective,
                  updates=updates, work=float(updates * trial.config["batch"]), wall_s=trial.wall_s,
                  engine=trial.engine, group=trial.group, **told)  # fmt: skip
        self._asker.tell(trial, state, objective)

    # -- small parts -----------------------------------------------------------------------------------------

    def _cost(self, number: int) -> float:
        return cost(self.history.trials[number].config)

    def _over(self) -> dict[str, str]:
        """Search stages whose time is used up, each with the reason in words."""
        return self._asker.over(self._timer() - self._started + self._spent_before, len(self._groups))
