"""Memorisation: a few symbols are shown, then blanks; on a trigger they are to be said again, in order.

As Martens & Sutskever 2011 and S13 section 4 have them (SCIENCE 3): `mem-5` shows 5 symbols of 2 values, `mem-20` 10
symbols of 5 values (23 bits). After the k symbols come T blanks, the last of which is the trigger, then k more blanks
while the symbols are said: T + 2k steps, T being the option `length`. (In the authors' released code T is the whole
length; S13 does not say which it means, so its T = 200 and 80 may be these tasks at `length` 190 and 60.) At every
step there is a softmax over the values and, last, the blank, which is the target at all but the last k steps; the
inputs have a symbol for the trigger in addition.

A net that has learned only its biases answers with blanks: 5 and 10 wrong symbols a sequence; without the blank among
its answers, 2.5 and 8, which are what S13 prints.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from trainers.tasks import Split, Task
from trainers.tasks.options import LENGTHS, Options, described
from trainers.tasks.sequences import one_hot, task


def load(name: str, options: Options, _: Path) -> Task:
    """Return `mem-5` or `mem-20`."""
    info = described(name, options)
    length = options.length or LENGTHS[name]
    values = info.outputs - 1
    source = f"memorisation of {info.recall} symbols of {values} values, T = {length} blanks"
    return task(info, options, partial(make, info.recall, values, length), source)


def make(symbols: int, values: int, length: int, rng: np.random.Generator, count: int) -> Split:
    """Draw sequences: inputs [N, T + 2k, values + 2] (values, blank, trigger), classes [N, T + 2k]."""
    blank, trigger = values, values + 1
    shown = rng.integers(0, values, (count, symbols))
    read = np.full((count, length + 2 * symbols), blank)
    read[:, :symbols] = shown
    read[:, symbols + length - 1] = trigger
    said = np.full_like(read, blank)
    said[:, -symbols:] = shown
    return Split(one_hot(read, values + 2), said)
