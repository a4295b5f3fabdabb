"""Modules against hand-written passes in numpy float64; losses against their formulas."""

import math

import numpy as np
import pytest
import torch

from trainers.config import ACTIVATIONS, InitConfig, NetConfig, SeedConfig
from trainers.inits import initial
from trainers.models import build, get_parameters, loss, set_parameters, to_state_dict

FUNCTIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "softsign": lambda x: x / (1 + abs(x)),
    "linear": lambda x: x,
}
NET = NetConfig((5, 4, 6, 3), ("tanh", "linear"), "softmax")
PARAMS = initial(NET, InitConfig("he"), SeedConfig(1))


def drawn(net: NetConfig, scale: float = 0.4) -> list:
    """Weights and biases of any net, none of them 0."""
    rng = np.random.default_rng(11)
    return [(scale * rng.standard_normal(shape), scale * rng.standard_normal(shape[1])) for shape in net.layers]


def filled(net: NetConfig) -> tuple[torch.nn.Module, list]:
    params = drawn(net)
    module = build(net, torch.float64)
    set_parameters(module, params)
    return module, params


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_pass_ends_in_logits(activation):
    net = NetConfig((5, 7, 6, 4), (activation, "linear"), "logistic")
    module, params = filled(net)
    inputs = np.random.default_rng(0).standard_normal((9, 5))
    expected = inputs
    for (weights, biases), name in zip(params, (*net.hidden, "linear"), strict=True):
        expected = FUNCTIONS[name](expected @ weights + biases)
    np.testing.assert_allclose(module(torch.from_numpy(inputs)).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def test_build_leaves_the_global_generator_alone_and_starts_at_zero():
    before = torch.get_rng_state()
    module = build(NET)
    assert torch.equal(before, torch.get_rng_state())
    assert all(not parameter.any() and parameter.requires_grad for parameter in module.parameters())
    assert sum(parameter.numel() for parameter in module.parameters()) == NET.parameters


def test_parameters_come_back_as_they_were_given_and_as_copies():
    module, params = filled(NET)
    back = get_parameters(module)
    for (weights, biases), (same_weights, same_biases) in zip(params, back, strict=True):
        np.testing.assert_array_equal(weights, same_weights.numpy())
        np.testing.assert_array_equal(biases, same_biases.numpy())
        assert same_weights.is_contiguous()
        assert not same_weights.requires_grad
    back[0][0].zero_()
    np.testing.assert_array_equal(params[0][0], get_parameters(module)[0][0].numpy())


def test_parameters_of_another_net_are_refused():
    with pytest.raises(ValueError, match="3 weight layers, the parameters are of 2"):
        set_parameters(build(NET), PARAMS[:2])
    one_bias = [(weights, biases[:1]) for weights, biases in PARAMS]
    with pytest.raises(RuntimeError, match=r"shape \[1\] where the net has \[4\]"):  # would broadcast
        set_parameters(build(NET), one_bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_dict_loads_into_build_strictly(dtype):
    params = [(torch.from_numpy(weights).to(dtype), torch.from_numpy(biases).to(dtype)) for weights, biases in PARAMS]
    state = to_state_dict(NET, params)
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    module = build(NET, dtype)
    module.load_state_dict(state, strict=True)
    for (weights, biases), (same_weights, same_biases) in zip(params, get_parameters(module), strict=True):
        assert torch.equal(weights, same_weights)
        assert torch.equal(biases, same_biases)


def test_logistic_loss_is_cross_entropy_summed_over_outputs_and_its_gradient_is_y_minus_t():
    net = NetConfig((3, 4), (), "logistic")
    rng = np.random.default_rng(3)
    logits = torch.tensor(3 * rng.standard_normal((5, 4)), requires_grad=True)
    targets = torch.tensor(rng.random((5, 4)))
    value = loss(net, logits, targets)
    y, t = FUNCTIONS["sigmoid"](logits.detach().numpy()), targets.numpy()
    assert float(value.detach()) == pytest.approx(-(t * np.log(y) + (1 - t) * np.log(1 - y)).sum(1).mean(), rel=1e-13)
    value.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), (y - t) / 5, rtol=1e-12)


def test_logistic_loss_keeps_its_digits_at_large_logits():
    net = NetConfig((1, 1), (), "logistic")
    for logit in (25.0, 500.0, -500.0):
        value = loss(net, torch.tensor([[logit]], dtype=torch.float64), torch.tensor([[1.0]], dtype=torch.float64))
        expected = math.log1p(math.exp(-logit)) if logit > 0 else -logit
        assert float(value) == pytest.approx(expected, rel=1e-12)


def test_logistic_loss_of_a_perfect_grey_output_is_the_entropy_of_its_targets():
    net = NetConfig((1, 2), (), "logistic")
    targets = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.5, 0.25))
    assert float(loss(net, torch.logit(targets), targets)) == pytest.approx(entropy, rel=1e-14)


def test_squared_loss_is_a_sum_without_one_half():
    net = NetConfig((1, 3), (), "squared")
    logits, targets = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert float(loss(net, logits, targets)) == (1 + 4 + 4 + 1) / 2


