"""Exact curvature: products against the dense matrix, made by automatic differentiation of the ordinary net."""

import pytest
import torch
from backpack import backpack, extend, extensions
from backpack.hessianfree.ggnvp import ggn_vector_product

from tests.trainers import cases, test_recurrent
from tests.trainers.dense import Twin, close, got, picked, point, products
from trainers import models
from trainers.config import ACTIVATIONS, LOSSES, NetConfig
from trainers.curvature import curvature
from trainers.data import Data

ROWS = torch.tensor([3, 17, 0, 41, 8, 9, 30, 5, 59, 22, 11])
DEEP = {
    **{
        f"{loss}-{activation}": NetConfig((5, 6, 4, 3), (activation, activation), loss)
        for loss in LOSSES
        for activation in ACTIVATIONS
    },
    "autoencoder": cases.AUTOENCODER,
    "autoencoder-squared": NetConfig((6, 9, 4, 6), ("sigmoid", "linear"), "squared"),
    "widths of vectors": NetConfig((16, 40, 8, 33), ("tanh", "relu"), "softmax"),
    "no-hidden": NetConfig((5, 4), (), "softmax"),
    "residual": cases.RESIDUAL,
    "residual-logistic": NetConfig(
        (4, 5, 5, 5, 5, 3), ("sigmoid", "relu", "tanh", "linear"), "logistic", (1.0, 0.5, 2.0)
    ),
    "residual-squared": NetConfig((4, 5, 5, 3), ("softsign", "sigmoid"), "squared", (0.3,)),
    "residual-of-one": NetConfig((4, 5, 3), ("tanh",), "softmax"),
}


@pytest.fixture(params=DEEP.values(), ids=DEEP.keys())
def net(request: pytest.FixtureRequest) -> NetConfig:
    found: NetConfig = request.param
    return found


def test_products_are_those_of_the_dense_matrix(net: NetConfig) -> None:
    data = cases.data(net)
    made = curvature(net, data)
    twin = Twin(net, made)
    theta, part = point(made, twin), picked(data.train, ROWS)
    made.at(theta, data.train, ROWS)
    expected, found = twin.matrix(theta, part), products(made)
    used = torch.zeros(made.size, dtype=torch.bool)
    used[twin.used] = True
    assert not found[~used].any()  # the gaps between layers
    assert not found[:, ~used].any()
    close(found, expected, 1e-12)
    close(found, found.T, 1e-12)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-12 * float(found.diagonal().max())


def test_loss_gradient_and_squares_are_autograds(net: NetConfig) -> None:
    data = cases.data(net)
    made = curvature(net, data)
    twin = Twin(net, made)
    theta, part = point(made, twin), picked(data.train, ROWS)
    assert float(made.at(theta, data.train, ROWS)) == pytest.approx(float(twin.loss(theta, part)), rel=1e-13)
    close(got(made, made.gradient), torch.func.grad(twin.loss)(theta, part), 1e-12)
    each = [torch.func.grad(twin.loss)(theta, picked(part, slice(i, i + 1))) for i in range(len(ROWS))]
    close(got(made, made.squares), torch.stack(each).square().mean(0), 1e-12)


def test_of_a_linear_net_it_is_the_hessian() -> None:
    for loss in LOSSES:
        net = NetConfig((4, 3), (), loss)
        data = cases.data(net)
        made = curvature(net, data)
        twin = Twin(net, made)
        theta = point(made, twin)
        made.at(theta, data.train, slice(None))
        close(products(made), torch.func.hessian(twin.loss)(theta, data.train), 1e-12)


@pytest.mark.parametrize("name", ["autoencoder", "residual", "softmax-tanh", "squared-relu"])
def test_pieces_and_what_is_kept_change_nothing(name: str) -> None:
    net = DEEP[name]
    data = cases.data(net)
    whole = curvature(net, data)
    theta = point(whole, Twin(net, whole))
    v = point(whole, Twin(net, whole), seed=1)
    for rows in (slice(None), slice(7, 40), ROWS, ROWS[:1], slice(3, 31, 4)):
        some = curvature(net, data, piece=5 * 3 * sum(net.widths), kept=1)
        all_kept = curvature(net, data, piece=5 * 3 * sum(net.widths))
        for made in (some, all_kept):
            assert float(made.at(theta, data.train, rows)) == pytest.approx(
                float(whole.at(theta, data.train, rows)), rel=1e-13
            )
            for method in ("gradient", "squares"):
                close(got(made, getattr(made, method)), got(whole, getattr(whole, method)), 1e-12)
            for _ in range(2):  # the second time from what the first has left
                found, expected = torch.empty_like(v), torch.empty_like(v)
                made.product(v, found)
                whole.product(v, expected)
                close(found, expected, 1e-12)


def test_slices_are_the_rows_they_name() -> None:
    net = DEEP["autoencoder"]
    data = cases.data(net)
    made = curvature(net, data)
    theta = point(made, Twin(net, made))
    losses = [made.at(theta, data.train, rows) for rows in (slice(3, 31, 4), torch.arange(3, 31, 4))]
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match="no examples"):
        made.at(theta, data.train, slice(5, 5))


