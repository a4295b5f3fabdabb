"""What ties the keys of a spec together: errors that no single section can see, and warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sweeps.errors import Problem, nearest
from sweeps.parameters import Choice, Fixed, Float, Int
from sweeps.rungs import mu_after, mu_reached_at, report_updates, snap
from sweeps.schema import Fields
from sweeps.shapes import Shape
from trainers.config import TASKS
from trainers.tasks.options import TaskError, resolve

_LARGEST_GRID = 100_000
_MEMORIES = 5
"""Times 1/(1-mu) that a trial must last: S13's .999 needs thousands of updates however short mu_step is."""


def shape_of(spec: Fields) -> Shape:
    """The family of nets of a spec, with what it leaves open filled in."""
    info = TASKS[spec.task.name]
    kind = spec.model.kind or ("autoencoder" if info.kind == "autoencoder" else "mlp")
    return Shape(info, kind, tuple(spec.model.widths) if spec.model.widths else None)


def problems(spec: Fields) -> Iterator[Problem]:
    """Everything wrong with a spec whose sections are each sound."""
    yield from spec.space.problems()
    yield from _model(spec)
    yield from _objective(spec)
    try:
        resolve(spec.task.name, spec.task.options)
    except TaskError as error:
        yield Problem("task", str(error))
    yield from _search(spec)
    yield from _early_stopping(spec)
    if spec.training.tail_updates > spec.training.updates:
        wrong = f"a tail longer than the {spec.training.updates} updates of a trial"
        yield Problem("training.tail_updates", wrong, spec.training.tail_updates, f"0 to {spec.training.updates}")
    if spec.mlflow.uri and re.search(r"://[^/@]*:[^/@]*@", spec.mlflow.uri):
        wrong = "a password here would be stored with every result"
        yield Problem("mlflow.uri", wrong, allowed="a URI without one; set MLFLOW_TRACKING_URI for the one with it")
    if spec.resources.device == "cuda" and not spec.resources.gpu:
        yield Problem(
            "resources.gpu", "device cuda, but workers reserve no GPU", spec.resources.gpu, "a number above 0"
        )


def _model(spec: Fields) -> Iterator[Problem]:
    """Depths, widths and kinds that the task's nets cannot have."""
    shape = shape_of(spec)
    if shape.kind == "autoencoder" and shape.info.kind != "autoencoder":
        names = ", ".join(info.name for info in TASKS.values() if info.kind == "autoencoder")
        wrong = f"task {shape.info.name} is no autoencoder task"
        yield Problem("model.kind", wrong, "autoencoder", f"mlp, or one of the tasks {names}", "mlp")
        return
    wrong = f"this {shape.kind} cannot have that depth"
    if shape.kind == "autoencoder":
        wrong += f" (mirrored, so odd, up to {2 * len(shape.encoder) - 1})"
    depth = spec.model.depth
    if depth is not None and shape.depths is not None and depth not in shape.depths:
        yield Problem("model.depth", wrong, depth, shape.allowed)
    searched = spec.space.get("depth")
    if shape.depths is not None and isinstance(searched, Int):
        if bad := [depth for depth in searched.values or [searched.high] if depth not in shape.depths]:
            good = [depth for depth in shape.depths if searched.contains(depth)] or shape.depths
            yield Problem("space.depth", f"{wrong[:-1]}; {bad[0]} is in the range)" if wrong[-1] == ")" else wrong,
                          {"low": searched.low, "high": searched.high}, f"depth: {good}")  # fmt: skip
    elif shape.depths is not None and isinstance(searched, Choice | Fixed):
        for value in searched.values:
            if isinstance(value, int) and value not in shape.depths:
                yield Problem("space.depth", wrong, value, shape.allowed)
    if "width" in spec.space:
        if shape.kind == "autoencoder":
            yield Problem("space.width", "an autoencoder's widths are its task's", allowed="model.widths, not searched")
        elif shape.widths:
            yield Problem("space.width", "has no effect beside model.widths", allowed="one of the two")


