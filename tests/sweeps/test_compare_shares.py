"""Shares of failures: against scipy, printed examples, and sums over all outcomes there can be."""

import math

import numpy as np
import pytest
from scipy import stats

from sweeps.compare_shares import SHARE_MARGIN, compatible, fisher, gap, share, together


def test_wilson() -> None:
    found = share(3, 10)
    z, p, n = 1.959964, 0.3, 10  # Wilson 1927
    middle, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
    )
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert (share(0, 10).low, share(10, 10).high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no share: 0 of 0"):
        share(0, 0)


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe 1998, Table II, method 10: 56/70 - 48/80 and 9/10 - 3/10 and 0/10 - 0/10.
    assert gap(share(56, 70), share(48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert gap(share(9, 10), share(3, 10)) == pytest.approx((0.1705, 0.8090), abs=1e-4)
    assert gap(share(0, 10), share(0, 10)) == pytest.approx((-0.2775, 0.2775), abs=1e-4)


def test_fisher_is_scipys() -> None:
    assert fisher((1, 10), (7, 10)) == pytest.approx(stats.fisher_exact([[1, 9], [7, 3]]).pvalue)
    assert fisher((0, 6), (0, 6)) == 1.0


@pytest.mark.parametrize("runs", [(10, 10), (6, 9), (15, 14)])
def test_a_pair_of_tests_errs_as_often_as_said(runs: tuple[int, int]) -> None:
    """Summed over all tables, with the worst finishers' p there can be (uniform), for every number of failures."""
    for failed in range(sum(runs) + 1):
        tables = [(k, failed - k) for k in range(max(0, failed - runs[1]), min(failed, runs[0]) + 1)]
        chances = stats.hypergeom.pmf([k for k, _ in tables], sum(runs), runs[0], failed)
        wrong = 0.0
        for (mine, theirs), chance in zip(tables, chances, strict=True):
            a, b = (mine, runs[0]), (theirs, runs[1])
            here = together(fisher(a, b), a, b) <= 0.05
            grid = np.linspace(0, 0.05, 501)
            allowed = max((t for t in grid if together(t, a, b) <= 0.05), default=0.0)
            wrong += chance * (1.0 if here else allowed)
        assert wrong <= 0.05 + 1e-9
        assert wrong >= 0.025  # what is given away is only that tables are discrete


def test_without_failures_the_finishers_pay_nothing() -> None:
    assert together(0.04, (0, 10), (0, 10)) == pytest.approx(0.04)
    assert together(0.04, (5, 10), (5, 10)) > 0.06
    assert together(1.0, (5, 10), (5, 10)) == 1.0


@pytest.mark.parametrize("runs", [(6, 6), (6, 10), (10, 10), (11, 14), (15, 16), (20, 20)])
def test_shares_at_the_margin_are_seldom_called_compatible(runs: tuple[int, int]) -> None:
    n, m = runs
    allowed = np.array([[compatible((i, n), (j, m)) for j in range(m + 1)] for i in range(n + 1)])
    assert allowed[0, 0]
    for low in np.linspace(0, 1 - SHARE_MARGIN, 25):
        for p, q in ((low, low + SHARE_MARGIN), (low + SHARE_MARGIN, low)):
            wrong = stats.binom.pmf(range(n + 1), n, p) @ allowed @ stats.binom.pmf(range(m + 1), m, q)
            assert wrong <= 0.054
