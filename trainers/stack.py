"""The stacked engine: K trials of one net as one computation of batched products.

Weights carry a leading trial axis and their bias as a last row, `w_KIO` with I one larger than the layer's inputs;
activations carry a last column of ones to meet it. Every hyperparameter is a [K, 1, 1] tensor. Losses are summed
over trials, so each gradient is what it would be alone, and nothing ever mixes two trials: a slot full of NaN
leaves its neighbours' bits as they are. Buffers are made once for the largest K seen; a smaller K uses their head.

A narrow output layer (`trainers.engine.is_narrow`) is kept features first, `w_KOI` and `z_KOB`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import models, passes
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, Part, index_tensors
from trainers.engine import check_fits, flush_denormals, is_narrow
from trainers.optim import constant_until, momentum
from trainers.state import Params, TrialState, initial_state

_SPAN = 256  # updates whose batches are looked up at once
_EVAL_ELEMENTS = 1 << 21  # outputs of one evaluation: larger temporary arrays cost page faults


@dataclass
class _Slot:
    config: TrialConfig
    update: int
    diverged_at: int | None


class _Views:
    """The first K slots of all buffers, with every view that an update needs."""

    def __init__(self, engine: StackedEngine, k: int, shared: bool) -> None:
        net, batch = engine.net, engine.batch
        self.theta = [w[:k] for w in engine.theta]
        self.velocity = [v[:k] for v in engine.velocity]
        self.point = [p[:k] for p in engine.point]
        # Rows of the batch: one set for all slots, or one for each.
        self.first = engine.inputs_KBI[:1] if shared else engine.inputs_KBI[:k]
        self.x = [self.first.expand(k, -1, -1), *(h[:k] for h in engine.h)]
        self.x_t = [x.transpose(1, 2) for x in self.x]
        self.h = [h[:k, :, :width] for h, width in zip(engine.h, net.widths[1:], strict=False)]
        self.z = [z[:k] for z in engine.z]
        self.delta = engine.delta[:k] if engine.delta is not engine.z[-1] else self.z[-1]
        self.flat_delta = self.delta.view(k, -1)
        sources = 1 if shared else k
        self.gathered = engine.gathered[: sources * batch]
        self.inputs = self.first[..., : net.widths[0]]
        self.rows = self.first.view(sources * batch, -1)
        if engine.targets_KBO is None:
            target, self.target_rows = self.inputs, None
        else:
            target = engine.targets_KBO[:sources]
            self.target_rows = target.view(sources * batch, -1)
        self.target = target.transpose(1, 2) if engine.narrow else target
        self.sums = engine.sums[:, :k]
        self.sum_of = self.sums.unbind(0)


def _back(weights: Sequence[Tensor], narrow: bool) -> list[Tensor]:
    """Weights without their biases, [K, O, I]: what takes a delta one layer down."""
    wide = weights[:-1] if narrow else weights
    return [w[:, :-1].transpose(1, 2) for w in wide] + [w[..., :-1] for w in weights[len(wide) :]]


class StackedEngine:
    """Trials of one net and batch size, trained together; see `trainers.engine.Engine`."""

    name = "stacked"

    def __init__(self, net: NetConfig, batch: int, data: Data) -> None:
        self.net = net
        self.batch = batch
        self.data = data
        self.narrow = is_narrow(net.widths[-1])
        self._slots: list[_Slot] = []
        self._capacity = 0
        self.theta: list[Tensor] = []
        self.velocity: list[Tensor] = []
        self.point: list[Tensor] = []
        self._views: dict[tuple[int, bool], _Views] = {}

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.data.device, dtype=self.data.dtype)

    def _reserve(self, k: int) -> None:
        """Make room for k slots, keeping what is held."""
        if k <= self._capacity:
            return
        old = (self.theta, self.velocity, self.point)
        held, net, batch = len(self._slots), self.net, self.batch
        shapes = [(i + 1, o) for i, o in net.layers]
        last = (k, batch, net.widths[-1])
        if self.narrow:
            shapes[-1], last = (shapes[-1][1], shapes[-1][0]), (k, net.widths[-1], batch)
        self.theta, self.velocity, self.point = ([self._empty(k, *shape) for shape in shapes] for _ in range(3))
        for before, after in zip(old, (self.theta, self.velocity, self.point), strict=True):
            for a, b in zip(before, after, strict=False):
                b[:held] = a[:held]
        self.inputs_KBI = self._empty(k, batch, net.widths[0] + 1).fill_(1.0)
        self.h = [self._empty(k, batch, width + 1).fill_(1.0) for width in net.widths[1:-1]]
        self.z = [*(self._empty(k, batch, width) for width in net.widths[1:-1]), self._empty(*last)]
        self.delta = self._empty(*last) if net.loss == "softmax" else self.z[-1]
        same = self.data.train.targets is self.data.train.inputs
        self.targets_KBO = None if same else self._empty(k, batch, net.widths[-1])
        self.gathered = self._empty(k * batch, net.widths[0])
        self.sums = self._empty(_SPAN, k)
        self._capacity = k
        self._views.clear()

    def _rows_first(self, buffers: list[Tensor]) -> list[Tensor]:
        """View every layer as [K, I+1, O]."""
        return [*buffers[:-1], buffers[-1].transpose(1, 2)] if self.narrow else buffers

    def _index(self, number: int) -> int:
        for index, slot in enumerate(self._slots):
            if slot.config.number == number:
                return index
        raise KeyError(number)

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:  # noqa: D102 - on the protocol
        check_fits(config, self.net, self.batch, dict.fromkeys(self.numbers()))
        state = initial_state(config, self.data.dtype, self.data.device) if state is None else state
        k = len(self._slots)
        self._reserve(k + 1 if k < 4 else max(k + 1, self._capacity, k + k // 2))
        for buffers, params in ((self.theta, state.params), (self.velocity, state.velocity)):
            for w_KIO, (w, b) in zip(self._rows_first(buffers), params, strict=True):
                w_KIO[k, :-1] = w
                w_KIO[k, -1] = b
        self._slots.append(_Slot(config, state.update, state.diverged_at))

    def remove(self, number: int) -> None:  # noqa: D102
        index, last = self._index(number), len(self._slots) - 1
        if index != last:
            for buffer in (*self.theta, *self.velocity):
                buffer[index] = buffer[last]
        self._slots[index] = self._slots[last]
        self._slots.pop()

    def numbers(self) -> list[int]:  # noqa: D102
        return [slot.config.number for slot in self._slots]

    def update(self, number: int) -> int:  # noqa: D102
        return self._slots[self._index(number)].update

    def diverged_at(self, number: int) -> int | None:  # noqa: D102
        return self._slots[self._index(number)].diverged_at

    def state(self, number: int) -> TrialState:  # noqa: D102
        index = self._index(number)
        slot = self._slots[index]

        def save(buffers: list[Tensor]) -> Params:
            slots = (w_KIO[index] for w_KIO in self._rows_first(buffers))
            return [(w[:-1].clone(memory_format=torch.contiguous_format), w[-1].clone()) for w in slots]

        return TrialState(slot.update, save(self.theta), save(self.velocity), slot.diverged_at)

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:  # noqa: D102
        flush_denormals()
        results: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            indices = [self._index(number) for number in numbers]
            step = max(1, _EVAL_ELEMENTS // max(1, len(part.inputs) * max(self.net.widths)))
            everyone = indices == list(range(len(self._slots)))
            for start in range(0, len(indices), step):
                some = indices[start : start + step]
                if everyone:  # a plain slice, nothing is copied
                    weights = [w[start : start + len(some)] for w in self.theta]
                else:
                    rows = torch.tensor(some, device=self.data.device)
                    weights = [w.index_select(0, rows) for w in self.theta]
                results.append(models.metric_tensors(self.net, self._logits(weights, part.inputs), part.expected))
            return {name: torch.cat([metrics[name] for metrics in results]) for name in results[0]} if results else {}

    def _logits(self, weights: list[Tensor], inputs: Tensor) -> Tensor:
        h = inputs.expand(len(weights[0]), *inputs.shape)
        for layer, w in enumerate(self._rows_first(weights)):
            name = self.net.hidden[layer] if layer < len(self.net.hidden) else "linear"
            scale = passes.scale_before(name)
            h = torch.baddbmm(w[:, -1:], h, w[:, :-1], beta=scale, alpha=scale)
            passes.activate(name, h, h)
        return h

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:  # noqa: D102
        flush_denormals()
        seconds = dict.fromkeys(until, 0.0)
        with torch.inference_mode():
            while True:
                active = [n for n in until if self._slots[self._index(n)].update < until[n]]
                if not active:
                    break
                self._bring_forward(active)
                k = len(active)
                slots = self._slots[:k]
                count = min(until[slot.config.number] - slot.update for slot in slots)
                start = time.perf_counter()
                self._train(slots, count)
                share = (time.perf_counter() - start) / k
                for number in active:
                    seconds[number] += share
            self._find_infinite(until)
        return seconds

    def _bring_forward(self, active: list[int]) -> None:
        """Reorder the slots so that the active ones come first, in an order that moves as few as can be."""
        chosen = set(active)
        k = len(chosen)
        outside = [i for i, slot in enumerate(self._slots[k:], k) if slot.config.number in chosen]
        inside = [i for i, slot in enumerate(self._slots[:k]) if slot.config.number not in chosen]
        for a, b in zip(inside, outside, strict=True):
            for buffer in (*self.theta, *self.velocity):
                kept = buffer[a].clone()
                buffer[a] = buffer[b]
                buffer[b] = kept
            self._slots[a], self._slots[b] = self._slots[b], self._slots[a]

    def _find_infinite(self, numbers: Mapping[int, int]) -> None:
        k = len(self._slots)
        finite = torch.ones(k, dtype=torch.bool, device=self.data.device)
        for buffer in (*self.theta, *self.velocity):
            finite &= buffer[:k].isfinite().view(k, -1).all(1)
        if not bool(finite.all()):
            for slot, good in zip(self._slots, finite.tolist(), strict=True):
                if not good and slot.diverged_at is None and slot.config.number in numbers:
                    slot.diverged_at = slot.update

    def _train(self, slots: list[_Slot], count: int) -> None:
        while count:
            ends = (constant_until(s.update, s.config.method, s.config.updates) for s in slots)
            steps = [end - s.update for s, end in zip(slots, ends, strict=True) if end is not None]
            span = min(count, _SPAN, *steps)
            self._span(slots, span)
            count -= span

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self.data.device, dtype=self.data.dtype).view(-1, 1, 1)

    def _span(self, slots: list[_Slot], count: int) -> None:
        """Train so many updates under constant mu."""
        k, train = len(slots), self.data.train
        rows = index_tensors(len(train.inputs), self.batch, [(s.config.seed, s.update) for s in slots], count)
        shared = len(rows[0]) == self.batch
        key = (k, shared)
        if key not in self._views:
            self._views[key] = _Views(self, k, shared)
        views = self._views[key]
        mus = [momentum(s.update, s.config.method, s.config.updates) for s in slots]
        mu = self._column(mus)
        ahead = self._column([m if s.config.method.kind == "nag" else 0.0 for m, s in zip(mus, slots, strict=True)])
        factor = -passes.delta_factor(self.net.loss) / self.batch
        scale = self._column([factor * s.config.method.lr for s in slots])
        look = any(s.config.method.kind == "nag" and m for m, s in zip(mus, slots, strict=True))
        point = views.point if look else views.theta
        if look:
            for w, v, p in zip(views.theta, views.velocity, point, strict=True):
                torch.addcmul(w, v, ahead, out=p)  # S13 eq. 3
        back = _back(point, self.narrow)
        for i in range(count):
            self._gather(views, rows[i])
            self._forward(views, point)
            delta = views.delta
            passes.output_delta(self.net.loss, views.z[-1], views.target, delta, 1 if self.narrow else -1)
            torch.sum(views.flat_delta, 1, out=views.sum_of[i])
            delta.mul_(scale)
            self._backward(views, point, back, mu, ahead if look else None)
        finite = views.sums[:count].isfinite()
        if not bool(finite.all()):
            for slot, column in zip(slots, finite.t(), strict=True):
                if slot.diverged_at is None and not bool(column.all()):
                    slot.diverged_at = slot.update + int((~column).to(torch.uint8).argmax())
        for slot in slots:
            slot.update += count

    def _gather(self, views: _Views, rows: Tensor) -> None:
        train = self.data.train
        with_ones = self.data.train_with_ones()
        if with_ones is not None:
            torch.index_select(with_ones, 0, rows, out=views.rows)
        else:
            torch.index_select(train.inputs, 0, rows, out=views.gathered)
            views.inputs.copy_(views.gathered.view_as(views.inputs))
        if views.target_rows is not None:
            torch.index_select(train.targets, 0, rows, out=views.target_rows)

    def _forward(self, views: _Views, point: list[Tensor]) -> None:
        hidden = self.net.hidden
        for layer, w in enumerate(point):
            z = views.z[layer]
            if layer == len(hidden) and self.narrow:
                torch.bmm(w, views.x_t[layer], out=z)
            elif layer == len(hidden):
                torch.bmm(views.x[layer], w, out=z)
            else:
                scale = passes.scale_before(hidden[layer])
                z.baddbmm_(views.x[layer], w, beta=0.0, alpha=scale)
                passes.activate(hidden[layer], z, views.h[layer])

    def _backward(
        self, views: _Views, point: list[Tensor], back: list[Tensor], mu: Tensor, ahead: Tensor | None
    ) -> None:
        """Accumulate the gradient, -lr already in delta, straight into the velocity; each layer while in cache."""
        delta = views.delta.transpose(1, 2) if self.narrow else views.delta
        for layer in range(len(point) - 1, -1, -1):
            below = delta
            if layer:
                below = torch.bmm(delta, back[layer], out=views.z[layer - 1])
                passes.backpropagate(self.net.hidden[layer - 1], below, views.h[layer - 1])
            v, w = views.velocity[layer], views.theta[layer]
            v.mul_(mu)
            if self.narrow and layer == len(point) - 1:
                v.baddbmm_(views.delta, views.x[layer])
            else:
                v.baddbmm_(views.x_t[layer], delta)  # S13 eq. 1, 3
            w.add_(v)  # S13 eq. 2, 4
            if ahead is not None:
                torch.addcmul(w, v, ahead, out=point[layer])
            delta = below
