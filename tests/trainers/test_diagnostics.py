"""Diagnostics against autograd through the ordinary modules, and against what the papers derive."""

import math

import numpy as np
import pytest
import torch

from trainers import diagnostics, models
from trainers.config import DIAGNOSTICS, InitConfig, NetConfig, SeedConfig
from trainers.data import Part
from trainers.diagnostics import BINS, JACOBIAN_EXAMPLES, QUANTILES, measure, measure_all, summary
from trainers.inits import initial

SEED = SeedConfig(5)
NETS = {
    "sigmoid": NetConfig((7, 6, 5, 4), ("sigmoid", "linear"), "logistic"),
    "tanh": NetConfig((7, 5, 6, 4), ("tanh", "tanh"), "softmax"),
    "softsign": NetConfig((7, 6, 6, 5, 4), ("softsign", "relu", "softsign"), "squared"),
    "residual": NetConfig((7, 5, 5, 5, 4), ("relu", "tanh", "softsign"), "softmax", eta=(0.7, 0.3)),
}


def params_of(net: NetConfig, seed: int = 0, scale: float = 1.5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(shape[0])

    return [(draw(rows, columns), draw(columns)) for rows, columns in net.layers]


def part_of(net: NetConfig, examples: int = 40) -> Part:
    generator = torch.Generator().manual_seed(9)
    inputs = torch.rand((examples, net.widths[0]), generator=generator, dtype=torch.float64)
    classes = torch.arange(examples) % net.widths[-1]
    if net.loss == "softmax":
        return Part(inputs, torch.nn.functional.one_hot(classes, net.widths[-1]).double(), classes)
    return Part(inputs, torch.rand((examples, net.widths[-1]), generator=generator, dtype=torch.float64), None)


def gradients(net: NetConfig, zs, acts) -> list[torch.Tensor]:
    """dCost/dz by layer, dCost/dh of a residual net, of each example's own cost."""
    each = [act.grad for act in acts[1:]] + [zs[-1].grad] if net.eta else [z.grad for z in zs]
    return [grad * len(acts[0]) for grad in each]


def graph(net: NetConfig, params, part: Part):
    """z, act and the mean cost by autograd: the obvious way."""
    weights = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in params]
    functions = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "linear": lambda z: z,
                 "softsign": torch.nn.functional.softsign}  # fmt: skip
    h, zs, acts = part.inputs.clone().requires_grad_(), [], []
    acts.append(h)
    for layer, (w, b) in enumerate(weights):
        z = h @ w + b
        z.retain_grad()
        zs.append(z)
        if layer < len(net.hidden):
            f = functions[net.hidden[layer]](z)
            h = h + net.eta[layer - 1] * f if net.eta and layer else f
            h.retain_grad()
            acts.append(h)
    cost = models.loss(net, zs[-1], part.expected)
    cost.backward()
    return weights, zs, acts


@pytest.mark.parametrize("name", NETS)
def test_activations_gradients_and_lengths_equal_autograds(name: str) -> None:
    net = NETS[name]
    params, part = params_of(net), part_of(net)
    weights, zs, acts = graph(net, params, part)
    found = measure(net, params, part)
    expected = {
        "activation_mean": [act.mean() for act in acts[1:]],
        "activation_sd": [act.std(correction=0) for act in acts[1:]],
        "gradient_sd": [grad.std(correction=0) for grad in gradients(net, zs, acts)],
        "weight_gradient_sd": [w.grad.std(correction=0) for w, _ in weights],
        "length": [act.square().mean() for act in acts],
    }
    for quantity, values in expected.items():
        wanted = torch.stack([value.detach() for value in values]).numpy()
        np.testing.assert_allclose(found[quantity].values[:, 0], wanted, rtol=1e-12, atol=1e-15, err_msg=quantity)
        assert found[quantity].first == (0 if quantity == "length" else 1)


