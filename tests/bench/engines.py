"""Engines against serial eager PyTorch, per model and K, and arithmetic against the machine's matrix product.

One thread; process CPU seconds, the least of several rounds in which all contestants take turns: what else runs on
the machine lengthens rounds, hardly the best one. Read ratios within one run, differences under 10% as nothing.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers import models
from trainers.calibrate import choose
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo, TrialConfig
from trainers.data import Data, batch_indices
from trainers.engine import one_thread
from trainers.group import make_engine
from trainers.optim import momentum
from trainers.serial import SerialTrial
from trainers.state import initial_state
from trainers.tasks import Split, Task

EXAMPLES = 2_000
ROUND_S = 0.12
TARGETS = {"small nets at K = 16": 5.0, "slowest": 0.95, "of peak": 0.75, "HR18 at K = 64": 15.0}
SMALL_WIDTH = 64


def mlp(*widths: int) -> NetConfig:
    return NetConfig(widths, ("tanh",) * (len(widths) - 2), "softmax")


def autoencoder(*encoder: int) -> NetConfig:
    """Sigmoid layers, a linear code, the mirror image."""
    widths = encoder + encoder[-2::-1]
    hidden = tuple("linear" if i == len(encoder) - 2 else "sigmoid" for i in range(len(widths) - 2))
    return NetConfig(widths, hidden, "logistic")


def rectified(hidden: Sequence[int], eta: tuple[float, ...] = ()) -> NetConfig:
    """One of HR18's nets on MNIST."""
    return NetConfig((784, *hidden, 10), ("relu",) * len(hidden), "softmax", eta)


MNIST = autoencoder(784, 1000, 500, 250, 30)
CASES: tuple[tuple[str, NetConfig, int, tuple[int, ...]], ...] = (
    ("20-16-16-10", mlp(20, 16, 16, 10), 10, (1, 4, 16, 64)),
    ("20-32-32-10", mlp(20, 32, 32, 10), 32, (1, 4, 16, 64)),
    ("64-64-10", mlp(64, 64, 10), 32, (1, 4, 16, 64)),
    ("64-64-64-10", mlp(64, 64, 64, 10), 32, (1, 4, 16, 64)),
    ("64-64-64-64-64-10", mlp(64, 64, 64, 64, 64, 10), 32, (1, 4, 16, 64)),
    ("64-128-128-10", mlp(64, 128, 128, 10), 32, (1, 4, 16)),
    ("256-256-256-10", mlp(256, 256, 256, 10), 128, (1, 4, 16)),
    ("784-400-400-10", mlp(784, 400, 400, 10), 200, (1, 4)),
    ("784-1000x5-10", mlp(784, 1000, 1000, 1000, 1000, 1000, 10), 10, (1, 4)),
    ("curves 784-400-200-100-50-25-6", autoencoder(784, 400, 200, 100, 50, 25, 6), 100, (1, 4)),
    ("mnist 784-1000-500-250-30", MNIST, 200, (1, 4)),
    ("HR18 15 x 50", rectified([15] * 50), 128, (1, 16, 64)),
    ("HR18 20 x 50", rectified([20] * 50), 128, (1, 16, 64)),
    ("HR18 30, 10 x 50", rectified([30, 10] * 25), 128, (1, 16, 64)),
    ("HR18 30 x 50", rectified([30] * 50), 128, (1, 16, 64)),
    ("HR18 20 x 50, batch 32", rectified([20] * 50), 32, (64,)),
    ("HR18 30, 10 x 50, batch 32", rectified([30, 10] * 25), 32, (64,)),
    ("HR18 30 x 50, batch 32", rectified([30] * 50), 32, (64,)),
    ("HR18 30 x 50, batch 16", rectified([30] * 50), 16, (64,)),
    ("HR18 residual 5 x 50", rectified([5] * 50, tuple(0.9**layer for layer in range(1, 50))), 128, (1, 16, 64)),
)


