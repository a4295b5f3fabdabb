"""A group's trials, whatever their shapes and methods: one engine for each that can be stacked, stepped in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch

from trainers import diagnostics
from trainers.calibrate import shape_key
from trainers.config import MethodConfig, NetConfig, TrialConfig
from trainers.data import Data
from trainers.diagnostics import Diagnostics, Series
from trainers.engine import Engine
from trainers.hf_engine import HFEngine
from trainers.loop import LoopEngine
from trainers.module import ModuleEngine
from trainers.stack import StackedEngine
from trainers.state import TrialState
from trainers.tasks import Task
from trainers.twins import alike_until, arithmetic, can_share, digest

_ENGINES: Mapping[str, Callable[[NetConfig, int, Data, str], Engine]] = {
    "loop": LoopEngine,
    "stacked": StackedEngine,
    "module": ModuleEngine,
}

_Key = tuple[str, str]
"""Shape key and family of methods."""


def make_engine(
    name: str, net: NetConfig, batch: int, data: Data, family: str = "momentum", precision: str = "float32"
) -> Engine:
    """Make an engine by name, for methods of one family; hf has its own, whatever the name, and float32.

    Raises ValueError when there is none of that name, or it cannot train the net by the family or at the precision.
    """
    if family == "hf":
        return HFEngine(net, batch, data, family)
    if name not in _ENGINES:
        raise ValueError(f"engine {name!r}: one of {', '.join(_ENGINES)}")
    if (name == "module") != bool(net.module):
        raise ValueError(f"engine {name!r}: {net.module or 'this net'} is trained by another")
    if name == "stacked":
        return StackedEngine(net, batch, data, family, precision)
    if precision != "float32":
        raise ValueError(f"precision {precision}: engine {name} has float32 only; stacked has others")
    return _ENGINES[name](net, batch, data, family)


@dataclass
class _Twins:
    """Trials that are one and the same from `update` to `end`; the first is the one that is trained."""

    numbers: list[int]
    update: int
    end: int = 0


class _Ensemble:
    """Trials and the engines that train them, each made when it is first needed.

    Trials with one past are equal to the last bit where they stand at the same update; as long as their updates to
    come are alike, too (`twins`), only one of them is trained, and the others take over its state where they part or
    stop. A state from outside, a checkpoint's for instance, is a past as well, known by its digest.
    """

    def __init__(self, make: Callable[[_Key, TrialConfig], Engine]) -> None:
        self._make = make
        self._keys: dict[int, _Key] = {}
        self._pasts: dict[int, Hashable] = {}
        self.engines: dict[_Key, Engine] = {}
        self.configs: dict[int, TrialConfig] = {}
        self.made = 0
        """Updates that were computed."""
        self.shared = 0
        """Updates that were not, a twin having made them."""

    def add(self, config: TrialConfig, state: TrialState | None, past: Hashable = None) -> None:
        """Take a trial in. `past`: what `past` says of a trial, here or elsewhere, that is in this state."""
        key = (shape_key(config.net, config.batch), config.method.family)
        if key not in self.engines:
            self.engines[key] = self._make(key, config)
        self.engines[key].add(config, state)
        self.configs[config.number], self._keys[config.number] = config, key
        if past is None and can_share(config):
            # A first state is drawn from these and nothing else; of any other only its numbers tell.
            past = (config.init, config.seed) if state is None else digest(self.state(config.number))
        self._pasts[config.number] = past

    def remove(self, number: int) -> None:
        self.engine(number).remove(number)
        del self.configs[number], self._keys[number], self._pasts[number]

    def engine(self, number: int) -> Engine:
        return self.engines[self._keys[number]]

    def state(self, number: int) -> TrialState:
        return self.engine(number).state(number)

    def past(self, number: int) -> Hashable:
        """Of trials at the same update those with equal pasts are in equal states."""
        return self._pasts[number]

    def by_engine(self, numbers: Iterable[int]) -> dict[_Key, list[int]]:
        engines: dict[_Key, list[int]] = {}
        for number in numbers:
            engines.setdefault(self._keys[number], []).append(number)
        return engines

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:
        """Train each named trial to its update; returns wall seconds, shared out to the trials."""
        seconds = dict.fromkeys(until, 0.0)
        for key, numbers in self.by_engine(until).items():
            engine = self.engines[key]
            sets = self._sets(engine, numbers, until)
            while sets:
                self._plan(sets, until)
                took = engine.advance({twins.numbers[0]: twins.end for twins in sets})
                for twins in sets:
                    for number in twins.numbers:
                        seconds[number] += took[twins.numbers[0]] / len(twins.numbers)
                sets = [rest for twins in sets for rest in self._part(engine, twins, until)]
        return seconds

    def _sets(self, engine: Engine, numbers: list[int], until: Mapping[int, int]) -> list[_Twins]:
        """Find who is equal and makes the next update alike."""
        found: dict[Hashable, _Twins] = {}
        for number in numbers:
            config, update = self.configs[number], engine.update(number)
            key: Hashable = number
            if can_share(config) and update < until[number]:
                key = (self._pasts[number], update, arithmetic(config, update))
            found.setdefault(key, _Twins([], update)).numbers.append(number)
        return list(found.values())

    def _plan(self, sets: list[_Twins], until: Mapping[int, int]) -> None:
        """Decide to where each set goes on: to where one of its trials stops or parts from the others.

        All that stand together stop where some part, since a stack is fastest where most trials are in step.
        """
        partings: dict[int, int] = {}
        for twins in sets:
            goal = twins.end = min(until[number] for number in twins.numbers)
            if len(twins.numbers) > 1:
                twins.end = alike_until([self.configs[number] for number in twins.numbers], twins.update, goal)
            if twins.end < goal:
                partings[twins.update] = min(twins.end, partings.get(twins.update, twins.end))
        for twins in sets:
            twins.end = min(twins.end, partings.get(twins.update, twins.end))

    def _part(self, engine: Engine, twins: _Twins, until: Mapping[int, int]) -> list[_Twins]:
        """Give the state of a set's first trial to all that stop here or go on otherwise; returns what goes on."""
        end, numbers, left = twins.end, *self._as_the_first(engine, twins.numbers)
        updates = max(0, end - twins.update)
        self.made += updates
        self.shared += updates * (len(numbers) - 1)
        stopping = [number for number in numbers if until[number] <= end]
        going: dict[Hashable, _Twins] = {}
        for number in numbers:
            if until[number] > end:
                going.setdefault(arithmetic(self.configs[number], end), _Twins([], end)).numbers.append(number)
        self._hand_over(engine, numbers[0], stopping, [some.numbers[0] for some in going.values()])
        if updates or engine.diverged_at(numbers[0]) is not None:
            self._pasts |= dict.fromkeys(stopping, object())
        return [*going.values(), *([_Twins(left, twins.update)] if left else [])]

    def _as_the_first(self, engine: Engine, numbers: list[int]) -> tuple[list[int], list[int]]:
        """Who did what the first trial has just done, and who did not: all others have their old state still.

        An infinite velocity times mu = 0 is a NaN, which nag looks ahead to and cm does not.
        """
        if engine.diverged_at(numbers[0]) is None:
            return numbers, []
        nags = [number for number in numbers if self.configs[number].method.kind == "nag"]
        others = [number for number in numbers if number not in nags]
        return (nags, others) if numbers[0] in nags else (others, nags)

    def _hand_over(self, engine: Engine, first: int, stopping: list[int], heads: list[int]) -> None:
        """Give the state of a trial to those that stop in it and to the heads of those that go on from it."""
        # An engine looks for numbers that are not finite where it stops; those that go on would not have stopped.
        found_here = engine.diverged_at(first) == engine.update(first)
        takers = [n for n in (*stopping, *heads) if n != first or (found_here and n in heads)]
        if not takers:
            return
        state = engine.state(first)
        unseen = replace(state, diverged_at=None) if found_here else state
        for number in takers:
            engine.remove(number)
            engine.add(self.configs[number], unseen if number in heads else state)


