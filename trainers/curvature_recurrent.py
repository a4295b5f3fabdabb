"""Gauss-Newton products of recurrent nets: derivatives along a vector, step after step; deltas, back through time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from trainers import models, passes
from trainers.config import NetConfig
from trainers.curvature_pieces import Shared
from trainers.data import Data, Part
from trainers.flat import Flat
from trainers.recurrent import Call, Unrolled, read_gradient, write_weights

_KEPT = ("rows", "read", "logits")
_CHUNK = 1 << 18  # numbers: steps whose states are multiplied together, while in cache
_EACH = 1 << 20  # numbers: gradients of single sequences that are held at a time


class LinearisedRecurrent:
    """See `trainers.curvature_pieces.Linearised`: a batch of sequences with its states."""

    def __init__(self, net: NetConfig, data: Data, waits: bool, examples: int, shared: Shared) -> None:
        """With `waits` nothing is read to save steps, see `_Linearised`."""

        def take(name: str, *shape: int) -> Tensor:
            return shared.own(*shape) if name in _KEPT else shared.take(name, *shape)

        train = data.train
        self._net = net
        self._inputs = take("inputs", examples, *train.inputs.shape[1:])
        self._targets = shared.own(examples, *train.targets.shape[1:])
        self._steps = None if train.steps is None else train.steps.new_empty(examples)
        (cell, hidden), (_, outputs) = net.layers
        self._weights, self._along, self._into = (
            (take(f"cell {use}", cell + 1, hidden), take(f"output {use}", outputs, hidden + 1))
            for use in ("weights", "along", "into")
        )
        self._unrolled = _Linearised(net, (self._inputs, self._targets, self._steps), self._weights, self._into, take)
        self._unrolled.prepare(self._targets, self._along, waits)
        self._classes: Tensor | None = None

    def fetch(self, part: Part, rows: Tensor | slice) -> None:  # noqa: D102 - on the protocol
        self._inputs.copy_(part.inputs[rows])
        self._targets.copy_(part.targets[rows])
        self._classes = None if part.classes is None else part.classes[rows]
        if self._steps is not None:
            assert part.steps is not None
            self._steps.copy_(part.steps[rows])

    def losses(self, point: Flat, total: Tensor) -> None:  # noqa: D102
        write_weights(point, *self._weights)
        self._unrolled.forward()
        expected = self._targets if self._classes is None else self._classes
        self._unrolled.add_losses(expected, total)

    def gradient(self, point: Flat, into: Flat, beta: float, alpha: float) -> None:  # noqa: D102
        self._unrolled.output_delta()
        self._back(point, into, beta, alpha, self._unrolled.backward)

    def squares(self, point: Flat, into: Flat, beta: float, alpha: float) -> None:  # noqa: D102
        self._unrolled.output_delta()
        self._back(point, into, beta, alpha, self._unrolled.backward_squares)

    def product(  # noqa: D102
        self, point: Flat, along: Flat, into: Flat, beta: float, alpha: float, structural: float
    ) -> None:
        write_weights(along, *self._along)
        write_weights(point, *self._weights)
        self._unrolled.derivatives()
        self._back(point, into, beta, alpha, partial(self._unrolled.backward, structural))

    def _back(self, point: Flat, into: Flat, beta: float, alpha: float, backward: Callable[[], None]) -> None:
        write_weights(point, *self._weights)  # pieces have them in common, and may have been elsewhere
        for each in self._into:
            each.zero_()
        backward()
        read_gradient(*self._into, into, beta, alpha)


class _Linearised(Unrolled):
    """Once it is run forward, `_logits` hold what they predict."""

    def prepare(self, targets: Tensor, along: tuple[Tensor, Tensor], waits: bool) -> None:
        """Make the calls of `derivatives`, along what these weights hold.

        With `waits` the steps before the first answer are gone through as all others, as to ask which they are would
        be to wait for the device.
        """
        self._waits = waits
        net, t, b, hidden = self.net, self.net.steps, self.batch, self.net.widths[1]
        self._structural, self._single = 0.0, False
        self._outputs_at = -3 if net.every_step else -2
        self._rz, self._rh = self._take("rz", t, b, hidden), self._take("rh", t, b, hidden)
        self._targets_t = targets.permute(*reversed(range(targets.ndim)))
        self._real: Tensor | None = None
        cell, output = along
        recurrent = self._cell[self.features : -1]
        size = min(t, max(1, _CHUNK // self.rows[0].numel()))
        calls: list[Call] = []
        for start in range(0, t, size):
            end = min(start + size, t)
            calls.append(partial(torch.mm, self._flat(start, end), cell, out=self._rz[start:end].flatten(0, 1)))
            for step in range(start, end):
                if step:
                    calls.append(partial(self._rz[step].addmm_, self._rh[step - 1], recurrent))
                calls += passes.backpropagate_calls("tanh", self._rz[step], self._h(step), self._rh[step])
        read = self._rh.flatten(0, 1)
        if not net.every_step:
            assert self._steps is not None
            place = torch.empty_like(self._steps)
            numbers = torch.arange(b, device=place.device)
            calls.append(partial(torch.add, numbers, self._steps, alpha=b, out=place))
            picked = self._take("read along", b, hidden)
            calls.append(partial(torch.index_select, read, 0, place, out=picked))
            read = picked
        delta = self.delta.flatten(1)
        calls += [
            partial(torch.mm, output, self._read.t(), out=delta),
            partial(delta.addmm_, self._output[:, :-1], read.t()),
            partial(passes.output_product, net.loss, self._logits, self.delta, self._outputs_at),
        ]
        if net.every_step:
            calls.append(partial(self.delta.mul_, self._answering))
        self._derivatives = calls

    def add_losses(self, expected: Tensor, total: Tensor) -> None:
        """Add the losses to `total` and turn logits into what they predict."""
        z = self._logits
        if self.net.loss == "softmax":
            logs = torch.log_softmax(z, self._outputs_at)  # along the short axis `models.losses` would be slow
            total.sub_(logs.mul_(self._targets_t).sum(self._outputs_at).sum(dtype=torch.float64))
        else:
            total.add_(models.losses(self.net, z.t(), expected).sum(dtype=torch.float64))
        passes.predict(self.net.loss, z, z, self._outputs_at)
        self._real = None

    def output_delta(self) -> None:
        """Leave the gradient with respect to the logits in `delta`."""
        torch.sub(self._logits, self._targets_t, out=self.delta)
        if self.net.every_step:
            self.delta.mul_(self._answering)

    def derivatives(self) -> None:
        """Leave H J v in `delta`: R{h} of Pearlmutter 1994, step by step, then the loss's second derivative."""
        for call in self._derivatives:
            call()

    def backward(self, structural: float = 0.0) -> None:
        """Go back from `delta`; with `structural` also from the states, as `derivatives` left them."""
        self._structural = structural
        if structural and self._real is None:
            self._real = self._real_steps()
        super().backward()
        self._structural = 0.0

    def backward_squares(self) -> None:
        """Go back from `delta`, each sequence by itself: squares of their gradients are summed."""
        cell, output = self._into
        self._single = True
        super().backward()
        self._single = False
        cell.zero_()
        output.zero_()
        delta, t = self.delta, self.net.steps
        if not self.net.every_step:
            output.addmm_(delta.square(), self._read.square())
        some = max(1, _EACH // cell.numel())
        for first in range(0, self.batch, some):
            last = min(first + some, self.batch)
            rows, deltas = self.rows[:, first:last], self._rz[:, first:last]
            # Over time a sequence's gradient is a sum, squared only when it is complete.
            cell.add_(torch.bmm(rows[:t].permute(1, 2, 0), deltas.transpose(0, 1)).square_().sum(0))
            if self.net.every_step:
                read = rows[1:, :, self.features :].transpose(0, 1)
                output.add_(torch.bmm(delta[:, :, first:last].permute(2, 0, 1), read).square_().sum(0))

    def _real_steps(self) -> Tensor:
        """Return [T, B, 1], 1 up to the last step with an answer, 0 in the zeros after a sequence's end."""
        later = self._answering.flip(0).cummax(0).values.flip(0)
        return later.unsqueeze(-1)

    def _first(self) -> int:
        return 0 if self._structural or self._waits else super()._first()

    def _injected(self, start: int, end: int, chunk: Tensor) -> list[Call]:
        return [partial(self._inject, start, end, chunk)]

    def _inject(self, start: int, end: int, chunk: Tensor) -> None:
        # tanh' = 1 - h^2 is the matching second derivative at what goes into tanh, so before it passes tanh this is R.
        if self._structural:
            assert self._real is not None
            chunk.addcmul_(self._rz[start:end], self._real[start:end], value=self._structural)

    def _added(self, start: int, end: int, chunk: Tensor) -> Call:
        add = super()._added(start, end, chunk)

        def added() -> None:
            if self._single:
                self._rz[start:end].copy_(chunk)
            else:
                add()

        return added
