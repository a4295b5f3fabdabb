"""Comparisons of made-up sweeps: which arms meet, what is refused and why, what comparison.json holds."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sweeps import compared
from sweeps.compared import NothingToCompare, compare
from sweeps.comparison import Comparison
from sweeps.sweep import Sweep
from tests.sweeps.confirmed import CM, HF, METRIC, NAG, RESOLVED, TEN, Point, make, times

WORSE = Point(HF, 0.45, times(1.5), "hf")
NO_BASELINES: dict[str, Any] = {"baselines": []}


def pairs(found: Comparison) -> list[tuple[str, str]]:
    return [(each.a, each.b) for each in found.contrasts]


def test_the_best_point_of_the_search_is_held_against_hf(tmp_path: Path) -> None:
    # CM came out best when confirmed, but NAG is what the search chose: that is the contrast named beforehand.
    found = compare(make(tmp_path, Point(CM, 0.5, times(0.9)), Point(NAG, 0.4, TEN), WORSE))
    assert pairs(found) == [("p1", "hf"), ("p2", "hf")]
    first = found.primary
    assert first is not None
    assert (first.a, first.verdict, first.decided_by) == ("p1", "better", "finishers")
    assert first.ratio == pytest.approx(1 / 1.5)
    logs = np.log(TEN)
    welch = stats.ttest_ind(logs, logs + math.log(1.5), equal_var=False).confidence_interval()
    assert (first.low, first.high) == pytest.approx((math.exp(welch.low), math.exp(welch.high)))
    assert first.p_adjusted == first.p
    assert (found.trivial, found.stuck_above) == (7.0, pytest.approx(6.3))
    assert (found.updates, found.batch, found.train_examples, found.match) == (100, 10, 5000, "work")
    assert found.note == "look-alike of CURVES, seed 0"
    assert found.refusals == ()


def test_the_target_is_the_worse_median_of_the_two_that_were_named(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN), Point(CM, 0.5, times(3)), WORSE))
    assert found.target == pytest.approx(1.5 * np.median(TEN))
    assert sum(there for _, there in found.arm("p1").reached) == 10
    assert sum(there for _, there in found.arm("hf").reached) == 5
    told = compare(make(tmp_path / "told", Point(NAG, 0.4, TEN), WORSE, spec={"compare": {"target": 0.55}}))
    assert told.target == 0.55
    assert sum(there for _, there in told.arm("p1").reached) == 3


def test_a_target_that_ends_runs_is_the_one_whose_time_is_compared(tmp_path: Path) -> None:
    spec = {"target": {"metric": METRIC, "below": 0.7}}
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN), WORSE, spec=spec))
    assert found.target == 0.7
    assert "compare the work they need" in found.note


def test_several_hf_baselines_and_the_one_that_is_named(tmp_path: Path) -> None:
    spec = {"baselines": [{"kind": "hf"}, {"kind": "hf", "name": "free"}], "compare": {"against": "free"}}
    free = Point({"hf_damping": 1.0}, 0.4, times(2), "free")
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN), Point(CM, 0.5, TEN), WORSE, free, spec=spec))
    assert pairs(found) == [("p1", "free"), ("p2", "free"), ("p1", "hf")]
    assert [each.primary for each in found.contrasts] == [True, False, False]
    assert "HF (free)" in found.contrasts[0].sentence
    assert pairs(compare(tmp_path, "hf"))[0] == ("p1", "hf")


def test_without_a_baseline_points_are_compared_and_none_was_named(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN), Point(CM, 0.5, times(2)), spec=NO_BASELINES))
    assert found.primary is None
    assert [(each.a, each.b, each.verdict) for each in found.contrasts] == [("p1", "p2", "better")]


def test_one_arm_alone_has_no_contrast(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN), spec=NO_BASELINES))
    assert (len(found.arms), found.contrasts, found.target) == (1, (), None)


def test_one_seed_gives_no_verdict(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN[:1]), Point(HF, 0.45, (0.9,), "hf")))
    assert found.contrasts[0].verdict == "no verdict"
    assert found.contrasts[0].ratio == pytest.approx(0.5 / 0.9)


def test_when_all_runs_are_stuck_nothing_can_be_told(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, (6.9,) * 10), Point(HF, 0.45, (7.0,) * 8 + (None, None), "hf")))
    assert found.target is None
    assert [arm.stuck.value for arm in found.arms] == [1, 1]
    assert found.contrasts[0].verdict == "not distinguishable"
    assert found.contrasts[0].ratio is None


def test_an_arm_that_always_sticks_is_worse_by_its_failures(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, (6.9,) * 9 + (None,)), WORSE))
    assert (found.contrasts[0].verdict, found.contrasts[0].decided_by) == ("worse", "failures")
    assert found.contrasts[0].p_failures == pytest.approx(2 / math.comb(20, 10))
    assert found.target == pytest.approx(1.5 * np.median(TEN))  # of the arm that has finishers


def test_in_mode_max_the_larger_is_better(tmp_path: Path) -> None:
    good, bad = ([1 - factor * end / 10 for end in TEN] for factor in (1, 2))
    points = (Point(NAG, 0.99, good), Point(HF, 0.98, bad, "hf"))
    found = compare(make(tmp_path, *points, spec={"mode": "max"}, resolved={"trivial": {METRIC: 0.1}}, start=0.1))
    assert found.contrasts[0].verdict == "better"
    assert found.contrasts[0].ratio == pytest.approx(0.5)
    assert found.target == pytest.approx(np.median(bad))
    assert all(there for _, there in found.arm("p1").reached)


def test_values_without_ratios_are_refused_but_shown(tmp_path: Path) -> None:
    good = [-end for end in TEN]
    found = compare(make(tmp_path, Point(NAG, -0.7, good), Point(HF, -0.6, good, "hf"), start=-1.0))
    assert found.contrasts == ()
    assert found.arm("p1").typical is None
    assert found.arm("p1").values[0] == -0.5
    assert "errors have no ratio" in found.refusals[-1]


def test_another_budget_within_a_sweep_is_refused(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN), Point(CM, 0.5, TEN, batch=20), WORSE))
    assert pairs(found) == [("p1", "hf")]
    assert found.refusals == (
        "p2 is not compared with hf: budget: 2,000 example gradients a trial against 1,000 example gradients a trial",
    )


def test_matched_by_wall_hf_may_do_other_work(tmp_path: Path) -> None:
    long = Point(HF, 0.45, times(1.5), "hf", batch=30)
    spec = {"baselines": [{"kind": "hf", "match": "wall"}]}
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN), long, spec=spec))
    assert (found.match, pairs(found), found.refusals) == ("wall", [("p1", "hf")], ())


def test_runs_that_have_not_ended_keep_an_arm_out(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, (None, *TEN[:6], "running")), WORSE))
    assert found.contrasts == ()
    assert found.refusals == (
        "p1: 1 of 8 runs have not ended yet", "p1 is not compared with hf: p1: some runs have not ended yet",
    )  # fmt: skip


def test_failed_runs_are_told_and_not_counted(tmp_path: Path) -> None:
    found = compare(make(tmp_path, Point(NAG, 0.4, ("failed", *TEN)), WORSE))
    assert found.contrasts[0].seeds == (10, 10)
    assert found.refusals == ("p1: 1 of 11 runs failed and count for nothing",)


def test_without_confirm_it_is_said_what_to_do(tmp_path: Path) -> None:
    folder = make(tmp_path, Point(NAG, 0.4, ()), spec={"confirm": None, "baselines": []})
    with pytest.raises(
        NothingToCompare, match=r"musweep confirm .* --top 3 --seeds 10 --hf.*confirm: \{top: 3, seeds: 10\}"
    ):
        compare(folder)
    assert compared.write(folder) is None
    assert not (folder / "comparison.json").exists()


def test_before_the_first_confirmed_trial_the_sweep_has_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(NothingToCompare, match="musweep resume"):
        compare(make(tmp_path, Point(NAG, 0.4, ())))


def test_a_baseline_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NothingToCompare, match=r"no baseline 'hf' was measured.*musweep confirm DIR --hf"):
        compare(make(tmp_path, Point(NAG, 0.4, TEN), spec=NO_BASELINES), "hf")


# -- other sweeps --------------------------------------------------------------------------------------------


def two(tmp_path: Path, resolved: Mapping[str, Any] | None = None, **spec: Any) -> tuple[Path, Path]:
    """Two sweeps, the other of which differs in some keys."""
    one = make(tmp_path / "one", Point(NAG, 0.4, TEN), spec=NO_BASELINES)
    point = Point(CM, 0.5, times(2), batch=(spec.get("training") or {}).get("batch", 10))
    return one, make(tmp_path / "two", point, spec={**NO_BASELINES, **spec}, resolved=resolved)


def test_two_sweeps_meet_by_their_best_points(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    found = compare(one, others=[other])
    assert [(each.a, each.b, each.verdict, each.primary) for each in found.contrasts] == [("two", "one", "worse", True)]
    assert [(arm.name, arm.kind, arm.searched) for arm in found.arms] == [
        ("one", "sweep", None),
        ("two", "sweep", None),
    ]
    back = compare(one, other, [other])
    assert [(each.a, each.b, each.verdict) for each in back.contrasts] == [("one", "two", "better")]
    assert back.sweep_id == "two"


def test_of_several_sweeps_no_contrast_was_named(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    third = make(tmp_path / "three", Point(NAG, 0.4, times(1.02)), spec=NO_BASELINES)
    found = compare(one, others=[other, third])
    assert pairs(found) == [("two", "one"), ("three", "one")]
    assert found.primary is None


def test_another_sweep_can_be_the_baseline(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    for against in (other, "two"):  # its folder, or its name beside the sweep
        found = compare(one, against)
        assert [(each.a, each.b, each.verdict) for each in found.contrasts] == [("p1", "two", "better")]
    named = make(tmp_path / "named", Point(NAG, 0.4, TEN), spec={"baselines": [{"kind": "sweep", "id": "two"}]})
    assert pairs(compare(named)) == [("p1", "two")]
    lost = make(tmp_path / "lost", Point(NAG, 0.4, TEN), spec={"baselines": [{"kind": "sweep", "id": "gone"}]})
    assert compare(lost).refusals == ("baseline gone: no such sweep folder",)


CONFIRM = {"top": 3, "seeds": 10}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "task": ({"task": {"name": "mnist-ae"}}, {}, "task: mnist-ae against curves; task.size: none given against 14"),
    "settings": ({"task": {"name": "curves", "size": 12}}, {}, "task.size: 12 against 14"),
    "seed of the data": ({"task": {"name": "curves", "size": 14, "seed": 1}}, {}, "task.seed: 1 against 0"),
    "original": ({}, {"data": {**RESOLVED["data"], "look_alike": False}}, "data: original against a look-alike"),
    "metric": ({"compare": {"metric": "train_loss"}}, {}, f"metric: train_loss against {METRIC}"),
    "mode": ({"mode": "max"}, {}, "mode: max against min"),
    "budget": (
        {"training": {"updates": 100, "batch": 20, "reports": 5, "eval_examples": 50}}, {},
        "budget: 2,000 example gradients a trial against 1,000 example gradients a trial",
    ),
    "measured on": ({"confirm": {**CONFIRM, "eval_examples": 60}}, {}, "examples measured on: 60 against 50"),
    "version": ({}, {"versions": {"musweep": "0.5.0"}}, "musweep: 0.5 against 0.4"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_sweeps_that_differ_are_refused_with_both_values(tmp_path: Path, name: str) -> None:
    spec, resolved, words = REFUSED[name]
    one, other = two(tmp_path, resolved, **spec)
    found = compare(one, others=[other])
    assert found.contrasts == ()
    assert found.refusals == (f"two is not compared with one: {words}",)
    assert [arm.name for arm in found.arms] == ["one"]


def test_patches_of_a_release_are_alike(tmp_path: Path) -> None:
    one, other = two(tmp_path, {"versions": {"musweep": "0.4.7", "cpu": "Example CPU"}})
    assert compare(one, others=[other]).refusals == ()


def test_sweeps_matched_by_wall_need_equal_seconds_on_equal_machines(tmp_path: Path) -> None:
    one = make(tmp_path / "one", Point(NAG, 0.4, TEN), spec=NO_BASELINES)
    alike = make(tmp_path / "alike", Point(CM, 0.5, TEN, batch=20, seconds=2.1), spec=NO_BASELINES)
    slow = make(tmp_path / "slow", Point(CM, 0.5, TEN, seconds=3.0), spec=NO_BASELINES)
    versions = {"musweep": "0.4.0", "cpu": "Other CPU"}
    far = make(tmp_path / "far", Point(CM, 0.5, TEN), spec=NO_BASELINES, resolved={"versions": versions})
    found = compare(one, others=[alike, slow, far], match="wall")
    assert pairs(found) == [("alike", "one")]
    assert found.refusals == (
        "slow is not compared with one: budget: 3 s of training a trial against 2 s of training a trial",
        "far is not compared with one: machine: Other CPU against Example CPU",
    )


def test_a_sweep_without_confirmed_trials_is_left_out_with_the_reason(tmp_path: Path) -> None:
    one, other = two(tmp_path)
    bare = make(tmp_path / "bare", Point(NAG, 0.4, ()), spec={"confirm": None, "baselines": []})
    found = compare(one, others=[bare, other])
    assert pairs(found) == [("two", "one")]
    assert "musweep confirm" in found.refusals[0]


# -- published values, and the file ---------------------------------------------------------------------------


def test_published_values_stand_apart_with_why(tmp_path: Path) -> None:
    spec = {"baselines": [{"kind": "published", "table": "s13-table1"}]}
    found = compare(make(tmp_path, Point(NAG, 0.4, TEN), spec=spec))
    printed = {each.column: each for each in found.published}
    assert printed[".999N"].value == 0.074
    assert not any(each.comparable for each in found.published)
    assert "look-alike of CURVES" in printed[".999N"].why
    assert "750,000 updates, ours 100" in printed[".999N"].why
    assert found.contrasts == ()  # a printed number has no seeds


def test_published_values_are_found_by_task_when_asked_for(tmp_path: Path) -> None:
    folder = make(tmp_path, Point(NAG, 0.4, TEN), WORSE)
    assert compare(folder).published == ()
    asked = compare(folder, "published")
    assert {each.row for each in asked.published if each.table == "s13-table1"} == {"Curves"}
    assert pairs(asked) == [("p1", "hf")]


def test_a_task_without_published_values_says_so(tmp_path: Path) -> None:
    spec = {**NO_BASELINES, "task": "digits", "objective": "valid_error"}
    folder = make(tmp_path, Point(NAG, 0.4, [end / 2 for end in TEN]), spec=spec, metric="valid_error", start=0.9)
    assert compare(folder, "published").refusals == ("no published table has a value of task digits",)


def test_comparison_json_holds_all_of_it(tmp_path: Path) -> None:
    spec = {"baselines": [{"kind": "hf"}, {"kind": "published", "table": "s13-table1"}]}
    folder = make(tmp_path, Point(NAG, 0.4, (*TEN[:8], 6.9, None)), Point(CM, 0.5, TEN), WORSE, spec=spec)
    path = compared.write(folder)
    assert path == folder / "comparison.json"
    assert Comparison.from_dict(json.loads(path.read_text())) == compare(folder) == Sweep(folder).compare()


def test_a_comparison_does_not_depend_on_when_it_is_made(tmp_path: Path) -> None:
    folder = make(tmp_path, Point(NAG, 0.4, (*TEN[:8], 6.9, None)), WORSE)
    assert compare(folder) == compare(folder)
