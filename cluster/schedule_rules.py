"""What is due and what may begin: pure functions of schedules, firings and a clock, which touch nothing."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cluster import schedule_times

OVERLAPS = ("skip", "queue", "replace")
CATCH_UPS = ("latest", "all", "none")
WHENS = ("change", "always")
STATES = ("due", "starting", "running", "ended", "done", "skipped", "missed")
ACTIVE = ("starting", "running", "ended")
OVER = ("done", "skipped", "missed")
LATE_S = 300.0
"""A firing found later than this after its time was missed, and is a case for `catch_up`."""
MOST_AT_ONCE = 100
"""Firings that one look notes at most, the last ones; after a long downtime those before them are forgotten."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A sweep that is started again and again by the clock."""

    name: str
    cron: str
    """Five fields."""
    zone: str
    """Whose clock it is read by, as Europe/London."""
    spec: str
    """A file's absolute path, or the name of a shipped one; read anew at each firing."""
    target: str
    folder: str
    """Where clusters.yaml is looked for, and relative storage lies."""
    overrides: tuple[str, ...] = ()
    protocol: str | None = None
    overlap: str = "skip"
    """What a firing does while an earlier one is active: `skip`, `queue` (wait for it) or `replace` (stop it)."""
    catch_up: str = "latest"
    """What is done about firings missed while no scheduler ran: `latest` (only the last), `all` or `none`."""
    deadline_s: float | None = None
    """Seconds after its time by which a firing must be over; then it is stopped, or missed if it never began."""
    jitter_s: float = 0.0
    """Each firing begins up to so many seconds late, always the same for the same firing."""
    owner: str = ""
    notify: tuple[str, ...] = ()
    """Where messages go: env:NAME or file:PATH that holds a URL of apprise."""
    notify_when: str = "change"
    """`change`: when a night is not ok, and when it is again; `always`: after each night."""
    ping: str | None = None
    """env:NAME or file:PATH that holds a URL to be asked for after each night that ran: its silence is the alarm."""
    paused: bool = False
    cursor: float = 0.0
    """The moment up to which it is decided what is due."""
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Firing:
    """One time that a schedule was due."""

    schedule: str
    at: float
    """When it was due, seconds since 1970; with the schedule's name its key."""
    manual: bool = False
    """Whether a person asked for it."""
    late: bool = False
    """Whether it makes up for one that was missed; such ones wait for each other."""
    begins: float = 0.0
    """When it may begin: its time, and jitter."""
    sweep: str = ""
    """Id of its sweep, a function of the key."""
    target: str = ""
    folder: str = ""
    """Where the sweep lies, once it has begun."""
    state: str = "due"
    why: str = ""
    tries: int = 0
    """How often it was begun."""
    holder: str = ""
    """Who works on it now."""
    claimed: float = 0.0
    started: float | None = None
    ended: float | None = None
    result: str = ""
    """ok, worse, better or broken, once it is done."""
    sentence: str = ""
    event: str = ""
    """What happened, the same for all nights of one regression."""
    night: str = ""
    """The night as JSON, see `sweeps.nights`."""


def firing(schedule: Schedule, at: float, *, manual: bool = False, late: bool = False) -> Firing:
    """A schedule's firing of a moment; whoever makes it, it is the same."""
    stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ" if manual else "%Y%m%dT%H%MZ")
    delay = 0.0 if manual else schedule_times.delay(schedule.name, at, schedule.jitter_s)
    return Firing(schedule.name, at, manual, late, at + delay, f"{schedule.name}-{stamp}", schedule.target)


def tick(schedule: Schedule, now: float) -> list[Firing]:
    """The firings that became due since the schedule's cursor, as they are to be noted: due or missed.

    A clock that was put back makes nothing due twice, since the cursor stays; one that was put forward is a downtime.
    """
    if schedule.paused or now <= schedule.cursor:
        return []
    came = schedule_times.between(schedule.cron, schedule.zone, schedule.cursor, now)
    moments = list(deque(came, maxlen=MOST_AT_ONCE))
    late = [each for each in moments if now - each > LATE_S]
    made_up = {"all": late, "none": [], "latest": late[-1:] if len(late) == len(moments) else []}[schedule.catch_up]
    found = []
    for each in moments:
        if each in late and each not in made_up:
            why = f"no scheduler ran at its time, and catch_up is {schedule.catch_up}"
            found.append(replace(firing(schedule, each), state="missed", why=why))
        else:
            found.append(firing(schedule, each, late=each in late))
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about a firing that is due."""

    do: str
    """`begin`, `wait`, `skip`, `miss`, or `replace`: stop what is active first."""
    why: str = ""


def step(schedule: Schedule, due: Firing, others: Sequence[Firing], now: float) -> Step:
    """What is to be done about a firing that is due, by the other firings of its schedule."""
    if now < due.begins:
        return Step("wait")
    if schedule.deadline_s is not None and now > due.begins + schedule.deadline_s:
        return Step("miss", "its deadline passed before it could begin" + (f": {due.why}" if due.why else ""))
    waiting = [each for each in others if each.state == "due" and each.begins <= now]
    if any(each.at < due.at for each in waiting):
        return Step("wait", "an earlier one comes first")
    patient = due.late or schedule.overlap == "queue"
    if due.why and not patient and any(each.at > due.at for each in waiting):
        return Step("miss", f"it could not begin before the next one was due: {due.why}")
    active = ", ".join(each.sweep for each in others if each.state in ACTIVE)
    if not active:
        return Step("begin")
    if patient:
        return Step("wait", f"waits for {active}")
    if schedule.overlap == "replace":
        return Step("replace", f"waits for {active} to leave")
    return Step("skip", f"{active} was not over")
