"""S13 Fig. 5: products, conjugate gradients and NAG on quadratics whose minimum is known."""

from itertools import pairwise

import numpy as np
import torch

from tests.trainers import cases
from tests.trainers.dense import Twin
from trainers.config import InitConfig, NetConfig, SeedConfig
from trainers.curvature import curvature
from trainers.data import Data
from trainers.figures.conjugate import conjugate_gradients, contest, gauss_newton, largest_curvature, nesterov
from trainers.inits import initial

NET = NetConfig((4, 5, 3), ("tanh",), "logistic")


def _problem(net: NetConfig) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], Data]:
    params = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in initial(net, InitConfig("lecun"), SeedConfig(1))]
    return params, cases.data(net, examples=9)


def test_products_and_gradient_are_those_of_the_examples_asked_for() -> None:
    """Without hidden layers the Gauss-Newton matrix is the Hessian."""
    net = NetConfig((4, 3), (), "logistic")
    params, data = _problem(net)
    product, gradient = gauss_newton(net, params, data, slice(0, 7))
    twin = Twin(net, curvature(net, data))
    theta, few = twin.made.pack(params), data.train.head(7)
    assert (gradient - torch.func.grad(twin.loss)(theta, few)).abs().max() < 1e-13
    hessian = torch.func.hessian(twin.loss)(theta, few)
    dense = torch.stack([product(one) for one in torch.eye(len(gradient), dtype=torch.float64)])
    assert (dense - hessian).abs().max() < 1e-13


def test_both_reach_the_minimum_cg_in_as_many_steps_as_dimensions() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    matrix = torch.from_numpy(root @ root.T + np.eye(6))
    g = torch.from_numpy(rng.standard_normal(6))
    least = float(-g @ torch.linalg.solve(matrix, g) / 2)
    assert abs(conjugate_gradients(lambda v: matrix @ v, g, 6)[-1] - least) < 1e-12
    lr = 1 / largest_curvature(lambda v: matrix @ v, g, 200)
    assert abs(nesterov(lambda v: matrix @ v, g, lr, 0.7, 500)[-1] - least) < 1e-9


def test_contest_starts_at_zero_and_cg_never_rises() -> None:
    params, data = _problem(NET)
    found = contest(NET, params, data, steps=20)
    cg = found["conjugate_gradients"]
    assert cg[0] == 0
    assert abs(found["nesterov"][0]) == 0
    assert all(after <= before + 1e-15 for before, after in pairwise(cg))
    assert cg[-1] <= min(found["final_of_each_mu"].values())
