"""All measurements of speed in one run, each in a process of its own: JSON, ratios first, and a table.

What is compared with what, and how fairly, is in README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PEERS = {"usual": 32, "expert": 128, "optuna_alone": 128}
TARGETS = {"usual": 50.0, "expert": 6.0, "optuna_alone": 5.0}
FIXED_COST_S = 20.0
STORED = (
    "engines",
    "recurrent",
    "diagnostics",
    "curvature",
    "mlflow",
    "scale",
    "scale_real",
    "scale_restart",
    "window",
)
"""Parts that write their own JSON, with their ratios in it."""
PARTS = ("sweep", "fixed_cost", "rows", *STORED)
SCRIPTS = {"mlflow": "mlflow_copy.py"}  # one named mlflow.py would be imported for the library
TIMEOUT_S = 3600


def measured(script: str, arguments: list[str], result: Path | None = None) -> dict[str, Any]:
    """Run a script of this folder; read its JSON from `result`, or else from what it prints last.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    extra = [] if result is None else ["--json", str(result)]
    command = [sys.executable, str(HERE / script), *arguments, *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{script}: exit code {done.returncode}: {done.stderr[-2000:]}")
    text = result.read_text() if result is not None else done.stdout[done.stdout.index("{\n") :]
    found: dict[str, Any] = json.loads(text)
    return found


def sweep_against_peers(trials: int, peers: dict[str, int], say: Console) -> dict[str, Any]:
    """(a): musweep, then each peer, then musweep again, so that a machine that changes speed shows.

    The lower of musweep's two is what counts.
    """
    runs, found = [], {}
    say.print(f"musweep, {trials} trials")
    runs.append(measured("sweep.py", ["--trials", str(trials)]))
    with tempfile.TemporaryDirectory() as folder:
        for peer, count in peers.items():
            say.print(f"{peer}, {count} trials")
            found[peer] = measured(f"peers/{peer}.py", ["--trials", str(count)], Path(folder) / f"{peer}.json")
    say.print(f"musweep, {trials} trials")
    runs.append(measured("sweep.py", ["--trials", str(trials)]))
    slower = min(runs, key=lambda run: run["trials_per_minute"])
    return {"musweep": slower, **found, "musweep_runs": [run["trials_per_minute"] for run in runs]}


def ratios_of(found: dict[str, Any]) -> dict[str, Any]:
    """Every ratio of a run, with its target where the project has one."""
    ratios: dict[str, Any] = {}
    trials = found.get("trials_per_minute", {})
    for peer in (name for name in PEERS if name in trials):
        ours, theirs = trials["musweep"], trials[peer]
        ratios[f"musweep / {peer}"] = {
            "trials per minute": round(ours["trials_per_minute"] / theirs["trials_per_minute"], 2),
            "target": TARGETS[peer],
            "against the peer from its first training": round(
                ours["trials_per_minute"] / theirs["trials_per_minute_from_first_training"], 2
            ),
            "with what comes after counted": round(
                60
                * ours["trials"]
                / (ours["seconds"] + ours["after_s"])
                / (60 * theirs["trials"] / (theirs["seconds"] + theirs["after_s"])),
                2,
            ),
            "updates per second": round(ours["updates_per_second"] / theirs["updates_per_second"], 2),
        }
    if "fixed_cost" in found:
        ratios["fixed cost / target"] = round(found["fixed_cost"]["report_s"] / FIXED_COST_S, 2)
    if "rows" in found:
        ratios["results per second, board / Ray Tune"] = round(found["rows"]["ratio_to_tune"], 1)
    for part in STORED:
        if part in found:
            ratios[part] = found[part].get("ratios")
    return ratios


def show(result: dict[str, Any], say: Console) -> None:
    """The numbers a person looks for."""
    trials = result.get("trials_per_minute")
    if trials:
        table = Table(title="(a) trials per minute, first ask to last result stored", min_width=110)
        for column in ("", "trials/min", "musweep is", "target", "trials", "updates/trial", "updates/s", "start s",
                       "after s", "best"):  # fmt: skip
            table.add_column(column, justify="left" if not column else "right")
        for name in ("musweep", *PEERS):
            if name not in trials:
                continue
            row, ratio = trials[name], result["ratios"].get(f"musweep / {name}", {})
            table.add_row(
                name,
                f"{row['trials_per_minute']:.1f}",
                f"{ratio['trials per minute']}x" if ratio else "",
                f"{ratio['target']}x" if ratio else "",
                str(row["trials"]),
                f"{row['updates_per_trial']:.0f}",
                f"{row['updates_per_second']:.0f}",
                f"{row['start_s']:.1f}",
                f"{row['after_s']:.1f}",
                f"{row['best']:.4f}",
            )
        say.print(table)
    if fixed := result.get("fixed_cost"):
        say.print(
            f"(d) 64 trials x 10 updates, command to report: {fixed['report_s']:.1f} s (target {FIXED_COST_S:.0f}), "
            f"to the command's end {fixed['command_s']:.1f}: "
            f"start {fixed['start_s']:.1f}, sweep {fixed['seconds']:.1f}, after {fixed['after_s']:.1f}"
        )
    if rows := result.get("rows"):
        say.print(
            f"(e) results per second: board {rows['board_in_process']:.0f} in process, {rows['board_actor']:.0f} "
            f"through its actor; Ray Tune {rows['tune_without_loggers']:.0f} ({rows['tune_with_loggers']:.0f} with its "
            f"loggers): {rows['ratio_to_tune']:.0f}x"
        )
    for part in STORED:
        if result.get(part):
            say.print_json(data=result["ratios"][part])


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--trials", type=int, default=256, help="trials of the musweep sweep")
    parser.add_argument("--peer-trials", type=int, help="trials of each peer (default 32, 128, 128)")
    parser.add_argument("--out", type=Path, help="file for the result; default results/DATE.json")
    arguments = parser.parse_args()
    say = Console()
    if not say.is_terminal:
        say = Console(width=120)
    found: dict[str, Any] = {}
    described = machine.describe()
    if "sweep" in arguments.only:
        peers = {name: arguments.peer_trials or count for name, count in PEERS.items()}
        found["trials_per_minute"] = sweep_against_peers(arguments.trials, peers, say)
    for part, script in (("fixed_cost", "fixed_cost.py"), ("rows", "rows.py")):
        if part in arguments.only:
            say.print(part.replace("_", " "))
            found[part] = measured(script, [])
    for part in STORED:
        if part in arguments.only:
            say.print(part)
            with tempfile.TemporaryDirectory() as folder:
                found[part] = measured(SCRIPTS.get(part, f"{part}.py"), [], Path(folder) / f"{part}.json")
    described["load_average_1m_after"] = machine.load()
    result = {"ratios": ratios_of(found), "machine": described, **found}
    out = arguments.out or HERE / "results" / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    show(result, say)
    say.print(f"written: {out}")


if __name__ == "__main__":
    main()
