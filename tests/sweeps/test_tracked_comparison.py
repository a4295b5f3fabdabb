from dataclasses import replace

import pytest

from sweeps import history, tracked, tracked_comparison
from tests.sweeps import told_compared

FOUND = told_compared.comparison()
TRIALS = history.fold([record for commit in told_compared.commits() for record in commit]).trials.values()


@pytest.mark.parametrize(
    ("stage", "role"),
    [("search", "search"), ("confirm", "confirm"), ("search:hf", "baseline"), ("confirm:martens", "baseline")],
)
def test_roles(stage: str, role: str) -> None:
    assert tracked.role(stage) == role


def test_a_comparison_survives_its_file() -> None:
    assert type(FOUND).from_dict(FOUND.to_dict()) == FOUND


def test_where_large_is_good_the_gap_is_turned_round() -> None:
    """Below 1 is better than HF either way."""
    small, large = tracked_comparison.gaps(FOUND, TRIALS), tracked_comparison.gaps(replace(FOUND, mode="max"), TRIALS)
    assert small.keys() == large.keys() == {0, 1, 4, *range(6, 12)}
    assert all(small[n] * large[n] == pytest.approx(1) for n in small)


def test_a_confirmed_trial_has_what_was_compared() -> None:
    p1, hf = FOUND.arms
    found = tracked_comparison.gaps(replace(FOUND, arms=(replace(p1, values=(0.5, None)), hf)), TRIALS)
    assert found[8] == pytest.approx(0.5 / told_compared.TYPICAL["hf"])
    assert 9 not in found  # it diverged
    elsewhere = replace(p1, name="another", kind="sweep")
    assert 8 in tracked_comparison.gaps(replace(FOUND, arms=(elsewhere, hf)), TRIALS)  # its numbers are not ours


def test_the_gap_is_to_the_hf_that_the_verdict_is_against() -> None:
    p1, hf = FOUND.arms
    other = replace(hf, name="early", typical=9.0)
    found = replace(FOUND, arms=(p1, other, hf))
    assert tracked_comparison.hf_arm(found) == hf
    assert tracked_comparison.hf_arm(replace(found, contrasts=())) == other
    assert tracked_comparison.hf_arm(replace(FOUND, arms=(p1,))) is None
    assert tracked_comparison.gaps(replace(FOUND, arms=(p1,)), TRIALS) == {}


def test_without_finishers_there_are_fewer_numbers_and_no_error() -> None:
    p1, hf = (replace(arm, typical=None, low=None, high=None, searched=None) for arm in FOUND.arms)
    contrast = replace(FOUND.contrasts[0], ratio=None, low=None, high=None, verdict="no verdict")
    found = replace(FOUND, arms=(p1, hf), contrasts=(contrast,))
    assert tracked_comparison.metrics(found) == {"stuck/p1": 0.0, "stuck/hf": 0.0}
    assert tracked_comparison.tags(found)["musweep.verdict"] == "no verdict"


def test_a_description_fits_mlflows_limit() -> None:
    """MLflow cuts a tag at 8,000 characters."""
    p1 = replace(FOUND.arms[0], label="a | b " * 10)
    arms = tuple(replace(p1, name=f"p{n}") for n in range(30))
    contrasts = tuple(replace(FOUND.contrasts[0], a=arm.name, primary=False, sentence="s" * 300) for arm in arms)
    long = replace(FOUND, arms=arms, contrasts=(*FOUND.contrasts, *contrasts), note="n" * 9000)
    note = tracked_comparison.note(long)
    assert len(note) <= 8000
    assert "and 10 more in comparison.json" in note
    assert note.endswith("...")
    assert "a \\| b" in note


@pytest.mark.parametrize("name", ["runs/..", "..", "a:b", "µ sweep", "über", "x" * 300])
def test_any_name_of_an_arm_makes_a_metric_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    found = tracked_comparison.metrics(replace(FOUND, arms=(replace(FOUND.arms[0], name=name),)))
    for metric in found:
        _validate_metric_name(metric)


def test_numbers_differ_by_more_than_rounding() -> None:
    nan = float("nan")
    there = {"a": 1.0, "b": nan, "c": 0.1}
    assert tracked.differs({"a": 1.0 + 1e-15, "b": nan, "c": 0.1}, there) == {}
    assert tracked.differs({"a": 1.1, "b": 2.0, "d": 3.0}, there) == {"a": 1.1, "b": 2.0, "d": 3.0}
