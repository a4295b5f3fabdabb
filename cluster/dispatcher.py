"""The dispatcher: starts queued sweeps as there is room, sees after those under way, goes on with those that died.

All it knows is in the queue and at the place, so it can be killed and started anew at any moment; sweeps run without
it. Only the leader moves anything: each of its moves is checked against the lease in the same transaction.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.choosing import Room, Rules, choose
from cluster.folders import UserError
from cluster.launch import ACTIVE, Job, JobStatus, Launcher, LaunchError, Unreachable
from cluster.queue import UNDER_WAY, Claim, Entry, LostLease, Queue, QueueBusy, Values

if TYPE_CHECKING:
    from cluster.queue_lease import Leadership

_CODE = re.compile(r"\bexit code (\d+)")
_HELD = "writing this sweep"
"""What a driver says that finds another one at work."""
_USER = 2
"""The exit code of a driver for what a user can put right: trying again would not."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How drivers that die of the place's faults are started again."""

    most: int = 5
    """Failures in a row after which a sweep has failed."""
    first_s: float = 10.0
    """The pause after the first failure; each is twice the one before."""
    longest_s: float = 600.0
    settled_s: float = 3600.0
    """One that has run for so long is past its earlier failures."""
    stop_again_s: float = 60.0

    def pause(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        return float(min(self.longest_s, self.first_s * 2 ** (failures - 1)))


class Dispatcher:
    """Moves a target's entries.

    Args:
        queue: whose entries.
        target: whose entries.
        launcher: starts and knows the drivers.
        capacity: all the room of the place; asked at each tick.
        rules: quotas and manners.
        job: what is submitted for an entry; refuses with UserError or LaunchError what may not run.
        retries: after failures.
        say: told of each event, in a line.
        clock: seconds, from anywhere, that only go on.
    """

    def __init__(
        self,
        queue: Queue,
        target: str,
        launcher: Launcher,
        capacity: Callable[[], Room],
        rules: Rules,
        job: Callable[[Entry], Job],
        *,
        retries: Retries | None = None,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue, self.target, self.launcher, self.capacity = queue, target, launcher, capacity
        self.rules, self.job, self.retries, self.say, self.clock = rules, job, retries or Retries(), say, clock
        self._again: dict[str, float] = {}
        """When an entry may be tried again."""
        self._ran: dict[str, float] = {}
        """Since when an entry was seen running."""
        self._stops: dict[str, tuple[threading.Thread, float]] = {}
        self._odd: dict[str, str] = {}
        self._away = ""

    def tick(self, claim: Claim) -> int:
        """See after all entries once; return how many wait or are under way.

        Raises:
            LostLease: another dispatcher leads; nothing was moved since.
        """
        try:
            for entry in self.queue.entries(self.target, UNDER_WAY):
                self._look_safely(entry, claim)
            self._start(claim)
            self._told_away("")
        except LaunchError as error:  # of the place: nothing is known there now, so nothing is judged
            self._told_away(str(error))
        return len(self.queue.entries(self.target, ("queued", *UNDER_WAY)))

    def _told_away(self, words: str) -> None:
        if words != self._away:
            self.say(f"waiting: {words}" if words else "the place answers again")
            self._away = words

    def _look_safely(self, entry: Entry, claim: Claim) -> None:
        """Look at an entry; of what is wrong with it alone the others hear nothing."""
        try:
            self._look(entry, claim)
        except Unreachable:
            raise
        except LaunchError as error:
            self.launcher.check()
            if self._odd.get(entry.id) != str(error):
                self.say(f"{entry.id}: {error}")
                self._odd[entry.id] = str(error)

    def _look(self, entry: Entry, claim: Claim) -> None:
        """Learn what has become of an entry under way, and act on it."""
        if entry.state == "starting" and not entry.wanted:
            return self._submit(entry, claim)  # whether it was submitted is not known, and twice does no harm
        known = self.launcher.status(entry.id)
        if known.state in ACTIVE:
            return self._goes_on(entry, known, claim)
        if entry.wanted or known.state == "stopped":
            return self._left(entry, known, claim)
        if known.state == "finished":
            self._end(entry, "finished", "", claim)
        elif known.state == "unknown":
            self._forgotten(entry, known, claim)
        elif _HELD in known.why:
            self._elsewhere(entry, known, claim)
        elif (code := _CODE.search(known.why)) and int(code.group(1)) == _USER:
            self._end(entry, "failed", f"{known.why}; put it right, then: musweep resume {entry.id}", claim)
        else:
            self._failed(entry, known.why or "its driver died", claim)
        return None

    def _goes_on(self, entry: Entry, known: JobStatus, claim: Claim) -> None:
        since = self._ran.setdefault(entry.id, self.clock()) if known.state == "running" else self.clock()
        to: Values = {} if entry.state == "running" else {"state": "running"}
        if not entry.wanted and entry.why != known.why:
            to["why"] = known.why
        if entry.failures and self.clock() - since > self.retries.settled_s:
            to["failures"] = 0
        if to:
            self.queue.move(entry.id, UNDER_WAY, claim=claim, **to)
        if entry.wanted:
            self._stop(entry.id, claim)

    def _left(self, entry: Entry, known: JobStatus, claim: Claim) -> None:
        """Bring an entry that is no longer under way to where it was wanted; one that the place stopped goes on."""

        def decide(now: Entry) -> Values | None:
            if now.state not in UNDER_WAY:
                return None
            if known.state == "finished":
                return {"state": "finished", "wanted": "", "why": "", "granted": 0, "ended": time.time()}
            state = now.wanted or "queued"
            why = now.why if now.wanted else f"the place stopped it: {known.why or 'it did not say why'}; it goes on"
            return {"state": state, "wanted": "", "why": why, "granted": 0, "ended": _ended(state)}

        after = self.queue.change(entry.id, decide, claim)
        self._forget(entry.id)
        if after is not None:
            if not entry.wanted and after.state == "queued":
                self._again[entry.id] = self.clock() + self.retries.first_s
            self.say(f"{entry.id}: {after.state}{': ' if after.why else ''}{after.why}")

    def _end(self, entry: Entry, state: str, why: str, claim: Claim) -> None:
        to: Values = {"state": state, "wanted": "", "why": why, "granted": 0, "ended": _ended(state)}
        if self.queue.move(entry.id, UNDER_WAY, claim=claim, **to):
            self.say(f"{entry.id}: {state}{': ' if why else ''}{why}")
        self._forget(entry.id)

    def _forgotten(self, entry: Entry, known: JobStatus, claim: Claim) -> None:
        """Go on at once with a sweep of which the place has lost all trace: its head was restarted."""
        if entry.failures + 1 >= self.retries.most:
            return self._failed(entry, known.why or "the place has lost it", claim)
        to: Values = {"state": "starting", "failures": entry.failures + 1, "starts": entry.starts + 1}
        if self.queue.move(entry.id, ["running"], claim=claim, epoch=claim.epoch, **to):
            self.say(f"{entry.id}: the place has lost it ({known.why or 'it does not say why'}); it goes on")
            self._submit(entry, claim)
        return None

    def _elsewhere(self, entry: Entry, known: JobStatus, claim: Claim) -> None:
        """Try again after a while: an earlier driver, which the place no longer knows, is at work and will end."""
        if self._again.get(entry.id, 0.0) <= self.clock():
            self._again[entry.id] = self.clock() + self.retries.first_s
            if self.queue.move(entry.id, ["running"], claim=claim, state="starting", why=known.why):
                self._submit(entry, claim)

    def _failed(self, entry: Entry, why: str, claim: Claim) -> None:
        """Have a sweep wait and start again after a fault of the place's, a few times."""
        failures, most = entry.failures + 1, self.retries.most
        if failures >= most:
            return self._end(entry, "failed", f"{why}; {failures} times in a row", claim)
        pause = self.retries.pause(failures)
        words = f"{why}; again after a pause of {pause:.0f} s (failure {failures}, the last at {most})"
        to: Values = {"state": "queued", "wanted": "", "why": words, "granted": 0, "failures": failures}
        if self.queue.move(entry.id, UNDER_WAY, claim=claim, **to):
            self.say(f"{entry.id}: {words}")
        self._forget(entry.id)
        self._again[entry.id] = self.clock() + pause
        return None

    def _forget(self, id_: str) -> None:
        for known in (self._ran, self._stops, self._again):
            known.pop(id_, None)

    def _start(self, claim: Claim) -> None:
        """Choose what starts now, start it, and say why the others wait."""
        waiting = self.queue.entries(self.target, ("queued",))
        if not waiting:
            return
        may = [each for each in waiting if self._again.get(each.id, 0.0) <= self.clock()]
        choice = choose(may, self.capacity(), self.rules, self.queue.entries(self.target, UNDER_WAY))
        was = {each.id: each.why for each in waiting}
        self.queue.explain({id_: why for id_, why in choice.why.items() if was[id_] != why}, claim)
        for id_, for_ in choice.stop.items():
            why = f"stopped to make room for {for_}; it goes on after that"

            def preempted(now: Entry, why: str = why) -> Values | None:
                return None if now.wanted or now.state not in UNDER_WAY else {"wanted": "queued", "why": why}

            if self.queue.change(id_, preempted, claim) is not None:
                self.say(f"{id_}: {why}")
        for each in choice.start:
            started = self.queue.change(each.id, _starting(each.workers, claim), claim, each.passing)
            if started is not None:
                self.say(f"{each.id}: starting (priority {started.priority}, {started.owner})")
                self._submit(started, claim)

    def _submit(self, entry: Entry, claim: Claim) -> None:
        """Hand an entry in state starting to the place; what the place cannot take now stays so and is tried again."""
        try:
            job = self.job(entry)
        except (UserError, LaunchError) as error:
            return self._end(entry, "failed", str(error), claim)
        self.queue.confirm(claim)  # it may have been stopped for minutes since it led
        try:
            self.launcher.submit(job)
        except Unreachable:
            raise
        except LaunchError as error:
            self.launcher.check()  # if the place refuses everything, this one is not to blame
            return self._failed(entry, str(error), claim)
        self.queue.move(entry.id, ["starting"], claim=claim, state="running")
        return None

    def _stop(self, id_: str, claim: Claim) -> None:
        """Ask a driver to leave, beside everything else: it takes its time to write its states."""
        thread, since = self._stops.get(id_, (None, 0.0))
        if thread is not None and (thread.is_alive() or self.clock() - since < self.retries.stop_again_s):
            return
        self.queue.confirm(claim)
        thread = threading.Thread(target=self._ask_to_leave, args=(id_,), daemon=True, name=f"stop {id_}")
        self._stops[id_] = (thread, self.clock())
        thread.start()

    def _ask_to_leave(self, id_: str) -> None:
        try:
            self.launcher.stop(id_)
        except LaunchError as error:
            self.say(f"{id_}: cannot be stopped now: {error}")


def _starting(workers: int, claim: Claim) -> Callable[[Entry], Values | None]:
    """What starting sets on an entry that is queued still."""

    def decide(now: Entry) -> Values | None:
        if now.state != "queued":
            return None
        return {
            "state": "starting", "wanted": "", "why": "", "granted": workers, "starts": now.starts + 1,
            "epoch": claim.epoch, "started": time.time(), "ended": None,
        }  # fmt: skip

    return decide


def _ended(state: str) -> float | None:
    return None if state in ("queued", "held") else time.time()


def serve(
    dispatcher: Dispatcher,
    lease: Leadership,
    leave: threading.Event,
    poll_s: float = 2.0,
    until_empty: bool = False,
) -> None:
    """Lead as soon as nobody else does, and dispatch until told to leave; sweeps under way run on.

    Args:
        dispatcher: does the work.
        lease: of its target.
        leave: set from outside, as by a signal.
        poll_s: between two looks.
        until_empty: leave when nothing waits or is under way.
    """
    told = ""

    def tell(words: str) -> None:
        nonlocal told
        if words != told:
            dispatcher.say(words)
            told = words

    try:
        while not leave.is_set():
            try:
                if lease.claim is None and lease.acquire():
                    tell(f"dispatching for target {lease.target}")
                if lease.claim is None:
                    tell(f"waiting: {lease.leader.rpartition(':')[0]} dispatches for target {lease.target}")
                else:
                    left = dispatcher.tick(lease.claim)
                    lease.worked()
                    if until_empty and not left:
                        return
            except LostLease as lost:
                lease.drop()
                tell(str(lost))
            except QueueBusy as busy:
                tell(f"waiting: {busy}")
            leave.wait(poll_s)
    finally:
        lease.release()
