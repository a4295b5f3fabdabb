"""Sweeps of a trainer of the user's own: to the end, through restarts at every report, and through Ray."""

import json
import math
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps import history, journal
from sweeps.board import Board
from sweeps.own_worker import OwnWorker
from sweeps.round import Answer
from sweeps.spec import SweepSpec, load

CODE = '''
"""Gradient descent on x^2 / 2 + noise from the trial's seed; the state is x and where the noise stands."""

import time

import torch


def train(trial):
    draws = torch.Generator().manual_seed(trial.seed)
    x = torch.ones(3, dtype=torch.float64)
    if trial.state and trial.params["keeps"] == "yes":
        x, start = trial.state["x"], trial.start
        draws.set_state(trial.state["draws"])
    else:
        start = 0
    for update in range(start + 1, trial.updates + 1):
        x = x - trial.params["lr"] * x + 0.01 * torch.randn(3, generator=draws, dtype=torch.float64)
        if trial.params["kind"] == "fails" and update == 7:
            raise RuntimeError("no more")
        if trial.params["kind"] == "ends" and update == 11:
            return
        if trial.due(update):
            time.sleep(trial.params["sleep"])
            state = {"x": x, "draws": draws.get_state()} if trial.params["keeps"] == "yes" else None
            loss = (x @ x) / 2 if trial.params["kind"] != "breaks" or update < 6 else float("inf")
            trial.report(update, state=state, loss=loss, step=update)
'''
SPEC: dict[str, Any] = {
    "trainer": "own_noisy:train",
    "objective": "loss",
    "training": {"updates": 20, "reports": 10},
    "space": {
        "lr": {"type": "float", "low": 0.001, "high": 0.5, "scale": "log"},
        "kind": {"type": "choice", "values": ["usual", "fails", "ends", "breaks"]},
        "keeps": {"type": "choice", "values": ["yes", "no"]},
        "sleep": 0,
    },
    "search": {
        "algorithm": "random",
        "seed": 5,
        "points": [
            {"lr": 0.1, "kind": "usual", "keeps": "yes"},
            {"lr": 0.2, "kind": "fails", "keeps": "yes"},
            {"lr": 0.3, "kind": "ends", "keeps": "no"},
            {"lr": 0.4, "kind": "breaks", "keeps": "no"},
        ],
    },
    "early_stopping": {"rungs": [4, 8], "factor": 2},
    "budget": {"trials": 14},
    "mlflow": {"enabled": False},
}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    return write(tmp_path, monkeypatch, SPEC)


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, plain: dict[str, Any]) -> SweepSpec:
    """The spec and the module beside it, which no other test has loaded."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_noisy", raising=False)
    (folder / "own_noisy.py").write_text(CODE)
    (folder / "own.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(plain))))
    return load(folder / "own.yaml")


def worker_at(board: Board, folder: Path, spec: SweepSpec) -> tuple[OwnWorker, int]:
    """A worker that has just attached, as Ray Tune would make it, and its incarnation."""
    worker = object.__new__(OwnWorker)
    worker._group, worker._folder, worker._spec, worker._engines = 0, folder, spec, {}
    worker._prepare({"cwd": str(Path.cwd()), "device": "cpu"})
    worker._open()
    worker._last_checkpoint, worker._checkpoint_cost = -math.inf, 0.0
    attached = board.attach(0)
    worker._restore(attached.trials)
    return worker, attached.incarnation


def sweep(folder: Path, spec: SweepSpec, restart_every: int = 0) -> dict[int, Any]:
    """Run a sweep with one worker and no Ray; `restart_every` so many reports driver and worker die without a word."""
    folder.mkdir(parents=True, exist_ok=True)
    rounds, done = 0, False
    while not done:
        board = Board(folder, spec, 1, 1)
        worker, incarnation = worker_at(board, folder, spec)
        while not done:
            rounds += 1
            done = worker._obey(board.report(0, incarnation, "own", worker._advance())[0])
            if restart_every and rounds % restart_every == 0:
                break
        worker.cleanup()
        board._journal.close()
    return results(folder)


def results(folder: Path) -> dict[int, Any]:
    return {
        t.number: (t.params, t.state, t.reason, t.stopped_at_rung, t.objective, t.updates, t.metrics)
        for t in history.load(folder).trials.values()
    }


def test_every_fate_of_a_trial(tmp_path: Path, spec: SweepSpec) -> None:
    sweep(tmp_path / "sweep", spec)
    told = history.load(tmp_path / "sweep").trials
    assert len(told) == 14
    usual, fails, ends, breaks = (told[number] for number in range(4))
    assert (usual.state, usual.updates, sorted(usual.metrics)) == ("complete", 20, list(range(2, 21, 2)))
    assert usual.metrics[20]["step"] == 20
    assert usual.objective == usual.metrics[20]["loss"]
    assert (fails.state, fails.updates, fails.reason) == ("failed", 6, "RuntimeError: no more")
    assert fails.traceback.endswith("RuntimeError: no more\n")
    assert 'own_noisy.py", line' in fails.traceback
    assert (ends.state, ends.updates, ends.objective) == ("complete", 10, ends.metrics[10]["loss"])
    assert ends.reason == "its trainer ended it at update 10"
    assert (breaks.state, breaks.reason, breaks.objective) == ("diverged", "score inf at update 6", None)
    assert "stopped" in {trial.state for trial in told.values()}
    assert {trial.engine for trial in told.values()} == {"own"}
    said = journal.read(tmp_path / "sweep" / "journal.jsonl")
    assert [r["trial"] for r in said if r["type"] == "end"] == sorted(told)


@pytest.mark.parametrize("every", [1, 3])
def test_restarts_change_nothing(tmp_path: Path, spec: SweepSpec, every: int) -> None:
    assert sweep(tmp_path / "broken", spec, restart_every=every) == sweep(tmp_path / "whole", spec)


def test_a_restart_goes_on_from_the_newest_state(tmp_path: Path, spec: SweepSpec) -> None:
    board = Board(tmp_path, spec, 1, 1)
    worker, incarnation = worker_at(board, tmp_path, spec)
    worker._checkpoint_due = lambda asked: asked
    for _ in range(3):
        worker._obey(board.report(0, incarnation, "own", worker._advance())[0])
    worker.cleanup()
    again, _ = worker_at(board, tmp_path, spec)
    assert again._at == {0: 6}
    assert again._checkpoints.read({0: 6})[0].update == 6
    assert again._checkpoints.read({0: 5})[0].update == 4
    (entry,) = again._advance()
    assert (entry.number, entry.update) == (0, 8)
    again.cleanup()


def test_the_state_of_a_complete_trial_is_kept(tmp_path: Path, spec: SweepSpec) -> None:
    from trainers import own

    folder = tmp_path / "sweep"
    found = sweep(folder, spec)
    kept = own.unpack((folder / "models" / "t00000.npz").read_bytes())[0]
    x = kept.value()["x"]
    assert kept.update == 20
    assert float(x @ x) / 2 == found[0][4]
    complete = {number for number, row in found.items() if row[1] == "complete" and row[0]["keeps"] == "yes"}
    assert {int(path.stem[1:]) for path in (folder / "models").iterdir()} == complete


def test_a_target_ends_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {**SPEC, "early_stopping": None, "target": {"metric": "loss", "below": 0.5}, "budget": {"trials": 1}}
    sweep(tmp_path / "sweep", write(tmp_path, monkeypatch, plain))
    trial = history.load(tmp_path / "sweep").trials[0]
    updates = sorted(trial.metrics)
    assert trial.state == "complete"
    assert trial.metrics[updates[-1]]["loss"] < 0.5 < trial.metrics[updates[-2]]["loss"]
    assert (tmp_path / "sweep" / "models" / "t00000.npz").exists()


def test_an_interrupted_group_leaves_a_checkpoint(tmp_path: Path, spec: SweepSpec) -> None:
    board = Board(tmp_path, spec, 1, 1)
    worker, incarnation = worker_at(board, tmp_path, spec)
    worker._checkpoint_cost = math.inf
    board.report(0, incarnation, "own", worker._advance())
    assert worker._obey(Answer(leave=True))
    assert worker._checkpoints.read({0: 2})[0].update == 2
    worker.cleanup()


def test_the_function_is_looked_for_before_anything_is_trained(tmp_path: Path, spec: SweepSpec) -> None:
    from sweeps import folder
    from sweeps.resolve import places, resolve
    from trainers.tasks.options import TaskError

    made = folder.create(spec, tmp_path / "sweep")
    assert resolve(made, spec).engines == {}
    assert places(made, spec)[1] == 1
    absent = spec.model_copy(update={"trainer": "own_noisy:absent"})
    with pytest.raises(TaskError, match="trainer own_noisy:absent: module own_noisy has no function absent"):
        resolve(made, absent)


def test_the_documented_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "own-trainer.md").read_text()
    module, by_hand = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "waves", raising=False)
    (tmp_path / "waves.py").write_text(module)
    (tmp_path / "waves.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0])
    spec = load(
        tmp_path / "waves.yaml", ["budget.trials=5", "training.updates=100", "training.reports=4", "space.lr.high=0.1"]
    )
    exec(by_hand, {})
    assert re.fullmatch(r"update 200: .*valid_loss [\d.e-]+\nupdate 400: .*\n", capsys.readouterr().out)
    found = sweep(tmp_path / "sweep", spec, restart_every=3)
    assert {row[1] for row in found.values()} == {"complete", "stopped"}
    assert found == sweep(tmp_path / "whole", spec)


@pytest.mark.slow
def test_a_sweep_through_ray_interrupted_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from dashboards.report import write as report
    from sweeps.run import Interrupted, resume, run

    confirm = {"top": 2, "seeds": 2}
    plain = {**SPEC, "space": {**SPEC["space"], "sleep": 0.05}, "resources": {"workers": 1}, "confirm": confirm}
    spec = write(tmp_path, monkeypatch, plain)
    folder, sent = tmp_path / "sweep", list[int]()

    def interrupt(state: dict[str, Any]) -> None:
        if state.get("updates", 0) > 5 and not sent:
            sent.append(state["updates"])
            os.kill(os.getpid(), signal.SIGINT)

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(Interrupted):
            run(spec, folder, on_status=interrupt)
        assert history.load(folder).closed == "interrupted"
        resume(folder, report=report)
    finally:
        ray.shutdown()
    assert history.load(folder).closed == "finished"
    assert results(folder) == sweep(tmp_path / "whole", spec)
    stages = [trial.stage for trial in history.load(folder).trials.values()]
    assert stages == ["search"] * 14 + ["confirm"] * 4
    assert "own_noisy:train" in (folder / "report.html").read_text()
