"""Who goes on past a rung: the scores of a sweep's trials there, by class."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable

from sweeps.history import Trial
from sweeps.spec import SweepSpec
from sweeps.stages import is_search
from sweeps.stopping import Standing, class_of


class Judge:
    """Judges the trials of a sweep at its rungs, from what is known of them and of those so far."""

    def __init__(self, spec: SweepSpec, trials: Iterable[Trial]) -> None:
        self._stopping, self._rungs = spec.early_stopping, spec.rungs()
        self._scores: dict[tuple[int, Hashable], Standing] = defaultdict(lambda: Standing(spec.mode))
        for trial in trials:
            self.note(trial)

    def note(self, trial: Trial, lost_at: int | None = None) -> None:
        """Enter a trial's scores at its rungs; one that diverged or was skipped is the worst where it never came."""
        if not is_search(trial.stage):
            return
        ended_at = trial.updates if trial.state in ("diverged", "skipped") else lost_at
        for rung in self._rungs:
            if ended_at is not None and ended_at <= rung:
                self._scores[rung, self._class_of(trial)][trial.number] = math.nan
                return
            if rung in trial.scores:
                self._scores[rung, self._class_of(trial)][trial.number] = trial.scores[rung]

    def judges(self, trial: Trial, update: int) -> bool:
        """Whether a trial is compared with others at this update."""
        return is_search(trial.stage) and update in self._rungs

    def passes(self, trial: Trial, update: int, score: float) -> bool:
        """Whether a trial goes on past the rung at this update."""
        assert self._stopping is not None, "rungs without early stopping"
        scores = self._scores[update, self._class_of(trial)]
        return scores.passes(trial.number, score, self._stopping.factor, self._stopping.order)

    def _class_of(self, trial: Trial) -> Hashable:
        return class_of(trial.params, self._stopping.compare_within if self._stopping else None)
