"""A sweep as a person lives through it: run, Ctrl-C, resume, more, export, look."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sweeps import history

COMMAND = [sys.executable, "-m", "cluster.cli"]
ROOT = Path(__file__).parents[2]
SPEC = """
name: life
task: digits
model: {depth: 1, width: 16}
training: {updates: 200, batch: 32, reports: 4, eval_examples: 100}
space: {lr: {type: float, low: 0.001, high: 0.1, scale: log}}
search: {algorithm: random, group_size: 4}
budget: {trials: 300}
resources: {engine: loop, workers: 1}
mlflow: {enabled: false}
"""


def musweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def interrupted(folder: Path) -> tuple[int, str, str]:
    """Start a sweep, press Ctrl-C once some trials have ended, and wait."""
    with subprocess.Popen(
        [*COMMAND, "run", "life.yaml", "--out", "runs/life"], cwd=folder, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as driver:  # fmt: skip
        began = time.monotonic()
        while time.monotonic() - began < 90 and driver.poll() is None:
            time.sleep(0.1)
            trials = history.load(folder / "runs" / "life").trials.values()
            if sum(trial.state == "complete" for trial in trials) >= 20:
                os.killpg(driver.pid, signal.SIGINT)  # a terminal sends it to all processes of the foreground
                break
        out, err = driver.communicate(timeout=90)
    return driver.returncode, out, err


@pytest.mark.slow
def test_run_interrupt_resume_extend_export(tmp_path: Path) -> None:
    (tmp_path / "life.yaml").write_text(SPEC)
    code, out, err = interrupted(tmp_path)
    assert code == 130, err
    assert out.startswith("[00:00] sweep life in runs/life\n[00:00] starting\n")
    assert err.splitlines()[-1] == "interrupted; resume with: musweep resume runs/life"
    assert "Traceback" not in err
    before = history.load(tmp_path / "runs" / "life")
    assert before.closed == "interrupted"
    assert "interrupted" in musweep(tmp_path, "ls").stdout

    resumed = musweep(tmp_path, "run", "life.yaml", "--out", "runs/life")  # the same command goes on
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.startswith("going on with runs/life")
    assert "300 trials: 300 complete" in resumed.stdout
    after = history.load(tmp_path / "runs" / "life")
    for number, trial in before.trials.items():
        assert after.trials[number].params == trial.params
        if trial.state == "complete":
            assert after.trials[number].ended_at == trial.ended_at  # not trained again

    more = musweep(tmp_path, "run", "runs/life", "--more", "8")
    assert more.returncode == 0, more.stderr
    assert "308 trials: 308 complete" in more.stdout
    assert (tmp_path / "runs" / "life" / "report.html").stat().st_size > 100_000

    exported = musweep(tmp_path, "export", "life", "--model", "t00003", "--out", "three.pt")
    assert exported.returncode == 0, exported.stderr
    shapes = [tuple(tensor.shape) for tensor in torch.load(tmp_path / "three.pt", weights_only=True).values()]
    assert shapes == [(16, 64), (16,), (10, 16), (10,)]
    other = musweep(tmp_path, "run", "life.yaml", "--out", "runs/life", "--set", "search.seed=5")
    assert other.returncode == 2
    assert other.stderr.startswith("error: runs/life holds a sweep of another spec")
