import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.stopping import Standing, class_of, promote

NAN, INF = math.nan, math.inf
scores = st.one_of(st.integers(-4, 4).map(float), st.sampled_from([NAN, INF, -INF]))
boards = st.dictionaries(st.integers(0, 30), scores, min_size=1, max_size=20)
modes = st.sampled_from(["min", "max"])
orders = st.sampled_from(["number", "arrival"])
factors = st.integers(2, 5)


def decide(board, number, factor, mode="min", order="number"):
    return promote(number, board[number], board.items(), factor, mode, order)


def test_nine_increasing_scores_by_three_pass_only_the_first():
    # Each is worse than all before it: rank m among m, and m <= max(1, m // 3) only for m = 1.
    board = {n: float(n) for n in range(9)}
    assert [decide(board, n, 3) for n in range(9)] == [True] + [False] * 8


def test_nine_decreasing_scores_by_three_all_pass():
    board = {n: -float(n) for n in range(9)}
    assert all(decide(board, n, 3) for n in range(9))


def test_by_arrival_exactly_the_top_third_of_a_full_rung_passes():
    board = dict(enumerate([5.0, 3.0, 8.0, 1.0, 7.0, 2.0, 9.0, 4.0, 6.0]))
    passed = {n for n in board if decide(board, n, 3, order="arrival")}
    assert passed == {3, 5, 1}  # the scores 1, 2, 3
    passed = {n for n in board if decide(board, n, 3, "max", "arrival")}
    assert passed == {6, 2, 4}  # the scores 9, 8, 7


def test_rule_by_hand_at_factor_two():
    # m:      1     2     3     4     5     6
    # k:      1     1     1     2     2     3
    board = dict(enumerate([4.0, 6.0, 3.0, 3.5, 3.6, 3.7]))
    # ranks:  1     2     1     2     3     4
    assert [decide(board, n, 2) for n in range(6)] == [True, False, True, True, False, False]


def test_ties_go_to_the_lower_number():
    board = dict.fromkeys(range(6), 1.0)
    # Trial n has rank n + 1 among its n + 1 judges; with all six there are 6 // 3 = 2 places.
    assert [decide(board, n, 3) for n in range(6)] == [True, False, False, False, False, False]
    assert [decide(board, n, 3, order="arrival") for n in range(6)] == [True, True, False, False, False, False]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("order", ["number", "arrival"])
def test_a_score_that_is_not_finite_is_never_promoted_and_ranks_last(bad, mode, order):
    assert not promote(0, bad, [], 3, mode, order)
    assert not promote(3, bad, [(0, bad), (1, bad), (2, bad)], 3, mode, order)
    worst = 1e300 if mode == "min" else -1e300
    assert promote(3, worst, [(0, bad), (1, bad), (2, bad)], 3, mode, order)
    # Yet it counts as a score: of six, two places, and the second best takes the second place.
    others = [(0, 0.0), *((n, bad) for n in range(1, 5))]
    assert promote(5, worst, others, 3, mode, order)
    assert not promote(5, worst, others[:5], 4, mode, order)


@given(boards, factors, modes, orders, st.randoms(use_true_random=False))
def test_the_order_of_the_others_and_its_own_pair_do_not_matter(board, factor, mode, order, rng):
    number = rng.choice(list(board))
    pairs = [pair for pair in board.items() if pair[0] != number]
    expected = promote(number, board[number], pairs, factor, mode, order)
    rng.shuffle(pairs)
    assert promote(number, board[number], pairs, factor, mode, order) == expected
    assert promote(number, board[number], [*pairs, (number, board[number])], factor, mode, order) == expected


@given(boards, boards, factors, modes)
def test_by_number_higher_numbers_do_not_matter(board, more, factor, mode):
    number = max(board)
    later = {number + 1 + n: score for n, score in more.items()}
    assert decide(board | later, number, factor, mode) == decide(board, number, factor, mode)


@given(boards, scores, factors, modes, orders, st.randoms(use_true_random=False))
def test_a_better_score_never_loses_a_promotion(board, other, factor, mode, order, rng):
    number = rng.choice(list(board))
    if not math.isfinite(other) or not decide(board, number, factor, mode, order):
        return
    better = (min if mode == "min" else max)(other, board[number])
    assert decide(board | {number: better}, number, factor, mode, order)


@given(boards, factors, orders, st.randoms(use_true_random=False))
def test_max_of_scores_is_min_of_their_negatives(board, factor, order, rng):
    number = rng.choice(list(board))
    negatives = {n: -score for n, score in board.items()}
    assert decide(board, number, factor, "max", order) == decide(negatives, number, factor, "min", order)


@given(boards, factors, modes)
def test_the_best_so_far_always_passes(board, factor, mode):
    finite = {n: score for n, score in board.items() if math.isfinite(score)}
    if finite:
        best = (min if mode == "min" else max)(finite.values())
        first = min(n for n, score in finite.items() if score == best)
        assert decide(board, first, factor, mode)


@given(st.lists(st.tuples(st.integers(0, 40), scores), max_size=60), factors, modes, orders)
def test_scores_kept_in_order_judge_as_the_plain_function_does(entered, factor, mode, order):
    """Whatever comes in whatever order, some of it again with another score, and each number judged after each."""
    standing, plain = Standing(mode), {}
    for number, score in entered:
        standing[number] = plain[number] = score
        for other in range(0, 45, 3):
            own = plain.get(other, 0.5)
            assert standing.passes(other, own, factor, order) == promote(other, own, plain.items(), factor, mode, order)


def test_class_of():
    assert class_of({"depth": 3, "lr": 0.1}, ["depth"]) == (3,)
    assert class_of({"depth": 3, "lr": 0.1}, ["depth", "init"]) == (3, None)
    assert class_of({"depth": 3}, None) == class_of({"depth": 7}, []) == ()


@pytest.mark.parametrize("wrong", [{"factor": 1}, {"mode": "best"}, {"order": "random"}])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        promote(0, 1.0, [], **({"factor": 3} | wrong))
