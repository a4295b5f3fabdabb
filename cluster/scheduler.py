"""The scheduler: fires what is due, follows it, has its night judged, sends what is to be told.

All it knows is in the schedules' database and at the targets, so it can be killed and started anew at any moment, and
any number may run. Each step is claimed before it is made and can be made twice with the effect of once.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cluster import notify, process, schedule_times
from cluster.database import DatabaseBusy
from cluster.folders import UserError
from cluster.launch import ACTIVE as LIVE
from cluster.launch import JobStatus, LaunchError, Unreachable
from cluster.schedule import Message, Schedules
from cluster.schedule_rules import ACTIVE, Firing, Schedule
from cluster.schedule_work import Judged, Sweeps, Work
from sweeps.errors import SpecError
from sweeps.tracked import redact

TRIES = 3
"""How often a night's sweep is started before its faults are its result."""
OVERDUE_S = 1800.0
"""After which it is told that a night cannot begin."""
PAST, DRAWN = 10_000, 60
"""Nights that one is held against, which is all there are, and that a message's picture shows."""
_SENDS, _FIRST_S, _LONGEST_S = 10, 30.0, 3600.0
_USER = re.compile(r"\bexit code 2\b")


class Scheduler:
    """Makes all steps that are to be made.

    Args:
        schedules: whose.
        work: what can be done about a sweep.
        say: told of each event, in a line.
        clock: seconds since 1970.
        send: as `notify.send`.
        ping: as `notify.ping`.
    """

    def __init__(
        self,
        schedules: Schedules,
        work: Work | None = None,
        *,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
        send: Callable[..., list[str]] = notify.send,
        ping: Callable[[str], None] = notify.ping,
    ) -> None:
        self.schedules, self.work = schedules, work or Sweeps()
        self.say, self.clock, self.send, self.ping = say, clock, send, ping
        self.holder = process.holder()

    def tick(self) -> int:
        """Make every step that can be made now; return how many firings are active or may begin."""
        for each in self.schedules.decide(self.clock()):
            late = ", late" if each.late else ""
            self.say(f"{each.sweep}: {each.state}{late}{': ' if each.why else ''}{each.why}")
        known = {each.name: each for each in self.schedules.all()}
        waiting: set[str] = set()  # schedules of which an earlier firing comes first
        for firing in reversed(self.schedules.firings(states=["due", *ACTIVE], limit=1000)):
            if firing.schedule in known and not (firing.state == "due" and firing.schedule in waiting):
                self._step(known[firing.schedule], firing)
                if firing.state == "due" and firing.begins <= self.clock():
                    waiting.add(firing.schedule)
        self._send()
        left = self.schedules.firings(states=["due", *ACTIVE], limit=1000)
        return sum(each.state != "due" or each.begins <= self.clock() for each in left)

    def _step(self, schedule: Schedule, firing: Firing) -> None:
        """Make a firing's next step; of what is wrong with it the others hear nothing."""
        steps = {"due": self._begin, "starting": self._start, "running": self._follow, "ended": self._judge}
        try:
            steps[firing.state](schedule, firing)
        except DatabaseBusy:
            raise
        except (LaunchError, UserError, SpecError) as error:
            words = redact(_line(error))
            if words != firing.why:
                self.say(f"{firing.sweep}: {words}")
            self._move(firing, [firing.state], why=words, holder="")

    def _begin(self, schedule: Schedule, firing: Firing) -> None:
        """Start a firing that may begin, and make room for it where that is its manner."""
        noted = self.schedules.begin(firing, self.holder, self.clock())
        if noted is None:
            return
        if noted.state == "starting":
            self._submit(schedule, noted)
        elif noted.state != "due":
            self.say(f"{firing.sweep}: {noted.state}: {noted.why}")
        elif noted.why != firing.why:
            self.say(f"{firing.sweep}: {noted.why}")
        if noted.state == "due" and schedule.overlap == "replace" and not noted.late:
            self._make_room(schedule, noted)

    def _make_room(self, schedule: Schedule, due: Firing) -> None:
        if self.clock() < due.begins:
            return
        for each in self.schedules.firings(schedule.name, states=["running"]):
            if each.at < due.at:
                self._leave(schedule, each, f"stopped to make room for {due.sweep}")

    def _start(self, schedule: Schedule, firing: Firing) -> None:
        """Start a firing whose scheduler was killed before it said what came of it."""
        claimed = self.schedules.claim(firing, ["starting"], self.holder, self.clock())
        if claimed is not None:
            self._submit(schedule, claimed)

    def _submit(self, schedule: Schedule, firing: Firing) -> None:
        """Submit a firing that this scheduler has claimed."""
        try:
            folder = self.work.submit(schedule, firing)
        except Unreachable as error:
            words = redact(_line(error))
            self._move(firing, ["starting"], state="due", why=words, tries=firing.tries - 1, holder="")
            if words != firing.why:
                self.say(f"{firing.sweep}: waits: {words}")
            self._overdue(schedule, firing, words)
        except Exception as error:  # a spec that cannot be read, a refusal, a fault: all are this night's result
            words = redact(_line(error))
            self._move(firing, ["starting"], state="ended", why=f"could not be started: {words}", holder="",
                       ended=self.clock())  # fmt: skip
            self.say(f"{firing.sweep}: could not be started: {words}")
        else:
            began = firing.started or self.clock()
            self._move(firing, ["starting"], state="running", why="", folder=folder, started=began, holder="")
            self.say(f"{firing.sweep}: started on {schedule.target}, in {folder}")

    def _overdue(self, schedule: Schedule, firing: Firing, words: str) -> None:
        """Tell people of a night that cannot begin."""
        if self.clock() - firing.begins > OVERDUE_S:
            when = schedule_times.shown(firing.at, schedule.zone)
            body = f"The night of {when} has not begun: {words}. It is tried again until its deadline or the next one."
            self.schedules.tell(
                Message(schedule.name, f"late-{firing.at:.0f}", self.clock(), "late", f"{schedule.name}: late", body)
            )

    def _follow(self, schedule: Schedule, firing: Firing) -> None:
        """Learn what has become of a sweep."""
        try:
            known = self.work.status(schedule, firing)
        except Unreachable as error:
            if firing.why != (words := redact(_line(error))):
                self._move(firing, ["running"], why=words)
                self.say(f"{firing.sweep}: {words}")
            known = JobStatus(firing.sweep, "running")
        if known.state in LIVE:
            limit = schedule.deadline_s
            if limit is not None and self.clock() > firing.begins + limit:
                self._leave(schedule, firing, f"stopped {limit / 3600:.3g} h after its time, its deadline")
        elif known.state == "finished":
            self._ended(firing, "")
        elif known.state == "stopped":
            self._ended(firing, "somebody stopped it")
        elif firing.tries < TRIES and not _USER.search(known.why):
            self._again(schedule, firing, known)
        else:
            self._ended(firing, redact(known.why or "the place has lost it"))

    def _again(self, schedule: Schedule, firing: Firing, known: JobStatus) -> None:
        """Go on with a sweep whose driver died of the place's faults."""
        claimed = self.schedules.claim(firing, ["running"], self.holder, self.clock())
        if claimed is None:
            return
        self._move(firing, ["running"], tries=firing.tries + 1)
        words = redact(known.why or "the place has lost it")
        self.say(f"{firing.sweep}: {words}; it goes on (start {firing.tries + 1} of {TRIES})")
        try:
            if known.state == "unknown":
                self.work.submit(schedule, claimed)
            else:
                self.work.resume(schedule, claimed)
        finally:
            self._free(firing)

    def _leave(self, schedule: Schedule, firing: Firing, why: str) -> None:
        """Stop a sweep and end its firing."""
        claimed = self.schedules.claim(firing, ["running"], self.holder, self.clock())
        if claimed is not None:
            try:
                self.work.stop(schedule, claimed)
            except Unreachable as error:  # it is asked again
                self.say(f"{firing.sweep}: cannot be stopped now: {_line(error)}")
                self._free(firing)
            else:
                self._ended(firing, why)

    def _ended(self, firing: Firing, why: str) -> None:
        if self._move(firing, ["running"], state="ended", why=why, ended=self.clock(), holder=""):
            self.say(f"{firing.sweep}: ended{': ' if why else ''}{why}")

    def _judge(self, schedule: Schedule, due: Firing) -> None:
        """Have a night judged; queue what is to be told of it."""
        firing = self.schedules.claim(due, ["ended"], self.holder, self.clock())
        if firing is None:
            return
        past = self.schedules.firings(schedule.name, PAST, ["done"], before=firing.at)[::-1]
        if firing.why:
            judged = Judged("broken", f"{firing.sweep}: {firing.why}")
        else:
            try:
                judged = self.work.judge(schedule, firing, past)
            except Exception as error:  # whatever is wrong with one night must not keep the others from being judged
                judged = Judged("broken", f"{firing.sweep} cannot be judged: {redact(_line(error))}")
        before = past[-1] if past else None
        if judged.result != "ok" and not judged.event:
            same = before is not None and before.result == judged.result
            event = before.event if before is not None and same else f"{judged.result}-{firing.at:.0f}"
            judged = replace(judged, event=event)
        to = {"state": "done", "result": judged.result, "sentence": judged.sentence, "event": judged.event,
              "night": judged.night, "holder": ""}  # fmt: skip
        told = _messages(schedule, firing, judged, before)
        if self.schedules.change(firing, lambda there: to if there.state == "ended" else None, told) is not None:
            self.say(f"{firing.sweep}: {judged.result}: {judged.sentence}")

    def _send(self) -> None:
        """Send what is queued, each until it has arrived or was tried often enough."""
        while (message := self.schedules.to_send(self.holder, self.clock())) is not None:
            try:
                schedule = self.schedules.get(message.schedule)
            except UserError:  # removed meanwhile, with its messages
                continue
            failed = self._sent(schedule, message)
            tries = message.tries + 1
            if not failed:
                self.schedules.sent(message, state="sent", why="", tries=tries)
                continue
            state = "failed" if tries >= _SENDS else "queued"
            pause = min(_LONGEST_S, _FIRST_S * 2**tries)
            self.schedules.sent(message, state=state, why=failed, tries=tries, again=self.clock() + pause)
            self.say(f"{message.schedule}: a message did not arrive: {failed}")

    def _sent(self, schedule: Schedule, message: Message) -> str:
        """Send a message; return what went wrong."""
        if message.result == "ping":
            try:
                self.ping(schedule.ping or "")
            except (notify.NotifyError, LaunchError) as error:
                return str(error)
            return ""
        picture = self.work.picture(self.schedules.firings(schedule.name, DRAWN, ["done"])[::-1])
        return "; ".join(self.send(schedule.notify, message.title, message.body, message.result, picture))

    def _move(self, firing: Firing, states: list[str], **to: Any) -> bool:
        return self.schedules.change(firing, lambda there: to if there.state in states else None) is not None

    def _free(self, firing: Firing) -> None:
        self.schedules.change(firing, lambda there: {"holder": ""} if there.holder == self.holder else None)


