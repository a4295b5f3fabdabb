"""Two samples: against scipy, against splits counted one by one, and what holds whatever the numbers."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sweeps import compare_samples
from sweeps.compare_samples import bca, brunner_munzel, holm, interval, interval_of_mean, paired, permutation, welch


def two(seed: int, sizes: tuple[int, int], gap: float = 0.8) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    return list(rng.normal(0, 1, sizes[0])), list(rng.normal(gap, 1.7, sizes[1]))


@pytest.mark.parametrize("sizes", [(6, 6), (10, 10), (4, 9), (20, 3)])
def test_welch_is_scipys(sizes: tuple[int, int]) -> None:
    a, b = two(1, sizes)
    ours, theirs = welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert ours.freedom == pytest.approx(theirs.df)
    for level in (0.8, 0.95):
        assert ours.interval(level) == pytest.approx(tuple(theirs.confidence_interval(level)))
    # Two one-sided tests, each by scipy's test of shifted values; inside the margin and outside.
    for margin in (0.3, 2.5):
        above = stats.ttest_ind([x + margin for x in a], b, equal_var=False, alternative="greater").pvalue
        below = stats.ttest_ind([x - margin for x in a], b, equal_var=False, alternative="less").pvalue
        assert ours.outside(margin) == pytest.approx(max(above, below))


def test_equivalence_is_the_90_percent_interval_within_the_margin() -> None:
    found = welch(*two(2, (10, 10), gap=0.1))
    reach = max(abs(each) for each in found.interval(0.90))
    assert found.outside(reach * 1.0001) < 0.05 < found.outside(reach * 0.9999)


def test_the_interval_of_one_mean_is_students() -> None:
    a, _ = two(3, (8, 8))
    theirs = stats.ttest_1samp(a, 0).confidence_interval(0.95)
    assert interval_of_mean(a) == pytest.approx(tuple(theirs))


def slow_permutation(a: list[float], b: list[float]) -> float:
    """Twice the smaller tail of Welch's t over all splits, one by one."""
    pooled = [*a, *b]

    def student(chosen: tuple[int, ...]) -> float:
        x = [pooled[i] for i in chosen]
        y = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        spread = math.sqrt(np.var(x, ddof=1) / len(x) + np.var(y, ddof=1) / len(y))
        return float(np.mean(x) - np.mean(y)) / spread

    seen = student(tuple(range(len(a))))
    every = [student(each) for each in combinations(range(len(pooled)), len(a))]
    above = sum(each >= seen - 1e-9 for each in every)
    below = sum(each <= seen + 1e-9 for each in every)
    return min(1.0, 2 * min(above, below) / len(every))


@pytest.mark.parametrize("sizes", [(5, 5), (3, 6), (7, 2)])
@pytest.mark.parametrize("seed", [4, 5])
def test_the_permutation_test_counts_every_split(sizes: tuple[int, int], seed: int) -> None:
    a, b = two(seed, sizes)
    assert permutation(a, b) == pytest.approx(slow_permutation(a, b), abs=1e-12)


def test_the_permutation_test_is_scipys() -> None:
    a, b = two(6, (7, 6), gap=1.5)

    def student(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return stats.ttest_ind(x, y, equal_var=False, axis=axis).statistic

    theirs = stats.permutation_test((a, b), student, n_resamples=np.inf, vectorized=True)
    assert permutation(a, b) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_drawn_splits_agree_with_all_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two(7, (10, 9), gap=1.2)
    exact = permutation(a, b)
    monkeypatch.setattr(compare_samples, "EXACT", 0)
    drawn = permutation(a, b)
    assert 0.01 < exact < 0.3
    assert drawn != exact
    error = 2 * math.sqrt(exact / 2 / compare_samples.DRAWS)
    assert abs(drawn - exact) < 4 * error


def test_drawn_splits_never_give_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_samples, "EXACT", 0)
    far = permutation([0.001 * i for i in range(20)], [50 + 0.001 * i for i in range(20)])
    assert far == 2 / (compare_samples.DRAWS + 1)


