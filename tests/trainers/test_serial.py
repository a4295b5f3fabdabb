import numpy as np
import pytest
import torch

from tests.trainers.cases import BATCH, NETS, data, flat, trial
from trainers import models
from trainers.config import NetConfig
from trainers.data import batch_indices
from trainers.optim import momentum
from trainers.serial import SerialTrial
from trainers.state import TrialState, initial_state

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
