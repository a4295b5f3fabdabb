import json
from pathlib import Path
from typing import Any

import pytest

from dashboards import facts
from dashboards.flow import saved
from dashboards.view import number, read
from tests.dashboards.synthetic import SPACE, Sweep, make


def test_summary_names_the_best_trial_and_what_it_rests_on(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep()))
    best = view.best
    assert best is not None
    found, course = facts.findings(view)
    assert found.startswith(
        f"Best valid_squared_error {number(best.objective)} by trial {best.id}: {view.described(best)}."
    )
    spared, full = saved(view)
    assert f"saved {spared:,} of {full:,} updates" in course
    condition, look_alike = facts.conditions(view)
    assert "one replicate" in condition
    assert "seed 7" in condition
    assert "no test of significance" in condition
    assert "look-alike" in look_alike


def test_own_data_are_no_look_alike(tmp_path: Path) -> None:
    spec = json.loads((make(tmp_path, Sweep(trials=3)) / "spec.json").read_text())
    spec["task"]["file"] = "digs3pts_1.mat"
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert len(facts.conditions(read(tmp_path))) == 1


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"trials": 0}, "No result yet"),
        ({"trials": 7, "rungs": (), "diverge": 1e9}, "all 7 trials that ended diverged"),
    ],
)
def test_summary_without_a_result(tmp_path: Path, sweep: dict[str, Any], words: str) -> None:
    assert words in facts.findings(read(make(tmp_path, Sweep(**sweep))))[0]


def test_a_best_value_at_the_end_of_its_range_is_pointed_out(tmp_path: Path) -> None:
    space = {"lr": SPACE["lr"] | {"high": 0.02}}  # the simulation wants more
    found = facts.findings(read(make(tmp_path, Sweep(trials=40, space=space, rungs=()))))[0]
    assert "lr lies near the upper end of its range" in found


def test_rows_rank_all_trials_and_sort_by_value(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep()))
    rows = facts.rows(view)
    assert facts.columns(view)[:4] == ["rank", "trial", "valid_squared_error", "mu_max"]
    assert [row[0][1] for row in rows] == list(range(1, 65))
    for row, trial in zip(rows, view.ranked, strict=True):
        assert row[1] == (trial.id, trial.number)
        assert row[2] == (number(view.value(trial)), view.value(trial))
        assert len(row) == len(facts.columns(view))


def test_header_tells_state_machine_and_seed(tmp_path: Path) -> None:
    told = dict(facts.header(read(make(tmp_path, Sweep()))))
    assert told["State"] == "finished"
    assert told["Search"] == "tpe, seed 7, 1 replicate per point"
    assert told["Machine"] == "Example CPU @ 2.5 GHz, 2 cores, Linux-6.1-x86_64"
    assert told["Opened"] == "2026-05-28 20:26:40 UTC"
    assert "rungs at 200, 600, 1,200" in told["Early stopping"]
    assert "killed" in dict(facts.header(read(make(tmp_path / "b", Sweep(trials=2, close=None)))))["State"]
