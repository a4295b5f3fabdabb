"""What a spec says of confirm, baselines and compare: what is not there, and what cannot be compared."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.errors import Problem, nearest
from sweeps.parameters import Choice, Float, Int
from sweeps.schema import Fields
from sweeps.schema_baselines import Baseline, HFBaseline, PublishedBaseline, SweepBaseline
from trainers.tasks.options import TaskError, info

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

SEEDS = 6
"""Fewer in an arm allow no verdict."""
POINTS = 3
"""Points for each parameter that a baseline's search should have, or it is hardly tuned."""


def name_of(baseline: Baseline) -> str:
    """What `compare.against` calls a baseline: an hf's name, a published table's, the last part of a sweep's folder."""
    if isinstance(baseline, HFBaseline):
        return baseline.name
    return baseline.table if isinstance(baseline, PublishedBaseline) else Path(baseline.id).name


def problems(spec: Fields) -> Iterator[Problem]:
    """Everything wrong with these three keys that can be told without their derived stages."""
    yield from _confirm(spec)
    yield from _baselines(spec)
    yield from _compare(spec)


def _confirm(spec: Fields) -> Iterator[Problem]:
    """More points than the search tries, names that do not tell points apart, stages that cannot be."""
    confirm = spec.confirm
    if confirm is None:
        return
    if spec.start is not None:
        yield Problem("confirm", "trials that start from a stored state have no fresh seeds", allowed="null")
    if spec.trainer is not None and confirm.eval_examples is not None:
        wrong = "a trainer of your own measures as it likes"
        yield Problem("confirm.eval_examples", wrong, confirm.eval_examples, "null")
    points = spec.budget.trials // spec.search.seeds
    countable = [name for name, parameter in spec.space.items() if isinstance(parameter, Choice | Int)]
    sound = True
    for i, name in enumerate(confirm.each):
        place = f"confirm.each.{i}"
        if isinstance(spec.space.get(name), Float):
            yield Problem(place, "a range of numbers: no two points are alike in it", name, ", ".join(countable))
        elif name not in countable:
            hint = nearest(name, countable)
            yield Problem(place, "is not searched", name, ", ".join(countable) or "an empty list", hint)
        elif name in confirm.each[:i]:
            yield Problem(place, "given twice", name, "each name once")
        else:
            continue
        sound = False
    if sound and confirm.top * (kinds := combinations(spec, confirm.each)) > points:
        of = f" of {kinds} combinations of {', '.join(confirm.each)}" if confirm.each else ""
        wrong = f"the best {confirm.top}{of} are more than the {points} points that the search tries"
        allowed = f"1 to {points // kinds}" if points >= kinds else f"a budget of {kinds * spec.search.seeds} trials"
        yield Problem("confirm.top", wrong, confirm.top, allowed)


def combinations(spec: Fields, names: Sequence[str]) -> int:
    """How many combinations of values of these names points can have, conditions heeded."""
    values = [spec.space[name].values or [] for name in names]
    if math.prod(map(len, values)) > 10_000:  # more than any budget's points; counting them one by one takes long
        return math.prod(map(len, values))
    if not spec.space.cyclic:
        points = [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]
        alike = {tuple(sorted(_active(spec, point).items())) for point in points}
        return max(1, len(alike))
    return 1


def _active(spec: Fields, point: Mapping[str, object]) -> dict[str, object]:
    """The names of a point that another one of them does not rule out."""
    return {
        name: value
        for name, value in point.items()
        if all(other not in point or point[other] in found for other, found in spec.space[name].when.items())
    }


def _baselines(spec: Fields) -> Iterator[Problem]:
    """Names given twice, tables that nobody printed, HF beside a trainer that is not musweep's."""
    names: list[str] = []
    for i, baseline in enumerate(spec.baselines):
        place, name = f"baselines.{i}", name_of(baseline)
        key = {"hf": "name", "published": "table", "sweep": "id"}[baseline.kind]
        if name in names:
            yield Problem(f"{place}.{key}", "given twice", name, "each name once")
        names.append(name)
        if isinstance(baseline, HFBaseline) and spec.trainer is not None:
            wrong = "hf trains nets of musweep's; a trainer of your own has a net that only it knows"
            yield Problem(
                place, wrong, allowed="no trainer (task and model may be yours), or baselines published, sweep"
            )
        if isinstance(baseline, HFBaseline) and spec.start is not None:
            wrong = "trials that start from a stored state have a past that hf would not have"
            yield Problem(place, wrong, allowed="start: null, or no hf")
        if isinstance(baseline, PublishedBaseline):
            yield from _published(place, baseline, spec)


