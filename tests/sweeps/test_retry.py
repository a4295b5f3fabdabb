"""Failed trials run again: exact and boring."""

import json
import random
from dataclasses import replace

import pytest

from cluster.cli import main
from sweeps import history, journal
from sweeps.board import Board
from sweeps.folder import write_spec_file
from sweeps.lease import Lease, LeaseHeld
from sweeps.retry import NotFailedError, failed, retry
from tests.sweeps.pretend import play, spec_with, table


def fail(monkeypatch, when):
    """Have trials raise at an update, each once."""
    report, left = Board.report, dict(when)

    def failing(self, group, incarnation, engine, entries):
        told = []
        for entry in entries:
            broken = left.get(entry.number) == entry.update and left.pop(entry.number)
            told.append(replace(entry, metrics={}, failed="ValueError: boom", traceback="here") if broken else entry)
        return report(self, group, incarnation, engine, told)

    monkeypatch.setattr(Board, "report", failing)
    return left


def swept(tmp_path, name, spec, **keys):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    if not (folder / "spec.json").exists():
        write_spec_file(folder, spec.model_dump(mode="json"))
    play(folder, spec, 3, 4, **keys).close("finished")
    return folder


def by_state(folder):
    return {trial.number: trial.state for trial in history.load(folder).trials.values()}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("algorithm", ["random", "qmc"])
def test_the_table_after_a_retry_is_that_of_an_undisturbed_run(tmp_path, monkeypatch, algorithm, seed):
    spec = spec_with(early_stopping=None, search={"algorithm": algorithm, "seed": seed}, budget={"trials": 20})
    expected = table(swept(tmp_path, "undisturbed", spec))
    rng = random.Random(seed)
    when = {number: 10 * rng.randint(1, 8) for number in rng.sample(range(20), 6)}
    when = {number: update for number, update in when.items() if expected[number][1] == "complete"}
    left = fail(monkeypatch, when)
    folder = swept(tmp_path, "failing", spec, seed=seed)
    assert not left
    assert {n for n, state in by_state(folder).items() if state == "failed"} == set(when)
    assert retry(folder) == sorted(when)
    assert {n for n, state in by_state(folder).items() if state == "running"} == set(when)
    assert history.load(folder).closed == "interrupted"
    swept(tmp_path, "failing", spec, seed=seed + 1)
    assert table(folder) == expected


@pytest.mark.parametrize("algorithm", ["tpe", "cmaes"])
def test_a_search_that_learns_goes_on_from_retried_trials(tmp_path, monkeypatch, algorithm):
    """With halving and a confirmation: each trial has one end, nobody else's end changes, and a replay agrees."""
    spec = spec_with(search={"algorithm": algorithm, "seed": 1}, confirm={"top": 2, "seeds": 2}, budget={"trials": 30})
    fail(monkeypatch, {2: 10, 5: 20, 11: 10, 17: 30, 31: 40})
    folder = swept(tmp_path, "a", spec)
    before = table(folder)
    numbers = retry(folder)
    assert numbers
    swept(tmp_path, "a", spec)
    after = table(folder)
    assert all(after[n] == before[n] for n in before if n not in numbers)
    assert "failed" not in by_state(folder).values()
    assert "running" not in by_state(folder).values()
    told = history.load(folder)
    assert all(not trial.traceback and trial.reason != "ValueError: boom" for trial in told.trials.values())
    board = Board(folder, spec, 3, 4)  # one more driver: nothing to do
    assert board.finished
    board.close("finished")


def test_what_was_measured_stays_and_twice_failed_is_twice_retried(tmp_path, monkeypatch):
    spec = spec_with(early_stopping=None, budget={"trials": 6})
    fail(monkeypatch, {3: 50})
    folder = swept(tmp_path, "a", spec)
    measured = history.load(folder).trials[3].metrics
    assert sorted(measured) == [10, 20, 30, 40]
    retry(folder, [3])
    assert history.load(folder).trials[3].metrics == measured
    fail(monkeypatch, {3: 60})
    swept(tmp_path, "a", spec)
    assert history.load(folder).trials[3].traceback == "here"
    retry(folder)
    swept(tmp_path, "a", spec)
    assert by_state(folder)[3] == "complete"
    said = [entry for record in journal.read(folder / "journal.jsonl") for entry in record.get("trials") or ()]
    reports = [entry["update"] for entry in said if isinstance(entry, dict) and entry["trial"] == 3]
    assert reports == [10, 20, 30, 40, 50, 60, 70, 80, 90]


def test_trials_lost_with_their_worker_are_told_from_the_users_own(tmp_path, monkeypatch):
    spec = spec_with(early_stopping=None, budget={"trials": 12})
    fail(monkeypatch, {0: 10})
    folder = tmp_path / "a"
    folder.mkdir()
    write_spec_file(folder, spec.model_dump(mode="json"))
    board = play(folder, spec, 3, 4, rounds=12)
    board.lose(1, "its process died")
    board.close("interrupted")
    told = history.load(folder)
    lost = [trial.number for trial in failed(told, lost=True)]
    assert lost
    assert sorted([0, *lost]) == [trial.number for trial in failed(told)]
    assert retry(folder, lost=True) == lost
    with pytest.raises(NotFailedError, match="no trial failed with its worker"):
        retry(folder, lost=True)
    swept(tmp_path, "a", spec)
    assert {n for n, state in by_state(folder).items() if state == "failed"} == {0}


def test_retried_trials_are_spread_over_the_groups(tmp_path, monkeypatch):
    spec = spec_with(early_stopping=None, budget={"trials": 12})
    when = {n: 10 for n in range(12) if n % 2}
    fail(monkeypatch, when)
    folder = swept(tmp_path, "a", spec)
    numbers = retry(folder)
    told = history.load(folder)
    assert [told.trials[n].group for n in numbers] == list(range(len(numbers)))


def test_what_cannot_be_retried_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    spec = spec_with(early_stopping=None, budget={"trials": 6})
    fail(monkeypatch, {3: 50})
    folder = swept(tmp_path, "a", spec)
    lines = len(journal.read(folder / "journal.jsonl"))
    for options, words in (
        ([], "say which: --failed, --lost or --trial"),
        (["--trial", "t00000"], "only failed trials can be retried"),
        (["--trial", "77"], "no trial 77"),
        (["--trial", "x"], "give its number"),
        (["--lost"], "no trial failed with its worker"),
    ):
        assert main(["retry", str(folder), *options]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert words in said
    with Lease(folder), pytest.raises(LeaseHeld):
        retry(folder)
    assert len(journal.read(folder / "journal.jsonl")) == lines
    assert json.loads((folder / "spec.json").read_bytes())["name"] == "pretend"
