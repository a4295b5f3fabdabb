"""Hand-written back-propagation through time, of one trial or of a stack, as bound calls on buffers that exist.

What a step reads lies side by side, [x_t, h_(t-1), 1], so that one product takes in inputs, state and biases, and one
product over the rows of many steps is the gradient of all of them. Outputs are kept features first: few as they are,
products and softmax are then up to eight times as fast (`trainers.engine.is_narrow` says why).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from trainers import passes
from trainers.config import NetConfig
from trainers.data import Data, Part
from trainers.flat import Flat, row_blocks

Call = Callable[[], object]
Take = Callable[..., Tensor]
"""Called with a name and a shape, gives a buffer: of the shape, or for a stack of [K, *shape]."""

_CHUNK = 1 << 18  # numbers: steps whose gradient is taken together, while their states and deltas are in cache
_LEAST_STEPS = 8  # of such a chunk: with less, reading the gradient back costs more than the cache saves
_PIECE = {"cpu": 1 << 16, "cuda": 1 << 26}
"""Numbers: sequences that `logits_of` goes through together; on a CPU their states are in cache."""


class Unrolled:
    """Passes over one batch of sequences: of one trial, or of a stack with a leading axis K.

    `forward` reads `point`, weights [I+H+1, H] and [O, H+1] with the biases last, and leaves the output delta in
    `delta`; `backward` adds what `delta` gives by the chain rule, summed over the batch, to `into`, of the same shapes.
    Both read `inputs` [..., B, T, I], `targets` [..., B, O] or [..., B, T, O] and, if there is one answer, `steps`
    [..., B] anew each time. All these tensors stay where they are; a leading axis of the batch's is K or 1.
    """

    def __init__(
        self,
        net: NetConfig,
        batch: tuple[Tensor, Tensor, Tensor | None],
        point: tuple[Tensor, Tensor],
        into: tuple[Tensor, Tensor],
        take: Take,
    ) -> None:
        inputs, targets, self._steps = batch
        self.net, self.batch, self.features = net, inputs.shape[-3], net.widths[0]
        self._cell, self._output = point
        self._into, self._take = into, take
        hidden, outputs = net.widths[1:]
        self._twice, self._back = take("twice", *self._cell.shape[-2:]), take("back", hidden, hidden)
        self.rows = take("rows", net.steps + 1, self.batch, self._cell.shape[-2])
        """Row t of axis T+1: [x_t, h_(t-1), 1]; the last has no x."""
        self.rows[..., 0, :, self.features : -1] = 0.0
        self.rows[..., -1] = 1.0
        stacked = self._cell.ndim > 2
        self._product = torch.bmm if stacked else torch.mm
        self._add_product = torch.Tensor.baddbmm_ if stacked else torch.Tensor.addmm_
        answers = (net.steps, self.batch) if net.every_step else (self.batch,)
        self._logits, self.delta = take("logits", outputs, *answers), take("delta", outputs, *answers)
        self._masks(targets)
        self._forward = self._forward_calls(inputs, targets)
        self._chunks = self._backward_chunks()

    def _masks(self, targets: Tensor) -> None:
        """Prepare what says which steps have an answer, `_answering` [..., T, B], and where it is read."""
        t, b = self.net.steps, self.batch
        if self.net.every_step:
            # A one-hot target sums to 1, that of a step without a score to 0.
            scored = targets.new_empty(targets.shape[:-1])
            self._answering = scored.transpose(-1, -2)
            self._mask: list[Call] = [partial(torch.sum, targets, -1, out=scored)]
            self._read = self._flat(1, t + 1)[..., self.features :]
            return
        steps = self._steps
        assert steps is not None
        numbers = torch.arange(t, device=steps.device).unsqueeze(-1)
        self._answering = targets.new_empty(*steps.shape[:-1], t, b)
        place, first = torch.empty_like(steps), torch.arange(b, 2 * b, device=steps.device)
        self._read = self._take("read", b, self._output.shape[-1])
        index = place.unsqueeze(-1).expand(self._read.shape)
        self._mask = [
            partial(torch.eq, steps.unsqueeze(-2), numbers, out=self._answering),
            partial(torch.add, first, steps, alpha=b, out=place),  # h of step t is in row t + 1
        ]
        self._gather = partial(torch.gather, self._flat(0, t + 1)[..., self.features :], -2, index, out=self._read)

    def _flat(self, start: int, end: int) -> Tensor:
        """View the rows of some steps as [..., rows, I+H+1]."""
        return self.rows[..., start:end, :, :].flatten(-3, -2)

    def _h(self, step: int) -> Tensor:
        return self.rows[..., step + 1, :, self.features : -1]

    def _forward_calls(self, inputs: Tensor, targets: Tensor) -> list[Call]:
        t, every = self.net.steps, self.net.every_step
        z = self._take("z", self.batch, self.net.widths[1])
        calls: list[Call] = [
            partial(self.rows[..., :t, :, : self.features].copy_, inputs.transpose(-3, -2)),
            *self._mask,
        ]
        for step in range(t):
            calls.append(partial(self._product, self.rows[..., step, :, :], self._twice, out=z))
            calls += passes.activate_calls("tanh", z, self._h(step))
        if not every:
            calls.append(self._gather)
        logits, delta = self._logits, self.delta
        calls.append(
            partial(
                self._product, self._output, self._read.transpose(-1, -2), out=logits.flatten(-2) if every else logits
            )
        )
        target = targets.transpose(-3, -1) if every else targets.transpose(-2, -1)
        calls.append(partial(passes.output_delta, self.net.loss, logits, target, delta, -3 if every else -2))
        if every:
            calls.append(partial(delta.mul_, self._answering.unsqueeze(-3)))
        return calls

    def _backward_chunks(self) -> list[tuple[int, list[Call], list[Call]]]:
        """Return for each chunk of steps, last first, its end and its calls: with answers in it, and without."""
        t, b, hidden, every = self.net.steps, self.batch, self.net.widths[1], self.net.every_step
        size = min(
            t, max(_LEAST_STEPS, _CHUNK // (self.rows[..., 0, :, :].numel() + self._cell[..., 0, :].numel() * b))
        )
        deltas = self._take("deltas", size + 1, b, hidden)
        slot = deltas.unbind(-3)
        by_output = self.delta.flatten(-2).transpose(-1, -2) if every else self.delta.transpose(-1, -2)
        v = self._output[..., :-1]
        self._outputs: list[Call] = [partial(self._add_product, self._into[1], by_output.transpose(-1, -2), self._read)]
        if not every:
            sent = self._take("sent", b, hidden)
            self._outputs.append(partial(self._product, by_output, v, out=sent))
        chunks: list[tuple[int, list[Call], list[Call]]] = []
        for start in range((t - 1) // size * size, -1, -size):
            end = min(start + size, t)
            chunk = deltas[..., : end - start, :, :]
            if every:
                inject = partial(self._product, by_output[..., start * b : end * b, :], v, out=chunk.flatten(-3, -2))
            else:
                answering = self._answering[..., start:end, :].unsqueeze(-1)
                inject = partial(torch.mul, sent.unsqueeze(-3), answering, out=chunk)
            without: list[Call] = [partial(slot[size].copy_, slot[0])] if end < t else []
            with_answers: list[Call] = [*without, inject, *self._injected(start, end, chunk)]
            for step in range(end - 1, start - 1, -1):
                grad = slot[step - start]
                if step < t - 1:
                    above = slot[step - start + 1] if step < end - 1 else slot[size]
                    with_answers.append(partial(self._add_product, grad, above, self._back))
                    without.append(partial(self._product, above, self._back, out=grad))
                back = passes.backpropagate_calls("tanh", grad, self._h(step))
                with_answers += back
                without += back
            add = self._added(start, end, chunk)
            chunks.append((end, [*with_answers, add], [*without, add]))
        return chunks

    def _injected(self, start: int, end: int, chunk: Tensor) -> list[Call]:  # noqa: ARG002
        """Return what is to add to the states' gradients of some steps, in `chunk`, before they go through tanh."""
        return []

    def _added(self, start: int, end: int, chunk: Tensor) -> Call:
        """Return what takes the deltas of some steps, in `chunk`, to the gradient."""
        rows_t = self._flat(start, end).transpose(-1, -2)
        return partial(self._add_product, self._into[0], rows_t, chunk.flatten(-3, -2))

    def _first(self) -> int:
        """Return the first step that may have an answer. To ask a GPU which it is would wait for it."""
        return 0 if self._steps is None or self._steps.is_cuda else int(self._steps.min())

    def forward(self) -> None:
        """Go through the steps, from the weights to `delta`."""
        torch.mul(self._cell, passes.scale_before("tanh"), out=self._twice)
        for call in self._forward:
            call()

    def backward(self) -> None:
        """Go back through the steps, from `delta` to the gradient."""
        self._back.copy_(self._cell[..., self.features : -1, :].transpose(-1, -2))
        for call in self._outputs:
            call()
        first = self._first()
        for end, with_answers, without in self._chunks:
            for call in with_answers if end == self.net.steps or end > first else without:
                call()


