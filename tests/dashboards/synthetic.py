"""Sweep folders made up for tests: a small asynchronous simulation with curves that look like training."""

import heapq
import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dashboards.plots import Figure
from sweeps.journal import Journal, Record, number

START = 1_780_000_000.0  # 2026-05-28 20:26:40 UTC
SPACE: dict[str, Any] = {
    "mu_max": {"type": "float", "low": 0.8, "high": 0.995, "scale": "one_minus_log", "when": {"method": ["cm", "nag"]}},
    "lr": {"type": "float", "low": 0.001, "high": 0.5, "scale": "log", "when": {}},
    "method": {"type": "choice", "values": ["sgd", "cm", "nag"], "when": {}},
    "init": {"type": "choice", "values": ["sparse", "normalized", "he"], "when": {}},
    "depth": {"type": "choice", "values": [3, 7, 11], "when": {}},
    "fan_in": {"type": "int", "low": 5, "high": 30, "scale": "linear", "when": {"init": ["sparse"]}},
}
VERSIONS = {"python": "3.11.7", "platform": "Linux-6.1-x86_64", "cpu": "Example CPU @ 2.5 GHz", "cores": "2",
            "musweep": "0.1.0", "torch": "2.13.0", "optuna": "5.0.0", "git": "0123abcd"}  # fmt: skip


@dataclass
class Sweep:
    """What to make up."""

    trials: int = 64
    space: dict[str, Any] = field(default_factory=lambda: dict(SPACE))
    rungs: tuple[int, ...] = (200, 600, 1200)
    updates: int = 2000
    mode: str = "min"
    name: str = "curves-depth"
    groups: int = 2
    slots: int = 6
    diverge: float = 2.0
    """How easily trials diverge; 0: none does; large: all do."""
    close: str | None = "finished"
    metric: str = "valid_squared_error"

    def spec(self) -> dict[str, Any]:
        stopping = {"rungs": list(self.rungs), "factor": 3, "order": "arrival", "compare_within": None,
                    "fork": {"updates": 50, "mu": 0.9}}  # fmt: skip
        return {
            "name": self.name, "task": {"name": "curves", "examples": 5000, "file": None, "seed": 0},
            "model": {"kind": "autoencoder", "depth": 11, "activation": "sigmoid", "width": 64, "widths": None},
            "training": {"updates": self.updates, "batch": 100, "reports": 20, "method": "nag", "lr": 0.01},
            "space": self.space, "search": {"algorithm": "tpe", "seed": 7, "group_size": "auto", "seeds": 1},
            "budget": {"trials": self.trials, "wall": None}, "early_stopping": stopping if self.rungs else None,
            "objective": {"metric": self.metric, "at": "last"}, "mode": self.mode,
            "resolved": {"workers": self.groups, "group_size": self.slots, "engines": {}}, "versions": VERSIONS,
        }  # fmt: skip


