from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from tests.trainers.cases import BATCH, NETS, data, flat, trial
from trainers import models
from trainers.config import ACTIVATIONS, LOSSES, MethodConfig, NetConfig
from trainers.data import batch_indices
from trainers.optim import learning_rate, momentum
from trainers.serial import SerialTrial, curvature
from trainers.state import Params, TrialState, initial_state

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softsign": torch.nn.functional.softsign,
    "linear": torch.clone,
}
LINEAR = NetConfig((4, 3), (), "squared")


@pytest.mark.parametrize("kind", ["sgd", "cm", "nag"])
def test_updates_are_those_of_the_paper_under_a_moving_mu(kind: str) -> None:
    # A linear net's gradient is known in closed form, so the equations can be written out in numpy.
    config = trial(LINEAR, kind=kind, mu_step=3)
    tensors = data(LINEAR)
    serial = SerialTrial(config, tensors)
    x_all, t_all = tensors.train.inputs.numpy(), tensors.train.targets.numpy()
    w, b = (tensor.numpy().copy() for tensor in serial.state().params[0])
    theta = np.vstack([w, b])
    v = np.zeros_like(theta)
    for t in range(30):
        rows = batch_indices(60, BATCH, config.seed, t)
        x = np.hstack([x_all[rows], np.ones((BATCH, 1))])
        mu = momentum(t, config.method, config.updates)
        at = theta + mu * v if kind == "nag" else theta
        gradient = 2 * x.T @ (x @ at - t_all[rows]) / BATCH
        v = mu * v - config.method.lr * gradient
        theta = theta + v
    serial.advance(30)
    state = serial.state()
    np.testing.assert_allclose(np.vstack([state.params[0][0], state.params[0][1]]), theta, rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.vstack([state.velocity[0][0], state.velocity[0][1]]), v, rtol=0, atol=1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_constant_mu_agrees_with_torchs_optimiser_after_a_change_of_variables(nesterov: bool) -> None:
    # SCIENCE 1.1: torch's velocity is -v / lr, and its Nesterov parameters are the look-ahead theta + mu v.
    net, lr, mu, late = NETS["mlp-tanh"], 0.05, 0.9, 10**6
    config = trial(net, kind="nag" if nesterov else "cm", lr=lr, mu_max=mu)
    tensors = data(net)
    start = initial_state(config, torch.float64)
    serial = SerialTrial(config, tensors, state=TrialState(late, start.params, start.velocity))
    module = models.build(net, torch.float64)
    models.set_parameters(module, start.params)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=mu, nesterov=nesterov)
    for t in range(late, late + 25):
        rows = torch.from_numpy(batch_indices(60, BATCH, config.seed, t))
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(tensors.train.inputs[rows]), tensors.train.expected[rows])
        loss.backward()
        optimizer.step()
    serial.advance(25)
    state = serial.state()
    shift = mu if nesterov else 0.0
    seen = flat(state.params) + shift * flat(state.velocity)
    torch.testing.assert_close(seen, flat(models.get_parameters(module)), rtol=0, atol=1e-12)


def test_float32_follows_float64() -> None:
    net = NETS["autoencoder"]
    single, double = SerialTrial(trial(net), data(net, "float32")), SerialTrial(trial(net), data(net))
    for serial in (single, double):
        serial.advance(20)
    assert single.state().params[0][0].dtype == torch.float32
    torch.testing.assert_close(flat(single.state().params).double(), flat(double.state().params), rtol=0, atol=1e-5)


def test_a_trial_that_diverges_says_when_and_stops() -> None:
    net = NETS["squared-sigmoid"]
    serial = SerialTrial(trial(net, lr=1e160), data(net))
    serial.advance(50)
    assert serial.diverged_at is not None
    assert serial.update == serial.diverged_at + 1
    again = SerialTrial(trial(net, lr=1e160), data(net))
    again.advance(serial.diverged_at)
    assert again.state().diverged_at in (None, serial.diverged_at)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_is_torchs(kind: str) -> None:
    net = NETS["mlp-tanh"]
    method = MethodConfig(kind, 0.01, lr_schedule="cosine", lr_warmup=6, beta1=0.8, beta2=0.97, weight_decay=0.1)
    config = replace(trial(net), method=method)
    tensors = data(net)
    serial = SerialTrial(config, tensors)
    module = models.build(net, torch.float64)
    models.set_parameters(module, serial.state().params)
    if kind == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(module.parameters(), betas=(0.8, 0.97))
    else:
        optimizer = torch.optim.AdamW(module.parameters(), betas=(0.8, 0.97), weight_decay=0.1)
    for t in range(25):
        rows = torch.from_numpy(batch_indices(60, BATCH, config.seed, t))
        optimizer.param_groups[0]["lr"] = learning_rate(t, method, config.updates)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(tensors.train.inputs[rows]), tensors.train.expected[rows]).backward()
        optimizer.step()
    serial.advance(25)
    state = serial.state()
    torch.testing.assert_close(flat(state.params), flat(models.get_parameters(module)), rtol=0, atol=1e-13)
    assert state.second is not None
    moments = [optimizer.state[p] for p in module.parameters()]
    torch.testing.assert_close(state.velocity[0][1], moments[1]["exp_avg"], rtol=0, atol=1e-15)
    torch.testing.assert_close(state.second[0][1], moments[1]["exp_avg_sq"], rtol=0, atol=1e-15)


