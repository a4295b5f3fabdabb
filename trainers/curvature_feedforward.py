"""Gauss-Newton products of feed-forward and residual nets: derivatives along a vector, forward; deltas, back."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import models, passes
from trainers.config import NetConfig
from trainers.curvature_pieces import Shared
from trainers.data import Data, Part
from trainers.feedforward import FeedForward
from trainers.flat import Flat

_KEPT = ("h", "module")


class Linearised(FeedForward):
    """See `trainers.curvature_pieces.Linearised`. Once it is run forward, h[-1] holds what the logits predict."""

    def __init__(self, net: NetConfig, data: Data, examples: int, shared: Shared) -> None:
        def take(name: str, *shape: int) -> Tensor:
            return shared.own(*shape) if name in _KEPT else shared.take(name, *shape)

        super().__init__(net, examples, data, take=take)
        self.expected = self.target

    def fetch(self, part: Part, rows: Tensor | slice) -> None:  # noqa: D102 - on the protocol
        # A slice is read where it lies; only what is picked out is copied.
        self.h[0] = part.inputs[rows]
        self.target = self.h[0] if part.targets is part.inputs else part.targets[rows]
        self.expected = self.target if part.classes is None else part.classes[rows]

    def losses(self, point: Flat, total: Tensor) -> None:  # noqa: D102
        self.run(point)
        z = self.h[-1]
        total.add_(models.losses(self.net, z, self.expected).sum(dtype=torch.float64))
        passes.predict(self.net.loss, z, z)

    def gradient(self, point: Flat, into: Flat, beta: float, alpha: float) -> None:  # noqa: D102
        torch.sub(self.h[-1], self.target, out=self.delta)
        self.backward(point, into, beta, alpha)

    def squares(self, point: Flat, into: Flat, beta: float, alpha: float) -> None:  # noqa: D102
        delta = torch.sub(self.h[-1], self.target, out=self.delta)
        for layer in range(len(self.names) - 1, -1, -1):
            second = delta.square()
            into.biases[layer].addmv_(second.t(), self.ones, beta=beta, alpha=alpha)
            # An example's gradient is an outer product, its square that of squares.
            into.weights[layer].addmm_(self.h[layer].square().t(), second, beta=beta, alpha=alpha)
            if layer:
                delta = self._deltas(point, layer, delta)

    def product(  # noqa: D102
        self,
        point: Flat,
        along: Flat,
        into: Flat,
        beta: float,
        alpha: float,
        structural: float,  # noqa: ARG002 - recurrent nets'
    ) -> None:
        self._derivatives(point, along)
        passes.output_product(self.net.loss, self.h[-1], self.delta)
        self.backward(point, into, beta, alpha)

    def _derivatives(self, point: Flat, along: Flat) -> None:
        """Leave the logits' derivative along a vector in `delta`: R{h} of Pearlmutter 1994, layer by layer."""
        below = None
        for layer, name in enumerate(self.names):
            last = layer == len(self.net.hidden)
            r = self.delta if last else self.grads[layer]  # free until `backward`
            torch.addmm(along.biases[layer], self.h[layer], along.weights[layer], out=r)
            if below is not None:
                r.addmm_(below, point.weights[layer])
            if not last:
                passes.backpropagate(name, r, self.modules[layer])
                if self.net.eta and below is not None:
                    torch.add(below, r, alpha=self.eta[layer], out=r)
            below = r
