"""A sweep of any size that nobody trained: journal, spec.json and comparison.json as a real one has them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from sweeps.comparison import Arm, Comparison, Contrast, Curve, Share
from sweeps.journal import Journal, Record
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.config_hf import HFConfig

START = 1_790_000_000.0
BATCH, TRAIN, EVERY = 100, 20_000, 200
METHODS, INITS = ("cm", "nag", "sgd"), ("sparse", "normalized", "he")
ROWS = ("train_loss", "valid_loss", "train_squared_error", "valid_squared_error")
OBJECTIVE = "train_squared_error"
SEEDS, POINTS = 10, 2


def names(count: int) -> tuple[str, ...]:
    """So many metrics: the task's, then diagnostics of layers."""
    kinds = ("activation_mean", "activation_sd", "saturation", "gradient_sd", "weight_gradient_sd")
    return (*ROWS, *(f"diag/{kind}/layer{n}" for n in range(1, 9) for kind in kinds))[:count]


def stages(trials: int) -> list[tuple[str, int]]:
    """(stage, trials) of a sweep: two points and HF are confirmed on ten seeds each."""
    confirmed = POINTS * SEEDS
    search = (trials - confirmed - SEEDS) * 4 // 5
    of_hf = trials - confirmed - SEEDS - search
    return [("search", search), ("search:hf", of_hf), ("confirm", confirmed), ("confirm:hf", SEEDS)]


