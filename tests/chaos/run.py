"""Inject each fault of the matrix into real sweeps, hold them against the oracle, write FAULTS.md (`make chaos`)."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from sweeps.versions import versions  # noqa: E402
from tests.bench.machine import describe  # noqa: E402
from tests.chaos.bench import as_json, run_case  # noqa: E402
from tests.chaos.matrix import TITLES  # noqa: E402
from tests.chaos.page import stored, write  # noqa: E402

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="+", metavar="N", help="only these cases")
    parser.add_argument("--quick", action="store_true", help="each fault once or twice; nothing is stored")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="run nothing: write FAULTS.md from the stored results")
    parser.add_argument("--keep", type=Path, help="leave the sweeps in this folder")
    given = parser.parse_args(arguments)
    if unknown := set(given.case or ()) - set(TITLES):
        parser.error(f"no case {', '.join(sorted(unknown))}: one of {', '.join(TITLES)}")
    survived = given.write or measure(given.case or list(TITLES), given)
    if not given.quick:
        print(f"written: {write(ROOT / 'FAULTS.md', stored(RESULTS), TITLES)}")
    return 0 if survived else 1


def measure(numbers: list[str], given: argparse.Namespace) -> bool:
    """Run these cases; whether none of them failed."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # else under nohup drivers ignore it too
    os.environ.setdefault("MUSWEEP_CACHE", "/tmp/musweep-chaos-cache")
    machine: dict[str, Any] = describe()
    command = " ".join(["python tests/chaos/run.py", *(["--case", *numbers] if given.case else [])])
    tables: dict[str, Any] = {}
    survived = True
    for number in numbers:
        print(f"case {number}: {TITLES[number][0]}", flush=True)
        outcome = run_case(number, given.seed, given.quick, tables, given.keep)
        what = f"skipped: {outcome.skipped}" if outcome.skipped else ("survived" if outcome.passed else "FAILED")
        survived = survived and (outcome.passed or bool(outcome.skipped))
        counts = f"{outcome.survived} of {outcome.injected}, {outcome.lost_updates} updates lost at most"
        print(f"  {what}: {counts}, {outcome.seconds:.0f} s")
        for line in [*outcome.failures, *outcome.notes]:
            print(f"  - {line}", flush=True)
        if not given.quick:
            RESULTS.mkdir(exist_ok=True)
            told = as_json(outcome) | {
                "machine": machine,
                "seed": given.seed,
                "command": command,
                "code": versions()["git"],
                "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            }
            (RESULTS / f"case-{number}.json").write_text(json.dumps(told, indent=1) + "\n")
    return survived


if __name__ == "__main__":
    sys.exit(main())
