"""The pages of schedules, and the first page: what happened last night, and what needs a look."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from cluster.schedule_show import next_due
from cluster.service.access import Who, operator, reader
from cluster.service.models import Summary
from cluster.service.pages_render import html, shared
from cluster.service.pages_sweep import address
from cluster.service.problems import Refused
from dashboards.svg_compared import Mark, strip

if TYPE_CHECKING:
    from cluster.schedule import Firing, Schedule, Schedules

router = APIRouter(include_in_schema=False)
NIGHTS, SHOWN, HISTORY, NEXT = 30, 60, 100, 3
PATIENCE_S, FRESH_S = 5.0, 2.0
UNSOUND = ("worse", "broken", "missed")
LOST = ("cut off", "failed", "unreadable")
RECENT_S = 7 * 86_400.0
"""Sweeps that were lost longer ago need nobody's look any more."""


@dataclass(frozen=True, slots=True)
class Told:
    """A firing as a page tells of it."""

    at: float
    word: str
    """ok, worse, better, broken, running, queued, skipped or missed."""
    sentence: str
    sweep: str
    """The page of its sweep; empty if this service does not have it."""
    name: str
    could_find: float | None = None
    manual: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A schedule as a page tells of it."""

    name: str
    paused: bool
    last: Told | None
    """Its last night that is over, or the one that nobody took note of."""
    active: str
    """`running` or `queued`, if the next is under way; else empty."""
    next: float | None
    marks: list[Mark]

    @property
    def strip(self) -> str:
        """Its last nights in little."""
        return strip(self.marks[-NIGHTS:], self.name) if len(self.marks) > 1 else ""


def schedules() -> Schedules:
    """Those of this user, or of $MUSWEEP_DATABASE."""
    from cluster.database import place
    from cluster.schedule import FILE

    return _opened(place(FILE))


@lru_cache(4)
def _opened(url: str) -> Schedules:
    from cluster.schedule import Schedules

    return Schedules(url, PATIENCE_S)


def word_of(firing: Firing) -> str:
    """How a firing stands, in a word."""
    if firing.state == "done":
        return firing.result or "ok"
    return {"due": "queued", "skipped": "skipped", "missed": "missed"}.get(firing.state, "running")


def told(firing: Firing, there: Iterable[str]) -> Told:
    """A firing in words; `there` are the sweeps that have a page."""
    night, name = _night(firing), Path(firing.folder).name if firing.folder else firing.sweep
    sentence = (
        firing.sentence
        or firing.why
        or {"running": "It runs.", "queued": "It is due and waits."}.get(word_of(firing), "")
    )
    could = night.get("could_find_tonight") or night.get("could_find")
    return Told(
        firing.at, word_of(firing), sentence, address(name) if name in there else "", name,
        could if isinstance(could, float) else None, firing.manual,
    )  # fmt: skip


def _night(firing: Firing) -> dict[str, Any]:
    try:
        found = json.loads(firing.night) if firing.night else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def marks(firings: Sequence[Firing]) -> list[Mark]:
    """Firings as marks of a strip, oldest first."""
    found = []
    for firing in reversed(firings):
        night, word = _night(firing), word_of(firing)
        words = f"{word}. {firing.sentence or firing.why}".strip()
        value, low, high = (night.get(key) for key in ("effect", "low", "high"))
        found.append(Mark(_day(firing.at), word, words, value, low, high))
    return found


def line(schedule: Schedule, firings: Sequence[Firing], there: Iterable[str], now: float) -> Line:
    """A schedule with its last night that is over, and its nights."""
    from cluster import schedule_times
    from cluster.schedule_rules import ACTIVE, OVER
    from cluster.schedule_show import silent

    over = next((each for each in firings if each.state in OVER and each.state != "skipped"), None)
    last, nights = told(over, there) if over is not None else None, marks(firings[:SHOWN])
    if (since := silent(schedule, now)) is not None:  # the alarm that nobody else can raise
        when = schedule_times.shown(since, schedule.zone)
        words = f"The night of {when} did not run: no scheduler took note of it. Start one: `musweep scheduler`"
        last = Told(since, "missed", words, "", "")
        nights.append(Mark(_day(since), "missed", words))
    active = [word_of(each) for each in firings if each.state in ACTIVE or (each.state == "due" and each.begins <= now)]
    upcoming = next_due(schedule, now)
    return Line(
        schedule.name, schedule.paused, last, active[0] if active else "", upcoming[0] if upcoming else None, nights,
    )  # fmt: skip


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%d %b")


class _Kept:
    """What was told of the schedules last, for all who ask within `FRESH_S`."""

    def __init__(self) -> None:
        self.turn, self.at, self.key = threading.Lock(), -FRESH_S, ("", frozenset[str]())
        self.lines: list[Line] = []

    def get(self, there: frozenset[str], now: float) -> list[Line]:
        found = schedules()
        with self.turn:
            key = (str(found.database.url), there)
            if key != self.key or time.monotonic() - self.at > FRESH_S:
                self.lines = [line(each, found.firings(each.name, NIGHTS), there, now) for each in found.all()]
                self.key, self.at = key, time.monotonic()
            return list(self.lines)

    def forget(self) -> None:
        self.at = -FRESH_S


_kept = _Kept()


def _lines(there: set[str], now: float) -> tuple[list[Line], str]:
    """All schedules, and why they cannot be told of, if so: other pages and sweeps do without them."""
    from cluster.schedule import ScheduleError

    try:
        return _kept.get(frozenset(there), now), ""
    except ScheduleError as error:
        return [], f"The schedules cannot be read: {error}"


def headline(lines: Sequence[Line]) -> tuple[str, str]:
    """(sign's word, sentence) of the last nights of all schedules."""
    nights = [each for each in lines if each.last is not None]
    running = sum(bool(each.active) for each in lines)
    if not nights and running:
        return "running", "Tonight's sweeps are running."
    if not nights:
        return "none", "No night has run yet." if lines else "No schedule runs sweeps at night yet."
    bad = [each for each in nights if each.last and each.last.word in UNSOUND]
    still = f"; {running} of the next already {'runs' if running == 1 else 'run'}" if running else ""
    if not bad:
        whole = "The last night was fine" if len(nights) == 1 else f"All {len(nights)} schedules were fine"
        return "ok", f"{whole}{still}."
    verbs = {"missed": "was"}
    names = ", ".join(
        f"{each.name} {verbs.get(each.last.word, 'is')} {each.last.word}" for each in bad[:3] if each.last
    )
    rest = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    verb = "needs" if len(bad) == 1 else "need"
    if len(nights) == 1:
        return bad[0].last.word if bad[0].last else "broken", f"The last night needs a look: {names}{still}."
    words = [each.last.word for each in bad if each.last]
    word = next(each for each in ("broken", "missed", "worse") if each in words)
    return word, f"{len(bad)} of {len(nights)} schedules {verb} a look: {names}{rest}{still}."


def attention(every: Sequence[Summary], now: float) -> list[tuple[Summary, str]]:
    """Sweeps that need somebody, and why."""
    found = []
    for each in every:
        if each.state in LOST and now - each.updated_at < RECENT_S:
            why = each.error or {
                "cut off": "its driver died before the sweep was over: resume it",
                "failed": "its driver ended with an error: look at its log",
            }.get(each.state, "")
            found.append((each, why))
        elif each.troubles:
            found.append((each, each.troubles[0]))
    return found


@router.get("/")
def home(request: Request, _who: Annotated[Who, Depends(reader)]) -> Response:
    """What happened last night."""
    now, every = time.time(), request.app.state.service.shelf.sweeps()
    versions = hash(tuple((each.id, each.version) for each in every))
    return shared.html(request, (versions, int(now / 2)), "home.html", lambda: _home(every, now))


def _home(every: Sequence[Summary], now: float) -> dict[str, Any]:
    lines, trouble = _lines({each.id for each in every}, now)
    lines.sort(key=lambda each: (each.last is None or each.last.word not in UNSOUND, each.name))
    word, sentence = ("broken", trouble) if trouble else headline(lines)
    return {
        "lines": lines, "word": word, "sentence": sentence, "wanting": attention(every, now)[:20],
        "running": [each for each in every if each.state == "running"][:20],
        "recent": [each for each in every if each.state != "running"][:6], "total": len(every),
        "events": "/api/v1/events", "poll": 30,
    }  # fmt: skip


@router.get("/schedules")
def all_schedules(request: Request, _who: Annotated[Who, Depends(reader)]) -> Response:
    """All schedules."""
    there = {each.id for each in request.app.state.service.shelf.sweeps()}
    lines, trouble = _lines(there, time.time())
    return html(request, "schedules.html", lines=lines, trouble=trouble, events="/api/v1/events", poll=5)


def _one(name: str) -> Schedule:
    """A schedule by its name.

    Raises:
        Refused: there is none.
    """
    from cluster.schedule import ScheduleError

    try:
        return schedules().get(name)
    except ScheduleError as error:
        raise Refused(404, str(error)) from None


@router.get("/schedules/{name}")
def schedule(request: Request, name: str, who: Annotated[Who, Depends(reader)]) -> Response:
    """One schedule: when it is due, what came of it."""
    from cluster import schedule_times

    found, one = schedules(), _one(name)
    now, there = time.time(), {each.id for each in request.app.state.service.shelf.sweeps()}
    firings = found.firings(name, HISTORY)
    known = line(one, firings, there, now)
    return html(
        request, "schedule.html", schedule=one, line=known,
        history=[told(each, there) for each in firings], next=next_due(one, now, NEXT),
        words=schedule_times.words(one.cron),
        shown=lambda at: schedule_times.shown(at, one.zone), messages=found.messages(name, 10),
        drawn=strip(known.marks, name, width=900, height=150), may_write=who.may("operator"),
        measured=any(_night(each).get("effect") is not None for each in firings[:SHOWN]),
        events="/api/v1/events", poll=5,
    )  # fmt: skip


@router.post("/schedules/{name}/{act}")
def tell(request: Request, name: str, act: str, _who: Annotated[Who, Depends(operator)]) -> Response:
    """Pause, resume or run a schedule now."""
    found, one = schedules(), _one(name)
    if act not in ("pause", "resume", "run"):
        raise Refused(404, f"{act[:40]!r} cannot be done to a schedule; legal: pause, resume, run")
    request.state.audit = {"schedule": one.name}
    if act == "run":
        found.run_now(one.name)
    else:
        (found.pause if act == "pause" else found.resume)(one.name)
    _kept.forget()
    return RedirectResponse(f"/schedules/{name}", 303)
