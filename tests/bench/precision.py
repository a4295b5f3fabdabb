"""What products of tf32 or bf16 factors do to final errors, beside float32: the same trials, fresh seeds.

On a CPU the factors are rounded first and the products are float32 (`trainers.precision`), so the errors are those of
such factors; nothing here says how fast a GPU is. Each trial at a precision is paired with the float32 trial of its
seed, and the ratios' geometric mean is given with its interval (95%, Student's t of the logarithms).
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from machine import describe
from scipy import stats

from trainers.config import PRECISIONS, InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.engine import one_thread
from trainers.group import Group
from trainers.tasks import load

AUTOENCODER = ("sigmoid",) * 3 + ("linear",) + ("sigmoid",) * 3
CASES: dict[str, tuple[str, dict[str, Any], NetConfig, InitConfig, MethodConfig, int, int]] = {
    "curves 196-100-50-25-6, NAG .99": (
        "curves", {"size": 14, "examples": 4000},
        NetConfig((196, 100, 50, 25, 6, 25, 50, 100, 196), AUTOENCODER, "logistic"),
        InitConfig("sparse"), MethodConfig("nag", 0.01, 0.99, mu_step=10, tail_updates=200), 4000, 100,
    ),
    "digits 64-100-100-10 tanh, NAG .9": (
        "digits", {}, NetConfig((64, 100, 100, 10), ("tanh", "tanh"), "softmax"),
        InitConfig("normalized"), MethodConfig("nag", 0.02, 0.9), 2000, 50,
    ),
    "digits 64-50x4-10 relu, adam": (
        "digits", {}, NetConfig((64, 50, 50, 50, 50, 10), ("relu",) * 4, "softmax"),
        InitConfig("he"), MethodConfig("adam", 0.001), 2000, 50,
    ),
}  # fmt: skip
METRICS = {"autoencoder": "train_squared_error", "classification": "train_loss"}


def ends(case: str, precision: str, seeds: int) -> dict[str, list[float]]:
    """What trials of so many seeds come to, by metric."""
    name, settings, net, init, method, updates, batch = CASES[case]
    task = load(name, settings)
    group = Group(task, "stacked", precision=precision, eval_examples=2000)
    for number in range(seeds):
        group.add(TrialConfig(number, net, init, method, updates, batch, SeedConfig(0, "precision", number)))
    group.advance(dict.fromkeys(range(seeds), updates))
    found = group.evaluate(range(seeds))
    return {metric: [found[number][metric] for number in range(seeds)] for metric in found[0]}


def ratio(ends: list[float], plain: list[float]) -> dict[str, float]:
    """Geometric mean of paired ratios, with its 95% interval."""
    logs = [math.log(a / b) for a, b in zip(ends, plain, strict=True)]
    mean, half = statistics.fmean(logs), 0.0
    if len(logs) > 1:
        half = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return {name: round(math.exp(value), 4) for name, value in
            (("ratio", mean), ("low", mean - half), ("high", mean + half))}  # fmt: skip


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    one_thread()
    found: dict[str, Any] = {}
    for case in CASES:
        metric = METRICS[load(*CASES[case][:2]).info.kind]
        by_precision = {precision: ends(case, precision, arguments.seeds) for precision in PRECISIONS}
        plain = by_precision["float32"][metric]
        found[case] = {
            "metric": metric,
            "ends": {precision: [round(v, 6) for v in values[metric]] for precision, values in by_precision.items()},
            "over float32": {p: ratio(by_precision[p][metric], plain) for p in PRECISIONS if p != "float32"},
        }
        print(f"{case:36} {metric:20} {json.dumps(found[case]['over float32'])}", flush=True)
    if arguments.json:
        told = {"machine": describe(), "note": "factors rounded on a CPU; no GPU was used"}
        arguments.json.write_text(json.dumps({**told, "seeds": arguments.seeds, "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
