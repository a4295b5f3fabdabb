"""What the stacked engine needs of a kind of net: its passes over K trials, as bound calls on buffers made once."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from trainers.config import NetConfig
from trainers.stack_layout import Call, Layout, Packed


class Passes(Protocol):
    """One kind of net over a batch of each of K trials, made anew for each K: a `PassesMaker` makes it.

    Of each update the program looks the batch up (`Batch`), makes the calls of `forward`, sums `delta` by trial, makes
    the calls of `curvature` if the method is diagonal, multiplies `delta` by what the method puts before the gradient
    (with `passes.delta_factor` and the batch's mean, often -lr) and makes the calls of `backward`. The calls read the
    weights of `point` anew each time. Nothing may mix two trials: one full of NaN leaves its neighbours' bits alone.
    """

    delta: Tensor
    """[K, ...]: the output delta as `passes.output_delta` writes it, 0 where a step is not scored."""
    forward: list[Call]
    """From batch and `point` to `delta`."""
    backward: list[Call]
    """Adds to `into` what `delta` gives by the chain rule, summed over the batch."""

    def curvature(self, squares: Packed, into: Packed) -> list[Call]:
        """Return calls that add to `into` the batch's diagonal curvature (`serial.curvature`).

        `squares` holds the squares of the point's weights. Asked for where the passes were made `curved` only.
        """


class PassesMaker(Protocol):
    """Makes passes that take weights from `point` and add gradients to `into`, on arrays of `buffers`."""

    def __call__(
        self,
        net: NetConfig,
        layout: Layout,
        batch: Batch,
        point: Packed,
        into: Packed,
        buffers: Buffers,
        curved: bool,
    ) -> Passes:
        """Make them."""


class Batch:
    """Where the examples of an update lie, [S, B, ...] each: S is 1 where all trials see the same ones, else K.

    `inputs` [S, B, I + 1] with a last column of ones, or [S, B, T, I] of sequences. `targets` [S, B, O] or
    [S, B, T, O], `steps` [S, B] where each sequence has one answer.
    """

    def __init__(self, net: NetConfig, size: int, sources: int, rows: Tensor, steps: Tensor | None) -> None:
        self.size = size
        self.rows = rows
        """[S*B, columns] of `Part.table`."""
        table = rows.view(sources, size, -1)
        self.steps = None if steps is None else steps.view(sources, size)
        inputs = net.widths[0] * max(1, net.steps)
        self.inputs = table[..., : inputs + 1]
        # An autoencoder's targets are its inputs.
        self.targets = table[..., inputs + 1 :] if table.shape[-1] > inputs + 1 else table[..., :inputs]
        if net.steps:
            self.inputs = _by_step(self.inputs[..., :-1], net.steps)
        if net.every_step:
            self.targets = _by_step(self.targets, net.steps)


class Buffers:
    """Arrays that all programs of an engine share, by name, for up to `capacity` trials."""

    def __init__(self, like: Tensor, capacity: int, precision: str = "float32") -> None:
        self.like = like
        self.capacity = capacity
        self.precision = precision
        """Of products (`trainers.precision`)."""
        self._held: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def take(self, name: str, k: int, *shape: int) -> Tensor:
        """Return [k, *shape], uninitialised or with what a smaller or larger k left there."""
        if (name, shape) not in self._held:
            self._held[name, shape] = self.like.new_empty(self.capacity, *shape)
        return self._held[name, shape][:k]

    def activations(self, name: str, k: int, batch: int, width: int, first: bool) -> Tensor:
        """Return [k, B, width], features first in memory or not."""
        return self.take(name, k, width, batch).transpose(1, 2) if first else self.take(name, k, batch, width)


def _by_step(flat: Tensor, steps: int) -> Tensor:
    """View [S, B, T*I] as [S, B, T, I]."""
    return flat.view(*flat.shape[:-1], steps, -1)