class Group:
    """The trials of one worker. `engines` names an engine for each shape key, or one for all.

    Trials that are equal and make their next updates alike, to the last bit, are trained once (`twins`).
    """

    def __init__(
        self,
        task: Task,
        engines: Mapping[str, str] | str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        precision: str = "float32",
        eval_examples: int = 500,
    ) -> None:
        self._data = Data(task, device, dtype)
        self._names = engines
        self._precision = precision
        self._trials, self._forks = _Ensemble(self._made), _Ensemble(self._made)
        self.measure_on(eval_examples)
        self._seconds = 0.0

    def measure_on(self, examples: int) -> None:
        """Measure on the first so many examples of train and of valid from now on."""
        self._parts = {"train": self._data.train.head(examples), "valid": self._data.valid.head(examples)}

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:
        """Take a trial in, from `state` or from its first update.

        Raises ValueError when its number is taken, no engine was chosen for its shape, or its method cannot train it.
        """
        if config.number in self._trials.configs:
            raise ValueError(f"trial {config.number} is already in this group")
        self._trials.add(config, state)

    def remove(self, number: int) -> None:
        """Forget a trial. Raises KeyError when there is none of that number."""
        self._trials.remove(number)

    def numbers(self) -> list[int]:
        """Return the numbers of the trials, in the order they came."""
        return list(self._trials.configs)

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:
        """Train each named trial to its update; returns wall seconds, shared out to the trials."""
        seconds = self._trials.advance(until)
        self._seconds += sum(seconds.values())
        return seconds

    def evaluate(self, numbers: Iterable[int]) -> dict[int, dict[str, float]]:
        """Return the task's objectives of each trial, on the first examples of train and valid (`measure_on`).

        Those of a diverged trial are NaN. What its engine has to say besides (`HFEngine.notes`) comes with them.
        """
        numbers = list(numbers)
        measured = self._evaluate(self._trials, numbers)
        for number in numbers:
            engine = self._trials.engine(number)
            if isinstance(engine, HFEngine):
                measured[number] |= engine.notes(number)
        return measured

    def fork(self, numbers: Iterable[int], updates: int, mu: float) -> dict[int, dict[str, float]]:
        """Return the objectives after `updates` more updates at min(mu_t, mu); the trials stay as they are.

        Methods without momentum simply go on.
        """
        return self.forks(numbers, [(updates, mu)])[0]

    def forks(self, numbers: Iterable[int], phases: Sequence[tuple[int, float]]) -> list[dict[int, dict[str, float]]]:
        """Return what `fork` does of each of some (updates, mu), trained together: they share what they have alike."""
        copies: dict[int, tuple[int, int]] = {}
        until: dict[int, int] = {}
        try:
            for number in numbers:
                config, state, past = self._trials.configs[number], self.state(number), self._trials.past(number)
                for phase, (updates, mu) in enumerate(phases):
                    copy = len(copies)
                    method = _capped(config.method, mu)
                    self._forks.add(replace(config, number=copy, method=method), state, past)
                    copies[copy] = phase, number
                    until[copy] = state.update + updates
            self._forks.advance(until)
            found: list[dict[int, dict[str, float]]] = [{} for _ in phases]
            for copy, measured in self._evaluate(self._forks, list(copies)).items():
                phase, number = copies[copy]
                found[phase][number] = measured
            return found
        finally:
            for copy in copies:
                self._forks.remove(copy)

    def diagnose(
        self, numbers: Iterable[int], what: Sequence[str], examples: int, *, exact: bool = False
    ) -> dict[int, Diagnostics]:
        """Measure trials' nets (`diagnostics`) on the first examples of valid, in float64 where `exact`.

        `seconds` among the quantities is each net's share of the time.
        """
        part = self._data.valid.head(examples)
        part = diagnostics.widened(part) if exact else part
        found: dict[int, Diagnostics] = {}
        for some in self._trials.by_engine(numbers).values():
            started = perf_counter()
            nets = [self.state(number).params for number in some]
            found |= zip(
                some, diagnostics.measure_all(self._trials.configs[some[0]].net, nets, part, what), strict=True
            )
            seconds = (perf_counter() - started) / len(some)
            for number in some:
                found[number]["seconds"] = Series(0, np.array([[seconds]]))
        return found

    def update(self, number: int) -> int:
        """Return how many updates a trial has behind it."""
        return self._trials.engine(number).update(number)

    def diverged_at(self, number: int) -> int | None:
        """Return the first update of a trial whose output delta was not finite, None while there is none."""
        return self._trials.engine(number).diverged_at(number)

    def state(self, number: int) -> TrialState:
        """Copy a trial's state out."""
        return self._trials.state(number)

    def engine(self, number: int) -> str:
        """Return the name of the engine that trains a trial."""
        return self._trials.engine(number).name

    def seconds_per_update(self) -> float:
        """Return the mean seconds of one update that was computed, of one trial; NaN before the first."""
        return self._seconds / self._trials.made if self._trials.made else float("nan")

    @property
    def shared_updates(self) -> int:
        """How many updates of trials and forks were not computed so far, since another trial had made the same."""
        return self._trials.shared + self._forks.shared

    def _made(self, key: _Key, config: TrialConfig) -> Engine:
        shape, family = key
        return make_engine(self._name(shape, family), config.net, config.batch, self._data, family, self._precision)

    def _name(self, shape: str, family: str) -> str:
        if family == "hf" or isinstance(self._names, str):
            return "hf" if family == "hf" else str(self._names)
        if shape not in self._names:
            raise ValueError(f"no engine was chosen for shape {shape}; chosen: {', '.join(self._names)}")
        return self._names[shape]

    def _evaluate(self, trials: _Ensemble, numbers: list[int]) -> dict[int, dict[str, float]]:
        results: dict[int, dict[str, float]] = {number: {} for number in numbers}
        for name, part in self._parts.items():
            for key, some in trials.by_engine(numbers).items():
                engine = trials.engines[key]
                measured = engine.evaluate(some, part)
                for metric in self._data.info.metrics:
                    for number, value in zip(some, _floats(measured[metric]), strict=True):
                        # Infinite weights can saturate units, and answer: whatever that scores, it was not learned.
                        diverged = engine.diverged_at(number) is not None
                        results[number][f"{name}_{metric}"] = math.nan if diverged else value
        return results


def _capped(method: MethodConfig, mu: float) -> MethodConfig:
    """The method with momentum of at most mu."""
    return replace(method, **{name: min(getattr(method, name), mu) for name in ("mu_max", "mu_first", "tail_mu")})


def _floats(values: torch.Tensor) -> list[float]:
    return [float(value) for value in values.tolist()]
