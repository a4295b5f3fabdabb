"""Counts of a history that are kept as records come in, so that nobody walks all trials to know them.

Each is what counting the trials afresh would give; the tests count them so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeps.stages import is_search

if TYPE_CHECKING:
    from sweeps.history import Trial

LEADING = ("complete", "stopped")
"""States whose trials may be the best, those of the first before all of the second."""


@dataclass(slots=True)
class Tally:
    """Trials by stage and state, work by stage, and the best and the rungs of the search."""

    states: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Trials by stage, then by state."""
    updates: Counter[str] = field(default_factory=Counter)
    """Updates done, by stage."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Worker seconds, by stage."""
    running: dict[int, Trial] = field(default_factory=dict)
    """The trials that train, by number."""
    reached: Counter[int] = field(default_factory=Counter)
    """Trials of the search that have a score at an update, or were let pass there."""
    passed: Counter[int] = field(default_factory=Counter)
    """Trials of the search that were let pass at an update."""
    leaders: dict[tuple[str, str], Trial] = field(default_factory=dict)
    """The search's best trial by state and mode, the lower number first among equals."""

    def asked(self, trial: Trial) -> None:
        """A trial has begun."""
        self.states[trial.stage]["running"] += 1
        self.running[trial.number] = trial

    def reported(self, trial: Trial, update: int, seconds: float) -> None:
        """A trial is about to have a score at an update; call this before it has."""
        self.seconds[trial.stage] += seconds
        self.updates[trial.stage] += max(0, update - trial.updates)
        if is_search(trial.stage) and update not in trial.scores and update not in trial.promoted:
            self.reached[update] += 1

    def promoted(self, trial: Trial, update: int) -> None:
        """A trial is about to pass a rung; call this before it has."""
        if is_search(trial.stage) and update not in trial.promoted:
            self.passed[update] += 1
            self.reached[update] += update not in trial.scores

    def ended(self, trial: Trial, updates: int, seconds: float) -> None:
        """A trial has ended, and says in the end how many updates and seconds it had; call this after it has."""
        counts = self.states[trial.stage]
        counts["running"] -= 1
        counts[trial.state] += 1
        self.running.pop(trial.number, None)
        self.updates[trial.stage] += trial.updates - updates
        self.seconds[trial.stage] += trial.wall_s - seconds
        if is_search(trial.stage) and trial.state in LEADING and trial.objective is not None:
            for mode, sign in (("min", 1.0), ("max", -1.0)):
                leader = self.leaders.get((trial.state, mode))
                if leader is None or _rank(trial, sign) < _rank(leader, sign):
                    self.leaders[trial.state, mode] = trial

    def retried(self, trial: Trial) -> None:
        """A failed trial is to train again; call this before its state says so."""
        counts = self.states[trial.stage]
        counts[trial.state] -= 1
        counts["running"] += 1
        self.running[trial.number] = trial

    def by_state(self) -> Counter[str]:
        """Trials of all stages by state."""
        total: Counter[str] = Counter()
        for counts in self.states.values():
            total.update(counts)
        return total

    @property
    def ended_trials(self) -> int:
        """Trials that do not train any more."""
        return sum(counts.total() - counts["running"] for counts in self.states.values())

    def best(self, mode: str) -> Trial | None:
        """The search's best trial: of the complete ones; of the stopped ones while none is complete."""
        found = (self.leaders.get((state, mode)) for state in LEADING)
        return next((trial for trial in found if trial is not None), None)


def _rank(trial: Trial, sign: float) -> tuple[float, int]:
    return sign * (trial.objective or 0.0), trial.number
