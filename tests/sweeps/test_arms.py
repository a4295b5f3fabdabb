"""Arms as they are read from folders, against values told beforehand."""

import math
from pathlib import Path

import numpy as np
import pytest

from sweeps import arms
from sweeps.history import Trial
from sweeps.labels import label, short, shown
from tests.sweeps.confirmed import BATCH, CM, HF, METRIC, NAG, TEN, TRIVIAL, UPDATES, Point, make, times


def runs(folder: Path, name: str = "p1") -> arms.Runs:
    return arms.confirmed(arms.read(folder))[name]


def test_points_come_in_the_order_of_the_search_then_baselines(tmp_path: Path) -> None:
    points = [Point(CM, 0.5, TEN), Point(HF, 0.3, TEN, "hf"), Point(NAG, 0.4, times(2)), Point({"lr": 0.2}, 0.6, TEN)]
    found = arms.confirmed(arms.read(make(tmp_path, *points)))
    assert {name: each.point_id for name, each in found.items()} == {
        "p1": "point2", "p2": "point0", "p3": "point3", "hf": "point1",
    }  # fmt: skip
    assert [each.searched for each in found.values()] == [0.4, 0.5, 0.6, 0.3]


def test_in_mode_max_the_largest_is_first(tmp_path: Path) -> None:
    folder = make(tmp_path, Point(CM, 0.5, (0.5,)), Point(NAG, 0.9, (0.9,)), spec={"mode": "max"})
    assert runs(folder).point_id == "point1"


def test_runs_are_sorted_by_how_they_ended(tmp_path: Path) -> None:
    ends = (0.5, 6.2, 6.4, 7.0, None, "failed", "running", 0.0)
    found = runs(make(tmp_path, Point(NAG, 0.4, ends)))
    assert [trial.number for trial in found.trials] == [1, 2, 3, 4, 5, 8]
    assert list(found.values.values()) == [0.5, 6.2, 6.4, 7.0, None, 0.0]
    assert found.stuck == {3, 4}  # above .9 x 7 = 6.3
    assert [trial.number for trial in found.diverged] == [5]
    assert found.ends == [0.5, 6.2, 0.0]
    assert [trial.number for trial in (*found.failed, *found.unfinished)] == [6, 7]


def test_the_stuck_error_is_the_spec_s_or_of_a_constant_s(tmp_path: Path) -> None:
    def limit(name: str, **changes: object) -> float | None:
        resolved = {"trivial": changes.pop("trivial", {METRIC: TRIVIAL})}
        return arms.read(make(tmp_path / name, Point(NAG, 0.4, TEN), spec=changes, resolved=resolved)).stuck_above

    assert limit("least") == pytest.approx(6.3)
    assert limit("own", compare={"stuck": 2.5}) == 2.5
    assert limit("unknown", trivial={}) is None
    # An accuracy of .2 is an error of .8; .9 of that is an accuracy of .28.
    assert limit("most", mode="max", trivial={METRIC: 0.2}) == pytest.approx(0.28)


def test_without_a_stuck_error_only_divergence_fails(tmp_path: Path) -> None:
    found = runs(make(tmp_path, Point(NAG, 0.4, (0.5, 7.0, None)), resolved={"trivial": {}}))
    assert found.stuck == set()
    assert found.ends == [0.5, 7.0]


def arm(folder: Path, name: str = "p1", target: float | None = None) -> arms.Arm:
    study = arms.read(folder)
    found = arms.confirmed(study)
    return arms.arm(study, name, found[name], "point", arms.scale(study, found.values()), target)


def test_an_arm_holds_what_its_runs_came_to(tmp_path: Path) -> None:
    found = arm(make(tmp_path, Point(NAG, 0.4, (*TEN[:8], 6.9, None))))
    logs = np.log(TEN[:8])
    assert found.typical == pytest.approx(math.exp(logs.mean()))
    half = 2.364624 * logs.std(ddof=1) / math.sqrt(8)  # t of 7 degrees of freedom
    assert (found.low, found.high) == pytest.approx((math.exp(logs.mean() - half), math.exp(logs.mean() + half)))
    assert (found.stuck.count, found.diverged.count, found.stuck.of) == (2, 1, 10)
    assert found.values == (*TEN[:8], 6.9, None)
    assert (found.searched, found.work, found.seconds) == (0.4, UPDATES * BATCH, 2.0)
    assert found.label == "NAG, µ_max 0.99, lr 0.012"