class Made:
    """A sweep in the making: the same one for the same arguments."""

    def __init__(self, trials: int, metrics: int, reports: int, name: str = "made", luck: int = 1) -> None:
        self.name, self.names, self.reports = name, names(metrics), reports
        self.sweep_id = f"{name}-20260921-141320-{luck:04x}"
        self._random = random.Random(luck)
        self._stages = [stage for stage, count in stages(trials) for _ in range(count)]
        self._ends: dict[str, list[tuple[int, float | None]]] = {}

    def _params(self, stage: str, index: int) -> dict[str, Any]:
        draw = self._random if not stage.startswith("confirm") else random.Random(index // SEEDS)
        if stage.endswith(":hf"):
            return {"hf_damping": 10 ** draw.uniform(0, 2.5), "hf_cg_decay": draw.uniform(0.5, 1)}
        params: dict[str, Any] = {"lr": 10 ** draw.uniform(-3, -0.5), "method": draw.choice(METHODS)}
        params |= {"init": draw.choice(INITS), "depth": draw.choice((4, 6, 8))}
        return params if params["method"] == "sgd" else params | {"mu_max": 1 - 10 ** draw.uniform(-3, -0.5)}

    def _config(self, number: int, stage: str, params: dict[str, Any], replicate: int) -> dict[str, Any]:
        net = NetConfig((784, *[64] * params.get("depth", 6), 784), ("sigmoid",) * params.get("depth", 6), "logistic")
        if stage.endswith(":hf"):
            hf = HFConfig(damping=params["hf_damping"], cg_decay=params["hf_cg_decay"])
            method = MethodConfig("hf", 1.0, hf=hf)
        else:
            method = MethodConfig(params["method"], params["lr"], params.get("mu_max", 0.0))
        seed = SeedConfig(7, stage.partition(":")[0], replicate)
        init = InitConfig(params.get("init", "sparse"))
        config = TrialConfig(number, net, init, method, self.reports * EVERY, BATCH, seed)
        return dict(json.loads(json.dumps(config.to_dict())))

    def trial(self, number: int, index: int) -> list[Record]:
        """All that the journal says of a trial; one in twenty of the search diverges in the end."""
        stage = self._stages[number]
        params, draw = self._params(stage, index), self._random
        replicate = 1000 + number if stage.startswith("confirm") else 0
        time = START + 10.0 * number
        point = f"{stage.partition(':')[2] or 'p'}{index // SEEDS if 'confirm' in stage else index}"
        ask = {"type": "ask", "time": time, "trial": number, "params": params, "stage": stage, "point_id": point,
               "replicate": replicate, "group": number % 2,
               "config": self._config(number, stage, params, replicate)}  # fmt: skip
        floor = 8.0 if stage.endswith(":hf") else 6 + 9 * abs(math.log10(params["lr"]) + 1.7)
        diverges = stage == "search" and draw.random() < 0.05
        said: list[Record] = [ask]
        values: dict[str, float] = {}
        for report in range(1, self.reports + 1):
            wobble = math.exp(draw.gauss(0, 0.05))
            values = {name: (floor + 90 / report) * wobble * (1 + 0.01 * k) for k, name in enumerate(self.names)}
            entry = {
                "trial": number,
                "update": report * EVERY,
                "metrics": values,
                "score": values[OBJECTIVE],
                "wall_s": 0.1,
            }
            said.append({"type": "report", "time": time + report * 0.1, "group": number % 2, "engine": "loop",
                         "trials": [entry]})  # fmt: skip
        value = None if diverges else values[OBJECTIVE]
        self._ends.setdefault(f"{stage} {point}", []).append((number, value))
        said.append({"type": "end", "time": time + 9, "trial": number, "state": "diverged" if diverges else "complete",
                     "reason": "loss not finite" if diverges else "", "stopped_at_rung": None, "objective": value,
                     "updates": self.reports * EVERY, "work": float(self.reports * EVERY * BATCH),
                     "wall_s": self.reports * 0.1, "engine": "loop", "group": number % 2})  # fmt: skip
        return said

    def write(self, folder: Path) -> Path:
        """Make the folder."""
        folder.mkdir(parents=True)
        spec = {
            "name": self.name, "task": {"name": "curves"}, "mode": "min", "objective": {"metric": OBJECTIVE},
            "search": {"algorithm": "tpe", "seed": 7}, "budget": {"trials": stages(len(self._stages))[0][1]},
            "space": {name: {} for name in ("lr", "mu_max", "method", "init", "depth")},
            "resolved": {"data": {"source": "look-alike of CURVES", "look_alike": True, "train_examples": TRAIN}},
            "mlflow": {"enabled": True, "uri": None, "experiment": None},
        }  # fmt: skip
        (folder / "spec.json").write_text(json.dumps(spec))
        journal = Journal(folder / "journal.jsonl")
        journal.append([{"type": "open", "time": START, "format": 1, "sweep_id": self.sweep_id, "epoch": 1,
                         "versions": {"torch": "2.13.0"}}])  # fmt: skip
        index: dict[str, int] = {}
        for number, stage in enumerate(self._stages):
            journal.append(self.trial(number, index.setdefault(stage, 0)))
            index[stage] += 1
        journal.append([{"type": "close", "time": START + 10 * len(self._stages), "reason": "finished"}])
        journal.close()
        (folder / "comparison.json").write_text(json.dumps(self.comparison().to_dict()))
        return folder

    def comparison(self) -> Comparison:
        """Two confirmed points against HF; the verdict is by the intervals alone, as good as any for a picture."""
        arms = [self._arm(f"p{n + 1}", "point", f"confirm p{n}") for n in range(POINTS)]
        arms.append(self._arm("hf", "hf", "confirm:hf hf0"))
        contrasts = tuple(self._contrast(arm, arms[-1], arm is arms[0]) for arm in arms[:-1])
        return Comparison(
            self.sweep_id, OBJECTIVE, "min", "curves", "Data: a look-alike of CURVES.", self.reports * EVERY, BATCH,
            TRAIN, "work", 40.0, 36.0, None, 0.1, tuple(arms), contrasts,
        )  # fmt: skip

    def _arm(self, name: str, kind: str, key: str) -> Arm:
        ends = self._ends[key]
        logs = [math.log(value) for _, value in ends if value is not None]
        mean = sum(logs) / len(logs)
        half = 2.26 * math.sqrt(sum((x - mean) ** 2 for x in logs) / (len(logs) - 1) / len(logs))
        none, work = Share(0, len(ends), 0.0, 0.0, 0.28), float(self.reports * EVERY * BATCH)
        return Arm(
            name, name.upper(), kind, key.split()[0], key.split()[1], {}, "hf" if kind == "hf" else "nag",
            tuple(number for number, _ in ends), tuple(value for _, value in ends), none, none, math.exp(mean),
            math.exp(mean - half), math.exp(mean + half), math.exp(mean) * 0.9, work, self.reports * 0.1,
            Curve((), (), (), (), (), ()),
        )  # fmt: skip

    def _contrast(self, a: Arm, b: Arm, primary: bool) -> Contrast:
        assert a.typical
        assert a.low
        assert a.high
        assert b.typical
        assert b.low
        assert b.high
        ratio, low, high = a.typical / b.typical, a.low / b.high, a.high / b.low
        verdict = "better" if high < 1 else "worse" if low > 1 else "not distinguishable"
        sentence = f"{a.name} is {verdict} than {b.name}: error x{ratio:.2f} (95% interval {low:.2f} to {high:.2f})."
        return Contrast(
            a.name, b.name, primary, verdict, sentence, "finishers", (10, 10), (10, 10), ratio, low, high, 0.1,
            0.01, 1.0, 0.01, 0.01, None,
        )  # fmt: skip
