"""One update of K trials as a list of bound calls on fixed buffers, made once for each K (a CUDA graph needs the same).

Small nets spend their time in calls, not in arithmetic: hence layers of one size are updated together, and what can be
prepared for many updates at once, which examples and which coefficients, is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from trainers import recurrent_stack, stack_feedforward
from trainers.config import NetConfig
from trainers.data import Part
from trainers.recurrent_stack import Recurrent
from trainers.stack_feedforward import FeedForward
from trainers.stack_layout import Call, Layout, Packed
from trainers.stack_methods import RULES, Coefficients, Rule
from trainers.stack_passes import Batch, Buffers, PassesMaker

SPAN = 256  # updates whose batches and coefficients are looked up at once


class Program:
    """One update of K trials of one family of methods, whose weights are packed in `arenas`.

    `shared` says that all see the same batch, `extra` which of two forms of the update they need (`Rule`).
    """

    def __init__(
        self,
        net: NetConfig,
        size: int,
        family: str,
        layout: Layout,
        arenas: Sequence[Tensor],
        buffers: Buffers,
        part: Part,
        k: int,
        shared: bool,
        extra: bool,
    ) -> None:
        sources = 1 if shared else k
        columns = part.table.shape[1]
        self.k, self.batch = k, size
        self.rows = buffers.take("batch", k, size, columns)[:sources].view(-1, columns)
        """Of the batch, [S*B, columns], S being 1 or K; `steps` [S*B] likewise."""
        self.steps = None if part.steps is None else part.steps.new_zeros(sources * size)
        batch = Batch(net, size, sources, self.rows, self.steps)
        self.coefficients = self.rows.new_zeros(RULES[family].coefficients, k)
        """Of the update, [C, K]: those of `Coefficients.rows`."""
        rule: Rule = RULES[family]([Packed(layout, arena, k) for arena in arenas], self.coefficients, extra)
        made = maker(net)(net, layout, batch, rule.point, rule.into, buffers, rule.curved is not None)
        self.flat_delta = made.delta.view(k, -1)
        """[K, ...], what `forward` leaves of the batch's rows, and `backward` takes with the coefficients."""
        self.look = rule.look
        """Calls before a first update, its coefficients being `Coefficients.before`."""
        self.forward = made.forward
        self.backward: list[Call] = [
            *rule.before,
            *([] if rule.curved is None else made.curvature(*rule.curved)),
            partial(self.flat_delta.mul_, rule.scale),
            *made.backward,
            *rule.after,
        ]
        self.kernels = len(self.forward) + len(self.backward) + 8 + 9 * net.steps
        """About how many a GPU runs for an update."""
        self._sums = self.rows.new_empty(SPAN, k)
        self._sum_of = self._sums.unbind(0)

    def run(self, coefficients: Coefficients, part: Part, rows: Sequence[Tensor]) -> Tensor:
        """Make an update for each of `rows`; returns the sum of the output delta of each, [len(rows), K].

        The host's way, for a CPU: it tells every update what changes. `trainers.stack_replay` has the device's.
        """
        select, add_up, table, copy = torch.index_select, torch.sum, part.table, self.coefficients.copy_
        forward, backward, flat_delta, batch = self.forward, self.backward, self.flat_delta, self.rows
        steps = part.steps
        copy(coefficients.before)
        for call in self.look:
            call()
        each = zip(rows, coefficients.changed, coefficients.rows, self._sum_of, strict=False)
        for row, changed, values, total in each:
            if changed:
                copy(values)
            select(table, 0, row, out=batch)
            if steps is not None:
                select(steps, 0, row, out=self.steps)
            for call in forward:
                call()
            add_up(flat_delta, 1, out=total)
            for call in backward:
                call()
        return self._sums[: len(rows)].clone()


def maker(net: NetConfig) -> PassesMaker:
    """Return what makes the passes of a net."""
    return Recurrent if net.steps else FeedForward


def logits(net: NetConfig, layout: Layout, weights: Sequence[Tensor], part: Part) -> Tensor:
    """Return the logits of a whole part, [K, N, O] or [K, N, T, O]; `weights` [K, ...] as they lie in memory."""
    of_part = recurrent_stack.logits if net.steps else stack_feedforward.logits
    return of_part(net, layout, weights, part)
