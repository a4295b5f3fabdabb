"""Which examples updates see, prepared on the device for many updates of many slots, at addresses that stay.

A recording of updates (`trainers.stack_replay`) reads the same memory each time. So the examples lie in one table, the
orders in which epochs go through them in another, and an update is told by one number a slot where in the orders its
batch begins: slots of different seeds, and at different updates, are the same to it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from trainers.config import SeedConfig
from trainers.data import Data, Pool, data_stream

_LEAST = 8  # orders that there is room for


class Source:
    """Examples and their orders, of one task and batch size."""

    def __init__(self, data: Data, batch: int) -> None:
        self._batch = batch
        self._device = data.device
        self.generation = 0
        """Grows whenever one of the tensors below is another one."""
        self.table = data.train.inputs.new_empty(0)
        """`trainers.data.Part.table` of the present pool."""
        self.steps: Tensor | None = None
        """`trainers.data.Part.steps` of it."""
        self.orders = torch.empty(0, dtype=torch.int64, device=self._device)
        """One order of the examples after another."""
        self._key: Hashable = None
        self._places: dict[Hashable, int] = {}
        """Which of them is where, in the order they came."""

    def take(self, pool: Pool, starts: Sequence[tuple[SeedConfig, int]], count: int) -> Tensor:
        """Return where in `orders` the batches of `count` updates begin, int64 [count, S].

        `starts` holds the (seed, update) of each slot; all must be at an update of this pool, to the last. S is 1 where
        all slots agree, else one for each.
        """
        self._hold(pool)
        distinct = dict.fromkeys((data_stream(seed), update) for seed, update in starts)
        streams = starts[:1] if len(distinct) == 1 else starts
        updates = np.array([[update for _, update in streams]]) + np.arange(count)[:, None]
        epochs, positions = pool.places(updates)
        epochs_of = [
            range(first, last + 1) for first, last in zip(epochs[0].tolist(), epochs[-1].tolist(), strict=True)
        ]
        keys = [
            [pool.order_key(seed, epoch) for epoch in some] for (seed, _), some in zip(streams, epochs_of, strict=True)
        ]
        orders = {key: (seed, e) for (seed, _), es, ks in zip(streams, epochs_of, keys, strict=True)
                  for e, key in zip(es, ks, strict=True)}  # fmt: skip
        self._have(pool, orders)
        examples = len(self.table)
        for slot, (some, of_slot) in enumerate(zip(epochs_of, keys, strict=True)):
            base = np.array([self._places[key] * examples for key in of_slot])
            positions[:, slot] = positions[:, slot] * self._batch + base[epochs[:, slot] - some.start]
        return torch.from_numpy(positions)

    def _hold(self, pool: Pool) -> None:
        """Have a pool's examples in `table` and `steps`."""
        if pool.key == self._key:
            return
        part = pool.part
        if pool.start is None or part.table.shape != self.table.shape:
            # Those of a finite task stay where they are; of the pools of an online one, the first makes room for all.
            own = pool.start is not None
            self.table = part.table.clone() if own else part.table
            self.steps = part.steps.clone() if own and part.steps is not None else part.steps
            self.orders, self._places = self.orders.new_empty(0), {}
            self.generation += 1
        else:
            self.table.copy_(part.table)
            if self.steps is not None and part.steps is not None:
                self.steps.copy_(part.steps)
        self._key = pool.key

    def _have(self, pool: Pool, wanted: dict[Hashable, tuple[SeedConfig, int]]) -> None:
        """Have these orders in `orders`; others may have to go."""
        missing = [key for key in wanted if key not in self._places]
        if not missing:
            return
        examples = len(self.table)
        room = len(self.orders) // examples
        if len(wanted) > room:
            more = max(_LEAST, 2 * len(wanted))
            grown = self.orders.new_empty(more * examples)
            grown[: len(self.orders)] = self.orders
            self.orders, room = grown, more
            self.generation += 1
        free = self._free(room, wanted)
        for key in missing:
            place = next(free)
            order = torch.tensor(pool.order(*wanted[key]))
            self.orders[place * examples : (place + 1) * examples] = order
            self._places[key] = place

    def _free(self, room: int, kept: Iterable[Hashable]) -> Iterator[int]:
        """Yield places that hold nothing, then those of the oldest orders that are not among `kept`."""
        taken, kept = set(self._places.values()), set(kept)
        yield from (place for place in range(room) if place not in taken)
        for key in [key for key in self._places if key not in kept]:
            yield self._places.pop(key)
