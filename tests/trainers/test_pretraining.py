"""Denoising autoencoders against a twin in plain autograd, and what a learned layer depends on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.trainers.cases import trial
from trainers import pretraining
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo
from trainers.data import Data
from trainers.inits import initial
from trainers.tasks import Split, Task

NET = NetConfig((12, 10, 9, 8, 7, 6, 3), ("tanh", "sigmoid", "relu", "softsign", "linear"), "softmax")
FUNCTIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "softsign": functional.softsign,
    "linear": lambda z: z,
}


def make(low: float = 0.0, online: bool = False, dtype: str = "float64", examples: int = 30, inputs: int = 12) -> Data:
    """Examples of three hidden causes, spread from `low` to 1."""

    def draw(seed: int, count: int) -> Split:
        rng = np.random.default_rng([seed, 1])
        causes = rng.standard_normal((count, 3)) @ np.random.default_rng(2).standard_normal((3, inputs))
        x = low + (1 - low) / (1 + np.exp(-2 * causes))
        return Split(x.astype(np.float32), rng.integers(0, 3, count))

    info = TaskInfo("causes", "classification", inputs, 3, "softmax", ("loss", "error"))
    parts = [draw(seed, examples) for seed in range(3)]
    return Data(Task(info, *parts, "synthetic", False, draw=draw if online else None), "cpu", dtype)


def config(net: NetConfig = NET, seed: int = 1, **init: float):
    kinds = {"pretrain_updates": 7, "pretrain_lr": 0.05, "corruption": 0.3} | init
    return replace(trial(net), init=InitConfig("pretrained", **kinds), seed=SeedConfig(seed))


def twin(c, data: Data):
    """Each layer's (weights, biases, biases of the reconstruction), slowly."""
    layers, init = [], c.init
    start = initial(c.net, InitConfig("normalized"), c.seed)
    for layer, activation in enumerate(c.net.hidden):
        w = torch.tensor(start[layer][0], requires_grad=True)
        b, visible = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in reversed(w.shape))
        rng = np.random.default_rng([c.seed.stream("pretrain"), layer])
        unit = c.net.hidden[layer - 1] == "sigmoid" if layer else bool((data.train.inputs >= 0).all())
        for update in range(layer * init.pretrain_updates, (layer + 1) * init.pretrain_updates):
            pool = data.pool(c.seed, update, c.batch)
            x = pool.part.inputs[pool.rows([(c.seed, update)], 1)[0]]
            for name, (below, bias, _) in zip(c.net.hidden, layers, strict=False):
                x = FUNCTIONS[name](x @ below + bias)
            kept = torch.tensor(rng.random(x.shape, dtype=np.float32) >= init.corruption)
            codes = FUNCTIONS[activation](torch.where(kept, x, torch.zeros_like(x)) @ w + b)
            rebuilt = codes @ w.T + visible
            if unit:
                error = functional.binary_cross_entropy(torch.sigmoid(rebuilt), x, reduction="none")
            else:
                error = (rebuilt - x) ** 2
            gradients = torch.autograd.grad(error.sum(1).mean(), (w, b, visible))
            with torch.no_grad():
                for tensor, gradient in zip((w, b, visible), gradients, strict=True):
                    tensor -= init.pretrain_lr * gradient
        layers.append([tensor.detach() for tensor in (w, b, visible)])
    return layers


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_each_layer_equals_its_autograd_twin(low, online):
    c, data = config(), make(low, online)
    *layers, _ = pretraining.pretrained(c, data)
    normalized = initial(NET, InitConfig("normalized"), c.seed)
    for (weights, biases), (start, _), (w, b, _) in zip(layers, normalized, twin(c, data), strict=False):
        assert weights.dtype == biases.dtype == np.float64
        np.testing.assert_allclose(weights, w.numpy(), rtol=0, atol=1e-10)
        np.testing.assert_allclose(biases, b.numpy(), rtol=0, atol=1e-10)
        assert abs(weights - start).max() > 1e-3  # it did learn something


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "softsign", "linear"])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_reconstruction_error_falls(activation, low):
    data = make(low, examples=64)
    c = config(NetConfig((12, 8, 3), (activation,), "softmax"), pretrain_updates=400, pretrain_lr=0.02)
    x = data.train.inputs

    def error(weights, biases) -> float:
        """Squared error of the tied reconstruction with its best biases."""
        codes = FUNCTIONS[activation](x @ torch.tensor(weights) + torch.tensor(biases))
        rebuilt = codes @ torch.tensor(weights).T
        if low == 0:
            visible = torch.zeros(12, dtype=torch.float64)
            for _ in range(50):  # Newton's method: the biases that make each input's mean right
                p = torch.sigmoid(rebuilt + visible)
                visible += ((x - p).mean(0) / (p * (1 - p)).mean(0)).clamp(-1, 1)
            return float((torch.sigmoid(rebuilt + visible) - x).square().sum(1).mean())
        return float((rebuilt - rebuilt.mean(0) - x + x.mean(0)).square().sum(1).mean())

    before, after = (error(*pretraining.pretrained(each, data)[0]) for each in (config(c.net, pretrain_updates=0), c))
    assert after < 0.5 * before, (before, after)


