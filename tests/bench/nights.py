"""How often fresh-seed nights give a false alarm, and how soon they find a change: simulated histories, JSON, tables.

A history is a row of nights of one arm; log errors have a standard deviation and a shape as in verdicts.py, runs are
stuck with a given chance. What is counted is the decision of `sweeps.nights_fresh`, made faster by `Twin`: the same
windows and tests, with sums kept and most permutation tests ended early. That both decide alike is tested.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from sweeps import compare_samples
from sweeps.compare_shares import fisher, together
from sweeps.nights_fresh import HOPELESS, LEVEL, WINDOWS
from tests.bench.verdicts import SHAPES

REFERENCE = 20
SURE = 5.0
"""Standard errors above the level from which on a permutation test is not gone on with."""


@dataclass(frozen=True)
class Case:
    """Histories of one sort."""

    what: str
    """false alarms or nights to find."""
    seeds: int = 10
    shape: str = "normal"
    sd: float = 0.15
    stuck: float = 0.0
    ratio: float = 1.0
    """Errors of all nights after the reference, as a multiple of before."""
    nights: int = 100
    """After the reference."""
    histories: int = 150


@dataclass
class Twin:
    """Judges one history: log errors [nights, seeds], NaN of runs that failed."""

    logs: np.ndarray[Any, Any]
    base: np.ndarray[Any, Any] = field(init=False)
    sums: np.ndarray[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.base = np.sort(self.logs[:REFERENCE].ravel())
        self.base = self.base[~np.isnan(self.base)]
        after = self.logs[REFERENCE:]
        there = ~np.isnan(after)
        filled = np.where(there, after, 0.0)
        each = np.stack([there.sum(1), filled.sum(1), (filled**2).sum(1)])
        self.sums = np.concatenate([np.zeros((3, 1)), each.cumsum(1)], axis=1)

    def alarm(self, night: int, worse: bool | None = None) -> bool:
        """Whether the night, counted from 1 after the reference, gives an alarm; if said, of that direction."""
        windows = [nights for nights in WINDOWS if nights <= night]
        found = (self._counts(night, nights, LEVEL / len(windows)) for nights in windows)
        return any(each is not None and worse in (None, each) for each in found)

    def _counts(self, night: int, nights: int, level: float) -> bool | None:
        """Whether a window is worse; None if it does not count."""
        count, total, squares = self.sums[:, night] - self.sums[:, night - nights]
        runs, base = nights * self.logs.shape[1], REFERENCE * self.logs.shape[1]
        failed, other = (runs - int(count), runs), (base - self.base.size, base)
        p = 1.0
        if min(count, self.base.size) >= 3 and self._hopeful(count, total, squares):
            new = self.logs[REFERENCE + night - nights : REFERENCE + night].ravel()
            p = permutation(new[~np.isnan(new)], self.base, level)
        lost = fisher(failed, other) if failed[0] + other[0] else 1.0
        smaller = min(p, lost)
        if smaller > level or together(smaller, failed, other) > level:
            return None
        return bool(failed[0] / failed[1] > other[0] / other[1] if lost < p else total / count > self.base.mean())

    def _hopeful(self, count: float, total: float, squares: float) -> bool:
        """Whether Welch's p is below HOPELESS."""
        mine = max(0.0, squares / count - (total / count) ** 2) / (count - 1)
        theirs = float(self.base.var(ddof=1)) / self.base.size
        freedom = (mine + theirs) ** 2 / (mine**2 / (count - 1) + theirs**2 / (self.base.size - 1))
        gap = abs(total / count - float(self.base.mean()))
        return gap >= math.sqrt(mine + theirs) * float(stdtrit(freedom, 1 - HOPELESS / 2))


def permutation(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], level: float) -> float:
    """`compare_samples.permutation`, ended as soon as its draws leave no doubt that p is above the level."""
    pooled = np.concatenate(sorted([np.sort(a), np.sort(b)], key=len))
    size = min(len(a), len(b))
    if math.comb(pooled.size, size) <= compare_samples.EXACT:
        return compare_samples.permutation(list(a), list(b))
    pooled = pooled - pooled.mean()
    pooled /= np.abs(pooled).max()
    total = float((pooled**2).sum())
    first = [each.sum(keepdims=True) for each in (pooled[:size], pooled[:size] ** 2)]
    observed = float(compare_samples._student(*first, total, size, pooled.size - size)[0])
    above = below = done = 0
    for rows in chain([_first(pooled.size, size)], islice(compare_samples._drawn(pooled.size, size), 1, None)):
        found = compare_samples._student(rows @ pooled, rows @ pooled**2, total, size, pooled.size - size)
        more, less = compare_samples._tails(found, observed)
        above, below, done = above + more, below + less, done + len(rows)
        fewest = min(above, below)
        if fewest > level / 2 * done + SURE * math.sqrt(level / 2 * done) + 2:
            return 1.0
    return min(1.0, 2 * (fewest + 1) / (done + 1))


