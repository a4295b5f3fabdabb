"""The told sweep with what follows a search: HF's own search, confirmation of both, and a comparison by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.comparison import Arm, Comparison, Contrast, Curve, Share
from sweeps.journal import Record
from tests.sweeps import told
from trainers.config import MethodConfig
from trainers.config_hf import HFConfig

DATA = {"source": "look-alike of digits", "look_alike": True, "train_examples": 320}
SPEC: dict[str, Any] = {**told.SPEC, "resolved": {"data": DATA}}
STAGES = {6: "search:hf", 7: "search:hf", 8: "confirm", 9: "confirm", 10: "confirm:hf", 11: "confirm:hf"}
TYPICAL = {"p1": math.sqrt((9 / 40 + 1) * (10 / 40 + 1)), "hf": math.sqrt((11 / 40 + 1) * (12 / 40 + 1))}
"""Geometric means of what trials 8 and 9, 10 and 11 ended at."""


def _ask(trial: int, at: float) -> Record:
    stage = STAGES[trial]
    config = told.config(trial)
    ask = told.ask(trial, at)
    if stage.endswith(":hf"):
        hf = HFConfig(damping=10.0 + trial, cg_max=30)
        config = replace(config, method=MethodConfig("hf", 1.0, hf=hf))
        ask["params"] = {"hf_damping": hf.damping}
    ask |= {"stage": stage, "config": json.loads(json.dumps(config.to_dict()))}
    if stage.startswith("confirm"):
        ask |= {"replicate": trial, "point_id": "p0" if stage == "confirm" else "hf6"}
    return ask


def commits() -> list[list[Record]]:
    """The told sweep up to its last close, then the other stages, each trained to its end at once."""
    said = told.commits()[:-1]
    for numbers, at in (([6, 7], 110), ([8, 9, 10, 11], 120)):
        said.append([_ask(number, at) for number in numbers])
        said.append([told.report(numbers, 40, at + 1), *(told.end(n, "complete", 40, at + 1) for n in numbers)])
    return [*said, [{"type": "close", "time": told.START + 130, "reason": "finished"}]]


def _arm(name: str, kind: str, trials: tuple[int, ...]) -> Arm:
    values = tuple(told.value(trial, 40, "valid_loss") for trial in trials)
    none = Share(0, len(trials), 0.0, 0.0, 0.66)
    curve = Curve((40,), (1280.0,), (2.0,), (1.2,), (1.1,), (1.3,))
    return Arm(
        name, f"label of {name}", kind, STAGES[trials[0]], "p", {}, "nag", trials, values, none, none, TYPICAL[name],
        1.0, 1.5, 1.025, 1280.0, 2.0, curve,
    )  # fmt: skip


def comparison() -> Comparison:
    """The best point, trial 0's, against HF; two seeds each would be no verdict in earnest."""
    p1, hf = _arm("p1", "point", (8, 9)), _arm("hf", "hf", (10, 11))
    ratio = TYPICAL["p1"] / TYPICAL["hf"]
    contrast = Contrast(
        "p1", "hf", True, "better", "The best point beats HF.", "finishers", (2, 2), (2, 2), ratio, 0.9, 0.99, 0.1,
        0.04, 1.0, 0.04, None, None,
    )  # fmt: skip
    return Comparison(
        told.SWEEP_ID, "valid_loss", "min", "digits", "A look-alike.", 40, 32, 320, "work", 2.0, 1.8, 1.2, 0.1,
        (p1, hf), (contrast,),
    )  # fmt: skip


def compare(folder: Path, found: Comparison) -> None:
    """Write comparison.json as the sweep does, whole or not at all."""
    (folder / "comparison.tmp").write_text(json.dumps(found.to_dict()))
    (folder / "comparison.tmp").replace(folder / "comparison.json")


def write(folder: Path) -> Path:
    """Make the sweep folder, without its comparison."""
    told.write(folder, commits())
    (folder / "spec.json").write_text(json.dumps(SPEC))
    return folder
