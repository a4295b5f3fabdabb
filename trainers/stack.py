"""The stacked engine: K trials of one net as one computation of batched products.

Weights carry a leading trial axis, activations likewise, and every hyperparameter is one of [K] coefficients. Losses
are summed over trials, so each gradient is what it would be alone, and nothing ever mixes two trials: a slot full of
NaN leaves its neighbours' bits as they are.

This file keeps the slots: trials at rest are rows of one matrix; those in training are packed, layer after layer, each
in a place of its own, where it stays while others come and go. How they lie there is `stack_layout`'s business, an
update `stack_program`'s, that many are made without the host `stack_replay`'s, what a family of methods does with a
gradient `stack_methods`', how a kind of net makes it that of its `stack_passes.Passes`.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers import metrics, passes
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, Part, Pool
from trainers.engine import check_family, check_fits, flush_denormals
from trainers.precision import allowed
from trainers.precision import check as check_precision
from trainers.stack_layout import Layout, Packed, arena_size
from trainers.stack_methods import RULES, Coefficients
from trainers.stack_passes import Buffers
from trainers.stack_program import SPAN, Program, logits
from trainers.stack_replay import Record, Replayed, check, recording
from trainers.stack_source import Source
from trainers.state import Params, TrialState, initial_state, zeros

_EVAL_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Numbers in one layer of an evaluation; on a CPU larger temporary arrays cost page faults."""
_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48)
"""Places there may be for trials where updates are recorded, and these times powers of 2: few, so that a recording
serves again when trials come and go."""


class _TooMany(Exception):
    """There is no memory for so many trials at once; no update has been begun."""


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _TooMany from error


@dataclass
class _Slot:
    config: TrialConfig
    update: int
    diverged_at: int | None
    row: int


