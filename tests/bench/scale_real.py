"""Real groups, 100 Ray actors whose trials sleep and report: what they cost board and driver, and what they wait.

The board is the real one, in its actor; groups make the same calls as workers do (enter, attach, beat, report), import
no torch, so that a hundred fit on a small machine. The driver's part is that of `scale_driver.py`. Lag is what a group
waits for its answer beyond its sleep, calls through Ray and the wait for a processor included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import machine
import psutil
import ray
from scale import entry, growth, ratios, spec_of
from scale_driver import Costs, Driver

REPORT_S = 2.0
"""What ten updates of a group's trials take, all at once."""
LOOK_S = 0.5


@ray.remote(num_cpus=0)
class SleepingGroup:
    """A worker that sleeps where another would train."""

    def ready(self) -> int:
        """Its process."""
        return os.getpid()

    def run(self, board: Any, group: int) -> list[float]:
        """Take part in a sweep until there is nothing left; what each answer took."""
        from sweeps.round import Place

        ended, rng = threading.Event(), random.Random(group)
        place = Place(socket.gethostname(), ray.get_runtime_context().get_node_id(), os.getpid(), 0.0)
        incarnation = ray.get(board.enter.remote(group, place))

        def beat() -> None:
            while not ended.wait(REPORT_S):
                board.beat.remote(group, incarnation, time.process_time() + time.monotonic())  # as one that computes

        threading.Thread(target=beat, daemon=True).start()
        at = {seated.number: seated for seated in ray.get(board.attach.remote(group, incarnation, place)).trials}
        updates, waits, done = {number: seated.update for number, seated in at.items()}, [], False
        while not done:
            time.sleep(REPORT_S * rng.uniform(0.5, 1.5) if at else 0)
            updates = {number: update + 10 for number, update in updates.items()}
            entries = [entry(number, updates[number], seated.config) for number, seated in at.items()]
            asked = time.monotonic()
            answer = ray.get(board.report.remote(group, incarnation, "loop", entries))
            if entries:
                waits.append(time.monotonic() - asked)
            for number in answer.drop:
                del at[number], updates[number]
            for seated in answer.new:
                at[seated.number], updates[seated.number] = seated, seated.update
            done = answer.done or answer.leave
        ended.set()
        return waits


def measure(groups: list[Any], trials: int, slots: int, algorithm: str) -> dict[str, Any]:
    """One sweep."""
    from sweeps import history
    from sweeps.lease import Lease
    from sweeps.tuning import start_board

    spec = spec_of({"algorithm": algorithm, "seed": 1}, trials, halving=True)
    with tempfile.TemporaryDirectory() as name, Lease(Path(name)) as lease:
        folder = Path(name)
        (folder / "spec.json").write_text(json.dumps(spec.model_dump(mode="json")))
        board = start_board(folder, spec, lease.epoch, 0, len(groups), slots)
        process, ourselves = psutil.Process(ray.get(board.ready.remote())), psutil.Process()
        costs = Costs()
        driver = Driver(folder, spec, lambda: ray.get(board.status.remote()), costs)
        at_start, ours_at_start, began = process.cpu_times(), ourselves.cpu_times(), time.monotonic()
        held = process.memory_info().rss, ourselves.memory_info().rss
        left = running = [group.run.remote(board, place) for place, group in enumerate(groups)]
        looks = []
        while left:
            asked = time.monotonic()
            driver.look()
            looks.append(time.monotonic() - asked)
            left = ray.wait(left, num_returns=len(left), timeout=LOOK_S)[1]
        seconds = time.monotonic() - began
        driver.close()
        spent, ours = process.cpu_times(), ourselves.cpu_times()
        holds = process.memory_info().rss, ourselves.memory_info().rss
        ray.get(board.close.remote("finished"))
        told = history.load(folder)
        waits = sorted(wait for waits in ray.get(running) for wait in waits)
        ray.kill(board)
        rows = sum(len(trial.scores) for trial in told.trials.values())
        assert len(told.trials) == trials
        assert not any(trial.state == "running" for trial in told.trials.values())
        attached = {trial.group for trial in told.trials.values()}
        assert len(attached) == len(groups), "each group trains something"
        return {
            "groups": len(groups), "slots": slots, "trials": trials, "rows": rows, "algorithm": algorithm,
            "seconds": seconds, "rows_per_s": rows / seconds,
            "cpu_us_per_row": {"board": 1e6 * _spent(at_start, spent) / rows,
                               "driver": 1e6 * _spent(ours_at_start, ours) / rows},
            "share_of_a_core": {"board": _spent(at_start, spent) / seconds,
                                "driver": _spent(ours_at_start, ours) / seconds},
            "board_mib": holds[0] / 2**20, "driver_mib": holds[1] / 2**20,
            "memory_mib": (holds[0] - held[0]) / 2**20, "driver_grew_mib": (holds[1] - held[1]) / 2**20,
            "lag_ms": {"median": 1e3 * statistics.median(waits), "p99": 1e3 * waits[int(0.99 * len(waits))],
                       "max": 1e3 * waits[-1]},
            "status_ms": 1e3 * statistics.median(looks),
            "load_average_1m": machine.load(),
        }  # fmt: skip


def _spent(before: Any, after: Any) -> float:
    return float(after.user + after.system - before.user - before.system)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--algorithm", choices=("random", "tpe"), default="random")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe(), "runs": []}
    os.environ["OMP_NUM_THREADS"] = "1"
    here = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": here}},  # workers import `scale` too
    )  # fmt: skip
    try:
        began = time.monotonic()
        groups = [SleepingGroup.remote() for _ in range(arguments.groups)]
        pids = ray.get([group.ready.remote() for group in groups])
        assert len(set(pids)) == arguments.groups, "a process for each group"
        found["start_of_groups_s"] = time.monotonic() - began
        for trials in arguments.trials:
            found["runs"].append(measure(groups, trials, arguments.slots, arguments.algorithm))
            found["workers_mib"] = statistics.median(psutil.Process(pid).memory_info().rss / 2**20 for pid in pids)
            print(json.dumps(found["runs"][-1]), flush=True)
            if arguments.json:  # after each, since all of them take minutes
                arguments.json.write_text(json.dumps(grown(found), indent=1) + "\n")
    finally:
        ray.shutdown()


def grown(found: dict[str, Any]) -> dict[str, Any]:
    """The runs so far with how costs grow."""
    if len(found["runs"]) < 2:
        return found
    growths = {"real groups": growth(found["runs"])}
    return {"ratios": ratios({"runs": {"real groups": found["runs"]}, "growth": growths}), **found, "growth": growths}


if __name__ == "__main__":
    main()
