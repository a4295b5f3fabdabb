"""Classical HF on real problems: on a fixed finite set its objective never rises over accepted steps."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers import models
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.config_hf import HFConfig
from trainers.curvature import curvature
from trainers.data import Data
from trainers.hf import HessianFree, Piece, Progress
from trainers.hf_engine import HFEngine
from trainers.state import TrialState, initial_state
from trainers.tasks import Task, load

CURVES = NetConfig((196, 50, 20, 6, 20, 50, 196), ("sigmoid", "sigmoid", "linear", "sigmoid", "sigmoid"), "logistic")
DIGITS = NetConfig((64, 30, 20, 10), ("tanh", "tanh"), "softmax")
ADD = NetConfig((2, 12, 1), ("tanh",), "squared", steps=33)
HF = HFConfig(damping=10.0, chunks=4, cg_max=60)


def fewer(task: Task, examples: int) -> Task:
    """The same task with fewer training examples."""
    train = task.train
    inputs = train.inputs[:examples]
    targets = inputs if train.targets is train.inputs else train.targets[:examples]
    split = type(train)(inputs, targets, *([] if train.steps is None else [train.steps[:examples]]))
    return Task(task.info, split, task.valid, task.test, task.source, task.look_alike)


def problem(name: str) -> tuple[Task, NetConfig, str, HFConfig]:
    if name == "digits":
        return fewer(load("digits"), 600), DIGITS, "normalized", HF
    if name == "curves":
        return fewer(load("curves", {"size": 14, "examples": 3000}), 400), CURVES, "sparse", HF
    structural = HFConfig(damping=1.0, chunks=2, cg_max=40, structural=0.1)
    return fewer(load("add", {"length": 30, "examples": 3000}), 300), ADD, "echo", structural


def course(name: str, iterations: int, dtype: str) -> Iterator[tuple[TrialState, dict[str, float], Data, HFConfig]]:
    """What an engine reports, iteration by iteration."""
    task, net, init, hf = problem(name)
    data = Data(task, "cpu", dtype)
    method = MethodConfig("hf", 1.0, hf=hf)
    engine = HFEngine(net, 100, data)
    engine.add(TrialConfig(0, net, InitConfig(init), method, 10**6, 100, SeedConfig(3)))
    for iteration in range(1, iterations + 1):
        while engine.notes(0)["hf_iterations"] < iteration:
            engine.advance({0: engine.update(0) + 1})
        yield engine.state(0), engine.notes(0), data, hf


def objective(net: NetConfig, state: TrialState, data: Data, l2: float) -> float:
    """Theirs, in float64 and by autograd's modules."""
    module = models.build(net, torch.float64)
    models.set_parameters(module, [(w.double(), b.double()) for w, b in state.params])
    part = data.train
    expected = part.expected.double() if part.expected.is_floating_point() else part.expected
    arguments = (part.inputs.double(), *part.arguments()[1:])
    with torch.no_grad():
        loss = float(models.loss(net, module(*arguments), expected))
    return loss + l2 / 2 * sum(float(t.double().square().sum()) for pair in state.params for t in pair)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "iterations", "gain"), [("digits", 14, 0.15), ("curves", 12, 0.85), ("add", 12, 0.9)])
def test_the_objective_never_rises_over_accepted_steps(name: str, iterations: int, gain: float, dtype: str) -> None:
    values: list[float] = []
    accepted = 0.0
    for state, notes, data, hf in course(name, iterations, dtype):
        values.append(objective(problem(name)[1], state, data, hf.l2))
        assert notes["hf_objective"] == pytest.approx(values[-1], rel=1e-9 if dtype == "float64" else 2e-6)
        accepted = notes["hf_iterations"] - state.scalars["rejected"]
    first = objective(problem(name)[1], initial(name), data, hf.l2)
    slack = 0.0 if dtype == "float64" else 4e-7 * first  # what a float32 sum can be off by
    assert all(after <= before + slack for before, after in zip([first, *values], values, strict=False))
    assert values[-1] < gain * first
    assert accepted >= iterations - 2


def initial(name: str) -> TrialState:
    _, net, init, hf = problem(name)
    config = TrialConfig(0, net, InitConfig(init), MethodConfig("hf", 1.0, hf=hf), 10, 100, SeedConfig(3))
    return initial_state(config, torch.float64)


def test_structural_damping_holds_the_hidden_states() -> None:
    task, net, _, _ = problem("add")
    data = Data(fewer(task, 60), "cpu", "float64")
    state = initial("add")
    curved = curvature(net, data)
    theta = curved.pack(state.params)
    module = models.build(net, torch.float64)

    def hidden(params: Any) -> Tensor:
        models.set_parameters(module, params)
        h, states = torch.zeros(60, 12, dtype=torch.float64), []
        with torch.no_grad():
            for x in data.train.inputs.unbind(1):
                h = torch.tanh(module.cell(torch.cat([x, h], 1)))  # type: ignore[operator]
                states.append(h)
        return torch.stack(states)

    changes, objectives = [], []
    piece = Piece(data.train, slice(0, 60), 60)
    for structural in (0.0, 0.3, 3.0, 30.0):
        hf = HFConfig(damping=1e-2, chunks=1, structural=structural, line_search=False, cg_tolerance=1e-9)
        found = HessianFree(net, theta).iterate(
            curved, theta, torch.zeros_like(theta), Progress(damping=1e-2), hf, [piece], 0
        )
        changes.append(float((hidden(curved.unpack(found.theta)) - hidden(state.params)).norm()))
        objectives.append(found.progress.objective)
        begun = found.objective
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] < 0.2 * changes[0]
    assert objectives[1] < begun
