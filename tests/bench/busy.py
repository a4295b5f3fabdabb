"""How busy the slots of ordinary CPU sweeps are, as their journals tell (sweeps/busy.py).

python -m tests.bench.busy --json FILE, from the repository's root, on an idle machine; some minutes on two cores.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from sweeps import history
from tests.bench import machine, sweep

SPECS = sweep.ROOT / "sweeps" / "specs"
FULL: dict[str, Any] = {"early_stopping": None, "search": {"algorithm": "random", "seed": 1, "group_size": 4}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "curves": ("curves", {}),
    "curves, random search, none stopped early, groups of 4": (
        "curves", {**FULL, "training": {"updates": 500, "batch": 100, "reports": 5, "mu_step": 5, "fan_in": 15},
                   "budget": {"trials": 24}}),
    "digits": ("digits", {}),
    "digits, random search, none stopped early, groups of 4": ("digits", FULL),
}  # fmt: skip
"""A shipped spec, and what replaces parts of it."""


def measure(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Run a sweep in a process of its own and read what became of its slots."""
    spec = yaml.safe_load((SPECS / f"{name}.yaml").read_text()) | {"mlflow": {"enabled": False}} | changes
    with tempfile.TemporaryDirectory() as folder:
        times = sweep.run(spec, Path(folder))
        told = history.load(Path(folder) / "sweep")
    groups, slots = times["workers"], times["group_size"]
    found = {"until_asked": told.busy.until_asked(groups, slots), "until_ended": told.busy.until_ended(groups, slots)}
    shares = {key: {**asdict(one), "busy": one.busy} for key, one in found.items() if one}
    rounded = {key: {part: round(value, 4) for part, value in one.items()} for key, one in shares.items()}
    kept = ("workers", "group_size", "trials", "seconds", "updates_per_second", "best", "engines")
    return {**rounded, **{key: times[key] for key in kept}}


def main() -> None:
    """Run all cases; print the figures, or store them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="cases whose name has this in it; the others in FILE are kept")
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe(), "sweeps": {}}
    if options.only and options.json and options.json.exists():  # the others stay as they were
        found["sweeps"] = json.loads(options.json.read_text())["sweeps"]
    for case, (name, changes) in CASES.items():
        if options.only and options.only not in case:
            continue
        before = machine.load()
        found["sweeps"][case] = {**measure(name, changes), "load_before": before, "load_after": machine.load()}
        print(case, json.dumps(found["sweeps"][case].get("until_asked")), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
