"""Exact curvature of recurrent nets, and their structural damping, against dense matrices."""

import pytest
import torch
from torch import Tensor

from tests.trainers.dense import Twin, close, got, picked, point, products
from tests.trainers.test_recurrent import KINDS, recurrent_net, task
from trainers import curvature_recurrent, recurrent
from trainers.config import NetConfig
from trainers.curvature import curvature
from trainers.data import Data, Part

ROWS = torch.tensor([4, 0, 9, 7, 1])


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}{'-every' * kind[1]}")
def net(request: pytest.FixtureRequest) -> NetConfig:
    return recurrent_net(*request.param)


@pytest.fixture(params=[1, 1 << 18], ids=["chunks", "one chunk"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (recurrent, curvature_recurrent):
        monkeypatch.setattr(module, "_CHUNK", request.param)


def into_tanh(twin: Twin, theta: Tensor, part: Part) -> Tensor:
    """What goes into the hidden units at the steps that count, [sequences x steps, H], written out."""
    named = {name: theta[place] for name, place in twin.places.items()}
    w, b = named["cell.weight"], named["cell.bias"]
    found = []
    for i, sequence in enumerate(part.inputs):
        last = int(part.steps[i]) if part.steps is not None else int((part.classes[i] >= 0).nonzero().max())
        h = torch.zeros(len(b), dtype=torch.float64)
        for x in sequence[: last + 1]:
            z = w @ torch.cat([x, h]) + b
            found.append(z)
            h = torch.tanh(z)
    return torch.stack(found)


@pytest.mark.usefixtures("chunk")
def test_products_are_those_of_the_dense_matrices(net: NetConfig) -> None:
    data = Data(task(net), dtype="float64")
    made = curvature(net, data)
    twin = Twin(net, made)
    theta, part = point(made, twin), picked(data.train, ROWS)
    made.at(theta, data.train, ROWS)
    expected, found = twin.matrix(theta, part), products(made)
    close(found, expected, 1e-12)
    close(found, found.T, 1e-12)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-12 * float(found.diagonal().max())

    z = into_tanh(twin, theta, part)
    jacobian = torch.func.jacrev(lambda at: into_tanh(twin, at, part))(theta).reshape(z.numel(), -1)
    slope = 1 - torch.tanh(z).square().reshape(-1, 1)
    damping = jacobian.T @ (slope * jacobian) / len(ROWS)  # SCIENCE 2, Martens & Sutskever 2011
    for weight in (1.0, 0.03):
        close(products(made, weight) - found, weight * damping, 1e-12)
    close(products(made), expected, 1e-12)  # and it leaves nothing behind


@pytest.mark.usefixtures("chunk")
def test_loss_gradient_and_squares_are_autograds(net: NetConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data(task(net), dtype="float64")
    made = curvature(net, data)
    twin = Twin(net, made)
    theta, part = point(made, twin), picked(data.train, ROWS)
    assert float(made.at(theta, data.train, ROWS)) == pytest.approx(float(twin.loss(theta, part)), rel=1e-13)
    close(got(made, made.gradient), torch.func.grad(twin.loss)(theta, part), 1e-12)
    each = [torch.func.grad(twin.loss)(theta, picked(part, slice(i, i + 1))) for i in range(len(ROWS))]
    for held in (1 << 20, 1):  # all sequences' gradients at a time, or one
        monkeypatch.setattr(curvature_recurrent, "_EACH", held)
        close(got(made, made.squares), torch.stack(each).square().mean(0), 1e-12)


def test_pieces_and_what_is_kept_change_nothing(net: NetConfig) -> None:
    data = Data(task(net), dtype="float64")
    whole = curvature(net, data)
    twin = Twin(net, whole)
    theta, elsewhere, v = (point(whole, twin, seed=seed) for seed in range(3))
    each = net.steps * (sum(net.widths) + 1)
    for rows in (slice(None), slice(1, 9), ROWS):
        for made in (curvature(net, data, piece=3 * each, kept=1), curvature(net, data, piece=3 * each)):
            assert float(made.at(theta, data.train, rows)) == pytest.approx(
                float(whole.at(theta, data.train, rows)), rel=1e-13
            )
            lost = [float(one.loss(elsewhere, data.valid, slice(0, 10))) for one in (made, whole)]
            assert lost[0] == pytest.approx(float(twin.loss(elsewhere, data.valid.head(10))), rel=1e-12)
            assert lost[1] == pytest.approx(lost[0], rel=1e-12)
            for method in ("gradient", "squares", "gradient"):
                close(got(made, getattr(made, method)), got(whole, getattr(whole, method)), 1e-12)
            for structural in (0.3, 0.0):
                found, expected = torch.empty_like(v), torch.empty_like(v)
                made.product(v, found, structural)
                whole.product(v, expected, structural)
                close(found, expected, 1e-12)


def test_single_precision_inside_and_outside_inference() -> None:
    net = recurrent_net("softmax", True)
    data, exact = Data(task(net)), Data(task(net), dtype="float64")
    made, twin = curvature(net, data), curvature(net, exact)
    theta, v = (point(twin, Twin(net, twin), seed=seed) for seed in (0, 1))
    twin.at(theta, exact.train, ROWS)
    expected = torch.empty_like(v)
    twin.product(v, expected, 0.1)
    with torch.inference_mode():
        made.at(theta.float(), data.train, ROWS)
    found = torch.empty(made.size)
    made.product(v.float(), found, 0.1)
    close(found.double(), expected, 1e-5)
