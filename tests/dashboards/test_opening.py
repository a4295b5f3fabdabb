import json
from dataclasses import replace
from pathlib import Path

import pytest

from dashboards.opening import Opening, change, headline, opening
from dashboards.view import number, read
from tests.dashboards.synthetic import Sweep, make
from tests.dashboards.synthetic_contest import Contest, compared, make_contest, rewrite


def opened(folder: Path, contest: Contest) -> Opening:
    return opening(read(make_contest(folder, Sweep(trials=30), contest)))


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (0.8, "20% smaller"), (1.06, "6.0% larger"), (0.996, "0.4% smaller"), (1.0996, "10% larger"),
        (0.5, "2 times smaller"), (0.0013, "770 times smaller"), (3.17, "3.2 times larger"),
    ],
)  # fmt: skip
def test_ratios_in_words(ratio: float, words: str) -> None:
    assert change(ratio) == words


@pytest.mark.parametrize(
    ("contest", "badge", "words"),
    [
        (Contest(gap=0.7), "better", "beats HF: "),
        (Contest(gap=1.5), "worse", "loses to HF: "),
        (Contest(gap=1.0, sd=0.03, stuck=(0, 0)), "equivalent", "and HF end equally well, within 10%"),
        (Contest(gap=0.97, sd=0.2, seeds=8), "not distinguishable", "and HF cannot be told apart here"),
        (Contest(seeds=4), "no verdict", "4 seeds are too few, it takes 6"),
    ],
)
def test_each_verdict_is_said_with_its_numbers(tmp_path: Path, contest: Contest, badge: str, words: str) -> None:
    found = opened(tmp_path, contest)
    comparison = compared(tmp_path)
    primary = comparison.primary
    assert primary is not None
    assert primary.ratio is not None
    assert found.badge == primary.verdict == badge
    assert words in found.headline
    assert found.reading[0] == primary.sentence
    a, b = comparison.arm(primary.a), comparison.arm(primary.b)
    for arm in (a, b):
        seeds = f"{contest.seeds - arm.stuck.count} of {contest.seeds}" if arm.stuck.count else f"{contest.seeds}"
        words = f"{number(arm.typical)} ({number(arm.low)} to {number(arm.high)}, {seeds} seeds)"
        assert words in found.fine[0]
    assert f"{a.stuck.count} of {contest.seeds}" in found.fine[0]
    if badge in ("better", "worse"):
        assert primary.low is not None
        assert primary.high is not None
        assert change(primary.ratio) in found.headline
        near, far = (primary.high, primary.low) if badge == "better" else (primary.low, primary.high)
        assert f"at least {change(near)} and at most {change(far)}" in found.reading[1]
    assert not found.add


def test_an_interval_across_one_says_both_ends(tmp_path: Path) -> None:
    make_contest(tmp_path, Sweep(trials=30))
    comparison = compared(tmp_path)
    primary = comparison.primary
    assert primary is not None
    open_ = replace(primary, verdict="not distinguishable", ratio=0.97, low=0.9, high=1.05)
    rewrite(tmp_path, contrasts=(open_,))
    assert "anything from 10% smaller to 5.0% larger" in opening(read(tmp_path)).reading[1]


def test_a_verdict_by_failures_names_no_ratio(tmp_path: Path) -> None:
    make_contest(tmp_path, Sweep(trials=30))
    comparison = compared(tmp_path)
    assert comparison.primary is not None
    by_failures = replace(comparison.primary, decided_by="failures", verdict="worse")
    assert headline(comparison, by_failures, "NAG", "HF") == (
        "NAG loses to HF: more of its runs got stuck or diverged."
    )


def test_a_large_score_is_not_called_smaller(tmp_path: Path) -> None:
    """With mode max the ratio is of errors, the distances to 1 (sweeps.compare.errors)."""
    make_contest(tmp_path, Sweep(trials=30), Contest(gap=0.7))
    comparison = replace(compared(tmp_path), mode="max", metric="valid_accuracy")
    assert comparison.primary is not None
    assert headline(comparison, comparison.primary, "NAG", "HF").endswith(" smaller error.")


