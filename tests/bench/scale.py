"""What a sweep costs its board and driver as it grows: trials that only report, 1,000 to 10,000 of them.

A fake executor has 500 groups call the board directly; the driver's part looks on as in life (`scale_driver.py`). Each
sweep has a process of its own. Costs are CPU time per row (a report of one trial), memory is resident, lag is from a
call to its answers.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
from scale_driver import Costs, Driver

GROUPS = 500
SIZES = (1000, 3000, 10_000)
METRICS = ("train_loss", "train_error", "valid_loss", "valid_error", "train_entropy", "valid_entropy")
CASES = {
    "random": {"algorithm": "random", "seed": 1},
    "tpe": {"algorithm": "tpe", "seed": 1},
}
SPACE = {
    "lr": {"type": "float", "low": 1e-4, "high": 1.0, "scale": "log"},
    "mu_max": {"type": "float", "low": 0.5, "high": 0.99, "scale": "one_minus_log"},
    "method": ["cm", "nag"],
    "init": ["sparse", "standard", "normalized", "he"],
    "depth": [1, 2, 3, 4],
}
POLL_REPORTS = 200
"""Reports between two looks of the driver at the board, of which it takes two a second."""


def spec_of(search: dict[str, Any], trials: int, halving: bool, order: str = "arrival") -> Any:
    """A sweep of so many trials of 10 reports."""
    from sweeps.spec import SweepSpec

    stopping = {"rungs": [10, 30], "factor": 3, "fork": None, "order": order, "compare_within": []}
    return SweepSpec.model_validate(
        {
            "name": "scale", "task": "digits", "training": {"updates": 100, "reports": 10, "batch": 32},
            "space": SPACE, "search": search, "budget": {"trials": trials}, "objective": "valid_loss",
            "early_stopping": stopping if halving else None, "mlflow": {"enabled": False},
        }
    )  # fmt: skip


def entry(number: int, update: int, config: dict[str, Any]) -> Any:
    """What a trial reports: a function of its config, as noisy as its number is odd."""
    from sweeps.board import Entry

    method = config["method"]
    loss = abs(math.log10(method["lr"]) + 2) + method["mu_max"] + 5 / update + 0.1 * random.Random(number).random()
    values = {name: loss * (1 + i) / 7 for i, name in enumerate(METRICS)} | {"valid_loss": loss}
    return Entry(number, update, values, loss, 0.1)


class Worker:
    """A group that trains nothing."""

    def __init__(self, board: Any, group: int) -> None:
        self.board, self.group, self.gone = board, group, False
        attached = board.attach(group)
        self.incarnation = attached.incarnation
        self.at = {seated.number: (seated.update, seated.config) for seated in attached.trials}

    def train(self) -> list[Any]:
        """Move each trial to its next report."""
        self.at = {number: (update + 10, config) for number, (update, config) in self.at.items()}
        return [entry(number, update, config) for number, (update, config) in self.at.items()]

    def report(self, entries: list[Any]) -> dict[int, Any]:
        """Tell the board."""
        return dict(self.board.report(self.group, self.incarnation, "loop", entries))

    def obey(self, answer: Any) -> None:
        """Drop and take trials."""
        for number in answer.drop:
            del self.at[number]
        self.at |= {seated.number: (seated.update, seated.config) for seated in answer.new}
        self.gone = answer.done or answer.leave


def play(folder: Path, spec: Any, groups: int, slots: int, driven: bool = True) -> tuple[Costs, Any]:
    """A whole sweep: groups report in a random order, and the driver looks now and then as it does in life.

    The board is left open, as a driver leaves it that is killed.
    """
    from sweeps import status
    from sweeps.board import Board

    costs, order = Costs(), random.Random(0)
    board = Board(folder, spec, groups, slots)
    meter = status.Meter()
    driver = Driver(folder, spec, lambda: status.status(board, meter), costs) if driven else None
    workers = costs.time("board, first seats", lambda: [Worker(board, group) for group in range(groups)])
    ready, reports = list(range(groups)), 0
    while ready:
        place = order.randrange(len(ready))
        ready[place], ready[-1] = ready[-1], ready[place]
        worker = workers[ready.pop()]
        entries = worker.train()
        answers = costs.time("board, reports", lambda: worker.report(entries))  # noqa: B023 - called at once
        for group, answer in answers.items():
            workers[group].obey(answer)
            costs.seated(seated.number for seated in answer.new)
        ready += [group for group in answers if not workers[group].gone]
        reports += 1
        if driver is not None and reports % POLL_REPORTS == 0:
            driver.look()
    if driver is not None:
        driver.close()
    return costs, board


def grow(case: str, trials: int, halving: bool) -> dict[str, Any]:
    """One sweep of the fake executor."""
    import sweeps.drive  # noqa: F401 - imports are no part of what grows
    from sweeps.board import Board  # noqa: F401
    from sweeps.mlflow_copy import Copy  # noqa: F401

    spec = spec_of(CASES[case], trials, halving)
    before = resident_mib()
    with tempfile.TemporaryDirectory() as folder:
        costs, board = play(Path(folder), spec, GROUPS, 1)
        journal_mib = (Path(folder) / "journal.jsonl").stat().st_size / 2**20
    rows = sum(len(trial.scores) for trial in board.history.trials.values())
    assert len(board.history.trials) == trials, "a sweep that ended early"
    lags = sorted(costs.lags)
    each = {name: 1e6 * spent / rows for name, spent in costs.seconds.items()}
    sums = {who: sum(cost for name, cost in each.items() if name.startswith(who)) for who in ("board", "driver")}
    return {
        "trials": trials,
        "rows": rows,
        "cpu_us_per_row": {**sums, **each},
        "cpu_ms_of_a_report_with_a_new_trial": costs.asks(),
        "board_cpu_us_per_report_by_fifth": costs.fifths(),
        "status_ms": 1e3 * costs.seconds["board, status"] / costs.calls["board, status"],
        "lag_ms": {
            "median": 1e3 * statistics.median(lags),
            "p99": 1e3 * lags[int(0.99 * len(lags))],
            "max": 1e3 * lags[-1],
        },
        "journal_mib": journal_mib,
        "memory_mib": resident_mib() - before,
        "memory_kib_per_row": 1024 * (resident_mib() - before) / rows,
    }


def resident_mib() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(sizes: list[float], totals: list[float]) -> float:
    """The power of n that a total grows by: the slope of a line through its logarithms."""
    xs, ys = [math.log(size) for size in sizes], [math.log(total) for total in totals]
    middle, mean = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - middle) * (y - mean) for x, y in zip(xs, ys, strict=True)) / sum((x - middle) ** 2 for x in xs)


def growth(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Exponents of totals in the number of rows: 1 is flat per row; n log n is about 1.12 between 1,000 and 10,000."""
    rows = [float(run["rows"]) for run in runs]
    names = [name for name in runs[0]["cpu_us_per_row"] if name != "board, first seats"]
    found = {name: exponent(rows, [run["cpu_us_per_row"][name] * run["rows"] for run in runs]) for name in names}
    late = {int(at.split("-")[0]): ms for at, ms in runs[-1].get("cpu_ms_of_a_report_with_a_new_trial", {}).items()}
    late = {at: at * ms for at, ms in late.items() if at >= 1000}
    if len(late) > 1:  # at 1,000 trials half are the first of their groups, which cost nothing
        found["asks from trial 1000 on"] = exponent([*map(float, late)], [*late.values()])
    found["memory"] = exponent(rows, [run["memory_mib"] for run in runs])
    found["status, each"] = exponent(rows, [run["status_ms"] for run in runs])
    found["lag, each"] = exponent(rows, [run["lag_ms"]["median"] for run in runs])
    return found