@pytest.mark.parametrize("name", NETS)
def test_singular_values_are_those_of_autograds_jacobian(name: str) -> None:
    net = NETS[name]
    params, part = params_of(net), part_of(net)
    found = measure(net, params, part, ("jacobian",))
    functions = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "linear": lambda z: z,
                 "softsign": torch.nn.functional.softsign}  # fmt: skip
    _, zs, acts = graph(net, params, part)
    layers = range(1, len(net.hidden)) if net.eta else range(1, len(net.hidden) + 1)
    assert found["singular_values"].first == 1
    assert found["singular_values"].values.shape == (len(layers), len(QUANTILES))
    for row, layer in enumerate(layers):

        def step(x: torch.Tensor, layer: int = layer) -> torch.Tensor:
            w, b = params[layer]
            if net.eta:  # a module: h_l to h_(l+1)
                return x + net.eta[layer - 1] * functions[net.hidden[layer]](x @ w + b)
            return functions[net.hidden[layer - 1]](x) @ w + b  # z^l to z^(l+1)

        starts = acts[layer] if net.eta else zs[layer - 1]
        values = torch.stack(
            [
                torch.linalg.svdvals(torch.autograd.functional.jacobian(step, start.detach()))
                for start in starts[:JACOBIAN_EXAMPLES]
            ]
        )
        assert found["singular_mean"].values[row, 0] == pytest.approx(float(values.mean()), rel=1e-12)
        assert found["singular_values"].values[row, 0] == pytest.approx(float(values.min(1)[0].mean()), rel=1e-10)
        assert found["singular_values"].values[row, -1] == pytest.approx(float(values.max(1)[0].mean()), rel=1e-12)


