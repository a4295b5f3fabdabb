"""Hand-written passes of feed-forward and residual nets for the stacked engine; see `trainers.stack_passes.Passes`.

Everything is written as [K, B, width] and [K, rows, O], rows first; what lies features first in memory is a view.
Activations carry a column of ones to meet the biases, and zeros to meet rows that pad.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from trainers import passes
from trainers.config import NetConfig
from trainers.data import Part
from trainers.precision import add_product
from trainers.stack_layout import Call, Layout, Packed, features_first, product
from trainers.stack_passes import Batch, Buffers


class FeedForward:
    """One batch of each of K trials: x from layer to layer, and of residual nets each module's f(z) beside it."""

    def __init__(
        self, net: NetConfig, layout: Layout, batch: Batch, point: Packed, into: Packed, buffers: Buffers, curved: bool
    ) -> None:
        self.net, self.layout, self.point, self.into, self.buffers = net, layout, point, into, buffers
        self.k, self.batch = len(point.layers[0]), batch.size
        self.target = batch.targets
        self.shared = batch.inputs[0] if len(batch.inputs) == 1 else None
        self.x = [batch.inputs.expand(self.k, -1, -1), *(self._carrier(layer) for layer in range(1, len(net.layers)))]
        # What f' is read off: f(z), which in a residual net is not what goes on to the next layer.
        self.f = [self._features(layer + 1) for layer in range(len(net.hidden))]
        for layer in range(1, len(net.hidden) if net.eta else 0):
            self.f[layer] = self._buffer(f"f{layer}", layer)
        last = len(net.hidden)
        self.z = self._buffer("logits", last)
        self._delta = self._buffer("delta", last) if net.loss == "softmax" or curved else self.z
        self.delta = self._delta.transpose(1, 2) if layout.places[last].first else self._delta
        self.forward = self._forward()
        self.backward = self._back(self._delta, point, self.x, into, squares=False)

    def curvature(self, squares: Packed, into: Packed) -> list[Call]:
        """Like `backward`, every factor squared (`serial.curvature`); `squares` are the point's."""
        second = self._buffer("second", len(self.net.hidden))
        x_2 = [self._square_of(layer) for layer in range(len(self.x))]
        return [
            *(partial(torch.mul, x, x, out=square) for x, square in zip(self.x, x_2, strict=True)),
            partial(passes.output_curvature, self.net.loss, self.z, second),
            partial(second.mul_, 1 / self.batch),
            *self._back(second, squares, x_2, into, squares=True),
        ]

    def _buffer(self, name: str, layer: int) -> Tensor:
        """Return [K, B, O] of a layer's outputs."""
        place = self.layout.places[layer]
        return self.buffers.activations(name, self.k, self.batch, place.outputs, place.first)

    def _carrier(self, layer: int) -> Tensor:
        """Return what a layer takes, [K, B, rows], its constants written."""
        place = self.layout.places[layer]
        first = self.layout.places[layer - 1].first
        x = self.buffers.activations(f"x{layer}", self.k, self.batch, place.rows, first)
        x[..., place.inputs] = 1.0
        x[..., place.inputs + 1 :] = 0.0
        return x

    def _square_of(self, layer: int) -> Tensor:
        first = layer > 0 and self.layout.places[layer - 1].first
        return self.buffers.activations(f"x_2 {layer}", self.k, self.batch, self.x[layer].shape[-1], first)

    def _features(self, layer: int) -> Tensor:
        return self.x[layer][..., : self.layout.places[layer].inputs]

    def _forward(self) -> list[Call]:
        calls: list[Call] = []
        net = self.net
        for layer, name in enumerate(net.hidden):
            residual = bool(net.eta) and layer > 0
            z = self.f[layer] if residual else self._buffer("z", layer)
            calls.append(self._product(layer, z, passes.scale_before(name)))
            calls += passes.activate_calls(name, z, self.f[layer])
            if residual:
                before, after = self._features(layer), self._features(layer + 1)
                calls.append(partial(torch.add, before, z, alpha=net.eta[layer - 1], out=after))  # HR18 section 3.3
        calls.append(self._product(len(net.hidden), self.z, 1.0))
        # Along a dimension that is the last in memory or comes before the batch: both are fast.
        z, target, delta, outputs = self.z, self.target, self._delta, -1
        if self.layout.places[-1].first:
            z, target, delta, outputs = (*(t.transpose(1, 2) for t in (z, target, delta)), 1)
        return [*calls, partial(passes.output_delta, net.loss, z, target, delta, outputs)]

    def _product(self, layer: int, z: Tensor, scale: float) -> Call:
        w = self.point.layers[layer]
        if layer == 0 and self.shared is not None and self.layout.places[0].first:
            # All trials see one batch: one product for all of them.
            return self._plain_product(z.transpose(1, 2).flatten(0, 1), w.flatten(0, 1), self.shared.t(), 0.0, scale)
        return self._stacked(z, self.x[layer], self.point.rows_first[layer], alpha=scale)

    def _gradient(self, layer: int, into: Packed, x: Tensor, delta: Tensor, scale: float) -> Call:
        if layer == 0 and self.shared is not None and self.layout.places[0].first and x is self.x[0]:
            rows = delta.transpose(1, 2).flatten(0, 1)
            return self._plain_product(into.layers[0].flatten(0, 1), rows, self.shared, 1.0, scale)
        return self._stacked(into.rows_first[layer], x.transpose(1, 2), delta, beta=1.0, alpha=scale)

    def _plain_product(self, out: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> Call:
        """Like `stack_layout.product`, of matrices without stack."""
        if self.buffers.precision != "float32":
            one, x, y = (t.unsqueeze(0) for t in (out, a, b))
            return partial(add_product, one, x, y, beta, alpha, self.buffers.precision)
        return partial(out.addmm_, a, b, beta=beta, alpha=alpha)

    def _stacked(self, out: Tensor, a: Tensor, b: Tensor, beta: float = 0.0, alpha: float = 1.0) -> Call:
        return product(out, a, b, beta, alpha, self.buffers.precision)

    def _back(self, delta: Tensor, weights: Packed, x: Sequence[Tensor], into: Packed, squares: bool) -> list[Call]:
        """Add to `into` what `delta` at the logits gives by the chain rule, or by its squares."""
        net, calls = self.net, []
        scale = 1.0  # what delta must be multiplied by
        for layer in range(len(net.hidden), -1, -1):
            calls.append(self._gradient(layer, into, x[layer], delta, scale))
            if layer == 0:
                break
            w_t = weights.rows_first[layer][:, : self.layout.places[layer].inputs].transpose(1, 2)
            if net.eta:
                # `skip` is what leaves a module and, past it, what enters it; `delta` goes through the module.
                skip = self._buffer("skip", layer - 1)
                calls.append(self._stacked(skip, delta, w_t, beta=float(layer < len(net.hidden)), alpha=scale))
                source, delta = skip, self._buffer("back", layer - 1)
                scale = 1.0 if layer == 1 else net.eta[layer - 2] ** (2 if squares else 1)
            else:
                source = delta_below = self._buffer(f"back{layer % 2}", layer - 1)
                calls.append(self._stacked(delta_below, delta, w_t))
                delta = delta_below
            name, f = net.hidden[layer - 1], self.f[layer - 1]
            calls += passes.backpropagate_calls(name, source, f, delta)
            if squares:
                calls += passes.backpropagate_calls(name, delta, f)
        return calls


def logits(net: NetConfig, layout: Layout, weights: Sequence[Tensor], part: Part) -> Tensor:
    """Return the logits [K, N, O] of a whole part; `weights` as they lie in memory."""
    h = part.inputs.expand(len(weights[0]), *part.inputs.shape)
    for layer, (name, w) in enumerate(zip((*net.hidden, "linear"), layout.rows_first(weights), strict=True)):
        inputs, outputs = net.layers[layer]
        scale = passes.scale_before(name)
        b = w[:, inputs].unsqueeze(1)
        if features_first(outputs, len(part.inputs)):
            z = torch.baddbmm(b.mT, w[:, :inputs].mT, h.mT, beta=scale, alpha=scale).mT
        else:
            z = torch.baddbmm(b, h, w[:, :inputs], beta=scale, alpha=scale)
        passes.activate(name, z, z)
        h = h.add(z, alpha=net.eta[layer - 1]) if net.eta and 0 < layer < len(net.hidden) else z
    return h.contiguous()
