"""Courses: survival by hand and by scipy, profiles by hand, crossings of curves whose crossing is known."""

import math

import numpy as np
import pytest
from scipy import stats

from sweeps.compare_curves import crossing, logrank, profile, survival

FREIREICH = (
    # Weeks of remission under 6-MP, and without; a classical example (Freireich 1963).
    [(6, True), (6, True), (6, True), (6, False), (7, True), (9, False), (10, True), (10, False), (11, False),
     (13, True), (16, True), (17, False), (19, False), (20, False), (22, True), (23, True), (25, False), (32, False),
     (32, False), (34, False), (35, False)],
    [(w, True) for w in (1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23)],
)  # fmt: skip


def test_survival_by_hand() -> None:
    # 5 runs to 100: two reach it at 20, one at 50. After 20: 3/5; after 50: 2/5.
    found = survival([(20.0, True), (100.0, False), (50.0, True), (20.0, True), (100.0, False)])
    assert found.work[:3] == (0.0, 20.0, 50.0)
    assert found.share[:3] == pytest.approx((1.0, 0.6, 0.4))
    assert found.median == 50.0
    # Greenwood: var(log(-log S)) = sum d / (n (n - d)) / log(S)^2, here 2 / (5 * 3).
    width = 1.959964 * math.sqrt(2 / 15) / abs(math.log(0.6))
    assert found.low[1] == pytest.approx(0.6 ** math.exp(width), abs=1e-5)
    assert found.high[1] == pytest.approx(0.6 ** math.exp(-width), abs=1e-5)


def test_survival_at_its_ends() -> None:
    everyone = survival([(10.0, True), (20.0, True)])
    assert everyone.share[-1] == everyone.low[-1] == everyone.high[-1] == 0.0
    nobody = survival([(10.0, False), (20.0, False)])
    assert (nobody.share, nobody.median) == ((1.0,), None)
    with pytest.raises(ValueError, match="without runs"):
        survival([])


def test_a_run_that_diverged_early_counts_as_never_there() -> None:
    # Censored where it ended, it would leave the runs at risk and raise the others' weight: 1/2 after 50, not 2/3.
    early = survival([(50.0, True), (3.0, False), (100.0, False)])
    assert early.share[1] == pytest.approx(2 / 3)
    assert logrank([(50.0, True), (3.0, False)], [(70.0, True), (100.0, False)]) == logrank(
        [(50.0, True), (50.0, False)], [(70.0, True), (100.0, False)]
    )


def test_logrank_by_hand() -> None:
    # A textbook's sum: observed less expected, hypergeometric variance, at each time someone gets there.
    a, b = [(1.0, True), (3.0, True), (9.0, False)], [(2.0, True), (9.0, True), (9.0, True)]
    gap = var = 0.0
    for when in (1.0, 2.0, 3.0, 9.0):
        n, m = sum(t >= when for t, _ in a), sum(t >= when for t, _ in b)
        d = sum(t == when and there for t, there in [*a, *b])
        gap += sum(t == when and there for t, there in a) - d * n / (n + m)
        if n + m > 1:
            var += d * (n / (n + m)) * (m / (n + m)) * (n + m - d) / (n + m - 1)
    assert logrank(a, b) == pytest.approx(2 * stats.norm.sf(abs(gap) / math.sqrt(var)))


def test_logrank_of_leukaemia() -> None:
    treated, control = FREIREICH
    # The printed chi-square is 16.79; ours counts censored runs to the arm's end, so it is checked on raw scipy first.
    raw = stats.logrank(
        *(
            stats.CensoredData.right_censored([t for t, _ in arm], [not there for _, there in arm])
            for arm in (treated, control)
        )
    )
    assert raw.statistic**2 == pytest.approx(16.79, abs=0.01)
    assert logrank(treated, control) < raw.pvalue  # those out of sight did not relapse


def test_logrank_without_events() -> None:
    assert logrank([(9.0, False)] * 6, [(9.0, False)] * 6) is None
    assert logrank([], [(9.0, True)]) is None
    assert logrank([(9.0, True)] * 6, [(9.0, True)] * 6) == 1.0


