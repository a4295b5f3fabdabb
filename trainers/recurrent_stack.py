"""Back-propagation through time in the stacked engine; see `trainers.stack_passes.Passes`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from trainers.config import NetConfig
from trainers.data import Part
from trainers.recurrent import Unrolled, logits_of
from trainers.stack_layout import Call, Layout, Packed
from trainers.stack_passes import Batch, Buffers


class Recurrent:
    """One batch of sequences of each of K trials: `trainers.recurrent.Unrolled` on the engine's own weights."""

    def __init__(
        self,
        net: NetConfig,
        layout: Layout,  # noqa: ARG002 - as `Unrolled` has its weights
        batch: Batch,
        point: Packed,
        into: Packed,
        buffers: Buffers,
        curved: bool,
    ) -> None:
        assert not curved, "the diagonal method is for feed-forward nets"
        sequences = (batch.inputs, batch.targets, batch.steps)
        (cell, output), gradient = point.layers, into.layers
        take = partial(_take, buffers, len(cell))
        unrolled = Unrolled(net, sequences, (cell, output), (gradient[0], gradient[1]), take)
        self.delta = unrolled.delta
        self.forward: list[Call] = [unrolled.forward]
        self.backward: list[Call] = [unrolled.backward]

    def curvature(self, squares: Packed, into: Packed) -> list[Call]:  # noqa: ARG002, D102 - on the protocol
        raise AssertionError("the diagonal method is for feed-forward nets")


def _take(buffers: Buffers, k: int, name: str, *shape: int) -> Tensor:
    return buffers.take(f"recurrent {name}", k, *shape)


def logits(net: NetConfig, layout: Layout, weights: Sequence[Tensor], part: Part) -> Tensor:  # noqa: ARG001
    """Return the logits of a whole part, [K, N, O] or [K, N, T, O]; `weights` as they lie in memory."""
    cell, output = weights
    return logits_of(net, cell, output, part)
