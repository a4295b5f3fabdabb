"""What ties the keys of a spec together: errors that no single section can see, and warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sweeps import (
    checks_baselines,
    checks_device,
    checks_hf,
    checks_model,
    checks_night,
    checks_reports,
    checks_trainer,
    places,
)
from sweeps.checks_model import init_of, shape_of, values_of
from sweeps.errors import Problem, nearest
from sweeps.parameters import TUNABLE, Choice, Fixed, Float, Int
from sweeps.rungs import mu_after, mu_apart_at, mu_reached_at, report_updates, snap
from sweeps.schema import Fields
from sweeps.space import Space
from trainers.config import METHODS, TaskInfo
from trainers.tasks.options import TaskError

_LARGEST_GRID = 100_000
_MEMORIES = 5
"""Times 1/(1-mu) that a trial must last: S13's .999 needs thousands of updates however short mu_step is."""


WITH_MOMENTUM = ("cm", "nag")
_WITH_LR = tuple(name for name in METHODS if name != "hf")

MATTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(("mu_max", "mu_schedule", "mu_step", "mu_first", "mu_first_updates", "tail_updates", "tail_mu"),
                    ("method", WITH_MOMENTUM)),
    **dict.fromkeys(("beta1", "epsilon"), ("method", ("adam", "adamw"))),
    "beta2": ("method", ("adam", "adamw", "diagonal")),
    "weight_decay": ("method", ("adamw",)),
    "damping": ("method", ("diagonal",)),
    **dict.fromkeys(("lr", "lr_schedule", "lr_warmup", "lr_step", "lr_factor"), ("method", _WITH_LR)),
    **dict.fromkeys((name for name in TUNABLE if name.startswith("hf_")), ("method", ("hf",))),
    "fan_in": ("init", ("sparse", "sparse-distinct", "echo")),
    "kappa": ("init", ("kappa",)),
    **dict.fromkeys(("spectral_radius", "input_scale"), ("init", ("echo",))),
    **dict.fromkeys(("pretrain_updates", "pretrain_lr", "corruption"), ("init", ("pretrained",))),
}  # fmt: skip
"""What matters only where another name has one of some values."""

_SCHEDULED = {**dict.fromkeys(("lr_step", "lr_factor"), ("lr_schedule", ("step",))),
              "mu_step": ("mu_schedule", ("ramp",)),
              **dict.fromkeys(("mu_first", "mu_first_updates"), ("mu_schedule", ("first",)))}  # fmt: skip
"""Likewise, beside what MATTERS says."""


def problems(spec: Fields) -> Iterator[Problem]:
    """Everything wrong with a spec whose sections are each sound."""
    if spec.trainer is not None:
        yield from checks_trainer.problems(spec)
    else:
        yield from _own_methods(spec)
    yield from _search(spec)
    yield from _early_stopping(spec)
    yield from checks_baselines.problems(spec)
    yield from checks_night.problems(spec)
    if spec.training.tail_updates > spec.training.updates:
        wrong = f"a tail longer than the {spec.training.updates} updates of a trial"
        yield Problem("training.tail_updates", wrong, spec.training.tail_updates, f"0 to {spec.training.updates}")
    if spec.mlflow.uri and re.search(r"://[^/@]*:[^/@]*@", spec.mlflow.uri):
        wrong = "a password here would be stored with every result"
        yield Problem("mlflow.uri", wrong, allowed="a URI without one; set MLFLOW_TRACKING_URI for the one with it")
    if (url := places.url_of(spec.storage)) is not None and (wrong_there := places.wrong_with(url)) is not None:
        yield Problem("storage", wrong_there[0], places.shown(spec.storage), wrong_there[1])
    yield from checks_device.problems(spec)


def _own_methods(spec: Fields) -> Iterator[Problem]:
    """What is wrong with the nets, and with what is said of them; nothing that depends on an unknown task."""
    if not spec.task.name:
        yield Problem("task.name" if "task" in spec.model_fields_set else "task", "missing")
        return
    try:
        shape = shape_of(spec)
    except TaskError as error:
        yield Problem("task", str(error))
        return
    yield from spec.space.problems()
    yield from checks_model.problems(spec, shape)
    yield from checks_hf.problems(spec, shape)
    yield from checks_device.precision_problems(spec)
    yield from _objective(spec, shape.info)
    yield from checks_reports.problems(spec, shape.info)
    yield from _diagnostics(spec)


def _objective(spec: Fields, info: TaskInfo) -> Iterator[Problem]:
    """An objective that the task does not report, or must not in search."""
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
        yield from spec.space.check(point, f"search.points.{i}", any_name=spec.trainer is not None)
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
    if stopping.fork and stopping.rungs is not None and spec.trainer is None and stopping.fork.updates > updates:
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


def _diagnostics(spec: Fields) -> Iterator[Problem]:
    """Measurements after the end."""
    updates = spec.training.updates
    for i, update in enumerate(spec.diagnostics.at if spec.diagnostics else ()):
        if isinstance(update, int) and update > updates:
            yield Problem(f"diagnostics.at.{i}", f"after the end of a trial ({updates} updates)", update, "init or end")


