"""A search that starts from what earlier sweeps found: their best points, and perhaps all their results.

The earlier sweep is read once, when the spec is; what was found there stands in the spec from then on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.errors import ABSENT, Problem, ProblemsError, nearest, show
from sweeps.schema_search import Known, Search, Warm
from sweeps.space import Params, coerce

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec
    from sweeps.stages import Point

MOST_TOLD = 1000
"""Results of one earlier sweep that a model is told, the best ones."""
_ALIKE = ("task", "trainer", "model", "training", "objective", "mode", "target", "start")
"""Sections that make an objective comparable."""
_FREE = {"training": ("keep",)}
"""Keys of theirs that change no objective."""


def settled(spec: SweepSpec) -> Search:
    """The search with the points of earlier sweeps filled in where they are not yet.

    Raises:
        ProblemsError: a sweep that is not there, has nothing to start from, or does not compare.
    """
    search = spec.search
    if all(source.points is not None for source in search.warm):
        return search
    sources = [source if source.points is not None else _read(spec, i, source) for i, source in enumerate(search.warm)]
    return search.model_copy(update={"warm": sources})


def warnings(search: Search) -> Iterator[str]:
    """Points that were left out."""
    for source in search.warm:
        if source.skipped:
            yield f"search.warm: {source.skipped} better points of {source.sweep} are left out: not in this space"
        if source.tell and search.algorithm in ("random", "qmc", "grid"):
            yield f"search.warm: tell has no effect with search.algorithm={search.algorithm}, which learns nothing"


def same_but_for_sources(spec: SweepSpec, stored: SweepSpec) -> bool:
    """Whether a spec is the stored one, though an earlier sweep has since found other points."""
    asked = [(source.sweep, source.top, source.tell) for source in spec.search.warm]
    if asked != [(source.sweep, source.top, source.tell) for source in stored.search.warm]:
        return False
    search = spec.search.model_copy(update={"warm": stored.search.warm})
    return spec.model_copy(update={"search": search}) == stored


def _read(spec: SweepSpec, i: int, source: Warm) -> Warm:
    """Look up one earlier sweep."""
    from sweeps import history, stages

    place, folder = f"search.warm.{i}", _folder(spec, f"search.warm.{i}", source.sweep)
    theirs = json.loads((folder / "spec.json").read_bytes())
    trials = stages.in_stage(history.load(folder), stages.SEARCH)
    ranked = stages.ranked(trials, theirs.get("mode", "min"))
    if not ranked:
        raise ProblemsError([Problem(f"{place}.sweep", "no trial of it is complete", source.sweep, "a sweep that is")])
    inside: list[Params] = []
    skipped = 0
    for point in ranked:
        found = _inside(spec, point.params)
        if found is not None and len(inside) < source.top and found not in inside:
            inside.append(found)
        skipped += found is None and len(inside) < source.top
    if not inside and source.top:
        wrong = f"none of its {len(ranked)} complete points lies in this space, such as {show(dict(ranked[0].params))}"
        raise ProblemsError([Problem(f"{place}.sweep", wrong, source.sweep, "a sweep of a space that overlaps")])
    told = list(_told(spec, place, source, theirs, ranked)) if source.tell else []
    return source.model_copy(update={"points": inside, "skipped": skipped, "told": told})


def _folder(spec: SweepSpec, place: str, name: str) -> Path:
    storage = Path(spec.storage)
    for folder in (Path(name).expanduser(), storage / name):
        if (folder / "spec.json").is_file():
            return folder
    known = [path.parent.name for path in sorted(storage.glob("*/spec.json"))] if storage.is_dir() else []
    wrong = f"no sweep there or in {spec.storage}"
    problem = Problem(f"{place}.sweep", wrong, name, "a sweep's folder, or its name in storage", nearest(name, known))
    raise ProblemsError([problem])


def _inside(spec: SweepSpec, params: Mapping[str, Any]) -> Params | None:
    """What a point of another sweep says of this space; None if it lies outside, or says nothing."""
    known = {name: value for name, value in coerce(params).items() if name in spec.space}
    fixed = [name for name in known if name not in spec.space.searched]
    if any(not spec.space[name].contains(known[name]) for name in fixed):
        return None
    active = {n: v for n, v in spec.space.active(known).items() if n in known and n not in fixed}
    if not active or spec.space.check(active, "", any_name=spec.trainer is not None):
        return None
    return active


def _told(spec: SweepSpec, place: str, source: Warm, theirs: Mapping[str, Any], ranked: list[Point]) -> Iterator[Known]:
    """Results that this sweep would have had as well, had it trained them.

    Raises:
        ProblemsError: they were measured otherwise.
    """
    ours = spec.model_dump(mode="json")
    for section in _ALIKE:
        for key, (here, there) in _differences(section, ours.get(section), theirs.get(section)).items():
            wrong = f"{key} is {show(there)} there and {show(here)} here, so its results do not compare"
            raise ProblemsError([Problem(f"{place}.tell", wrong, source.tell, "false")])
    for point in ranked[:MOST_TOLD]:
        params = coerce(point.params)
        here = _inside(spec, params)
        whole = here is not None and spec.space.active(here).keys() == spec.space.active(params).keys()
        if whole and here is not None and set(params) == set(spec.space.active(here)):
            yield Known(point=here, objective=point.objective)


def _differences(section: str, here: Any, there: Any) -> dict[str, tuple[Any, Any]]:
    if not (isinstance(here, Mapping) and isinstance(there, Mapping)):
        return {} if here == there else {section: (here, there)}
    names = [name for name in {**here, **there} if name not in _FREE.get(section, ())]
    found = {name: (here.get(name, ABSENT), there.get(name, ABSENT)) for name in names}
    return {f"{section}.{name}": pair for name, pair in found.items() if pair[0] != pair[1]}
