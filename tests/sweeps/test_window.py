"""A window is a function of what was added; a search that learns from one is a function of its journal."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.spec import parse
from sweeps.window import AUTO, LEAST, Window
from tests.sweeps.test_search import CONDITIONAL, Sweep, make


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(3, 30), st.randoms(use_true_random=False))
def test_a_window_holds_the_best_third_and_the_latest_others(ranks, size, rng):
    window, order = Window(size), list(enumerate(ranks))
    rng.shuffle(order)
    left = set()
    for n, (number, rank) in enumerate(order, 1):
        gone = window.add(number, rank)
        left |= {gone} - {None}
        best = sorted((rank, number) for number, rank in order[:n])[: size // 3]
        others = sorted({number for number, _ in order[:n]} - {number for _, number in best})
        assert list(window) == sorted([number for _, number in best] + others[-(size - size // 3) :])
        assert set(window) | left == {number for number, _ in order[:n]}
        assert len(window) == min(n, size)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_within_its_window_tpe_proposes_what_it_would_from_all(mode):
    sign = 1 if mode == "min" else -1
    asked = [Sweep(make("tpe", CONDITIONAL, mode, window=w), 4, sign).run(75).asked for w in ("auto", LEAST, None)]
    assert asked[0] == asked[1] == asked[2]


def test_past_its_window_tpe_still_learns_and_resumes_as_it_was():
    whole = Sweep(make("tpe", CONDITIONAL, window=LEAST), slots=5).run(160)
    assert whole.asked != Sweep(make("tpe", CONDITIONAL, window=None), slots=5).run(160).asked
    for cut in random.Random(0).sample(range(90, 158), 6):
        resumed = Sweep(make("tpe", CONDITIONAL, window=LEAST), slots=5)
        resumed.asked, resumed.records = whole.asked[:cut], whole.records[: whole.steps[cut - 1]]
        resumed.proposer.replay(resumed.records)
        ended = {record["trial"] for record in resumed.records if record["type"] == "end"}
        resumed.running = {n: whole.asked[n] for n in range(cut) if n not in ended}
        resumed.run(2)
        assert resumed.asked == whole.asked[: cut + 2], f"cut after {cut}"


def test_tpe_sees_no_more_than_its_window_and_what_runs():
    sweep = Sweep(make("tpe", window=LEAST), slots=7).run(140)
    with sweep.proposer._learnt.asked():
        seen = sweep.proposer.study.get_trials(deepcopy=False)
    states = [trial.state.name for trial in seen]
    assert [trial.number for trial in seen] == sorted(trial.number for trial in seen)
    assert states.count("RUNNING") == 7
    assert len(states) == LEAST + 7
    everything = sweep.proposer.study.get_trials(deepcopy=False)
    assert len(everything) == 140
    best = sorted(trial.value for trial in everything if trial.state.name == "COMPLETE")[: LEAST // 3]
    assert set(best) <= {trial.value for trial in seen}


@pytest.mark.parametrize("wrong", [LEAST - 1, 0, True, "most", 80.5])
def test_what_is_no_window_is_refused(wrong):
    with pytest.raises(ValueError, match=r"search\.window"):
        parse({"task": "digits", "space": CONDITIONAL, "search": {"window": wrong}})


def test_by_default_a_window_is_wider_than_most_searches():
    assert parse({"task": "digits", "space": CONDITIONAL}).search.window == "auto"
    assert AUTO == 750
