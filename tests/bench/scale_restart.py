"""A driver that starts again among 10,000 finished trials, and the end of such a sweep: report and tables.

The sweep is made by the fake executor and left as a killed driver leaves it, with a few trials still to be asked for.
Then `musweep run FOLDER` is given as a person would give it, with real workers, and its journal tells the times. What
board and driver do before the first answer, and after the last, is also done part by part in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import machine
import scale

MORE, SMALL, GROUPS, SLOTS = 20, 100, 100, 8
TARGET_S = 30.0


class Marks:
    """Wall and CPU seconds between names."""

    def __init__(self) -> None:
        self._marks = [("start", time.perf_counter(), time.process_time())]

    def __call__(self, name: str) -> None:
        self._marks.append((name, time.perf_counter(), time.process_time()))

    def found(self) -> dict[str, Any]:
        """Each part, and all of them."""
        parts = {
            name: {"wall_s": wall - before, "cpu_s": cpu - spent}
            for (_, before, spent), (name, wall, cpu) in pairwise(self._marks)
        }
        first, last = self._marks[0], self._marks[-1]
        return {"wall_s": last[1] - first[1], "cpu_s": last[2] - first[2], "parts": parts}


def make(folder: Path, case: str, trials: int) -> None:
    """A sweep of so many trials that all ran to their end, of 10 reports each; this process still holds its journal."""
    from sweeps.resolve import resolve

    folder.mkdir(parents=True)
    # Points at random whatever the search: making them is not what is measured, and TPE takes minutes.
    scale.play(folder, scale.spec_of(scale.CASES["random"], trials, halving=False), GROUPS, SLOTS, driven=False)
    more = scale.spec_of(scale.CASES[case], trials + MORE, halving=False)
    (folder / "spec.json").write_text(json.dumps(more.model_dump(mode="json")))
    resolve(folder, more)  # a sweep that has run so far has its engines measured


def sizes(folder: Path) -> dict[str, float]:
    """MiB of what a sweep's folder holds."""
    names = ("journal.jsonl", "events.jsonl", "part-*.parquet")
    return {name: sum(path.stat().st_size for path in folder.rglob(name)) / 2**20 for name in names}


def drive(folder: Path) -> None:
    """Leave the driver's files as they are after so many trials."""
    from sweeps.drive import Rows
    from sweeps.telemetry import Watch

    Rows(folder, Watch(folder, json.loads((folder / "spec.json").read_text()), 1)).follow()


def first_answer(folder: Path) -> dict[str, Any]:
    """What a driver and its board do before the first answer, in one process one after the other."""
    mark = Marks()

    from sweeps import journal, tracked
    from sweeps.board import Board
    from sweeps.drive import Rows
    from sweeps.folder import read_spec
    from sweeps.lease import Lease
    from sweeps.telemetry import Watch

    mark("imports")
    spec = read_spec(folder)
    with Lease(folder) as lease:
        mark("lease and spec")
        board = Board(folder, spec, GROUPS, 1, epoch=lease.epoch)
        mark("board")
        attached = board.attach(0)
        mark("first answer")
        assert len(attached.trials) == 1, "a new trial for the first group"
        after_board = scale.resident_mib()
        Rows(folder, Watch(folder, spec.model_dump(mode="json"), lease.epoch)).follow()
        mark("rows, events (driver)")
        tracked.Follower().apply(journal.tail(folder / "journal.jsonl", 0)[0])
        mark("mirror's history (a thread of the driver)")
    return {**mark.found(), "memory_mib": {"board": after_board, "all": scale.resident_mib()}}


def finish(folder: Path) -> dict[str, Any]:
    """What a driver does after the last end, MLflow left out."""
    mark = Marks()

    from dashboards.report import write
    from sweeps import compared, history, store

    mark("imports")
    told = history.load(folder)
    mark("history")
    store.write_derived(folder, told)
    mark("trials.parquet, events.jsonl")
    compared.write(folder)
    mark("comparison")
    report = write(folder)
    mark("report")
    return {**mark.found(), "memory_mib": scale.resident_mib(), "report_mib": report.stat().st_size / 2**20}


@contextmanager
def quiet() -> Iterator[dict[str, str]]:
    """An environment in which nothing is sent anywhere."""
    yield {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}


def run_again(folder: Path) -> dict[str, Any]:
    """`musweep run FOLDER` with real workers, from the command; times as the journal and the files tell them."""
    from sweeps import journal

    size = (folder / "journal.jsonl").stat().st_size
    began = time.time()
    with quiet() as environment:
        command = [sys.executable, "-m", "cluster.cli", "run", str(folder)]
        done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True,
                              check=False)  # fmt: skip
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    records = journal.tail(folder / "journal.jsonl", size)[0]
    at = {
        kind: [record["time"] for record in journal.of_type(records, kind)] for kind in ("open", "ask", "report", "end")
    }
    assert len(at["ask"]) == MORE, "the trials that were left"
    last = max(at["end"])
    return {
        "board_open_s": at["open"][0] - began,
        "first_trial_s": at["ask"][0] - began,
        "first_report_s": at["report"][0] - began,
        "after the last end": {
            "trials.parquet": (folder / "trials.parquet").stat().st_mtime - last,
            "report.html": (folder / "report.html").stat().st_mtime - last,
            "the command's end": ended - last,
        },
        "command_s": ended - began,
    }


def measure(case: str, trials: int, real: bool) -> dict[str, Any]:
    """All of one case."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sweep"
        for step in (["--make", "--cases", case, "--trials", str(trials)], ["--driver-of"]):
            subprocess.run([sys.executable, __file__, *step, "--folder", str(folder)], check=True)
        found: dict[str, Any] = {"trials": trials, "files_mib": sizes(folder)}
        copy = shutil.copytree(folder, folder.with_name("copy"))
        found["first-answer"] = scale.part(Path(__file__), "--part", "first-answer", "--folder", str(copy))
        if real:
            found["run again"] = run_again(folder)
        found["finish"] = scale.part(Path(__file__), "--part", "finish", "--folder", str(folder))
    return found


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=scale.CASES, default=list(scale.CASES))
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--no-workers", action="store_true", help="leave `musweep run` out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("first-answer", "finish"), help="do this to --folder; print its JSON")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--make", action="store_true", help="only make --folder, of the first case")
    parser.add_argument("--driver-of", action="store_true", help="only write what a driver writes in --folder")
    arguments = parser.parse_args()
    if arguments.driver_of:
        drive(arguments.folder)
    elif arguments.make:
        make(arguments.folder, arguments.cases[0], arguments.trials)
    elif arguments.part:
        print(json.dumps({"first-answer": first_answer, "finish": finish}[arguments.part](arguments.folder)))
    else:
        found: dict[str, Any] = {"machine": machine.describe()}
        found |= {name: measure(name, arguments.trials, not arguments.no_workers) for name in arguments.cases}
        if not arguments.no_workers:  # what any start costs on this machine at this hour
            found["of a small sweep"] = measure("random", SMALL, True)["run again"]
        ratios = {
            name: {
                "seconds to the first trial / target": round(found[name]["run again"]["first_trial_s"] / TARGET_S, 2),
                "seconds to the first report / target": round(found[name]["run again"]["first_report_s"] / TARGET_S, 2),
                "seconds to the first trial more than in a small sweep": round(
                    found[name]["run again"]["first_trial_s"] - found["of a small sweep"]["first_trial_s"], 1
                ),
            }
            for name in arguments.cases
            if not arguments.no_workers
        }
        found = {"ratios": ratios, **found}
        print(json.dumps(found, indent=1), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
