"""What the papers prove of weights at the start, against nets that are drawn and run: GB10 section 4.2, HR18."""

import math

import numpy as np
import pytest
import torch

from trainers.config import InitConfig, NetConfig, SeedConfig
from trainers.inits import initial

# E[relu(g)^2k] = E[g^2k] / 2 gives the moments of 2 relu(g)^2: mean 1, variance 5, fourth central moment 633.
RATIO_VARIANCE, RATIO_FOURTH = 5, 633


def lengths(net: NetConfig, init: InitConfig, seed: int, x: np.ndarray) -> np.ndarray:
    """M_d, the mean square of the activations of ReLU layer d, for d = 0 (the input) to the last hidden layer."""
    params = initial(net, init, SeedConfig(seed))[: len(net.hidden)]
    found, h = [np.mean(x**2)], x
    for layer, (weights, biases) in enumerate(params):
        step = np.maximum(h @ weights + biases, 0)
        h = h + net.eta[layer - 1] * step if net.eta and layer else step  # HR18 section 3.3
        found.append(np.mean(h**2))
    return np.array(found)


def relu_net(*widths: int, eta: tuple[float, ...] = ()) -> NetConfig:
    return NetConfig((*widths, 2), ("relu",) * (len(widths) - 1), "softmax", eta=eta)


@pytest.mark.parametrize(("kind", "expected"), [("normalized", 0.849), ("standard", 0.490)])
def test_mean_singular_value_of_a_square_layer(kind, expected):
    # GB10 section 4.2.1. The quarter-circle law's mean is 8 / (3 pi) sqrt(n Var).
    ((weights, _),) = initial(NetConfig((1000, 1000), (), "squared"), InitConfig(kind), SeedConfig(1))
    mean = float(torch.linalg.svdvals(torch.from_numpy(weights)).mean())
    assert abs(mean / expected - 1) < 0.01, mean
    n_variance = {"normalized": 1, "standard": 1 / 3}[kind]
    assert abs(8 / (3 * math.pi) * math.sqrt(n_variance) - expected) < 5e-4


@pytest.mark.parametrize(
    ("init", "kappa"),
    [
        (InitConfig("kappa", kappa=1.0), 1.0),
        (InitConfig("kappa", kappa=2.0), 2.0),
        (InitConfig("kappa", kappa=3.0), 3.0),
        (InitConfig("kappa", scale=0.5, kappa=4.0), 1.0),
        (InitConfig("he"), 2.0),
        (InitConfig("he-uniform"), 2.0),
        (InitConfig("he-truncated"), 2 * 0.77374),
        (InitConfig("he-truncated-corrected"), 2.0),
        (InitConfig("lecun"), 1.0),
        (InitConfig("normalized"), 1.0),  # of equal widths
        (InitConfig("normalized-normal"), 1.0),
        (InitConfig("standard"), 1 / 3),
    ],
    ids=lambda value: value.kind if isinstance(value, InitConfig) else f"{value:.3g}",
)
def test_mean_length_is_kappa_halves_to_the_depth(init, kappa):
    width, depth, nets = 30, 5, 200
    x = np.random.default_rng(0).standard_normal(width)
    net = relu_net(*[width] * (depth + 1))
    drawn = np.array([lengths(net, init, seed, x) for seed in range(nets)])
    depths = np.arange(depth + 1)
    expected = (kappa / 2) ** depths * np.mean(x**2)  # HR18 Theorem FC, mean
    # Relative variance prod(1 + 5/n) - 1 for Gaussian weights; the others' tails are lighter, and so is their spread.
    error = np.sqrt(((1 + RATIO_VARIANCE / width) ** depths - 1) / nets)
    assert (abs(drawn.mean(0) / expected - 1) <= 4 * error + 1e-12).all(), drawn.mean(0) / expected


def test_ratios_of_lengths_have_mean_1_variance_5_over_n_and_are_independent():
    # At kappa = 2, M_j / M_(j-1) is the mean of n_j independent 2 relu(g)^2 whatever came before (SCIENCE 6, 11):
    # so E[M_d^2] / E[M_d]^2 = prod(1 + 5/n_j). The ratio of second moments itself is too heavy-tailed to estimate.
    widths = (16, 30, 16, 30, 16, 30, 16, 20, 20)  # as HR18 figure 3 mixes them, none so narrow that a layer dies
    nets, x = 1200, np.ones(16)
    net = relu_net(*widths)
    drawn = np.array([lengths(net, InitConfig("kappa"), seed, x) for seed in range(nets)])
    ratios = drawn[:, 1:] / drawn[:, :-1]
    n = np.array(widths[1:])
    variance = RATIO_VARIANCE / n
    fourth = (RATIO_FOURTH + 3 * (n - 1) * RATIO_VARIANCE**2) / n**3
    assert (abs(ratios.mean(0) - 1) < 4 * np.sqrt(variance / nets)).all()
    assert (abs(ratios.var(0) - variance) < 4 * np.sqrt((fourth - variance**2) / nets)).all()
    pooled = ratios.var(0) @ n / len(n)  # all layers together: 5 within a few per cent
    assert abs(pooled - 5) < 4 * math.sqrt(((fourth - variance**2) * n**2).sum() / nets) / len(n)
    between = np.corrcoef(ratios, rowvar=False)[np.triu_indices(len(n), 1)]
    assert abs(between).max() < 5 / math.sqrt(nets)


