"""Hand-written passes of feed-forward and residual nets for the loop engine; see `trainers.flat.Passes`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainers import passes
from trainers.config import NetConfig
from trainers.data import Data, Part
from trainers.flat import Flat, row_blocks

Take = Callable[..., Tensor]
"""Called with a name and a shape, gives a buffer; a caller may have several passes share those of one name."""


class FeedForward:
    """Activations and deltas of one batch, [B, widths], used by every trial in turn."""

    def __init__(self, net: NetConfig, batch: int, data: Data, curved: bool = False, take: Take | None = None) -> None:
        def take_own(_: str, *shape: int) -> Tensor:
            return torch.empty(shape, device=data.device, dtype=data.dtype)

        apart = curved or take is not None
        take = take_own if take is None else take
        self.net = net
        self.names = (*net.hidden, "linear")
        self.eta = (1.0, *net.eta)
        self.h = [take("h", batch, width) for width in net.widths]
        # A residual net's modules, whose derivative is read off them, apart from the sums, h.
        more = [take("module", batch, net.widths[1]) for _ in net.eta]
        self.modules = [self.h[1], *more] if net.eta else self.h[1:]
        self.same_target = data.train.targets is data.train.inputs
        self.target = self.h[0] if self.same_target else take("target", batch, net.widths[-1])
        self.grads = [take(f"grad {layer}", batch, width) for layer, width in enumerate(net.widths[1:-1])]
        self.delta = take("delta", batch, net.widths[-1]) if net.loss == "softmax" or apart else self.h[-1]
        self.skip = take("skip", *self.grads[0].shape) if net.eta else self.delta  # with respect to a sum
        self.second = take("second", *self.delta.shape)
        self.squared = Flat(net, self.delta) if curved else None
        self.flat_delta = self.delta.view(-1)
        self.ones = torch.ones(batch, device=data.device, dtype=data.dtype)
        self.blocks = [row_blocks(*shape) for shape in net.layers]
        self.rows_t = [[h[:, a:b].t() for a, b in some] for h, some in zip(self.h, self.blocks, strict=False)]

    def fetch(self, part: Part, rows: Tensor) -> None:  # noqa: D102 - on the protocol
        torch.index_select(part.inputs, 0, rows, out=self.h[0])
        if not self.same_target:
            torch.index_select(part.targets, 0, rows, out=self.target)

    def forward(self, point: Flat, total: Tensor) -> None:  # noqa: D102
        self.run(point)
        passes.output_delta(self.net.loss, self.h[-1], self.target, self.delta)
        torch.sum(self.flat_delta, 0, out=total)

    def run(self, point: Flat) -> None:
        """Take the batch to logits, h[-1]."""
        h = self.h
        for layer, name in enumerate(self.names):
            scale = passes.scale_before(name)
            skips = self.net.eta and 0 < layer < len(self.net.hidden)
            z = self.modules[layer] if skips else h[layer + 1]
            torch.addmm(point.biases[layer], h[layer], point.weights[layer], beta=scale, alpha=scale, out=z)
            passes.activate(name, z, z)
            if skips:
                torch.add(h[layer], z, alpha=self.eta[layer], out=h[layer + 1])  # HR18 section 3.3

    def backward(  # noqa: D102
        self, point: Flat, into: Flat, beta: float, alpha: float, after: Callable[[int, int], None] | None = None
    ) -> None:
        delta = self.delta
        for layer in range(len(self.names) - 1, -1, -1):
            into.biases[layer].addmv_(delta.t(), self.ones, beta=beta, alpha=alpha)
            below = self._deltas(point, layer, delta) if layer else delta  # the weights between are still the old ones
            if after is None:
                into.weights[layer].addmm_(self.h[layer].t(), delta, beta=beta, alpha=alpha)  # S13 eq. 1, 3
            else:
                for block, (a, b) in enumerate(self.blocks[layer]):
                    into.weights[layer][a:b].addmm_(self.rows_t[layer][block], delta, beta=beta, alpha=alpha)
                    after(layer, block)
            delta = below

    def _deltas(self, point: Flat, layer: int, delta: Tensor) -> Tensor:
        """Return the delta of the layer below."""
        grad, name = self.grads[layer - 1], self.names[layer - 1]
        if self.net.eta:
            self._through_skip(delta, point.weights_t[layer], layer, self.skip)
            torch.mul(self.skip, self.eta[layer - 1], out=grad)
            passes.backpropagate(name, grad, self.modules[layer - 1])
        else:
            torch.mm(delta, point.weights_t[layer], out=grad)
            passes.backpropagate(name, grad, self.h[layer])
        return grad

    def _through_skip(self, delta: Tensor, weights_t: Tensor, layer: int, skip: Tensor) -> None:
        """Take `skip` from what a layer gave to what it took: by its module, and past it but for the output layer."""
        if layer == len(self.net.hidden):
            torch.mm(delta, weights_t, out=skip)
        else:
            skip.addmm_(delta, weights_t)

    def curvature(self, point: Flat, into: Flat, beta: float, alpha: float) -> None:  # noqa: D102
        assert self.squared is not None, "made without curvature"
        second, squares = self.second, self.squared
        torch.mul(point.vector, point.vector, out=squares.vector)
        passes.output_curvature(self.net.loss, self.h[-1], second)
        for layer in range(len(self.names) - 1, -1, -1):
            into.biases[layer].addmv_(second.t(), self.ones, beta=beta, alpha=alpha)
            into.weights[layer].addmm_(self.h[layer].square().t(), second, beta=beta, alpha=alpha)
            if layer == 0:
                return
            below = self.grads[layer - 1]  # free until `backward`
            if self.net.eta:
                self._through_skip(second, squares.weights_t[layer], layer, self.skip)
                torch.mul(self.skip, self.eta[layer - 1] ** 2, out=below)
            else:
                torch.mm(second, squares.weights_t[layer], out=below)
            for _ in range(2):  # by the square of the derivative
                passes.backpropagate(self.names[layer - 1], below, self.modules[layer - 1])
            second = below

    def logits(self, theta: Flat, part: Part) -> Tensor:  # noqa: D102
        h = part.inputs
        for layer, (name, w, b) in enumerate(zip(self.names, theta.weights, theta.biases, strict=True)):
            scale = passes.scale_before(name)
            z = torch.addmm(b, h, w, beta=scale, alpha=scale)
            passes.activate(name, z, z)
            h = h.add(z, alpha=self.eta[layer]) if self.net.eta and 0 < layer < len(self.net.hidden) else z
        return h
