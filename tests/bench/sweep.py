"""One musweep sweep from its command, in a cold process; its times, read from its journal."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
# peers/problem.py in musweep's words
SPEC: dict[str, Any] = {
    "name": "bench-digits",
    "task": "digits",
    "model": {"width": 64, "activation": "tanh"},
    "training": {"updates": 2000, "batch": 32, "reports": 9, "eval_examples": 500, "mu_step": 250},
    "space": {
        "lr": {"type": "float", "low": 1e-3, "high": 0.3, "scale": "log"},
        "mu_max": {"type": "float", "low": 0.5, "high": 0.99, "scale": "one_minus_log"},
        "method": ["cm", "nag"],
        "init": ["sparse", "standard", "normalized", "he"],
        "depth": [1, 2, 3, 4],
    },
    "search": {"algorithm": "tpe", "seed": 1},
    "budget": {"trials": 256},
    "early_stopping": {"rungs": [223, 669], "factor": 3, "compare_within": [], "fork": None},
    "objective": "valid_loss",
}


def with_trials(trials: int, **changes: dict[str, Any]) -> dict[str, Any]:
    """SPEC with so many trials and with changed keys in its sections."""
    sections = {name: {**SPEC[name], **change} for name, change in changes.items()}
    return {**SPEC, "budget": {"trials": trials}, **sections}


def run(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a sweep by its command, in a new process, and take the times.

    Raises:
        RuntimeError: the command failed; with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "spec.yaml"
    out = folder / "sweep"
    file.write_text(yaml.safe_dump({**spec, "storage": str(folder)}))
    began = time.time()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "cluster.cli", "run", str(file), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    reported = (out / "report.html").stat().st_mtime
    return {"report_s": reported - began, "command_s": ended - began, **times(out, began, ended)}


def times(folder: Path, began: float, ended: float) -> dict[str, Any]:
    """What a finished sweep's journal and files tell."""
    from sweeps import history, journal

    records = journal.read(folder / "journal.jsonl")
    asked = next(record["time"] for record in records if record["type"] == "ask")
    told = max(record["time"] for record in records if record["type"] == "end")
    durable = max([told, *(part.stat().st_mtime for part in (folder / "rows").glob("*.parquet"))])
    trials = history.fold(records).trials.values()
    updates, seconds = sum(trial.updates for trial in trials), durable - asked
    resolved = json.loads((folder / "spec.json").read_text())["resolved"]
    workers = resolved["workers"]
    return {
        "trials_per_minute": 60 * len(trials) / seconds,
        "trials": len(trials),
        "seconds": seconds,
        "updates_per_trial": updates / len(trials),
        "updates_per_second": updates / seconds,
        "start_s": asked - began,
        "start_to_board_s": next(record["time"] for record in records if record["type"] == "open") - began,
        "rows_after_last_end_s": durable - told,
        "after_s": ended - durable,  # tables, report, MLflow, Ray's end
        "complete": sum(trial.state == "complete" for trial in trials),
        "states": Counter(trial.state for trial in trials),
        "best": min(trial.objective for trial in trials if trial.objective is not None),
        "workers": workers,
        "group_size": resolved["group_size"],
        "engines": resolved["engines"],
        "training_share": sum(trial.wall_s for trial in trials) / (workers * (told - asked)),
        "commits": sum(record["type"] == "report" for record in records),
    }


def measure(trials: int) -> dict[str, Any]:
    """The sweep of benchmark (a)."""
    with tempfile.TemporaryDirectory() as folder:
        return run(with_trials(trials), Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=256)
    print(json.dumps(measure(parser.parse_args().trials), indent=1))
