"""Fixed-seed nights: a planted change is found every time, nothing is found where there is none."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.history import load
from sweeps.night_file import Night
from sweeps.nights import judge
from sweeps.nights_fixed import between, measured, ratio
from sweeps.spec import parse
from tests.sweeps.alone import run_alone
from tests.sweeps.nightly import DAY, fixed, values

PLACES = [(trial, metric, report) for trial in range(3) for metric in values()[trial] for report in range(4)]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return judge(fixed(tmp_path_factory.mktemp("first") / "n0"), [], DAY)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_change_of_one_in_a_thousand_is_found_wherever_it_is(sign: int, first: Night, tmp_path: Path) -> None:
    """Each single value of each trial in turn: its metric, its report."""
    for trial, metric, report in PLACES:
        told = values()
        told[trial][metric][report] *= 1 + sign * 1e-3
        folder = fixed(tmp_path / "night", told)
        night = judge(folder, [first], 2 * DAY)
        assert night.result == ("better" if sign < 0 and (metric, report) == ("valid_loss", 3) else "worse")
        assert night.difference == pytest.approx(1e-3 / (1 if report == 3 else 4), rel=2e-3)
        assert night.about == f"t{trial:05d}"
        assert metric in night.sentence or (metric, report) == ("valid_loss", 3)
        shutil.rmtree(folder)


def test_a_hundred_unchanged_nights_give_no_alarm(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    past: list[Night] = []
    for day in range(100):
        told = values()
        if day % 2:  # as if the last bits were another machine's
            told = [{k: [v * (1 + 1e-7 * rng.uniform(-1, 1)) for v in vs] for k, vs in each.items()} for each in told]
        past.append(judge(fixed(tmp_path / f"n{day}", told), past, (day + 1) * DAY))
        shutil.rmtree(tmp_path / f"n{day}")
    assert {night.result for night in past} == {"ok"}
    assert {night.event for night in past} == {""}
    assert {night.since for night in past} == {past[0].at}
    assert all(night.difference == 0 and "equal to the bit" in night.sentence for night in past[2::2])
    assert all(0 < (night.difference or 0) < 1e-6 for night in past[1::2])


@given(st.lists(st.floats(-1, 1), min_size=12, max_size=12), st.sampled_from([1e-6, 1e-3]))
@settings(max_examples=50, deadline=None)
def test_the_difference_is_at_most_the_largest_of_any_value(moves: list[float], size: float) -> None:
    """Within the tolerance value by value, so within it as a night: no alarm by adding up."""

    def told(by: list[float]) -> dict:
        losses = [2.0 / (1 + i) * (1 + size * move) for i, move in enumerate(by)]
        logs = [math.log(x) for x in losses]
        metrics = {"valid_loss": [len(losses), losses[-1], math.fsum(logs) / len(logs)]}
        return {
            "t00000": {"label": "", "state": "complete", "objective": losses[-1], "metrics": metrics, "rows": str(by)}
        }

    found = between(told(moves), told([0.0] * 12))
    assert not found.lost
    assert found.value <= size * 1.01


def test_the_ratio_is_the_geometric_mean_of_errors() -> None:
    def told(*objectives: float) -> dict:
        return {str(i): {"objective": value} for i, value in enumerate(objectives)}

    assert ratio(told(1.0, 4.0), told(1.0, 1.0), "min") == pytest.approx(2.0)
    assert ratio(told(0.9, 0.8), told(0.8, 0.6), "max") == pytest.approx(0.5)
    assert ratio(told(-1.0), told(1.0), "min") is None


def test_numbers_that_are_none_are_equal_to_themselves_only(first: Night, tmp_path: Path) -> None:
    told = values()
    told[2]["train_loss"][3] = math.inf
    folder = fixed(tmp_path / "n1", told)
    night = judge(folder, [first], 2 * DAY)
    assert (night.result, night.difference) == ("worse", None)
    again = measured(load(folder), [])
    assert between(again, json.loads(json.dumps(again))).value == 0


def test_a_trial_that_takes_another_course_is_a_change(first: Night, tmp_path: Path) -> None:
    stopped = judge(fixed(tmp_path / "n1", states=["complete", "stopped"]), [first], 2 * DAY)
    assert stopped.result == "worse"
    assert "t00001 (NAG, lr 0.03) is stopped and was complete" in stopped.sentence
    fewer = judge(fixed(tmp_path / "n2", values(reports=3)), [first], 2 * DAY)
    assert fewer.result == "worse"
    assert "has other reports than it had" in fewer.sentence


def test_a_trial_that_no_longer_diverges_is_no_worse(tmp_path: Path) -> None:
    first = judge(fixed(tmp_path / "n0", states=["complete", "complete", "diverged"]), [], DAY)
    assert first.result == "ok"
    assert judge(fixed(tmp_path / "n1"), [first], 2 * DAY).result == "better"


EXPECT = {"source": "a paper", "best": [0.05, 0.07], "trials": {"t00000": 0.935}, "within": 0.01}


@pytest.mark.parametrize(
    ("expect", "result"),
    [
        (EXPECT, "ok"),
        ({**EXPECT, "best": [0.01, 0.03]}, "worse"),
        ({**EXPECT, "best": [0.1, 0.2]}, "better"),
        ({**EXPECT, "trials": {"t00000": 0.9}}, "worse"),
        ({**EXPECT, "trials": {"t00000": 0.99}}, "better"),
        ({**EXPECT, "trials": {"t00007": 0.9}}, "broken"),
    ],
)
def test_even_the_first_night_is_held_against_what_is_known(expect: dict, result: str, tmp_path: Path) -> None:
    """The made values end at 2.3 exp(-.9) = .935, .380 and .1546."""
    told = values()
    told[2]["valid_loss"][3] = 0.06
    rules = {"night": {"kind": "fixed", "expect": expect}}
    one = judge(fixed(tmp_path / "n0", told, spec=rules), [], DAY)
    assert one.result == result, one.sentence
    assert result == "ok" or "a paper" in one.sentence
    two = judge(fixed(tmp_path / "n1", told, spec=rules), [one], 2 * DAY)
    assert (two.result, two.event == one.event) == (result, True)  # as long as nobody accepts it


def test_a_real_sweep_repeats_to_the_bit_and_a_planted_change_shows(tmp_path: Path) -> None:
    """The learning rate is planted a thousandth larger, as a broken optimiser would have it, unseen in the spec."""

    def night(name: str, lr: float) -> Path:
        told = {
            "task": "digits", "model": {"width": 8, "depth": 1, "activation": "tanh"},
            "training": {"updates": 40, "reports": 2, "batch": 16, "lr": lr, "mu_max": 0.9},
            "space": {"method": ["sgd", "nag"]}, "search": {"algorithm": "grid"}, "budget": {"trials": 2},
            "resources": {"engine": "loop", "workers": 1}, "mlflow": {"enabled": False}, "objective": "valid_loss",
            "night": {"kind": "fixed"},
        }  # fmt: skip
        folder = run_alone(parse(told, name), tmp_path / name)
        plain = json.loads((folder / "spec.json").read_text())
        plain["training"]["lr"] = 0.05
        (folder / "spec.json").write_text(json.dumps(plain))
        return folder

    first = judge(night("n0", 0.05), [], DAY)
    same = judge(night("n1", 0.05), [first], 2 * DAY)
    assert (same.result, same.difference) == ("ok", 0.0), same.sentence
    assert "equal to the bit" in same.sentence
    planted = judge(night("n2", 0.05 * 1.001), [first, same], 3 * DAY)
    assert planted.result in ("worse", "better"), planted.sentence
    assert planted.difference is not None
    assert planted.difference > 10 * 1e-6
