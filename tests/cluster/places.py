"""A place where sweeps are drivers that sleep, in files, so that a dispatcher may be killed at any moment."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.launch import Job, JobStatus

DRIVER = """
import fcntl, os, sys, time
folder, id_, lasts = sys.argv[1], sys.argv[2], float(sys.argv[3])
def log(words):
    at = os.open(f"{folder}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(at, f"{words} {id_} {sys.argv[4]}\\n".encode())
    os.close(at)
lock = os.open(f"{folder}/{id_}.lock", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    log("twice")  # a sweep's own lease refuses the second driver; here it is counted
    sys.exit(0)
if not os.path.exists(f"{folder}/{id_}.done"):
    log("start")
    time.sleep(lasts)
    log("end")
    open(f"{folder}/{id_}.done", "w").close()
"""


class Sleepers:
    """A launcher of drivers that sleep; what is known of them is in files."""

    def __init__(self, folder: Path, lasts_s: float) -> None:
        self.folder, self.lasts_s = folder, lasts_s
        folder.mkdir(exist_ok=True)
        self.children: list[subprocess.Popen[bytes]] = []

    def submit(self, job: Job) -> None:
        with (self.folder / f"{job.id}.starter").open("a") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            if self.status(job.id).state in ("running", "finished"):
                return
            words = [str(self.folder), job.id, str(self.lasts_s), str(os.getpid())]
            arguments = [sys.executable, "-I", "-S", "-c", DRIVER, *words]
            self.children.append(subprocess.Popen(arguments, start_new_session=True))
            until = time.monotonic() + 20
            while not any(f"start {job.id} " in line for line in self.log()) and time.monotonic() < until:
                time.sleep(0.005)

    def log(self) -> list[str]:
        """What the drivers did, in order: `start ID PID`, `end ID PID`, PID being who submitted it."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def status(self, id_: str) -> JobStatus:
        self.children = [each for each in self.children if each.poll() is None]
        if (self.folder / f"{id_}.done").exists():
            return JobStatus(id_, "finished")
        try:
            lock = os.open(self.folder / f"{id_}.lock", os.O_RDWR)
        except FileNotFoundError:
            return JobStatus(id_, "unknown", "never heard of it")
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return JobStatus(id_, "running")
        finally:
            os.close(lock)
        if (self.folder / f"{id_}.done").exists():  # it ended between two looks
            return JobStatus(id_, "finished")
        return JobStatus(id_, "unknown", "it was killed before it began")

    def stop(self, id_: str) -> None:
        raise NotImplementedError

    def check(self) -> str:
        return "fine"

    def logs(self, id_: str, follow: bool = False) -> Iterator[str]:
        yield from ()


class Told:
    """A launcher that does as a test says: states of drivers by id, nothing runs."""

    def __init__(self) -> None:
        self.states: dict[str, JobStatus] = {}
        self.submitted: list[str] = []
        self.stopped: list[str] = []
        self.error: Exception | None = None
        self.refuses: Exception | None = None

    def submit(self, job: Job) -> None:
        if error := self.error or self.refuses:
            raise error
        if job.id in self.states and self.states[job.id].state in ("pending", "running", "finished"):
            return
        self.submitted.append(job.id)
        self.states[job.id] = JobStatus(job.id, "running")

    def status(self, id_: str) -> JobStatus:
        if self.error:
            raise self.error
        return self.states.get(id_, JobStatus(id_, "unknown", "never heard of it"))

    def stop(self, id_: str) -> None:
        self.stopped.append(id_)
        self.becomes(id_, "stopped")

    def check(self) -> str:
        if self.error:
            raise self.error
        return "fine"

    def becomes(self, id_: str, state: str, why: str = "") -> None:
        self.states[id_] = JobStatus(id_, state, why)
