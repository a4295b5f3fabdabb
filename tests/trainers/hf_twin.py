"""Hessian-free optimisation once more, slow and obvious: dense matrices, plain numpy, every residual made anew.

`Dense` is a `trainers.curvature.Curvature` whose matrix is formed by autograd; `Twin` does outer iterations on it as
SCIENCE 2 words them, and shares no code with `trainers.hf`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers import models
from trainers.config import NetConfig
from trainers.config_hf import HFConfig
from trainers.data import Part
from trainers.flat import Flat
from trainers.hf import Piece
from trainers.state import Params

Array = NDArray[np.float64]
_KEPT = (5, 7, 10, 13, 17, 23, 30, 39, 51, 67, 88, 115, 150, 195, 254)


class Dense:
    """The loss of a small net of our own, with an output at the end, around a point in float64."""

    def __init__(self, net: NetConfig) -> None:
        self.net = net
        self._like = torch.empty(0, dtype=torch.float64)
        numbered = Flat(net, self._like)
        self.size = len(numbered.vector)
        numbered.vector.copy_(torch.arange(self.size))
        self._module = models.build(net, torch.float64)
        places = [place for w, b in numbered.save() for place in (w.T.long(), b.long())]
        self._places = dict(zip(dict(self._module.named_parameters()), places, strict=True))
        self.matrix = self.each = self._like
        """The Gauss-Newton matrix [P, P], and each example's gradient [N, P], where `at` was last."""

    def pack(self, params: Params) -> Tensor:
        flat = Flat(self.net, self._like)
        flat.load(params)
        return flat.vector

    def unpack(self, vector: Tensor) -> Params:
        flat = Flat(self.net, self._like)
        flat.vector.copy_(vector)
        return flat.save()

    def at(self, theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:
        theta, arguments, expected = theta.double().clone(), part.arguments(rows), part.expected[rows]

        def logits(vector: Tensor) -> Tensor:
            return self._logits(vector, arguments)

        def of_one(z: Tensor, target: Tensor) -> Tensor:
            return models.loss(self.net, z.unsqueeze(0), target.unsqueeze(0))

        z = logits(theta).detach()
        jacobian = torch.func.jacrev(logits)(theta)  # [N, O, P]
        deltas = torch.vmap(torch.func.grad(of_one))(z, expected)
        hessian = torch.vmap(torch.func.hessian(of_one))(z, expected)
        self.each = torch.einsum("nop,no->np", jacobian, deltas)
        curved = torch.einsum("noq,nqr->nor", hessian, jacobian)
        self.matrix = jacobian.flatten(0, 1).T @ curved.flatten(0, 1) / len(z)
        return models.loss(self.net, z, expected)

    def gradient(self, out: Tensor) -> None:
        out.copy_(self.each.mean(0))

    def squares(self, out: Tensor) -> None:
        out.copy_(self.each.square().mean(0))

    def product(self, v: Tensor, out: Tensor, structural: float = 0.0) -> None:
        assert not structural
        out.copy_(self.matrix @ v)

    def loss(self, theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:
        return models.loss(self.net, self._logits(theta.double(), part.arguments(rows)), part.expected[rows])

    def _logits(self, vector: Tensor, arguments: tuple[Tensor, ...]) -> Tensor:
        named = {name: vector[place] for name, place in self._places.items()}
        found: Tensor = torch.func.functional_call(self._module, named, arguments)
        return found


class Twin:
    """A run of HF without structural damping: theta, damping and CG's last solution, one iteration after another."""

    def __init__(self, net: NetConfig, theta: Tensor, damping: float) -> None:
        self._dense = Dense(net)
        self.theta: Array = theta.double().numpy().copy()
        self.solution: Array = np.zeros_like(self.theta)
        self.damping = damping
        self.iterations = 0
        self.notes: dict[str, Any] = {}

    def loss(self, theta: Array, piece: Piece) -> float:
        return float(self._dense.loss(torch.from_numpy(theta), piece.part, piece.rows))

    def objective(self, theta: Array, pieces: Sequence[Piece], l2: float) -> float:
        count = sum(piece.count for piece in pieces)
        value = sum(piece.count * self.loss(theta, piece) for piece in pieces) / count + l2 / 2 * theta @ theta
        return math.inf if math.isnan(value) else value

    def iterate(self, config: HFConfig, pieces: Sequence[Piece], target: int) -> None:
        theta, l2 = self.theta, config.l2
        g = l2 * theta
        for piece in pieces:
            self._dense.at(torch.from_numpy(theta), piece.part, piece.rows)
            g = g + self._dense.each.mean(0).numpy() * piece.count / sum(piece.count for piece in pieces)
        self._dense.at(torch.from_numpy(theta), pieces[target].part, pieces[target].rows)
        undamped = self._dense.matrix.numpy() + l2 * np.eye(len(theta))
        squares = self._dense.each.square().mean(0).numpy()
        diagonal = (squares + self.damping + l2) ** config.preconditioner
        b = undamped + self.damping * np.eye(len(theta))
        xs = self._cg(b, g, config.cg_decay * self.solution, diagonal, config)
        last = len(xs) - 1
        if config.line_search:
            self._searched(g, undamped, xs, config, pieces, target)
        else:
            size = config.step
            if config.step_decay and self.iterations + 1 > config.step_from:
                size = min(size, config.step_decay / (self.iterations + 1 - config.step_from))
            self._judge(g, undamped, xs[last], config, pieces[target])
            self.theta = theta + size * xs[last]
        self.solution = xs[last]
        self.iterations += 1
        self.notes["steps"] = last

    def _cg(self, b: Array, g: Array, x: Array, diagonal: Array, config: HFConfig) -> list[Array]:
        def phi(x: Array) -> float:
            return float(g @ x + x @ b @ x / 2)

        xs, r = [x], -g - b @ x
        p = r / diagonal
        for i in range(1, config.cg_max + 1):
            alpha = r @ (r / diagonal) / (p @ b @ p)
            x = x + alpha * p
            after = -g - b @ x
            p = after / diagonal + (after @ (after / diagonal)) / (r @ (r / diagonal)) * p
            r = after
            xs.append(x)
            k = max(10, math.ceil(i / 10))
            if i > k and phi(xs[i]) < 0 and (phi(xs[i]) - phi(xs[i - k])) / phi(xs[i]) < k * config.cg_tolerance:
                break
        return xs

    def _searched(
        self, g: Array, undamped: Array, xs: list[Array], config: HFConfig, pieces: Sequence[Piece], target: int
    ) -> None:
        theta, last = self.theta, len(xs) - 1

        def f(x: Array) -> float:
            return self.objective(theta + x, pieces, config.l2)

        taken = last
        for step in sorted((step for step in _KEPT if step < last), reverse=True):
            if f(xs[step]) > f(xs[taken]):
                break
            taken = step
        self._judge(g, undamped, xs[taken], config, pieces[target])
        old = f(np.zeros_like(theta))
        for tried in range(60):
            x = 0.8**tried * xs[taken]
            if f(x) <= old + 1e-2 * min(0.0, g @ x):
                self.theta = theta + x
                break
        self.notes |= {"taken": taken, "tried": tried}

    def _judge(self, g: Array, undamped: Array, x: Array, config: HFConfig, piece: Piece) -> None:
        """The Levenberg-Marquardt rule; with `adapt` only."""
        if not config.adapt:
            return
        new, old = self.objective(self.theta + x, [piece], config.l2), self.objective(self.theta, [piece], config.l2)
        rho = -math.inf if new > old else (new - old) / (g @ x + x @ undamped @ x / 2)
        self.damping *= 1.5 if rho < 0.25 else 2 / 3 if rho > 0.75 else 1.0
        self.notes["rho"] = rho
