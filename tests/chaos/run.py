"""Inject each fault of the matrix into real sweeps, hold them against the oracle, write FAULTS.md (`make chaos`)."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.machine import describe  # noqa: E402
from tests.chaos import cases_cluster, cases_folder, cases_mlflow, cases_network, cases_process  # noqa: E402, F401 - they enter themselves
from tests.chaos.bench import CASES, as_json, run_case  # noqa: E402
from tests.chaos.page import order, stored, write  # noqa: E402

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="+", metavar="N", help="only these cases")
    parser.add_argument("--quick", action="store_true", help="each fault once or twice; nothing is stored")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="run nothing: write FAULTS.md from the stored results")
    parser.add_argument("--keep", type=Path, help="leave the sweeps in this folder")
    given = parser.parse_args(arguments)
    if unknown := set(given.case or ()) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}: one of {', '.join(sorted(CASES, key=order))}")
    if not given.write:
        measure(given.case or sorted(CASES, key=order), given)
    if not given.quick:
        print(f"written: {write(ROOT / 'FAULTS.md', stored(RESULTS))}")
    return 0


def measure(numbers: list[str], given: argparse.Namespace) -> None:
    os.environ.setdefault("MUSWEEP_CACHE", "/tmp/musweep-chaos-cache")
    machine: dict[str, Any] = describe()
    tables: dict[str, Any] = {}
    for number in numbers:
        print(f"case {number}: {CASES[number][0]}", flush=True)
        outcome = run_case(number, given.seed, given.quick, tables, given.keep)
        what = f"skipped: {outcome.skipped}" if outcome.skipped else ("survived" if outcome.passed else "FAILED")
        counts = f"{outcome.survived} of {outcome.injected}, {outcome.lost_updates} updates lost at most"
        print(f"  {what}: {counts}, {outcome.seconds:.0f} s")
        for line in [*outcome.failures, *outcome.notes]:
            print(f"  - {line}", flush=True)
        if not given.quick:
            RESULTS.mkdir(exist_ok=True)
            told = as_json(outcome) | {
                "machine": machine,
                "seed": given.seed,
                "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            }
            (RESULTS / f"case-{number}.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
