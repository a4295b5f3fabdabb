"""Tasks: data with a loss and metrics, ready to train on. Importing this room's door needs no numpy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.config import TASKS, TaskInfo
from trainers.tasks.options import Options, TaskError, resolve

if TYPE_CHECKING:
    import numpy as np

    from trainers.tasks.cache import Data

__all__ = ["Options", "Split", "Task", "TaskError", "cache_folder", "load", "resolve"]

# What becomes the valid part when the data bring none and the spec does not say. GB10 split MNIST into
# 50,000 / 10,000 / 10,000. An autoencoder keeps more to train on; `holdout: 0` is the papers' protocol.
_HOLDOUT = {"curves": 2_000, "mnist-ae": 5_000, "mnist": 10_000}


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a task: float32 inputs [N, I]; targets float32 [N, O] or int64 classes [N].

    The arrays are read-only views of the memory-mapped cache. An autoencoder's targets are its inputs, the
    same object.
    """

    inputs: np.ndarray = field(repr=False)
    targets: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class Task:
    """A task's data in three parts.

    `source` says in words where the data came from. `look_alike` is True when they only resemble what the papers
    used: their errors are never set beside published ones as equals. `held_out` is False when the valid part
    was trained on (`holdout: 0`), so that its metrics are no estimate of anything new.
    """

    info: TaskInfo
    train: Split
    valid: Split
    test: Split
    source: str
    look_alike: bool
    held_out: bool = True


def cache_folder() -> Path:
    """Say where prepared data are kept: $MUSWEEP_CACHE, or ~/.cache/musweep."""
    return Path(os.environ.get("MUSWEEP_CACHE") or "~/.cache/musweep").expanduser()


def load(name: str, options: Mapping[str, Any] | None = None, cache: Path | None = None) -> Task:
    """Load a task by name, preparing its data once per host; later loads only map the cached file.

    `options` are those of `Options`, `cache` overrides `cache_folder()`. Raises TaskError with one line that
    says what is wrong or missing, and where to put it.
    """
    chosen = resolve(name, options or {})
    return _task(name, chosen, _data(name, chosen, cache or cache_folder()))


def _data(name: str, options: Options, cache: Path) -> Data:
    if name == "curves":
        from trainers.tasks import curves

        return curves.from_file(Path(options.file), cache) if options.file else curves.generated(options.seed, cache)
    if name == "digits":
        from trainers.tasks import digits

        return digits.load(options.seed, cache)
    from trainers.tasks import mnist

    return mnist.load(Path(options.file) if options.file else None, cache)


def _task(name: str, options: Options, data: Data) -> Task:
    info = TASKS[name]
    train, valid, test = data.counts
    rows = train + valid  # the training rows come first, then valid, then test
    source = data.source
    if not valid:
        valid = _HOLDOUT[name] if options.holdout is None else options.holdout
        if options.holdout is None and valid >= train:
            valid = max(1, train // 10)  # a small file of the user's own
        if valid >= train:
            raise TaskError(f"task {name}: option holdout={valid}: must leave some of {train} training examples")
        train -= valid
        # holdout: 0 trains on everything; something still has to be measured as valid.
        valid = valid or min(_HOLDOUT[name], train)
    if options.examples is not None:
        if options.examples > train:
            raise TaskError(f"task {name}: option examples={options.examples}: there are {train} to train on")
        train = options.examples
    held_out = train <= rows - valid
    if not held_out:
        source += f"; valid repeats the last {valid} training examples (holdout=0)"

    def part(start: int, count: int) -> Split:
        inputs = data.inputs[start : start + count]
        if data.classes is None or info.kind == "autoencoder":
            return Split(inputs, inputs)
        return Split(inputs, data.classes[start : start + count])

    train_part, valid_part, test_part = part(0, train), part(rows - valid, valid), part(rows, test)
    return Task(info, train_part, valid_part, test_part, source, data.look_alike, held_out)
