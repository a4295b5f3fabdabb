"""The search: what to try next, by Optuna in memory or by a design that needs no results.

The study is a view of the journal. Samplers are made afresh for each trial, seeded by (sweep seed, trial
number), and see only what the journal says: so a search that was interrupted anywhere goes on, after `replay`,
exactly as it would have without.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps import designs
from sweeps.history import END_STATES, trial_id
from sweeps.journal import Record
from sweeps.learnt import Learnt, distribution
from sweeps.parameters import Float
from sweeps.space import Params, point_id
from sweeps.spec import SweepSpec
from sweeps.stages import SEARCH
from sweeps.window import AUTO
from trainers.config import SeedConfig

_log = logging.getLogger(__name__)

STARTUP = {"tpe": 10, "gp": 10, "cmaes": 1}
"""How many trials must have ended before an algorithm's model speaks; until then a Sobol sequence does."""
_DESIGNS = ("random", "qmc", "grid")
_RETRIES = 3
_DRAWS = 100
"""Random points to look at for one that was not tried, in a space too large to list."""


class Proposer:
    """Proposes the trials of one sweep; a function of (spec, number, sequence of asks and tells).

    With `search.seeds` above 1 each point is tried that many times in a row: trial n is replicate n % seeds of
    point n // seeds. Trials are numbered from 0 within a stage.

    Args:
        spec: what is searched, and how.
        wave: above 0, a trial is proposed from what trials before its wave of so many came to, and from nothing else.
            It does not matter then in how many slots they trained. A wave begins when all before it have ended.
    """

    def __init__(self, spec: SweepSpec, wave: int = 0) -> None:
        self._space, self._search = spec.space, spec.search
        self._seed, self._seeds = spec.search.seed, spec.search.seeds
        self._algorithm = spec.search.algorithm
        window = spec.search.window if self._algorithm == "tpe" else None
        self._learnt = Learnt(spec.space, spec.mode == "min", AUTO if window == "auto" else window)
        self._distributions = self._learnt.distributions
        self._groups = self._conditions()
        self._points: list[Params] = [dict(point) for point in spec.search.started]
        self._grid = self._grid_after_points() if self._algorithm == "grid" else None
        self._left = self._untried()
        self._asked: dict[int, Params] = {}
        self._places: dict[int, int] = {}  # number -> number in the study
        self._names: dict[int, int] = {}  # number -> the sweep's number
        self._seen: set[str] = set()
        self._wave = wave
        self._untold: dict[int, tuple[str, float | None, Mapping[int, float]]] = {}  # what the next wave will know
        self._told = 0
        self._warned = False
        if self._algorithm not in ("random", "grid"):
            designs.sobol_units(self._space, self._seed, 0)  # SciPy's import, while workers start
        for params, objective in spec.search.told:
            self._learnt.known(params, objective)
        self._before = len(self._learnt)

    # -- what the board calls ----------------------------------------------------------------------------------

    def size(self) -> int | None:
        """How many trials there are in all to ask for; None if the search has no end of its own.

        Where all points of the space can be tried, that is when they were: each once, and what is given besides.
        """
        if self._grid is not None:
            return (len(self._points) + len(self._grid)) * self._seeds
        if self._left is None:
            return None
        begun = -(-len(self._asked) // self._seeds)
        return (begun + max(len(self._left), len(self._points) - begun)) * self._seeds

    @property
    def ready(self) -> bool:
        """Whether a trial can be asked for now: not while its wave waits for the one before it to end."""
        fresh = self._wave and self._asked and len(self._asked) % self._wave == 0
        return not fresh or len(self._untold) + self._told == len(self._asked)

    def exhausted(self, number: int) -> bool:
        """Whether there is no such trial any more."""
        size = self.size()
        return size is not None and number >= size

    def ask(self, number: int, trial: int | None = None) -> Params:
        """The point of a trial: values of its active parameters. Numbers are asked for in rising order.

        Args:
            number: the trial's number within its stage.
            trial: its number in the sweep, by which people know it; default the same.

        Raises:
            ValueError: the number was asked for before, or there is no point left for it.
        """
        if number in self._asked:
            raise ValueError(f"trial {number} was asked for before")
        if self.exhausted(number):
            raise ValueError(f"trial {number}: the grid ends at {self.size()}, all points are tried")
        self._names[number] = number if trial is None else trial
        self._begin_wave()
        first = number - number % self._seeds
        if number > first and first in self._asked:
            params, notes = dict(self._asked[first]), dict[str, Any]()
        else:
            params, notes = self._propose(number)
        self._enter(number, params, notes)
        return dict(params)

    def tell(self, number: int, state: str, objective: float | None, curve: Mapping[int, float]) -> None:
        """Note how a trial ended.

        A stopped trial counts as pruned with its curve: TPE ranks it below complete ones, the further the
        better. A diverged, skipped or not finite one counts as pruned before its first update with the worst
        value there is, so below all that were stopped. A failed one says nothing about its point.

        Args:
            number: the trial, asked for before.
            state: one of `history.END_STATES`.
            objective: its last value, for complete trials.
            curve: its scores by update, as `history.Trial.scores` holds them.

        Raises:
            ValueError: an unknown state.
        """
        if state not in END_STATES:
            raise ValueError(f"state {state!r}: one of {', '.join(END_STATES)}")
        if self._wave:
            self._untold[number] = state, objective, dict(curve)
        else:
            self._tell(number, state, objective, curve)

    def _begin_wave(self) -> None:
        """Before the first ask of a wave: learn how the trials before it ended, in order of number."""
        if self._wave and len(self._asked) % self._wave == 0:
            for number in sorted(self._untold):
                self._tell(number, *self._untold[number])
            self._untold = {}

    def _tell(self, number: int, state: str, objective: float | None, curve: Mapping[int, float]) -> None:
        place = self._places[number]
        self._told += 1
        if state == "failed":
            self._learnt.fail(place)
        elif state == "complete" and objective is not None and math.isfinite(objective):
            self._learnt.end(place, objective)
        else:
            bad = state != "stopped" or not curve or not math.isfinite(curve[max(curve)])
            self._learnt.stop(place, None if bad else curve)

    def replay(self, records: Iterable[Record], stage: str = SEARCH) -> None:
        """Rebuild the study of a new Proposer from a journal's records of a stage, in their order.

        Where a failed trial was retried, it is its last end that is told. The journal's points count. CMA-ES, whose
        state is not journaled, is asked again for each; should the answers differ (another version of a library,
        say), that is logged once.
        """
        records = list(records)
        void = _retried(records)
        scores: dict[int, dict[int, float]] = {}
        numbers: dict[int, int] = {}  # the sweep's to the stage's
        for place, record in enumerate(records):
            if record["type"] == "ask" and record["stage"] == stage:
                number = numbers[record["trial"]] = len(numbers)
                self._names[number] = record["trial"]
                self._begin_wave()
                self._enter_again(number, record["params"])
            elif record["type"] == "report":
                for entry in record["trials"]:
                    scores.setdefault(entry["trial"], {})[entry["update"]] = float(entry["score"])
            elif record["type"] == "end" and record["trial"] in numbers and place not in void:
                objective = None if record["objective"] is None else float(record["objective"])
                self.tell(numbers[record["trial"]], record["state"], objective, scores.pop(record["trial"], {}))

    @property
    def study(self) -> Any:
        """The Optuna study, for reading; `one_minus_log` parameters are in it as 1-x."""
        return self._learnt.study

    def export(self, storage: str, name: str) -> None:
        """Copy the ended trials into an Optuna storage, for Optuna Dashboard; a study of that name is replaced.

        Values are the user's own. The copy is one-way: nothing is ever read back from it.

        Args:
            storage: a URL as Optuna takes it, such as `sqlite:///optuna.db`.
            name: the study's name there, such as the sweep's id.
        """
        store = optuna.storages.get_storage(storage)
        if name in optuna.get_all_study_names(store):
            optuna.delete_study(study_name=name, storage=store)
        target = optuna.create_study(storage=store, study_name=name, direction=self.study.direction)
        shapes = {name: _shown(self._space[name]) for name in self._distributions}
        target.add_trials(
            optuna.create_trial(
                state=trial.state,
                value=trial.value,
                params={n: value for n, value in self._asked[number].items() if n in shapes},
                distributions={n: shapes[n] for n in self._asked[number] if n in shapes},
                intermediate_values=trial.intermediate_values,
                user_attrs={"trial": trial_id(self._names[number])},
            )
            for number, trial in zip(self._places, self.study.get_trials(deepcopy=False)[self._before :], strict=True)
            if trial.state.is_finished()
        )

    # -- proposing -----------------------------------------------------------------------------------------------

    def _propose(self, number: int) -> tuple[Params, dict[str, Any]]:
        """A trial's point, and what the sampler wants to remember of it."""
        index = number // self._seeds
        given = self._points[index] if index < len(self._points) else {}
        if self._grid is not None:
            if not given:
                return dict(self._grid[index - len(self._points)]), {}
            return designs.at(self._space, designs.random_units(self._space, self._seed, index), given), {}
        params, notes = self._candidate(number, index, given, 0)
        if given or self._repeats:
            return params, notes
        # A point met before would train to the same bits, so look for a new one.
        for attempt in range(1, _RETRIES + 1):
            if point_id(params) not in self._seen:
                return params, notes
            params, notes = self._candidate(number, index, given, attempt)
        if point_id(params) not in self._seen:
            return params, notes
        if self._left is not None:
            left = list(self._left.values())
            return dict(left[int(designs.uniform(self._seed, f"{number}/left") * len(left))]), {}
        for attempt in range(_RETRIES + 1, _DRAWS):
            drawn = designs.at(self._space, designs.random_units(self._space, self._attempt(attempt), index), {})
            if point_id(drawn) not in self._seen:
                return drawn, {}
        return params, notes

    @property
    def _repeats(self) -> bool:
        """Whether a point that was tried may be proposed again."""
        return self._search.duplicates == "repeat"

    def _untried(self) -> dict[str, Params] | None:
        """All points of the space by their names; None if they cannot be listed, or may be tried again."""
        if self._repeats or self._grid is not None:
            return None
        nodes = designs.finite(self._space)
        return None if nodes is None else {point_id(node): node for node in nodes}

    def _attempt(self, attempt: int) -> int:
        """The seed of another draw for a trial."""
        return SeedConfig(self._seed).stream(f"sampler/attempt/{attempt}")

    def _candidate(self, number: int, index: int, given: Params, attempt: int) -> tuple[Params, dict[str, Any]]:
        """A point by the algorithm. `attempt` above 0 asks for another one."""
        startup = STARTUP.get(self._algorithm)
        known = self._learnt.ended if self._algorithm == "tpe" else self._learnt.complete
        if startup is not None and known >= startup:
            return self._by_model(number, given, attempt)
        units = designs.sobol_units if self._algorithm != "random" and not attempt else designs.random_units
        seed = self._attempt(attempt) if attempt else self._seed
        return designs.at(self._space, units(self._space, seed, index), given), {}

    def _by_model(self, number: int, given: Params, attempt: int) -> tuple[Params, dict[str, Any]]:
        """A point by a sampler that has learnt from the study: group by group of parameters of one condition.

        The groups are those of Optuna's experimental `TPESampler(group=True)`, known beforehand from the
        space instead of being found again in all trials at each ask, and sampled only where active.
        """
        sampler = self._sampler(SeedConfig(self._seed).stream(f"sampler/{number}/{attempt}") % 2**32)
        place = len(self._learnt)
        trial = FrozenTrial(
            number=place, trial_id=place, state=TrialState.RUNNING, value=None, values=None,
            datetime_start=datetime.now(), datetime_complete=None, params={}, distributions={},
            user_attrs={}, system_attrs={}, intermediate_values={},
        )  # fmt: skip
        with self._learnt.asked() as notes:
            params = self._sampled(sampler, trial, given)
        return params, notes if self._algorithm == "cmaes" else {}

    def _sampled(self, sampler: Any, trial: FrozenTrial, given: Params) -> Params:
        """A point by a sampler, group by group."""
        params: Params = dict(given)
        for group in self._groups:
            if not self._space.is_active(group[0], self._space.active(params)):
                continue
            joint = self._joint(group)
            found = sampler.sample_relative(self.study, trial, joint) if joint else {}
            for name in group:
                if name in given:
                    continue
                distribution = self._distributions[name]
                if distribution.single():
                    value = distribution.choices[0]
                elif name in found:
                    value = found[name]
                else:
                    value = sampler.sample_independent(self.study, trial, name, distribution)
                params[name] = self._space[name].from_internal(value)  # type: ignore[union-attr]
        return self._space.active(params)

    def _sampler(self, seed: int) -> Any:
        """A new sampler. Nothing of it outlives the ask: what it learns from is the study."""
        samplers = optuna.samplers
        if self._algorithm == "tpe":
            return samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP["tpe"]
            )
        # What these two leave open (choices for CMA-ES, conditional parameters) is still learnt, one by one.
        rest = samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True, n_startup_trials=STARTUP["tpe"])
        if self._algorithm == "gp":
            return samplers.GPSampler(
                seed=seed, independent_sampler=rest, n_startup_trials=STARTUP["gp"], warn_independent_sampling=False
            )
        return samplers.CmaEsSampler(
            seed=seed, independent_sampler=rest, n_startup_trials=STARTUP["cmaes"], warn_independent_sampling=False
        )

    def _conditions(self) -> list[list[str]]:
        """Searched names by equal condition, parents first, in a group by name as Optuna has them."""
        groups: dict[str, list[str]] = {}
        for name in self._space.searched:
            groups.setdefault(repr(sorted(self._space[name].when.items())), []).append(name)
        return [sorted(names) for names in groups.values()]

    def _joint(self, group: list[str]) -> dict[str, Any]:
        """The distributions of a group's parameters that the algorithm samples jointly."""
        joint = {name: self._distributions[name] for name in group if not self._distributions[name].single()}
        if self._algorithm == "tpe":
            return joint
        if self._space[group[0]].when:  # not in every trial
            return {}
        if self._algorithm == "gp":
            return joint
        return {n: d for n, d in joint.items() if not isinstance(d, optuna.distributions.CategoricalDistribution)}

    def _grid_after_points(self) -> list[Params]:
        """The grid without the points to start from."""
        started = {point_id(self._space.active(point)) for point in self._points}
        nodes = designs.grid(self._space, self._search.grid, self._seed)
        return [node for node in nodes if point_id(node) not in started]

    # -- the study ---------------------------------------------------------------------------------------------

    def _enter(self, number: int, params: Params, notes: dict[str, Any]) -> None:
        """Add a running trial to the study."""
        self._places[number] = self._learnt.enter(params, notes)
        self._asked[number] = params
        name = point_id(params)
        self._seen.add(name)
        if self._left is not None:
            self._left.pop(name, None)

    def _enter_again(self, number: int, params: Params) -> None:
        """Add a trial that the journal knows."""
        notes: dict[str, Any] = {}
        if self._algorithm == "cmaes" and number % self._seeds == 0:
            again, notes = self._propose(number)
            if point_id(again) != point_id(params) and not self._warned:
                self._warned = True
                _log.warning(
                    "trial %d: CMA-ES now proposes %s where the journal has %s (a library has changed?); "
                    "the journal's points count",
                    number, again, params,
                )  # fmt: skip
        self._enter(number, dict(params), notes)


def _retried(records: list[Record]) -> set[int]:
    """Places of the ends, among records, that do not count since the trial was retried."""
    last: dict[int, int] = {}
    void = set()
    for place, record in enumerate(records):
        if record["type"] == "end":
            last[record["trial"]] = place
        elif record["type"] == "retry":
            void |= {last[number] for number in record["trials"]}
    return void


def _shown(parameter: Any) -> Any:
    """A parameter's distribution for readers: `one_minus_log` has no counterpart, so its range is shown as linear."""
    if isinstance(parameter, Float) and parameter.scale == "one_minus_log":
        return optuna.distributions.FloatDistribution(parameter.low, parameter.high)
    return distribution(parameter.internal(""))
