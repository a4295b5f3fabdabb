"""S13 Fig. 5: products, conjugate gradients and NAG on quadratics whose minimum is known."""

from itertools import pairwise

import numpy as np
import torch

from trainers import models
from trainers.config import InitConfig, NetConfig, SeedConfig
from trainers.figures.conjugate import conjugate_gradients, contest, gauss_newton, largest_curvature, nesterov
from trainers.inits import initial

NET = NetConfig((4, 5, 3), ("tanh",), "logistic")


def _problem(net: NetConfig) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    params = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in initial(net, InitConfig("lecun"), SeedConfig(1))]
    inputs = torch.randn(7, net.widths[0], generator=generator, dtype=torch.float64)
    return params, inputs, torch.rand(7, net.widths[-1], generator=generator, dtype=torch.float64)


def test_gradient_is_autograds() -> None:
    for loss in ("logistic", "squared"):
        net = NetConfig(NET.widths, NET.hidden, loss)
        params, inputs, targets = _problem(net)
        _, gradient = gauss_newton(net, params, inputs, targets)
        module = models.build(net, torch.float64)
        models.set_parameters(module, params)
        models.loss(net, module(inputs), targets).backward()  # type: ignore[no-untyped-call]
        expected = torch.cat([p.grad.reshape(-1) for p in module.parameters() if p.grad is not None])
        assert (gradient - expected).abs().max() < 1e-13


def test_products_are_the_hessians_where_the_net_is_linear() -> None:
    """Without hidden layers the Gauss-Newton matrix is the Hessian."""
    net = NetConfig((4, 3), (), "logistic")
    params, inputs, targets = _problem(net)
    product, gradient = gauss_newton(net, params, inputs, targets)

    def loss(vector: torch.Tensor) -> torch.Tensor:
        weights, biases = vector[:12].view(3, 4), vector[12:]  # as nn.Linear has them
        return models.loss(net, inputs @ weights.T + biases, targets)

    theta = torch.cat([params[0][0].T.reshape(-1), params[0][1]])
    hessian = torch.autograd.functional.hessian(loss, theta)
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
    params, inputs, targets = _problem(NET)
    found = contest(NET, params, inputs, targets, steps=20)
    cg = found["conjugate_gradients"]
    assert cg[0] == 0
    assert abs(found["nesterov"][0]) == 0
    assert all(after <= before + 1e-15 for before, after in pairwise(cg))
    assert cg[-1] <= min(found["final_of_each_mu"].values())
