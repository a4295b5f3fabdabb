"""What is said of courses: time to target as censored data, performance profiles, where two curves cross."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reached = Sequence[tuple[float, bool]]
"""For each run (work at which it reached the target, True) or (work at its end, False)."""

RESAMPLES = 2_000
SEED = 4


@dataclass(frozen=True, slots=True)
class Survival:
    """Share of runs that have not reached the target yet, by work: a step curve that starts at 1.

    After `work[i]` the share is `share[i]`, until `work[i + 1]`; `low` and `high` are its 95% band.
    """

    work: tuple[float, ...]
    share: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    median: float | None
    """Work by which half of the runs have reached it; None where fewer do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Share of tasks on which a method is within a factor of the best one (Dolan and More 2002)."""

    factor: tuple[float, ...]
    share: dict[str, tuple[float, ...]]
    """By method, one for each factor. What is never reached counts as failure at every factor."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the median curve of one side falls below the other's for good."""

    work: float | None
    """The last crossing; None where one side is below on the whole common range."""
    low: float | None
    high: float | None
    """95% bootstrap interval over runs, of those resamples that cross last in the same direction."""
    below: str
    """a or b: the lower one at the end of the common range; empty where they are equal there."""
    share: float
    """Share of resamples with a last crossing in this direction; without one, with the same side below at the end."""


def _at_end(reached: Reached) -> list[tuple[float, bool]]:
    """Runs that never reached the target, counted to the arm's end: one that diverged early would not have later."""
    end = max((work for work, _ in reached), default=0.0)
    return [(work if there else end, there) for work, there in reached]


def _censored(reached: Reached) -> Any:
    from scipy.stats import CensoredData

    runs = _at_end(reached)
    return CensoredData.right_censored([work for work, _ in runs], [not there for _, there in runs])


def survival(reached: Reached) -> Survival:
    """Kaplan and Meier's curve with Greenwood's variance on the log-log scale. Raises ValueError without runs."""
    from scipy.stats import ecdf

    if not reached:
        raise ValueError("no survival curve without runs")
    if not any(there for _, there in reached):
        return Survival((0.0,), (1.0,), (1.0,), (1.0,), None)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the last step may go to 0, where the band is not defined
        curve = ecdf(_censored(reached)).sf
        band = curve.confidence_interval(method="log-log")
    share = [float(each) for each in curve.probabilities]
    low = [_or(each, here) for each, here in zip(band.low.probabilities, share, strict=True)]
    high = [_or(each, here) for each, here in zip(band.high.probabilities, share, strict=True)]
    work = [float(each) for each in curve.quantiles]
    median = next((there for there, left in zip(work, share, strict=True) if left <= 0.5), None)
    return Survival((0.0, *work), (1.0, *share), (1.0, *low), (1.0, *high), median)


def _or(value: float, other: float) -> float:
    return float(value) if math.isfinite(value) else other


def logrank(a: Reached, b: Reached) -> float | None:
    """Two-sided p of the log-rank test of the work to reach the target; None where no run of either did.

    Runs that did not are censored at the greatest work of their arm, also those that diverged before.
    """
    from scipy.stats import logrank as test

    if not a or not b or not any(there for _, there in [*a, *b]):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        p = float(test(_censored(a), _censored(b)).pvalue)
    return p if math.isfinite(p) else 1.0  # all at the same work


def profile(errors: Mapping[str, Mapping[str, float | None]]) -> Profile:
    """Performance profile of {task: {method: error, work or seconds}}; None is a failure, a method may lack a task.

    Raises:
        ValueError: a value is not positive.
    """
    methods = list(dict.fromkeys(method for row in errors.values() for method in row))
    ratios: dict[str, list[float]] = {method: [] for method in methods}
    for task, row in errors.items():
        known = [value for value in row.values() if value is not None and math.isfinite(value)]
        if any(value <= 0 for value in known):
            raise ValueError(f"{task}: a profile is of ratios, so of positive values")
        for method in methods:
            value = row.get(method)
            failed = value is None or not math.isfinite(value)
            ratios[method].append(math.inf if failed or value is None else value / min(known))
    factors = sorted({1.0, *(each for row in ratios.values() for each in row if math.isfinite(each))})
    tasks = max(len(errors), 1)
    share = {m: tuple(sum(each <= f for each in row) / tasks for f in factors) for m, row in ratios.items()}
    return Profile(tuple(factors), share)


def crossing(
    a: tuple[Sequence[float], Sequence[Sequence[float | None]]],
    b: tuple[Sequence[float], Sequence[Sequence[float | None]]],
) -> Crossing | None:
    """Where the medians of two arms' errors cross last, with a bootstrap interval over runs.

    Medians are taken over an arm's runs at each of its reports and joined by lines of log error in log work; a missing
    error counts as larger than any. Runs are resampled within each arm, whole courses at a time.

    Args:
        a: (work at the reports, increasing and positive; errors [run][report], positive or None).
        b: as a.

    Returns:
        None where the two have no range of work in common.
    """
    (x, ours), (y, theirs) = (_prepared(*side) for side in (a, b))
    start, end = max(x[0], y[0]), min(x[-1], y[-1])
    grid = np.unique(np.concatenate([x, y]))
    grid = grid[(grid >= start) & (grid <= end)]
    if grid.size < 2:
        return None
    found, side = _last(grid, _joined(grid, x, ours) - _joined(grid, y, theirs))
    rng = np.random.default_rng(SEED)
    again = []
    for _ in range(RESAMPLES):
        left = ours[rng.integers(len(ours), size=len(ours))]
        right = theirs[rng.integers(len(theirs), size=len(theirs))]
        again.append(_last(grid, _joined(grid, x, left) - _joined(grid, y, right)))
    same = [work for work, other in again if other == side and (found is None or work is not None)]
    share = len(same) / RESAMPLES
    below = {-1: "a", 1: "b", 0: ""}[side]
    if found is None:
        return Crossing(None, None, None, below, share)
    low, high = np.quantile([work for work in same if work is not None] or [found], [0.025, 0.975])
    return Crossing(float(np.exp(found)), float(np.exp(low)), float(np.exp(high)), below, share)


def _prepared(
    work: Sequence[float], errors: Sequence[Sequence[float | None]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log work and log errors, missing ones infinite."""
    values = [[math.inf if each is None or not math.isfinite(each) else each for each in run] for run in errors]
    return np.log(np.asarray(work, dtype=float)), np.log(np.asarray(values, dtype=float))


def _joined(grid: NDArray[np.float64], x: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median curve at the grid's points; large where it is infinite, so that signs stay."""
    return np.interp(grid, x, np.minimum(np.median(errors, axis=0), 1e6))


def _last(grid: NDArray[np.float64], gap: NDArray[np.float64]) -> tuple[float | None, int]:
    """Log work of the last change of sign of a - b, and the sign at the end: -1 if a is below."""
    sign = np.sign(np.where(np.abs(gap) < 1e-12, 0.0, gap))
    side = int(sign[-1])
    other = np.nonzero(sign == -side)[0] if side else np.array([], dtype=int)
    if not other.size:
        return None, side
    before = int(other[-1])
    after = before + 1
    while sign[after] == 0:  # they touch: the crossing is where they last do
        before, after = after, after + 1
    here, there = gap[before], gap[after]
    return float(grid[before] + (grid[after] - grid[before]) * here / (here - there)), side
