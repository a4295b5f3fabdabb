"""Addition, multiplication and XOR: two inputs of a sequence are marked; the answer, at its end, is made of them.

As Martens & Sutskever 2011 and S13 section 4 have them (SCIENCE 3), T being the option `length`. A sequence has T'
steps, uniform on T..11T/10. Each step reads a value, uniform on [0, 1] (a random bit for xor), and a marker, 1 at
the steps I and J, else 0. I is uniform on 1..T'/10, J on T'/10+1..T'/2: the printed windows meet at T'/10, where
both could mark one input. So at least T'/2 steps separate the last marker from the answer. The net answers at step
T' of its sequence, which ends in zeros where it is shorter than others.

- add: (u_I + u_J) / 2. S13's text says the sum; the average is the form of the original task, and the published
  error of a net that has learned only its biases, .82, is nearer to the average's .846 than to the sum's .922, the
  tolerance of .04 being the same (SCIENCE 1.5).
- mul: u_I u_J.
- xor: u_I xor u_J, one logistic output.

`centre` subtracts theoretical means (S13 section 4): of the `inputs`, 1/2 from the values and 2 / mean(T') from the
markers, at all steps that are read; of the `outputs`, 1/2 (add) or 1/4 (mul).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from trainers.tasks import Split, Task
from trainers.tasks.options import CENTRES, LENGTHS, Options, described
from trainers.tasks.sequences import task

_MEAN = {"add": 1 / 2, "mul": 1 / 4}
_WORDS = {"add": "addition (average form)", "mul": "multiplication", "xor": "xor"}


def load(name: str, options: Options, _: Path) -> Task:
    """Return `add`, `mul` or `xor`."""
    info = described(name, options)
    length = options.length or LENGTHS[name]
    centre = options.centre or CENTRES[name][0]
    source = f"{_WORDS[name]} of marked inputs, T = {length}, centred: {centre}"
    return task(info, options, partial(make, name, length, centre), source)


def make(name: str, length: int, centre: str, rng: np.random.Generator, count: int) -> Split:
    """Draw sequences: inputs [N, 11T/10, 2] (value, marker), targets [N, 1]."""
    longest = length * 11 // 10
    lengths = rng.integers(length, longest, count, endpoint=True)
    marked = np.stack(
        [
            rng.integers(1, lengths // 10, endpoint=True),  # I
            rng.integers(lengths // 10 + 1, lengths // 2, endpoint=True),  # J
        ],
        axis=1,
    )
    shape = (count, longest)
    values = rng.integers(0, 2, shape).astype(np.float32) if name == "xor" else rng.random(shape, np.float32)
    inputs = np.zeros((*shape, 2), np.float32)
    inputs[:, :, 0] = values
    rows = np.arange(count)[:, None]
    inputs[rows, marked - 1, 1] = 1
    u, w = values[rows, marked - 1].T
    targets = (u + w) / 2 if name == "add" else u * w if name == "mul" else (u != w).astype(np.float32)
    if centre in ("both", "inputs"):
        inputs -= np.array([1 / 2, 2 / ((length + longest) / 2)], np.float32)
    if centre in ("both", "outputs"):
        targets -= np.float32(_MEAN[name])
    inputs[np.arange(longest) >= lengths[:, None]] = 0
    return Split(inputs, targets[:, None], lengths - 1)
