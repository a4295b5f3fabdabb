"""Where the stacked engine keeps weights: trials at rest as rows of one matrix, trials in training packed by layer.

Weights carry their bias as a last row, [I+1, O]. A layer that is narrow for its batch (`features_first`) lies in
memory features first, [O, I+1], and so do its activations. What is written here rows first may be either in memory:
`rows_first` gives the view, and `product` multiplies such views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.config import NetConfig
from trainers.engine import is_narrow
from trainers.precision import add_product

_ALIGN = 16  # elements: 64 bytes of float32, a cache line

Call = Callable[[], object]


class Place(NamedTuple):
    """Where a layer's weights lie in a trial's row, and how: `rows` are the I inputs, the bias, and zeros that pad."""

    inputs: int
    outputs: int
    rows: int
    first: bool
    start: int

    @property
    def size(self) -> int:
        """Numbers of a trial."""
        return self.rows * self.outputs

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weights in memory."""
        return (self.outputs, self.rows) if self.first else (self.rows, self.outputs)


class Layout:
    """The places of all layers of a net that is trained on batches of one size."""

    def __init__(self, net: NetConfig, batch: int) -> None:
        self.places: list[Place] = []
        self.size = 0
        for layer, (inputs, outputs) in enumerate(net.layers):
            # Of a recurrent net `recurrent.Unrolled` says what lies how.
            first = layer == 1 if net.steps else features_first(outputs, batch)
            rows = inputs + 1 if net.steps or layer == 0 or not first else _padded(inputs + 1)
            self.places.append(Place(inputs, outputs, rows, first, self.size))
            self.size += self.places[-1].size

    def split(self, rows: Tensor) -> list[Tensor]:
        """View rows [K, size] as the weights of every layer as they lie in memory, [K, ...]."""
        return [rows[:, p.start : p.start + p.size].view(-1, *p.shape) for p in self.places]

    def rows_first(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """View every layer as [..., rows, O]."""
        return [w.transpose(-1, -2) if p.first else w for p, w in zip(self.places, weights, strict=True)]


class Packed:
    """K trials' weights in one vector, layer after layer: [K, ...] of each, and layers of one size together."""

    def __init__(self, layout: Layout, arena: Tensor, k: int) -> None:
        blocks = [_aligned(k * place.size) for place in layout.places]
        starts = [sum(blocks[:layer]) for layer in range(len(blocks))]
        self.vector = arena[: sum(blocks)]
        places = list(zip(starts, layout.places, strict=True))
        self.layers = [arena[start : start + k * p.size].view(k, *p.shape) for start, p in places]
        self.rows_first = layout.rows_first(self.layers)
        self.alike: list[Tensor] = []
        """[layers, K, size] of each run of layers of one size."""
        for size, run in groupby(range(len(places)), key=lambda layer: places[layer][1].size):
            members = list(run)
            shape, strides = (len(members), k, size), (blocks[members[0]], size, 1)
            self.alike.append(arena.as_strided(shape, strides, starts[members[0]]))


def arena_size(layout: Layout, k: int) -> int:
    """Return how many numbers `Packed` needs for up to k trials."""
    return k * layout.size + _ALIGN * len(layout.places)


def features_first(width: int, batch: int) -> bool:
    """Whether activations [K, B, width] lie in memory as [K, width, B], and the weights that lead to them likewise.

    Products are up to six times as fast with a narrow dimension before a long one; with short batches, it is the
    longer of the two that should come last.
    """
    return is_narrow(width) and (width < 16 or batch >= 32)


def product(
    out: Tensor, a: Tensor, b: Tensor, beta: float = 0.0, alpha: float = 1.0, precision: str = "float32"
) -> Call:
    """Return the call out = beta*out + alpha*a@b for stacks of matrices, out being rows or features first."""
    if not out.is_contiguous():
        out, a, b = out.transpose(1, 2), b.transpose(1, 2), a.transpose(1, 2)
        assert out.is_contiguous(), "batched products go into buffers without gaps only"
    if precision != "float32":
        return partial(add_product, out, a, b, beta, alpha, precision)
    if beta == 0.0 and alpha == 1.0:
        return partial(torch.bmm, a, b, out=out)
    if beta == 1.0 and alpha == 1.0:
        return partial(out.baddbmm_, a, b)
    return partial(out.baddbmm_, a, b, beta=beta, alpha=alpha)


def _padded(rows: int) -> int:
    """Round a few rows up to a multiple of a vector's 8 lanes if that adds little: 32 for 31 halves gradients' time."""
    padded = -(-rows // 8) * 8
    return padded if rows < 64 and 5 * (padded - rows) < rows else rows


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
