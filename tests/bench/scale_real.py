"""Real groups, as many Ray actors as asked for, whose trials sleep and report: what they cost board and driver.

The board is the real one, in its actor; groups make the same calls as workers do (attach, report) and import no torch,
so that a hundred fit on a small machine. Lag is what a group waits for its answer beyond its sleep, calls through Ray
included.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import psutil
import ray

UPDATE_S = 0.05
"""What an update of a group's trials takes, all at once."""


@ray.remote(num_cpus=0)
class SleepingGroup:
    """A worker that sleeps where another would train."""

    def __init__(self, board: Any, group: int) -> None:
        self._board, self._group = board, group

    def run(self) -> list[float]:
        """Take part until there is nothing left; what each answer took."""
        from sweeps.round import Entry

        attached = ray.get(self._board.attach.remote(self._group))
        at = {seated.number: seated for seated in attached.trials}
        updates, waits, done = {number: seated.update for number, seated in at.items()}, [], False
        while not done:
            time.sleep(10 * UPDATE_S if at else 0)
            entries = []
            for number, seated in at.items():
                updates[number] += 10
                method = seated.config["method"]
                loss = abs(math.log10(method["lr"]) + 2) + method["mu_max"] + 5 / updates[number]
                values = {f"metric_{i}": loss * i for i in range(5)} | {"valid_loss": loss}
                entries.append(Entry(number, updates[number], values, loss, 10 * UPDATE_S))
            asked = time.monotonic()
            answer = ray.get(self._board.report.remote(self._group, attached.incarnation, "loop", entries))
            if entries:
                waits.append(time.monotonic() - asked)
            for number in answer.drop:
                del at[number], updates[number]
            for seated in answer.new:
                at[seated.number], updates[seated.number] = seated, seated.update
            done = answer.done or answer.leave
        return waits


def measure(groups: int, trials: int, slots: int, algorithm: str) -> dict[str, Any]:
    """One sweep."""
    from scale import spec_of

    from sweeps import history
    from sweeps.lease import Lease
    from sweeps.tuning import Rows, start_board

    spec = spec_of({"algorithm": algorithm, "seed": 1}, trials, halving=True)
    with tempfile.TemporaryDirectory() as name, Lease(Path(name)) as lease:
        folder = Path(name)
        (folder / "spec.json").write_text(json.dumps(spec.model_dump(mode="json")))
        began = time.monotonic()
        board = start_board(folder, spec, lease.epoch, 0, groups, slots)
        process = psutil.Process(ray.get(board.ready.remote()))
        at_start, driver = process.cpu_times(), psutil.Process().cpu_times()
        found = [SleepingGroup.remote(board, group) for group in range(groups)]
        running = [group.run.remote() for group in found]
        rows, first, looks, left = Rows(folder), 0.0, [], running
        while left:
            asked = time.monotonic()
            state = ray.get(board.status.remote())
            looks.append(time.monotonic() - asked)
            rows.follow()
            first = first or (time.monotonic() if state["trials"]["asked"] else 0.0)
            left = ray.wait(left, num_returns=len(left), timeout=0.5)[1]
        seconds = time.monotonic() - first
        rows.close()
        spent, ours = process.cpu_times(), psutil.Process().cpu_times()
        memory = process.memory_info().rss / 2**20
        ray.get(board.close.remote("finished"))
        told = history.load(folder)
        reports = sum(len(trial.scores) for trial in told.trials.values())
        assert len(told.trials) == trials
        assert not any(trial.state == "running" for trial in told.trials.values())
        waits = sorted(wait for waits in ray.get(running) for wait in waits)
        return {
            "groups": groups, "slots": slots, "trials": trials, "rows": reports, "algorithm": algorithm,
            "seconds_to_first_seat": first - began, "seconds": seconds, "rows_per_s": reports / seconds,
            "board_cpu_us_per_row": 1e6 * _spent(at_start, spent) / reports,
            "driver_cpu_us_per_row": 1e6 * _spent(driver, ours) / reports,
            "board_rss_mib": memory,
            "lag_ms": {"median": 1e3 * statistics.median(waits), "p99": 1e3 * waits[int(0.99 * len(waits))],
                       "max": 1e3 * waits[-1]},
            "status_ms": 1e3 * statistics.median(looks),
        }  # fmt: skip


def _spent(before: Any, after: Any) -> float:
    return float(after.user + after.system - before.user - before.system)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--slots", type=int, default=10)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--algorithms", nargs="+", default=["random"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe(), "runs": []}
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        for algorithm in arguments.algorithms:
            for trials in arguments.trials:
                found["runs"].append(measure(arguments.groups, trials, arguments.slots, algorithm))
                print(json.dumps(found["runs"][-1]), flush=True)
    finally:
        ray.shutdown()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
