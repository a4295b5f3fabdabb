"""Back-propagation through time by hand against autograd through the module, which goes step by step."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainers.cases import distance, same_bits
from trainers import models, passes, recurrent
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo, TrialConfig
from trainers.data import Data
from trainers.group import make_engine
from trainers.loop import LoopEngine
from trainers.metrics import measure
from trainers.recurrent import Unrolled, logits_of
from trainers.serial import SerialTrial
from trainers.state import TrialState, initial_state
from trainers.tasks import Split, Task

BATCH, STEPS, FIRST = 7, 13, 4
KINDS = [("softmax", False), ("squared", False), ("logistic", False), ("softmax", True)]
METRICS = {"softmax": ("loss", "error"), "squared": ("loss", "error"), "logistic": ("loss", "squared_error")}


def recurrent_net(loss: str, every: bool, outputs: int = 3) -> NetConfig:
    return NetConfig((2, 6, outputs), ("tanh",), loss, steps=STEPS, every_step=every)


def task(net: NetConfig, examples: int = 40) -> Task:
    """Random sequences, answered at steps 4 to 12 or scored at some of their steps; zeros after the end."""
    rng = np.random.default_rng(3)

    def split(n: int) -> Split:
        inputs = rng.standard_normal((n, STEPS, net.widths[0])).astype(np.float32)
        shape = (n, STEPS) if net.every_step else (n,)
        steps = rng.integers(FIRST, STEPS, n)
        inputs[np.arange(STEPS) > steps[:, None]] = 0
        if net.loss != "softmax":
            return Split(inputs, rng.random((n, net.widths[-1]), np.float32), steps)
        classes = rng.integers(0, net.widths[-1], shape)
        if net.every_step:
            classes[rng.random(shape) < 0.4] = -1
        return Split(inputs, classes, None if net.every_step else steps)

    metrics = ("loss", "errors") if net.every_step else METRICS[net.loss]
    kwargs: dict[str, Any] = {"steps": STEPS, "every_step": net.every_step}
    info = TaskInfo("sequences", "sequence", net.widths[0], net.widths[-1], net.loss, metrics, **kwargs)
    return Task(info, split(examples), split(30), split(5), "random", False)


def trial(net: NetConfig, number: int = 0, kind: str = "nag", lr: float = 0.02, **method: Any) -> TrialConfig:
    schedule = {"mu_max": 0.9, "mu_step": 2} | method
    init = InitConfig("normalized", scale=1 + 0.3 * number)
    return TrialConfig(number, net, init, MethodConfig(kind, lr, **schedule), 50, BATCH, SeedConfig(2, number))


def by_autograd(net: NetConfig, cell: Tensor, output: Tensor, batch: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients of the summed loss as `Unrolled` lays them out, and the logits."""
    inputs, expected, steps = batch
    module = models.build(net, torch.float64)
    models.set_parameters(module, [(cell[:-1], cell[-1]), (output[:, :-1].t(), output[:, -1])])
    logits = module(inputs) if net.every_step else module(inputs, steps)
    (models.loss(net, logits, expected) * len(inputs)).backward()
    pairs = [(linear.weight.grad, linear.bias.grad) for linear in (module.cell, module.output)]
    (w, b), (v, c) = pairs
    return [torch.cat([w.t(), b.unsqueeze(0)]), torch.cat([v, c.unsqueeze(1)], 1), logits.detach()]


def nothing(lead: tuple[int, ...], _: str, *shape: int) -> Tensor:
    """A buffer, which must be written before it is read."""
    return torch.full((*lead, *shape), torch.nan, dtype=torch.float64)


@pytest.mark.parametrize(("loss", "every"), KINDS)
@pytest.mark.parametrize("chunk", [1, 1 << 18], ids=["chunks", "one chunk"])
def test_gradients_are_autograd_s(monkeypatch, loss, every, chunk):
    monkeypatch.setattr(recurrent, "_CHUNK", chunk)  # at least 8 steps each: two chunks
    net = recurrent_net(loss, every)
    generator = torch.Generator().manual_seed(1)
    for lead, sources in (((), ()), ((3,), (1,)), ((3,), (3,))):
        data = [Data(task(net), dtype="float64").train.head(BATCH)] * 3
        if sources == (3,):
            data = [Data(task(net, 20 + k), dtype="float64").train.head(BATCH) for k in range(3)]
        shared = [torch.stack([getattr(part, name) for part in data[: sources[0] if sources else 1]])
                  for name in (("inputs", "targets") if every else ("inputs", "targets", "steps"))]  # fmt: skip
        inputs, targets, steps, *_ = (*(each if sources else each[0] for each in shared), None)
        point = tuple(torch.zeros(*lead, *shape, dtype=torch.float64) for shape in ((9, 6), (3, 7)))
        into = tuple(torch.zeros_like(each) for each in point)
        made = Unrolled(net, (inputs, targets, steps), point, into, partial(nothing, lead))
        for _ in range(2):  # and none keeps what matters
            for weights, gradient in zip(point, into, strict=True):
                weights.copy_(torch.randn(weights.shape, generator=generator, dtype=torch.float64) / 2)
                gradient.fill_(1.0)
            made.forward()
            made.backward()
        for k in range(lead[0] if lead else 1):
            weights, found = ([each[k] if lead else each for each in pair] for pair in (point, into))
            twin = by_autograd(net, *weights, (data[k].inputs, data[k].expected, data[k].steps))
            for gradient, expected in zip(found, twin, strict=False):
                difference = ((gradient - 1) * passes.delta_factor(loss) - expected).norm() / expected.norm()
                assert float(difference) < 1e-12


