"""Which examples an update sees, and the data as tensors that all engines of a process share."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.config import SeedConfig
from trainers.tasks import Split, Task

Indices = NDArray[np.int64]

_KEPT_BYTES = 2**28  # of drawn pools: as many as fit, since slots may stand at different updates of different seeds


@lru_cache(maxsize=32)
def _epoch_order(n: int, stream: int, epoch: int) -> Indices:
    order = np.random.default_rng([stream, epoch]).permutation(n).astype(np.int64, copy=False)
    order.setflags(write=False)
    return order


@lru_cache(maxsize=256)
def data_stream(seed: SeedConfig) -> int:
    """Return the seed of what decides which examples a trial sees: trials of one stream see the same."""
    return seed.stream("data")


def batch_span(n: int, batch: int, seed: SeedConfig, start: int, count: int) -> Indices:
    """Return the examples of `count` updates from update `start` on, [count, B].

    Each epoch is a permutation of the n examples, a function of (stream "data", epoch); its last examples, too few
    for a batch, are left out. Raises ValueError when n < batch.
    """
    per_epoch = _batches(n, batch)
    rows = np.empty((count, batch), dtype=np.int64)
    done = 0
    while done < count:
        epoch, first = divmod(start + done, per_epoch)
        some = min(per_epoch - first, count - done)
        order = _epoch_order(n, data_stream(seed), epoch)
        rows[done : done + some] = order[first * batch : (first + some) * batch].reshape(some, batch)
        done += some
    return rows


def batch_indices(n: int, batch: int, seed: SeedConfig, t: int) -> Indices:
    """Return the examples of update `t`, [B]; see `batch_span`."""
    rows: Indices = batch_span(n, batch, seed, t, 1)[0]
    return rows


def _batches(n: int, batch: int) -> int:
    if n < batch:
        raise ValueError(f"batch={batch}: more than the {n} training examples")
    return n // batch


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a task as tensors: inputs [N, I], targets [N, O] (one-hot for classes), classes [N] or None.

    An autoencoder's targets are its inputs, the same object. Sequences have inputs [N, T, I], with zeros after the
    end of the shorter ones, and `steps` [N], the index of the step that answers, or, where every step has an
    answer, targets [N, T, O] and classes [N, T], all 0 and -1 where a step is not scored.
    """

    inputs: Tensor
    targets: Tensor
    classes: Tensor | None
    steps: Tensor | None = None

    def head(self, examples: int) -> Part:
        """Return the first `examples` examples, without copying."""
        inputs = self.inputs[:examples]
        targets = inputs if self.targets is self.inputs else self.targets[:examples]
        classes, steps = (None if each is None else each[:examples] for each in (self.classes, self.steps))
        return Part(inputs, targets, classes, steps)

    def arguments(self, rows: Tensor | slice = slice(None)) -> tuple[Tensor, ...]:
        """Return what a net's forward pass takes, of these examples: the inputs, and the steps if there are any."""
        return (self.inputs[rows],) if self.steps is None else (self.inputs[rows], self.steps[rows])

    @property
    def expected(self) -> Tensor:
        """What `models.loss` takes as targets: classes where there are classes."""
        return self.targets if self.classes is None else self.classes

    @cached_property
    def table(self) -> Tensor:
        """All in one table, [N, I + 1 + O]: inputs, a one to meet the biases, targets if not the inputs.

        Of sequences the inputs, and the targets of every step, lie flat, step after step. A copy, made when first
        asked for: one look-up then fetches all that an update needs.
        """
        inputs, targets = self.inputs, self.targets
        columns = [inputs.flatten(1), inputs.new_ones(len(inputs), 1)]
        return torch.cat(columns if targets is inputs else [*columns, targets.flatten(1)], 1)


def part(split: Split, outputs: int, device: torch.device, dtype: torch.dtype) -> Part:
    """Make tensors of a split; float32 on the CPU shares the (memory-mapped) arrays instead of copying them."""
    inputs = _tensor(split.inputs).to(device, dtype)
    if split.targets is split.inputs:
        return Part(inputs, inputs, None)
    steps = None if split.steps is None else _tensor(split.steps).to(device)
    targets = _tensor(split.targets)
    if targets.is_floating_point():
        return Part(inputs, targets.to(device, dtype), None, steps)
    classes = targets.to(device)
    return Part(inputs, _one_hot(classes, outputs, dtype), classes, steps)