def test_values_without_spread() -> None:
    assert permutation([1.0] * 6, [1.0] * 6) == 1.0
    assert permutation([0.1 + 0.2] * 6, [0.3] * 6) == 1.0  # rounding is no difference
    assert permutation([1.0] * 6, [2.0] * 6) == pytest.approx(2 / math.comb(12, 6))
    flat = welch([1.0] * 6, [2.0] * 6)
    assert flat.interval() == (-1.0, -1.0)
    assert (flat.outside(0.5), flat.outside(1.5)) == (1.0, 0.0)
    assert bca([1.0] * 20, [2.0] * 20) == (-1.0, -1.0)


numbers = st.lists(st.floats(-5, 5).map(lambda x: round(x, 2)), min_size=3, max_size=7)


@settings(max_examples=60, deadline=None)
@given(numbers, numbers, st.floats(0.01, 100), st.floats(-50, 50))
def test_order_exchange_shift_and_scale_change_nothing(a: list[float], b: list[float], by: float, off: float) -> None:
    p = permutation(a, b)
    assert 0 < p <= 1
    assert permutation(b, a) == p
    assert permutation(a[::-1], b[::-1]) == p
    assert permutation([by * x + off for x in a], [by * x + off for x in b]) == pytest.approx(p, abs=1e-12)


def test_bca_is_scipys_and_turns_with_its_samples() -> None:
    a, b = (list(np.random.default_rng(seed).exponential(1, 25)) for seed in (8, 9))
    theirs = stats.bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), method="BCa", n_resamples=9_999, rng=123
    ).confidence_interval
    width = theirs.high - theirs.low
    assert bca(a, b) == pytest.approx(tuple(theirs), abs=0.05 * width)  # other draws
    low, high = bca(a, b)
    assert bca(b, a) == (-high, -low)
    assert interval(a, b) == (low, high)
    assert interval(a[:19], b) == welch(a[:19], b).interval()


def test_brunner_munzel_is_scipys() -> None:
    a, b = two(10, (8, 7))
    assert brunner_munzel(a, b) == pytest.approx(stats.brunnermunzel(a, b).pvalue)
    with_failures = [*a, math.inf, math.inf], [*b, math.inf]
    last = [*a, 99.0, 99.0], [*b, 99.0]
    assert brunner_munzel(*with_failures) == pytest.approx(stats.brunnermunzel(*last).pvalue)


def test_brunner_munzel_where_it_has_no_variance() -> None:
    assert brunner_munzel([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == pytest.approx(2 / 20)
    assert brunner_munzel([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(2 / 20)
    assert brunner_munzel([math.inf] * 6, [math.inf] * 6) == 1.0
    assert brunner_munzel([0.1] * 6, [math.inf] * 6) == pytest.approx(2 / 924)


def test_forks_are_compared_with_what_they_left() -> None:
    rng = np.random.default_rng(11)
    before = list(rng.normal(0, 3, 8))
    after = [x - 0.2 + 0.1 * z for x, z in zip(before, rng.normal(0, 1, 8), strict=True)]
    found, p = paired(before, after)
    theirs = stats.ttest_rel(after, before)
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    signs = stats.permutation_test(
        (after, before), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=np.inf,
        vectorized=True,
    )  # fmt: skip
    assert p == pytest.approx(signs.pvalue)
    assert p < 0.05 < permutation(before, after)  # as if they were independent runs
    assert paired(before, before)[1] == 1.0
    many = [float(x) for x in rng.normal(0, 1, 30)]
    assert paired(many, [x - 5 for x in many])[1] == 2 / (compare_samples.DRAWS + 1)


def test_holm() -> None:
    # Holm 1979 by hand: 0.01 * 4, then 0.02 * 3, 0.03 * 2 -> not less than 0.06, 0.5.
    assert holm([0.5, 0.02, 0.01, 0.03]) == pytest.approx((0.5, 0.06, 0.04, 0.06))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_draws_in_blocks_are_the_draws_at_once() -> None:
    """Large samples are drawn in blocks, lest all rows take gigabytes; the splits are those of one draw."""
    of, size = 130, 30
    rows = np.zeros((compare_samples.DRAWS, of))
    rows[:, :size] = 1.0
    at_once = np.random.default_rng(compare_samples.SEED).permuted(rows, axis=1)
    blocks = list(compare_samples._drawn(of, size))
    assert max(map(len, blocks)) == compare_samples.BLOCK
    assert np.array_equal(np.concatenate(blocks), at_once)
