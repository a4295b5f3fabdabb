"""Products whose factors are rounded: what is rounded, to what, and that nothing else is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainers.cases import BATCH, NETS, RESIDUAL, data, distance, same_bits, task, trial
from trainers import models
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, batch_indices
from trainers.precision import factor
from trainers.serial import SerialTrial
from trainers.stack import StackedEngine
from trainers.stack_replay import plain
from trainers.state import initial_state

BITS = {"tf32": 11, "bf16": 8}
# Rates, factors and batches that are powers of 2: where an engine multiplies by them does not change what is rounded.
SHAPES = {**NETS, "residual": replace(RESIDUAL, eta=(0.5, 0.25))}


def nearest(x: np.ndarray, bits: int) -> np.ndarray:
    """The slow way: to so many binary digits by way of the exponent, ties to even."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2.0**bits), exponent - bits)  # numpy rounds ties to even


@pytest.mark.parametrize("precision", BITS)
def test_factors_are_rounded_to_the_nearest(precision: str) -> None:
    rng = np.random.default_rng(0)
    ties = np.ldexp(1 + np.arange(64) / 2.0 ** BITS[precision], 3)  # every other one is halfway
    x = np.concatenate([rng.standard_normal(5000) * 10.0 ** rng.integers(-20, 20, 5000), ties, [0.0, -1.0]])
    x = x.astype(np.float32)
    found = factor(torch.from_numpy(x), precision).numpy()
    assert np.array_equal(found, nearest(x, BITS[precision]).astype(np.float32))
    assert not np.isfinite(factor(torch.tensor([np.nan, np.inf]), precision).numpy()).any()


class Rounded(torch.autograd.Function):
    """x @ w, in float64 but for the factors, which are rounded: here, and on the way back."""

    bits = 53

    @staticmethod
    def forward(ctx: object, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)  # type: ignore[attr-defined]
        return _product(x, w)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors  # type: ignore[attr-defined]
        return _product(grad, w.t()), _product(x.t(), grad)


def _product(a: Tensor, b: Tensor) -> Tensor:
    a, b = (torch.from_numpy(nearest(t.detach().float().numpy(), Rounded.bits)) for t in (a, b))
    return a @ b


def gradient_step(config: TrialConfig, tensors: Data, bits: int) -> list[Tensor]:
    """Theta after one update from the first state, each layer with its biases below: modules and autograd."""
    Rounded.bits = bits
    net, wide = config.net, torch.float64
    rows = torch.from_numpy(batch_indices(len(tensors.train.inputs), config.batch, config.seed, 0))
    state = initial_state(config)
    layers = [torch.cat([w, b[None]]).to(wide).requires_grad_() for w, b in state.params]
    h = tensors.train.inputs[rows].to(wide)
    functions = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "linear": lambda z: z,
                 "softsign": lambda z: z / (1 + z.abs())}  # fmt: skip
    for layer, (name, w) in enumerate(zip((*net.hidden, "linear"), layers, strict=True)):
        z = functions[name](Rounded.apply(torch.cat([h, torch.ones(len(h), 1, dtype=wide)], 1), w))
        h = h + net.eta[layer - 1] * z if net.eta and 0 < layer < len(net.hidden) else z
    expected = tensors.train.expected[rows]
    models.loss(net, h, expected.to(wide) if expected.is_floating_point() else expected).backward()
    return [(w - config.method.lr * w.grad).detach() for w in layers]


@pytest.mark.parametrize("precision", BITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_update_is_that_of_rounded_factors(shape: str, precision: str) -> None:
    """Against float64 products of rounded factors: what is left is rounding of sums, and ties that fall otherwise."""
    net = SHAPES[shape]
    tensors = data(net, "float32")
    errors, distances = [], []
    for record in (None, plain):
        engine = StackedEngine(net, BATCH, tensors, precision=precision, record=record)
        configs = [trial(net, number, kind="sgd", lr=2.0**number) for number in range(3)]
        for config in configs:
            engine.add(config)
        engine.advance(dict.fromkeys(range(3), 1))
        for config in configs:
            found = [torch.cat([w, b[None]]).double() for w, b in engine.state(config.number).params]
            start = [torch.cat([w, b[None]]).double() for w, b in initial_state(config).params]
            exact, rounded = (gradient_step(config, tensors, bits) for bits in (53, BITS[precision]))
            size = sum(float((w - s).square().sum()) for w, s in zip(exact, start, strict=True)) ** 0.5
            errors.append(sum(float((w - r).square().sum()) for w, r in zip(found, rounded, strict=True)) ** 0.5 / size)
            distances.append(
                sum(float((e - r).square().sum()) for e, r in zip(exact, rounded, strict=True)) ** 0.5 / size
            )
    assert max(errors) < 0.2 * 2.0 ** -BITS[precision]
    assert min(distances) > 0.1 * 2.0 ** -BITS[precision]  # the rounding is there to be seen


def test_what_is_not_a_product_is_float32() -> None:
    net = NETS["mlp-tanh"]
    engines = [
        StackedEngine(net, BATCH, data(net, "float32"), precision=precision) for precision in ("float32", "bf16")
    ]
    for engine in engines:
        engine.add(trial(net, 0, kind="cm", lr=1e-30))  # nothing is learned, so weights stay what they are
        engine.advance({0: 5})
    assert same_bits(*(engine.state(0) for engine in engines)) or distance(*(e.state(0) for e in engines)) < 1e-20


def test_what_cannot_be_rounded_is_refused() -> None:
    net = NETS["mlp-tanh"]
    with pytest.raises(ValueError, match="one of float32, tf32, bf16"):
        StackedEngine(net, BATCH, data(net, "float32"), precision="fp8")
    with pytest.raises(ValueError, match="rounds float32 numbers"):
        StackedEngine(net, BATCH, data(net), precision="tf32")
    recurrent = NetConfig((2, 5, 1), ("tanh",), "squared", steps=4)
    with pytest.raises(ValueError, match="feed-forward and residual nets only"):
        StackedEngine(recurrent, BATCH, Data(task(net), "cpu", "float32"), precision="tf32")


def test_float32_is_what_it_was() -> None:
    """Without a word about precision an update is the twin's, to float32."""
    net = NETS["mlp-tanh"]
    tensors = data(net, "float32")
    engine, twin = StackedEngine(net, BATCH, tensors), SerialTrial(trial(net, 0), tensors)
    engine.add(trial(net, 0))
    engine.advance({0: 3})
    twin.advance(3)
    assert distance(engine.state(0), twin.state()) < 1e-6