def synthetic(net: NetConfig) -> Task:
    """Random data of a net's shape."""
    rng = np.random.default_rng(0)
    x = rng.random((EXAMPLES, net.widths[0]), dtype=np.float32)
    softmax = net.loss == "softmax"
    split = Split(x, rng.integers(0, net.widths[-1], EXAMPLES) if softmax else x)
    kind, metrics = ("classification", ("loss", "error")) if softmax else ("autoencoder", ("loss", "squared_error"))
    info = TaskInfo("synthetic", kind, net.widths[0], net.widths[-1], net.loss, metrics)
    return Task(info, split, split, split, "random", False)


def config(net: NetConfig, batch: int, number: int, kind: str) -> TrialConfig:
    """A trial that learns too slowly to leave the finite numbers."""
    method = MethodConfig(kind, 1e-4, 0.9)
    init = "he" if "relu" in net.hidden else "normalized"
    return TrialConfig(number, net, InitConfig(init), method, 10**7, batch, SeedConfig(0))


class TorchTrial:
    """The usual body: modules, autograd and `torch.optim.SGD` (its form of momentum, not S13's)."""

    def __init__(self, trial: TrialConfig, data: Data, fused: bool | None) -> None:
        self.config, self.train, self.update = trial, data.train, 0
        self.net = models.build(trial.net)
        models.set_parameters(self.net, initial_state(trial).params)
        nesterov = trial.method.kind == "nag"
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), trial.method.lr, momentum=0.5, nesterov=nesterov, fused=fused
        )

    def advance(self, updates: int) -> None:
        for _ in range(updates):
            rows = torch.from_numpy(batch_indices(EXAMPLES, self.config.batch, self.config.seed, self.update))
            self.optimizer.param_groups[0]["momentum"] = momentum(self.update, self.config.method, self.config.updates)
            self.optimizer.zero_grad()
            loss = models.loss(self.config.net, self.net(self.train.inputs[rows]), self.train.expected[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            loss.item()
            self.update += 1


def least(contestants: dict[str, Callable[[int], int]], rounds: int) -> dict[str, float]:
    """Least CPU seconds of one unit of each; a contestant does so many updates and returns how many units they were."""
    sizes = {}
    for name, run in contestants.items():
        run(1)
        start = time.process_time()
        run(1)
        sizes[name] = max(1, int(ROUND_S / max(1e-6, time.process_time() - start)))
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.process_time()
            units = run(sizes[name])
            best[name] = min(best[name], (time.process_time() - start) / units)
    return best


def eager(net: NetConfig, batch: int, kinds: tuple[str, ...], data: Data) -> dict[str, Callable[[int], int]]:
    """The ordinary ways to train one trial after another, by name and method."""
    found: dict[str, Callable[[int], int]] = {}
    for kind in kinds:
        trial = config(net, batch, 0, kind)
        trials = {
            "serial": SerialTrial(trial, data),
            "torch.optim.SGD": TorchTrial(trial, data, None),
            "torch.optim.SGD(fused=True)": TorchTrial(trial, data, True),
        }
        for name, one in trials.items():
            found[f"{name} {kind}"] = lambda n, one=one: (one.advance(n), n)[1]  # type: ignore[misc]
    return found


def engine(name: str, net: NetConfig, batch: int, k: int, kinds: tuple[str, ...], data: Data) -> Callable[[int], int]:
    """K trials of one engine, methods in turn."""
    made = make_engine(name, net, batch, data)
    for number in range(k):
        made.add(config(net, batch, number, kinds[number % len(kinds)]))

    def run(updates: int) -> int:
        made.advance({number: made.update(number) + updates for number in made.numbers()})
        return updates * k

    return run


def compare(net: NetConfig, batch: int, ks: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Microseconds of one update of one trial, half of them NAG and half CM, and ratios to eager of the same halves."""
    task, kinds = synthetic(net), ("nag", "cm")
    data = Data(task)
    contestants = eager(net, batch, kinds, data)
    for k in ks:
        contestants[f"stacked {k}"] = engine("stacked", net, batch, k, kinds if k > 1 else ("nag",), data)
    for kind in kinds:  # a looped trial runs alone, whatever K is
        contestants[f"loop {kind}"] = engine("loop", net, batch, 1, (kind,), data)
    best = least(contestants, rounds)
    means = {
        name: (best[f"{name} nag"] + best[f"{name} cm"]) / 2
        for name in ("serial", "torch.optim.SGD", "torch.optim.SGD(fused=True)", "loop")
    }
    result: dict[str, Any] = {"batch": batch, "microseconds": {name: us(value) for name, value in best.items()}}
    for k in ks:
        stacked = best[f"stacked {k}"]
        # One trial alone was NAG in both engines.
        own = {name: best[f"{name} nag"] for name in means} if k == 1 else means
        chosen, _ = choose(net, batch, task, k)
        ours = {"loop": own["loop"], "stacked": stacked}
        plain = min(own["serial"], own["torch.optim.SGD"])
        result[f"K={k}"] = {
            "chosen": chosen,
            "over eager": round(plain / ours[chosen], 2),
            "over serial": round(own["serial"] / ours[chosen], 2),
            "over fused SGD": round(own["torch.optim.SGD(fused=True)"] / ours[chosen], 2),
            "loop over eager": round(plain / ours["loop"], 2),
            "stacked over eager": round(plain / ours["stacked"], 2),
            "gflops": round(net.flops * batch / ours[chosen] / 1e9, 1),
        }
    return result


def us(seconds: float) -> float:
    return round(seconds * 1e6, 1)


def of_peak(rounds: int) -> dict[str, float]:
    """Arithmetic of the MNIST autoencoder with CM, batch 200, beside the fastest square matrix product."""
    batch = 200
    contestants: dict[str, Callable[[int], int]] = {}
    for n in (512, 1024, 2048):
        a, b, c = (torch.randn(n, n) for _ in range(3))

        def multiply(times: int, a: torch.Tensor = a, b: torch.Tensor = b, c: torch.Tensor = c) -> int:
            for _ in range(times):
                torch.mm(a, b, out=c)
            return times

        contestants[str(n)] = multiply
    data = Data(synthetic(MNIST))
    contestants |= {name: engine(name, MNIST, batch, 1, ("cm",), data) for name in ("loop", "stacked")}
    contestants |= eager(MNIST, batch, ("cm",), data)
    best = least(contestants, rounds)
    peak = max(2 * n**3 / best[str(n)] for n in (512, 1024, 2048))
    speeds = {name: MNIST.flops * batch / value for name, value in best.items() if not name.isdigit()}
    shares = {f"{name} of peak": round(speed / peak, 3) for name, speed in speeds.items()}
    gflops = {f"{name} gflops": round(speed / 1e9, 1) for name, speed in speeds.items()}
    return {**shares, "peak gflops": round(peak / 1e9, 1), **gflops}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", help="names of models")
    arguments = parser.parse_args()
    one_thread()
    found: dict[str, Any] = {}
    for name, net, batch, ks in CASES:
        if arguments.only and name not in arguments.only:
            continue
        with torch.random.fork_rng():
            found[name] = compare(net, batch, ks, arguments.rounds)
        for k in ks:
            print(f"{name:34} batch {batch:3} K={k:<3} {json.dumps(found[name][f'K={k}'])}", flush=True)
    peak = of_peak(arguments.rounds)
    print(json.dumps(peak), flush=True)
    every = [(name, k, found[name][f"K={k}"]) for name, _, _, ks in CASES if name in found for k in ks]
    small = [row for name, k, row in every if k == 16 and max(_widths(name)) <= SMALL_WIDTH]
    deep = {name: row["over eager"] for name, k, row in every if name.startswith("HR18") and k == 64}
    ratios = {
        "targets": TARGETS,
        "HR18 at K = 64, over eager": deep,
        "small nets at K = 16, slowest, over eager": min((row["over eager"] for row in small), default=None),
        "slowest of all over eager": min((row["over eager"] for *_, row in every), default=None),
        "MNIST autoencoder with CM, of the machine's matrix product": peak["loop of peak"],
        "over eager": {f"{name} K={k}": row["over eager"] for name, k, row in every},
        "over fused SGD": {f"{name} K={k}": row["over fused SGD"] for name, k, row in every},
    }
    result = {"ratios": ratios, "models": found, "peak": peak}
    print(json.dumps(ratios, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def _widths(name: str) -> tuple[int, ...]:
    return next(net.widths for case, net, _, _ in CASES if case == name)


if __name__ == "__main__":
    main()
