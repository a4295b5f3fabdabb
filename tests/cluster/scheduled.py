"""A pretended clock, target and channels for schedulers."""

import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cluster.launch import JobStatus
from cluster.schedule import Firing, Schedule, Schedules
from cluster.schedule_work import Judged
from cluster.scheduler import Scheduler

NIGHT = 86400.0


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


START = utc(2026, 5, 1, 1, 0, 30)  # a night later the next firing is half a minute old, and on time


class Clock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Killed(BaseException):
    """A scheduler that is gone, without a word."""


class Place:
    """A pretended target: sweeps by id, each started once however often it is submitted, as launchers promise."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()
        self.submits: Counter[str] = Counter()
        self.states: dict[str, JobStatus] = {}
        self.results: dict[str, Judged] = {}
        self.trouble: Exception | None = None
        self.kill = ""
        self.stopped: list[str] = []
        self.lock = threading.Lock()

    def submit(self, schedule: Schedule, firing: Firing) -> str:
        with self.lock:
            self.submits[firing.sweep] += 1
        if self.kill == "before":
            raise Killed
        if self.trouble is not None:
            raise self.trouble
        with self.lock:
            if self.states.get(firing.sweep, JobStatus("", "unknown")).state in ("unknown", "failed", "stopped"):
                self.starts[firing.sweep] += 1
                self.states[firing.sweep] = JobStatus(firing.sweep, "running")
        if self.kill == "after":
            raise Killed
        return f"/runs/{firing.sweep}"

    def status(self, schedule: Schedule, firing: Firing) -> JobStatus:
        if self.trouble is not None:
            raise self.trouble
        return self.states.get(firing.sweep, JobStatus(firing.sweep, "unknown"))

    def stop(self, schedule: Schedule, firing: Firing) -> None:
        self.stopped.append(firing.sweep)
        self.states[firing.sweep] = JobStatus(firing.sweep, "stopped")

    def resume(self, schedule: Schedule, firing: Firing) -> None:
        self.starts[firing.sweep] += 1
        self.states[firing.sweep] = JobStatus(firing.sweep, "running")

    def judge(self, schedule: Schedule, firing: Firing, past: Sequence[Firing]) -> Judged:
        assert [each.at for each in past] == sorted(each.at for each in past)
        assert all(each.at < firing.at for each in past)
        if self.kill == "judging":
            raise Killed
        return self.results.get(firing.sweep, Judged("ok", "as it was"))

    def picture(self, done: Sequence[Firing]) -> bytes | None:
        return None

    def end_all(self, state: str = "finished", why: str = "") -> None:
        for id_, known in self.states.items():
            if known.state == "running":
                self.states[id_] = JobStatus(id_, state, why)


class Post:
    """Pretended channels."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.pings: list[str] = []
        self.away = False
        self.kill = False

    def send(self, references: Sequence[str], title: str, body: str, result: str, picture: Any) -> list[str]:
        if self.away:
            return ["notify env:CHAT: no answer"]
        self.sent.append((title, body, result))
        if self.kill:
            raise Killed
        return []

    def ping(self, reference: str) -> None:
        self.pings.append(reference)

    @property
    def titles(self) -> list[str]:
        return [title for title, _, _ in self.sent]


def nightly(name: str = "nightly", **values: Any) -> Schedule:
    given: dict[str, Any] = {"cron": "0 1 * * *", "zone": "UTC", "notify": ("env:CHAT",)} | values
    return Schedule(name=name, spec="digits", target="local", folder="/", **given)


def made(schedules: Schedules, place: Place, clock: Clock, post: Post | None = None) -> Scheduler:
    post = post or Post()
    return Scheduler(schedules, place, say=lambda words: None, clock=clock, send=post.send, ping=post.ping)


def states(schedules: Schedules) -> list[str]:
    return [each.state for each in reversed(schedules.firings())]


def night(scheduler: Scheduler, place: Place, clock: Clock, result: Judged | None = None) -> Firing:
    """Let the next night come, begin, end and be judged."""
    clock.now += NIGHT
    scheduler.tick()
    due = scheduler.schedules.firings(limit=1)[0]
    if result is not None:
        place.results[due.sweep] = result
    place.end_all()
    scheduler.tick()
    scheduler.tick()
    return scheduler.schedules.firings(limit=1)[0]