def warnings(spec: Fields, rungs: list[int]) -> Iterator[str]:
    """What is allowed but likely not meant."""
    yield from _search_warnings(spec, rungs)
    if spec.trainer is not None:
        yield from checks_trainer.warnings(spec)
    else:
        yield from _method_warnings(spec, rungs)
    if spec.budget.gpu_hours is not None and not spec.resources.gpu:
        yield "budget.gpu_hours has no effect: resources.gpu is 0"


def _method_warnings(spec: Fields, rungs: list[int]) -> Iterator[str]:
    """Momenta that cannot be told apart, and what has no effect."""
    yield from _momentum_warnings(spec, rungs)
    yield from no_effect(spec)
    yield from checks_device.warnings(spec)
    space = spec.space
    if "tail_mu" in space.searched and "tail_updates" not in space and not spec.training.tail_updates:
        yield "space.tail_mu has no effect: training.tail_updates is 0"
    if spec.early_stopping is not None and spec.early_stopping.doomed and shape_of(spec).kind == "rnn":
        yield "early_stopping.doomed has no effect: recurrent nets are not judged"
    if spec.mode == "max":
        yield "mode: max looks for the largest error; every metric of the tasks is better when small"


def _search_warnings(spec: Fields, rungs: list[int]) -> Iterator[str]:
    """Samplers that do not suit the space, the budget or halving."""
    search, trials = spec.search, spec.budget.trials
    points = trials // search.seeds
    if not spec.space.searched and points > 1:
        yield f"space: nothing is searched, so all {points} points are the same"
    if search.algorithm in ("gp", "cmaes"):
        if rungs:
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
    if spec.early_stopping is not None and spec.early_stopping.rungs is not None and not rungs:
        yield "early_stopping: no report falls where a rung could be; raise training.reports or updates"


def no_effect(spec: Fields) -> Iterator[str]:
    """Parameters that are searched where they do nothing."""
    fallbacks = {"init": init_of(spec, shape_of(spec))}
    for name in spec.space.searched:
        for table in (MATTERS, _SCHEDULED):
            if name not in table:
                continue
            parent, users = table[name]
            if parent in _conditions(spec.space, name):
                continue
            found = values_of(spec, parent, fallbacks.get(parent) or getattr(spec.training, parent))
            some = [str(value) for value in users if value in found]
            if not some:
                yield f"space.{name} has no effect: no trial has {parent} {' or '.join(users)}"
            elif set(found) - set(users):
                when = some[0] if len(some) == 1 else f"[{', '.join(some)}]"
                yield (
                    f"space.{name} matters for {parent} {' and '.join(some)} only; add when: {{{parent}: {when}}} to it"
                )


def _conditions(space: Space, name: str) -> set[str]:
    """The names that a parameter's condition hangs on, those of its parents included; circles have been refused."""
    direct = set(space[name].when)
    return direct.union(*(_conditions(space, other) for other in direct))


def _momentum_warnings(spec: Fields, rungs: list[int]) -> Iterator[str]:
    """Momenta that the budget cannot tell apart (SCIENCE 4.3)."""
    searched = spec.space.get("mu_max")
    if searched is None or isinstance(searched, Fixed):
        return
    values = [float(v) for v in searched.values] if isinstance(searched, Choice) else []
    low, high = (searched.low, searched.high) if isinstance(searched, Float) else (min(values), max(values))
    updates = spec.training.updates - spec.training.tail_updates
    step = smallest(spec, "mu_step")
    top = mu_after(updates, step)
    apart = high > top if isinstance(searched, Float) else sum(value > top for value in values) > 1
    if apart and values_of(spec, "mu_schedule", spec.training.mu_schedule) == ["ramp"]:
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
    reached = momentum_apart_at(spec)
    if early := [rung for rung in rungs if rung <= reached]:
        yield (
            f"early_stopping.rungs: at {early[0]} updates momentum has not passed {low:g}, the smallest mu_max "
            f"(reached at {reached}), so trials do not yet differ in it"
        )


def momentum_apart_at(spec: Fields) -> int:
    """The update at which the smallest searched mu_max is reached: until then trials differ not in it."""
    searched = spec.space.get("mu_max")
    if searched is None or "mu_max" not in spec.space.searched or spec.trainer is not None:
        return 0
    low = min(map(float, searched.values)) if searched.type == "choice" else float(getattr(searched, "low", 0.0))
    first, step = smallest(spec, "mu_first_updates"), smallest(spec, "mu_step")
    schedules = values_of(spec, "mu_schedule", spec.training.mu_schedule)
    return min(mu_apart_at(str(schedule), low, step, first) for schedule in schedules)


def smallest(spec: Fields, name: str) -> int:
    """The smallest value that a whole-number tunable can take in any trial."""
    parameter = spec.space.get(name)
    if isinstance(parameter, Int):
        return parameter.low
    if isinstance(parameter, Choice | Fixed):
        own = [int(value) for value in parameter.values]
        return min([*own, getattr(spec.training, name)] if parameter.when else own)
    return int(getattr(spec.training, name))
