"""`ls`, `show` and the status of a sweep of several stages: what is best is of the search, the rest beside it."""

import io
import json
import statistics
from pathlib import Path

import pytest
from rich.console import Console

from cluster import folders, show
from sweeps import history, stages
from sweeps.board import Board, Entry
from sweeps.folder import write_spec_file
from sweeps.spec import SweepSpec
from sweeps.status import Meter, status
from sweeps.sweep import Sweep
from tests.sweeps.pretend import kill, play, spec_with

STAGED = {"budget": {"trials": 12}, "confirm": {"top": 2, "seeds": 3}, "baselines": [{"kind": "hf"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> folders.Folder:
    """A finished sweep of 12 + 3 searched and 6 + 3 confirmed trials."""
    path, spec = tmp_path_factory.mktemp("runs") / "one", spec_with(**STAGED)
    path.mkdir()
    write_spec_file(path, spec.model_dump(mode="json"))
    play(path, spec, 2, 3).close("finished")
    return folders.read(path)


def said(folder: folders.Folder) -> str:
    out = io.StringIO()
    show.show_sweep(folder, Console(file=out, width=250))
    return out.getvalue()


def test_the_best_trials_are_those_of_the_search(folder: folders.Folder) -> None:
    trials = folder.history.trials.values()
    lucky = min(
        (t for t in trials if t.objective is not None and stages.is_confirm(t.stage)), key=lambda t: t.objective
    )
    assert lucky.objective < folder.ranked()[0].objective, "else this tests nothing"
    assert {trial.stage for trial in folder.ranked(("complete", "stopped"))} == {"search"}
    assert folders.best(folder).stage == "search"
    assert set(Sweep(folder.path).best(50)["stage"]) == {"search"}
    assert "hf_damping" not in folder.names
    assert "hf_damping" in folder.names_of(trials)


def test_a_sweeps_trials_are_counted_by_stage(folder: folders.Folder) -> None:
    assert folder.stages == {"search": 12, "search:hf": 3, "confirm": 6, "confirm:hf": 3}
    assert folder.budget == 24
    text = said(folder)
    assert "24 of 24 trials ended" in text
    assert "stages: search 12 of 12 · search:hf 3 of 3 · confirm 6 of 6 · confirm:hf 3 of 3" in text


def test_confirmed_points_stand_beside_what_they_were_chosen_for(folder: folders.Folder) -> None:
    best = folder.ranked()[0]
    fresh = [
        t.objective for t in folder.history.trials.values() if t.stage == "confirm" and t.point_id == best.point_id
    ]
    lines = said(folder).split("Confirmed points")[1].splitlines()
    row = next(line.split() for line in lines if line.startswith("confirm "))
    expected = (statistics.median(fresh), min(fresh), max(fresh))
    assert row[:2] == ["confirm", "3"]
    assert [float(cell) for cell in row[2:5]] == [float(f"{value:.4g}") for value in expected]
    assert (int(row[5]), float(row[6])) == (0, float(f"{best.objective:.4g}"))


def test_an_unfinished_sweep_is_counted_as_planned_and_a_finished_one_as_it_was(tmp_path: Path) -> None:
    spec = spec_with(**STAGED)
    write_spec_file(tmp_path, spec.model_dump(mode="json"))
    kill(play(tmp_path, spec, 2, 3, rounds=4))
    assert folders.read(tmp_path).stages == {"search": 12, "search:hf": 3, "confirm": 6, "confirm:hf": 3}
    one = tmp_path / "one"
    one.mkdir()
    few = spec_with(**{**STAGED, "space": {"lr": {"type": "float", "low": 0.6, "high": 1.0}}})
    write_spec_file(one, few.model_dump(mode="json"))
    board = play(one, few, 2, 3)
    board.close("finished")
    assert folders.read(one).stages == {"search": 12, "search:hf": 3, "confirm": 0, "confirm:hf": 3}
    assert "nothing to confirm of search: no trial of it is complete" in said(folders.read(one))


def test_a_trial_of_hf_is_shown_with_its_own_parameters(folder: folders.Folder) -> None:
    out = io.StringIO()
    trial = next(t for t in folder.history.trials.values() if t.stage == "confirm:hf")
    show.show_trial(folder, trial, Console(file=out, width=200))
    assert "hf_damping" in out.getvalue()
    assert "stage confirm:hf" in out.getvalue()


def test_a_folder_of_before_there_were_stages(tmp_path: Path) -> None:
    spec = spec_with(budget={"trials": 5})
    data = spec.model_dump(mode="json")
    write_spec_file(tmp_path, {key: data[key] for key in data if key not in ("confirm", "baselines", "compare")})
    play(tmp_path, SweepSpec.model_validate(json.loads((tmp_path / "spec.json").read_text())), 1, 3).close("finished")
    old = folders.read(tmp_path)
    assert old.stages == {"search": 5}
    assert "stages:" not in said(old)
    assert history.load(tmp_path).note == ""


def test_the_status_counts_stages_and_weighs_what_is_left_by_what_each_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update of hf takes 3 s, others 1: two confirmed trials of 10 each to come, and of hf's one of 10 is 30."""
    spec = spec_with(training={"updates": 10, "reports": 1, "batch": 10}, early_stopping=None, budget={"trials": 1},
                     space={"lr": 0.1}, confirm={"top": 1, "seeds": 2}, baselines=[{"kind": "hf"}],
                     search={"algorithm": "random", "group_size": 1})  # fmt: skip
    board, meter = Board(tmp_path, spec, 1, 1), Meter()
    monkeypatch.setattr(meter, "rate", lambda updates: 1.0)
    board.attach(0)
    for number, seconds in ((0, 10.0), (1, 30.0)):
        board.report(0, 1, "loop", [Entry(number, 10, {"valid_loss": 1.0}, 1.0, seconds)])
    found = status(board, meter)
    assert found["stages"] == {"search": [1, 1], "search:hf": [1, 1], "confirm": [0, 2], "confirm:hf": [0, 2]}
    assert found["confirming"]
    assert found["trials"]["budget"] == 6
    board.report(0, 1, "loop", [Entry(2, 10, {"valid_loss": 1.0}, 1.0, 10.0)])
    board.report(0, 1, "loop", [Entry(3, 10, {"valid_loss": 1.0}, 1.0, 30.0)])
    found = status(board, meter)
    assert found["stages"]["confirm:hf"] == [1, 2]
    assert found["eta_s"] == pytest.approx(10 + 30)  # what runs is of stage confirm
    assert found["best"]["trial"] == 0