def test_two_arms_of_one_method_are_told_apart(tmp_path: Path) -> None:
    make_contest(tmp_path, Sweep(trials=30))
    comparison = compared(tmp_path)
    primary = comparison.primary
    assert primary is not None
    twins = tuple(replace(arm, method="nag", params={**arm.params, "mu_max": 0.9 + i / 100}) for i, arm in
                  enumerate(comparison.arms))  # fmt: skip
    rewrite(tmp_path, arms=twins, contrasts=(replace(primary, b="p2", verdict="better", ratio=0.8, high=0.9),))
    assert opening(read(tmp_path)).headline.startswith("NAG µ 0.9 beats NAG µ 0.91: 20% smaller")


def test_a_refusal_says_why(tmp_path: Path) -> None:
    why = "p1 is not compared with hf: budget: 3 against 4"
    found = opened(tmp_path, Contest(refusals=(why, "more")))
    assert (found.badge, found.headline) == ("no verdict", "No verdict: what was asked for cannot be compared.")
    assert found.reading[0] == f"{why}."
    assert found.fine == ["Not compared: more."]


def test_confirmed_without_a_baseline_says_what_to_add(tmp_path: Path) -> None:
    found = opened(tmp_path, Contest(hf=False))
    assert found.badge == "confirmed, not compared"
    assert "nothing to hold it against" in found.reading[0]
    assert found.add == [("In the sweep file:", "baselines: [{kind: hf}]")]


def test_a_search_alone_is_called_lucky_and_gets_no_verdict(tmp_path: Path) -> None:
    view = read(make(tmp_path / "search one", Sweep(trials=40)))
    found = opening(view)
    assert view.best is not None
    ended = sum(view.value(trial) is not None for trial in view.ranked)
    assert found.headline == (f"Valid squared error {number(view.value(view.best))}, the best of {ended} noisy trials.")
    assert "a lucky one" in found.reading[1]
    assert "No verdict" in found.reading[2]
    assert found.add == [
        ("To get one for this sweep:", "musweep confirm 'search one' --top 3 --seeds 10 --hf"),
        ("Or in the next sweep file:", "confirm: {top: 3, seeds: 10}\nbaselines: [{kind: hf}]"),
    ]


def test_a_trainer_of_ones_own_is_not_offered_hf(tmp_path: Path) -> None:
    spec = json.loads((make(tmp_path, Sweep(trials=9)) / "spec.json").read_text())
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"trainer": "mine:train"}))
    assert "hf" not in str(opening(read(tmp_path)).add)


@pytest.mark.parametrize(
    ("sweep", "headline"),
    [
        (Sweep(trials=0), "No result yet."),
        (Sweep(trials=7, diverge=1e9, rungs=()), "No result: all 7 trials that ended"),
    ],
)
def test_nothing_to_say_is_said(tmp_path: Path, sweep: Sweep, headline: str) -> None:
    assert opening(read(make(tmp_path, sweep))).headline.startswith(headline)


def test_while_confirming_the_verdict_is_yet_to_come(tmp_path: Path) -> None:
    spec = json.loads((make(tmp_path, Sweep(trials=20)) / "spec.json").read_text())
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"confirm": {"top": 3, "seeds": 10}}))
    found = opening(read(tmp_path))
    assert found.badge == "no verdict yet"
    assert found.headline.startswith("So far: ")
    assert found.add == []


def test_both_ends_of_an_interval_are_told_in_the_same_words() -> None:
    assert (change(0.53, times=False), change(0.49, times=False)) == ("47% smaller", "51% smaller")
    assert (change(0.49), change(0.1, times=False)) == ("2 times smaller", "90% smaller")


def test_of_confirmed_points_the_searchs_best_is_named_not_the_lucky_one(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep(trials=30), Contest(hf=False))
    arms = list(compared(folder).arms)
    arms[1] = replace(arms[1], typical=(arms[0].typical or 1.0) / 2)
    rewrite(folder, arms=tuple(arms))
    assert number(arms[0].typical) in opening(read(folder)).headline


def test_an_arms_mean_is_said_to_be_of_the_seeds_that_finished(tmp_path: Path) -> None:
    found = opened(tmp_path, Contest(stuck=(3, 0)))
    assert "7 of 10 seeds)" in found.fine[0]
    assert ", 10 seeds)" in found.fine[0]
    assert "of fresh seeds that finished" in found.fine[0]


def test_values_without_a_mean_of_errors_did_finish(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep(trials=30), Contest(hf=False, stuck=(0, 0)))
    rewrite(folder, arms=tuple(replace(a, typical=None, low=None, high=None) for a in compared(folder).arms))
    assert "values that have no mean of errors (10 seeds)" in opening(read(folder)).headline
