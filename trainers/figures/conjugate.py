"""S13 Fig. 5: conjugate gradients against Nesterov's method, both from zero, on one damped quadratic.

The quadratic is taken from the middle of a Hessian-free run on CURVES, as in the paper: the Gauss-Newton model of the
loss there plus the damping that the run had come to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.curvature import curvature
from trainers.data import Data
from trainers.group import Group
from trainers.state import Params
from trainers.tasks import Split, load

Product = Callable[[Tensor], Tensor]


def gauss_newton(net: NetConfig, params: Params, data: Data, rows: slice) -> tuple[Product, Tensor]:
    """Return v -> G v of the mean loss of some training examples at `params`, and its gradient.

    Both are for flat vectors, as `trainers.curvature.Curvature` has them.
    """
    made = curvature(net, data)
    made.at(made.pack(params), data.train, rows)
    gradient = torch.empty(made.size, dtype=data.dtype)
    made.gradient(gradient)

    def product(vector: Tensor) -> Tensor:
        image = torch.empty_like(vector)
        made.product(vector, image)
        return image

    return product, gradient


def conjugate_gradients(product: Product, gradient: Tensor, steps: int) -> list[float]:
    """Minimise q(d) = g'd + d'Bd/2 from d = 0: q after each step (Hestenes and Stiefel 1952)."""
    d = torch.zeros_like(gradient)
    residual = -gradient
    direction = residual.clone()
    values = [0.0]
    for _ in range(steps):
        image = product(direction)
        norm = residual @ residual
        length = norm / (direction @ image)
        d = d + length * direction
        residual = residual - length * image
        direction = residual + (residual @ residual) / norm * direction
        values.append(float((gradient - residual) @ d / 2))  # q = (g'd + d'(Bd + g))/2 and Bd + g = -residual
    return values


def nesterov(product: Product, gradient: Tensor, lr: float, mu: float, steps: int) -> list[float]:
    """Minimise the same q by S13 eq. 3 and 4 from d = 0, one product a step: q after each step, at the look-ahead."""
    d, velocity = torch.zeros_like(gradient), torch.zeros_like(gradient)
    values = []
    for _ in range(steps + 1):
        ahead = d + mu * velocity
        image = product(ahead)
        values.append(float(gradient @ ahead + ahead @ image / 2))
        velocity = mu * velocity - lr * (gradient + image)
        d = d + velocity
    return values


def largest_curvature(product: Product, like: Tensor, steps: int = 30) -> float:
    """Estimate the largest eigenvalue by power iteration, from a fixed start."""
    vector = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype)
    for _ in range(steps):
        vector = product(vector / vector.norm())
    return float(vector.norm())


def contest(
    net: NetConfig,
    params: Params,
    data: Data,
    rows: slice = slice(None),
    damping: float = 1e-2,
    steps: int = 120,
    mus: tuple[float, ...] = (0.9, 0.95, 0.98, 0.99),
) -> dict[str, Any]:
    """Let both minimise the damped quadratic; NAG's lr is 1 / largest curvature, its mu the best of `mus`.

    CG is truncated at 120 steps (S13 Fig. 5).
    """
    bare, gradient = gauss_newton(net, params, data, rows)

    def damped(vector: Tensor) -> Tensor:
        return bare(vector) + damping * vector

    lr = 1 / largest_curvature(damped, gradient)
    paths = {mu: nesterov(damped, gradient, lr, mu, steps) for mu in mus}
    best = min(paths, key=lambda mu: paths[mu][-1])
    return {
        "damping": damping,
        "lr": lr,
        "mu": best,
        "conjugate_gradients": conjugate_gradients(damped, gradient, steps),
        "nesterov": paths[best],
        "final_of_each_mu": {str(mu): values[-1] for mu, values in paths.items()},
    }


def on_curves(size: int = 28, examples: int = 20_000, passes: int = 500) -> dict[str, Any]:
    """Hold the contest in an HF run on the CURVES autoencoder, after the work of so many passes over its examples."""
    task = load("curves", {"size": size, "examples": examples})
    encoder = task.info.encoder
    widths = (*encoder, *encoder[-2::-1])
    hidden = tuple("linear" if layer == len(encoder) - 2 else "sigmoid" for layer in range(len(widths) - 2))
    net = NetConfig(widths, hidden, "logistic")
    group = Group(task, "loop")
    hf = MethodConfig("hf", 1.0)
    group.add(TrialConfig(0, net, InitConfig("sparse"), hf, 2 * passes, examples, SeedConfig(0, "figure")))
    group.advance({0: passes})
    state = group.state(0)
    params = [(w.double(), b.double()) for w, b in state.params]
    inputs = np.array(task.train.inputs[:1000])
    few = Split(inputs, inputs)
    data = Data(replace(task, train=few, valid=few), dtype="float64")
    met = {"passes": passes, "examples": examples, "iterations": state.scalars["iterations"]}
    return {**met, **contest(net, params, data, damping=state.scalars["damping"])}
