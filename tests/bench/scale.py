"""What a sweep costs its board and driver as it grows: trials that only report, 1,000 to 10,000 of them.

Three parts: `grow`, 500 groups through a fake executor that calls the board directly; `restart`, a driver that finds
10,000 finished trials; `real`, groups that are Ray actors and sleep (with --real N). Each measurement has a process of
its own. Costs are CPU time per row (a report of one trial), memory is resident, lag is from a call to its answers.
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
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import machine

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

    def report(self) -> dict[int, Any]:
        """Move each trial to its next report and tell the board."""
        self.at = {number: (update + 10, config) for number, (update, config) in self.at.items()}
        entries = [entry(number, update, config) for number, (update, config) in self.at.items()]
        return dict(self.board.report(self.group, self.incarnation, "loop", entries))

    def obey(self, answer: Any) -> None:
        """Drop and take trials."""
        for number in answer.drop:
            del self.at[number]
        self.at |= {seated.number: (seated.update, seated.config) for seated in answer.new}
        self.gone = answer.done or answer.leave


class Costs:
    """CPU seconds by who spent them, with how often."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.lags: list[float] = []

    def time(self, name: str, work: Any) -> Any:
        """Do something and note what it took."""
        began, wall = time.thread_time(), time.perf_counter()
        found = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - began
        self.calls[name] = self.calls.get(name, 0) + 1
        if name == "board":
            self.lags.append(time.perf_counter() - wall)
        return found


def play(folder: Path, spec: Any, groups: int, slots: int) -> tuple[Costs, Any]:
    """A whole sweep: groups report in a random order, and the driver looks now and then as it does in life."""
    from sweeps import journal, status, tracked
    from sweeps.board import Board
    from sweeps.tuning import Rows

    costs, order = Costs(), random.Random(0)
    board = Board(folder, spec, groups, slots)
    rows, follower, meter, offset = Rows(folder), tracked.Follower(), status.Meter(), [0]
    workers = costs.time("attach", lambda: [Worker(board, group) for group in range(groups)])
    ready, reports = list(range(groups)), 0

    def follow() -> None:
        records, offset[0] = journal.tail(folder / "journal.jsonl", offset[0])
        follower.apply(records)

    while ready:
        place = order.randrange(len(ready))
        ready[place], ready[-1] = ready[-1], ready[place]
        answers = costs.time("board", workers[ready.pop()].report)
        for group, answer in answers.items():
            workers[group].obey(answer)
        ready += [group for group in answers if not workers[group].gone]
        reports += 1
        if reports % POLL_REPORTS == 0:
            costs.time("status", lambda: status.status(board, meter))
            costs.time("rows", rows.follow)
            costs.time("mirror's history", follow)
    costs.time("rows", rows.close)
    board.close("finished")
    return costs, board


