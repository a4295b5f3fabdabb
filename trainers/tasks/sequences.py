"""What the sequence tasks have in common: pools drawn as training goes on, one-hot symbols, the parts to measure on.

A task's module has a function `make(rng, count) -> Split`; all else about it is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.config import TaskInfo
from trainers.tasks import Split, Task
from trainers.tasks.options import Options

Make = Callable[[np.random.Generator, int], Split]

_POOL_BYTES = 2**24
_POOL = (500, 5_000)
_DRAWN, _TRAIN, _VALID, _TEST = range(4)  # what the streams of a task seed are for


def pool_size(info: TaskInfo) -> int:
    """Return how many sequences are drawn at once: hundreds, as many as fit in 16 MiB, from 500 to 5,000."""
    each = 4 * info.steps * (info.inputs + info.outputs * info.every_step)
    return min(max(_POOL_BYTES // each // 100 * 100, _POOL[0]), _POOL[1])


def task(info: TaskInfo, options: Options, make: Make, source: str) -> Task:
    """Make the task of a generator: online, or with so many fixed training sequences when `examples` says so.

    `holdout` is the size of the valid and of the test part; without it they have the size of a pool.
    """

    def part(stream: int, count: int) -> Split:
        return make(np.random.default_rng([options.seed, stream]), count)

    size = pool_size(info)
    held_out = options.holdout or size
    draw = None if options.examples is not None else _Draw(make, options.seed)
    train = part(_TRAIN, options.examples or size)
    source += f", seed {options.seed}, {'drawn as training goes on' if draw else f'{len(train)} training sequences'}"
    return Task(info, train, part(_VALID, held_out), part(_TEST, held_out), source, False, draw=draw)


def one_hot(symbols: NDArray[np.int64], alphabet: int) -> NDArray[np.float32]:
    """[N, T] to [N, T, alphabet]."""
    return np.eye(alphabet, dtype=np.float32)[symbols]


@dataclass(frozen=True)
class _Draw:
    make: Make
    seed: int

    def __call__(self, seed: int, count: int) -> Split:
        return self.make(np.random.default_rng([self.seed, _DRAWN, seed]), count)