def linear_regime(net: NetConfig, init: InitConfig, examples: int) -> tuple[list[float], list[float], list[float]]:
    """Variances of a tanh net's z^i, dCost/ds^i and dCost/dw^i (each example's own), all layers, by autograd.

    Inputs are small; the gradient at the outputs is drawn, of variance 1 (GB10 takes it as given).
    """
    rng = np.random.default_rng(3)
    z = torch.from_numpy(1e-3 * rng.standard_normal((examples, net.widths[0])))
    inputs, sums = [], []
    for layer, (w, b) in enumerate(initial(net, init, SeedConfig(4))):
        inputs.append(z)
        s = torch.addmm(torch.from_numpy(b), z, torch.from_numpy(w)).requires_grad_()
        sums.append(s)
        z = torch.tanh(s) if layer < len(net.hidden) else s
    top = torch.from_numpy(rng.standard_normal(z.shape))
    deltas = torch.autograd.grad(z, sums, top)
    activations = [float(z.detach().square().mean()) for z in inputs]
    gradients = [float(d.square().mean()) for d in deltas]
    # dCost/dw of one example is the outer product of z and delta (GB10 eq. 3): mean squares multiply.
    by_weight = [
        float((z.detach().square().mean(1) * d.square().mean(1)).mean()) for z, d in zip(inputs, deltas, strict=True)
    ]
    return activations, gradients, by_weight


@pytest.mark.parametrize("kind", ["standard", "normalized", "normalized-normal", "lecun"])
@pytest.mark.parametrize("widths", [(400,) * 7, (300, 500, 350, 450, 250, 400)])
def test_variances_in_the_linear_regime(kind, widths):
    net = NetConfig(widths, ("tanh",) * (len(widths) - 2), "squared")
    variance = {
        "standard": lambda i, o: 1 / (3 * i),
        "normalized": lambda i, o: 2 / (i + o),
        "normalized-normal": lambda i, o: 2 / (i + o),
        "lecun": lambda i, o: 1 / i,
    }[kind]
    forward = [i * variance(i, o) for i, o in net.layers]  # n_i Var[W^i]
    backward = [o * variance(i, o) for i, o in net.layers]  # n_(i+1) Var[W^i]
    activations, gradients, by_weight = linear_regime(net, InitConfig(kind), 400)
    # Var[dCost/ds^i] multiplies the layers above the sums: those from i + 1 on, where s^i feeds layer i + 1.
    above = [math.prod(backward[layer + 1 :]) for layer in range(len(net.layers))]
    below = [1e-6 * math.prod(forward[:layer]) for layer in range(len(net.layers))]
    np.testing.assert_allclose(activations, below, rtol=0.05)  # GB10 eq. 5
    np.testing.assert_allclose(gradients, above, rtol=0.05)  # GB10 eq. 6
    np.testing.assert_allclose(by_weight, np.multiply(below, above), rtol=0.05)  # GB10 eq. 7


def test_weight_gradients_are_alike_in_all_layers_though_gradients_shrink():
    # GB10 figures 7 and 8, top: under standard init gradients fall to a third with each layer down, and activations
    # with each layer up; their product, which is what weights feel, is the same everywhere.
    net = NetConfig((400,) * 7, ("tanh",) * 5, "squared")
    _, gradients, by_weight = linear_regime(net, InitConfig("standard"), 400)
    np.testing.assert_allclose(np.divide(gradients[:-1], gradients[1:]), 1 / 3, rtol=0.03)
    assert max(by_weight) / min(by_weight) < 1.05
    _, gradients, by_weight = linear_regime(net, InitConfig("normalized"), 400)  # the bottom: both are level
    assert max(gradients) / min(gradients) < 1.1
    assert max(by_weight) / min(by_weight) < 1.1


def wide_residual(etas: list[float]) -> np.ndarray:
    """E[M_l] / E[M_1] of a very wide residual He net.

    For h of mean square M and mean m, W h is normal of variance 2 M: so eta relu(W h) adds eta^2 M to the mean
    square, 2 eta m sqrt(M / pi) by its overlap with h, and eta sqrt(M / pi) to the mean. h_1 = relu(normal) has
    m = sqrt(M / pi).
    """
    square, mean, found = 1.0, 1 / math.sqrt(math.pi), [1.0]
    for eta in etas:
        root = math.sqrt(square / math.pi)
        square, mean = square * (1 + eta**2) + 2 * eta * mean * root, mean + eta * root
        found.append(square)
    return np.array(found)


@pytest.mark.parametrize("base", [1.0, 0.5, 0.9])
def test_residual_lengths_follow_the_sum_of_eta(base):
    # HR18 section 3.3: M_L grows like exp(Theta(sum eta)): without bound for eta = 1, within one for eta_l = b^l.
    modules, nets = 30, 4
    etas = tuple(base**layer for layer in range(1, modules + 1))
    x = np.random.default_rng(0).standard_normal(200)
    net = relu_net(200, *[200] * (modules + 1), eta=etas)
    drawn = np.array([lengths(net, InitConfig("he"), seed, x) for seed in range(nets)])
    growth = (drawn[:, 1:] / drawn[:, 1:2]).mean(0)
    expected = wide_residual(list(etas))
    np.testing.assert_allclose(np.log(growth), np.log(expected), atol=0.25)  # 4 nets of width 200, not of infinite
    if base == 1:
        rates = np.diff(np.log(growth))
        assert rates.min() > math.log(2)  # 1 + eta^2, and more since h and the module's output overlap
        assert rates.max() < math.log(4)  # at most (1 + eta)^2: both point the same way
    else:
        bound = math.prod((1 + eta) ** 2 for eta in etas)
        assert growth.max() < bound < math.exp(2 * base / (1 - base))
        assert abs(math.log(growth[-1] / growth[modules // 2])) < 2 * sum(etas[modules // 2 :])
