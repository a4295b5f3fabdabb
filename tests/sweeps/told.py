"""A small sweep told by hand: every end state, an interruption with a resume, and values known in advance."""

import json
import math
from pathlib import Path
from typing import Any

from sweeps.journal import Journal, Record, number
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig

START = 1_780_000_000.0
SWEEP_ID = "told-20260528-202640-abcd"
METRICS = ("train_loss", "valid_loss")
SPEC: dict[str, Any] = {
    "name": "told", "task": {"name": "digits"}, "mode": "min", "objective": {"metric": "valid_loss", "at": "last"},
    "search": {"algorithm": "random", "seed": 7}, "budget": {"trials": 6}, "space": {"lr": {}, "method": {}},
    "mlflow": {"enabled": True, "uri": None, "experiment": None},
}  # fmt: skip


def value(trial: int, update: int, metric: str) -> float:
    """What the told sweep measured; trial 2 diverges at its second report."""
    if trial == 2 and update >= 20:
        return math.nan if metric == "train_loss" else math.inf
    return (1.0 + trial) / update + METRICS.index(metric)


def config(trial: int) -> TrialConfig:
    return TrialConfig(
        trial, NetConfig((64, 8, 10), ("tanh",), "softmax"), InitConfig("sparse"),
        MethodConfig(("sgd", "cm", "nag")[trial % 3], 0.1 * (trial + 1), 0.9), 40, 32, SeedConfig(7),
    )  # fmt: skip


def ask(trial: int, at: float) -> Record:
    params: dict[str, Any] = {"lr": 0.1 * (trial + 1), "method": ("sgd", "cm", "nag")[trial % 3]}
    if trial % 3:
        params["mu_max"] = 0.9
    plain = json.loads(json.dumps(config(trial).to_dict()))
    return {"type": "ask", "time": START + at, "trial": trial, "params": params, "stage": "search", "replicate": 0,
            "point_id": f"p{trial}", "group": trial % 2, "config": plain}  # fmt: skip


def report(trials: list[int], update: int, at: float) -> Record:
    entries = [
        {"trial": trial, "update": update, "score": number(value(trial, update, "valid_loss")), "wall_s": 0.5,
         "metrics": {name: number(value(trial, update, name)) for name in METRICS}}
        for trial in trials
    ]  # fmt: skip
    return {"type": "report", "time": START + at, "group": 0, "engine": "loop", "trials": entries}


def end(trial: int, state: str, updates: int, at: float, rung: int | None = None) -> Record:
    objective = value(trial, updates, "valid_loss") if state in ("complete", "stopped") else None
    return {"type": "end", "time": START + at, "trial": trial, "state": state, "reason": f"why {state}",
            "stopped_at_rung": rung, "objective": objective, "updates": updates, "work": 32.0 * updates,
            "wall_s": updates / 20, "engine": "loop", "group": trial % 2}  # fmt: skip


def opened(epoch: int, at: float) -> Record:
    versions = {"torch": "2.13.0", "git": "0123abcd+changes"}
    return {"type": "open", "time": START + at, "format": 1, "sweep_id": SWEEP_ID, "epoch": epoch, "versions": versions}


def commits() -> list[list[Record]]:
    """The whole journal, commit by commit."""
    return [
        [opened(1, 0)],
        [ask(0, 1), ask(1, 1), ask(2, 1)],
        [report([0, 1, 2], 10, 2)],
        [report([0, 1, 2], 20, 3), {"type": "promote", "time": START + 3, "trial": 0, "update": 20},
         end(1, "stopped", 20, 3, rung=20), end(2, "diverged", 20, 3), ask(3, 3)],
        [report([0, 3], 30, 4)],
        [{"type": "close", "time": START + 5, "reason": "interrupted"}],
        [opened(2, 100)],
        [report([0, 3], 30, 101)],  # trained again from the checkpoint: the same values, later
        [report([0], 40, 102), end(0, "complete", 40, 102), end(3, "failed", 30, 102), ask(4, 102)],
        [report([4], 40, 103), end(4, "complete", 40, 103)],
        [{"type": "extend", "time": START + 104, "trials": 1}],
        [ask(5, 105), end(5, "skipped", 0, 105)],
        [{"type": "close", "time": START + 106, "reason": "finished"}],
    ]  # fmt: skip


def write(folder: Path, said: list[list[Record]] | None = None) -> Path:
    """Make a sweep folder, or add commits to one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(SPEC))
    journal = Journal(folder / "journal.jsonl")
    for commit in commits() if said is None else said:
        journal.append(commit)
    journal.close()
    return folder
