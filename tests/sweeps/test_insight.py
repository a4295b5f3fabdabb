"""Measuring and judging nets in a worker, with a real group of tiny nets in the worker and no Ray."""

import math
from pathlib import Path

import numpy as np
import pytest

from sweeps import forks
from sweeps.board import Board
from sweeps.round import Answer
from sweeps.spec import SweepSpec, parse
from sweeps.store import read_diagnostics
from sweeps.worker import GroupWorker
from trainers.config import TrialConfig
from trainers.diagnostics import measure
from trainers.group import Group
from trainers.tasks import load

SPEC = {
    "name": "deep",
    "task": {"name": "digits", "examples": 200},
    "model": {"kind": "mlp", "activation": "relu", "depth": 24, "width": 24},
    "training": {"updates": 6, "reports": 3, "batch": 10, "init": "he", "lr": 0.01, "method": "sgd"},
    "space": {"init_scale": {"type": "choice", "values": [0.6, 1.0, 0.8]}},
    "search": {"algorithm": "grid"},
    "budget": {"trials": 3},
    "objective": "valid_loss",
}
DOOMED = {"rungs": None, "doomed": True}


def spec_with(**changes) -> SweepSpec:
    return parse({**SPEC, **changes})


def worker_at(board: Board, folder: Path, spec: SweepSpec, group: int = 0) -> GroupWorker:
    """A worker as `setup` makes it, but for Ray."""
    worker = object.__new__(GroupWorker)
    worker._group, worker._folder, worker._spec = group, folder, spec
    worker._start = forks.read_start(folder, spec)
    worker._trials = Group(load(spec.task.name, spec.task.settings), "loop", eval_examples=50)
    worker._engines = "loop"
    worker._open()
    worker._checkpoint_cost = 1e9
    attached = board.attach(group)
    worker._incarnation = attached.incarnation
    worker._restore(attached.trials)
    return worker


def work(worker: GroupWorker, board: Board, rounds: int | None = None) -> None:
    """Train and report to the end, or so many rounds."""
    while worker._at and rounds != 0:
        answers = board.report(worker._group, worker._incarnation, "loop", worker._advance())
        if worker._obey(answers.get(worker._group, Answer())):
            break
        rounds = None if rounds is None else rounds - 1


def run(folder: Path, spec: SweepSpec, slots: int = 3) -> Board:
    board = Board(folder, spec, 1, slots, clock=lambda: 0.0)
    work(worker_at(board, folder, spec), board)
    return board


def fates(board: Board) -> dict[float, tuple]:
    return {
        trial.params["init_scale"]: (trial.state, trial.reason, trial.updates, trial.objective, trial.doomed)
        for trial in board.history.trials.values()
    }


def test_trials_that_cannot_start_are_skipped_with_the_reason_and_the_numbers(tmp_path: Path) -> None:
    """kappa = 2 * .6^2 = .72 at depth 24: M_24 near .36^24 = 2e-11; .8: .64^24 = 2e-5, spared by the default bounds."""
    board = run(tmp_path, spec_with(early_stopping=DOOMED))
    assert board.finished
    found = fates(board)
    state, reason, updates, objective, doomed = found[0.6]
    assert (state, updates, objective, doomed) == ("skipped", 0, None, reason)
    assert reason.startswith("lengths shrink with depth: M_24 / M_0 = ")
    assert abs(math.log10(float(reason.split("= ")[1].split(",")[0])) - 24 * math.log10(0.36)) < 2
    assert found[1.0][0] == "complete"
    assert not found[1.0][4]


@pytest.mark.parametrize("slots", [1, 2])
def test_verdicts_do_not_depend_on_the_group(tmp_path: Path, slots: int) -> None:
    spec = spec_with(early_stopping=DOOMED)
    whole, other = tmp_path / "whole", tmp_path / "other"
    whole.mkdir()
    other.mkdir()
    assert fates(run(whole, spec)) == fates(run(other, spec, slots))