def _one_hot(classes: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    """[...] to [..., O], all 0 where the class is -1."""
    scored = classes >= 0
    one_hot = torch.zeros(*classes.shape, outputs, dtype=dtype, device=classes.device)
    return one_hot.scatter_(-1, classes.clamp(min=0).unsqueeze(-1), scored.to(dtype).unsqueeze(-1))


@dataclass(frozen=True, eq=False)
class Pool:
    """The examples that the updates of a data stream up to `until` (exclusive) are made of.

    Slots may share one look-up only if their pools' keys are equal. A finite task has one pool for all updates of
    all trials. An online task has one after another for each data stream, whose examples come in the order drawn.
    """

    part: Part
    batch: int
    key: Hashable = ()
    start: int | None = None
    until: int = sys.maxsize

    def rows(self, starts: Sequence[tuple[SeedConfig, int]], count: int) -> tuple[Tensor, ...]:
        """Return for each of `count` updates the examples of all slots, [S*B]: S is 1 where all slots agree, else K.

        `starts` holds the (seed, update) of each slot; all must be at an update of this pool, to the last.
        Common random numbers make S = 1 the usual case.
        """
        distinct = dict.fromkeys((data_stream(seed), update) for seed, update in starts)
        if len(distinct) == 1:
            spans = self._span(*starts[0], count)
        else:
            each = [self._span(seed, update, count) for seed, update in starts]
            spans = np.stack(each, axis=1).reshape(count, -1)
        return torch.from_numpy(spans).to(self.part.inputs.device).unbind(0)

    def places(self, updates: Indices) -> tuple[Indices, Indices]:
        """Return the epochs of updates and which of an epoch's batches they see; a drawn pool is one epoch."""
        epochs, batches = np.divmod(updates - (self.start or 0), _batches(len(self.part.inputs), self.batch))
        return epochs, batches

    def order_key(self, seed: SeedConfig, epoch: int) -> Hashable:
        """Return what epochs of the same order have in common."""
        return (data_stream(seed), epoch) if self.start is None else ()

    def order(self, seed: SeedConfig, epoch: int) -> Indices:
        """Return the examples in the order of an epoch, [N]; its batches are its pieces (`batch_span`)."""
        n = len(self.part.inputs)
        return _epoch_order(n, data_stream(seed), epoch) if self.start is None else np.arange(n, dtype=np.int64)

    def _span(self, seed: SeedConfig, update: int, count: int) -> Indices:
        if self.start is None:
            return batch_span(len(self.part.inputs), self.batch, seed, update, count)
        assert self.start <= update <= self.until - count, (self.start, update, self.until, count)
        first = (update - self.start) * self.batch
        return np.arange(first, first + count * self.batch, dtype=np.int64).reshape(count, self.batch)


class Data:
    """A task's train and valid parts, and what updates are made of, as tensors of one dtype on one device."""

    def __init__(self, task: Task, device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32") -> None:
        self.device = torch.device(device)
        self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.info = task.info
        self.train = self._part(task.train)
        self.valid = self._part(task.valid)
        self._draw = task.draw
        self._pools: OrderedDict[tuple[int, int], Part] = OrderedDict()  # the least recently used first

    def pool(self, seed: SeedConfig, update: int, batch: int) -> Pool:
        """Return the examples of an update of a trial with this seed, and of those that follow.

        An online task's pool is a function of (task, data stream, its number), so it is the same in any group, engine
        or restart; the batch size only says how many updates it lasts, its last examples, too few for a batch, being
        left out. Raises ValueError when the batch is larger than a pool.
        """
        if self._draw is None:
            return Pool(self.train, batch)
        each = _batches(len(self.train.inputs), batch)
        number = update // each
        key = (data_stream(seed), number)
        return Pool(self._drawn(key), batch, key, number * each, (number + 1) * each)

    def _drawn(self, key: tuple[int, int]) -> Part:
        assert self._draw is not None
        if key not in self._pools:
            with torch.inference_mode(False):  # an engine's pool is one that autograd may use as well
                self._pools[key] = self._part(self._draw(pool_seed(*key), len(self.train.inputs)))
            size = 2 * sum(t.nbytes for t in (self.train.inputs, self.train.targets))  # the table is a copy
            while len(self._pools) > max(2, _KEPT_BYTES // size):
                self._pools.popitem(last=False)
        self._pools.move_to_end(key)
        return self._pools[key]

    def _part(self, split: Split) -> Part:
        return part(split, self.info.outputs, self.device, self.dtype)


def pool_seed(stream: int, number: int) -> int:
    """Return the 63-bit seed of pool `number` of a data stream."""
    return int.from_bytes(hashlib.blake2b(f"{stream}/{number}".encode(), digest_size=8).digest(), "big") >> 1


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """Wrap an array without copying it; nothing here writes to the data, read-only arrays are fine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))
