"""What a dead driver leaves RUNNING is ended, what lives is left alone, and a resume opens it again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cluster import reaper
from sweeps import history, study_view, tracking
from sweeps.lease import Lease
from tests.sweeps import told
from tests.sweeps.mirrored import Found, mirror
from tests.sweeps.test_study_view import add, write

ALL = len(told.commits())


@pytest.fixture(autouse=True)
def no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(study_view.DATABASE, raising=False)


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def watch() -> reaper.Watch:
    return reaper.Watch(clock=Clock())


def later(watched: reaper.Watch, seconds: float) -> reaper.Watch:
    watched.clock.now += seconds  # type: ignore[attr-defined]
    return watched


def statuses(root: Path) -> dict[str, str]:
    found = Found(root)
    assert found.parent is not None
    return {"sweep": found.parent.info.status} | {name: run.info.status for name, run in found.children.items()}


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one sweep whose driver died while trials 0 and 3 ran, as MLflow had heard: made once, for copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = told.write(tmp_path_factory.mktemp("heard") / "runs" / "sweep", told.commits()[:5])
        assert mirror(folder)
        assert statuses(folder.parent)["sweep"] == "RUNNING"
    return folder.parent


@pytest.fixture
def dead_sweep(heard: Path, tmp_path: Path) -> Path:
    """That sweep, the test's own."""
    return Path(shutil.copytree(heard, tmp_path / "runs")) / "sweep"


def test_a_dead_sweep_is_ended_and_opened_again(dead_sweep: Path) -> None:
    folder = dead_sweep
    (found,) = reaper.reap(folder.parent, watch=watch())
    assert (found.state, found.what) == (reaper.CLOSED, told.SWEEP_ID)
    now = statuses(folder.parent)
    assert now["sweep"] == now["t00000"] == now["t00003"] == "KILLED"
    assert now["t00001"] == "FINISHED"
    assert reaper.reap(folder.parent, watch=watch()) == []
    add(folder, 6)
    assert mirror(folder)
    assert set(statuses(folder.parent).values()) == {"FINISHED", "FAILED"}  # t00003 failed


def test_a_living_sweep_is_left_alone(dead_sweep: Path) -> None:
    folder = dead_sweep
    before = statuses(folder.parent)
    with Lease(folder):
        (found,) = reaper.reap(folder.parent, watch=watch())
    assert found.state == reaper.RUNNING
    assert statuses(folder.parent) == before


def test_a_holder_on_another_host_must_have_been_silent(dead_sweep: Path) -> None:
    folder, watched = dead_sweep, watch()

    def says(text: str) -> None:
        (folder / "lease.json").write_text(text)
        os.utime(folder / "lease.json", (0, 0))  # a fresh one is taken for held at once

    said = '{"epoch": 3, "pid": 1, "host": "elsewhere", "boot": "other", "beat": %d, "started": 0}'
    says(said % 1)
    assert not reaper.dead(folder, watched)
    says(said % 2)
    assert not reaper.dead(folder, later(watched, 1000))  # it has moved
    assert not reaper.dead(folder, later(watched, 100))
    assert reaper.dead(folder, later(watched, 200))
    says(said.replace("elsewhere", socket.gethostname()) % 3)
    assert not reaper.dead(folder, watched)  # another start of this machine is another place


