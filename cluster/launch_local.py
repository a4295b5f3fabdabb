"""Sweeps in the background of this host: a driver of its own each, which goes on when the terminal is closed.

All that is known of a driver lies in `logs/` of its sweep's folder: `driver.json` (which process), `driver.log`,
`driver.exit` (its exit code, once it has left) and `driver.stop` (it was asked to leave). Each has one writer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import process
from cluster.launch import ACTIVE, Job, JobStatus, LaunchError, driver_command, job_of, last_words, plain

if TYPE_CHECKING:
    from cluster.targets import Target

STOP_S = 90.0
"""How long a driver may take to leave: its groups write their checkpoints first."""
_TAIL = 8192


class LocalLauncher:
    """Starts drivers on this host."""

    poll_s = 0.3

    def __init__(self, target: Target) -> None:
        self.target = target

    def submit(self, job: Job) -> None:
        """Start a driver, unless one runs or the sweep is finished."""
        logs = self._logs(job.id)
        try:
            logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"target {self.target.name}: cannot make {logs}: {error.strerror}") from None
        with _alone(logs / "driver.lock"):
            if self.status(job.id).state not in (*ACTIVE, "finished"):
                self._begin(job, logs)

    def _begin(self, job: Job, logs: Path) -> None:
        for name in ("driver.exit", "driver.stop"):
            (logs / name).unlink(missing_ok=True)
        self._start(job, logs)

    def _start(self, job: Job, logs: Path) -> None:
        from cluster.launched import unpack

        package = str(unpack(job.package, logs.parent)) if job.package.name else ""  # one begun by hand has none
        rest = driver_command(job, package)[4:]
        words = [self._python, "-P", "-m", "cluster.launched", str(logs / "driver.exit"), *rest]
        try:
            began = process.detached(words, logs / "driver.log", logs.parent, self._env(job))
        except OSError as error:
            raise LaunchError(f"target {self.target.name}: cannot start a driver: {error}") from None
        began.write(logs / "driver.json")

    @property
    def _python(self) -> str:
        return self.target.python or sys.executable

    def _env(self, job: Job) -> dict[str, str]:
        """The driver's environment: this process's, for a Ray of its own, with musweep where it is now."""
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        source = str(Path(__file__).parents[1])
        paths = [source, *filter(None, [inherited.get("PYTHONPATH")])]
        return {**inherited, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **job.env}

    def render(self, job: Job) -> str:
        """The command, and its environment."""
        import shlex

        lines = [f"{name}={value}" for name, value in sorted(job.env.items())]
        return "\n".join([*lines, shlex.join(driver_command(job, str(job.package), self._python))])

    def status(self, id_: str) -> JobStatus:
        """What has become of a driver, by its process and what it left behind."""
        from cluster.folders import is_sweep

        logs, folder = self._logs(id_), self._folder(id_)
        driver = process.read(logs / "driver.json")
        if driver is None:
            known = "no driver was submitted here" if is_sweep(folder) else f"nothing of it in {folder.parent}"
            return JobStatus(id_, "unknown", known)
        if driver.alive:
            begun = (folder / "journal.jsonl").exists()
            return JobStatus(id_, "running", "") if begun else JobStatus(id_, "pending", "its driver is starting")
        closed = _closed(folder)
        if not driver.here and closed is None:
            return JobStatus(id_, "running", f"as far as {driver.host} knows: its driver is there")
        return self._ended(id_, logs, closed)

    def _ended(self, id_: str, logs: Path, closed: str | None) -> JobStatus:
        """What a driver that is gone has come to."""
        try:
            code = int((logs / "driver.exit").read_text())
        except (OSError, ValueError):
            code = None
        if code == 0 or (code is None and closed in ("finished", "budget")):
            return JobStatus(id_, "finished")
        if code == 130 or (code is None and (logs / "driver.stop").exists()):
            return JobStatus(id_, "stopped", f"go on with it: musweep resume {id_} --to {self.target.name}")
        words = last_words(_tail(logs / "driver.log"))
        told = f"exit code {code}" if code is not None else "its driver was killed"
        return JobStatus(id_, "failed", f"{told}: {words}" if words else told)

    def logs(self, id_: str, follow: bool = False) -> Iterator[str]:
        """The lines of the driver's log."""
        path, known = self._logs(id_) / "driver.log", self.status(id_)
        if known.state == "unknown":
            raise LaunchError(f"target {self.target.name} does not know {id_}: {known.why}")
        with contextlib.ExitStack() as stack:
            while not path.exists():
                if not follow or self.status(id_).state not in ACTIVE:
                    return
                time.sleep(self.poll_s)
            file = stack.enter_context(path.open(encoding="utf-8", errors="replace", newline="\n"))
            rest = ""
            while True:
                over = not follow or self.status(id_).state not in ACTIVE  # asked before the last look
                while line := file.readline():
                    rest += line
                    if rest.endswith("\n"):
                        yield plain(rest.rstrip("\n"))
                        rest = ""
                if over:
                    break
                time.sleep(self.poll_s)
            if rest:
                yield plain(rest)

    def stop(self, id_: str) -> None:
        """Ask the driver to leave, and wait until it has."""
        logs, known = self._logs(id_), self.status(id_)
        driver = process.read(logs / "driver.json")
        if driver is None:
            raise LaunchError(f"target {self.target.name} does not know {id_}: {known.why}")
        if known.state not in ACTIVE:
            return
        if not driver.here:
            raise LaunchError(f"{id_}: its driver is on {driver.host}: stop it there")
        (logs / "driver.stop").touch()
        if driver.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(driver.pid, signal.SIGTERM)
        limit = time.monotonic() + STOP_S
        while driver.alive:
            if time.monotonic() > limit:
                raise LaunchError(f"{id_}: its driver, process {driver.pid}, has not left in {STOP_S:.0f} s")
            time.sleep(0.1)

    def resume(self, id_: str) -> None:
        """Start a driver again on what the sweep's folder has."""
        from cluster.launched import CODE
        from cluster.package import SPEC

        known, folder = self.status(id_), self._folder(id_)
        if known.state == "unknown":
            raise LaunchError(f"target {self.target.name} does not know {id_}: {known.why}")
        if not (folder / CODE / SPEC).exists():
            raise LaunchError(f"{id_}: what was sent with it is gone from {folder / CODE}: submit its spec again")
        self.submit(job_of(self.target, id_, folder / CODE))

    def adopt(self, id_: str) -> None:
        """Start a driver on a sweep that was begun by hand, with the code that Python finds here.

        Raises:
            LaunchError: there is no such sweep, or it is being driven.
        """
        from cluster.folders import is_sweep
        from sweeps.lease import held

        logs, folder = self._logs(id_), self._folder(id_)
        if not is_sweep(folder):
            raise LaunchError(f"target {self.target.name}: nothing of {id_} in {folder.parent}")
        if held(folder):
            raise LaunchError(f"{id_} is running")
        logs.mkdir(exist_ok=True)
        with _alone(logs / "driver.lock"):
            if self.status(id_).state not in ACTIVE:
                self._begin(job_of(self.target, id_, Path()), logs)

    def digest(self, id_: str) -> str:  # noqa: ARG002 - of this contract
        """What was sent lies in the folder, unpacked."""
        return ""

    def check(self) -> str:
        """Say where sweeps will lie."""
        storage = self._folder("x").parent
        there = next(path for path in (storage, *storage.parents) if path.exists())
        if not os.access(there, os.W_OK):
            raise LaunchError(f"target {self.target.name}: may not write to {there}")
        return f"this host, in {storage}"

    def list(self) -> list[JobStatus]:
        """The sweeps of the storage folder that were submitted here."""
        storage = self._folder("x").parent
        found = sorted(storage.glob("*/logs/driver.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [self.status(path.parents[1].name) for path in found]

    def _folder(self, id_: str) -> Path:
        folder = self.target.folder(id_)
        if "://" in folder:
            raise LaunchError(f"target {self.target.name}: kind {self.target.kind} keeps sweeps in a folder, not a URL")
        return Path(folder)

    def _logs(self, id_: str) -> Path:
        if not id_ or "/" in id_ or id_.startswith("."):
            raise LaunchError(f"{id_!r} is not the id of a sweep")
        return self._folder(id_) / "logs"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One starter at a time, of all processes of this host."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _closed(folder: Path) -> str | None:
    """How a sweep's journal says it ended; None if it does not."""
    from sweeps import history

    try:
        return history.load(folder).closed
    except Exception:  # a damaged journal is the driver's to tell of
        return None


def _tail(path: Path) -> str:
    """The end of a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