def test_a_performance_profile_by_hand() -> None:
    found = profile({
        "curves": {"hf": 2.0, "nag": 1.0, "sgd": None},
        "mnist": {"hf": 3.0, "nag": 3.0, "sgd": 12.0},
        "faces": {"hf": 1.0, "nag": 4.0},
    })  # fmt: skip
    assert found.factor == (1.0, 2.0, 4.0)
    assert found.share["hf"] == pytest.approx((2 / 3, 1.0, 1.0))
    assert found.share["nag"] == pytest.approx((2 / 3, 2 / 3, 1.0))
    assert found.share["sgd"] == pytest.approx((0.0, 0.0, 1 / 3))
    nobody = profile({"curves": {"hf": None, "nag": None}})
    assert nobody.share == {"hf": (0.0,), "nag": (0.0,)}
    with pytest.raises(ValueError, match="faces"):
        profile({"faces": {"hf": 0.0}})


def line(work: np.ndarray, power: float, at: float, seeds: int, noise: float, seed: int) -> list[list[float]]:
    """Errors that fall as work**-power and are 1 at `at`: straight in logs, so the crossing is exactly there."""
    rng = np.random.default_rng(seed)
    return [[float((w / at) ** -power * math.exp(shift)) for w in work] for shift in noise * rng.standard_normal(seeds)]


def test_a_crossing_is_found_where_it_is() -> None:
    # Other reports on each side: straight lines make up for that.
    x, y = np.geomspace(1, 1000, 9), np.geomspace(2, 3000, 13)
    found = crossing((x, line(x, 1.0, 50.0, 3, 0.0, 0)), (y, line(y, 0.25, 50.0, 4, 0.0, 0)))
    assert found is not None
    assert found.work == pytest.approx(50.0)
    assert (found.low, found.high) == pytest.approx((50.0, 50.0))
    assert (found.below, found.share) == ("a", 1.0)
    turned = crossing((y, line(y, 0.25, 50.0, 4, 0.0, 0)), (x, line(x, 1.0, 50.0, 3, 0.0, 0)))
    assert turned is not None
    assert turned.below == "b"
    assert turned.work == pytest.approx(50.0)


def test_a_crossings_interval_is_over_seeds() -> None:
    x = np.geomspace(1, 1000, 15)
    found = crossing((x, line(x, 1.0, 50.0, 10, 0.2, 1)), (x, line(x, 0.25, 50.0, 10, 0.2, 2)))
    assert found is not None
    assert found.work is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < 50.0 < found.high
    # A log shift's median over 10 has deviation near 1.25 * 0.2 / sqrt(10); two of them, over the slopes' gap of 0.75.
    width = math.log(found.high / found.low)
    assert 0.5 < width / (2 * 1.96 * math.sqrt(2) * 1.25 * 0.2 / math.sqrt(10) / 0.75) < 1.8


def test_no_crossing() -> None:
    x = [1.0, 10.0, 100.0]
    found = crossing((x, [[1.0, 0.5, 0.1]] * 3), (x, [[2.0, 1.0, 0.3]] * 3))
    assert found is not None
    assert (found.work, found.below, found.share) == (None, "a", 1.0)
    assert crossing((x, [[1.0, 1.0, 1.0]]), ([200.0, 300.0], [[1.0, 1.0]])) is None
    equal = crossing((x, [[1.0, 1.0, 1.0]]), (x, [[1.0, 1.0, 1.0]]))
    assert equal is not None
    assert (equal.work, equal.below) == (None, "")


def test_of_several_crossings_the_last_counts() -> None:
    x = [1.0, 10.0, 100.0, 1000.0]
    found = crossing((x, [[1.0, 1.0, 1.0, 1.0]]), (x, [[2.0, 0.5, 2.0, 0.5]]))
    assert found is not None
    assert found.work == pytest.approx(math.sqrt(100 * 1000))
    assert found.below == "b"


def test_runs_that_diverged_count_as_worst() -> None:
    x = [1.0, 10.0, 100.0]
    lost = [[0.1, 0.1, None]] * 2 + [[0.1, 0.1, 0.1]]
    found = crossing((x, lost), (x, [[1.0, 1.0, 1.0]] * 3))
    assert found is not None
    assert found.below == "b"
    assert found.work is not None
    assert 10.0 <= found.work <= 100.0
