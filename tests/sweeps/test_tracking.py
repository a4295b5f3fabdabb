import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from sweeps import history, tracked, tracking
from sweeps.history import Trial
from sweeps.mlflow_copy import Copy
from tests.sweeps import told
from tests.sweeps.mirrored import Faulty, Found, mirror, nothing

STATES = {
    f"t{n:05d}": state for n, state in enumerate(["complete", "stopped", "diverged", "failed", "complete", "skipped"])
}
HUGE = sys.float_info.max  # how MLflow's SQL store holds an infinity


def wanted(folder: Path, trial: Trial) -> list[tuple[str, int, Any, int]]:
    """The points that the told journal has of a trial, with the time of their first report."""
    times = {10: 2, 20: 3, 30: 4, 40: 102 if trial.number == 0 else 103}
    points = [
        (name, update, "nan" if math.isnan(value) else min(value, HUGE), round((told.START + times[update]) * 1000))
        for update, metrics in trial.metrics.items()
        for name, value in metrics.items()
    ]
    ended = round((trial.ended_at or 0) * 1000)
    finals = {"updates": trial.updates, "work": trial.work, "seconds": trial.wall_s, "cpu_seconds": trial.wall_s}
    finals |= {"objective": trial.objective}
    return sorted([*points, *((n, trial.updates, v, ended) for n, v in finals.items() if v is not None)])


def check_complete(folder: Path) -> Found:
    """MLflow has exactly the told sweep."""
    found = Found(folder.parent)
    told_of = {trial.id: trial for trial in history.load(folder).trials.values()}
    assert sorted(run.info.run_name for run in found.runs) == sorted(told_of)
    for name, run in found.children.items():
        assert run.info.status == ("FAILED" if STATES[name] == "failed" else "FINISHED")
        assert run.data.tags["musweep.state"] == STATES[name]
        assert run.data.tags["musweep.reason"] == f"why {STATES[name]}"
        assert found.points(name) == wanted(folder, told_of[name])
    assert found.parent is not None
    assert found.parent.info.status == "FINISHED"
    return found


def test_a_finished_sweep_in_mlflow(storage: Path) -> None:
    folder = told.write(storage / "sweep")
    (folder / "report.html").write_text("<html>")
    assert mirror(folder)
    found = check_complete(folder)
    assert found.parent is not None
    parent = found.parent.data
    assert parent.tags["musweep.git_sha"] == "0123abcd"
    assert parent.tags["musweep.git_dirty"] == "true"
    assert parent.tags["musweep.version.torch"] == "2.13.0"
    assert parent.params["search.algorithm"] == "random"
    assert parent.metrics == {"trials": 6.0, "best_objective": 1 / 40 + 1, "cpu_seconds": 10.0}  # as test_cost.py adds
    run_id = found.parent.info.run_id
    assert sorted(file.path for file in found.client.list_artifacts(run_id)) == ["report.html", "spec.json"]
    child = found.children["t00001"]
    assert child.data.tags[tracked.TRIAL_UID] == f"{told.SWEEP_ID}/t00001/search/0"
    assert child.data.tags[tracked.PARENT] == run_id
    assert child.data.tags["musweep.stopped_at_rung"] == "20"
    assert child.data.params["lr"] == "0.2"
    assert child.data.params["one_minus_mu_max"] == "0.1"
    assert child.data.params["seed.sweep"] == "7"
    assert "mu_max" not in found.children["t00000"].data.params  # plain SGD
    assert child.info.start_time == round((told.START + 1) * 1000)
    assert child.info.end_time == round((told.START + 3) * 1000)


def test_killed_at_every_commit(storage: Path) -> None:
    """A new mirror after each commit, and at each of them as many children as trials that ended or were shown."""
    folder = storage / "sweep"
    for commit in told.commits():
        told.write(folder, [commit])
        assert mirror(folder)
        found, now = Found(storage), history.load(folder)
        assert sorted(found.children) == sorted(trial.id for trial in now.trials.values())
        assert len(found.runs) == len(found.children)
        running = {name for name, run in found.children.items() if run.info.status == "RUNNING"}
        if now.closed is not None:
            assert not running
        assert found.parent is not None
        expected = {None: "RUNNING", "interrupted": "KILLED", "finished": "FINISHED"}[now.closed]
        assert found.parent.info.status == expected
    check_complete(folder)


