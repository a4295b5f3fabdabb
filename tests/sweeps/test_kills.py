"""SIGKILL at random moments, then resume: the folder and MLflow end as if nothing had happened."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from sweeps import history, journal
from sweeps.spec import parse
from tests.sweeps.alone import run_alone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

SPEC = {
    "name": "kills",
    "task": "digits",
    "training": {"updates": 4000, "reports": 20, "batch": 16},
    "model": {"width": 48},
    "space": {
        "lr": {"type": "float", "low": 1e-3, "high": 1.0, "scale": "log"},
        "mu_max": {"type": "float", "low": 0.5, "high": 0.99, "scale": "one_minus_log"},
        "method": ["cm", "nag"],
        "depth": [1, 2],
    },
    "search": {"algorithm": "qmc", "seed": 5, "group_size": 8},
    "budget": {"trials": 32},
    "early_stopping": {"rungs": [600, 2000], "factor": 3, "fork": None},
    "resources": {"engine": "loop", "workers": 2},
    "objective": "valid_loss",
}


def start(*words: str) -> subprocess.Popen:
    """The command line in a process of its own; its output is kept for a failing test to show."""
    command = [sys.executable, "-m", "cluster.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def kill(process: subprocess.Popen) -> None:
    """SIGKILL a driver. Its board and workers notice within seconds; Ray's agents may stay for a minute."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=4)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(alive, timeout=10)


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(name in " ".join(child.cmdline()) for name in ("GroupWorker", "Trainable")):
                    found.append(child)
    return found


def results(folder: Path) -> dict:
    return {
        t.number: (t.params, t.state, t.stopped_at_rung, t.objective, t.updates, t.metrics)
        for t in history.load(folder).trials.values()
    }


def check_mlflow(root: Path, folder: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`musweep.sweep_id` = '{folder.name}'", max_results=1000)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == SPEC["budget"]["trials"]
    assert len(runs) == len(children) + 1
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    spec = parse(yaml.safe_load(yaml.safe_dump(SPEC)))  # the space in the file's order, which is that of the points
    return results(run_alone(spec, tmp_path_factory.mktemp("undisturbed") / "sweep"))


def test_a_driver_killed_at_random_moments(storage: Path, undisturbed: dict) -> None:
    order = random.Random(1)
    spec = storage / "spec.yaml"
    spec.write_text(yaml.safe_dump({**SPEC, "storage": str(storage)}))
    folder = storage / "sweep"
    process = start("run", str(spec), "--out", str(folder))
    for attempt in range(3):
        before = len(journal.read(folder / "journal.jsonl"))
        if attempt % 2:  # while it works: some time after its first new records
            while len(journal.read(folder / "journal.jsonl")) <= before + 1 and process.poll() is None:
                time.sleep(0.05)
            time.sleep(order.uniform(0, 2))
        else:  # at any moment, the start included
            time.sleep(order.uniform(0.3, 9))
        if process.poll() is not None:
            break
        kill(process)
        if not (folder / "spec.json").exists():
            process = start("run", str(spec), "--out", str(folder))
        else:
            process = start("resume", str(folder))
    finish(process)
    check(folder, undisturbed)
    check_mlflow(storage, folder)


def test_workers_killed_at_random_moments_and_one_that_hangs(storage: Path, undisturbed: dict) -> None:
    order = random.Random(2)
    spec = storage / "spec.yaml"
    resources = {**SPEC["resources"], "patience": 4.0}
    spec.write_text(yaml.safe_dump({**SPEC, "resources": resources, "storage": str(storage)}))
    folder = storage / "sweep"
    process = start("run", str(spec), "--out", str(folder))
    while process.poll() is None and not any(trial.updates for trial in history.load(folder).trials.values()):
        time.sleep(0.1)
    stopped = order.choice(workers(process))
    stopped.send_signal(signal.SIGSTOP)
    killed = 0
    while killed < 3 and process.poll() is None:
        time.sleep(order.uniform(0.1, 1.0))
        if found := [worker for worker in workers(process) if worker != stopped]:
            order.choice(found).send_signal(signal.SIGKILL)
            killed += 1
    finish(process)
    assert killed, "the sweep was over before a worker could be killed"
    check(folder, undisturbed)
    check_mlflow(storage, folder)
    faults = [record for record in journal.read(folder / "journal.jsonl") if record["type"] == "fault"]
    assert any("no sign of life" in record["words"] for record in faults)
    assert not stopped.is_running()


def check(folder: Path, undisturbed: dict) -> None:
    ends = [r["trial"] for r in journal.read(folder / "journal.jsonl") if r["type"] == "end"]
    assert sorted(ends) == list(range(SPEC["budget"]["trials"])), "each trial ends once"
    assert results(folder) == undisturbed
