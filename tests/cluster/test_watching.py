"""A real sweep, watched while it runs: status, events, metrics, and what its workers printed."""

import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster import metrics
from sweeps import history, telemetry
from tests.cluster.test_sweep_life import COMMAND, ROOT, environment

TRAINER = """
import os, time

def train(trial):
    print("hello from", trial.params["lr"])
    for update in range(1, trial.updates + 1):
        time.sleep(0.05)
        if trial.params["lr"] > 0.5 and update > 2:
            os.write(2, b"about to fail\\n")
            raise RuntimeError("too large a step")
        trial.report(update, loss=1.0 / update)
"""
SPEC = """
name: watched
trainer: mine:train
objective: loss
training: {updates: 8, reports: 8}
space: {lr: {type: float, low: 0.1, high: 1.0}}
search: {algorithm: random, seed: 1}
budget: {trials: 10}
resources: {workers: 2}
mlflow: {enabled: false}
"""


def scrape(port: int) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = [*text_string_to_metric_families(answer.read().decode())]
    return {(s.name, s.labels.get("state", "")): s.value for family in families for s in family.samples}


@pytest.mark.slow
def test_a_sweep_is_watched_while_it_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TRAINER)
    (tmp_path / "watched.yaml").write_text(SPEC)
    folder = tmp_path / "runs" / "watched"
    server, thread = metrics.serve(tmp_path / "runs", 0)
    scrapes, read = [], subprocess.PIPE
    with subprocess.Popen([*COMMAND, "run", "watched.yaml", "--out", "runs/watched"], cwd=tmp_path,
                          env=environment(), stdout=read, stderr=read, text=True) as driver:  # fmt: skip
        follower = None
        while driver.poll() is None:
            time.sleep(0.2)
            if follower is None and telemetry.read(folder).get("driven"):
                follower = subprocess.Popen([sys.executable, "-m", "cluster.cli", "events", "-f", str(folder)],
                                            cwd=ROOT, env=environment(), stdout=read, text=True)  # fmt: skip
            scrapes.append(scrape(server.server_port))
        _, errors = driver.communicate(timeout=30)
    last = scrape(server.server_port)
    server.shutdown()
    server.server_close()
    thread.join(10)
    assert driver.returncode == 0, errors

    known = history.load(folder)
    counts = Counter(trial.state for trial in known.trials.values())
    assert counts["failed"] > 0 < counts["complete"]
    for state in ("running", *history.END_STATES):
        assert last["musweep_trials", state] == counts[state]
    assert last["musweep_updates_total", ""] == sum(trial.updates for trial in known.trials.values())
    assert last["musweep_cpu_seconds_total", ""] == pytest.approx(known.held.seconds)
    assert 0 < last["musweep_training_seconds_total", ""] <= last["musweep_cpu_seconds_total", ""]
    assert any(found.get(("musweep_driver_up", "")) == 1 for found in scrapes)
    assert last["musweep_driver_up", ""] == 0

    assert follower is not None
    out, _ = follower.communicate(timeout=30)
    told = [json.loads(line) for line in out.splitlines()]
    assert told == [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    kinds = Counter(event["type"] for event in told)
    assert (kinds["ask"], kinds["end"], kinds["driver_started"], kinds["driver_stopped"]) == (10, 10, 1, 1)
    assert told[-1]["reason"] == telemetry.read(folder)["phase"] == "done"

    failed = next(trial for trial in known.trials.values() if trial.state == "failed")
    shown = subprocess.run([*COMMAND, "logs", "runs/watched", failed.id], cwd=tmp_path, env=environment(),
                           capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()  # fmt: skip
    assert f"hello from {failed.params['lr']}" in shown
    assert "about to fail" in shown
    assert shown[-1] == "RuntimeError: too large a step"
    assert not [line for line in shown if line.startswith("hello") and str(failed.params["lr"]) not in line]