@pytest.mark.parametrize(("loss", "every"), KINDS)
def test_logits_of_a_part_are_the_module_s(monkeypatch, loss, every):
    net = recurrent_net(loss, every)
    part = Data(task(net), dtype="float64").valid
    generator = torch.Generator().manual_seed(1)
    cell, output = (torch.randn(2, *shape, generator=generator, dtype=torch.float64) / 2 for shape in ((9, 6), (3, 7)))
    for piece in (1 << 16, 2 * 9 * 8):  # all 30 at once, or 8 at a time
        monkeypatch.setitem(recurrent._PIECE, "cpu", piece)
        found = logits_of(net, cell, output, part)
        for k in range(2):
            expected = by_autograd(net, cell[k], output[k], (part.inputs, part.expected, part.steps))[-1]
            torch.testing.assert_close(found[k], expected, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(logits_of(net, cell[k], output[k], part), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kinds", [("nag", "cm", "sgd"), ("adamw", "adam", "adam")])
@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize(("loss", "every"), KINDS)
def test_five_updates_from_the_serial_twin_s_state(loss, every, engine, kinds):
    net = recurrent_net(loss, every)
    data = Data(task(net), dtype="float64")
    configs = [trial(net, number, kind) for number, kind in enumerate(kinds)]
    for seeds in ((0, 0, 0), (0, 1, 2)):  # a batch for all, or one for each
        configs = [replace(config, seed=SeedConfig(2, seed)) for config, seed in zip(configs, seeds, strict=True)]
        twins = [SerialTrial(config, data) for config in configs]
        for update in range(5):
            made = make_engine(engine, net, BATCH, data, configs[0].method.family)
            for config, twin in zip(configs, twins, strict=True):
                made.add(config, twin.state())
            made.advance(dict.fromkeys(range(3), update + 1))
            for twin in twins:
                twin.advance(1)
            assert max(distance(made.state(n), twins[n].state()) for n in range(3)) < 1e-12
        measured = made.evaluate([0, 1, 2], data.valid)
        for n, twin in enumerate(twins):
            for name, value in twin.evaluate(data.valid).items():
                assert float(measured[name][n]) == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize(("loss", "every"), KINDS)
def test_a_trial_s_bits_do_not_depend_on_its_neighbours_even_diverged_ones(loss, every):
    net = recurrent_net(loss, every)
    data = Data(task(net), dtype="float32")
    configs = [trial(net, 0), trial(net, 1), trial(net, 2, "cm")]
    broken = initial_state(configs[1])
    broken.params[0][0][3, 2] = torch.nan
    together = LoopEngine(net, BATCH, data)
    for config in configs:
        together.add(config, broken if config.number == 1 else None)
    for update in range(1, 9):
        together.advance(dict.fromkeys(range(3), update))
    assert [together.diverged_at(number) for number in range(3)] == [None, 0, None]
    measured = together.evaluate([0, 1, 2], data.valid)
    assert all(bool(value.isfinite().equal(torch.tensor([True, False, True]))) for value in measured.values())
    for number in (0, 2):
        alone = LoopEngine(net, BATCH, data)
        alone.add(configs[number])
        alone.advance({number: 8})
        assert same_bits(alone.state(number), together.state(number))


def test_a_stack_keeps_its_other_trials_bits_beside_a_diverged_one():
    net = recurrent_net("softmax", every=True)
    data = Data(task(net), dtype="float32")
    configs = [trial(net, 0), trial(net, 1), trial(net, 2, "cm")]
    runs: list[list[TrialState]] = []
    for value in (0.5, torch.nan):
        second = initial_state(configs[1])
        second.params[0][0][3, 2] = value
        stack = make_engine("stacked", net, BATCH, data)
        for config in configs:
            stack.add(config, second if config.number == 1 else None)
        for until in ((2, 2, 2), (5, 4, 2), (9, 9, 9)):  # three train, then two, then all again
            stack.advance(dict(enumerate(until)))
        runs.append([stack.state(0), stack.state(2)])
        assert stack.diverged_at(1) == (None if value == 0.5 else 0)
    assert all(same_bits(*pair) for pair in zip(*runs, strict=True))


def test_a_wide_net_is_updated_by_blocks_all_the_same(monkeypatch):
    net = recurrent_net("softmax", every=False)
    data, config = Data(task(net), dtype="float64"), trial(net)
    states: list[TrialState] = []
    for small in (1 << 16, 1):
        monkeypatch.setattr("trainers.loop._SMALL", small)
        engine = LoopEngine(net, BATCH, data)
        engine.add(config)
        engine.advance({0: 4})
        states.append(engine.state(0))
    assert same_bits(*states)


def test_the_diagonal_method_is_refused():
    net = recurrent_net("softmax", every=False)
    with pytest.raises(ValueError, match="method diagonal: trains feed-forward"):
        LoopEngine(net, BATCH, Data(task(net)), "diagonal")


def test_a_diverged_trial_scores_well_in_no_metric():
    for (loss, every), bad in product(KINDS, (torch.nan, torch.inf)):
        net = recurrent_net(loss, every)
        data = Data(task(net))
        logits = logits_of(net, torch.full((9, 6), 0.5), torch.full((3, 7), bad), data.valid)
        assert all(bool(value.isnan()) for value in measure(data.info, net, logits, data.valid).values())
