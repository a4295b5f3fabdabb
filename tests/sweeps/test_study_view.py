"""A sweep as an Optuna study: it says what the journal says, on SQLite and PostgreSQL, whatever was there before."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from sweeps import folder as folders
from sweeps import history, spec, study_view
from sweeps.journal import Journal
from tests.sweeps import told

SPEC = {
    "name": "told",
    "task": "digits",
    "training": {"updates": 40, "reports": 4},
    "space": {
        "lr": {"type": "float", "low": 0.01, "high": 1.0, "scale": "log"},
        "method": ["sgd", "cm", "nag"],
        "mu_max": {
            "type": "float", "low": 0.5, "high": 0.99, "scale": "one_minus_log", "when": {"method": ["cm", "nag"]}
        },
    },
    "search": {"algorithm": "random", "seed": 7},
    "budget": {"trials": 6},
    "objective": "valid_loss",
}  # fmt: skip
STATES = {"complete": "COMPLETE", "stopped": "PRUNED", "diverged": "PRUNED", "skipped": "PRUNED", "failed": "FAIL"}


def write(folder: Path, commits: int | None = None) -> Path:
    told.write(folder, told.commits()[:commits])
    folders.write_spec_file(folder, spec.parse(SPEC, "told").model_dump(mode="json"))
    return folder


def add(folder: Path, first: int, last: int | None = None) -> None:
    journal = Journal(folder / "journal.jsonl")
    for commit in told.commits()[first:last]:
        journal.append(commit)
    journal.close()


def study(url: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name=told.SWEEP_ID, storage=storage).trials
    finally:
        storage.scoped_session.remove()
        storage.engine.dispose()


def held(url: str) -> dict[str, list[Any]]:
    """Every row of every table, ids included."""
    engine = sqlalchemy.create_engine(url)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {name: sorted(map(repr, connection.execute(table.select()))) for name, table in tables.tables.items()}
    engine.dispose()
    return found


def check(folder: Path, url: str, running: str = "RUNNING") -> None:
    trials = history.load(folder).trials
    found = study(url)
    assert [trial.number for trial in found] == sorted(trials)
    for trial, shown in ((trials[shown.number], shown) for shown in found):
        assert shown.state.name == STATES.get(trial.state, running)
        assert shown.params == trial.params
        assert shown.value == (trial.objective if trial.state == "complete" else None)
        assert shown.user_attrs["trial"] == trial.id
        assert shown.user_attrs["stage"] == trial.stage
        assert shown.user_attrs["point"] == trial.point_id
        assert shown.user_attrs["replicate"] == trial.replicate
        lost = {trial.updates: math.inf} if trial.state in ("diverged", "skipped") else {}
        assert shown.intermediate_values == pytest.approx(trial.scores | lost, nan_ok=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shown.db'}"
    return str(request.getfixturevalue("database"))


def test_a_study_equals_the_journal_and_a_second_export_changes_nothing(tmp_path: Path, url: str) -> None:
    folder = write(tmp_path / "sweep")
    assert study_view.export(folder, url) == (url, 6)
    check(folder, url)
    before = held(url)
    assert study_view.export(folder, url) == (url, 0)
    assert held(url) == before


def test_a_study_follows_a_sweep_through_its_interruption(tmp_path: Path, url: str) -> None:
    folder = write(tmp_path / "sweep", 5)
    study_view.export(folder, url, living=True)
    check(folder, url)
    ids = [trial._trial_id for trial in study(url)]
    add(folder, 5, 6)
    study_view.export(folder, url)
    check(folder, url, running="WAITING")  # what no driver runs is not RUNNING
    assert study_view.running(url) == {}
    add(folder, 6, 8)
    study_view.export(folder, url, living=True)
    check(folder, url)
    assert list(study_view.running(url)) == [told.SWEEP_ID]
    add(folder, 8)
    study_view.export(folder, url)
    check(folder, url)
    assert [trial._trial_id for trial in study(url)][: len(ids)] == ids  # brought up to date, not made anew


def test_an_export_that_was_killed_is_completed(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "sweep")
    for name in ("create_new_trial", "_add_curves"):
        kill_at(name, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            study_view.export(folder, url)
        monkeypatch.undo()
    study_view.export(folder, url)
    check(folder, url)


def kill_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die after the second trial was entered, or before any curve was."""
    owner = optuna.storages.RDBStorage if name == "create_new_trial" else study_view.View
    true, calls = getattr(owner, name), []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if name == "_add_curves" or len(calls) > 2:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(owner, name, dying)


def test_a_study_that_contradicts_the_journal_is_made_anew(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shown.db'}"
    folder = write(tmp_path / "sweep")
    study_view.export(folder, url)
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trial_values SET value = value + 1"))
    assert study_view.export(folder, url) == (url, 6)
    check(folder, url)


def test_a_live_view_follows_and_ends(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_view, "POLL_S", 0.05)
    monkeypatch.setenv(study_view.DATABASE, url)
    folder = write(tmp_path / "sweep", 8)
    with study_view.following(folder, folders.read_spec(folder)) as view:
        add(folder, 8)
    assert view is not None
    assert view.error == ""
    check(folder, url)


def test_a_database_that_is_away_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(study_view.DATABASE, "postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setattr(study_view, "LEAVE_S", 0.5)
    folder = write(tmp_path / "sweep", 8)
    with study_view.following(folder, folders.read_spec(folder)) as view:
        pass
    assert view is not None
    view._thread.join(20)
    assert "Error" in view.error


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    folder = write(tmp_path / "sweep")
    with study_view._alone(folder), pytest.raises(study_view.StudyBusy, match="another process"):
        study_view.export(folder)


def test_the_best_of_the_study_is_the_sweeps(tmp_path: Path) -> None:
    folder = write(tmp_path / "sweep")
    study_view.export(folder)
    shown = [trial for trial in study(study_view.default_url(folder)) if trial.value is not None]
    best = min(shown, key=lambda trial: trial.value or 0)
    complete = [t for t in history.load(folder).trials.values() if t.state == "complete"]
    assert best.number == min(complete, key=lambda trial: trial.objective or 0).number
