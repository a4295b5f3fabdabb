"""All parameters of a net as one vector, and what the loop engine needs of a kind of net: its passes over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from trainers.config import NetConfig
from trainers.data import Part
from trainers.engine import is_narrow
from trainers.state import Params

_ALIGN = 16  # elements: 64 bytes of float32, a cache line
_BLOCK = 1 << 18  # weights whose step is taken while their velocity is still in cache; smaller blocks slow the products


class Flat:
    """One contiguous vector of all parameters: weights of every layer, then biases of every layer, each aligned.

    The gaps between them are 0 and stay so.
    """

    def __init__(self, net: NetConfig, like: Tensor) -> None:
        sizes = [rows * columns for rows, columns in net.layers] + [columns for _, columns in net.layers]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // _ALIGN) * _ALIGN)
        self.vector = like.new_zeros(starts[-1])
        pieces = [self.vector[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        layers = len(net.layers)
        self.weights = [_matrix(piece, *shape) for piece, shape in zip(pieces[:layers], net.layers, strict=True)]
        self.weights_t = [w.t() for w in self.weights]
        self.biases = pieces[layers:]
        self.all_biases = self.vector[starts[layers] :]

    def load(self, params: Params) -> None:
        """Copy parameters in."""
        for (w, b), to_w, to_b in zip(params, self.weights, self.biases, strict=True):
            to_w.copy_(w)
            to_b.copy_(b)

    def save(self) -> Params:
        """Copy them out."""
        pairs = zip(self.weights, self.biases, strict=True)
        return [(w.clone(memory_format=torch.contiguous_format), b.clone()) for w, b in pairs]


class Passes(Protocol):
    """One kind of net over batches of one size, in buffers that all trials of an engine use in turn.

    Of each update the engine calls `fetch`, `forward`, then for diagonal `curvature`, then `backward`. What a trial
    comes to may depend on its own parameters and batches only, to the bit: buffers are written before they are read,
    and where a factor is 0 what was there is not read at all, since it may be NaN (`beta=0` of addmm keeps to this).
    """

    @property
    def blocks(self) -> Sequence[Sequence[tuple[int, int]]]:
        """Of each layer the ranges of rows of its weights whose gradients `backward` finishes together, in order."""

    def fetch(self, part: Part, rows: Tensor) -> None:
        """Copy a batch in: the examples `rows` [B] of a part."""

    def forward(self, point: Flat, total: Tensor) -> None:
        """Take the batch to logits and the output delta (`passes.output_delta`), and write the delta's sum to `total`.

        `total` [] is not finite when any element of the delta is not.
        """

    def backward(
        self, point: Flat, into: Flat, beta: float, alpha: float, after: Callable[[int, int], None] | None = None
    ) -> None:
        """Make into = beta*into + alpha*g, where g sums over the batch what the output deltas give by the chain rule.

        The caller puts `passes.delta_factor` and the batch's mean into alpha. `point` is what `forward` had. With
        `after`, `after(layer, block)` is called once for each of `blocks`, when its part of `into` is complete and its
        part of `point` is needed no more: the caller then changes it. Biases are complete when this returns.
        """

    def curvature(self, point: Flat, into: Flat, beta: float, alpha: float) -> None:
        """Make into = beta*into + alpha*d, d being the diagonal curvature of `serial.curvature`, over the batch summed.

        Called between `forward` and `backward`, of nets without `steps` only.
        """

    def logits(self, theta: Flat, part: Part) -> Tensor:
        """Return the logits of a whole part: [N, O], or [N, T, O] with an output at every step."""


def row_blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    """Cut the rows of a weight matrix into blocks of about _BLOCK weights, a function of its shape only."""
    pieces = max(1, round(rows * columns / _BLOCK))
    each = max(1, -(-rows // pieces))
    return [(start, min(start + each, rows)) for start in range(0, rows, each)]


def _matrix(piece: Tensor, rows: int, columns: int) -> Tensor:
    """View a vector as weights [I, O]; narrow ones lie in memory as [O, I], see `trainers.engine.is_narrow`."""
    return piece.view(columns, rows).t() if is_narrow(columns) else piece.view(rows, columns)