class StackedEngine:
    """Trials of one net, batch size and family of methods, trained together; see `trainers.engine.Engine`.

    `precision` is that of products (`trainers.precision`). `record` makes updates the device's business
    (`trainers.stack_replay`), as they are on a GPU if it is left out.
    """

    name = "stacked"

    def __init__(
        self,
        net: NetConfig,
        batch: int,
        data: Data,
        family: str = "momentum",
        precision: str = "float32",
        record: Record | None = None,
    ) -> None:
        check_family(net, family)
        check_precision(precision, net, data.dtype)
        self.precision = precision
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
        self._places: list[int | None] = []
        """Which trial's newest weights are in which place of `_arenas`; None where there is none."""
        self._arenas: list[Tensor] = []
        """What is stored, packed, then room for what is not."""
        self._packs: dict[int, list[Packed]] = {}
        self._buffers = Buffers(self._empty(0), 0)
        self._programs: dict[tuple[int, bool, bool], Program] = {}
        self._record = recording(data.device) if record is None and data.device.type != "cpu" else record
        self._source = Source(data, batch)
        self._replayed: dict[tuple[int, bool, bool], Replayed] = {}
        self._extra = False
        self._most = sys.maxsize
        """Trials that memory has been enough for at once."""

    def _empty(self, *shape: int) -> Tensor:
        with torch.inference_mode(False):  # trials come and go outside of it too
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
        if number in self._places:
            self._vacate([number])
        self._free.append(self._slots.pop(number).row)

    def numbers(self) -> list[int]:  # noqa: D102
        return list(self._slots)

    def update(self, number: int) -> int:  # noqa: D102
        return self._slots[number].update

    def diverged_at(self, number: int) -> int | None:  # noqa: D102
        return self._slots[number].diverged_at

    def state(self, number: int) -> TrialState:  # noqa: D102
        slot = self._slots[number]
        if number in self._places:
            place = self._places.index(number)
            weights = [[w[place : place + 1] for w in packed.layers] for packed in self._stores()]
        else:
            weights = [self._layout.split(numbers) for numbers in self._rest[slot.row].unsqueeze(1)]
        found = {name: self._params(each) for name, each in zip(self._stored, weights, strict=True)}
        velocity = found.get("velocity") or zeros(found["params"])
        return TrialState(slot.update, found["params"], velocity, slot.diverged_at, found.get("second"))

    def _views(self, numbers: Tensor) -> list[Tensor]:
        """View [K, size] as the weights of every layer, [K, rows, O]."""
        return self._layout.rows_first(self._layout.split(numbers))

    def _params(self, weights: Sequence[Tensor]) -> Params:
        """Copy one trial's weights of every layer, [1, ...] as they lie in memory, out."""
        return [
            (w[0, : p.inputs].clone(memory_format=torch.contiguous_format), w[0, p.inputs].clone())
            for p, w in zip(self._layout.places, self._layout.rows_first(weights), strict=True)
        ]

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:  # noqa: D102
        flush_denormals()
        results: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            weights = self._weights(numbers)
            most = _EVAL_ELEMENTS[self.data.device.type]
            step = max(1, most // (len(part.inputs) * max(1, self.net.steps) * max(self.net.widths[1:])))
            for start in range(0, len(numbers), step):
                found = logits(self.net, self._layout, [w[start : start + step] for w in weights], part)
                results.append(metrics.measure(self.data.info, self.net, found, part))
            return {name: torch.cat([each[name] for each in results]) for name in results[0]} if results else {}

    def _weights(self, numbers: list[int]) -> list[Tensor]:
        """Theta of each layer, [len(numbers), ...], copied only where it must be."""
        if set(numbers) <= set(self._places):
            places = [self._places.index(number) for number in numbers]
            layers = self._stores()[0].layers
            if places == list(range(len(places))):
                return [w[: len(places)] for w in layers]
            return [w[self._index(places)] for w in layers]
        self._unpack()
        return self._layout.split(self._rest[:, 0][self._rows(numbers)])

    def _rows(self, numbers: Sequence[int]) -> Tensor:
        return self._index([self._slots[number].row for number in numbers])

    def _index(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.data.device)

    def _stores(self) -> list[Packed]:
        """Return what is stored of the trials in their places."""
        k = len(self._places)
        if k not in self._packs:
            self._packs[k] = [Packed(self._layout, arena, k) for arena in self._arenas[: len(self._stored)]]
        return self._packs[k]

    def _unpack(self, keep: Collection[int] = ()) -> None:
        """Bring what was trained back to rest, but for some trials, which stay in their places."""
        leaving = [number for number in self._places if number is not None and number not in keep]
        if not leaving:
            return
        rows, places = self._rows(leaving), self._index([self._places.index(number) for number in leaving])
        for numbers, packed in zip(self._rest.unbind(1), self._stores(), strict=True):
            for place, w in zip(self._layout.places, packed.layers, strict=True):
                numbers[:, place.start : place.start + place.size][rows] = w[places].reshape(len(leaving), -1)
        self._vacate(leaving)

    def _vacate(self, numbers: Sequence[int]) -> None:
        """Leave zeros in some trials' places: whatever stands there is updated along with the others."""
        places = [self._places.index(number) for number in numbers]
        if len(places) < len(self._places):
            index = self._index(places)
            for packed in self._stores():
                for w in packed.layers:
                    w.index_fill_(0, index, 0.0)
        for place in places:
            self._places[place] = None
        if not any(number is not None for number in self._places):
            self._places = []

    def _pack(self, numbers: list[int]) -> None:
        """Have these trials, and no others, in places; those who have one keep it, if there are as many as before."""
        size = len(numbers) if self._record is None else _size(len(numbers))
        if size != len(self._places):
            self._unpack()
            self._reserve(size)
            self._places = [None] * size
            for packed in self._stores():
                packed.vector.zero_()  # the gaps between layers too: they are updated with the rest
        self._unpack(keep=numbers)
        if not self._places:
            self._places = [None] * size
        coming = [number for number in numbers if number not in self._places]
        if not coming:
            return
        places = [place for place, number in enumerate(self._places) if number is None][: len(coming)]
        rows, index = self._rows(coming), self._index(places)
        for stored, packed in zip(self._rest.unbind(1), self._stores(), strict=True):
            for place, w in zip(self._layout.places, packed.layers, strict=True):
                w[index] = stored[:, place.start : place.start + place.size][rows].view(len(coming), *place.shape)
        for free, number in zip(places, coming, strict=True):
            self._places[free] = number

    def _reserve(self, k: int) -> None:
        """Make buffers for up to k trials in training; nothing may be packed."""
        if k <= self._buffers.capacity:
            return
        if self._record is None:
            k = max(k, min(2 * self._buffers.capacity, len(self._slots)))
        size = arena_size(self._layout, k)
        self._drop()
        self._arenas, self._buffers = [], Buffers(self._empty(0), 0, self.precision)  # first free, then take
        with _enough_memory():
            self._arenas = [self._empty(size) for _ in range(len(self._stored) + RULES[self.family].spare)]
        self._buffers = Buffers(self._empty(0), k, self.precision)

    def _drop(self) -> None:
        """Forget all that was made for the present arenas."""
        for made in (self._packs, self._programs, self._replayed):
            made.clear()

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:  # noqa: D102
        flush_denormals()
        seconds = dict.fromkeys(until, 0.0)
        with torch.inference_mode(), allowed(self.precision, self.data.device):
            while active := [slot for n, slot in self._slots.items() if n in until and slot.update < until[n]]:
                start, enough = time.perf_counter(), True
                together, pool, count = self._same_pool(active)
                together = together[: self._most]
                count = min(count, *(until[slot.config.number] - slot.update for slot in together))
                try:
                    self._pack([slot.config.number for slot in together])
                    self._train(pool, count)
                except _TooMany:
                    enough = False
                if not enough:  # outside of the handler, which holds on to all that was made in vain
                    self._take_turns(len(together))
                share = (time.perf_counter() - start) / len(together)
                for slot in together:
                    seconds[slot.config.number] += share
        return seconds

    def _take_turns(self, trials: int) -> None:
        """After memory for so many trials was not to be had: train half as many at once from now on."""
        self._drop()
        self._buffers = Buffers(self._empty(0), 0, self.precision)
        self._unpack()  # with the memory that is free now
        self._drop()
        self._arenas = []
        if self.data.device.type == "cuda":
            torch.cuda.empty_cache()
        if trials == 1:
            raise torch.OutOfMemoryError(f"{self.data.device}: no memory to train a single trial")
        self._most = trials // 2
        words = f"{self.data.device}: no memory to train {trials} trials at once; {self._most} by turns from now on"
        warnings.warn(words, stacklevel=3)

    def _same_pool(self, slots: list[_Slot]) -> tuple[list[_Slot], Pool, int]:
        """Return the slots whose updates to come are made of the same examples as the first one's, and how many are."""
        pools = [self.data.pool(slot.config.seed, slot.update, self.batch) for slot in slots]
        same = [i for i, pool in enumerate(pools) if pool.key == pools[0].key]
        return [slots[i] for i in same], pools[0], min(pools[i].until - slots[i].update for i in same)

    def _train(self, pool: Pool, count: int) -> None:
        """Make so many updates of all that have places, or as many as there is memory for; _TooMany if for none."""
        found: list[Tensor] = []
        made: list[tuple[Tensor, int]] = []
        held = [self._slots[number] for number in self._places if number is not None]
        # A place without a trial goes along with the first one's numbers.
        slots = [held[0] if number is None else self._slots[number] for number in self._places]
        first = {slot.config.number: slot.update for slot in held}
        for start in range(0, count, SPAN):
            some = min(SPAN, count - start)
            try:
                sums, so_many = self._span(slots, pool, some)
            except _TooMany:
                if not found:
                    raise
                break  # what was made is looked at first; the next call begins with this span
            for slot in held:
                slot.update += some
            found.append(sums)
            made.append((so_many, some))
        for so_many, some in made:  # only now is a device waited for
            check(so_many, some)
        places = {number: place for place, number in enumerate(self._places) if number is not None}
        finite = torch.cat(found).isfinite()
        if not bool(finite.all()):
            # Of all at once: a device is waited for twice, not for every trial.
            whole, worst = finite.all(0).tolist(), (~finite).to(torch.uint8).argmax(0).tolist()
            for slot in held:
                place = places[slot.config.number]
                if slot.diverged_at is None and not whole[place]:
                    slot.diverged_at = first[slot.config.number] + worst[place]
        stores = self._stores()
        if not bool(torch.stack([each.vector.sum() for each in stores]).sum().isfinite()):
            # A sum can overflow where its terms do not: ask each.
            k = len(self._places)
            good = (
                torch.stack([w.reshape(k, -1).isfinite().all(1) for each in stores for w in each.layers])
                .all(0)
                .tolist()
            )
            for slot in held:
                if slot.diverged_at is None and not good[places[slot.config.number]]:
                    slot.diverged_at = slot.update

    def _span(self, slots: Sequence[_Slot], pool: Pool, count: int) -> tuple[Tensor, Tensor]:
        """Make so many updates, SPAN at most; returns the sums of their output deltas, [count, K], and their number."""
        starts = [(slot.config, slot.update) for slot in slots]
        coefficients = Coefficients(
            self.family, starts, count, passes.delta_factor(self.net.loss) / self.batch, self._rest
        )
        seeds = [(slot.config.seed, slot.update) for slot in slots]
        if self._record is None:
            rows = pool.rows(seeds, count)
            program = self._program(pool, len(rows[0]) == self.batch, coefficients.extra)
            return program.run(coefficients, pool.part, rows), torch.tensor(count)
        self._extra |= coefficients.extra  # a program more for trials that need less would be one more to record
        where = self._source.take(pool, seeds, count)
        key = (len(slots), where.shape[1] == 1, self._extra)
        program = self._program(pool, *key[1:])
        if key not in self._replayed:
            with _enough_memory():
                self._replayed[key] = Replayed(program, self._source, self._record)
        return self._replayed[key].run(coefficients, where)

    def _program(self, pool: Pool, shared: bool, extra: bool) -> Program:
        """Return the update of all places, made when first asked for."""
        key = (len(self._places), shared, extra)
        if key not in self._programs:
            with _enough_memory():
                self._programs[key] = Program(
                    self.net, self.batch, self.family, self._layout, self._arenas, self._buffers, pool.part, *key
                )
        return self._programs[key]


def _size(trials: int) -> int:
    """Return how many places there are for so many trials."""
    return next(size << power for power in range(64) for size in _SIZES if size << power >= trials)


def most_in_places(places: int) -> int:
    """Return how many trials have no more than so many places, where updates are recorded."""
    return next(trials for trials in range(places, 0, -1) if _size(trials) <= places)