def test_a_loss_elsewhere_leaves_the_point_alone() -> None:
    net = DEEP["softmax-tanh"]
    data = cases.data(net)
    made = curvature(net, data)
    twin = Twin(net, made)
    theta, elsewhere = point(made, twin), point(made, twin, 0.3, 2)
    made.at(theta, data.train, ROWS)
    before = got(made, made.gradient)
    v = point(made, twin, 1.0, 3)
    first = torch.empty_like(v)
    made.product(v, first)
    assert float(made.loss(elsewhere, data.valid, slice(0, 13))) == pytest.approx(
        float(twin.loss(elsewhere, data.valid.head(13))), rel=1e-13
    )
    again = torch.empty_like(v)
    made.product(v, again)
    assert torch.equal(first, again)
    assert torch.equal(before, got(made, made.gradient))


def test_what_was_forgotten_is_made_again() -> None:
    net = DEEP["residual"]
    data = cases.data(net)
    made = curvature(net, data)
    theta = point(made, Twin(net, made))
    before = made.at(theta, data.train, ROWS), got(made, made.gradient)
    made.forget()
    with pytest.raises(AssertionError, match="at no point yet"):
        made.gradient(torch.empty_like(theta))
    assert made.at(theta, data.train, ROWS) == before[0]
    assert torch.equal(got(made, made.gradient), before[1])


def test_single_precision_inside_and_outside_inference() -> None:
    net = DEEP["autoencoder"]
    data, exact = cases.data(net, "float32"), cases.data(net)
    made, twin = curvature(net, data), curvature(net, exact)
    theta, v = (point(twin, Twin(net, twin), seed=seed) for seed in (0, 1))
    twin.at(theta, exact.train, ROWS)
    expected = torch.empty_like(v)
    twin.product(v, expected)
    with torch.inference_mode():
        made.at(theta.float(), data.train, ROWS)
    found = torch.empty(made.size)
    made.product(v.float(), found)
    close(found.double(), expected, 1e-5)
    params = made.unpack(found)
    assert torch.equal(made.pack(params), found)
    assert not params[0][0].is_inference()


def test_data_may_be_named_as_they_are() -> None:
    net = NetConfig((4, 3), (), "softmax")
    data = Data(cases.task(net), "cpu", torch.float64)
    made = curvature(net, data)
    theta = torch.zeros(made.size, dtype=torch.float64)
    assert float(made.at(theta, data.train, slice(None))) == pytest.approx(float(torch.log(torch.tensor(3.0))))


LIBRARY = [*(name for name in DEEP if "linear" not in name), "recurrent", "every step"]


@pytest.mark.parametrize("name", LIBRARY)
def test_products_are_backpacks(name: str) -> None:
    """An independent library's (Dangel, Kunstner, Hennig 2020)."""
    if name in DEEP:
        net = DEEP[name]
        data = cases.data(net)
    else:
        net = test_recurrent.recurrent_net("softmax", name == "every step")
        data = Data(test_recurrent.task(net), dtype="float64")
    made = curvature(net, data)
    twin = Twin(net, made)
    theta, v, part = point(made, twin), point(made, twin, seed=1), picked(data.train, ROWS % 40)
    with torch.no_grad():
        for parameter, place in zip(twin.module.parameters(), twin.places.values(), strict=True):
            parameter.copy_(theta[place])
    logits = twin.module(*part.arguments())
    loss = models.loss(net, logits, part.expected)
    theirs = ggn_vector_product(loss, logits, twin.module, [v[place] for place in twin.places.values()])
    made.at(theta, part, slice(None))
    found = torch.empty_like(v)
    made.product(v, found)
    close(found[twin.used], torch.cat([one.detach().reshape(-1) for one in theirs]), 1e-12)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", ["softmax-tanh", "squared-sigmoid"])
def test_squares_and_diagonal_are_backpacks(name: str) -> None:
    net = DEEP[name]
    data = cases.data(net)
    made = curvature(net, data)
    twin = Twin(net, made)
    theta, part = point(made, twin), picked(data.train, ROWS)
    made.at(theta, part, slice(None))
    module = extend(twin.module)
    with torch.no_grad():
        for parameter, place in zip(module.parameters(), twin.places.values(), strict=True):
            parameter.copy_(theta[place])
    classes = net.loss == "softmax"
    # Their mean of squares is over outputs as well.
    criterion = extend(torch.nn.CrossEntropyLoss() if classes else torch.nn.MSELoss(reduction="sum"))
    with backpack(extensions.SumGradSquared(), extensions.DiagGGNExact()):
        criterion(module(part.inputs), part.expected).backward()
    squares = torch.cat([p.sum_grad_squared.reshape(-1) for p in module.parameters()])
    diagonal = torch.cat([p.diag_ggn_exact.reshape(-1) for p in module.parameters()])
    n = len(ROWS)
    close(got(made, made.squares)[twin.used], squares * n if classes else squares / n, 1e-12)
    close(products(made).diagonal()[twin.used], diagonal if classes else diagonal / n, 1e-12)


def test_classes_may_be_met_by_linear_outputs() -> None:
    """GB10 fig. 5's quadratic cost: targets are classes, the loss is squared."""
    net = NetConfig((7, 6, 3), ("tanh",), "squared")
    data = cases.data(cases.NETS["mlp-linear"])
    made = curvature(net, data)
    twin = Twin(net, made)
    theta, part = point(made, twin), picked(data.train, ROWS)
    assert float(made.at(theta, data.train, ROWS)) == pytest.approx(float(twin.loss(theta, part)), rel=1e-13)
    close(got(made, made.gradient), torch.func.grad(twin.loss)(theta, part), 1e-12)
    close(products(made), twin.matrix(theta, part), 1e-12)