def grow(case: str, trials: int, halving: bool, order: str) -> dict[str, Any]:
    """One sweep of the fake executor."""
    from sweeps.board import Board  # noqa: F401 - imports are no part of what grows

    spec = spec_of(CASES[case], trials, halving, order)
    before = resident_mib()
    with tempfile.TemporaryDirectory() as folder:
        costs, board = play(Path(folder), spec, GROUPS, 1)
        rows = sum(len(trial.scores) for trial in board.history.trials.values())
        assert len(board.history.trials) == trials, "a sweep that ended early"
        lags = sorted(costs.lags)
        latest = costs.lags[-len(costs.lags) // 5 :]
        return {
            "trials": trials,
            "rows": rows,
            "cpu_us_per_row": {name: 1e6 * spent / rows for name, spent in costs.seconds.items()},
            "status_ms": 1e3 * costs.seconds["status"] / costs.calls["status"],
            "lag_ms": {
                "median": 1e3 * statistics.median(lags),
                "p99": 1e3 * lags[int(0.99 * len(lags))],
                "max": 1e3 * lags[-1],
                "median of the last fifth": 1e3 * statistics.median(latest),
            },
            "memory_mib": resident_mib() - before,
            "memory_kib_per_row": 1024 * (resident_mib() - before) / rows,
        }


def restart(trials: int, case: str) -> dict[str, Any]:
    """Seconds until a driver that finds so many finished trials has its first answer, part by part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = spec_of(CASES[case], trials, halving=False)
        _, board = play(folder, spec, 100, 8)
        assert all(trial.state == "complete" for trial in board.history.trials.values())
        size = (folder / "journal.jsonl").stat().st_size / 2**20
        more = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": trials + 100})})
        (folder / "spec.json").write_text(json.dumps(more.model_dump(mode="json")))
        began = time.perf_counter()
        command = [sys.executable, __file__, "--part", "first-answer", "--folder", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {"trials": trials, "journal_mib": size, "process_s": time.perf_counter() - began, **found}


def first_answer(folder: Path) -> dict[str, Any]:
    """What a driver and its board do before the first answer, in one process one after the other."""
    marks = [("start", time.perf_counter(), time.process_time())]

    def mark(name: str) -> None:
        marks.append((name, time.perf_counter(), time.process_time()))

    from sweeps import journal, tracked
    from sweeps.board import Board
    from sweeps.folder import read_spec
    from sweeps.lease import Lease
    from sweeps.tuning import Rows

    mark("imports")
    spec = read_spec(folder)
    with Lease(folder) as lease:
        mark("lease and spec")
        board = Board(folder, spec, 100, 1, epoch=lease.epoch)
        mark("board")
        attached = board.attach(0)
        mark("first answer")
        assert len(attached.trials) == 1, "a new trial for the first group"
        Rows(folder)
        mark("rows (driver)")
        tracked.Follower().apply(journal.tail(folder / "journal.jsonl", 0)[0])
        mark("mirror's history (a thread of the driver)")
        board.close("interrupted")
    found = {
        name: {"wall_s": wall - before, "cpu_s": cpu - spent}
        for (_, before, spent), (name, wall, cpu) in pairwise(marks)
    }
    total = {"wall_s": marks[-1][1] - marks[0][1], "cpu_s": marks[-1][2]}
    return {"parts": found, "total": total, "memory_mib": resident_mib()}


def resident_mib() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(sizes: list[float], totals: list[float]) -> float:
    """The power of n that a total grows by: the slope of a line through its logarithms."""
    xs, ys = [math.log(size) for size in sizes], [math.log(total) for total in totals]
    middle, mean = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - middle) * (y - mean) for x, y in zip(xs, ys, strict=True)) / sum((x - middle) ** 2 for x in xs)


def growth(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Exponents in the number of trials: 1 is flat per row; n log n is about 1.12 between 1,000 and 10,000."""
    sizes = [float(run["trials"]) for run in runs]
    found = {
        name: exponent(sizes, [run["cpu_us_per_row"][name] * run["rows"] for run in runs])
        for name in runs[0]["cpu_us_per_row"]
        if name != "attach"
    }
    found["status, each"] = exponent(sizes, [run["status_ms"] for run in runs])
    found["median lag, each"] = exponent(sizes, [run["lag_ms"]["median of the last fifth"] for run in runs])
    found["memory"] = exponent(sizes, [run["memory_mib"] for run in runs])
    return found


def part(*arguments: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(sizes: list[int], say: Any) -> dict[str, Any]:
    """All of `grow`, then `restart` at the largest size."""
    found: dict[str, Any] = {"growth": {}, "runs": {}}
    for case in CASES:
        for halving in (True, False):
            if case == "tpe" and not halving:
                continue  # asks are as many, rows three times as many
            name = f"{case}, {'halving' if halving else 'to the end'}"
            runs = [
                part("--part", "grow", "--case", case, "--trials", str(size), *(["--halving"] if halving else []))
                for size in sizes
            ]
            found["runs"][name], found["growth"][name] = runs, growth(runs)
            say(name, found["growth"][name])
    for case in CASES:
        found.setdefault("restart", {})[case] = part("--part", "restart", "--trials", str(sizes[-1]), "--case", case)
        say(f"restart, {case}", found["restart"][case])
    return found


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("all", "grow", "restart", "first-answer"), default="all")
    parser.add_argument("--case", choices=list(CASES), default="random")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--halving", action="store_true")
    parser.add_argument("--order", choices=("arrival", "number"), default="arrival")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "grow":
        print(json.dumps(grow(arguments.case, arguments.trials, arguments.halving, arguments.order)))
        return
    if arguments.part == "restart":
        print(json.dumps(restart(arguments.trials, arguments.case)))
        return
    if arguments.part == "first-answer":
        print(json.dumps(first_answer(arguments.folder)))
        return
    described = machine.describe()
    found = measure(arguments.sizes, lambda name, what: print(name, json.dumps(what, indent=1), flush=True))
    result = {"machine": described, **found}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
