"""Sweeps and trials by what a person types."""

import json
from pathlib import Path

import pytest

from cluster import folders
from cluster.folders import UserError
from tests.dashboards.synthetic import Sweep, make


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs" / "one", Sweep(trials=12))
    return tmp_path / "runs"


@pytest.mark.parametrize(("typed", "number"), [("12", 12), ("t00012", 12), ("t12", 12), (" 7 ", 7), ("0", 0)])
def test_trials_are_named_by_number_or_id(typed: str, number: int) -> None:
    assert folders.trial_number(typed) == number


@pytest.mark.parametrize("typed", ["", "-1", "tt1", "1.5", "best"])
def test_other_names_of_trials_are_refused(typed: str) -> None:
    with pytest.raises(UserError, match="such as 12 or t00012"):
        folders.trial_number(typed)


def test_a_sweep_is_found_by_path_by_name_and_as_the_latest(runs: Path) -> None:
    assert folders.find(runs / "one") == runs / "one"
    assert folders.find(Path("one")) == Path("runs/one")
    assert folders.find(Path("latest")) == Path("runs/one")


def test_a_folder_of_sweeps_is_no_sweep_but_names_one(runs: Path) -> None:
    with pytest.raises(UserError, match=r"not a sweep folder.*for instance runs/one"):
        folders.find(Path("runs"))


def test_what_is_not_there_is_said_with_what_is(runs: Path) -> None:
    with pytest.raises(UserError, match=r"two: no such sweep folder; the newest is runs/one"):
        folders.find(Path("two"))
    with pytest.raises(UserError, match=r"no trial 99; it has t00000 to t00011"):
        folders.trial(folders.read(runs / "one"), "99")


def test_a_damaged_spec_is_the_users_to_restore(runs: Path) -> None:
    (runs / "one" / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"spec\.json: not JSON"):
        folders.read(runs / "one")
    (runs / "one" / "spec.json").unlink()
    with pytest.raises(UserError, match=r"spec\.json is missing"):
        folders.read(runs / "one")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_ranking_follows_the_mode_and_takes_complete_trials_only(runs: Path, mode: str) -> None:
    spec = json.loads((runs / "one" / "spec.json").read_text())
    (runs / "one" / "spec.json").write_text(json.dumps({**spec, "mode": mode}))
    folder = folders.read(runs / "one")
    ranked = folder.ranked()
    complete = [trial for trial in folder.history.trials.values() if trial.state == "complete"]
    assert {trial.number for trial in ranked} == {trial.number for trial in complete}
    scores = [trial.objective for trial in ranked]
    assert len(scores) > 1
    assert scores == sorted(scores, reverse=mode == "max")


def test_best_is_a_trial_wherever_one_is_named(tmp_path: Path) -> None:
    folder = folders.read(make(tmp_path / "one", Sweep(trials=12)))
    assert folders.trial(folder, "best") is folder.ranked()[0]