def make(folder: Path, sweep: Sweep) -> Path:
    """Write spec.json and a journal as a real sweep would."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(sweep.spec()))
    journal = Journal(folder / "journal.jsonl")
    opening = {"type": "open", "time": START, "format": 1, "epoch": 1, "versions": VERSIONS}
    records: list[Record] = [opening | {"sweep_id": "curves-depth-20260528-202640-ab12"}]
    last = _run(records, sweep)
    if sweep.close:
        records.append({"type": "close", "time": last, "reason": sweep.close})
    journal.append(records)
    journal.close()
    return folder


def only(figures: list[Figure] | str) -> Figure:
    """The one figure that a plot function gave."""
    assert not isinstance(figures, str), figures
    assert len(figures) == 1
    return figures[0]


def point(rng: random.Random, space: dict[str, Any]) -> dict[str, Any]:
    """A random point; parameters whose `when` fails are left out."""
    params: dict[str, Any] = {}
    for name in sorted(space, key=lambda name: bool(space[name].get("when"))):
        entry = space[name]
        if any(params.get(other) not in values for other, values in (entry.get("when") or {}).items()):
            continue
        if entry["type"] == "choice":
            params[name] = rng.choice(entry["values"])
        elif entry["type"] == "int":
            params[name] = rng.randint(entry["low"], entry["high"])
        elif entry["scale"] == "one_minus_log":
            params[name] = 1 - math.exp(rng.uniform(math.log(1 - entry["high"]), math.log(1 - entry["low"])))
        elif entry["scale"] == "log":
            params[name] = math.exp(rng.uniform(math.log(entry["low"]), math.log(entry["high"])))
        else:
            params[name] = rng.uniform(entry["low"], entry["high"])
    return params


def error(params: dict[str, Any], update: int, jitter: float) -> float:
    """A squared error falling from 16: faster with lr/(1-mu), slower with depth, better inits lower."""
    mu = params.get("mu_max", 0.0) if params.get("method") != "sgd" else 0.0
    speed = params.get("lr", 0.01) / (1 - mu) * (1.15 if params.get("method") == "nag" else 1.0)
    depth = params.get("depth", 7)
    floor = {"sparse": 1.2, "normalized": 2.1, "he": 2.6}.get(params.get("init", "sparse"), 3.0) + 0.08 * depth
    progress = (update * min(speed, 4.0)) ** 0.75 / (40 + 18 * depth)
    return float((floor + (16 - floor) * math.exp(-progress)) * jitter)


def explodes(params: dict[str, Any], strength: float) -> bool:
    mu = params.get("mu_max", 0.0) if params.get("method") != "sgd" else 0.0
    limit = 2.2 if params.get("method") == "nag" else 1.6
    return bool(strength * params.get("lr", 0.01) / (1 - mu) ** 0.7 > limit)


def _run(records: list[Record], sweep: Sweep) -> float:
    """Slots train trial after trial."""
    rng = random.Random(3)
    step = math.ceil(sweep.updates / 20)
    board: dict[tuple[int, Any], list[float]] = {}
    queue: list[tuple[float, int, int]] = []
    live: dict[int, dict[str, Any]] = {}
    asked, last = 0, START

    def ask(time: float, group: int) -> None:
        nonlocal asked
        params = point(rng, sweep.space)
        config = {"updates": sweep.updates, "batch": 100, "method": {"kind": params.get("method", "nag"),
                  "lr": params.get("lr", 0.01), "mu_max": params.get("mu_max", 0.0)}}  # fmt: skip
        records.append({"type": "ask", "time": time, "trial": asked, "params": params, "stage": "search",
                         "point_id": f"p{asked:05d}", "replicate": 0, "group": group, "config": config})  # fmt: skip
        live[asked] = {"params": params, "group": group, "update": 0, "level": 0.0, "wall": 0.0,
                       "boom": rng.randint(1, 4) if explodes(params, sweep.diverge) else None,
                       "pace": (0.4 + 0.12 * params.get("depth", 7)) * rng.uniform(0.95, 1.1)}  # fmt: skip
        heapq.heappush(queue, (time + live[asked]["pace"], asked, group))
        asked += 1

    for i in range(min(sweep.trials, sweep.groups * sweep.slots)):
        ask(START + 2.0 + 0.01 * i, i % sweep.groups)
    while queue:
        time, trial, group = heapq.heappop(queue)
        last = time
        news, ended = _advance(sweep, live[trial], trial, time, step, board, rng)
        records += news
        if not ended:
            heapq.heappush(queue, (time + live[trial]["pace"], trial, group))
        elif asked < sweep.trials:
            ask(time + 0.02, group)
    return last


def _advance(
    sweep: Sweep, state: dict[str, Any], trial: int, time: float, step: int, board: dict[tuple[int, Any], list[float]],
    rng: random.Random,
) -> tuple[list[Record], bool]:  # fmt: skip
    """One report of one trial, and what the board makes of it."""
    state["update"] = update = min(state["update"] + step, sweep.updates)
    state["wall"] += state["pace"] / sweep.slots
    boom = state["boom"] is not None and update >= state["boom"] * step
    value = math.inf if boom else error(state["params"], update, rng.gauss(1, 0.015))
    if state["boom"] is not None and not boom:
        value *= 1.6 ** (update / step)
    value = 1 / value if sweep.mode == "max" else value
    metrics = {sweep.metric: number(value), "train_loss": number(value * 9)}
    entry = {"trial": trial, "update": update, "metrics": metrics, "score": number(value),
             "wall_s": state["pace"] / sweep.slots}  # fmt: skip
    report = {"type": "report", "time": time, "group": state["group"], "engine": "loop", "trials": [entry]}
    records: list[Record] = [report]
    end = {"type": "end", "time": time, "trial": trial, "reason": "", "stopped_at_rung": None, "objective": value,
           "updates": update, "work": update * 100.0, "wall_s": state["wall"], "engine": "loop",
           "group": state["group"]}  # fmt: skip
    if boom:
        lost = {"state": "diverged", "objective": None, "reason": f"not finite at update {update}"}
        return [*records, end | lost], True
    for rung in sweep.rungs:
        if rung != update:
            continue
        peers = board.setdefault((rung, state["params"].get("depth")), [])
        peers.append(value)
        ahead = sum(other < value if sweep.mode == "min" else other > value for other in peers)
        if ahead >= max(1, len(peers) // 3):
            return [*records, end | {"state": "stopped", "stopped_at_rung": rung, "reason": f"rung {rung}"}], True
        records.append({"type": "promote", "time": time, "trial": trial, "update": rung})
    if update == sweep.updates:
        return [*records, end | {"state": "complete"}], True
    return records, False
