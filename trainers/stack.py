"""The stacked engine: K trials of one net as one computation of batched products.

Weights carry a leading trial axis, activations likewise, and every hyperparameter is one of [K] coefficients. Losses
are summed over trials, so each gradient is what it would be alone, and nothing ever mixes two trials: a slot full of
NaN leaves its neighbours' bits as they are.

This file keeps the slots: trials at rest are rows of one matrix; those in training are packed, layer after layer, for
exactly as many as train. How they lie there is `stack_layout`'s business, an update `stack_program`'s, what a family
of methods does with a gradient `stack_methods`', how a kind of net makes it that of its `stack_passes.Passes`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import metrics, passes
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, Part, Pool
from trainers.engine import check_family, check_fits, flush_denormals
from trainers.stack_layout import Layout, Packed, arena_size
from trainers.stack_methods import RULES, Coefficients
from trainers.stack_passes import Buffers
from trainers.stack_program import SPAN, Program, logits
from trainers.state import Params, TrialState, initial_state, zeros

_EVAL_ELEMENTS = 1 << 20  # numbers in one layer of an evaluation: larger temporary arrays cost page faults


@dataclass
class _Slot:
    config: TrialConfig
    update: int
    diverged_at: int | None
    row: int


class StackedEngine:
    """Trials of one net, batch size and family of methods, trained together; see `trainers.engine.Engine`."""

    name = "stacked"

    def __init__(self, net: NetConfig, batch: int, data: Data, family: str = "momentum") -> None:
        check_family(net, family)
        self.net = net
        self.batch = batch
        self.data = data
        self.family = family
        self._layout = Layout(net, batch)
        self._stored = RULES[family].stored
        self._slots: dict[int, _Slot] = {}
        self._rest = self._empty(0, len(self._stored), self._layout.size)
        """Trials at rest, [rows, what is stored, size]."""
        self._free: list[int] = []
        self._packed: list[int] = []
        """Numbers of the trials whose newest weights are in `_arenas`, in order."""
        self._programs: dict[tuple[int, bool, bool], Program] = {}
        self._arenas: list[Tensor] = []
        """What is stored, packed, then room for what is not."""
        self._buffers = Buffers(self._empty(0), 0)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.data.device, dtype=self.data.dtype)

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:  # noqa: D102 - on the protocol
        check_fits(config, self.net, self.batch, self._slots, self.family)
        state = initial_state(config, self.data.dtype, self.data.device, self.data) if state is None else state
        if not self._free:
            rows = len(self._rest)
            more = max(4, rows // 2)
            self._rest = torch.cat([self._rest, self._empty(more, *self._rest.shape[1:])])
            self._free = list(range(rows + more - 1, rows - 1, -1))
        row = self._free.pop()
        for name, numbers in zip(self._stored, self._rest[row].unsqueeze(1), strict=True):
            params = getattr(state, name)
            numbers.zero_()  # rows that pad
            for w, (weights, biases) in zip(self._views(numbers), params or zeros(state.params), strict=True):
                w[0, : len(weights)] = weights
                w[0, len(weights)] = biases
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
        found = {
            name: self._params(numbers)
            for name, numbers in zip(self._stored, self._rest[slot.row].unsqueeze(1), strict=True)
        }
        velocity = found.get("velocity") or zeros(found["params"])
        return TrialState(slot.update, found["params"], velocity, slot.diverged_at, found.get("second"))

    def _views(self, numbers: Tensor) -> list[Tensor]:
        """View [K, size] as the weights of every layer, [K, rows, O]."""
        return self._layout.rows_first(self._layout.split(numbers))

    def _params(self, numbers: Tensor) -> Params:
        """Copy one trial's [1, size] out."""
        return [
            (w[0, : p.inputs].clone(memory_format=torch.contiguous_format), w[0, p.inputs].clone())
            for p, w in zip(self._layout.places, self._views(numbers), strict=True)
        ]

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:  # noqa: D102
        flush_denormals()
        results: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            weights = self._weights(numbers)
            step = max(1, _EVAL_ELEMENTS // (len(part.inputs) * max(1, self.net.steps) * max(self.net.widths[1:])))
            for start in range(0, len(numbers), step):
                found = logits(self.net, self._layout, [w[start : start + step] for w in weights], part)
                results.append(metrics.measure(self.data.info, self.net, found, part))
            return {name: torch.cat([each[name] for each in results]) for name in results[0]} if results else {}

    def _weights(self, numbers: list[int]) -> list[Tensor]:
        """Theta of each layer, [len(numbers), ...], copied only where it must be."""
        if set(numbers) <= set(self._packed):
            layers = Packed(self._layout, self._arenas[0], len(self._packed)).layers
            if numbers == self._packed:
                return layers
            places = torch.tensor([self._packed.index(number) for number in numbers], device=self.data.device)
            return [w[places] for w in layers]
        self._unpack()
        return self._layout.split(self._rest[:, 0][self._rows(numbers)])

    def _rows(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([self._slots[number].row for number in numbers], device=self.data.device)

    def _unpack(self) -> None:
        """Bring what was trained back to rest."""
        if self._packed:
            rows, k = self._rows(self._packed), len(self._packed)
            for numbers, arena in zip(self._rest.unbind(1), self._arenas, strict=False):
                for place, w in zip(self._layout.places, Packed(self._layout, arena, k).layers, strict=True):
                    numbers[:, place.start : place.start + place.size][rows] = w.reshape(k, -1)
            self._packed = []

    def _pack(self, numbers: list[int]) -> None:
        """Bring trials from rest to where they are trained."""
        if numbers == self._packed:
            return
        self._unpack()
        self._reserve(len(numbers))
        rows = self._rows(numbers)
        for stored, arena in zip(self._rest.unbind(1), self._arenas, strict=False):
            packed = Packed(self._layout, arena, len(numbers))
            packed.vector.zero_()  # the gaps between layers too: they are updated with the rest
            for place, w in zip(self._layout.places, packed.layers, strict=True):
                w.copy_(stored[:, place.start : place.start + place.size][rows].view_as(w))
        self._packed = numbers

    def _reserve(self, k: int) -> None:
        """Make buffers for up to k trials in training; nothing may be packed."""
        if k <= self._buffers.capacity:
            return
        k = max(k, min(2 * self._buffers.capacity, len(self._slots)))
        size = arena_size(self._layout, k)
        self._programs.clear()
        self._arenas = [self._empty(size) for _ in range(len(self._stored) + RULES[self.family].spare)]
        self._buffers = Buffers(self._empty(0), k)

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:  # noqa: D102
        flush_denormals()
        seconds = dict.fromkeys(until, 0.0)
        with torch.inference_mode():
            while active := [slot for n, slot in self._slots.items() if n in until and slot.update < until[n]]:
                start = time.perf_counter()
                together, pool, count = self._same_pool(active)
                count = min(count, *(until[slot.config.number] - slot.update for slot in together))
                self._pack([slot.config.number for slot in together])
                self._train(together, pool, count)
                share = (time.perf_counter() - start) / len(together)
                for slot in together:
                    seconds[slot.config.number] += share
        return seconds

    def _same_pool(self, slots: list[_Slot]) -> tuple[list[_Slot], Pool, int]:
        """Return the slots whose updates to come are made of the same examples as the first one's, and how many are."""
        pools = [self.data.pool(slot.config.seed, slot.update, self.batch) for slot in slots]
        same = [i for i, pool in enumerate(pools) if pool.key == pools[0].key]
        return [slots[i] for i in same], pools[0], min(pools[i].until - slots[i].update for i in same)

    def _train(self, slots: list[_Slot], pool: Pool, count: int) -> None:
        while count:
            some = min(count, SPAN)
            self._span(slots, pool, some)
            count -= some
        k = len(slots)
        packed = [Packed(self._layout, arena, k) for arena in self._arenas[: len(self._stored)]]
        if not bool(torch.stack([each.vector.sum() for each in packed]).sum().isfinite()):
            # A sum can overflow where its terms do not: ask each.
            finite = torch.stack([w.reshape(k, -1).isfinite().all(1) for each in packed for w in each.layers])
            for slot, good in zip(slots, finite.all(0).tolist(), strict=True):
                if not good and slot.diverged_at is None:
                    slot.diverged_at = slot.update

    def _span(self, slots: list[_Slot], pool: Pool, count: int) -> None:
        """Make so many updates, SPAN at most."""
        rows = pool.rows([(slot.config.seed, slot.update) for slot in slots], count)
        factor = passes.delta_factor(self.net.loss) / self.batch
        starts = [(slot.config, slot.update) for slot in slots]
        coefficients = Coefficients(self.family, starts, count, factor, self._rest)
        shared = len(rows[0]) == self.batch
        key = (len(slots), shared, coefficients.extra)
        if key not in self._programs:
            self._programs[key] = Program(
                self.net, self.batch, self.family, self._layout, self._arenas, self._buffers, pool.part, *key
            )
        finite = self._programs[key].run(coefficients, pool.part, rows).isfinite()
        if not bool(finite.all()):
            for slot, column in zip(slots, finite.t(), strict=True):
                if slot.diverged_at is None and not bool(column.all()):
                    slot.diverged_at = slot.update + int((~column).to(torch.uint8).argmax())
        for slot in slots:
            slot.update += count
