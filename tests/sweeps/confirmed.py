"""Sweep folders with confirmed trials, made up: how each run ends is given, the way there is a power law."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.journal import Journal, Record, number
from sweeps.spec import parse

START = 1_780_000_000.0
TRIVIAL = 7.0
UPDATES, BATCH, REPORTS = 100, 10, 5
METRIC = "train_squared_error"
SPEC: dict[str, Any] = {
    "name": "told", "task": {"name": "curves", "size": 14}, "objective": METRIC, "mlflow": {"enabled": False},
    "space": {"method": ["cm", "nag"], "mu_max": {"type": "float", "low": 0.5, "high": 0.999, "scale": "one_minus_log"},
              "lr": {"type": "float", "low": 0.001, "high": 0.5, "scale": "log"}},
    "training": {"updates": UPDATES, "batch": BATCH, "reports": REPORTS, "eval_examples": 50},
    "search": {"algorithm": "random"}, "budget": {"trials": 4},
    "confirm": {"top": 3, "seeds": 10}, "baselines": [{"kind": "hf"}],
}  # fmt: skip
RESOLVED: dict[str, Any] = {
    "workers": 1, "group_size": 4, "device": "cpu", "engines": {}, "seconds": {},
    "versions": {"musweep": "0.4.0", "cpu": "Example CPU"}, "trivial": {METRIC: TRIVIAL},
    "data": {"source": "look-alike of CURVES, seed 0", "look_alike": True, "train_examples": 5000},
}  # fmt: skip
NAG = {"method": "nag", "mu_max": 0.99, "lr": 0.012}
CM = {"method": "cm", "mu_max": 0.9, "lr": 0.1}
HF = {"hf_damping": 45.0, "hf_cg_max": 100}
TEN = (0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62, 0.64, 0.66, 0.68)
"""Ends of ten runs: geometric mean .5872."""
End = float | str | None
"""A value at the end; None: diverged half way; a state: failed, running."""


@dataclass(frozen=True)
class Point:
    """An arm to be: its point, what the search saw there, how its confirmed runs ended."""

    params: Mapping[str, Any]
    searched: float | None
    ends: Sequence[End]
    stage: str = ""
    """Behind the colon, as in hf."""
    seconds: float = 2.0
    batch: int = BATCH


def times(factor: float, ends: Sequence[float] = TEN) -> tuple[float, ...]:
    return tuple(factor * end for end in ends)


def make(
    folder: Path, *points: Point, spec: Mapping[str, Any] | None = None, resolved: Mapping[str, Any] | None = None,
    metric: str = METRIC, sweep_id: str = "", start: float = TRIVIAL,
) -> Path:  # fmt: skip
    """A finished sweep of these points; `spec` changes keys of SPEC, None takes one out."""
    told = {key: value for key, value in {**SPEC, **(spec or {})}.items() if value is not None}
    plain = parse(told, "told").model_dump(mode="json")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps({**plain, "resolved": {**RESOLVED, **(resolved or {})}}))
    opened = {"type": "open", "time": START, "format": 1, "sweep_id": sweep_id or folder.name, "epoch": 1,
              "versions": RESOLVED["versions"]}  # fmt: skip
    records: list[Record] = [opened]
    tellers = [_Teller(records, metric, start, point) for point in points]
    for place, (point, teller) in enumerate(zip(points, tellers, strict=True)):
        if point.searched is not None:
            teller.tell("search", f"point{place}", point.searched)
    for place, (point, teller) in enumerate(zip(points, tellers, strict=True)):
        for end in point.ends:
            teller.tell("confirm", f"point{place}", end)
    records.append({"type": "close", "time": START + 1000, "reason": "finished"})
    journal = Journal(folder / "journal.jsonl")
    journal.append(records)
    journal.close()
    return folder


@dataclass
class _Teller:
    records: list[Record]
    metric: str
    start: float
    point: Point

    def tell(self, stage: str, point_id: str, end: End) -> None:
        point = self.point
        trial = sum(record["type"] == "ask" for record in self.records)
        kind = "hf" if point.stage else point.params.get("method", "nag")
        stage = f"{stage}:{point.stage}" if point.stage else stage
        config = {"updates": UPDATES, "batch": point.batch, "method": {"kind": kind}}
        self.records.append({"type": "ask", "time": START, "trial": trial, "params": dict(point.params), "stage": stage,
                             "point_id": point_id, "replicate": trial, "group": 0, "config": config})  # fmt: skip
        state = end if isinstance(end, str) else "diverged" if end is None else "complete"
        last = UPDATES if state == "complete" else UPDATES // 2
        for update in range(UPDATES // REPORTS, last + 1, UPDATES // REPORTS):
            goal = end if isinstance(end, float) else self.start
            value = self.start * (goal / self.start) ** (update / UPDATES) if goal else self.start * (update < UPDATES)
            entry = {"trial": trial, "update": update, "metrics": {self.metric: number(value)}, "score": number(value),
                     "wall_s": point.seconds / REPORTS}  # fmt: skip
            told = {"type": "report", "time": START + 1, "group": 0, "engine": "loop", "trials": [entry]}
            self.records.append(told)
        if state == "running":
            return
        self.records.append({
            "type": "end", "time": START + 2, "trial": trial, "state": state, "reason": state, "stopped_at_rung": None,
            "objective": end if isinstance(end, float) else None, "updates": last, "work": float(last * point.batch),
            "wall_s": point.seconds * last / UPDATES, "engine": "loop", "group": 0,
        })  # fmt: skip
