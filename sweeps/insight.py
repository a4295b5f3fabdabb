"""The worker's side of diagnostics: which nets are measured when, which are not worth training, and where it goes.

Imported by workers only: it needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from sweeps import remote
from sweeps.spec import SweepSpec
from sweeps.store import write_diagnostics
from trainers.diagnostics import EXAMPLES, Diagnostics, summary
from trainers.doomed import NEEDED, verdict
from trainers.group import Group

Metrics = dict[str, float]


class Insight:
    """Measures the nets of a group's trials as the spec asks.

    A measurement is in the sweep folder before the report of its update leaves, so none is missing after a crash; one
    that is made again gives the same numbers (to rounding, if the group is another), which replace the first.
    """

    def __init__(self, folder: Path, group: int, spec: SweepSpec, trials: Group) -> None:
        self._folder, self._group, self._trials = folder, group, trials
        self._when = spec.diagnosed()
        self._examples = spec.diagnostics.examples if spec.diagnostics else EXAMPLES
        self._end = self._when.get(spec.training.updates, ())
        self._target = spec.target
        self._doomed = spec.early_stopping.doomed if spec.early_stopping else None

    @property
    def skips(self) -> bool:
        """Whether trials that cannot start are not trained."""
        return self._doomed is not None and self._doomed.act == "skip"

    def doomed(self, number: int) -> str | None:
        """Why a trial's net cannot start, in words; None if the rule is off or finds nothing.

        Each net is measured alone and in float64, on the same examples: the verdict is the trial's own, to the bit.
        """
        if self._doomed is None:
            return None
        found = self._trials.diagnose([number], NEEDED, EXAMPLES, exact=True)[number]
        return verdict(found, self._doomed.bounds)

    def born(self, numbers: Iterable[int]) -> dict[int, Metrics]:
        """Measure trials before their first update, if the spec asks; returns a summary as metrics."""
        return self._measure({number: (0, self._when.get(0, ())) for number in numbers})

    def reported(self, at: Mapping[int, int], metrics: Mapping[int, Metrics]) -> dict[int, Metrics]:
        """Measure trials (number: update) at a report, those that the spec asks for; returns summaries as metrics."""
        wanted = {}
        for number, update in at.items():
            over = self._target is not None and self._target.reached(metrics[number])  # its end, though not the last
            wanted[number] = update, (over and self._end) or self._when.get(update, ())
        return self._measure(wanted)

    def _measure(self, wanted: Mapping[int, tuple[int, tuple[str, ...]]]) -> dict[int, Metrics]:
        """Measure trials by number, each at (its update, what)."""
        found: dict[tuple[int, int], Diagnostics] = {}
        for update, what in sorted({pair for pair in wanted.values() if pair[1]}):
            due = (number for number, pair in wanted.items() if pair == (update, what))
            numbers = [number for number in due if self._trials.diverged_at(number) is None]
            for number, one in self._trials.diagnose(numbers, what, self._examples).items():
                found[number, update] = one
        if found:
            remote.patiently("diagnostics are not stored", lambda: self._store(found))
        return {number: summary(one) for (number, _), one in found.items()}

    def _store(self, found: Mapping[tuple[int, int], Diagnostics]) -> None:
        part = write_diagnostics(self._folder, f"group-{self._group:03d}-{time.time_ns():020d}", found)
        if part is not None:
            remote.keep(part, self._folder)
