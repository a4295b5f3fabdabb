"""What a search has learnt, as an Optuna study in memory: trials enter when asked for and are told when they end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Container, Iterator, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps.parameters import Internal
from sweeps.space import Params, Space
from sweeps.window import Window

_STUDY = "sweep"


class _Memory(optuna.storages.InMemoryStorage):  # type: ignore[misc]
    """Optuna's storage in memory, except that what samplers note of the trial they propose waits in `notes`.

    CMA-ES keeps its state there. TPE and GP note values of parameters that may turn out inactive; a rebuilt
    study could not know those, so they are dropped. While `shown` is set, a sampler sees these trials and no others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, Any] = {}
        self.shown: list[FrozenTrial] | None = None

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's, but that trials share their distributions: copies would be most of what a study takes."""
        if template_trial is None:
            return int(super().create_new_trial(study_id))
        shared, template_trial.distributions = template_trial.distributions, {}
        trial_id = int(super().create_new_trial(study_id, template_trial))
        self._get_trial(trial_id).distributions = shared
        return trial_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if self.shown is None or deepcopy:
            found: list[FrozenTrial] = super().get_all_trials(study_id, deepcopy, states)
            return found
        return [trial for trial in self.shown if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ARG002 - Optuna's signature
        self.notes[key] = value


class Learnt:
    """The study of one search. Trials are known by their places, from 0, in the order in which they entered.

    Args:
        space: what is searched.
        minimise: whether small objectives are good.
        window: how many ended trials a sampler sees (`sweeps.window`); None for all, and the failed too.
    """

    def __init__(self, space: Space, minimise: bool, window: int | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # its hints on samplers are no help to a user here
        self._space = space
        self._sign, self._worst = (1.0, math.inf) if minimise else (-1.0, -math.inf)
        self._storage = _Memory()
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=_STUDY,
            sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: samplers are made per trial
            direction="minimize" if minimise else "maximize",
        )
        self._study_id = self._storage.get_study_id_from_name(_STUDY)
        self.distributions = {name: distribution(shape) for name, shape in space.internal().items()}
        self._window = None if window is None else Window(window)
        self._seen: dict[int, FrozenTrial] = {}  # what is in the window or running
        self._running: dict[int, None] = {}
        self.count = self.ended = self.complete = 0

    def __len__(self) -> int:
        return self.count

    def known(self, params: Params, objective: float) -> None:
        """Enter what was measured elsewhere."""
        self._add(params, value=objective)
        self._end(self.count - 1, (0, 0, self._sign * objective))
        self.complete += 1

    def enter(self, params: Params, notes: Mapping[str, Any]) -> int:
        """Add a running trial, with numbers that its point gives back after a trip through JSON; return its place."""
        self._add(params, state=TrialState.RUNNING, system_attrs=dict(notes))
        place = self.count - 1
        self._running[place] = None
        self._see(place)
        return place

    def fail(self, place: int) -> None:
        """A trial failed, which says nothing about its point."""
        self.study.tell(place, state=TrialState.FAIL)
        del self._running[place]
        self._seen.pop(place, None)

    def end(self, place: int, objective: float) -> None:
        """A trial came to its end."""
        self.study.tell(place, objective)
        del self._running[place]
        self._end(place, (0, 0, self._sign * objective))
        self.complete += 1

    def stop(self, place: int, curve: Mapping[int, float] | None) -> None:
        """A trial was stopped, with its scores by update; None for one that is worse than all that were stopped."""
        curve = {0: self._worst} if curve is None else curve
        trial_id = self._id(place)
        for update, score in curve.items():
            self._storage.set_trial_intermediate_value(trial_id, update, score)
        self.study.tell(place, state=TrialState.PRUNED)
        del self._running[place]
        last = max(curve)
        self._end(place, (1, -last, self._sign * curve[last]))  # as TPE ranks them

    @contextlib.contextmanager
    def asked(self) -> Iterator[dict[str, Any]]:
        """While a sampler is asked: it sees the window, and what it notes of the trial goes into what is given."""
        notes: dict[str, Any] = {}
        self._storage.notes = notes
        if self._window is not None:
            self._storage.shown = [self._seen[place] for place in sorted((*self._window, *self._running))]
        try:
            yield notes
        finally:
            self._storage.shown = None

    def _add(self, params: Params, **told: Any) -> None:
        values = self._space.to_internal(params)
        distributions = {name: self.distributions[name] for name in values}
        self.study.add_trial(optuna.create_trial(params=values, distributions=distributions, **told))
        self.count += 1

    def _end(self, place: int, rank: tuple[float, ...]) -> None:
        self.ended += 1
        if self._window is not None:
            self._see(place)
            left = self._window.add(place, rank)
            if left is not None:
                del self._seen[left]

    def _see(self, place: int) -> None:
        if self._window is not None:
            self._seen[place] = self._storage.get_trial(self._id(place))

    def _id(self, place: int) -> int:
        """Optuna's id of a trial."""
        return int(self._storage.get_trial_id_from_study_id_trial_number(self._study_id, place))


def distribution(shape: Internal) -> Any:
    """Optuna's form of a parameter."""
    if shape.kind == "choice":
        return optuna.distributions.CategoricalDistribution(shape.choices)
    if shape.kind == "int":
        return optuna.distributions.IntDistribution(int(shape.low), int(shape.high), log=shape.log)
    return optuna.distributions.FloatDistribution(shape.low, shape.high, log=shape.log)