def test_a_sweep_without_a_folder_is_watched_first(
    dead_sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, watched = dead_sweep, watch()
    root, uri = tmp_path / "empty", tracking.tracking_uri(folder)
    root.mkdir()
    (found,) = reaper.reap(root, uri, watched)
    assert found.state == reaper.SILENT  # its sign of life is fresh
    true = time.time
    assert [f.state for f in reaper.reap(root, uri, later(watched, 1000))] == [reaper.SILENT]  # silent, but not expired
    monkeypatch.setattr(reaper.time, "time", lambda: true() + 1000)
    assert [f.state for f in reaper.reap(root, uri, watch())] == [reaper.SILENT]  # expired by its clock, not by ours
    assert [f.state for f in reaper.reap(root, uri, later(watched, 1000))] == [reaper.CLOSED]
    assert "RUNNING" not in statuses(folder.parent).values()


def test_a_damaged_folder_is_ended_too(dead_sweep: Path) -> None:
    folder = dead_sweep
    data = bytearray((folder / "journal.jsonl").read_bytes())
    second = data.index(b"\n") + 20
    data[second] ^= 1
    (folder / "journal.jsonl").write_bytes(data)
    (found,) = reaper.reap(folder.parent, watch=watch())
    assert found.state == reaper.CLOSED
    assert "musweep doctor" in found.says
    assert "RUNNING" not in statuses(folder.parent).values()


def test_a_server_that_is_away_is_said_and_nothing_else(tmp_path: Path) -> None:
    told.write(tmp_path / "runs" / "sweep")
    (found,) = reaper.reap(tmp_path / "runs", "http://127.0.0.1:9", watch())
    assert found.state == reaper.FAILED


def test_studies_of_dead_sweeps_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, shared = write(tmp_path / "runs" / "sweep", 5), f"sqlite:///{tmp_path / 'shared.db'}"
    monkeypatch.setenv(study_view.DATABASE, shared)
    study_view.export(folder, shared, living=True)
    study_view.export(folder, living=True)
    with Lease(folder):
        assert {found.state for found in reaper.reap(folder.parent, watch=watch())} == {reaper.RUNNING}
    assert [found.state for found in reaper.reap(folder.parent, watch=watch())] == [reaper.CLOSED] * 2
    assert study_view.running(shared) == study_view.running(study_view.default_url(folder)) == {}
    add(folder, 6, 8)
    study_view.export(folder, shared, living=True)
    folder.rename(tmp_path / "moved")
    watched = watch()
    assert [found.state for found in reaper.reap(folder.parent, watch=watched)] == [reaper.SILENT]
    assert [found.state for found in reaper.reap(folder.parent, watch=later(watched, 1000))] == [reaper.CLOSED]
    assert study_view.running(shared) == {}


SPEC: dict[str, Any] = {
    "name": "reaped",
    "task": "digits",
    "training": {"updates": 10_000, "reports": 50, "batch": 16},
    "model": {"depth": 1, "width": 16},
    "space": {"lr": {"type": "float", "low": 1e-3, "high": 0.1, "scale": "log"}},
    "search": {"algorithm": "random", "group_size": 4},
    "budget": {"trials": 8},
    "resources": {"engine": "loop", "workers": 1},
}


@pytest.mark.slow
def test_a_driver_that_was_killed(empty_database: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    folder = tmp_path / "runs" / "sweep"
    folder.parent.mkdir()
    shutil.copy(empty_database, folder.parent)  # made beforehand: it takes the mirror a while
    start(tmp_path, "run", "spec.yaml", "--out", "runs/sweep", until=lambda: shown_running(folder))
    assert "RUNNING" in everything(tmp_path / "runs")
    where = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True}
    done = subprocess.run(command("reap", "runs"), **where)
    assert done.returncode == 0, done.stderr
    assert "closed" in done.stdout
    after = everything(tmp_path / "runs")
    assert "RUNNING" not in after
    assert "KILLED" in after


def shown_running(folder: Path) -> bool:
    """Whether MLflow has heard of a sweep that still runs."""
    if not (folder / "mlflow.json").exists():
        return False
    return any(trial.state == "running" for trial in history.load(folder).trials.values())


def everything(root: Path) -> list[str]:
    client = tracking.connect(f"sqlite:///{root / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return sorted(run.info.status for run in client.search_runs(experiments, max_results=1000))


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "cluster.cli", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def start(place: Path, *words: str, until: Any) -> None:
    """Run a driver until something is so, then SIGKILL it; its family ends within seconds or is ended."""
    with (place / "driver.log").open("w") as log:
        driver = subprocess.Popen(command(*words), cwd=place, env=environment(), stdout=log, stderr=log)
    began = time.monotonic()
    while not until():
        assert driver.poll() is None, (place / "driver.log").read_text()
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(family, timeout=4)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=10)