def _objective(spec: Fields) -> Iterator[Problem]:
    """An objective that the task does not report, or must not in search."""
    info = TASKS[spec.task.name]
    metric = spec.objective.metric
    if metric in info.objectives:
        return
    allowed, hint = ", ".join(info.objectives), nearest(metric, info.objectives)
    wrong = f"task {info.name} does not report it"
    if metric.startswith("test"):
        wrong = "a search that chose by the test part would leave nothing to judge its choice by"
        same = metric.replace("test", "valid", 1)
        hint = same if same in info.objectives else hint
    elif f"valid_{metric}" in info.objectives:
        hint = f"valid_{metric}"
    yield Problem("objective.metric", wrong, metric, allowed, hint)


def _search(spec: Fields) -> Iterator[Problem]:
    """Points outside the space; a grid over ranges without counts."""
    for i, point in enumerate(spec.search.points):
        yield from spec.space.check(point, f"search.points.{i}")
    for name, count in spec.search.grid.items():
        parameter = spec.space.get(name)
        if not isinstance(parameter, Float | Int):
            ranges = [other for other, p in spec.space.items() if isinstance(p, Float | Int)]
            wrong = "is not a range of the space" if parameter else "is not in the space"
            hint = nearest(name, ranges) if parameter is None else ""
            yield Problem(f"search.grid.{name}", wrong, count, ", ".join(ranges) or "nothing", hint)
    if spec.search.algorithm != "grid":
        return
    size = 1
    for name, parameter in spec.space.items():
        given = spec.search.grid.get(name)
        if given is None and parameter.values is None:
            wrong = "a grid over a range needs to know how many values"
            yield Problem(f"search.grid.{name}", wrong, allowed="a whole number, or space values as a list")
        else:
            size *= given or len(parameter.values or ())
    if size > _LARGEST_GRID:
        yield Problem("search.grid", f"a grid of {size} points", allowed=f"at most {_LARGEST_GRID} points")


def _early_stopping(spec: Fields) -> Iterator[Problem]:
    """Rungs past the end, forks longer than a trial, comparisons within what is not searched."""
    stopping, updates = spec.early_stopping, spec.training.updates
    if stopping is None:
        return
    reports = report_updates(updates, spec.training.reports)
    for i, rung in enumerate(stopping.rungs if isinstance(stopping.rungs, list) else []):
        if snap(rung, reports) >= updates:
            last = reports[-2] if len(reports) > 1 else 0
            wrong = f"past the last report before the end of a trial ({updates} updates)"
            yield Problem(f"early_stopping.rungs.{i}", wrong, rung, f"1 to {last}" if last else "auto")
    if stopping.fork and stopping.fork.updates > updates:
        wrong = f"longer than a trial ({updates} updates)"
        yield Problem("early_stopping.fork.updates", wrong, stopping.fork.updates, f"1 to {updates}")
    countable = [name for name, p in spec.space.items() if isinstance(p, Choice | Int)]
    for i, name in enumerate(stopping.compare_within or []):
        place = f"early_stopping.compare_within.{i}"
        if isinstance(spec.space.get(name), Float):
            yield Problem(place, "a range of numbers: no two trials are alike in it", name, ", ".join(countable))
        elif name not in countable:
            hint = nearest(name, countable)
            yield Problem(place, "is not searched", name, ", ".join(countable) or "an empty list", hint)


def warnings(spec: Fields, rungs: list[int]) -> Iterator[str]:
    """What is allowed but likely not meant."""
    yield from _search_warnings(spec, rungs)
    yield from _momentum_warnings(spec, rungs)
    space = spec.space
    inits = space["init"].values if "init" in space else [spec.training.init]
    if isinstance(space.get("fan_in"), Float | Int | Choice) and inits and "init" not in space["fan_in"].when:
        if "sparse" not in inits:
            yield "space.fan_in has no effect: no trial starts from sparse init"
        elif len(inits) > 1:
            yield "space.fan_in matters for sparse init only; add when: {init: sparse} to it"
    if "tail_mu" in space.searched and "tail_updates" not in space and not spec.training.tail_updates:
        yield "space.tail_mu has no effect: training.tail_updates is 0"
    if spec.mode == "max":
        yield "mode: max looks for the largest error; every metric of the tasks is better when small"
    if spec.budget.gpu_hours is not None and not spec.resources.gpu:
        yield "budget.gpu_hours has no effect: resources.gpu is 0"


