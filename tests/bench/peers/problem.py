"""The problem of every peer, in ordinary eager PyTorch: digits, tanh nets of 64, halving after reports 1 and 3.

What musweep gets to do is `SPEC` in `sweep.py`; README.md says what is the same and what is not.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

UPDATES, BATCH, REPORTS, WIDTH = 2000, 32, 9, 64
STEP = math.ceil(UPDATES / REPORTS)
MU_STEP, EVAL_EXAMPLES = 250, 500
FACTOR = 3
LR, ONE_MINUS_MU = (1e-3, 0.3), (0.01, 0.5)
METHODS, INITS, DEPTHS = ["cm", "nag"], ["sparse", "standard", "normalized", "he"], [1, 2, 3, 4]
OBJECTIVE = "valid_loss"

Data = dict[str, tuple[torch.Tensor, torch.Tensor]]


def load() -> Data:
    """The split that musweep trains on, as tensors."""
    from trainers.tasks import load as load_task

    task = load_task("digits", {})
    parts = {"train": task.train, "valid": task.valid}
    return {name: (torch.tensor(part.inputs), torch.tensor(part.targets)) for name, part in parts.items()}


def _init_layer(layer: nn.Linear, kind: str, first: bool, last: bool, random: torch.Generator) -> None:
    weight, fan_in, fan_out = layer.weight, layer.in_features, layer.out_features
    nn.init.zeros_(layer.bias)
    if kind == "standard":
        nn.init.uniform_(weight, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=random)
    elif kind == "normalized":
        nn.init.xavier_uniform_(weight, generator=random)
    elif kind == "he":
        nn.init.kaiming_normal_(weight, generator=random)
    else:  # 15 inputs per unit, the tanh form of SCIENCE 1.4
        rows = torch.rand(fan_out, fan_in, generator=random).argsort(1)[:, :15]
        scale = 0.5 ** ((not last) + (not first))
        nn.init.zeros_(weight)
        with torch.no_grad():
            weight.scatter_(1, rows, scale * torch.randn(fan_out, 15, generator=random))
        if not last:
            nn.init.constant_(layer.bias, 0.5)


def build(depth: int, kind: str) -> nn.Sequential:
    """An ordinary module; all trials start from the same seed."""
    random = torch.Generator().manual_seed(1)
    widths = [64] + [WIDTH] * depth + [10]
    layers: list[nn.Module] = []
    for i in range(depth + 1):
        linear = nn.Linear(widths[i], widths[i + 1])
        _init_layer(linear, kind, i == 0, i == depth, random)
        layers += [linear, nn.Tanh()] if i < depth else [linear]
    return nn.Sequential(*layers)


class Training:
    """One trial: `to_next_report` trains and measures. `config` holds lr, one_minus_mu, method, init and depth."""

    def __init__(self, config: dict[str, Any], data: Data, fused: bool = False) -> None:
        self.began = time.time()
        self._data, self._mu_max, self.update = data, 1 - config["one_minus_mu"], 0
        self._model = build(config["depth"], config["init"])
        self._criterion = nn.CrossEntropyLoss()
        self._optimizer = torch.optim.SGD(
            self._model.parameters(),
            lr=config["lr"],
            momentum=min(0.5, self._mu_max),
            nesterov=config["method"] == "nag",
            fused=fused or None,
        )
        self._random = torch.Generator().manual_seed(2)
        self._order, self._at = torch.empty(0, dtype=torch.int64), 0

    def _batch(self) -> torch.Tensor:
        if self._at + BATCH > len(self._order):
            self._order, self._at = torch.randperm(len(self._data["train"][0]), generator=self._random), 0
        self._at += BATCH
        return self._order[self._at - BATCH : self._at]

    def to_next_report(self) -> dict[str, float]:
        """Train to the next report and return losses and errors, `update`, and when the trial began."""
        inputs, targets = self._data["train"]
        for t in range(self.update, min(self.update + STEP, UPDATES)):
            if t % MU_STEP == 0:  # S13 eq. 5
                self._optimizer.param_groups[0]["momentum"] = min(1 - 0.5 / (t // MU_STEP + 1), self._mu_max)
            chosen = self._batch()
            self._optimizer.zero_grad()
            self._criterion(self._model(inputs[chosen]), targets[chosen]).backward()
            self._optimizer.step()
            self.update = t + 1
        return {**self.evaluate(), "update": self.update, "began": self.began}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss and error of the first 500 examples of train and valid."""
        metrics = {}
        for part, (inputs, targets) in self._data.items():
            outputs = self._model(inputs[:EVAL_EXAMPLES])
            expected = targets[:EVAL_EXAMPLES]
            metrics[f"{part}_loss"] = self._criterion(outputs, expected).item()
            metrics[f"{part}_error"] = (outputs.argmax(1) != expected).float().mean().item()
        return metrics

    @property
    def done(self) -> bool:
        """Whether all updates are done."""
        return self.update >= UPDATES


class Clock:
    """When things happened, in seconds since 1970."""

    def __init__(self) -> None:
        self.started = time.time()
        self.asked: float | None = None
        self.told = 0.0
        self.updates: dict[str, int] = {}
        self.began: dict[str, float] = {}
        self.best = math.inf

    def ask(self) -> None:
        """A trial is about to be asked for."""
        self.asked = self.asked or time.time()

    def tell(self, trial: str, metrics: dict[str, Any]) -> None:
        """A trial has ended with this result, and everything that stores results has it."""
        self.told = time.time()
        self.updates[trial] = int(metrics["update"])
        self.began[trial] = float(metrics["began"])
        if math.isfinite(metrics[OBJECTIVE]):
            self.best = min(self.best, float(metrics[OBJECTIVE]))

    def result(self) -> dict[str, Any]:
        """What `run.py` compares."""
        assert self.asked is not None
        trials, updates = len(self.updates), sum(self.updates.values())
        seconds, training = self.told - self.asked, self.told - min(self.began.values())
        return {
            "trials_per_minute": 60 * trials / seconds,
            "trials_per_minute_from_first_training": 60 * trials / training,
            "trials": trials,
            "seconds": seconds,
            "updates_per_trial": updates / trials,
            "updates_per_second": updates / seconds,
            "start_s": self.asked - self.started,
            "after_s": time.time() - self.told,
            "complete": sum(done >= UPDATES for done in self.updates.values()),
            "best": self.best,
        }


def arguments(trials: int) -> argparse.Namespace:
    """The command line of every peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=trials)
    parser.add_argument("--json", type=Path, help="file for the result")
    return parser.parse_args()


def hand_over(result: dict[str, Any], file: Path | None) -> None:
    """Print a peer's result, or write it for `run.py`."""
    text = json.dumps(result, indent=1)
    if file is None:
        print(text)
    else:
        file.write_text(text)
