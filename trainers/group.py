"""A group's trials, whatever their shapes and methods: one engine for each that can be stacked, stepped in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch

from trainers import diagnostics
from trainers.calibrate import shape_key
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data
from trainers.diagnostics import Diagnostics, Series
from trainers.engine import Engine
from trainers.hf_engine import HFEngine
from trainers.loop import LoopEngine
from trainers.module import ModuleEngine
from trainers.stack import StackedEngine
from trainers.state import TrialState
from trainers.tasks import Task

_ENGINES: Mapping[str, Callable[[NetConfig, int, Data, str], Engine]] = {
    "loop": LoopEngine,
    "stacked": StackedEngine,
    "module": ModuleEngine,
}

_Key = tuple[str, str]
"""Shape key and family of methods."""


def make_engine(name: str, net: NetConfig, batch: int, data: Data, family: str = "momentum") -> Engine:
    """Make an engine by name, for methods of one family; hf has its own, whatever the name.

    Raises ValueError when there is none of that name, or the family cannot train the net.
    """
    if family == "hf":
        return HFEngine(net, batch, data, family)
    if name not in _ENGINES:
        raise ValueError(f"engine {name!r}: one of {', '.join(_ENGINES)}")
    if (name == "module") != bool(net.module):
        raise ValueError(f"engine {name!r}: {net.module or 'this net'} is trained by another")
    return _ENGINES[name](net, batch, data, family)


class Group:
    """The trials of one worker. `engines` names an engine for each shape key, or one for all."""

    def __init__(
        self,
        task: Task,
        engines: Mapping[str, str] | str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        eval_examples: int = 500,
    ) -> None:
        self._data = Data(task, device, dtype)
        self._names = engines
        self._engines: dict[_Key, Engine] = {}
        self._forks: dict[_Key, Engine] = {}
        self._configs: dict[int, TrialConfig] = {}
        self._keys: dict[int, _Key] = {}
        self.measure_on(eval_examples)
        self._seconds = 0.0
        self._updates = 0

    def measure_on(self, examples: int) -> None:
        """Measure on the first so many examples of train and of valid from now on."""
        self._parts = {"train": self._data.train.head(examples), "valid": self._data.valid.head(examples)}

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:
        """Take a trial in, from `state` or from its first update.

        Raises ValueError when its number is taken, no engine was chosen for its shape, or its method cannot train it.
        """
        if config.number in self._configs:
            raise ValueError(f"trial {config.number} is already in this group")
        key = (shape_key(config.net, config.batch), config.method.family)
        self._engine(self._engines, key, config).add(config, state)
        self._configs[config.number] = config
        self._keys[config.number] = key

    def remove(self, number: int) -> None:
        """Forget a trial. Raises KeyError when there is none of that number."""
        self._engines[self._keys.pop(number)].remove(number)
        del self._configs[number]

    def numbers(self) -> list[int]:
        """Return the numbers of the trials, in the order they came."""
        return list(self._configs)

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:
        """Train each named trial to its update; returns wall seconds, shared out to the trials."""
        before = {number: self.update(number) for number in until}
        seconds: dict[int, float] = {}
        for key, numbers in self._by_engine(until).items():
            seconds |= self._engines[key].advance({number: until[number] for number in numbers})
        self._seconds += sum(seconds.values())
        self._updates += sum(max(0, until[number] - update) for number, update in before.items())
        return seconds

    def evaluate(self, numbers: Iterable[int]) -> dict[int, dict[str, float]]:
        """Return the task's objectives of each trial, on the first examples of train and valid (`measure_on`).

        Those of a diverged trial are NaN. What its engine has to say besides (`HFEngine.notes`) comes with them.
        """
        numbers = list(numbers)
        measured = self._evaluate(self._engines, numbers)
        for number in numbers:
            engine = self._engines[self._keys[number]]
            if isinstance(engine, HFEngine):
                measured[number] |= engine.notes(number)
        return measured

    def fork(self, numbers: Iterable[int], updates: int, mu: float) -> dict[int, dict[str, float]]:
        """Return the objectives after `updates` more updates at min(mu_t, mu); the trials stay as they are.

        Methods without momentum simply go on.
        """
        numbers = list(numbers)
        until = {}
        for number in numbers:
            config, state = self._configs[number], self.state(number)
            method = config.method
            caps = {name: min(getattr(method, name), mu) for name in ("mu_max", "mu_first", "tail_mu")}
            capped = replace(method, **caps)
            self._engine(self._forks, self._keys[number], config).add(replace(config, method=capped), state)
            until[number] = state.update + updates
        try:
            for key, some in self._by_engine(until).items():
                self._forks[key].advance({number: until[number] for number in some})
            return self._evaluate(self._forks, numbers)
        finally:
            for number in until:
                self._forks[self._keys[number]].remove(number)

    def diagnose(
        self, numbers: Iterable[int], what: Sequence[str], examples: int, *, exact: bool = False
    ) -> dict[int, Diagnostics]:
        """Measure trials' nets (`diagnostics`) on the first examples of valid, in float64 where `exact`.

        `seconds` among the quantities is each net's share of the time.
        """
        part = self._data.valid.head(examples)
        part = diagnostics.widened(part) if exact else part
        found: dict[int, Diagnostics] = {}
        for some in self._by_engine(numbers).values():
            started = perf_counter()
            nets = [self.state(number).params for number in some]
            found |= zip(some, diagnostics.measure_all(self._configs[some[0]].net, nets, part, what), strict=True)
            seconds = (perf_counter() - started) / len(some)
            for number in some:
                found[number]["seconds"] = Series(0, np.array([[seconds]]))
        return found

    def update(self, number: int) -> int:
        """Return how many updates a trial has behind it."""
        return self._engines[self._keys[number]].update(number)

    def diverged_at(self, number: int) -> int | None:
        """Return the first update of a trial whose output delta was not finite, None while there is none."""
        return self._engines[self._keys[number]].diverged_at(number)

    def state(self, number: int) -> TrialState:
        """Copy a trial's state out."""
        return self._engines[self._keys[number]].state(number)

    def engine(self, number: int) -> str:
        """Return the name of the engine that trains a trial."""
        return self._engines[self._keys[number]].name

    def seconds_per_update(self) -> float:
        """Return the mean seconds of one update of one trial so far, NaN before the first."""
        return self._seconds / self._updates if self._updates else float("nan")

    def _engine(self, engines: dict[_Key, Engine], key: _Key, config: TrialConfig) -> Engine:
        if key not in engines:
            shape, family = key
            engines[key] = make_engine(self._name(shape, family), config.net, config.batch, self._data, family)
        return engines[key]

    def _name(self, shape: str, family: str) -> str:
        if family == "hf" or isinstance(self._names, str):
            return "hf" if family == "hf" else str(self._names)
        if shape not in self._names:
            raise ValueError(f"no engine was chosen for shape {shape}; chosen: {', '.join(self._names)}")
        return self._names[shape]

    def _by_engine(self, numbers: Iterable[int]) -> dict[_Key, list[int]]:
        engines: dict[_Key, list[int]] = {}
        for number in numbers:
            engines.setdefault(self._keys[number], []).append(number)
        return engines

    def _evaluate(self, engines: Mapping[_Key, Engine], numbers: list[int]) -> dict[int, dict[str, float]]:
        results: dict[int, dict[str, float]] = {number: {} for number in numbers}
        for name, part in self._parts.items():
            for key, some in self._by_engine(numbers).items():
                measured = engines[key].evaluate(some, part)
                for metric in self._data.info.metrics:
                    for number, value in zip(some, _floats(measured[metric]), strict=True):
                        # Infinite weights can saturate units, and answer: whatever that scores, it was not learned.
                        diverged = engines[key].diverged_at(number) is not None
                        results[number][f"{name}_{metric}"] = math.nan if diverged else value
        return results


def _floats(values: torch.Tensor) -> list[float]:
    return [float(value) for value in values.tolist()]
