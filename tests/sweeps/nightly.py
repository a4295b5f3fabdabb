"""Folders and nights of a schedule, made up: values of fixed-seed sweeps are given, runs of fresh ones are drawn."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.journal import Journal, Record, number
from sweeps.night_file import Night
from sweeps.nights import _in_course
from sweeps.nights_fresh import judged
from sweeps.schema_night import NightRules
from sweeps.spec import parse

DAY = 86_400.0
VERSIONS = {"musweep": "0.6.0", "git": "a" * 40, "torch": "2.9.0", "cpu": "Example CPU", "cores": "2"}
FIXED: dict[str, Any] = {
    "name": "told", "task": "digits", "model": {"width": 8, "depth": 1}, "training": {"updates": 40, "reports": 4},
    "space": {"lr": [0.1, 0.03, 0.01]}, "search": {"algorithm": "grid"}, "budget": {"trials": 3},
    "resources": {"engine": "loop"}, "mlflow": {"enabled": False}, "objective": "valid_loss",
    "night": {"kind": "fixed"},
}  # fmt: skip
Values = list[dict[str, list[float]]]
"""Of each trial, by metric, at each report."""


def values(trials: int = 3, reports: int = 4) -> Values:
    """Losses that fall, and error rates that are shares of 350."""
    return [
        {
            "valid_loss": [2.3 * math.exp(-0.3 * (trial + 1) * report) for report in range(reports)],
            "train_loss": [2.2 * math.exp(-0.4 * (trial + 1) * report) for report in range(reports)],
            "valid_error": [(300 // (report + trial + 1)) / 350 for report in range(reports)],
        }
        for trial in range(trials)
    ]


def fixed(
    folder: Path, told: Values | None = None, *, spec: dict[str, Any] | None = None, states: Sequence[str] = (),
    closed: str | None = "finished", versions: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """A sweep folder of fixed seeds; `states` of its trials, complete unless said otherwise."""
    told = values() if told is None else told
    folder.mkdir(parents=True, exist_ok=True)
    plain = parse({**FIXED, **(spec or {})}, "told").model_dump(mode="json")
    (folder / "spec.json").write_text(json.dumps({**plain, "resolved": {"workers": 1}}))
    records: list[Record] = [{"type": "open", "time": 1.0, "format": 1, "sweep_id": folder.name, "epoch": 1,
                              "versions": {**VERSIONS, **(versions or {})}}]  # fmt: skip
    for trial, metrics in enumerate(told):
        state = states[trial] if trial < len(states) else "complete"
        records.append({"type": "ask", "time": 1.0, "trial": trial, "params": {"lr": [0.1, 0.03, 0.01][trial % 3]},
                        "stage": "search", "point_id": f"p{trial}", "replicate": 0, "group": 0,
                        "config": {"updates": 40, "batch": 32, "method": {"kind": "nag"}}})  # fmt: skip
        for report in range(len(metrics["valid_loss"])):
            row = {name: number(each[report]) for name, each in metrics.items()}
            entry = {"trial": trial, "update": 10 * (report + 1), "metrics": row, "score": 0.0, "wall_s": 0.1}
            records.append({"type": "report", "time": 2.0, "group": 0, "engine": "loop", "trials": [entry]})
        if state != "running":
            end = metrics["valid_loss"][-1] if state in ("complete", "stopped") else None
            records.append({"type": "end", "time": 3.0, "trial": trial, "state": state, "reason": f"it {state}",
                            "stopped_at_rung": None, "objective": end, "updates": 40, "work": 1.0, "wall_s": 0.4,
                            "engine": "loop", "group": 0})  # fmt: skip
    if closed is not None:
        records.append({"type": "close", "time": 4.0, "reason": closed})
    journal = Journal(folder / "journal.jsonl")
    journal.append(records)
    journal.close()
    return folder


ARM, HF = "confirm/p", "confirm:hf/h"


def drawn(at: int, logs: Sequence[float], stuck: Sequence[bool] = (), hf: Sequence[float] = ()) -> Night:
    """A fresh-seed night before it is judged, from log errors."""
    arms = {ARM: {"label": "NAG, lr 0.1", "errors": [math.exp(each) for each in logs],
                  "stuck": list(stuck) or [False] * len(logs)}}  # fmt: skip
    if hf:
        arms[HF] = {"label": "HF, damping 3", "errors": [math.exp(x) for x in hf], "stuck": [False] * len(hf)}
    return Night(at=at * DAY, sweep=f"s{at:03d}", kind="fresh", result="ok", sentence="", spec="same", arms=arms)


def course(nights: Sequence[Night], rules: NightRules, past: Sequence[Night] = ()) -> list[Night]:
    """Nights judged one after the other, as `sweeps.nights.judge` does with folders."""
    done = list(past)
    for night in nights:
        sound = [each for each in done if each.sound]
        begin = max((i for i, each in enumerate(sound) if each.accepted), default=0)
        done.append(_in_course(replace(night, **judged(night, sound[begin:], rules)), done))
    return done[len(past) :]


def history(rng: np.random.Generator, shifts: Sequence[float], seeds: int = 6, sd: float = 0.15) -> list[Night]:
    """Nights whose errors have this log shift each."""
    return [drawn(i, [float(x) for x in shift + sd * rng.standard_normal(seeds)]) for i, shift in enumerate(shifts)]
