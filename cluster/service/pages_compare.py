"""The pages of comparisons and of baselines: sweeps held against each other, and what papers print."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from cluster.folders import UserError
from cluster.service.access import Who, reader
from cluster.service.pages_render import html
from cluster.service.pages_sweep import comparison_of
from dashboards.arms import amount, looks, unit
from dashboards.svg_compared import intervals

if TYPE_CHECKING:
    from cluster.service.reading import Shelf
    from sweeps.comparison import Comparison

router = APIRouter(include_in_schema=False)
MOST = 12
"""Sweeps that can be compared at once."""
KEPT = 32
MATCHES = ("", "work", "wall")
Asked = tuple[tuple[str, ...], str, str]

_made: OrderedDict[Any, Comparison] = OrderedDict()
_turn = threading.Lock()


@router.get("/compare")
def compare(request: Request, _who: Annotated[Who, Depends(reader)]) -> Response:
    """Chosen sweeps held against a baseline or against each other."""
    shelf, query = request.app.state.service.shelf, request.query_params
    chosen = tuple(dict.fromkeys(query.getlist("sweep")))[:MOST]
    against, match = query.get("against", ""), query.get("match", "")
    methods = set(query.getlist("method"))
    every = shelf.sweeps()
    there = [each for each in every if each.verdict or each.id in chosen or each.state == "finished"][:200]
    found, wrong = compared(shelf, (chosen, against, match if match in MATCHES else "")) if chosen else (None, "")
    all_methods = sorted({arm.method for arm in found.arms}) if found else []
    if found is not None and methods & set(all_methods):
        found = only(found, methods)
    return html(
        request, "compare.html", there=there, chosen=chosen, against=against, match=match, found=found, wrong=wrong,
        names=looks(found) if found else {}, drawn=intervals(found) if found and len(found.arms) > 1 else "",
        all_methods=all_methods, methods=methods, amount=amount, unit=unit(found) if found else "", most=MOST,
        lead=lead(found) if found else "", word=word(found) if found else "",
    )  # fmt: skip


def compared(shelf: Shelf, asked: Asked) -> tuple[Comparison | None, str]:
    """The comparison that was asked for, or why there is none."""
    chosen, against, match = asked
    versions = [shelf.version(each) for each in chosen]  # refuses what is no sweep of ours
    if against and against not in ("hf", "published"):
        versions.append(shelf.version(against))
    if len(chosen) == 1 and not against and not match and (stored := comparison_of(shelf.comparison(chosen[0]))):
        return stored, ""
    key = (asked, tuple(versions))
    with _turn:  # one at a time: they read whole journals
        if key not in _made:
            found = _compare(shelf, asked)
            if isinstance(found, str):
                return None, found
            _made[key] = found
            while len(_made) > KEPT:
                _made.popitem(last=False)
        return _made[key], ""


def _compare(shelf: Shelf, asked: Asked) -> Comparison | str:
    from sweeps import compared as comparing

    chosen, against, match = asked
    others = [shelf.root / each for each in chosen[1:]]
    rival = str(shelf.root / against) if against and against not in ("hf", "published") else against or None
    try:
        return comparing.compare(shelf.root / chosen[0], rival, others, match or None)
    except comparing.NothingToCompare as nothing:
        return str(nothing)
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        return f"{', '.join(chosen)} cannot be compared: {error}"


def only(found: Comparison, methods: set[str]) -> Comparison:
    """A comparison's arms of some methods; what is said of their pairs stays as it was corrected for all."""
    arms = tuple(arm for arm in found.arms if arm.method in methods)
    names = {arm.name for arm in arms}
    pairs = tuple(each for each in found.contrasts if {each.a, each.b} <= names)
    return replace(found, arms=arms, contrasts=pairs)


def lead(found: Comparison) -> str:
    """What a comparison says first."""
    if found.primary is not None:
        return found.primary.sentence
    if found.contrasts:
        many = "Of several contrasts, the first: " if len(found.contrasts) > 1 else "No contrast was named beforehand: "
        return many + found.contrasts[0].sentence
    return "No verdict: " + ("the reasons are below." if found.refusals else "nothing was measured to hold it against.")


def word(found: Comparison) -> str:
    """The verdict's word."""
    return found.primary.verdict if found.primary else "no verdict"


@router.get("/baselines")
def baselines(request: Request, _who: Annotated[Who, Depends(reader)]) -> Response:
    """What papers print, and what was measured here against HF."""
    from sweeps import published

    tables = [published.table(name) for name in published.names()]
    task = request.query_params.get("task", "")
    if task:
        tables = [each for each in tables if task in each.tasks]
    measured = [each for each in request.app.state.service.shelf.sweeps() if each.verdict]
    return html(
        request, "baselines.html", tables=[(each, _values(each, task)) for each in tables], task=task,
        tasks=sorted(published.tasks()), measured=measured[:50],
    )  # fmt: skip


def _values(table: Any, task: str) -> Sequence[Any]:
    return [value for value in table.values if not task or value.task == task]