class RecurrentPasses:
    """The loop engine's passes of a recurrent net; see `trainers.flat.Passes`."""

    def __init__(self, net: NetConfig, batch: int, data: Data) -> None:
        train = data.train
        self.net = net
        self._inputs = train.inputs.new_empty(batch, *train.inputs.shape[1:])
        self._targets = train.targets.new_empty(batch, *train.targets.shape[1:])
        self._steps = None if train.steps is None else train.steps.new_empty(batch)
        (cell, hidden), (_, outputs) = net.layers
        self._point = (self._take("cell", cell + 1, hidden), self._take("output", outputs, hidden + 1))
        self._into = (torch.empty_like(self._point[0]), torch.empty_like(self._point[1]))
        self._unrolled = Unrolled(net, (self._inputs, self._targets, self._steps), self._point, self._into, self._take)
        self._flat_delta = self._unrolled.delta.view(-1)
        self.blocks = [row_blocks(*shape) for shape in net.layers]

    def _take(self, _: str, *shape: int) -> Tensor:
        return self._targets.new_empty(shape)

    def fetch(self, part: Part, rows: Tensor) -> None:  # noqa: D102 - on the protocol
        torch.index_select(part.inputs, 0, rows, out=self._inputs)
        torch.index_select(part.targets, 0, rows, out=self._targets)
        if self._steps is not None:
            assert part.steps is not None
            torch.index_select(part.steps, 0, rows, out=self._steps)

    def forward(self, point: Flat, total: Tensor) -> None:  # noqa: D102
        write_weights(point, *self._point)
        self._unrolled.forward()
        torch.sum(self._flat_delta, 0, out=total)

    def backward(  # noqa: D102
        self,
        point: Flat,  # noqa: ARG002 - `forward` copied it
        into: Flat,
        beta: float,
        alpha: float,
        after: Callable[[int, int], None] | None = None,
    ) -> None:
        for each in self._into:
            each.zero_()
        self._unrolled.backward()
        read_gradient(*self._into, into, beta, alpha)
        if after is not None:
            for layer, ranges in enumerate(self.blocks):
                for block in range(len(ranges)):
                    after(layer, block)

    def curvature(self, point: Flat, into: Flat, beta: float, alpha: float) -> None:  # noqa: ARG002, D102
        raise AssertionError("the diagonal method is for feed-forward nets")

    def logits(self, theta: Flat, part: Part) -> Tensor:  # noqa: D102
        weights = (torch.empty_like(self._point[0]), torch.empty_like(self._point[1]))
        write_weights(theta, *weights)
        return logits_of(self.net, *weights, part)


