"""Each init against its formula: variances within 5 standard errors, counts, and what a draw depends on."""

import math
from dataclasses import replace

import numpy as np
import pytest

from trainers.config import INITS, InitConfig, NetConfig, SeedConfig
from trainers.inits import initial

WIDE = NetConfig((300, 400, 200), ("sigmoid",), "logistic")
SEED = SeedConfig(7)


def variance_tolerance(variance: float, kurtosis: float, count: int) -> float:
    """Five standard errors of a mean of squares: Var(x^2) = (kurtosis - 1) var^2 for a mean of 0."""
    return 5 * variance * math.sqrt((kurtosis - 1) / count)


# (kind, variance of fan-in I and fan-out O, kurtosis of the law, bound)
DENSE = [
    ("standard", lambda i, o: 1 / (3 * i), 9 / 5, lambda i, o: 1 / math.sqrt(i)),  # GB10 eq. 15
    ("normalized", lambda i, o: 2 / (i + o), 9 / 5, lambda i, o: math.sqrt(6 / (i + o))),  # GB10 eq. 12
    ("he", lambda i, o: 2 / i, 3.0, lambda i, o: math.inf),
]


@pytest.mark.parametrize(("kind", "variance", "kurtosis", "bound"), DENSE, ids=[case[0] for case in DENSE])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_dense_inits_have_their_variance_mean_and_bound(kind, variance, kurtosis, bound, scale):
    params = initial(WIDE, InitConfig(kind, scale), SEED)
    for (inputs, outputs), (weights, biases) in zip(WIDE.layers, params, strict=True):
        assert weights.shape == (inputs, outputs)
        assert weights.dtype == biases.dtype == np.float64
        expected = scale**2 * variance(inputs, outputs)
        assert abs(weights.mean()) < 5 * math.sqrt(expected / weights.size)
        assert abs(np.mean(weights**2) - expected) < variance_tolerance(expected, kurtosis, weights.size)
        limit = scale * bound(inputs, outputs)
        assert abs(weights).max() <= limit
        if math.isfinite(limit):
            assert abs(weights).max() > 0.999 * limit  # the whole interval is used
        assert not biases.any()


@pytest.mark.parametrize(("inputs", "fan_in"), [(784, 15), (25, 15), (6, 15), (50, 5), (1, 15)])
def test_sparse_has_as_many_distinct_inputs_as_draws_with_replacement_give(inputs, fan_in):
    units = 4000
    net = NetConfig((inputs, units), (), "logistic")
    ((weights, _),) = initial(net, InitConfig("sparse", fan_in=fan_in), SEED)
    counts = (weights != 0).sum(axis=0)
    missed = 1 - 1 / inputs
    mean = inputs * (1 - missed**fan_in)
    # Occupancy variance: n(n-1)(1-2/n)^k + n(1-1/n)^k - n^2(1-1/n)^(2k).
    both = max(0.0, 1 - 2 / inputs) ** fan_in
    spread = inputs * (inputs - 1) * both + inputs * missed**fan_in - inputs**2 * missed ** (2 * fan_in)
    assert abs(counts.mean() - mean) <= 5 * math.sqrt(max(spread, 0) / units) + 1e-9
    assert counts.max() <= min(fan_in, inputs)
    assert counts.min() >= 1
    # Overwritten, not added: each non-zero weight is one standard normal, even where collisions abound.
    values = weights[weights != 0]
    assert abs(np.mean(values**2) - 1) < variance_tolerance(1, 3, values.size)
    # Uniform over inputs: each row is used equally often, within 5 standard errors.
    used = (weights != 0).mean(axis=1)
    chance = 1 - missed**fan_in
    assert abs(used - chance).max() <= 5 * math.sqrt(chance * (1 - chance) / units) + 1e-9


def test_sparse_scale_depends_on_tanh_here_and_before_and_sets_tanh_biases():
    widths = (200, 200, 200, 200, 200, 200)
    mixed = initial(NetConfig(widths, ("sigmoid", "tanh", "tanh", "relu"), "logistic"), InitConfig(), SEED)
    plain = initial(NetConfig(widths, ("sigmoid",) * 4, "logistic"), InitConfig(), SEED)
    factors = (1, 0.5, 0.25, 0.5, 1)
    biases = (0, 0.5, 0.5, 0, 0)
    for factor, bias, (weights, found), (base, zero) in zip(factors, biases, mixed, plain, strict=True):
        np.testing.assert_array_equal(weights, factor * base)
        np.testing.assert_array_equal(found, np.full(200, bias))
        assert not zero.any()


def test_sparse_inside_a_tanh_net_is_a_quarter_and_a_half_at_both_ends():
    tanh = initial(NetConfig((50, 50, 50, 10), ("tanh", "tanh"), "softmax"), InitConfig(), SEED)
    plain = initial(NetConfig((50, 50, 50, 10), ("relu", "relu"), "softmax"), InitConfig(), SEED)
    for factor, (weights, _), (base, _) in zip((0.5, 0.25, 0.5), tanh, plain, strict=True):
        np.testing.assert_array_equal(weights, factor * base)
    assert [float(biases.max()) for _, biases in tanh] == [0.5, 0.5, 0.0]  # the output layer is not tanh


@pytest.mark.parametrize("kind", INITS)
def test_scale_multiplies_weights_only(kind):
    net = NetConfig((30, 20, 10), ("tanh",), "squared")
    one, four = (initial(net, InitConfig(kind, scale), SEED) for scale in (1.0, 4.0))
    for (weights, biases), (scaled, same) in zip(one, four, strict=True):
        np.testing.assert_array_equal(scaled, 4 * weights)
        np.testing.assert_array_equal(same, biases)


@pytest.mark.parametrize("kind", INITS)
def test_draws_depend_on_sweep_stage_and_replicate_and_nothing_else(kind):
    net = NetConfig((30, 20, 10), ("sigmoid",), "logistic")
    init = InitConfig(kind)
    first = initial(net, init, SEED)[0][0]
    np.random.default_rng().standard_normal(100)  # other generators do not matter
    np.testing.assert_array_equal(first, initial(net, init, replace(SEED))[0][0])
    for other in (SeedConfig(8), SeedConfig(7, "confirm"), SeedConfig(7, "search", 1)):
        assert not np.array_equal(first, initial(net, init, other)[0][0])
    deeper = NetConfig((30, 20, 20, 10), ("sigmoid",) * 2, "squared")
    np.testing.assert_array_equal(first, initial(deeper, init, SEED)[0][0])  # layer by layer


@pytest.mark.parametrize("kind", INITS)
def test_layers_of_equal_shape_differ(kind):
    (first, _), (second, _) = initial(NetConfig((20, 20, 20), ("sigmoid",), "logistic"), InitConfig(kind), SEED)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / math.sqrt(first.size)