def ratios(found: dict[str, Any]) -> dict[str, Any]:
    """What a person looks for first."""
    return {
        name: {
            f"{who}, us per row at {' / '.join(str(run['trials']) for run in runs)} trials": " / ".join(
                f"{run['cpu_us_per_row'][who]:.0f}" for run in runs
            )
            for who in ("board", "driver")
        }
        | {"exponents": {key: round(value, 2) for key, value in found["growth"][name].items()}}
        for name, runs in found["runs"].items()
    }


def part(script: Path, *arguments: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="trials")
    parser.add_argument("--to-the-end", action="store_true", help="no trial is stopped; ten reports of each")
    parser.add_argument("--one", action="store_true", help="the first case and size in this process; print its JSON")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(grow(arguments.cases[0], arguments.sizes[0], not arguments.to_the_end)))
        return
    found: dict[str, Any] = {"machine": machine.describe(), "groups": GROUPS, "growth": {}, "runs": {}}
    more = ["--to-the-end"] if arguments.to_the_end else []
    for case in arguments.cases:
        name = f"{case}, {'to the end' if more else 'halving'}"
        found["runs"][name] = runs = [
            part(Path(__file__), "--one", "--cases", case, "--sizes", str(size), *more) for size in arguments.sizes
        ]
        found["growth"][name] = growth(runs) if len(runs) > 1 else {}
    found = {"ratios": ratios(found), **found}
    print(json.dumps(found, indent=1), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
