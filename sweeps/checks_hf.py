"""What a spec says of Hessian-free optimisation: which keys go together, and whether the budget is enough for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sweeps.checks_model import values_of
from sweeps.errors import Problem
from sweeps.parameters import Choice, Fixed, Int, Parameter
from sweeps.schema import Fields
from sweeps.schema_trial import HFTraining, HFTrainingPhase
from sweeps.shapes import Shape
from trainers.config import NetConfig

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

ITERATIONS = 5
"""Outer iterations that a trial of HF must have work for: before that its damping has not found its place."""

TRAIN = {
    "curves": 20_000, "mnist-ae": 60_000, "mnist": 60_000, "digits": 1_097, "faces": 103_500, "cifar10": 50_000,
    "small-imagenet": 90_000, "shapeset": 5_000,
}  # fmt: skip
"""Training examples of a task, those held out of them included; of an online task those it is measured on."""

_HELD_OUT = {"mnist-ae": 5_000, "mnist": 10_000, "cifar10": 10_000}


def trains(spec: Fields) -> bool:
    """Whether some trial of the search is one of HF."""
    return spec.trainer is None and "hf" in values_of(spec, "method", spec.training.method)


def train_examples(spec: Fields) -> int | None:
    """Examples of the training set, as far as is known without the data."""
    task = spec.task
    held_out = _HELD_OUT.get(task.name, 0) if task.holdout is None else task.holdout
    known = None if task.file or task.name not in TRAIN else TRAIN[task.name] - held_out * (task.name in _HELD_OUT)
    given = task.examples
    return known if given is None else given if known is None else min(given, known)


def iteration(spec: Fields, net: NetConfig) -> tuple[int, int, int, float] | None:
    """Of an outer iteration: examples of its gradient, most products, examples of each, and its work in gradients.

    Where the space searches CG's steps or the parts, at the least costly values.
    """
    examples, told = train_examples(spec), spec.training.hf
    if examples is None:
        return None
    products = _bound(spec.space.get("hf_cg_max"), min, told.cg_max)
    parts = _bound(spec.space.get("hf_chunks"), max, told.chunks)
    chunk = -(-examples // parts)
    gradient = examples if told.gradient == "full" else chunk
    return gradient, products, chunk, gradient + products * chunk * net.product_cost


def _bound(parameter: Parameter | None, which: Callable[[list[int]], int], told: int) -> int:
    """The smallest or largest value that a whole number can have in the space, else what the spec tells."""
    if isinstance(parameter, Int):
        return which([parameter.low, parameter.high])
    if isinstance(parameter, Choice | Fixed):
        return which([int(value) for value in parameter.values])
    return told


def problems(spec: Fields, shape: Shape) -> Iterator[Problem]:
    """Phases that do not follow each other; a damping of hidden states in nets that have none."""
    before = 0.0
    for i, phase in enumerate(spec.training.hf.phases):
        if phase.until <= before:
            wrong = f"does not come after the phase before it, which ends at {before:g}"
            yield Problem(f"training.hf.phases.{i}.until", wrong, phase.until, f"above {before:g}, at most 1")
        before = max(before, phase.until)
    if shape.kind != "rnn":
        wrong = "structural damping weighs the hidden states of recurrent nets (Martens, Sutskever 2011)"
        if spec.training.hf.structural:
            yield Problem("training.hf.structural", wrong, spec.training.hf.structural, "0")
        if "hf_structural" in spec.space:
            yield Problem("space.hf_structural", wrong, allowed="a space without it")


def warnings(spec: SweepSpec) -> Iterator[str]:
    """Keys that do nothing, and a budget that ends before HF has begun."""
    if spec.trainer is not None:
        return
    if not trains(spec):
        if spec.training.hf != HFTraining() and not any(baseline.kind == "hf" for baseline in spec.baselines):
            yield "training.hf has no effect: no trial has method hf, and no baseline is hf"
        return
    told, stopping = spec.training.hf, spec.early_stopping
    parts: list[tuple[str, HFTraining | HFTrainingPhase]] = [("training.hf", told)]
    parts += [(f"training.hf.phases.{i}", phase) for i, phase in enumerate(told.phases)]
    for place, part in parts:
        searched = told.line_search if part.line_search is None else part.line_search
        if searched and (part.step_decay or (part.step is not None and part.step != HFTraining().step)):
            key = "step_decay" if part.step_decay else "step"
            yield f"{place}.{key} has no effect: line_search finds the step; set line_search: false"
    for place, at in _phases(told):
        if at.gradient == "chunk" and at.adapt:
            yield (
                f"{place}: with gradient: chunk the damping is judged on the examples that the step was made for, "
                "falls to nothing, and the run is lost; set adapt: false and search hf_damping"
            )
    if stopping is not None and stopping.fork is not None and stopping.rungs is not None:
        yield (
            "early_stopping.fork: hf has no momentum to lower, so its trials just go on for "
            f"{stopping.fork.updates} updates; set fork: null, or leave hf to baselines"
        )
    yield from enough(spec)


def _phases(told: HFTraining) -> Iterator[tuple[str, HFTraining]]:
    """What holds in each phase, and after the last unless that ends with the run."""
    for i, phase in enumerate(told.phases):
        changes = {key: value for key, value in phase.model_dump(exclude={"until"}).items() if value is not None}
        yield f"training.hf.phases.{i}", told.model_copy(update=changes)
    if not told.phases or told.phases[-1].until < 1:
        yield "training.hf", told


def enough(spec: SweepSpec) -> Iterator[str]:
    """Whether a trial of HF has work for some outer iterations."""
    net = spec.net(spec.space.from_unit(dict.fromkeys(spec.space.searched, 0.0)))
    batch = _bound(spec.space.get("batch"), max, spec.training.batch)
    one = iteration(spec, net)
    if one is None or spec.training.updates * batch >= ITERATIONS * one[-1]:
        return
    gradient, products, chunk, work = one
    needed = -int(-ITERATIONS * work // batch)
    yield (
        f"training.updates: {spec.training.updates} updates of {batch} are the work of "
        f"{spec.training.updates * batch / work:.2g} outer iterations of hf (a gradient of {gradient} examples, up to "
        f"{products} products on {chunk}, each {net.product_cost:.2g} gradients), and it needs {ITERATIONS}; train "
        f"{needed} updates, or lower hf.cg_max"
    )
