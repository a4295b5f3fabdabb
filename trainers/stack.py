"""The stacked engine: K trials of one net as one computation of batched products.

Weights carry a leading trial axis and their bias as a last row, `w_KIO` with I one larger than the layer's inputs;
activations carry a last column of ones to meet it. Every hyperparameter is a [K, 1, 1] tensor. Losses are summed
over trials, so each gradient is what it would be alone, and nothing ever mixes two trials: a slot full of NaN
leaves its neighbours' bits as they are. A narrow output layer (`trainers.engine.is_narrow`) is kept features first,
`w_KOI` and `z_KOB`.

Small nets spend their time in calls, not in arithmetic, hence the shape of this file: trials at rest are rows of one
matrix; those in training are packed, layer after layer, for exactly as many as train, so that one call updates layers
together; and an update is a list of bound calls on fixed buffers, made once for each K (what a CUDA graph needs too).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from trainers import models, passes
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, Part, index_tensors
from trainers.engine import check_fits, flush_denormals, is_narrow
from trainers.optim import constant_until, momentum
from trainers.state import Params, TrialState, initial_state

_SPAN = 256  # updates whose batches are looked up at once
_EVAL_ELEMENTS = 1 << 20  # numbers in one layer of an evaluation: larger temporary arrays cost page faults
_ALIGN = 16  # elements: 64 bytes of float32, a cache line

Call = Callable[[], object]


@dataclass
class _Slot:
    config: TrialConfig
    update: int
    diverged_at: int | None
    row: int


class _Layout:
    """Where each layer's weights lie in a trial's row, and in which shape."""

    def __init__(self, net: NetConfig) -> None:
        self.narrow = is_narrow(net.widths[-1])
        self.shapes = [(i + 1, o) for i, o in net.layers]
        if self.narrow:
            self.shapes[-1] = (self.shapes[-1][1], self.shapes[-1][0])
        self.sizes = [a * b for a, b in self.shapes]
        self.starts = [sum(self.sizes[:layer]) for layer in range(len(self.sizes))]
        self.size = sum(self.sizes)

    def split(self, rows: Tensor) -> list[Tensor]:
        """View rows [K, size] as the weights of every layer, [K, ...]."""
        places = zip(self.starts, self.sizes, self.shapes, strict=True)
        return [rows[:, start : start + size].view(-1, *shape) for start, size, shape in places]

    def rows_first(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """View every layer as [..., I+1, O]."""
        return [*weights[:-1], weights[-1].transpose(-1, -2)] if self.narrow else list(weights)


class _Packed:
    """K trials' weights in one vector, layer after layer: [K, ...] of each, and layers of one shape together."""

    def __init__(self, layout: _Layout, arena: Tensor, k: int) -> None:
        blocks = [-(-k * size // _ALIGN) * _ALIGN for size in layout.sizes]
        starts = [sum(blocks[:layer]) for layer in range(len(blocks))]
        self.vector = arena[: sum(blocks)]
        places = list(zip(starts, layout.sizes, layout.shapes, strict=True))
        self.layers = [arena[start : start + k * size].view(k, *shape) for start, size, shape in places]
        self.alike: list[Tensor] = []
        for size, run in groupby(range(len(places)), key=lambda layer: layout.sizes[layer]):
            members = list(run)
            shape, strides = (len(members), k, size), (blocks[members[0]], size, 1)
            self.alike.append(arena.as_strided(shape, strides, starts[members[0]]))


class _Program:
    """One update of K trials as bound calls on fixed buffers; `mu`, `ahead` and `scale` are set between updates."""

    def __init__(self, engine: StackedEngine, k: int, shared: bool, look: bool) -> None:
        net, batch, layout = engine.net, engine.batch, engine.layout
        self.theta, self.velocity = (_Packed(layout, arena, k) for arena in engine.arenas[:2])
        self.point = _Packed(layout, engine.arenas[2], k) if look else self.theta
        self.mu, self.ahead, self.scale = (engine.empty(k, 1, 1) for _ in range(3))
        sources = 1 if shared else k
        self.table_rows = engine.batches[: sources * batch]
        batches = self.table_rows.view(sources, batch, -1)
        inputs = net.widths[0]
        self.x = [batches[..., : inputs + 1].expand(k, -1, -1), *(h[:k] for h in engine.h)]
        target = batches[..., inputs + 1 :] if batches.shape[-1] > inputs + 1 else batches[..., :inputs]
        self.target = target.transpose(1, 2) if layout.narrow else target
        self.z = [arena[: k * batch * width] for arena, width in zip(engine.z, net.widths[1:], strict=True)]
        self.z = [z.view(k, batch, -1) for z in self.z[:-1]] + [
            self.z[-1].view(k, -1, batch) if layout.narrow else self.z[-1].view(k, batch, -1)
        ]
        self.delta = engine.delta[: self.z[-1].numel()].view_as(self.z[-1]) if net.loss == "softmax" else self.z[-1]
        self.flat_delta = self.delta.view(k, -1)
        self.sums = engine.sums[: _SPAN * k].view(_SPAN, k)
        self.sum_of = self.sums.unbind(0)
        self.look: list[Call] = self._look() if look else []
        self.forward = self._forward(net, layout)
        self.backward = [*self._backward(net, layout), *self._update(layout), *self.look]

    def _look(self) -> list[Call]:
        """The point where the gradient is taken, theta + mu*v for NAG (S13 eq. 3), theta for the others."""
        coefficient = self.ahead.view(1, -1, 1)
        triples = zip(self.theta.alike, self.velocity.alike, self.point.alike, strict=True)
        return [partial(torch.addcmul, w, v, coefficient, out=p) for w, v, p in triples]

    def _forward(self, net: NetConfig, layout: _Layout) -> list[Call]:
        calls: list[Call] = []
        last = len(net.hidden)
        for layer, (name, w, x, z) in enumerate(zip((*net.hidden, ""), self.point.layers, self.x, self.z, strict=True)):
            if layer == last:
                calls.append(partial(torch.bmm, *((w, x.transpose(1, 2)) if layout.narrow else (x, w)), out=z))
            else:
                calls.append(partial(z.baddbmm_, x, w, beta=0.0, alpha=passes.scale_before(name)))
                calls += passes.activate_calls(name, z, self.x[layer + 1][..., :-1])
        outputs = 1 if layout.narrow else -1
        return [*calls, partial(passes.output_delta, net.loss, self.z[-1], self.target, self.delta, outputs)]

    def _backward(self, net: NetConfig, layout: _Layout) -> list[Call]:
        """Deltas of every layer, from the output's, into which -lr goes once and for all."""
        calls: list[Call] = [partial(self.delta.mul_, self.scale)]
        delta = self.delta.transpose(1, 2) if layout.narrow else self.delta
        for layer in range(len(net.hidden), 0, -1):
            w = layout.rows_first(self.point.layers)[layer]
            below = self.z[layer - 1]
            calls.append(partial(torch.bmm, delta, w[:, :-1].transpose(1, 2), out=below))
            calls += passes.backpropagate_calls(net.hidden[layer - 1], below, self.x[layer][..., :-1])
            delta = below
        return calls

    def _update(self, layout: _Layout) -> list[Call]:
        """The gradient goes straight into the velocity."""
        coefficient = self.mu.view(1, -1, 1)
        calls: list[Call] = [partial(v.mul_, coefficient) for v in self.velocity.alike]
        deltas = [*self.z[:-1], self.delta]
        for layer, (v, x, delta) in enumerate(zip(self.velocity.layers, self.x, deltas, strict=True)):
            if layout.narrow and layer == len(deltas) - 1:
                calls.append(partial(v.baddbmm_, delta, x))
            else:
                calls.append(partial(v.baddbmm_, x.transpose(1, 2), delta))  # S13 eq. 1, 3
        return [*calls, partial(self.theta.vector.add_, self.velocity.vector)]  # S13 eq. 2, 4

    def run(self, table: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """Make an update for each of `rows`; returns the sum of the output delta of each, [len(rows), K]."""
        select, add_up = torch.index_select, torch.sum
        forward, backward, flat_delta = self.forward, self.backward, self.flat_delta
        for call in self.look:
            call()
        for row, total in zip(rows, self.sum_of, strict=False):
            select(table, 0, row, out=self.table_rows)
            for call in forward:
                call()
            add_up(flat_delta, 1, out=total)
            for call in backward:
                call()
        return self.sums[: len(rows)]


class StackedEngine:
    """Trials of one net and batch size, trained together; see `trainers.engine.Engine`."""

    name = "stacked"

    def __init__(self, net: NetConfig, batch: int, data: Data) -> None:
        self.net = net
        self.batch = batch
        self.data = data
        self.layout = _Layout(net)
        self._slots: dict[int, _Slot] = {}
        self._rest = self.empty(0, 2 * self.layout.size)
        """Trials at rest, [rows, theta and velocity]."""
        self._free: list[int] = []
        self._packed: list[int] = []
        """Numbers of the trials whose newest weights are in `arenas`, in order."""
        self._programs: dict[tuple[int, bool, bool], _Program] = {}
        self._capacity = 0
        self.arenas: list[Tensor] = []

    def empty(self, *shape: int) -> Tensor:
        """Make an uninitialised tensor of this engine's dtype and device."""
        return torch.empty(shape, device=self.data.device, dtype=self.data.dtype)

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:  # noqa: D102 - on the protocol
        check_fits(config, self.net, self.batch, self._slots)
        state = initial_state(config, self.data.dtype, self.data.device) if state is None else state
        if not self._free:
            rows = len(self._rest)
            more = max(4, rows // 2)
            self._rest = torch.cat([self._rest, self.empty(more, 2 * self.layout.size)])
            self._free = list(range(rows + more - 1, rows - 1, -1))
        row = self._free.pop()
        for half, params in zip(self._rest[row].view(2, 1, -1), (state.params, state.velocity), strict=True):
            for w_1IO, (w, b) in zip(self.layout.rows_first(self.layout.split(half)), params, strict=True):
                w_1IO[0, :-1] = w
                w_1IO[0, -1] = b
        self._slots[config.number] = _Slot(config, state.update, state.diverged_at, row)

    def remove(self, number: int) -> None:  # noqa: D102
        if number in self._packed:
            self._unpack()
        self._free.append(self._slots.pop(number).row)

    def numbers(self) -> list[int]:  # noqa: D102
        return list(self._slots)

    def update(self, number: int) -> int:  # noqa: D102
        return self._slots[number].update

    def diverged_at(self, number: int) -> int | None:  # noqa: D102
        return self._slots[number].diverged_at

    def state(self, number: int) -> TrialState:  # noqa: D102
        slot = self._slots[number]
        if number in self._packed:
            self._unpack()

        def save(half: Tensor) -> Params:
            layers = self.layout.rows_first(self.layout.split(half))
            return [(w[0, :-1].clone(memory_format=torch.contiguous_format), w[0, -1].clone()) for w in layers]

        theta, velocity = self._rest[slot.row].view(2, 1, -1)
        return TrialState(slot.update, save(theta), save(velocity), slot.diverged_at)

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:  # noqa: D102
        flush_denormals()
        results: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            weights = self._weights(numbers)
            step = max(1, _EVAL_ELEMENTS // (len(part.inputs) * max(self.net.widths[1:])))
            for start in range(0, len(numbers), step):
                logits = self._logits([w[start : start + step] for w in weights], part.inputs)
                results.append(models.metric_tensors(self.net, logits, part.expected))
            return {name: torch.cat([metrics[name] for metrics in results]) for name in results[0]} if results else {}

    def _weights(self, numbers: list[int]) -> list[Tensor]:
        """Theta of each layer, [len(numbers), ...], copied only where it must be."""
        if set(numbers) <= set(self._packed):
            layers = _Packed(self.layout, self.arenas[0], len(self._packed)).layers
            if numbers == self._packed:
                return layers
            places = torch.tensor([self._packed.index(number) for number in numbers], device=self.data.device)
            return [w[places] for w in layers]
        self._unpack()
        return self.layout.split(self._rest[:, : self.layout.size][self._rows(numbers)])

    def _logits(self, weights: list[Tensor], inputs: Tensor) -> Tensor:
        h = inputs.expand(len(weights[0]), *inputs.shape)
        for name, w in zip(self.net.hidden, weights, strict=False):
            scale = passes.scale_before(name)
            h = torch.baddbmm(w[:, -1:], h, w[:, :-1], beta=scale, alpha=scale)
            passes.activate(name, h, h)
        w = weights[-1]
        if self.layout.narrow:
            return torch.baddbmm(w[..., -1:], w[..., :-1], h.transpose(1, 2)).transpose(1, 2).contiguous()
        return torch.baddbmm(w[:, -1:], h, w[:, :-1])

    def _rows(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([self._slots[number].row for number in numbers], device=self.data.device)

    def _unpack(self) -> None:
        """Bring what was trained back to rest."""
        if self._packed:
            rows, k = self._rows(self._packed), len(self._packed)
            for half, arena in zip(self._rest.view(-1, 2, self.layout.size).unbind(1), self.arenas, strict=False):
                for to, w in zip(self._columns(half), _Packed(self.layout, arena, k).layers, strict=True):
                    to[rows] = w.reshape(k, -1)
            self._packed = []

    def _pack(self, numbers: list[int]) -> None:
        """Bring trials from rest to where they are trained."""
        if numbers == self._packed:
            return
        self._unpack()
        self._reserve(len(numbers))
        rows, k = self._rows(numbers), len(numbers)
        for half, arena in zip(self._rest.view(-1, 2, self.layout.size).unbind(1), self.arenas, strict=False):
            packed = _Packed(self.layout, arena, k)
            packed.vector.zero_()  # the gaps between layers too: they are updated with the rest
            for source, w in zip(self._columns(half), packed.layers, strict=True):
                w.copy_(source[rows].view_as(w))
        self._packed = numbers

    def _columns(self, half: Tensor) -> list[Tensor]:
        places = zip(self.layout.starts, self.layout.sizes, strict=True)
        return [half[:, start : start + size] for start, size in places]

    def _reserve(self, k: int) -> None:
        """Make buffers for up to k trials in training; nothing may be packed."""
        if k <= self._capacity:
            return
        k = max(k, min(2 * self._capacity, len(self._slots)))
        net, batch = self.net, self.batch
        vector = k * self.layout.size + _ALIGN * len(self.layout.sizes)
        self.arenas = [self.empty(vector) for _ in range(3)]
        self.batches = self.empty(k * batch, self.data.table.shape[1])
        self.h = [self.empty(k, batch, width + 1).fill_(1.0) for width in net.widths[1:-1]]
        self.z = [self.empty(k * batch * width) for width in net.widths[1:]]
        self.delta = self.empty(k * batch * net.widths[-1]) if net.loss == "softmax" else self.z[-1]
        self.sums = self.empty(_SPAN * k)
        self._capacity = k
        self._programs.clear()

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:  # noqa: D102
        flush_denormals()
        seconds = dict.fromkeys(until, 0.0)
        with torch.inference_mode():
            while active := [n for n in self._slots if n in until and self._slots[n].update < until[n]]:
                start = time.perf_counter()
                self._pack(active)
                slots = [self._slots[number] for number in active]
                self._train(slots, min(until[slot.config.number] - slot.update for slot in slots))
                share = (time.perf_counter() - start) / len(active)
                for number in active:
                    seconds[number] += share
        return seconds

    def _train(self, slots: list[_Slot], count: int) -> None:
        while count:
            ends = (constant_until(s.update, s.config.method, s.config.updates) for s in slots)
            steps = [end - s.update for s, end in zip(slots, ends, strict=True) if end is not None]
            span = min(count, _SPAN, *steps)
            self._span(slots, span)
            count -= span
        k = len(slots)
        vectors = [_Packed(self.layout, arena, k) for arena in self.arenas[:2]]
        if not bool((vectors[0].vector.sum() + vectors[1].vector.sum()).isfinite()):
            # A sum can overflow where its terms do not: ask each.
            finite = torch.stack([w.view(k, -1).isfinite().all(1) for packed in vectors for w in packed.layers])
            for slot, good in zip(slots, finite.all(0).tolist(), strict=True):
                if not good and slot.diverged_at is None:
                    slot.diverged_at = slot.update

    def _span(self, slots: list[_Slot], count: int) -> None:
        """Train so many updates under constant mu."""
        starts = [(slot.config.seed, slot.update) for slot in slots]
        rows = index_tensors(len(self.data.train.inputs), self.batch, starts, count)
        mus = [momentum(s.update, s.config.method, s.config.updates) for s in slots]
        aheads = [mu if s.config.method.kind == "nag" else 0.0 for mu, s in zip(mus, slots, strict=True)]
        key = (len(slots), len(rows[0]) == self.batch, any(aheads))
        if key not in self._programs:
            self._programs[key] = _Program(self, *key)
        program = self._programs[key]
        factor = -passes.delta_factor(self.net.loss) / self.batch
        for column, values in (
            (program.mu, mus),
            (program.ahead, aheads),
            (program.scale, [factor * slot.config.method.lr for slot in slots]),
        ):
            column.copy_(torch.tensor(values, dtype=self.data.dtype).view(-1, 1, 1))
        finite = program.run(self.data.table, rows).isfinite()
        if not bool(finite.all()):
            for slot, column in zip(slots, finite.t(), strict=True):
                if slot.diverged_at is None and not bool(column.all()):
                    slot.diverged_at = slot.update + int((~column).to(torch.uint8).argmax())
        for slot in slots:
            slot.update += count