def write_weights(flat: Flat, cell: Tensor, output: Tensor) -> None:
    """Write all parameters as `Unrolled` reads them."""
    for to, weights, biases in zip((cell, output.t()), flat.weights, flat.biases, strict=True):
        to[:-1] = weights
        to[-1] = biases


def read_gradient(cell: Tensor, output: Tensor, into: Flat, beta: float, alpha: float) -> None:
    """Make into = beta*into + alpha*g, given the gradient g as `Unrolled` leaves it."""
    for layer, gradient in enumerate((cell, output.t())):
        for to, g in ((into.weights[layer], gradient[:-1]), (into.biases[layer], gradient[-1])):
            if beta:
                to.mul_(beta).add_(g, alpha=alpha)  # S13 eq. 1, 3
            else:
                torch.mul(g, alpha, out=to)


def logits_of(net: NetConfig, cell: Tensor, output: Tensor, part: Part) -> Tensor:
    """Return the logits of a part, [..., N, O] or [..., N, T, O]; `cell` and `output` are the point of `Unrolled`."""
    lead, n, features = cell.shape[:-2], len(part.inputs), net.widths[0]
    twice, output_t = cell * passes.scale_before("tanh"), output.transpose(-1, -2)
    logits = cell.new_empty(*lead, n, *([net.steps] if net.every_step else []), net.widths[-1])
    size = max(1, _PIECE.get(cell.device.type, 1 << 16) // cell[..., 0].numel())
    for start in range(0, n, size):
        inputs = part.inputs[start : start + size]
        row = cell.new_zeros(*lead, len(inputs), cell.shape[-2])
        row[..., -1] = 1.0
        h, read = row[..., features:-1], row[..., features:]
        answering: dict[int, list[int]] = {}
        if part.steps is not None:
            for place, step in enumerate(part.steps[start : start + size].tolist()):
                answering.setdefault(step, []).append(place)
        for step in range(net.steps):
            row[..., :features] = inputs[:, step]
            z = row @ twice
            passes.activate("tanh", z, h)
            if net.every_step:
                logits[..., start : start + size, step, :] = read @ output_t
            elif step in answering:
                places = torch.tensor(answering[step], device=cell.device)
                logits[..., start + places, :] = read[..., places, :] @ output_t
    return logits