def second_derivatives(net: NetConfig, params: Params, inputs: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """The diagonal of the Hessian of a net's loss, by differentiating twice."""
    module = models.build(net, torch.float64)
    models.set_parameters(module, params)
    names = [name for name, _ in module.named_parameters()]

    def loss(*parameters: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (inputs,))
        return models.loss(net, logits, expected)

    hessian = torch.autograd.functional.hessian(loss, tuple(module.parameters()))
    diagonals = [hessian[i][i].reshape(p.numel(), -1).diagonal().view_as(p) for i, p in enumerate(module.parameters())]
    holder = models.build(net, torch.float64)
    with torch.no_grad():
        for p, d in zip(holder.parameters(), diagonals, strict=True):
            p.copy_(d)
    return flat(models.get_parameters(holder))


@pytest.mark.parametrize("loss", LOSSES)
def test_curvature_is_the_exact_second_derivative_of_a_net_without_hidden_layers(loss: str) -> None:
    net = NetConfig((5, 4), (), loss)
    tensors, params = data(net), initial_state(trial(net), torch.float64).params
    inputs, expected = tensors.train.inputs[:BATCH], tensors.train.expected[:BATCH]
    exact = second_derivatives(net, params, inputs, expected)
    torch.testing.assert_close(flat(curvature(net, params, inputs)), exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_curvature_is_exact_through_a_linear_layer_and_outputs_that_do_not_share(loss: str) -> None:
    net = NetConfig((5, 3, 4), ("linear",), loss)
    tensors, params = data(net), initial_state(trial(net), torch.float64).params
    inputs, expected = tensors.train.inputs[:BATCH], tensors.train.expected[:BATCH]
    exact = second_derivatives(net, params, inputs, expected)
    torch.testing.assert_close(flat(curvature(net, params, inputs)), exact, rtol=0, atol=1e-13)


def chain_curvature(net: NetConfig, params: Params, inputs: torch.Tensor) -> torch.Tensor:
    """The Gauss-Newton diagonal of a one-unit-wide net with squared loss: 2 (d logit / d parameter)^2."""
    each = []
    for x in inputs:
        leaves = [t.clone().requires_grad_() for pair in params for t in pair]
        h = x
        for layer, name in enumerate(net.hidden):
            step = FUNCTIONS[name](h @ leaves[2 * layer] + leaves[2 * layer + 1])
            h = h + net.eta[layer - 1] * step if net.eta and layer else step
        (h @ leaves[-2] + leaves[-1]).sum().backward()
        each.append(torch.cat([2 * leaf.grad.reshape(-1) ** 2 for leaf in leaves if leaf.grad is not None]))
    return torch.stack(each).mean(0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_curvature_of_a_chain_of_units_is_the_gauss_newton_diagonal(activation: str) -> None:
    # With one unit a layer there is nothing to neglect.
    net = NetConfig((2, 1, 1, 1, 1), (activation,) * 3, "squared")
    params = initial_state(trial(net), torch.float64).params
    inputs = data(net).train.inputs[:BATCH]
    expected = chain_curvature(net, params, inputs)
    torch.testing.assert_close(flat(curvature(net, params, inputs)), expected, rtol=0, atol=1e-14)


def test_curvature_through_skips_is_the_gauss_newton_diagonals_mean_over_the_modules_signs() -> None:
    # What is neglected is the product of the way through a module and the way past it, which is odd in its weight.
    net = NetConfig((2, 1, 1, 1, 1), ("linear",) * 3, "squared", eta=(0.7, 0.4))
    params = initial_state(trial(net), torch.float64).params
    inputs = data(net).train.inputs[:BATCH]
    exact = []
    for signs in product((1, -1), repeat=2):
        flipped = [(w * s, b) for (w, b), s in zip(params, (1, *signs, 1), strict=True)]
        exact.append(chain_curvature(net, flipped, inputs)[:3])
    torch.testing.assert_close(flat(curvature(net, params, inputs))[:3], sum(exact) / 4, rtol=0, atol=1e-14)


def test_diagonal_divides_the_gradient_by_its_running_mean_of_curvature() -> None:
    net = NETS["no-hidden"]
    method = MethodConfig("diagonal", 0.1, beta2=0.9, damping=0.2)
    config = replace(trial(net), method=method)
    tensors = data(net)
    serial = SerialTrial(config, tensors)
    mean = torch.zeros(24, dtype=torch.float64)
    for t in range(4):
        before = serial.state()
        rows = torch.from_numpy(batch_indices(60, BATCH, config.seed, t))
        exact = second_derivatives(net, before.params, tensors.train.inputs[rows], tensors.train.expected[rows])
        mean = 0.9 * mean + 0.1 * exact
        x = torch.cat([tensors.train.inputs[rows], torch.ones(BATCH, 1, dtype=torch.float64)], 1)
        theta = torch.cat([before.params[0][0], before.params[0][1][None]])
        gradient = (x.T @ (torch.sigmoid(x @ theta) - tensors.train.targets[rows]) / BATCH).reshape(-1)
        expected = theta.reshape(-1) - 0.1 * gradient / (0.2 + mean / (1 - 0.9 ** (t + 1)))
        serial.advance(1)
        torch.testing.assert_close(flat(serial.state().params), expected, rtol=0, atol=1e-13)
