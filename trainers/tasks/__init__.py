"""Tasks: data with a loss and metrics, ready to train on. Importing this room's door needs no numpy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.config import TaskInfo
from trainers.tasks.options import ENTRIES, Options, TaskError, described, entry, info, resolve

if TYPE_CHECKING:
    import numpy as np

    from trainers.tasks.cache import Data

__all__ = ["ENTRIES", "Options", "Split", "Task", "TaskError", "cache_folder", "info", "load", "resolve"]


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a task: float32 inputs [N, I]; targets float32 [N, O] or int64 classes [N].

    Sequences have inputs [N, T, I] and, if there is one answer, the index of its step in `steps`, int64 [N]; those
    shorter than T end in zeros. If every step has one, the targets are classes [N, T], -1 where none is scored.

    The arrays are read-only views of the memory-mapped cache. An autoencoder's targets are its inputs, the
    same object.
    """

    inputs: np.ndarray = field(repr=False)
    targets: np.ndarray = field(repr=False)
    steps: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, eq=False)
class Task:
    """A task's data in three parts.

    `source` says in words where the data came from. `look_alike` is True when they only resemble what the papers
    used: their errors are never set beside published ones as equals. `held_out` is False when the valid part
    was trained on (`holdout: 0`), so that its metrics are no estimate of anything new.

    Online tasks are trained on examples that are drawn as training goes on: `draw(seed, count)` returns so many, a
    function of its arguments alone. Their `train` part is one such pool, to measure on; it has the size of all.
    """

    info: TaskInfo
    train: Split
    valid: Split
    test: Split
    source: str
    look_alike: bool
    held_out: bool = True
    draw: Callable[[int, int], Split] | None = field(default=None, repr=False)


def cache_folder() -> Path:
    """Say where prepared data are kept: $MUSWEEP_CACHE, or ~/.cache/musweep."""
    return Path(os.environ.get("MUSWEEP_CACHE") or "~/.cache/musweep").expanduser()


def load(name: str, options: Mapping[str, Any] | None = None, cache: Path | None = None) -> Task:
    """Load a task by name, preparing its data once per host; later loads only map the cached file.

    `options` are those of `Options`, `cache` overrides `cache_folder()`. Raises TaskError with one line that
    says what is wrong or missing, and where to put it.
    """
    chosen = resolve(name, options or {})
    loader = import_module(f"trainers.tasks.{entry(name).module}").load
    found: Data | Task = loader(name, chosen, cache or cache_folder())
    return found if isinstance(found, Task) else _task(name, chosen, found)


def _task(name: str, options: Options, data: Data) -> Task:
    what = described(name, options)
    train, valid, test = data.counts
    rows = train + valid  # the training rows come first, then valid, then test
    source = data.source
    if not valid:
        usual = entry(name).holdout
        if not 0 < usual < train:
            usual = max(1, train // 10)  # data of the user's own, perhaps few
        valid = usual if options.holdout is None else options.holdout
        if valid >= train:
            raise TaskError(f"task {name}: option holdout={valid}: must leave some of {train} training examples")
        train -= valid
        # holdout: 0 trains on everything; something still has to be measured as valid.
        valid = valid or usual
    if options.examples is not None:
        if options.examples > train:
            raise TaskError(f"task {name}: option examples={options.examples}: there are {train} to train on")
        train = options.examples
    held_out = train <= rows - valid
    if not held_out:
        source += f"; valid repeats the last {valid} training examples (holdout=0)"

    def part(start: int, count: int) -> Split:
        inputs = data.inputs[start : start + count]
        targets = data.classes if data.targets is None else data.targets
        if targets is None or what.kind == "autoencoder":
            return Split(inputs, inputs)
        return Split(inputs, targets[start : start + count])

    train_part, valid_part, test_part = part(0, train), part(rows - valid, valid), part(rows, test)
    return Task(what, train_part, valid_part, test_part, source, data.look_alike, held_out)
