"""What measuring nets costs beside training them, by net and protocol: shares of training time, in CPU seconds.

A sweep with the default rungs (factor 3, 20 reports) and trials trained in full, and with halving; a measurement at
a rung, and a whole one as at init and end. Measured as `engines.py` measures: one thread, least of interleaved rounds.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from engines import autoencoder, engine, least, mlp, synthetic, us

from sweeps import rungs
from trainers import diagnostics
from trainers.calibrate import choose
from trainers.config import DIAGNOSTICS, InitConfig, NetConfig, SeedConfig
from trainers.data import Data
from trainers.doomed import NEEDED
from trainers.engine import one_thread
from trainers.inits import initial

TARGET = 0.05
FACTOR = 3
LIGHT = ("activations", "gradients", "lengths")


def relu(width: int, depth: int) -> NetConfig:
    return NetConfig((784,) + (width,) * depth + (10,), ("relu",) * depth, "softmax")


CASES: tuple[tuple[str, NetConfig, int, int, int], ...] = (  # net, batch, K, updates
    ("curves, S13", autoencoder(784, 400, 200, 100, 50, 25, 6), 200, 4, 750_000),
    ("curves in 3,000 updates", autoencoder(784, 400, 200, 100, 50, 25, 6), 200, 4, 3_000),
    ("curves 14x14, reduced", autoencoder(196, 100, 50, 25, 6), 100, 16, 6_000),
    ("tanh 5x200, GB10 reduced", mlp(400, 200, 200, 200, 200, 200, 9), 10, 16, 24_000),
    ("ReLU 10x10, HR18", relu(10, 10), 128, 64, 39_000),
    ("ReLU 10x10, HR18 reduced", relu(10, 10), 128, 64, 500),
    ("ReLU 30x30, HR18", relu(30, 30), 128, 64, 39_000),
    ("ReLU 30x30, HR18 reduced", relu(30, 30), 128, 64, 500),
    ("ReLU 20 wide 60 deep, HR18 reduced", relu(20, 60), 128, 64, 400),
)


def cost(net: NetConfig, batch: int, k: int, rounds: int) -> dict[str, Any]:
    """Seconds of an update and of measurements, each of one trial among K."""
    data = Data(synthetic(net))
    chosen, _ = choose(net, batch, synthetic(net), k)
    part = data.valid.head(diagnostics.EXAMPLES)
    kind = "he" if net.hidden[0] == "relu" else "normalized"
    nets = [
        [(torch.tensor(w, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)) for w, b in params]
        for params in (initial(net, InitConfig(kind), SeedConfig(seed)) for seed in range(k))
    ]

    def measuring(what: tuple[str, ...], some: int) -> Any:
        def run(times: int) -> int:
            for _ in range(times):
                diagnostics.measure_all(net, nets[:some], part, what)
            return times * some

        return run

    best = least(
        {
            "update": engine(chosen, net, batch, k, ("nag",), data),
            "at a rung": measuring(LIGHT, k),
            "whole": measuring(DIAGNOSTICS, k),
            "verdict": measuring(NEEDED, 1),
        },
        rounds,
    )
    return {"engine": chosen, **best}


def shares(found: dict[str, Any], updates: int) -> dict[str, Any]:
    """Shares of training time for a length of training."""
    at = rungs.auto_rungs(rungs.report_updates(updates, 20), FACTOR, 0)
    trained, measured, before = 0.0, 0.0, 0
    for i, rung in enumerate([*at, updates]):
        trained += (rung - before) / FACTOR**i
        measured += FACTOR**-i if rung != updates else 0
        before = rung
    update = found["update"]
    return {
        "at rungs, trained in full": round(len(at) * found["at a rung"] / (updates * update), 4),
        "at rungs, with halving": round(measured * found["at a rung"] / (trained * update), 4),
        "init, rungs and end, trained in full": round(
            (2 * found["whole"] + len(at) * found["at a rung"]) / (updates * update), 4
        ),
        "verdict": round(found["verdict"] / (updates * update), 4),
    }


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="parts of names")
    arguments = parser.parse_args()
    one_thread()
    costs: dict[tuple[NetConfig, int], dict[str, Any]] = {}
    found: dict[str, Any] = {}
    for name, net, batch, k, updates in CASES:
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        if (net, k) not in costs:
            costs[net, k] = cost(net, batch, k, arguments.rounds)
        one = costs[net, k]
        found[name] = {
            **shares(one, updates),
            "K": k,
            "updates": updates,
            "engine": one["engine"],
            "a rung in updates": round(one["at a rung"] / one["update"], 1),
            "microseconds": {key: us(one[key]) for key in ("update", "at a rung", "whole", "verdict")},
        }
        print(f"{name:36} {json.dumps(found[name])}", flush=True)
    ratios = {
        "target": TARGET,
        **{name: row["at rungs, trained in full"] for name, row in found.items()},
    }
    if arguments.json:
        arguments.json.write_text(json.dumps({"ratios": ratios, "nets": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