def test_percentile_saturation_and_variance_of_lengths_by_their_definitions() -> None:
    net = NETS["softsign"]
    params, part = params_of(net, scale=6.0), part_of(net)
    _, _, acts = graph(net, params, part)
    found = measure(net, params, part, ("activations", "lengths"))
    for row, (act, flat) in enumerate(zip(acts[1:], ("soft", "relu", "soft"), strict=True)):
        size = act.detach().abs().flatten().sort().values
        assert found["activation_p98"].values[row, 0] == float(size[math.ceil(0.98 * len(size)) - 1])
        share = (size > 0.8).double().mean() if flat == "soft" else (size == 0).double().mean()
        assert found["saturation"].values[row, 0] == pytest.approx(float(share), abs=1e-15)
        assert 0 < share < 1
    lengths = torch.stack([act.detach().square().mean(1) for act in acts[1:]])
    variance = (lengths.square().mean(0) - lengths.mean(0).square()).mean()  # HR18's definition (SCIENCE 6)
    assert found["length_variance"].values[0, 0] == pytest.approx(float(variance), rel=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_histograms_count_every_value_where_it_lies(name: str) -> None:
    net = NETS[name]
    params, part = params_of(net), part_of(net)
    weights, zs, acts = graph(net, params, part)
    found = measure(net, params, part, ("histograms",))
    values = {
        "activation_histogram": acts[1:],
        "gradient_histogram": gradients(net, zs, acts),
        "weight_gradient_histogram": [w.grad for w, _ in weights],
    }
    for quantity, layers in values.items():
        series = found[quantity]
        assert series.ends is not None
        for row, value in enumerate(layers):
            flat = value.detach().flatten().numpy()
            low, high = series.ends[row]
            expected, _ = np.histogram(np.clip(flat, low, high), BINS, (low, high))
            # an example's own cost is N times its share of the mean: rounding may move a value over an edge
            assert np.abs(series.values[row] - expected).sum() <= 2
            assert series.values[row].sum() == len(flat)
    if name == "tanh":
        assert (found["activation_histogram"].ends == [-1, 1]).all()


def test_nets_measured_together_are_measured_alone() -> None:
    net = NETS["residual"]
    many, part = [params_of(net, seed) for seed in range(5)], part_of(net)
    for together, alone in zip(measure_all(net, many, part), (measure(net, one, part) for one in many), strict=True):
        assert together.keys() == alone.keys()
        for quantity in together:
            np.testing.assert_allclose(together[quantity].values, alone[quantity].values, rtol=1e-11, atol=1e-13)


def test_chunks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    net = NETS["tanh"]
    many, part = [params_of(net, seed) for seed in range(5)], part_of(net)
    whole = measure_all(net, many, part)
    monkeypatch.setattr(diagnostics, "_CHUNK_BYTES", 1)
    for one, other in zip(whole, measure_all(net, many, part), strict=True):
        np.testing.assert_allclose(one["gradient_sd"].values, other["gradient_sd"].values, rtol=1e-12)


@pytest.mark.parametrize(("kappa", "hidden"), [(1.0, "relu"), (2.0, "relu"), (4.0, "relu"), (1.0, "linear")])
def test_mean_length_follows_theory(kappa: float, hidden: str) -> None:
    """E[M_d] = (kappa/2)^d M_0 for ReLU (HR18 theorem FC), kappa^d M_0 for linear layers (GB10 eq. 5)."""
    width, depth, draws = 60, 4, 400
    net = NetConfig((width,) * (depth + 1) + (3,), (hidden,) * depth, "softmax")
    rng = np.random.default_rng(1)
    nets = [
        [(rng.standard_normal(s) * math.sqrt(kappa / s[0]), np.zeros(s[1])) for s in net.layers] for _ in range(draws)
    ]
    inputs = torch.from_numpy(rng.standard_normal((1, width)))
    part = Part(inputs, torch.eye(3, dtype=torch.float64)[:1], torch.zeros(1, dtype=torch.int64))
    lengths = np.stack([found["length"].values[:, 0] for found in measure_all(net, nets, part, ("lengths",))])
    growth = kappa / 2 if hidden == "relu" else kappa
    expected = growth ** np.arange(depth + 1) * lengths[0, 0]
    error = lengths.std(0) / math.sqrt(draws)
    assert (np.abs(lengths.mean(0) - expected) <= 4 * error + 1e-12).all()


@pytest.mark.parametrize(("init", "expected"), [("normalized", 8 / (3 * math.pi)), ("standard", 0.490)])
def test_mean_singular_value_of_a_square_linear_jacobian(init: str, expected: float) -> None:
    """8/(3 pi) sqrt(n Var) (SCIENCE 5): .849 normalized, .490 standard; here 300 wide, so within 2%."""
    net = NetConfig((300, 300, 300, 2), ("linear", "linear"), "softmax")
    part = Part(torch.zeros(1, 300), torch.eye(2)[:1], torch.zeros(1, dtype=torch.int64))
    found = measure(net, initial(net, InitConfig(init), SEED), part, ("jacobian",))
    assert found["singular_mean"].values[0, 0] == pytest.approx(expected, rel=0.02)


def test_recurrent_nets_have_their_hidden_sd_by_step_and_their_spectral_radius() -> None:
    net = NetConfig((2, 6, 1), ("tanh",), "squared", steps=5)
    params = params_of(net)
    inputs = torch.rand((8, 5, 2), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    steps = torch.tensor([4, 4, 3, 2, 4, 4, 3, 4])
    found = measure(net, params, Part(inputs, torch.zeros(8, 1), None, steps))
    (w, b), h = params[0], torch.zeros(8, 6, dtype=torch.float64)
    for t in range(5):
        h = torch.tanh(torch.cat([inputs[:, t], h], 1) @ w + b)
        assert found["hidden_sd"].values[t, 0] == pytest.approx(float(h[steps >= t].std(correction=0)), rel=1e-12)
    radius = float(np.abs(np.linalg.eigvals(w[2:].numpy())).max())
    assert found["spectral_radius"].values.tolist() == [[pytest.approx(radius, rel=1e-12)]]
    assert summary(found).keys() == {"diag/hidden_sd", "diag/spectral_radius"}


def test_a_net_that_is_not_finite_is_measured_without_an_error() -> None:
    net = NETS["tanh"]
    params, part = params_of(net), part_of(net)
    params[1] = (torch.full_like(params[1][0], math.nan), params[1][1])
    found = measure(net, params, part)
    assert math.isnan(found["length"].values[2, 0])
    assert math.isnan(found["singular_mean"].values[0, 0])
    assert found["activation_histogram"].values[1].sum() == 0
    assert found["activation_histogram"].values[0].sum() == 40 * 5


def test_only_what_is_asked_for_is_measured() -> None:
    net = NETS["tanh"]
    given = params_of(net), part_of(net)
    names = [measure(net, *given, (what,)).keys() for what in DIAGNOSTICS]
    assert not any(a & b for i, a in enumerate(names) for b in names[:i])
    assert set().union(*names) == measure(net, *given).keys()
    with pytest.raises(ValueError, match=r"'gradient': one of activations, gradients"):
        measure(net, *given, ("gradient",))


def test_the_summary_says_how_lengths_and_gradients_change_with_depth() -> None:
    net = NETS["sigmoid"]
    found = measure(net, params_of(net), part_of(net))
    numbers = summary(found)
    lengths, gradients = found["length"].values[:, 0], found["gradient_sd"].values[:, 0]
    assert numbers["diag/length_ratio"] == lengths[2] / lengths[0]
    assert numbers["diag/gradient_ratio"] == gradients[0] / gradients[1]
    assert numbers["diag/singular_mean"] == found["singular_mean"].values.mean()


def test_a_net_without_hidden_layers_has_gradients_only() -> None:
    net = NetConfig((4, 3), (), "softmax")
    found = measure(net, params_of(net), part_of(net))
    assert found.keys() == {
        "length",
        "gradient_sd",
        "weight_gradient_sd",
        "gradient_histogram",
        "weight_gradient_histogram",
    }
    assert summary(found) == {"diag/length_ratio": 1.0, "diag/gradient_ratio": 1.0}