def _messages(schedule: Schedule, firing: Firing, judged: Judged, before: Firing | None) -> list[Message]:
    """What is to be told of a judged night; what was told of before is not told again."""
    found = []
    if schedule.notify:
        was_bad = before is not None and before.result not in ("", "ok")
        event = judged.event
        if judged.result == "ok":
            event = f"over-{before.event}" if was_bad and before is not None else ""
        if schedule.notify_when == "always":
            event = f"night-{firing.at:.0f}"
        if event:
            title = f"{schedule.name}: {'ok again' if judged.result == 'ok' and was_bad else judged.result}"
            body = "\n".join(filter(None, [judged.sentence, _where(firing)]))
            found.append(Message(schedule.name, event, firing.at, judged.result, title, body))
    if schedule.ping and judged.result != "broken":
        found.append(Message(schedule.name, f"ping-{firing.at:.0f}", firing.at, "ping", "", ""))
    return found


def _where(firing: Firing) -> str:
    """Where a night can be looked at."""
    served = os.environ.get("MUSWEEP_URL", "").rstrip("/")
    if served:
        return f"{served}/sweeps/{firing.sweep}"
    return f"musweep show {firing.folder}" if firing.folder else ""


def _line(error: BaseException) -> str:
    """An error's first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def serve(scheduler: Scheduler, leave: threading.Event, poll_s: float = 10.0) -> None:
    """Make steps until told to leave; sweeps under way run on, and the next scheduler goes on with them."""
    told = ""
    while not leave.is_set():
        try:
            scheduler.tick()
            told = ""
        except DatabaseBusy as busy:
            if str(busy) != told:
                scheduler.say(f"waiting: {busy}")
                told = str(busy)
        leave.wait(poll_s)