@lru_cache(maxsize=16)
def _first(of: int, size: int) -> np.ndarray[Any, Any]:
    return next(compare_samples._drawn(of, size))


def history(case: Case, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Log errors [nights, seeds] of one history, NaN of runs that failed."""
    nights = REFERENCE + case.nights
    logs = case.sd * SHAPES[case.shape](rng, nights * case.seeds).reshape(nights, case.seeds)
    logs[REFERENCE:] += math.log(case.ratio)
    logs[rng.random(logs.shape) < case.stuck] = math.nan
    return np.asarray(logs)


def measured(case: Case, seed: int = 0) -> dict[str, Any]:
    """False alarms per 100 nights with their standard error, or quantiles of the nights it takes to find a change."""
    rng = np.random.default_rng([seed, case.seeds])
    twins = [Twin(history(case, rng)) for _ in range(case.histories)]
    if case.what == "false alarms":
        alarms = np.array([[twin.alarm(night) for night in range(1, case.nights + 1)] for twin in twins])
        each = 100 * alarms.mean(1)
        begun = 100 * (alarms & ~_lately(alarms)).mean()
        error = float(each.std(ddof=1) / math.sqrt(len(each)))
        return {**asdict(case), "per_100": float(each.mean()), "error": error, "events_per_100": float(begun)}
    found = [next((n for n in range(1, case.nights + 1) if twin.alarm(n, worse=True)), math.inf) for twin in twins]
    quantiles = [float(np.quantile(found, q, method="higher")) for q in (0.5, 0.9)]
    shown = [int(each) if math.isfinite(each) else None for each in quantiles]
    return {**asdict(case), "median": shown[0], "ninth": shown[1], "found": float(np.isfinite(found).mean())}


def _lately(alarms: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whether there was an alarm in the 8 nights before: then another one is the same event, and no new message."""
    before = np.zeros_like(alarms)
    for back in range(1, 9):
        before[:, back:] |= alarms[:, :-back]
    return before


NULL = [
    *(Case("false alarms", 5, shape, histories=450) for shape in ("normal", "skewed")),
    *(Case("false alarms", 10, shape) for shape in ("normal", "skewed")),
    *(Case("false alarms", seeds, "skewed, heavy tail") for seeds in (5, 10)),
    *(Case("false alarms", seeds, stuck=stuck) for seeds in (5, 10) for stuck in (0.2, 0.5)),
    *(Case("false alarms", seeds, "skewed, heavy tail", stuck=0.5) for seeds in (5, 10)),
]
SPREADS = ((0.09, 0.0), (0.15, 0.0), (0.4, 0.0), (0.66, 0.0), (0.4, 0.2))
"""(sd of log errors, share stuck): SCIENCE 11 saw .09 with SGD, .40 to .66 with momentum; verdicts.py has .15."""
FOUND = [
    *(Case("nights to find", seeds, histories=100) for seeds in (5, 10)),  # no change: what chance alone finds
    *(
        Case("nights to find", seeds, sd=sd, stuck=stuck, ratio=ratio, histories=100)
        for sd, stuck in SPREADS
        for seeds in (5, 10)
        for ratio in (1.1, 1.25, 1.5)
    ),
]


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Results as lines of text."""
    for row in rows:
        words = f"{row['seeds']:2d} seeds, sd {row['sd']:g}, {row['shape']}, stuck {row['stuck']:g}"
        if row["what"] == "false alarms":
            events = f"{row['events_per_100']:.2f} events"
            yield f"{row['per_100']:5.2f} +- {row['error']:.2f} false alarms per 100 nights, {events}: {words}"
            continue
        ends = ["more" if row[key] is None else str(row[key]) for key in ("median", "ninth")]
        yield f"{ends[0]:>4s} nights (90%: {ends[1]:>4s}), found {row['found']:4.0%}: x {row['ratio']:g}, {words}"


def main() -> None:
    """Simulate, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(arguments.workers) as workers:
        for row in workers.map(measured, [*NULL, *FOUND]):
            rows.append(row)
            print(*table([row]), flush=True)
    if arguments.json:
        versions = {name: version(name) for name in ("scipy", "numpy", "musweep")}
        rules = {"level": LEVEL, "windows": WINDOWS, "reference": REFERENCE}
        arguments.json.write_text(json.dumps({**rules, "versions": versions, "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
