"""The pages of schedules, and the first page: what happened last night, and what needs a look."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from cluster.service.access import Who, operator, reader
from cluster.service.models import Summary
from cluster.service.pages_render import html
from cluster.service.pages_sweep import address
from cluster.service.problems import Refused
from dashboards.svg_compared import Mark, strip

if TYPE_CHECKING:
    from cluster.schedule import Firing, Schedule, Schedules

router = APIRouter(include_in_schema=False)
NIGHTS, HISTORY, NEXT = 30, 100, 3
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
    next: float | None
    strip: str


def schedules_of(request: Request) -> Schedules | None:
    """The schedules that this service knows; None if it has none."""
    found: Schedules | None = getattr(request.app.state.service, "schedules", None)
    return found


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
        day = datetime.fromtimestamp(firing.at, UTC).strftime("%d %b")
        words = f"{word}. {firing.sentence or firing.why}".strip()
        value, low, high = (night.get(key) for key in ("effect", "low", "high"))
        found.append(Mark(day, "broken" if word == "missed" else word, words, value, low, high))
    return found


def line(schedule: Schedule, firings: Sequence[Firing], there: Iterable[str], now: float) -> Line:
    """A schedule with its last firing and its nights."""
    last = next((each for each in firings if each.state != "due"), None) or (firings[0] if firings else None)
    upcoming = coming(schedule, now, 1)
    return Line(
        schedule.name, schedule.paused, told(last, there) if last is not None else None,
        None if schedule.paused or not upcoming else upcoming[0],
        strip(marks(firings[:NIGHTS]), schedule.name) if len(firings) > 1 else "",
    )  # fmt: skip


def coming(schedule: Schedule, now: float, count: int = NEXT) -> list[float]:
    """The next moments at which a schedule is due."""
    from cluster import schedule_times

    return list(islice(schedule_times.due(schedule.cron, schedule.zone, now), count))


def _lines(request: Request, there: set[str], now: float) -> list[Line]:
    found = schedules_of(request)
    if found is None:
        return []
    return [line(each, found.firings(each.name, NIGHTS), there, now) for each in found.all()]


def headline(lines: Sequence[Line]) -> tuple[str, str]:
    """(sign's word, sentence) of the last nights of all schedules."""
    nights = [each for each in lines if each.last is not None]
    if not nights:
        return "none", "No night has run yet." if lines else "No schedule runs sweeps at night yet."
    bad = [each for each in nights if each.last and each.last.word in UNSOUND]
    running = sum(each.last is not None and each.last.word in ("running", "queued") for each in nights)
    still = f", {running} still running" if running else ""
    if not bad:
        fine = len(nights) - running
        if not fine:
            return "running", "Tonight's sweeps are running."
        whole = "The last night was fine" if len(nights) == 1 else f"All {fine} nights were fine"
        return "ok", f"{whole}{still}."
    names = ", ".join(f"{each.name} is {each.last.word}" for each in bad[:3] if each.last)
    rest = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    verb = "needs" if len(bad) == 1 else "need"
    word = "broken" if any(each.last and each.last.word != "worse" for each in bad) else "worse"
    return word, f"{len(bad)} of {len(nights)} {verb} a look: {names}{rest}{still}."


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
    lines = _lines(request, {each.id for each in every}, now)
    lines.sort(key=lambda each: (each.last is None or each.last.word not in UNSOUND, each.name))
    word, sentence = headline(lines)
    return html(
        request, "home.html", lines=lines, word=word, sentence=sentence, wanting=attention(every, now)[:20],
        running=[each for each in every if each.state == "running"][:20],
        recent=[each for each in every if each.state != "running"][:6], total=len(every), events="/api/v1/events",
    )  # fmt: skip


@router.get("/schedules")
def schedules(request: Request, _who: Annotated[Who, Depends(reader)]) -> Response:
    """All schedules."""
    there = {each.id for each in request.app.state.service.shelf.sweeps()}
    return html(request, "schedules.html", lines=_lines(request, there, time.time()), events="/api/v1/events")


def _one(request: Request, name: str) -> tuple[Schedules, Schedule]:
    found = schedules_of(request)
    named = None if found is None else next((each for each in found.all() if each.name == name), None)
    if found is None or named is None:
        names = [] if found is None else [each.name for each in found.all()]
        have = f"there are: {', '.join(names)}" if names else "there is none yet: musweep schedule add makes one"
        raise Refused(404, f"no schedule {name[:60]!r}; {have}")
    return found, named


@router.get("/schedules/{name}")
def schedule(request: Request, name: str, who: Annotated[Who, Depends(reader)]) -> Response:
    """One schedule: when it is due, what came of it."""
    from cluster import schedule_times

    found, one = _one(request, name)
    now, there = time.time(), {each.id for each in request.app.state.service.shelf.sweeps()}
    firings = found.firings(name, HISTORY)
    return html(
        request, "schedule.html", schedule=one, line=line(one, firings, there, now),
        history=[told(each, there) for each in firings], next=coming(one, now), words=schedule_times.words(one.cron),
        shown=lambda at: schedule_times.shown(at, one.zone), messages=found.messages(name, 10),
        drawn=strip(marks(firings[:60]), name, width=900, height=150), may_write=who.may("operator"),
        measured=any(_night(each).get("effect") is not None for each in firings[:60]), events="/api/v1/events",
    )  # fmt: skip


@router.post("/schedules/{name}/{act}")
def tell(request: Request, name: str, act: str, _who: Annotated[Who, Depends(operator)]) -> Response:
    """Pause, resume or run a schedule now."""
    found, one = _one(request, name)
    if act not in ("pause", "resume", "run"):
        raise Refused(404, f"{act[:40]!r} cannot be done to a schedule; legal: pause, resume, run")
    request.state.audit = {"schedule": one.name}
    if act == "run":
        found.run_now(one.name)
    else:
        (found.pause if act == "pause" else found.resume)(one.name)
    return RedirectResponse(f"/schedules/{name}", 303)
