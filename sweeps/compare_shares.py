"""Shares of runs that fail: Wilson's interval, Fisher's test, and how its p goes together with another's."""

from __future__ import annotations

import math
from functools import lru_cache

from sweeps.comparison import Share

SHARE_MARGIN = 0.4
"""Shares of failures are compatible when their difference is surely less. Wide, but about the least that 6 runs of each
can show at 5%, none of them failed: with a true share of 0.4 that happens in 0.6**6 = 4.7%."""


@lru_cache(maxsize=4096)
def share(count: int, of: int, level: float = 0.95) -> Share:
    """A share with its Wilson interval. Raises ValueError unless 0 <= count <= of and there is a run."""
    from scipy.stats import binomtest

    if not 0 <= count <= of or of == 0:
        raise ValueError(f"no share: {count} of {of} runs")
    low, high = binomtest(count, of).proportion_ci(level, method="wilson")
    return Share(count=count, of=of, value=count / of, low=float(low), high=float(high))


def gap(a: Share, b: Share) -> tuple[float, float]:
    """Interval of the difference a - b, of the coverage that the two have.

    Source: Newcombe 1998, Statistics in Medicine 17, method 10.
    """
    here = a.value - b.value
    low = here - math.hypot(a.value - a.low, b.high - b.value)
    high = here + math.hypot(a.high - a.value, b.value - b.low)
    return low, high


def compatible(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether the shares of two (failed, runs) surely differ by less than `SHARE_MARGIN`.

    The 95% interval has to be within, as the 90% one of two one-sided tests at 5% is wrong in up to 8% at these sizes.
    With 95% it is wrong in 5.4% at most: computed over all shares, 6 to 30 runs. At 10 runs it takes equal counts.
    """
    low, high = gap(share(*a), share(*b))
    return low > -SHARE_MARGIN and high < SHARE_MARGIN


@lru_cache(maxsize=65536)
def fisher(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Two-sided p of Fisher's exact test on two (failed, runs)."""
    from scipy.stats import fisher_exact

    table = [[a[0], a[1] - a[0]], [b[0], b[1] - b[0]]]
    return min(1.0, float(fisher_exact(table).pvalue))


@lru_cache(maxsize=4096)
def _attainable(runs_a: int, runs_b: int, failed: int) -> tuple[tuple[float, float], ...]:
    """Every table with these margins as (its Fisher p, its chance if arms are equal)."""
    splits = math.comb(runs_a + runs_b, failed)
    found = []
    for mine in range(max(0, failed - runs_b), min(failed, runs_a) + 1):
        chance = math.comb(runs_a, mine) * math.comb(runs_b, failed - mine) / splits
        found.append((fisher((mine, runs_a), (failed - mine, runs_b)), chance))
    return tuple(found)


def together(p: float, a: tuple[int, int], b: tuple[int, int]) -> float:
    """The smaller p of failures and finishers, corrected for there being two: the p of the pair.

    Given how many runs failed in all, the chance that Fisher's p comes out at or below `p` is known exactly, and the
    finishers' p is below it by a chance of `p` at most whichever runs failed. So

        chance(either <= p) = chance(Fisher's <= p) + (1 - chance(Fisher's <= p)) * p .

    This is the smaller of two p-values (Tippett 1931) with the first one's exact law in place of a uniform one. No
    failure, nothing to pay; both continuous, it is Sidak's correction.

    Args:
        p: the smaller one.
        a: (failed, runs) of one side.
        b: (failed, runs) of the other.
    """
    table = _attainable(a[1], b[1], a[0] + b[0])
    reached = sum(chance for each, chance in table if each <= p * (1 + 1e-9))
    return min(1.0, reached + (1 - reached) * p)
