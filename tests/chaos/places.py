"""A sweep in a folder of its own, the processes that run it, and faults done to them from outside."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from sweeps import history, journal

ROOT = Path(__file__).parents[2]
PACE_S = 0.08
SPEC: dict[str, Any] = {
    "name": "chaos",
    "task": "digits",
    "training": {"updates": 4500, "reports": 45, "batch": 16, "eval_examples": 100, "mu_step": 90},
    "model": {"width": 32},
    "space": {
        "lr": {"type": "float", "low": 1e-3, "high": 1.0, "scale": "log"},
        "mu_max": {"type": "float", "low": 0.5, "high": 0.99, "scale": "one_minus_log"},
        "method": ["cm", "nag"],
        "depth": [1, 2],
    },
    "search": {"algorithm": "qmc", "seed": 5, "group_size": 6},
    "budget": {"trials": 36},
    "early_stopping": {"rungs": [500, 1500], "factor": 3, "fork": None},
    "resources": {"engine": "loop", "workers": 2},
    "objective": "valid_loss",
}
"""About eight seconds at PACE_S on two cores, most of them spent waiting."""

Identity = tuple[int, float]


class Place:
    """One sweep: its spec, its folder, the faults planned for it, and every process that was started for it."""

    def __init__(self, root: Path, spec: dict[str, Any] | None = None, **plan: Any) -> None:
        self.root, self.folder, self.inside = root, root / "sweep", root / "chaos"
        (self.inside / "fired").mkdir(parents=True)
        self.log = root / "driver.log"
        given = {**SPEC, "storage": str(root), **(spec or {})}
        self.spec = {key: value for key, value in given.items() if value is not None}
        (root / "spec.yaml").write_text(yaml.safe_dump(self.spec))
        self.env: dict[str, str] = {}
        self.out = str(self.folder)
        """Where the sweep lies, as the command names it."""
        self.prefix: list[str] = []
        """Words before the driver's command, as for a network namespace."""
        self.started_at = time.monotonic()
        self._seen: dict[Identity, str] = {}
        self._foreign: set[Identity] = set()
        self._drivers: list[subprocess.Popen[bytes]] = []
        self._watching = threading.Event()
        self._watcher: threading.Thread | None = None
        self.plan(**{"pace": PACE_S, "record": True, **plan})

    def plan(self, **plan: Any) -> None:
        """Plan faults inside the sweep's processes; takes effect at their next step."""
        new = self.inside / "plan.json.new"
        new.write_text(json.dumps(plan))
        new.replace(self.inside / "plan.json")

    def respec(self, changes: dict[str, Any]) -> None:
        """Change the spec before its sweep starts."""
        self.spec |= changes
        (self.root / "spec.yaml").write_text(yaml.safe_dump(self.spec))

    def fired(self, prefix: str = "") -> int:
        """How many planned faults have happened."""
        return len([path for path in (self.inside / "fired").iterdir() if path.name.startswith(prefix)])

    def clock(self, seconds: float) -> None:
        """Set all clocks of the sweep off by so much; must be called before the first process starts."""
        new = self.inside / "clock.new"
        new.write_text(str(seconds))
        new.replace(self.inside / "clock")

    # -- processes -------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        dropped = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "MUSWEEP_DATABASE")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        return kept | {
            "PYTHONPATH": f"{ROOT / 'tests' / 'chaos' / 'inject'}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # beside other programs polite workers take minutes to start
            "MUSWEEP_CHAOS": str(self.inside),
            **self.env,
        }

    def spawn(self, command: list[str], log: Path | None = None) -> "subprocess.Popen[bytes]":
        """Start a process in a session of its own; it and its children are watched from now on."""
        with (log or self.log).open("ab") as file:
            process = subprocess.Popen(
                command, cwd=self.root, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._note(process.pid)
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return process

    def command(self) -> list[str]:
        return [sys.executable, "-m", "cluster.cli", "run", str(self.root / "spec.yaml"), "--out", self.out]

    def start(self) -> "subprocess.Popen[bytes]":
        """The one command that begins the sweep and goes on with it."""
        self._drivers.append(self.spawn([*self.prefix, *self.command()]))
        return self._drivers[-1]

    def _note(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            self._seen[pid, process.create_time()] = " ".join(process.cmdline())[:80]

    def _watch(self) -> None:
        while not self._watching.wait(0.5):
            self.look()

    def look(self) -> None:
        """Find the children of all that is known; those whose parents died keep our mark in their environment."""
        known = {process.pid for process in self.alive()}  # a number alone may be another process's by now
        mark = f"MUSWEEP_CHAOS={self.inside}".encode()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                identity = process.pid, process.create_time()
                if process.pid in known or process.pid == os.getpid() or identity in self._foreign:
                    continue
                marked = mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if marked or any(parent.pid in known for parent in process.parents()):
                    self._note(process.pid)
                elif time.time() - process.create_time() > 5.0:
                    self._foreign.add(identity)

    def alive(self) -> list[psutil.Process]:
        """Processes of this sweep that live, the driver among them; zombies do not."""
        found = []
        for (pid, created), _ in list(self._seen.items()):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def named(self, *names: str) -> list[psutil.Process]:
        """Living processes of this sweep whose command line has one of these words."""
        self.look()
        found = []
        for process in self.alive():
            with contextlib.suppress(psutil.Error):
                if any(name in " ".join(process.cmdline()) for name in names):
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        return self.named("GroupWorker", "OwnWorker", "Trainable")

    # -- faults from outside ---------------------------------------------------------------------------------

    def kill_driver(self, process: "subprocess.Popen[bytes]") -> None:
        process.kill()
        process.wait()
        self.quiesce()

    def quiesce(self, patience_s: float = 5.0) -> list[str]:
        """Wait for what a dead driver leaves to end by itself; end the rest; say what that was."""
        self.look()
        _, alive = psutil.wait_procs(self.alive(), timeout=patience_s)
        left = [name_of(process) for process in alive if is_alive(process)]
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=10)
        return left

    def close(self) -> None:
        """End every process of this sweep."""
        self.quiesce(0.0)
        self._watching.set()
        if self._watcher is not None:
            self._watcher.join()
        self.quiesce(0.0)

    # -- what is known ---------------------------------------------------------------------------------------

    def records(self) -> list[journal.Record]:
        return journal.read(self.folder / "journal.jsonl")

    def faults(self) -> list[journal.Record]:
        """What the board has noted of lost workers."""
        return list(journal.of_type(self.records(), "fault"))

    def trials(self) -> dict[int, history.Trial]:
        return history.load(self.folder).trials

    def updates(self) -> int:
        """Updates that the journal has, of all trials."""
        return sum(trial.updates for trial in self.trials().values())

    def wait_for(self, condition: Any, timeout_s: float, process: "subprocess.Popen[bytes] | None" = None) -> bool:
        """Whether something came true in time, and before the driver ended."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and (process is None or process.poll() is None):
            if condition():
                return True
            time.sleep(0.1)
        return bool(condition())

    def tail(self, lines: int = 5) -> str:
        """The driver's last words."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])


def finish(place: Place, process: "subprocess.Popen[bytes]", timeout_s: float = 180.0) -> int:
    """The driver's exit code; one that does not end in time is stopped and counts as -99."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        place.kill_driver(process)
        return -99


def name_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return Path(words[0]).name.split(" ")[0] if words else process.name()
    return "ended"


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def send(process: psutil.Process, signum: signal.Signals) -> bool:
    try:
        process.send_signal(signum)
    except psutil.Error:
        return False
    return True


def moment(order: random.Random, low: float, high: float) -> None:
    time.sleep(order.uniform(low, high))
