from pathlib import Path

import pytest

from sweeps.board import Board
from sweeps.round import Entry
from sweeps.spec import SweepSpec
from sweeps.status import Meter, status

SPEC = SweepSpec.model_validate(
    {
        "task": "digits",
        "training": {"updates": 100, "reports": 5, "batch": 10},
        "space": {"lr": {"type": "float", "low": 0.1, "high": 1.0}},
        "search": {"algorithm": "random"},
        "budget": {"trials": 6},
        "early_stopping": {"rungs": [40], "factor": 2, "fork": None},
        "objective": "valid_loss",
    }
)


def report(board: Board, update: int) -> None:
    running = [t.number for t in board.history.trials.values() if t.state == "running"]
    board.report(0, 1, "loop", [Entry(n, update, {"valid_loss": float(n)}, float(n), 0.1) for n in running])


def test_the_status_counts_what_the_board_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(tmp_path, SPEC, 1, 4)
    board.attach(0)
    report(board, 20)
    meter = Meter()
    monkeypatch.setattr(meter, "rate", lambda updates: 2.0)
    before = status(board, meter)
    assert before["trials"]["running"] == 4
    assert before["updates"] == 4 * 20
    # Each of four trials has 20 to its rung and half a chance of 60 more; two trials to come have 40 + 30.
    assert before["eta_s"] == pytest.approx((4 * (20 + 30) + 2 * (40 + 30)) / 2)
    report(board, 40)  # of losses 0, 1, 2, 3, judged in turn: 0 passes as the best so far, 1, 2 and 3 do not
    after = status(board, meter)
    assert after["rungs"] == {40: [4, 1]}
    assert after["trials"] == {
        "asked": 6, "budget": 6, "running": 3, "complete": 0, "stopped": 3, "diverged": 0, "failed": 0, "skipped": 0
    }  # fmt: skip
    assert after["best"]["trial"] == 1
    assert after["eta_s"] == pytest.approx((60 + 2 * (40 + 60 / 4)) / 2)


def test_the_best_is_a_complete_trial_once_there_is_one(tmp_path: Path) -> None:
    board = Board(tmp_path, SPEC, 1, 4)
    board.attach(0)
    for update in (20, 40):
        report(board, update)
    for update in (60, 80, 100):
        running = [t for t in board.history.trials.values() if t.state == "running"]
        entries = [
            Entry(t.number, update if t.number == 0 else update - 40, {"valid_loss": 9.0}, 9.0, 0.1) for t in running
        ]
        board.report(0, 1, "loop", entries)
    assert status(board, Meter())["best"]["trial"] == 0
