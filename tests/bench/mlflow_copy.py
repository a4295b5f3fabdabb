"""A sweep of 300 trials x 30 metrics x 50 reports in MLflow: mirrored, counted, searched, looked at in a browser."""

import argparse
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from made_sweep import Made

from sweeps import history, tracking

SMALL = ((40, 4, 5), (45, 4, 5), (50, 4, 5))
"""Sweeps beside the large one, so that sweeps can be sorted."""


def mirror(folder: Path, uri: str) -> tuple[float, float]:
    """Seconds, and this process's CPU seconds, until MLflow has all of a folder."""
    os.environ["MLFLOW_TRACKING_URI"] = uri
    follower = tracking.Mirror(folder)
    began, cpu = time.perf_counter(), time.process_time()
    follower.start()
    assert follower.drain(3000), follower.status()
    spent = time.perf_counter() - began, time.process_time() - cpu
    follower.stop()
    return spent


def counted(database: Path, folder: Path) -> dict[str, int]:
    """How many runs and points the database holds of the folder's sweep, and how many there should be."""
    told = history.load(folder)
    names = {name for trial in told.trials.values() for row in trial.metrics.values() for name in row}
    wanted = sum(len(row) for trial in told.trials.values() for row in trial.metrics.values())
    within = "run_uuid in (select run_uuid from tags where key = 'musweep.sweep_id' and value = ?)"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        marks = ", ".join("?" * len(names))
        found = f"select count(*) from metrics where key in ({marks}) and {within}"
        runs = f"select count(*) from runs where {within} and lifecycle_stage = 'active' and status = 'FINISHED'"
        (points,) = connection.execute(found, [*names, told.sweep_id]).fetchone()
        (held,) = connection.execute(runs, [told.sweep_id]).fetchone()
    return {"runs": held, "runs wanted": len(told.trials) + 1, "points": points, "points wanted": wanted}


@contextlib.contextmanager
def served(work: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A real `mlflow server` on SQLite with two workers, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{work / 'server.db'}", "--artifacts-destination", str(work / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "2", *store]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                break
            time.sleep(0.2)
        else:
            raise TimeoutError("mlflow server does not answer")
        yield f"http://127.0.0.1:{port}", psutil.Process(server.pid)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process and its children."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def asked(client: Any, experiment: str) -> tuple[dict[str, float], list[Any]]:
    """Seconds that questions take through MLflow's client, and the searched trials, best first."""
    seconds: dict[str, float] = {}

    def timed(name: str, call: Any) -> Any:
        began = time.perf_counter()
        found = call()
        seconds[name] = round(time.perf_counter() - began, 3)
        return found

    best = ["metrics.gap_to_hf ASC"]
    where = "tags.`musweep.role` = 'search'"
    timed("100 runs by gap_to_hf", lambda: client.search_runs([experiment], where, max_results=100, order_by=best))
    trials = timed("all runs by gap_to_hf", lambda: client.search_runs([experiment], where, order_by=best))
    baselines = "tags.`musweep.role` = 'baseline' and metrics.gap_to_hf < 1"
    timed("baselines below 1", lambda: client.search_runs([experiment], baselines, order_by=best))
    run = trials[0]
    timed("history of one metric", lambda: client.get_metric_history(run.info.run_id, "train_loss"))
    names = list(run.data.metrics)
    timed("history of all its metrics", lambda: [client.get_metric_history(run.info.run_id, name) for name in names])
    return seconds, list(trials)


def looked_at(client: Any, server: str, work: Path, pictures: Path | None, trial: Any) -> dict[str, float]:
    """Seconds of each step in the browser, checked against what the client finds; nothing without a Chromium."""
    from browser import CHROMIUM

    if CHROMIUM is None:
        return {}
    import mlflow_ui

    experiment = client.get_experiment_by_name("made").experiment_id

    def number(text: str) -> int:
        return min(100, len(client.search_runs([experiment], text, max_results=100)))  # a page of the table

    sweeps = client.search_runs([experiment], "tags.musweep.role = 'sweep'", order_by=["metrics.trials DESC"])
    expected = {
        "baseline": number("tags.`musweep.role` = 'baseline'"),
        "confirmed": number("tags.musweep.stage LIKE 'confirm%'"),
        "sweep": len(sweeps),
    }
    return mlflow_ui.visit(server, experiment, expected, trial.info.run_id, sweeps[0].info.run_id, work, pictures)


def measure(trials: int, metrics: int, reports: int, pictures: Path | None) -> dict[str, Any]:
    """Everything, first into SQLite directly, then through a server."""
    found: dict[str, Any] = {"sweep": {"trials": trials, "metrics": metrics, "reports": reports}}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = Made(trials, metrics, reports).write(work / "made")
        others = [Made(*size, luck=n + 2).write(work / f"other{n}") for n, size in enumerate(SMALL)]
        direct = f"sqlite:///{work / 'direct.db'}"
        client = tracking.connect(direct)
        seconds, cpu = mirror(folder, direct)
        arrived = counted(work / "direct.db", folder)
        asking, _ = asked(client, client.get_experiment_by_name("made").experiment_id)
        began = time.perf_counter()
        tracking.sync(folder, direct)
        again = time.perf_counter() - began
        found["sqlite"] = {
            "mirror_s": round(seconds, 1), "mirror_cpu_s": round(cpu, 1), "sync_of_a_whole_copy_s": round(again, 1),
            **arrived, "megabytes": round((work / "direct.db").stat().st_size / 1e6), "ask_s": asking,
        }  # fmt: skip
        print(json.dumps(found["sqlite"]), flush=True)
        with served(work) as (server, process):
            client = tracking.connect(server)
            before = cpu_of(process)
            seconds, cpu = mirror(folder, server)
            spent = cpu_of(process) - before
            arrived = counted(work / "server.db", folder)
            asking, best = asked(client, client.get_experiment_by_name("made").experiment_id)
            found["server"] = {
                "mirror_s": round(seconds, 1), "mirror_cpu_s": round(cpu, 1), "server_cpu_s": round(spent, 1),
                **arrived, "ask_s": asking,
            }  # fmt: skip
            print(json.dumps(found["server"]), flush=True)
            for other in others:
                mirror(other, server)
            found["browser_s"] = looked_at(client, server, work, pictures, best[0])
    for where in ("sqlite", "server"):
        assert found[where]["points"] == found[where]["points wanted"], found[where]
        assert found[where]["runs"] == found[where]["runs wanted"], found[where]
    points = found["sqlite"]["points"]
    found["ratios"] = {
        "share of points that arrived": 1.0,
        "milliseconds a point, SQLite": round(1000 * found["sqlite"]["mirror_s"] / points, 3),
        "milliseconds a point, server": round(1000 * found["server"]["mirror_s"] / points, 3),
    }
    return found


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--metrics", type=int, default=30)
    parser.add_argument("--reports", type=int, default=50)
    parser.add_argument("--pictures", type=Path, help="folder for a PNG of each page")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    found = measure(arguments.trials, arguments.metrics, arguments.reports, arguments.pictures)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