def test_without_updates_it_is_normalized_and_scale_multiplies_weights():
    data = make()
    c = config(pretrain_updates=0)
    for found, expected in zip(
        pretraining.pretrained(c, data), initial(NET, InitConfig("normalized"), c.seed), strict=True
    ):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
    one, four = (pretraining.pretrained(config(scale=scale), data) for scale in (1.0, 4.0))
    for (weights, biases), (scaled, same) in zip(one, four, strict=True):
        np.testing.assert_array_equal(scaled, 4 * weights)
        np.testing.assert_array_equal(same, biases)


def test_the_output_layer_stays_normalized():
    c = config()
    weights, biases = pretraining.pretrained(c, make())[-1]
    np.testing.assert_array_equal(weights, initial(NET, InitConfig("normalized"), c.seed)[-1][0])
    assert not biases.any()


def test_layers_are_learned_once_for_all_trials_that_share_them():
    data, base = make(), config()
    first = pretraining.pretrained(base, data)
    known = pretraining._learned.cache_info().misses
    same = [
        replace(base, number=5, updates=9, method=MethodConfig("adam", 0.1)),
        replace(base, init=replace(base.init, scale=2.0, fan_in=3)),
        replace(base, net=NetConfig((12, 10, 9, 5), ("tanh", "sigmoid"), "softmax")),
    ]
    for other in same:
        found = pretraining.pretrained(other, data)
        np.testing.assert_array_equal(found[0][1], first[0][1])
    assert pretraining._learned.cache_info().misses == known
    deeper = replace(base, net=NetConfig((12, 10, 9, 4, 3), ("tanh", "sigmoid", "tanh"), "softmax"))
    pretraining.pretrained(deeper, data)
    assert pretraining._learned.cache_info().misses == known + 1


def test_learned_layers_depend_on_seed_batch_and_learning_and_can_be_learned_again():
    data, base = make(), config()
    first = pretraining.pretrained(base, data)
    for pair in first:
        pair[0][:] = 0  # what a caller does to its arrays is its own affair
    first = pretraining.pretrained(base, data)
    others = [
        config(seed=2),
        replace(base, batch=5),
        config(corruption=0.0),
        config(pretrain_lr=0.06),
        config(pretrain_updates=8),
    ]
    for other in others:
        assert not np.array_equal(pretraining.pretrained(other, data)[0][0], first[0][0])
    pretraining._learned.cache_clear()
    for (weights, biases), (again, too) in zip(first, pretraining.pretrained(base, data), strict=True):
        np.testing.assert_array_equal(weights, again)
        np.testing.assert_array_equal(biases, too)


def test_single_precision_stays_close():
    double, single = (pretraining.pretrained(config(), make(dtype=dtype)) for dtype in ("float64", "float32"))
    for (weights, _), (rounded, _) in zip(double, single, strict=True):
        np.testing.assert_allclose(rounded, weights, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "kind"),
    [
        (NetConfig((12, 5, 5, 3), ("relu", "relu"), "softmax", eta=(0.5,)), "residual"),
        (NetConfig((12, 5, 3), ("tanh",), "softmax", steps=4), "recurrent"),
    ],
)
def test_other_nets_are_refused(net, kind):
    with pytest.raises(ValueError, match=kind):
        pretraining.pretrained(config(net), make())