def test_a_recorded_verdict_is_skips_verdict_and_the_trial_is_trained_as_if_there_were_none(tmp_path: Path) -> None:
    boards = {}
    for name, doomed in (("off", False), ("record", "record"), ("skip", "skip")):
        (tmp_path / name).mkdir()
        boards[name] = fates(run(tmp_path / name, spec_with(early_stopping={"rungs": None, "doomed": doomed})))
    for scale, (state, reason, updates, objective, doomed) in boards["record"].items():
        assert (state, reason, updates, objective, "") == boards["off"][scale]
        assert doomed == boards["skip"][scale][4]
        assert state == "complete"
    assert boards["record"][0.6][4]


def test_a_worker_killed_before_its_report_judges_and_measures_again_to_the_same_end(tmp_path: Path) -> None:
    spec = spec_with(early_stopping=DOOMED, diagnostics={"at": ["init", "reports"], "what": ["lengths", "gradients"]})
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", spec)
    for rounds in (0, 1, 2):
        folder = tmp_path / str(rounds)
        folder.mkdir()
        board = Board(folder, spec, 1, 3, clock=lambda: 0.0)
        first = worker_at(board, folder, spec)
        work(first, board, rounds)
        first._advance()  # measured and written, but the report never left
        board._journal.close()
        again = Board(folder, spec, 1, 3, clock=lambda: 0.0)
        work(worker_at(again, folder, spec), again)
        assert fates(again) == fates(whole)
        assert again.history.trials[1].metrics == whole.history.trials[1].metrics
        tables = [read_diagnostics(place).to_pylist() for place in (folder, tmp_path / "whole")]
        kept = [[row for row in table if row["quantity"] != "seconds"] for table in tables]
        assert kept[0] == kept[1]


def test_what_is_measured_when_is_what_the_spec_says(tmp_path: Path) -> None:
    spec = spec_with(diagnostics={"at": ["init", "reports", "end"], "examples": 40}, budget={"trials": 1})
    board = run(tmp_path, spec)
    trial = board.history.trials[0]
    found: dict[int, set[str]] = {}
    for row in read_diagnostics(tmp_path).to_pylist():
        found.setdefault(row["update"], set()).add(row["quantity"])
        assert row["trial_id"] == "t00000"
    assert set(found) == {0, 2, 4, 6}
    assert found[0] == found[6]
    assert found[2] == found[4] == {name for name in found[0] if "histogram" not in name and "singular" not in name}
    assert set(trial.metrics) == set(found)
    assert all("diag/length_ratio" in metrics for metrics in trial.metrics.values())
    assert trial.metrics[0].keys() == {name for name in trial.metrics[6] if name.startswith("diag/")}


def test_stored_numbers_are_those_of_the_net(tmp_path: Path) -> None:
    spec = spec_with(diagnostics={"at": ["init"], "examples": 40})
    board = run(tmp_path, spec)
    config = TrialConfig.from_dict(board.history.trials[1].config)
    group = Group(load(spec.task.name, spec.task.settings), "loop")
    group.add(config)
    expected = measure(config.net, group.state(1).params, group._data.valid.head(40))
    rows = [row for row in read_diagnostics(tmp_path).to_pylist() if row["trial_id"] == "t00001"]
    for quantity, series in expected.items():
        mine = [row for row in rows if row["quantity"] == quantity]
        assert [row["layer"] for row in mine] == list(range(series.first, series.first + len(series.values)))
        np.testing.assert_allclose(np.array([row["values"] for row in mine]), series.values, rtol=1e-9, atol=1e-300)
        edges = [[row["low"], row["high"]] for row in mine]
        assert (edges == [[None, None]] * len(mine)) == (series.ends is None)


def test_a_trial_that_reaches_its_target_is_measured_as_at_its_end(tmp_path: Path) -> None:
    spec = spec_with(
        diagnostics={"at": ["end"], "what": ["lengths"]},
        target={"metric": "valid_loss", "below": 1e9},
        budget={"trials": 1},
    )
    board = run(tmp_path, spec)
    assert (board.history.trials[0].state, board.history.trials[0].updates) == ("complete", 2)
    assert set(read_diagnostics(tmp_path)["update"].to_pylist()) == {2}
