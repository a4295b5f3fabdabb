"""TPE with and without a window: CPU time of an ask as a search grows, and what the search comes to on known functions.

Regret is the best value found so far above the true best, of searches that differ in their seed alone.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from pathlib import Path
from typing import Any

import machine
from scale import exponent

SPACE = {
    "mu_max": {"type": "float", "low": 0.8, "high": 0.995, "scale": "one_minus_log"},
    "lr": {"type": "float", "low": 0.001, "high": 0.5, "scale": "log"},
    "method": ["cm", "nag"],
    "init": ["sparse", "he"],
    "fan_in": {"type": "int", "low": 5, "high": 30, "when": {"init": "sparse"}},
    "init_scale": {"type": "float", "low": 0.1, "high": 10, "scale": "log", "when": {"init": "he"}},
}
RUNNING, TIMED = 16, 20
MARKS = (100, 300, 1000, 3000, 10_000)


def bowl(params: dict[str, Any]) -> float:
    """One optimum, 0, at lr = .05, mu = .95, NAG, sparse with a fan-in of 15."""
    distance = math.log(params["lr"] / 0.05) ** 2 + math.log((1 - params["mu_max"]) / 0.05) ** 2
    if params["init"] == "sparse":
        own = math.log(params["fan_in"] / 15) ** 2
    else:
        own = 0.3 + math.log(params["init_scale"]) ** 2
    return distance + own + (params["method"] != "nag")


def ripples(params: dict[str, Any]) -> float:
    """The bowl with many local optima."""
    wave = math.sin(6 * math.log(params["lr"] / 0.05)) ** 2 + math.sin(6 * math.log((1 - params["mu_max"]) / 0.05)) ** 2
    return bowl(params) + 0.5 * wave


FUNCTIONS = {"bowl": bowl, "ripples": ripples}


def searched(function: str, window: Any, seed: int, trials: int) -> dict[int, float]:
    """One search of so many trials, two thirds of them stopped; regrets at MARKS."""
    from sweeps.search import Proposer
    from sweeps.spec import parse

    search = {"algorithm": "tpe", "seed": seed, "window": window}
    proposer = Proposer(parse({"task": "digits", "space": SPACE, "search": search}))
    rng, running, best = random.Random(seed), dict[int, Any](), math.inf
    regrets = dict[int, float]()
    for number in range(trials):
        if len(running) == RUNNING:
            ended = rng.choice(sorted(running))
            value = FUNCTIONS[function](running.pop(ended)) + 0.02 * rng.gauss(0, 1)
            early = value + 0.3 * abs(rng.gauss(0, 1))
            if rng.random() < 0.33 or early < 0.5:
                proposer.tell(ended, "complete", value, {10: early, 20: value})
            else:
                proposer.tell(ended, "stopped", early, {10: early})
        running[number] = proposer.ask(number)
        best = min(best, FUNCTIONS[function](running[number]))
        if number + 1 in MARKS:
            regrets[number + 1] = best
    return regrets


def asks(window: Any, trials: int) -> float:
    """Milliseconds of CPU of an ask when so many trials have ended, points at random, two thirds of them stopped."""
    from sweeps.search import Proposer
    from sweeps.spec import parse

    def proposer(**search: Any) -> Any:
        return Proposer(parse({"task": "digits", "space": SPACE, "search": {"seed": 0, **search}}))

    points, rng, records = proposer(algorithm="random"), random.Random(0), list[dict[str, Any]]()
    for number in range(trials + RUNNING):
        params = points.ask(number)
        records.append({"type": "ask", "stage": "search", "trial": number, "params": params})
        if number >= RUNNING:
            ended, value = number - RUNNING, bowl(params)
            done = rng.random() < 0.33
            state = {"state": "complete" if done else "stopped", "objective": value}
            rows = [{"trial": ended, "update": update, "score": value} for update in ((10, 20) if done else (10,))]
            records += [{"type": "report", "trials": rows}, {"type": "end", "trial": ended, **state}]
    asked, spent = proposer(algorithm="tpe", window=window), []
    asked.replay(records)
    for number in range(trials + RUNNING, trials + RUNNING + TIMED):
        began = time.thread_time()
        asked.ask(number)
        spent.append(time.thread_time() - began)
    return 1e3 * statistics.median(spent)


def regrets(found: dict[str, Any]) -> dict[str, str]:
    """Geometric means at the last mark."""
    return {name: f"{list(marks.values())[-1]['geometric mean']:.3g}" for name, marks in found.items()}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="searches of each function and window; 0: no regret")
    parser.add_argument("--trials", type=int, default=1000, help="of each search whose regret is measured")
    parser.add_argument("--windows", nargs="+", default=["null", "auto"])
    parser.add_argument("--grow", type=int, default=10_000, help="most trials among which asks are timed; 0: none")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    windows = {name: None if name == "null" else name if name == "auto" else int(name) for name in arguments.windows}
    found: dict[str, Any] = {"machine": machine.describe(), "growth": {}, "regret": {}, "ask_ms": {}}
    for function in FUNCTIONS if arguments.seeds else ():
        for name, window in windows.items():
            runs = [searched(function, window, seed, arguments.trials) for seed in range(arguments.seeds)]
            found["regret"][f"{function}, window {name}"] = {
                mark: {
                    "median": statistics.median(run[mark] for run in runs),
                    "geometric mean": math.exp(statistics.fmean(math.log(max(run[mark], 1e-12)) for run in runs)),
                    "worst": max(run[mark] for run in runs),
                }
                for mark in runs[0]
            }
            print(function, name, json.dumps(found["regret"][f"{function}, window {name}"]), flush=True)
    for name, window in windows.items():
        spent = {mark: asks(window, mark) for mark in MARKS if mark <= arguments.grow}
        found["ask_ms"][f"window {name}"] = spent
        late = {mark: ms for mark, ms in spent.items() if mark >= 1000}
        if len(late) > 1:  # of the total: 1 is as many asks, each as dear as the last
            found["growth"][f"window {name}"] = exponent(list(late), [mark * ms for mark, ms in late.items()])
        print("ask", name, spent, flush=True)
    found = {"ratios": {"growth of the time of asks": found["growth"], "regret": regrets(found["regret"])}, **found}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
