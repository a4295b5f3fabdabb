"""Sweeps as jobs of Slurm: what is known of one lies in its folder, which login and compute nodes share.

`logs/slurm.json` names the job; `logs/stop` asks its driver to leave; `logs/driver.exit` is the driver's exit code.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import slurm
from cluster.launch import ACTIVE, Job, JobStatus, LaunchError
from cluster.launch_local import LocalLauncher, _closed

if TYPE_CHECKING:
    from cluster.targets import Target

_PATIENCE_S = 30.0
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
STOP_S = 300.0


class SlurmLauncher(LocalLauncher):
    """Submits jobs by `sbatch` and follows them by `squeue`."""

    poll_s = 2.0

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if target.slurm is None:
            raise LaunchError(f"target {target.name}: kind slurm needs a section slurm, as in slurm: {{nodes: 1}}")

    def render(self, job: Job) -> str:
        """The batch script."""
        return slurm.render(job, self.target)

    def _start(self, job: Job, logs: Path) -> None:
        if job.package.is_file():
            shutil.copyfile(job.package, Path(job.folder) / slurm.PACKAGE)
        (logs / "stop").unlink(missing_ok=True)
        script = logs / "job.sh"
        script.write_text(self.render(job))
        answer = self._slurm("sbatch", "--parsable", str(script)).strip().split(";")[0]
        if not answer.isdecimal():
            raise LaunchError(f"target {self.target.name}: sbatch gave no job number but {answer[:100]!r}")
        (logs / "slurm.json").write_text(json.dumps({"job": int(answer)}))

    def status(self, id_: str) -> JobStatus:
        """What Slurm says while it knows the job, then what the driver left behind."""
        logs, folder = self._logs(id_), self._folder(id_)
        number = _number(logs)
        if number is None:
            return JobStatus(id_, "unknown", f"nothing of it was submitted to Slurm from {folder}")
        said = self._queue(number)
        if said is not None:
            state, reason = said
            if state in _WAITING:
                return JobStatus(id_, "pending", f"Slurm's job {number} waits: {_words(reason)}")
            if state in _RUNNING and not (folder / "journal.jsonl").exists():
                return JobStatus(id_, "pending", f"Slurm's job {number} runs, its driver is starting")
            if state in _RUNNING:
                return JobStatus(id_, "running", f"Slurm's job {number}")
        return self._ended(id_, logs, _closed(folder))

    def _ended(self, id_: str, logs: Path, closed: str | None) -> JobStatus:
        told = super()._ended(id_, logs, closed)
        if told.state == "failed" and (logs / "stop").exists():
            return JobStatus(id_, "stopped", f"go on with it: musweep resume {id_} --to {self.target.name}")
        return told

    def stop(self, id_: str) -> None:
        """Ask the driver to leave; a job that has not begun is cancelled."""
        logs, known = self._logs(id_), self.status(id_)
        number = _number(logs)
        if number is None:
            raise LaunchError(f"target {self.target.name} does not know {id_}: {known.why}")
        if known.state not in ACTIVE:
            return
        (logs / "stop").touch()
        if known.state == "pending":
            self._slurm("scancel", str(number))
        limit = time.monotonic() + STOP_S
        while self.status(id_).state in ACTIVE:
            if time.monotonic() > limit:
                raise LaunchError(f"{id_}: its driver has not left in {STOP_S:.0f} s; end it with: scancel {number}")
            time.sleep(self.poll_s)

    def check(self) -> str:
        """Say whether Slurm's commands are here and storage can be written."""
        version = self._slurm("sinfo", "--version").strip()
        return f"{version}; {super().check().removeprefix('this host, ')}"

    def list(self) -> list[JobStatus]:
        """The sweeps of the storage folder that were submitted to Slurm."""
        storage = self._folder("x").parent
        found = sorted(storage.glob("*/logs/slurm.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [self.status(path.parents[1].name) for path in found]

    def _queue(self, number: int) -> tuple[str, str] | None:
        """State and reason of a job; None once Slurm has forgotten it or it has ended."""
        try:
            said = self._slurm("squeue", "--noheader", f"--jobs={number}", "--states=all", "--format=%T|%r").strip()
        except LaunchError as error:
            if "Invalid job id" in str(error):
                return None
            raise
        if not said:
            return None
        state, _, reason = said.splitlines()[0].partition("|")
        return state.strip(), reason.strip()

    def _slurm(self, *words: str) -> str:
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        except FileNotFoundError:
            raise LaunchError(
                f"target {self.target.name}: no {words[0]} here; submit from a login node of that cluster"
            ) from None
        except subprocess.TimeoutExpired:
            raise LaunchError(f"target {self.target.name}: {words[0]} gives no answer in {_PATIENCE_S:.0f} s") from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
            raise LaunchError(f"target {self.target.name}: {words[0]}: {said[-1]}")
        return done.stdout


def _number(logs: Path) -> int | None:
    try:
        return int(json.loads((logs / "slurm.json").read_text())["job"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _words(reason: str) -> str:
    """Slurm's CamelCase reasons as words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reason).lower() or "Slurm does not say for what"