def test_softmax_loss_of_equal_logits_is_log_of_the_number_of_classes():
    net = NetConfig((1, 10), (), "softmax")
    logits, targets = torch.zeros(6, 10, dtype=torch.float64), torch.arange(6)
    assert float(loss(net, logits, targets)) == pytest.approx(math.log(10), rel=1e-14)
    logits[torch.arange(6), targets] = math.log(81)  # p = 81 / (81 + 9) = 0.9
    assert float(loss(net, logits, targets)) == pytest.approx(-math.log(0.9), rel=1e-13)


@pytest.mark.parametrize("name", ["logistic", "squared", "softmax"])
def test_a_leading_trial_axis_gives_each_trial_what_it_gets_alone(name):
    net = NetConfig((2, 4), (), name)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    targets = torch.arange(5) % 4 if name == "softmax" else torch.rand(5, 4, generator=generator, dtype=torch.float64)
    together = loss(net, logits, targets)
    for trial in range(3):
        assert float(together[trial]) == pytest.approx(float(loss(net, logits[trial], targets)), rel=1e-13)


def test_residual_modules_add_eta_times_what_they_compute():
    net = NetConfig((3, 5, 5, 5, 2), ("tanh", "relu", "softsign"), "softmax", eta=(0.5, -2.0))
    module, params = filled(net)
    x = np.random.default_rng(0).standard_normal((6, 3))
    h = np.tanh(x @ params[0][0] + params[0][1])
    h = h + 0.5 * np.maximum(h @ params[1][0] + params[1][1], 0)
    h = h - 2.0 * FUNCTIONS["softsign"](h @ params[2][0] + params[2][1])
    expected = h @ params[3][0] + params[3][1]
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-12)


def test_with_eta_of_0_a_residual_net_is_the_net_without_its_modules():
    net = NetConfig((3, 5, 5, 5, 2), ("relu",) * 3, "softmax", eta=(0.0, 0.0))
    module, params = filled(net)
    shallow = build(NetConfig((3, 5, 2), ("relu",), "softmax"), torch.float64)
    set_parameters(shallow, [params[0], params[3]])
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3)))
    assert torch.equal(module(x), shallow(x))


def test_a_recurrent_net_is_torch_s_own():
    net = NetConfig((3, 6, 2), ("tanh",), "softmax", steps=9, every_step=True)
    module, ((cell, cell_bias), (output, output_bias)) = filled(net)
    twin = torch.nn.RNN(3, 6, nonlinearity="tanh", batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for parameter, value in zip(twin.parameters(), (cell[:3].T, cell[3:].T, cell_bias, 0 * cell_bias), strict=True):
            parameter.copy_(torch.from_numpy(value))
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 9, 3)))
    expected = twin(x)[0] @ torch.from_numpy(output) + torch.from_numpy(output_bias)
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-14)
    steps = torch.tensor([8, 0, 3, 3, 7])
    one = build(NetConfig((3, 6, 2), ("tanh",), "softmax", steps=9), torch.float64)
    set_parameters(one, get_parameters(module))
    torch.testing.assert_close(one(x, steps), expected[torch.arange(5), steps], rtol=1e-12, atol=1e-14)


def test_a_recurrent_net_of_one_unit_is_a_scalar_recursion():
    net = NetConfig((1, 1, 1), ("tanh",), "squared", steps=4)
    module = build(net, torch.float64)
    set_parameters(module, [(np.array([[0.7], [-1.3]]), np.array([0.2])), (np.array([[2.0]]), np.array([-0.5]))])
    h, x = 0.0, (0.1, -0.4, 2.0, 0.3)
    for value in x:
        h = math.tanh(0.7 * value - 1.3 * h + 0.2)
    found = module(torch.tensor(x, dtype=torch.float64).view(1, 4, 1), torch.tensor([3]))
    assert found.item() == pytest.approx(2 * h - 0.5, rel=1e-13)


@pytest.mark.parametrize(
    "net",
    [
        NetConfig((3, 5, 5, 2), ("tanh", "relu"), "softmax", eta=(0.5,)),
        NetConfig((3, 6, 2), ("tanh",), "softmax", steps=9),
    ],
)
def test_residual_and_recurrent_parameters_come_back_and_load(net):
    module, params = filled(net)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 9, 3) if net.steps else (5, 3)))
    arguments = (x, torch.arange(5)) if net.steps else (x,)
    loaded = build(net, torch.float64)
    loaded.load_state_dict(to_state_dict(net, params), strict=True)
    assert torch.equal(module(*arguments), loaded(*arguments))
    for (weights, biases), (same_weights, same_biases) in zip(params, get_parameters(loaded), strict=True):
        np.testing.assert_array_equal(weights, same_weights.numpy())
        np.testing.assert_array_equal(biases, same_biases.numpy())
    assert sum(parameter.numel() for parameter in module.parameters()) == net.parameters


def test_loss_of_every_step_is_summed_over_the_scored_steps_of_a_sequence():
    net = NetConfig((1, 1, 4), ("tanh",), "softmax", steps=3, every_step=True)
    logits = torch.zeros(2, 3, 4, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([[-1, 2, 0], [-1, -1, 3]])
    value = loss(net, logits, classes)
    assert float(value.detach()) == pytest.approx(1.5 * math.log(4), rel=1e-14)  # 2 and 1 steps of log 4 each
    value.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(-1) > 0, classes >= 0)
    with torch.no_grad():
        both = loss(net, torch.stack([logits, logits]), classes)
    assert both.shape == (2,)
