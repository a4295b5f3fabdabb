"""Ten real sweeps of different priority, queued at once on this host with room for three, dispatchers being killed.

What it tells: in which order they started and ended, how many ran at once, of each owner too, and that each sweep had
one driver only. It ends with an error if the order or a quota was broken.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

from cluster.cli import main as musweep
from cluster.queue import ENDED, Entry
from cluster.sharing import queue_of
from cluster.targets import Target, target
from sweeps import history, journal

ROOT = Path(__file__).parents[2]
PRIORITIES = (0, 5, 1, 5, 2, 9, 2, 0, 7, 1)
OWNERS = ("ann", "bob", "cat")
CLUSTERS = """
here:
  kind: local
  storage: {storage}
  queue: true
  room: {{cpus: 3, gpus: 0, sweeps: 3}}
  quotas: {{bob: {{sweeps: 1}}}}
"""
SPEC = """
name: {name}
task: digits
model: {{depth: 1, width: 16}}
training: {{updates: {updates}, batch: 32, reports: 2, eval_examples: 100}}
space: {{lr: {{type: float, low: 0.001, high: 0.1, scale: log}}}}
search: {{algorithm: random, group_size: 4}}
budget: {{trials: {trials}}}
resources: {{engine: loop, workers: 1}}
mlflow: {{enabled: false}}
"""


def submit(updates: int, trials: int) -> None:
    """Queue the ten, of three owners in turn."""
    for n, priority in enumerate(PRIORITIES):
        os.environ["LOGNAME"] = OWNERS[n % len(OWNERS)]
        Path(f"ten{n}.yaml").write_text(SPEC.format(name=f"ten{n}", updates=updates, trials=trials))
        if musweep(["submit", f"ten{n}.yaml", "--to", "here", "--priority", str(priority)]) != 0:
            raise SystemExit(f"ten{n} was not taken")


def watch(place: Target, kills: int, seed: int, limit_s: float) -> dict[str, Any]:
    """Run dispatchers until all have ended, killing them at random moments; what was seen."""
    queue, chance = queue_of(place), random.Random(seed)
    most = {"at once": 0, "bob": 0}
    began, killed = time.monotonic(), 0
    dispatcher, dies_at = begin(), chance.uniform(1, 15)
    entries: list[Entry] = []
    while time.monotonic() - began < limit_s:
        entries = queue.entries("here")
        under_way = [each for each in entries if each.state in ("starting", "running")]
        most["at once"] = max(most["at once"], len(under_way))
        most["bob"] = max(most["bob"], sum(each.owner == "bob" for each in under_way))
        if all(each.state in ENDED for each in entries):
            break
        if killed < kills and time.monotonic() - began > dies_at:
            dispatcher.send_signal(signal.SIGKILL)
            dispatcher.wait()
            killed, dies_at = killed + 1, time.monotonic() - began + chance.uniform(3, 15)
            dispatcher = begin()
        time.sleep(0.1)
    wall_s = time.monotonic() - began
    dispatcher.terminate()
    dispatcher.wait(30)
    return {"wall_s": round(wall_s, 1), "dispatchers_killed": killed, "most": most, "entries": entries}


def begin() -> "subprocess.Popen[bytes]":
    """A dispatcher."""
    words = [sys.executable, "-m", "cluster.cli", "queue", "run", "--to", "here", "--poll", "0.3", "--ttl", "3"]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=sys.stderr)


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """The figures, and whether all is as it should be."""
    entries = found.pop("entries")
    by_start = sorted(entries, key=lambda each: each.started or 0.0)
    folders = {each.id: Path(each.folder) for each in entries}
    opened = {
        id_: len(list(journal.of_type(journal.read(path / "journal.jsonl"), "open"))) for id_, path in folders.items()
    }
    trials = {id_: len(history.load(path).trials) for id_, path in folders.items()}
    late = overtaken(by_start)
    return {
        **found,
        "started": [f"{each.name} (priority {each.priority}, {each.owner})" for each in by_start],
        "ended": [each.name for each in sorted(entries, key=lambda each: each.ended or 0.0)],
        "states": sorted({each.state for each in entries}),
        "drivers_of_each": sorted(set(opened.values())),
        "trials": sorted(set(trials.values())),
        "seconds_of_each": [round((each.ended or 0.0) - (each.started or 0.0), 1) for each in by_start],
        "overtaken_by_lower": late,
        "as_it_should_be": found["most"]["at once"] <= 3
        and found["most"]["bob"] <= 1
        and not late
        and set(opened.values()) == {1}
        and all(each.state == "finished" for each in entries),
    }


def overtaken(by_start: list[Entry]) -> list[str]:
    """Sweeps that started after one of lower priority, though their owner's quota did not keep them back."""
    found = []
    for place, entry in enumerate(by_start):
        lower = [each.name for each in by_start[:place] if each.priority < entry.priority]
        if lower and entry.owner != "bob":
            found.append(f"{entry.name} after {', '.join(lower)}")
    return found


def main() -> int:
    """Run it and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--kills", type=int, default=0, help="dispatchers to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=1500, help="seconds")
    parser.add_argument("--out", type=Path, help="a file for the JSON")
    chosen = parser.parse_args()
    out = chosen.out.absolute() if chosen.out else None
    described = machine.describe()
    with tempfile.TemporaryDirectory(prefix="musweep-ten-") as place:
        os.chdir(place)
        Path("clusters.yaml").write_text(CLUSTERS.format(storage=Path(place) / "runs"))
        os.environ.update({"MUSWEEP_CLUSTERS": str(Path(place) / "clusters.yaml"), "XDG_STATE_HOME": place})
        os.environ.pop("MUSWEEP_DATABASE", None)
        with contextlib.redirect_stdout(sys.stderr):
            submit(chosen.updates, chosen.trials)
        found = judged(watch(target("here"), chosen.kills, chosen.seed, chosen.limit))
        os.chdir("/")
    text = json.dumps({"machine": described, "seed": chosen.seed, **found}, indent=1)
    print(text)
    if out is not None:
        out.write_text(text + "\n")
    return 0 if found["as_it_should_be"] else 1


if __name__ == "__main__":
    sys.exit(main())
