"""Two samples of log errors: Welch's interval, permutation test, equivalence, BCa, ranks. Pure functions of numbers.

A log error's difference is a ratio of errors, of geometric means. Nothing here depends on the order of a sample, and
exchanging the samples changes signs only. Random draws have a fixed seed, so the same numbers give the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXACT = 1_000_000
"""Up to so many ways to split the runs, all are looked at: 10 against 10 (184,756), 11 against 11."""
DRAWS = 19_999
"""Splits that are drawn where there are more: p is known to +-0.003 at 0.05."""
KEPT, BLOCK = 100, 1000
"""Draws from up to so many runs are kept; those from more are made anew, in blocks of so many."""
BCA_FROM = 20
"""Samples of fewer have too little in their tails for the bootstrap's corrections."""
SLACK = 1e-7
"""Statistics that differ by less, relatively, are ties: the sums are made in another order."""
SEED = 4


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of a less mean of b, not assuming equal variances."""

    value: float
    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Welch's interval of this coverage, around `value`."""
        from scipy.special import stdtrit

        if self.error == 0:
            return self.value, self.value
        half = self.error * float(stdtrit(self.freedom, (1 + level) / 2))
        return self.value - half, self.value + half

    def outside(self, margin: float) -> float:
        """P of two one-sided tests: how well data like these would go with a true difference outside +-margin.

        Source: Schuirmann 1987, with Welch's degrees of freedom.
        """
        from scipy.special import stdtr

        room = margin - abs(self.value)
        if self.error == 0:
            return 0.0 if room > 0 else 1.0
        return float(stdtr(self.freedom, -room / self.error))