def test_the_curve_is_of_finishers_at_common_reports(tmp_path: Path) -> None:
    found = arm(make(tmp_path, Point(NAG, 0.4, (0.5, 0.6, 0.8, 6.9, None)))).curve
    assert found.updates == (20, 40, 60, 80, 100)
    assert found.work == tuple(float(update * BATCH) for update in found.updates)
    assert found.seconds == pytest.approx((0.4, 0.8, 1.2, 1.6, 2.0))
    for place, update in enumerate(found.updates):
        values = [TRIVIAL * (end / TRIVIAL) ** (update / UPDATES) for end in (0.5, 0.6, 0.8)]
        band = (found.low[place], found.median[place], found.high[place])
        assert band == pytest.approx(tuple(np.percentile(values, (25, 50, 75))))


def test_an_arm_without_finishers_has_no_error_and_no_curve(tmp_path: Path) -> None:
    found = arm(make(tmp_path, Point(NAG, 0.4, (6.9, 7.0, None))))
    assert (found.typical, found.low, found.high) == (None, None, None)
    assert found.curve.updates == ()
    assert found.stuck.value == 1


def test_one_run_has_an_error_but_no_interval(tmp_path: Path) -> None:
    found = arm(make(tmp_path, Point(NAG, 0.4, (0.5,))))
    assert (found.typical, found.low, found.high) == (pytest.approx(0.5), None, None)
    assert found.curve.low == found.curve.high == found.curve.median


def test_the_work_to_a_target_is_censored_where_it_was_never_met(tmp_path: Path) -> None:
    found = arm(make(tmp_path, Point(NAG, 0.4, (0.5, 0.7, 6.9, None))), target=0.6)
    # .5: 7 (.5/7)^(t/100) passes .6 at t = 93; .7 never; a diverged one could have used all of its budget.
    assert found.reached == ((1000.0, True), (1000.0, False), (1000.0, False), (1000.0, False))
    early = arm(make(tmp_path / "early", Point(NAG, 0.4, (0.5,))), target=2.0)
    assert early.reached == ((600.0, True),)  # at 47.5, so at the report of update 60


def test_an_accuracy_s_typical_value_is_of_its_distance_to_1(tmp_path: Path) -> None:
    folder = make(
        tmp_path, Point(NAG, 0.99, (0.9, 0.975, 0.05)), spec={"mode": "max"}, resolved={"trivial": {METRIC: 0.1}}
    )
    found = arm(folder)
    assert found.typical == pytest.approx(1 - math.sqrt(0.1 * 0.025))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.typical < found.high
    assert found.stuck.count == 1


def test_an_error_of_0_counts_as_half_an_example(tmp_path: Path) -> None:
    folder = make(
        tmp_path, Point({"lr": 0.1}, 0.1, (0.0, 0.04)), metric="valid_error",
        spec={"task": "digits", "objective": "valid_error", "space": {"lr": [0.1]}},
    )  # fmt: skip
    assert arm(folder).typical == pytest.approx(math.sqrt(0.5 / 50 * 0.04))  # measured on 50 examples


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"lr": 0.0123456, "method": "nag", "mu_max": 0.995, "depth": 7, "init": "sparse"}, "nag",
         "NAG, µ_max 0.995, lr 0.0123, sparse, depth 7"),
        ({"lr": 0.5}, "sgd", "SGD, lr 0.5"),
        ({"hf_damping": 45.0, "hf_cg_decay": 0.95, "hf_cg_max": 120}, "hf", "HF, damping 45, 120 CG steps, decay 0.95"),
        ({"own": 3, "lr": 1e-5}, "adam", "Adam, lr 1e-05, own 3"),
        ({}, "cm", "CM"),
        ({"widths": [400, 100], "lr": 0.5}, "sgd", "SGD, lr 0.5, 400-100"),
    ],
)  # fmt: skip
def test_labels(params: dict[str, object], kind: str, words: str) -> None:
    trial = Trial(0, dict(params), {"method": {"kind": kind}}, "confirm", "p", 0, 0, 0.0)
    assert label(trial, ("own", "lr")) == words


def test_labels_of_trainers_of_one_s_own_hold_parameters_only() -> None:
    trial = Trial(0, {"temperature": 0.99}, {"trainer": "mine:train"}, "confirm", "p", 0, 0, 0.0)
    assert label(trial) == "temperature 0.99"
    assert arms.method(trial) == "mine:train"


def test_sentences_call_arms_shortly() -> None:
    words = "NAG, µ_max 0.99, lr 0.01, sparse, depth 7"
    assert short(words, "point", "p1") == "NAG (µ_max 0.99, lr 0.01, sparse)"
    assert short("HF, damping 45", "hf", "hf") == "HF"
    assert short("HF, damping 45", "hf", "structural") == "HF (structural)"
    assert short(words, "sweep", "curves-1") == "curves-1 (NAG, µ_max 0.99, lr 0.01)"
    assert shown(0.99847) == "0.99847"
    assert shown(0.9985) == "0.9985"