def _published(place: str, baseline: PublishedBaseline, spec: Fields) -> Iterator[Problem]:
    """A table that is none, or one that speaks of other tasks."""
    from sweeps import published  # reads a file, which only such specs need

    names = published.names()
    if baseline.table not in names:
        hint = nearest(baseline.table, names)
        yield Problem(f"{place}.table", "no such published table", baseline.table, ", ".join(names), hint)
        return
    tasks = published.table(baseline.table).tasks
    if spec.trainer is None and spec.task.name in published.tasks() and spec.task.name not in tasks:
        others = [name for name in names if spec.task.name in published.table(name).tasks]
        wrong = f"has no row of task {spec.task.name}, but of {', '.join(tasks) or 'none'}"
        yield Problem(f"{place}.table", wrong, baseline.table, ", ".join(others))


def _compare(spec: Fields) -> Iterator[Problem]:
    """A baseline that is not there or not measured; a metric that is not reported."""
    against, metric = spec.compare.against, spec.compare.metric
    names = {name_of(baseline): baseline for baseline in spec.baselines}
    measured = [name for name, baseline in names.items() if not isinstance(baseline, PublishedBaseline)]
    if against is not None and against not in measured:
        wrong = "a published table is shown beside, not tested against" if against in names else "no such baseline"
        allowed = ", ".join(measured) or "null: baselines has none that is measured"
        yield Problem("compare.against", wrong, against, allowed, nearest(against, measured))
    if metric is None or spec.trainer is not None or not spec.task.name:
        return
    try:
        task = info(spec.task.name, spec.task.settings)
    except TaskError:  # which other checks report
        return
    if metric not in task.objectives:
        hint = f"valid_{metric}" if f"valid_{metric}" in task.objectives else nearest(metric, task.objectives)
        wrong = f"task {task.name} does not report it"
        yield Problem("compare.metric", wrong, metric, ", ".join(task.objectives), hint)


def derived(spec: SweepSpec) -> Iterator[Problem]:
    """What is wrong with the sweeps that the hf baselines are, each at the key of its baseline."""
    for i, baseline in enumerate(spec.baselines):
        if isinstance(baseline, HFBaseline):
            yield from _derived(spec.model_copy(update={"baselines": [baseline]}), f"baselines.{i}")


def _derived(alone: SweepSpec, place: str) -> Iterator[Problem]:
    from sweeps import faults, stages  # they build specs, as this is built

    try:
        stages.of(alone)
        return
    except ValueError as error:
        found = faults.problems_in(error)
    for problem in found:
        if problem.path.split(".")[0] in ("space", "training"):
            yield dataclasses.replace(problem, path=f"{place}.{problem.path}")
        else:
            yield dataclasses.replace(problem, path=place, wrong=f"{problem.path}: {problem.wrong}")


def nowhere(spec: Fields) -> Iterator[Problem]:
    """Sweeps named as baselines that are not on this machine; asked when a file is read, not of a stored spec."""
    for i, baseline in enumerate(spec.baselines):
        if isinstance(baseline, SweepBaseline) and not any(_is_sweep(path) for path in places(spec, baseline)):
            storage = Path(spec.storage)
            known = [path.name for path in sorted(storage.iterdir()) if _is_sweep(path)] if storage.is_dir() else []
            wrong = f"no sweep there or in {spec.storage}"
            hint = nearest(baseline.id, known)
            yield Problem(f"baselines.{i}.id", wrong, baseline.id, "a sweep's folder, or its name in storage", hint)


def places(spec: Fields, baseline: SweepBaseline) -> list[Path]:
    """Where a sweep may lie that is named as a baseline, the first place first."""
    return [Path(baseline.id).expanduser(), Path(spec.storage) / baseline.id]


def _is_sweep(path: Path) -> bool:
    return (path / "spec.json").is_file()


def warnings(spec: SweepSpec) -> Iterator[str]:
    """What leads to no comparison, or to no verdict."""
    measured = [baseline for baseline in spec.baselines if not isinstance(baseline, PublishedBaseline)]
    if spec.confirm is None:
        if measured:
            names = ", ".join(name_of(baseline) for baseline in measured)
            hint = "add confirm: {top: 3, seeds: 10}"
            yield f"baselines: nothing is confirmed, so nothing is held against {names}; {hint}"
    elif spec.confirm.seeds < SEEDS:
        yield f"confirm.seeds: {spec.confirm.seeds} of each arm allow no verdict; {SEEDS} do, 10 are better"
    for i, baseline in enumerate(spec.baselines):
        if isinstance(baseline, HFBaseline):
            yield from _hf_warnings(spec.model_copy(update={"baselines": [baseline]}), f"baselines.{i}")


def _hf_warnings(alone: SweepSpec, place: str) -> Iterator[str]:
    from sweeps import checks, checks_hf, stages

    for stage in stages.of(alone):
        if stage.name.startswith("search:"):
            found = [*checks.no_effect(stage.spec), *checks_hf.enough(stage.spec)]
            yield from (f"{place}.{line}" for line in found)
            points, names = stage.trials // stage.spec.search.seeds, set(stage.spec.space.searched) - set(stage.taken)
            if points < POINTS * len(names):
                yield (
                    f"{place}.share: its search is of {points} points for {len(names)} parameters, so a tuned method "
                    "would be held against one that is less so; raise share or budget.trials"
                )
