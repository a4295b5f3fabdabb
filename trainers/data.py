"""Which examples an update sees, and the data as tensors that all engines of a process share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.config import SeedConfig
from trainers.tasks import Split, Task

Indices = NDArray[np.int64]


@lru_cache(maxsize=32)
def _epoch_order(n: int, stream: int, epoch: int) -> Indices:
    order = np.random.default_rng([stream, epoch]).permutation(n).astype(np.int64, copy=False)
    order.setflags(write=False)
    return order


@lru_cache(maxsize=256)
def _data_stream(seed: SeedConfig) -> int:
    return seed.stream("data")


def batch_span(n: int, batch: int, seed: SeedConfig, start: int, count: int) -> Indices:
    """Return the examples of `count` updates from update `start` on, [count, B].

    Each epoch is a permutation of the n examples, a function of (stream "data", epoch); its last examples, too few
    for a batch, are left out. Raises ValueError when n < batch.
    """
    if n < batch:
        raise ValueError(f"batch={batch}: more than the {n} training examples")
    per_epoch = n // batch
    rows = np.empty((count, batch), dtype=np.int64)
    done = 0
    while done < count:
        epoch, first = divmod(start + done, per_epoch)
        some = min(per_epoch - first, count - done)
        order = _epoch_order(n, _data_stream(seed), epoch)
        rows[done : done + some] = order[first * batch : (first + some) * batch].reshape(some, batch)
        done += some
    return rows


def batch_indices(n: int, batch: int, seed: SeedConfig, t: int) -> Indices:
    """Return the examples of update `t`, [B]; see `batch_span`."""
    rows: Indices = batch_span(n, batch, seed, t, 1)[0]
    return rows


def index_tensors(n: int, batch: int, starts: Sequence[tuple[SeedConfig, int]], count: int) -> tuple[Tensor, ...]:
    """Return for each of `count` updates the examples of all slots, [S*B]: S is 1 where all slots agree, else K.

    `starts` holds the (seed, update) of each slot. Common random numbers make S = 1 the usual case.
    """
    distinct = dict.fromkeys((_data_stream(seed), update) for seed, update in starts)
    if len(distinct) == 1:
        seed, update = starts[0]
        spans = batch_span(n, batch, seed, update, count)
    else:
        each = [batch_span(n, batch, seed, update, count) for seed, update in starts]
        spans = np.stack(each, axis=1).reshape(count, -1)
    return torch.from_numpy(spans).unbind(0)


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a task as tensors: inputs [N, I], targets [N, O] (one-hot for classes), classes [N] or None.

    An autoencoder's targets are its inputs, the same object.
    """

    inputs: Tensor
    targets: Tensor
    classes: Tensor | None

    def head(self, examples: int) -> Part:
        """Return the first `examples` examples, without copying."""
        inputs = self.inputs[:examples]
        targets = inputs if self.targets is self.inputs else self.targets[:examples]
        return Part(inputs, targets, None if self.classes is None else self.classes[:examples])

    @property
    def expected(self) -> Tensor:
        """What `models.loss` takes as targets: classes where there are classes."""
        return self.targets if self.classes is None else self.classes


def part(split: Split, outputs: int, device: torch.device, dtype: torch.dtype) -> Part:
    """Make tensors of a split; float32 on the CPU shares the (memory-mapped) arrays instead of copying them."""
    inputs = _tensor(split.inputs).to(device, dtype)
    if split.targets is split.inputs:
        return Part(inputs, inputs, None)
    targets = _tensor(split.targets)
    if targets.is_floating_point():
        return Part(inputs, targets.to(device, dtype), None)
    classes = targets.to(device)
    return Part(inputs, torch.nn.functional.one_hot(classes, outputs).to(dtype), classes)


class Data:
    """A task's train and valid parts as tensors of one dtype on one device."""

    def __init__(self, task: Task, device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32") -> None:
        self.device = torch.device(device)
        self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.info = task.info
        self.train = part(task.train, task.info.outputs, self.device, self.dtype)
        self.valid = part(task.valid, task.info.outputs, self.device, self.dtype)
        self._table: Tensor | None = None

    @property
    def table(self) -> Tensor:
        """The train part as one table, [N, I + 1 + O]: inputs, a one to meet the biases, targets if not the inputs.

        A copy, made when first asked for: one look-up then fetches all that an update needs.
        """
        if self._table is None:
            inputs, targets = self.train.inputs, self.train.targets
            columns = [inputs, inputs.new_ones(len(inputs), 1), *([] if targets is inputs else [targets])]
            self._table = torch.cat(columns, 1)
        return self._table


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """Wrap an array without copying it; nothing here writes to the data, read-only arrays are fine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))