def test_killed_after_every_request(storage: Path) -> None:
    """Each life makes one more request than its forerunner got through, then dies without a word."""

    class Killed(BaseException):
        pass

    folder = told.write(storage / "sweep")
    follower = tracked.Follower()
    follower.apply(tracking.journal.read(folder / "journal.jsonl"))
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    lives = 0
    while True:
        lives += 1
        left = [lives % 3]

        def die(name: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1

        try:
            client = Faulty(tracking.connect(uri), nothing, die)
            Copy(folder, client, uri, None, repair=False).push(follower, final=False)
            break
        except Killed:
            assert lives < 60
    assert lives > 10
    check_complete(folder)


@pytest.mark.parametrize("together", [False, True])
def test_an_outage_is_made_up_for(storage: Path, monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    """Down at the start, then failing before or after every other request has taken effect."""
    monkeypatch.setattr(tracking, "BACKOFF_S", (0.001, 0.01))
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    if together:  # as to a server
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    folder = told.write(storage / "sweep")
    calls = [0]

    def flaky(name: str) -> None:
        calls[0] += 1
        if calls[0] % 5 == 3:
            raise ConnectionError("no answer from http://me:hunter2@server:5000")

    def connect(_: str) -> Any:
        calls[0] += 1
        if calls[0] < 4:
            raise ConnectionError("down")
        return Faulty(tracking.connect(uri), flaky, flaky)

    assert mirror(folder, connect)
    check_complete(folder)


def test_a_dead_mlflow_costs_nothing_and_is_told(storage: Path) -> None:
    folder = told.write(storage / "sweep")

    def connect(uri: str) -> Any:
        raise ConnectionError("no answer from http://me:hunter2@server:5000")

    follower = tracking.Mirror(folder, connect=connect)
    assert not follower.drain(10)  # not started: says so at once
    follower.start()
    assert not follower.drain(0.3)
    status = follower.status()
    assert status["behind"] == 6
    assert status["error"] == "ConnectionError: no answer from http://me:***@server:5000"
    follower.stop()
    assert mirror(folder)
    check_complete(folder)


def test_the_mirror_keeps_up_with_a_running_sweep(storage: Path) -> None:
    folder = storage / "sweep"
    said = told.commits()
    told.write(folder, said[:1])
    follower = tracking.Mirror(folder)
    follower.start()
    for commit in said[1:]:
        told.write(folder, [commit])
        assert follower.drain(60), follower.status()
    assert follower.status() == {"behind": 0, "error": None, "uri": f"sqlite:///{storage / 'mlflow.db'}"}
    (folder / "report.html").write_text("<html>")  # written after the sweep was closed
    assert follower.drain(60), follower.status()
    follower.stop()
    found = check_complete(folder)
    assert found.parent is not None
    assert "report.html" in [file.path for file in found.client.list_artifacts(found.parent.info.run_id)]


def test_short_trials_appear_when_they_end(storage: Path) -> None:
    """Three requests each; a trial younger than ten seconds is not shown before."""
    now = time.time() - told.START
    said = [[told.opened(1, now)], [told.ask(n, now) for n in range(3)], [told.report([0, 1, 2], 10, now)]]
    folder = told.write(storage / "sweep", said)
    names: list[str] = []
    connect = lambda uri: Faulty(tracking.connect(uri), names.append, nothing)  # noqa: E731
    assert mirror(folder, connect)
    assert Found(storage).children == {}
    told.write(folder, [[told.end(n, "complete", 10, now) for n in range(3)]])
    names.clear()
    assert mirror(folder, connect)
    assert [name for name in names if name == "create_run"] == ["create_run"] * 3
    assert names.count("set_terminated") == 3
    assert names.count("write") == 4  # one is the parent's sign of life
    assert len(names) == 10


def test_sync_repairs_whatever_mlflow_holds(storage: Path) -> None:
    folder = told.write(storage / "sweep")
    assert tracking.sync(folder).startswith("6 trials in experiment told at sqlite:///")
    before = check_complete(folder)
    assert tracking.sync(folder).startswith("6 trials")  # again: nothing changes
    assert {n: r.info.run_id for n, r in check_complete(folder).children.items()} == {
        n: r.info.run_id for n, r in before.children.items()
    }
    client = before.client
    client.delete_run(before.children["t00000"].info.run_id)  # one is gone,
    client.update_run(before.children["t00001"].info.run_id, status="RUNNING")  # one was left running,
    client.set_tag(before.children["t00003"].info.run_id, "musweep.state", "complete")  # one tells a lie,
    tags = dict(before.children["t00004"].data.tags)
    client.create_run(before.children["t00004"].info.experiment_id, tags=tags, run_name="t00004")  # and one is doubled
    tracking.sync(folder)
    check_complete(folder)


def test_sync_ends_a_sweep_whose_driver_died(storage: Path) -> None:
    folder = told.write(storage / "sweep", told.commits()[:5])
    assert mirror(folder)
    assert Found(storage).parent.info.status == "RUNNING"  # type: ignore[union-attr]
    tracking.sync(folder)
    found = Found(storage)
    assert {name: run.info.status for name, run in found.children.items()} == {
        "t00000": "KILLED", "t00001": "FINISHED", "t00002": "FINISHED", "t00003": "KILLED",
    }  # fmt: skip
    assert found.parent is not None
    assert found.parent.info.status == "KILLED"
    told.write(folder, told.commits()[6:])  # and a resume finishes it
    assert mirror(folder)
    check_complete(folder)


def test_a_failed_trial_that_is_retried_fails_no_more(storage: Path) -> None:
    folder = told.write(storage / "sweep")
    assert mirror(folder)
    assert Found(storage).children["t00003"].info.status == "FAILED"
    close = {"type": "close", "time": told.START + 110, "reason": "interrupted"}
    told.write(folder, [[{"type": "retry", "time": told.START + 110, "trials": [3]}, close]])
    assert mirror(folder)
    assert Found(storage).children["t00003"].info.status == "KILLED"
    told.write(folder, [[told.opened(3, 111)]])
    assert mirror(folder)
    assert Found(storage).children["t00003"].info.status == "RUNNING"
    done = {**told.end(3, "complete", 40, 120), "reason": ""}
    told.write(folder, [[told.report([3], 40, 119), done], [{**close, "reason": "finished"}]])
    assert mirror(folder)
    run = Found(storage).children["t00003"]
    assert (run.info.status, run.data.tags["musweep.state"]) == ("FINISHED", "complete")
    assert run.data.tags.get("musweep.reason", "") == ""
    assert run.data.metrics["objective"] == done["objective"]


def test_one_trial_that_mlflow_refuses_loses_no_metrics(storage: Path) -> None:
    folder = told.write(storage / "sweep")
    found_out = tracking.connect(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = found_out.create_experiment("told", artifact_location=(storage / "a").as_uri())
    uid = f"{told.SWEEP_ID}/t00001/search/0"
    tags = {**tracked.identity(history.load(folder)), tracked.TRIAL_UID: uid, tracked.PARENT: "older"}
    run = found_out.create_run(experiment, tags=tags, run_name="t00001")
    found_out.log_param(run.info.run_id, "lr", "another")  # MLflow never changes a param
    assert "params of 1 refused: Changing param values is not allowed" in tracking.sync(folder)
    found = check_complete(folder)
    assert found.children["t00001"].data.params == {"lr": "another"}


def test_two_sweeps_of_one_name_stay_apart(storage: Path) -> None:
    """Folders that people name themselves may be called alike, on one server."""
    folder = told.write(storage / "sweep")
    assert mirror(folder)
    later = [[{**told.opened(1, 0), "time": told.START + 7.25}], [told.ask(0, 8), told.end(0, "skipped", 0, 8)]]
    tracking.sync(told.write(storage / "elsewhere", later))
    client = tracking.connect(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("told").experiment_id])
    assert len(runs) == (1 + 6) + (1 + 1)


def test_a_mirror_and_a_sync_do_not_meet(storage: Path) -> None:
    folder = told.write(storage / "sweep")
    follower = tracking.Mirror(folder)
    follower.start()
    assert follower.drain(60), follower.status()
    with pytest.raises(tracking.MirrorBusy, match="another process is mirroring"):
        tracking.sync(folder)
    follower.stop()
    tracking.sync(folder)


def test_passwords_stay_out_of_the_folder(storage: Path) -> None:
    folder = told.write(storage / "sweep")
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    secret = "https://me:hunter2@server:5000"
    spec = {**told.SPEC, "mlflow": {"enabled": True, "uri": secret, "experiment": None}}
    (folder / "spec.json").write_text(tracking.json.dumps(spec))
    assert "https://me:***@server:5000" in tracking.sync(folder, connect=lambda _: tracking.connect(uri))
    for path in [*folder.rglob("*"), *(storage / "mlartifacts").rglob("*"), storage / "mlflow.db"]:
        if path.is_file() and path != folder / "spec.json":
            assert b"hunter2" not in path.read_bytes(), path


def serve(storage: Path, port: int) -> "subprocess.Popen[bytes]":
    """A real server, once it answers."""
    store = ["--backend-store-uri", f"sqlite:///{storage / 'mlflow.db'}", "--artifacts-destination", str(storage / "a")]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return server
        except OSError:
            time.sleep(0.2)
    os.killpg(server.pid, signal.SIGKILL)
    raise TimeoutError("mlflow server does not answer")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_that_hangs_in_mid_sweep(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was asked while it hung it carries out later, after we gave up waiting: no run may come of it twice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # MLflow reads it before each request
    said = told.commits()
    folder = told.write(storage / "sweep", said[:4])
    server = serve(storage, port)
    follower = tracking.Mirror(folder)
    try:
        follower.start()
        assert follower.drain(150), follower.status()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        os.killpg(server.pid, signal.SIGSTOP)
        told.write(folder, said[4:])
        for _ in range(20):
            assert not follower.drain(3)
            if "timed out" in (follower.status()["error"] or ""):
                break
        assert "timed out" in (follower.status()["error"] or ""), follower.status()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        os.killpg(server.pid, signal.SIGCONT)
        (folder / "report.html").write_text("<html>")
        assert follower.drain(150), follower.status()
        assert follower.status()["error"] is None
    finally:
        follower.stop()
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    check_complete(folder)
    assert list((storage / "a").rglob("report.html"))


def test_where_runs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri(tmp_path / "sweep") == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a")
    assert tracking.tracking_uri(tmp_path / "sweep") == "http://a"
    assert tracking.tracking_uri(tmp_path / "sweep", "http://b") == "http://b"


def test_two_processes_make_one_sound_database(tmp_path: Path) -> None:
    """Both start on an empty folder; a third was killed while it was at it."""
    (tmp_path / ".mlflow.db.1.tmp").write_bytes(b"half a database")
    code = "import sys; from sweeps import tracking; print(tracking.connect(sys.argv[1]).get_experiment('0').name)"
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'mlflow.db'}"]
    root = Path(__file__).parents[2]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root) for _ in range(2)]
    for child in both:
        out, err = child.communicate(timeout=120)
        assert (out, err) == (b"Default\n", b"")  # and without a word of migrations
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


def test_importing_tracking_leaves_mlflow_for_later() -> None:
    code = "import sys, sweeps.tracking; print('mlflow' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own only on Linux")
def test_the_mirror_gives_way(storage: Path) -> None:
    found = []

    def connect(uri: str) -> Any:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return tracking.connect(uri)

    assert mirror(told.write(storage / "sweep"), connect)
    assert found == [19]
