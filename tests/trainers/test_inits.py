"""Each init against its formula: variances within 5 standard errors, counts, and what a draw depends on."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.config import INITS, InitConfig, NetConfig, SeedConfig
from trainers.inits import CUT_VARIANCE, initial

WIDE = NetConfig((300, 400, 200), ("sigmoid",), "logistic")
RECURRENT = NetConfig((200, 300, 50), ("tanh",), "squared", steps=8)
SEED = SeedConfig(7)
DRAWN = [kind for kind in INITS if kind != "pretrained"]


def net_for(kind: str, widths: tuple[int, int, int]) -> NetConfig:
    """A net of one tanh layer that may have the init: `echo` is for recurrent ones."""
    return NetConfig(widths, ("tanh",), "squared", steps=4 if kind == "echo" else 0)


def is_drawn(weights, variance: float, kurtosis: float = 3.0) -> bool:
    """Whether weights have mean 0 and a variance, within 5 standard errors."""
    off = abs(np.mean(weights**2) - variance)
    return abs(weights.mean()) < 5 * math.sqrt(variance / weights.size) and off < variance_tolerance(
        variance, kurtosis, weights.size
    )


def variance_tolerance(variance: float, kurtosis: float, count: int) -> float:
    """Five standard errors of a mean of squares: Var(x^2) = (kurtosis - 1) var^2 for a mean of 0."""
    return 5 * variance * math.sqrt((kurtosis - 1) / count)


# The normal law cut at 2 sd: E[x^2] = 1 - 2 c phi(c) / Z = 0.7737, E[x^4] = 3 E[x^2] - 2 c^3 phi(c) / Z.
CUT_KURTOSIS = (3 * 0.7737413 - 16 * 0.05399097 / 0.9544997) / 0.7737413**2

# (kind, variance of fan-in I and fan-out O, kurtosis of the law, bound)
DENSE = [
    ("standard", lambda i, o: 1 / (3 * i), 9 / 5, lambda i, o: 1 / math.sqrt(i)),  # GB10 eq. 15
    ("normalized", lambda i, o: 2 / (i + o), 9 / 5, lambda i, o: math.sqrt(6 / (i + o))),  # GB10 eq. 12
    ("normalized-normal", lambda i, o: 2 / (i + o), 3.0, lambda i, o: math.inf),
    ("lecun", lambda i, o: 1 / i, 3.0, lambda i, o: math.inf),
    ("he", lambda i, o: 2 / i, 3.0, lambda i, o: math.inf),
    ("he-uniform", lambda i, o: 2 / i, 9 / 5, lambda i, o: math.sqrt(6 / i)),
    ("he-truncated", lambda i, o: 0.7737413 * 2 / i, CUT_KURTOSIS, lambda i, o: 2 * math.sqrt(2 / i)),
    ("he-truncated-corrected", lambda i, o: 2 / i, CUT_KURTOSIS, lambda i, o: 2 * math.sqrt(2 / i / 0.7737413)),
    ("kappa", lambda i, o: 2 / i, 3.0, lambda i, o: math.inf),
]


@pytest.mark.parametrize(("kind", "variance", "kurtosis", "bound"), DENSE, ids=[case[0] for case in DENSE])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_dense_inits_have_their_variance_mean_and_bound(kind, variance, kurtosis, bound, scale):
    params = initial(WIDE, InitConfig(kind, scale), SEED)
    for (inputs, outputs), (weights, biases) in zip(WIDE.layers, params, strict=True):
        assert weights.shape == (inputs, outputs)
        assert weights.dtype == biases.dtype == np.float64
        expected = scale**2 * variance(inputs, outputs)
        assert is_drawn(weights, expected, kurtosis)
        limit = scale * bound(inputs, outputs)
        assert abs(weights).max() <= limit * (1 + 1e-7)
        if math.isfinite(limit):
            assert abs(weights).max() > 0.999 * limit  # the whole interval is used
        else:
            assert abs(weights).max() > 3.5 * math.sqrt(expected)
        assert not biases.any()


def test_what_a_cut_at_two_standard_deviations_leaves_of_the_variance():
    x, step = np.linspace(-2, 2, 20_001, retstep=True)
    density = np.exp(-(x**2) / 2)
    assert pytest.approx(CUT_VARIANCE, abs=1e-7) == np.trapezoid(x**2 * density, dx=step) / np.trapezoid(
        density, dx=step
    )
    assert pytest.approx(0.774, abs=5e-4) == CUT_VARIANCE


@pytest.mark.parametrize("kappa", [0.5, 1.0, 4.0])
def test_kappa_is_the_variance_times_fan_in(kappa):
    for (inputs, _), (weights, _) in zip(
        WIDE.layers, initial(WIDE, InitConfig("kappa", kappa=kappa), SEED), strict=True
    ):
        assert is_drawn(weights, kappa / inputs)


@pytest.mark.parametrize("widths", [(60, 60), (90, 40), (40, 90), (1, 7)])
def test_orthogonal_keeps_lengths_whichever_side_is_the_shorter(widths):
    ((weights, biases),) = initial(NetConfig(widths, (), "squared"), InitConfig("orthogonal"), SEED)
    assert weights.shape == widths
    assert weights.flags.c_contiguous
    product = weights.T @ weights if widths[0] >= widths[1] else weights @ weights.T
    np.testing.assert_allclose(product, np.eye(min(widths)), atol=1e-12)
    assert not biases.any()


def test_orthogonal_draws_are_uniform():
    # The trace of a uniformly drawn orthogonal matrix has mean 0 and variance 1; without the sign fix it has not.
    draws = [initial(NetConfig((6, 6), (), "squared"), InitConfig("orthogonal"), SeedConfig(s)) for s in range(1000)]
    traces = np.array([np.trace(weights) for ((weights, _),) in draws])
    assert abs(traces.mean()) < 5 / math.sqrt(1000)
    assert abs(np.mean(traces**2) - 1) < 5 * math.sqrt(2 / 1000)


@pytest.mark.parametrize(("inputs", "fan_in"), [(784, 15), (25, 15), (6, 15), (50, 5), (1, 15)])
def test_sparse_distinct_has_exactly_as_many_inputs(inputs, fan_in):
    units = 2000
    ((weights, _),) = initial(
        NetConfig((inputs, units), (), "logistic"), InitConfig("sparse-distinct", fan_in=fan_in), SEED
    )
    chosen = min(fan_in, inputs)
    assert ((weights != 0).sum(axis=0) == chosen).all()
    assert is_drawn(weights[weights != 0], 1)
    chance = chosen / inputs  # each input is as likely as any other, and each pair of the first two
    assert abs((weights != 0).mean(axis=1) - chance).max() <= 5 * math.sqrt(chance * (1 - chance) / units)
    if inputs > 1:
        both, pair = ((weights[0] != 0) & (weights[1] != 0)).mean(), chance * (chosen - 1) / (inputs - 1)
        assert abs(both - pair) <= 5 * math.sqrt(pair * (1 - pair) / units)


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


@pytest.mark.parametrize("kind", ["sparse", "sparse-distinct"])
def test_sparse_scale_depends_on_tanh_here_and_before_and_sets_tanh_biases(kind):
    widths = (200, 200, 200, 200, 200, 200)
    mixed = initial(NetConfig(widths, ("sigmoid", "tanh", "tanh", "relu"), "logistic"), InitConfig(kind), SEED)
    plain = initial(NetConfig(widths, ("sigmoid",) * 4, "logistic"), InitConfig(kind), SEED)
    factors = (1, 0.5, 0.25, 0.5, 1)
    biases = (0, 0.5, 0.5, 0, 0)
    for factor, bias, (weights, found), (base, zero) in zip(factors, biases, mixed, plain, strict=True):
        np.testing.assert_array_equal(weights, factor * base)
        np.testing.assert_array_equal(found, np.full(200, bias))
        assert not zero.any()


@pytest.mark.parametrize("kind", ["sparse", "sparse-distinct"])
def test_sparse_inside_a_tanh_net_is_a_quarter_and_a_half_at_both_ends(kind):
    tanh = initial(NetConfig((50, 50, 50, 10), ("tanh", "tanh"), "softmax"), InitConfig(kind), SEED)
    plain = initial(NetConfig((50, 50, 50, 10), ("relu", "relu"), "softmax"), InitConfig(kind), SEED)
    for factor, (weights, _), (base, _) in zip((0.5, 0.25, 0.5), tanh, plain, strict=True):
        np.testing.assert_array_equal(weights, factor * base)
    assert [float(biases.max()) for _, biases in tanh] == [0.5, 0.5, 0.0]  # the output layer is not tanh


@pytest.mark.parametrize("radius", [0.5, 1.1, 2.0])
def test_echo_is_dense_outside_and_sparse_of_a_given_spectral_radius_inside(radius):
    init = InitConfig("echo", spectral_radius=radius, input_scale=0.001)
    (first, hidden_biases), (output, output_biases) = initial(RECURRENT, init, SEED)
    assert first.shape == (500, 300)
    assert is_drawn(first[:200], 0.001**2)
    recurrent = first[200:]
    assert abs(abs(np.linalg.eigvals(recurrent)).max() - radius) < 1e-6  # S13 Table 4: 1.1
    assert (recurrent != 0).sum(axis=0).max() == 15
    assert is_drawn(output, 0.1**2)
    assert not hidden_biases.any()
    assert not output_biases.any()


def test_echo_scale_multiplies_the_spectral_radius_too():
    ((first, _), _) = initial(RECURRENT, InitConfig("echo", 2.0), SEED)
    assert abs(abs(np.linalg.eigvals(first[200:])).max() - 2.2) < 1e-6


@pytest.mark.parametrize("units", [1, 2, 3])
def test_echo_of_few_units_has_its_radius(units):
    net = NetConfig((1, units, 1), ("tanh",), "squared", steps=3)
    for seed in range(20):
        ((first, _), _) = initial(net, InitConfig("echo", fan_in=1), SeedConfig(seed))
        assert abs(abs(np.linalg.eigvals(first[1:])).max() - 1.1) < 1e-6


@pytest.mark.parametrize(("kind", "variance", "kurtosis", "bound"), DENSE, ids=[case[0] for case in DENSE])
def test_recurrent_nets_draw_each_block_by_its_own_fans(kind, variance, kurtosis, bound):
    (first, biases), (output, _) = initial(RECURRENT, InitConfig(kind), SEED)
    assert is_drawn(first[:200], variance(200, 300), kurtosis)
    assert is_drawn(first[200:], variance(300, 300), kurtosis)
    assert is_drawn(output, variance(300, 50), kurtosis)
    assert not biases.any()


def test_recurrent_nets_draw_orthogonal_recurrent_weights():
    ((first, _), _) = initial(RECURRENT, InitConfig("orthogonal"), SEED)
    np.testing.assert_allclose(first[200:] @ first[200:].T, np.eye(300), atol=1e-12)
    np.testing.assert_allclose(first[:200] @ first[:200].T, np.eye(200), atol=1e-12)


def test_recurrent_nets_have_the_tanh_variant_of_sparse_on_every_side():
    (first, biases), (output, zeros) = initial(RECURRENT, InitConfig("sparse-distinct"), SEED)
    for block, factor in ((first[:200], 0.5), (first[200:], 0.25), (output, 0.5)):
        assert ((block != 0).sum(axis=0) == 15).all()
        assert is_drawn(block[block != 0], factor**2)
    np.testing.assert_array_equal(biases, np.full(300, 0.5))
    assert not zeros.any()


def test_kinds_that_a_net_cannot_have_are_refused():
    with pytest.raises(ValueError, match="recurrent nets"):
        initial(WIDE, InitConfig("echo"), SEED)
    with pytest.raises(ValueError, match="learned from data"):
        initial(WIDE, InitConfig("pretrained"), SEED)


@pytest.mark.parametrize("kind", ["orthogonal", "echo"])
def test_bits_do_not_depend_on_the_number_of_threads(kind):
    net = net_for(kind, (200, 300, 200))
    before = torch.get_num_threads()
    draws = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        draws.append(initial(net, InitConfig(kind), SEED)[0][0])
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("kind", DRAWN)
def test_scale_multiplies_weights_only(kind):
    net = net_for(kind, (30, 20, 10))
    one, four = (initial(net, InitConfig(kind, scale), SEED) for scale in (1.0, 4.0))
    for (weights, biases), (scaled, same) in zip(one, four, strict=True):
        np.testing.assert_array_equal(scaled, 4 * weights)
        np.testing.assert_array_equal(same, biases)


@pytest.mark.parametrize("kind", DRAWN)
def test_draws_depend_on_sweep_stage_and_replicate_and_nothing_else(kind):
    net = net_for(kind, (30, 20, 10))
    init = InitConfig(kind)
    first = initial(net, init, SEED)[0][0]
    np.random.default_rng().standard_normal(100)  # other generators do not matter
    np.testing.assert_array_equal(first, initial(net, init, replace(SEED))[0][0])
    for other in (SeedConfig(8), SeedConfig(7, "confirm"), SeedConfig(7, "search", 1)):
        assert not np.array_equal(first, initial(net, init, other)[0][0])
    if not net.steps:
        deeper = NetConfig((30, 20, 20, 10), ("tanh",) * 2, "squared")
        np.testing.assert_array_equal(first, initial(deeper, init, SEED)[0][0])  # layer by layer


@pytest.mark.parametrize("kind", [kind for kind in DRAWN if kind != "echo"])
def test_layers_of_equal_shape_differ(kind):
    (first, _), (second, _) = initial(NetConfig((20, 20, 20), ("sigmoid",), "logistic"), InitConfig(kind), SEED)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / math.sqrt(first.size)


def test_every_kind_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "inits.md").read_text()
    assert [kind for kind in INITS if f"| `{kind}` |" not in page] == []
