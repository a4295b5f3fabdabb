"""Temporal order, 2 and 3 symbols, and random permutation: classes that depend on symbols read long ago.

As Martens & Sutskever 2011 have them (SCIENCE 3), T being the option `length`:

- `order`: T symbols, of which four are distractors and two, X and Y, are special. One special symbol comes at a step
  uniform on T/10..2T/10, another on 5T/10..6T/10. After the last step the net says which came in which order, one of
  4 classes: XX, XY, YX, YY. `order-3bit` has three, in T/10..2T/10, 3T/10..4T/10 and 6T/10..7T/10, and 8 classes.
- `permutation`: T of 100 symbols, the last the same as the first, which is one of the first two; those between are
  drawn from the other 98. At every step, T - 1 of them, the net predicts the next symbol. All but the last prediction
  can only be learned to be uniform: the error counts the last one alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from trainers.tasks import Split, Task
from trainers.tasks.options import LENGTHS, Options, described
from trainers.tasks.sequences import one_hot, task

_DISTRACTORS = 4
_SPECIAL = 2
_WINDOWS = {"order": ((1, 2), (5, 6)), "order-3bit": ((1, 2), (3, 4), (6, 7))}  # in tenths of T
_SYMBOLS = 100
_ENDS = 2


def load(name: str, options: Options, _: Path) -> Task:
    """Return `order`, `order-3bit` or `permutation`."""
    info = described(name, options)
    length = options.length or LENGTHS[name]
    if name == "permutation":
        return task(info, options, partial(make_permutation, length), f"random permutation, T = {length}")
    make = partial(make_order, _WINDOWS[name], length)
    return task(info, options, make, f"temporal order of {len(_WINDOWS[name])} symbols, T = {length}")


def make_order(windows: tuple[tuple[int, int], ...], length: int, rng: np.random.Generator, count: int) -> Split:
    """Draw sequences: inputs [N, T, 6] (four distractors, X, Y), classes [N]: X 0, Y 1, the first the highest bit."""
    symbols = rng.integers(0, _DISTRACTORS, (count, length))
    special = rng.integers(0, _SPECIAL, (count, len(windows)))
    classes = np.zeros(count, np.int64)
    for i, (low, high) in enumerate(windows):
        steps = rng.integers(low * length // 10, high * length // 10, count, endpoint=True)
        symbols[np.arange(count), steps - 1] = _DISTRACTORS + special[:, i]
        classes = _SPECIAL * classes + special[:, i]
    return Split(one_hot(symbols, _DISTRACTORS + _SPECIAL), classes, np.full(count, length - 1))


def make_permutation(length: int, rng: np.random.Generator, count: int) -> Split:
    """Draw sequences: inputs [N, T - 1, 100], classes [N, T - 1], the symbol that comes next."""
    symbols = rng.integers(_ENDS, _SYMBOLS, (count, length))
    symbols[:, 0] = rng.integers(0, _ENDS, count)
    symbols[:, -1] = symbols[:, 0]
    return Split(one_hot(symbols[:, :-1], _SYMBOLS), symbols[:, 1:].copy())