def _search_warnings(spec: Fields, rungs: list[int]) -> Iterator[str]:
    """Samplers that do not suit the space, the budget or halving."""
    search, trials = spec.search, spec.budget.trials
    points = trials // search.seeds
    if not spec.space.searched and points > 1:
        yield f"space: nothing is searched, so all {points} points are the same"
    if search.algorithm in ("gp", "cmaes"):
        if spec.early_stopping is not None:
            yield (
                f"search.algorithm={search.algorithm} learns from finished trials only, and early stopping leaves few; "
                "tpe learns from stopped ones too"
            )
        if any(isinstance(p, Choice) for p in spec.space.values()):
            yield f"search.algorithm={search.algorithm} models numbers only: choices are sampled independently of them"
    if search.algorithm == "grid":
        size = len(spec.space.grid(search.grid))
        if size != points:
            what = "the rest is not tried" if size > points else "the search ends when they are done"
            yield f"search.grid: the grid has {size} points, the budget pays for {points}; {what}"
    elif search.grid:
        yield f"search.grid has no effect with search.algorithm={search.algorithm}"
    if spec.early_stopping is not None and not rungs:
        yield "early_stopping: no report falls where a rung could be; raise training.reports or updates"


def _momentum_warnings(spec: Fields, rungs: list[int]) -> Iterator[str]:
    """Momentum that is searched where it does nothing, or that the budget cannot tell apart (SCIENCE 4.3)."""
    searched = spec.space.get("mu_max")
    if searched is None or isinstance(searched, Fixed):
        return
    methods = spec.space["method"].values if "method" in spec.space else [spec.training.method]
    if methods and "sgd" in methods and "method" not in searched.when:
        if others := [str(method) for method in methods if method != "sgd"]:
            when = f"when: {{method: [{', '.join(others)}]}}"
            yield f"space.mu_max is searched for sgd too, which has no momentum; add {when} to it"
        else:
            yield "space.mu_max has no effect: sgd has no momentum"
    values = [float(v) for v in searched.values] if isinstance(searched, Choice) else []
    low, high = (searched.low, searched.high) if isinstance(searched, Float) else (min(values), max(values))
    updates = spec.training.updates - spec.training.tail_updates
    step = smallest(spec, "mu_step")
    top = mu_after(updates, step)
    apart = high > top if isinstance(searched, Float) else sum(value > top for value in values) > 1
    if apart:
        steps = mu_reached_at(high, 1)
        fix = f"lower training.mu_step to {(updates - 1) // steps}" if updates > steps else "train longer"
        yield (
            f"space.mu_max: {updates} updates in steps of {step} never pass momentum {top:.4g}, so values from there "
            f"to {high:g} cannot be told apart; {fix}, or stop at {top:.4g}"
        )
    if updates * (1 - high) < _MEMORIES:
        yield (
            f"space.mu_max: momentum {high:g} averages over {1 / (1 - high):.0f} updates, too many to show its worth "
            f"in {updates}; train longer, or stop at {1 - _MEMORIES / updates:.3g}"
        )
    reached = mu_reached_at(low, step)
    if early := [rung for rung in rungs if rung <= reached]:
        yield (
            f"early_stopping.rungs: at {early[0]} updates momentum has not passed {low:g}, the smallest mu_max "
            f"(reached at {reached}), so trials do not yet differ in it"
        )


def smallest(spec: Fields, name: str) -> int:
    """The smallest value that a whole-number tunable can take in any trial."""
    parameter = spec.space.get(name)
    if isinstance(parameter, Int):
        return parameter.low
    if isinstance(parameter, Choice | Fixed):
        own = [int(value) for value in parameter.values]
        return min([*own, getattr(spec.training, name)] if parameter.when else own)
    return int(getattr(spec.training, name))
