"""Recurrent nets: engines against eager PyTorch, `torch.nn.RNN` and steps of ordinary modules, per shape and K.

Measured as `engines.py` measures: one thread, least CPU seconds of interleaved rounds.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import least, us

from trainers import models
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo, TrialConfig
from trainers.data import Data, Part
from trainers.engine import one_thread
from trainers.group import make_engine
from trainers.serial import SerialTrial
from trainers.state import initial_state
from trainers.tasks import Split, Task

EXAMPLES = 1_000
TARGET = ("add T=100", 16, 1.3)


def net(steps: int, hidden: int, outputs: int, every_step: bool = False) -> NetConfig:
    inputs = outputs + 1 if every_step else 2
    loss = "softmax" if every_step else "squared"
    return NetConfig((inputs, hidden, outputs), ("tanh",), loss, steps=steps, every_step=every_step)


CASES: tuple[tuple[str, NetConfig, int], ...] = (
    ("add T=100", net(100, 100, 1), 100),
    ("add T=30", net(30, 100, 1), 100),
    ("every step T=100", net(100, 100, 6, every_step=True), 100),
    ("small T=30", net(30, 16, 1), 10),
)
KS = (1, 16)


def synthetic(shape: NetConfig) -> Task:
    """Random sequences; those with one answer have it in the last tenth of their steps."""
    rng = np.random.default_rng(0)
    inputs, _, outputs = shape.widths
    x = rng.standard_normal((EXAMPLES, shape.steps, inputs), dtype=np.float32)
    if shape.every_step:
        split = Split(x, rng.integers(0, outputs, (EXAMPLES, shape.steps)))
    else:
        last = rng.integers(shape.steps * 9 // 10, shape.steps, EXAMPLES)
        split = Split(x, rng.random((EXAMPLES, outputs), dtype=np.float32), last)
    info = TaskInfo(
        "sequences", "sequence", inputs, outputs, shape.loss, ("loss",), steps=shape.steps, every_step=shape.every_step
    )
    return Task(info, split, split, split, "random", False)


def config(shape: NetConfig, batch: int, number: int) -> TrialConfig:
    """A trial that learns too slowly to leave the finite numbers."""
    method = MethodConfig("nag", 1e-6, 0.9, mu_schedule="constant")
    return TrialConfig(number, shape, InitConfig("normalized"), method, 10**7, batch, SeedConfig(0))


class RnnAndLinear(torch.nn.Module):
    """What a user of PyTorch would write."""

    def __init__(self, shape: NetConfig) -> None:
        super().__init__()
        inputs, hidden, outputs = shape.widths
        self.rnn = torch.nn.RNN(inputs, hidden, batch_first=True)
        self.output = torch.nn.Linear(hidden, outputs)

    def forward(self, inputs: torch.Tensor, steps: torch.Tensor | None = None) -> torch.Tensor:
        h = self.rnn(inputs)[0]
        return self.output(h if steps is None else h[torch.arange(len(h)), steps])


class EagerTrial:
    """Modules, autograd and `torch.optim.SGD(nesterov=True)` (its form of momentum, not S13's)."""

    def __init__(self, trial: TrialConfig, data: Data, module: torch.nn.Module) -> None:
        self.config, self.data, self.update, self.net = trial, data, 0, module
        self.optimizer = torch.optim.SGD(module.parameters(), trial.method.lr, trial.method.mu_max, nesterov=True)

    def advance(self, updates: int) -> None:
        part: Part = self.data.train
        for _ in range(updates):
            pool = self.data.pool(self.config.seed, self.update, self.config.batch)
            rows = pool.rows([(self.config.seed, self.update)], 1)[0]
            self.optimizer.zero_grad()
            models.loss(self.config.net, self.net(*part.arguments(rows)), part.expected[rows]).backward()
            self.optimizer.step()
            self.update += 1


def eager(shape: NetConfig, batch: int, data: Data) -> dict[str, Callable[[int], int]]:
    """The ordinary ways to train one trial after another."""
    trial = config(shape, batch, 0)
    steps = models.build(shape)
    models.set_parameters(steps, initial_state(trial).params)
    trials = {
        "serial": SerialTrial(trial, data),
        "steps, SGD": EagerTrial(trial, data, steps),
        "nn.RNN, SGD": EagerTrial(trial, data, RnnAndLinear(shape)),
    }
    return {name: lambda n, one=one: (one.advance(n), n)[1] for name, one in trials.items()}  # type: ignore[misc]


def engine(name: str, shape: NetConfig, batch: int, k: int, data: Data) -> Callable[[int], int]:
    """K trials of one engine."""
    made = make_engine(name, shape, batch, data)
    for number in range(k):
        made.add(config(shape, batch, number))

    def run(updates: int) -> int:
        made.advance({number: made.update(number) + updates for number in made.numbers()})
        return updates * k

    return run


def compare(shape: NetConfig, batch: int, rounds: int) -> dict[str, Any]:
    """Microseconds of one update of one trial, and how many times as long the fastest eager way takes."""
    data = Data(synthetic(shape))
    contestants = eager(shape, batch, data)
    names = list(contestants)
    for k in KS:
        contestants |= {f"{name} K={k}": engine(name, shape, batch, k, data) for name in ("loop", "stacked")}
    best = least(contestants, rounds)
    plain = min(best[name] for name in names)
    result: dict[str, Any] = {"batch": batch, "microseconds": {name: us(value) for name, value in best.items()}}
    for k in KS:
        result[f"K={k}"] = {
            f"{name} over eager": round(plain / best[f"{name} K={k}"], 2) for name in ("loop", "stacked")
        }
        fastest = min(best[f"{name} K={k}"] for name in ("loop", "stacked"))
        result[f"K={k}"]["gflops"] = round(shape.flops * batch / fastest / 1e9, 1)
    return result


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=[name for name, *_ in CASES], help="shapes to measure")
    arguments = parser.parse_args()
    one_thread()
    found: dict[str, Any] = {}
    for name, shape, batch in CASES:
        if arguments.only and name not in arguments.only:
            continue
        with torch.random.fork_rng():
            found[name] = compare(shape, batch, arguments.rounds)
        print(f"{name:18} {json.dumps(found[name])}", flush=True)
    case, k, target = TARGET
    over = {f"{name} K={k}": max(v for key, v in found[name][f"K={k}"].items() if "over" in key)
            for name in found for k in KS}  # fmt: skip
    ratios = {f"{case} K={k} over eager": over.get(f"{case} K={k}"), "target": target, "over eager": over}
    print(json.dumps(ratios, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps({"ratios": ratios, "shapes": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