def welch(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> Difference:
    """The difference of means with its error (Welch 1947); each sample needs two values."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    of_x, of_y = _of_mean(x), _of_mean(y)
    both = of_x + of_y
    freedom = both**2 / (of_x**2 / (x.size - 1) + of_y**2 / (y.size - 1)) if both else math.inf
    return Difference(float(x.mean() - y.mean()), math.sqrt(both), freedom)


def _of_mean(x: Floats) -> float:
    """Squared standard error of the mean; rounding of equal values is no variance."""
    found = float(x.var(ddof=1)) / x.size
    return found if found > 1e-24 * float(np.abs(x).max()) ** 2 else 0.0


def permutation(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the unpaired studentised permutation test: twice the smaller tail of Welch's t, at most 1.

    Exact where runs are exchangeable (equal distributions, of any shape and at any sizes), and right in the limit if
    only the means are equal (Janssen 1997; Chung and Romano 2013). Up to `EXACT` splits all are looked at, else
    `DRAWS` are drawn and the observed one is counted among them. Each sample needs two values.
    """
    first, second = sorted((np.sort(np.asarray(each, dtype=float)) for each in (a, b)), key=lambda x: (x.size, *x))
    pooled = np.concatenate([first, second])
    pooled = pooled - pooled.mean()
    scale = float(np.abs(pooled).max())
    if scale < 1e-12:
        return 1.0
    pooled = pooled / scale
    size, splits = first.size, math.comb(pooled.size, first.size)
    sums = pooled[:size].sum(keepdims=True), (pooled[:size] ** 2).sum(keepdims=True)
    observed = float(_student(*sums, float((pooled**2).sum()), size, pooled.size - size)[0])
    exact = splits <= EXACT
    above, below, of = (_all if exact else _some)(pooled, size, observed)
    return min(1.0, 2 * (min(above, below) + (not exact)) / (of + (not exact)))


def _student(sums: Floats, squares: Floats, total: float, size: int, rest: int) -> Floats:
    """Welch's t of splits of values that sum to 0, from sum and sum of squares of the first `size`.

    `total` is the sum of all squares. Samples without spread have a t of huge size, or 0 if their means are equal.
    """
    var = sums * sums
    var *= -1 / (size**2 * (size - 1)) - 1 / (rest**2 * (rest - 1))
    var += total / (rest * (rest - 1))
    if size != rest:
        var += squares * (1 / (size * (size - 1)) - 1 / (rest * (rest - 1)))
    np.copyto(var, 1e-30, where=var < 1e-14)
    found = sums * (1 / size + 1 / rest)
    np.copyto(found, 0.0, where=np.abs(found) < 1e-12)
    found /= np.sqrt(var, out=var)
    return found


def _tails(found: Floats, observed: float) -> tuple[int, int]:
    """How many are at least, and at most, the observed one."""
    slack = SLACK * max(1.0, abs(observed))
    return int(np.count_nonzero(found >= observed - slack)), int(np.count_nonzero(found <= observed + slack))


def _all(pooled: Floats, size: int, observed: float) -> tuple[int, int, int]:
    """Tails over all splits, and how many there are: sums over subsets of one half of the values plus of the other."""
    half = pooled.size // 2
    left, right = pooled[:half], pooled[half:]
    total = float((pooled**2).sum())
    above = below = of = 0
    for taken in range(max(0, size - right.size), min(size, half) + 1):
        x, y = _subsets(half, taken), _subsets(right.size, size - taken)
        sums = np.add.outer(x @ left, y @ right)
        squares = np.add.outer(x @ left**2, y @ right**2)
        more, less = _tails(_student(sums, squares, total, size, pooled.size - size), observed)
        above, below, of = above + more, below + less, of + sums.size
    return above, below, of


def _some(pooled: Floats, size: int, observed: float) -> tuple[int, int, int]:
    """Tails over drawn splits, and how many were drawn."""
    total = float((pooled**2).sum())
    above = below = 0
    for rows in [_draws(pooled.size, size)] if pooled.size <= KEPT else _drawn(pooled.size, size):
        found = _student(rows @ pooled, rows @ pooled**2, total, size, pooled.size - size)
        more, less = _tails(found, observed)
        above, below = above + more, below + less
    return above, below, DRAWS


@lru_cache(maxsize=256)
def _subsets(of: int, size: int) -> Floats:
    """All subsets of this size as rows of 0 and 1: [subsets, of]."""
    rows = np.zeros((math.comb(of, size), of))
    for row, members in enumerate(combinations(range(of), size)):
        rows[row, list(members)] = 1.0
    return rows


@lru_cache(maxsize=8)
def _draws(of: int, size: int) -> Floats:
    """Random subsets of this size as rows of 0 and 1: [DRAWS, of]."""
    return np.concatenate(list(_drawn(of, size)))


def _drawn(of: int, size: int) -> Iterator[Floats]:
    """The same in blocks, for samples so large that all rows would take hundreds of megabytes."""
    rng = np.random.default_rng(SEED)
    for start in range(0, DRAWS, BLOCK):
        rows = np.zeros((min(BLOCK, DRAWS - start), of))
        rows[:, :size] = 1.0
        yield rng.permuted(rows, axis=1)


def bca(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the difference of means, BCa (Efron 1987); Welch's where a sample has no spread."""
    from scipy.stats import bootstrap

    x, y = np.sort(np.asarray(a, dtype=float)), np.sort(np.asarray(b, dtype=float))
    if not (_of_mean(x) and _of_mean(y)):
        return welch(x, y).interval(level)
    swapped = tuple(x) > tuple(y)  # the same draws whichever comes first
    samples = (y, x) if swapped else (x, y)
    rng = np.random.default_rng(SEED)
    found = bootstrap(samples, _gap, method="BCa", confidence_level=level, n_resamples=9_999, rng=rng)
    low, high = (float(each) for each in found.confidence_interval)
    return (-high, -low) if swapped else (low, high)


def _gap(x: Floats, y: Floats, axis: int) -> Any:
    return x.mean(axis=axis) - y.mean(axis=axis)


def interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of means: Welch's, or BCa where both samples have `BCA_FROM` values."""
    return bca(a, b, level) if min(len(a), len(b)) >= BCA_FROM else welch(a, b).interval(level)


def interval_of_mean(x: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of one sample's mean; it needs two values."""
    from scipy.special import stdtrit

    values = np.asarray(x, dtype=float)
    half = math.sqrt(_of_mean(values)) * float(stdtrit(values.size - 1, (1 + level) / 2))
    return float(values.mean()) - half, float(values.mean()) + half


def brunner_munzel(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p that a run of a is as likely above one of b as below it (Brunner and Munzel 2000).

    Infinite values rank last, tied. The test has no variance to divide by where one sample lies wholly above the other:
    there p is that of the split itself, two of all splits; and where all values are equal: there p is 1.
    """
    from scipy.stats import brunnermunzel, rankdata

    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    ranks = rankdata(np.concatenate([x, y]))
    first, second = ranks[: x.size], ranks[x.size :]
    if ranks.min() == ranks.max():
        return 1.0
    if first.max() < second.min() or second.max() < first.min():
        return min(1.0, 2 / math.comb(ranks.size, x.size))
    return float(brunnermunzel(first, second).pvalue)


def paired(before: Sequence[float], after: Sequence[float]) -> tuple[Difference, float]:
    """Mean change with Student's error, and its two-sided p: only for forks of one trajectory, value by value.

    p is over all signs of the changes (drawn ones from 20 pairs), studentised. Independent runs are never paired: that
    two trials have the same replicate number makes them no pair, as their courses part within a few updates.
    """
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    size = change.size
    error = math.sqrt(_of_mean(change))
    found = Difference(float(change.mean()), error, float(size - 1))
    if not np.any(change):
        return found, 1.0
    change = change / np.abs(change).max()
    exact = size < 20
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
    else:
        signs = np.random.default_rng(SEED).choice([-1.0, 1.0], size=(DRAWS, size))
    # t is a growing function of the mean, as signs leave the squares alone.
    above, below = _tails(signs @ change, float(change.sum()))
    return found, min(1.0, 2 * (min(above, below) + (not exact)) / (len(signs) + (not exact)))


def holm(ps: Sequence[float]) -> tuple[float, ...]:
    """P-values after Holm's correction for their number, in the order given (Holm 1979)."""
    found, worst = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda each: ps[each])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[index]))
        found[index] = worst
    return tuple(found)
