"""Stored results of an experiment, and the few statistics that its claims rest on.

A result is a JSON file, `docs/reproduction/<experiment>.<protocol>.json`, written by `musweep reproduce`: of a sweep
all its trials with the measurements that claims need, of a computed figure the values as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

Key = tuple[Any, ...]
Values = dict[int, float]
"""A value for each replicate."""

ALPHA = 0.05
"""Level of every test here, one-sided in the claim's direction."""


@dataclass(frozen=True)
class Run:
    """One trial: its point, its seed and what was measured, by metric and update."""

    params: Mapping[str, Any]
    replicate: int
    state: str
    updates: int
    series: Mapping[str, Sequence[tuple[int, float]]]
    doomed: str = ""
    """Why the net could not start by the rule of `trainers/doomed.py`, which these sweeps noted and did not act on."""

    def value(self, metric: str, last: int = 1) -> float:
        """The median of the last so many measurements; infinite for a run that diverged or was never measured."""
        points = self.series.get(metric, ())
        if self.state in ("diverged", "failed", "skipped") or not points:
            return math.inf
        value = median(value if math.isfinite(value) else math.inf for _, value in points[-last:])
        return float(value)

    def first_below(self, metric: str, bound: float) -> float:
        """The update of the first measurement below a bound; infinite if there is none."""
        return next((float(update) for update, value in self.series.get(metric, ()) if value < bound), math.inf)


@dataclass(frozen=True)
class Evidence:
    """A stored result."""

    experiment: str
    protocol: str
    measured_on: str = ""
    seconds: float = 0.0
    machine: str = ""
    about: str = ""
    """The protocol in words: task, net, updates, batch, what was searched."""
    data: str = ""
    """Where the data came from, if they only resemble what the paper used."""
    runs: tuple[Run, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    """What a computed figure holds; of a sweep the size of its test part, `test_examples`, if that was read."""

    @property
    def seeds(self) -> int:
        """Replicates, at most, of a point."""
        return len({run.replicate for run in self.runs})

    def select(self, **wanted: Any) -> Evidence:
        """The runs whose point has these values."""
        runs = (r for r in self.runs if all(r.params.get(name) == value for name, value in wanted.items()))
        return replace(self, runs=tuple(runs))

    def cells(self, metric: str, by: Sequence[str], last: int = 1) -> dict[Key, Values]:
        """The value of each replicate of each point; `by` names all that was searched."""
        found: dict[Key, Values] = {}
        for run in self.runs:
            key = tuple(run.params.get(name) for name in by)
            values = found.setdefault(key, {})
            assert run.replicate not in values, f"replicate {run.replicate} twice at {key}: {by} is not all"
            values[run.replicate] = run.value(metric, last)
        return found

    def tuned(self, metric: str, by: Sequence[str], over: str = "lr", last: int = 1) -> dict[Key, Values]:
        """For each point of `by` the replicates at its best value of `over`: the one with the smallest median.

        That is S13's own procedure, "per mu_max keep the lr with lowest final training error", with a median where the
        paper has one run.
        """
        best: dict[Key, Values] = {}
        for (*key, _), values in self.cells(metric, (*by, over), last).items():
            kept = best.get(tuple(key))
            if kept is None or middle(values) < middle(kept):
                best[tuple(key)] = values
        return best


def load(path: Path) -> Evidence:
    """Read a stored result. Raises ValueError when the file is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        runs = tuple(Run(**{**run, "series": _series(run["series"])}) for run in data.pop("runs", ()))
        return Evidence(runs=runs, **data)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a stored result ({error})") from None


def _series(stored: Mapping[str, Sequence[tuple[int, float | None]]]) -> dict[str, list[tuple[int, float]]]:
    """Measurements as stored, where null stands for a value that is not finite."""
    return {
        metric: [(update, math.inf if value is None else value) for update, value in points]
        for metric, points in stored.items()
    }


def middle(values: Values) -> float:
    """The median over replicates."""
    return float(median(values.values())) if values else math.inf


def spread(values: Values) -> str:
    """Median and range in words: `0.51 (0.47 to 0.60)`."""
    if not values:
        return "not run"
    low, high = min(values.values()), max(values.values())
    return f"{number(middle(values))} ({number(low)} to {number(high)})" if len(values) > 1 else number(low)


def number(value: float) -> str:
    """A value with three significant digits."""
    return f"{value:.3g}" if math.isfinite(value) else "diverged"


def smaller(a: Values, b: Values) -> float:
    """Return p of the exact Wilcoxon signed-rank test that a is below b, paired by replicate; 1 without pairs.

    Ranks, since errors are bimodal: a run leaves the plateau or does not (SCIENCE 11).
    """
    from scipy.stats import wilcoxon

    shared = sorted(a.keys() & b.keys())
    differences = [_clipped(a[i]) - _clipped(b[i]) for i in shared]
    if not any(differences):
        return 1.0
    nonzero = [d for d in differences if d]
    return float(wilcoxon(nonzero, alternative="less", method="exact" if len(nonzero) < 26 else "auto").pvalue)


def logrank(times: Sequence[Values], cap: float) -> float:
    """Return p of the log-rank test that two samples of waiting times differ, those beyond `cap` censored at it."""
    from scipy.stats import CensoredData
    from scipy.stats import logrank as test

    def sample(values: Values) -> CensoredData:
        seen = [t for t in values.values() if t <= cap]
        return CensoredData(uncensored=seen, right=[cap] * (len(values) - len(seen)))

    if len({min(t, cap) for values in times for t in values.values()}) < 2:
        return 1.0  # all at once: nothing to order
    return float(test(sample(times[0]), sample(times[1])).pvalue)


def trend(values: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Kendall's tau of pairs, and p that it is above 0."""
    from scipy.stats import kendalltau

    x, y = zip(*((a, _clipped(b)) for a, b in values), strict=True)
    found = kendalltau(x, y, alternative="greater")
    return float(found.statistic), float(found.pvalue)


def _clipped(value: float) -> float:
    """A number that a rank can be given to."""
    return min(value, 1e300) if not math.isnan(value) else 1e300
