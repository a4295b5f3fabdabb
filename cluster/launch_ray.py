"""Sweeps on a running Ray cluster, as jobs of Ray's: the driver runs on its head, its groups wherever there is room.

Ray keeps a submission id for ever, so a job that goes on is another one, ID-2, ID-3; the latest is what counts.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.launch import ACTIVE, Job, JobStatus, LaunchError, driver_command, job_of, last_words, plain
from cluster.ray_jobs import MOST_UPLOAD, RayJobs

if TYPE_CHECKING:
    from cluster.targets import Target

BUSY_S = 60.0
"""How long a head that is busy, or has only just started, is asked again."""
LEAVE_S = 60
"""How long Ray lets a driver write its checkpoints before it kills it."""
_STATES = {
    "PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "finished", "FAILED": "failed", "STOPPED": "stopped",
}  # fmt: skip
_ID_LIKE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OURS = re.compile(r"No module named '(cluster|sweeps|trainers|dashboards|typer|pydantic|yaml)\b")
_ID, _FOLDER, _DIGEST, _ATTEMPT = "musweep_id", "musweep_folder", "musweep_digest", "musweep_attempt"


class RayLauncher:
    """Starts drivers through Ray's Jobs API."""

    poll_s = 1.0

    def __init__(self, target: Target) -> None:
        self.target = target
        self.jobs = RayJobs(target)

    def submit(self, job: Job) -> None:
        """Send the package and have a job of it, unless one is there that has not failed or been stopped."""
        self.jobs.versions()
        latest = self._latest(job.id)
        if latest is not None and _state(latest) in (*ACTIVE, "finished"):
            return
        self._send(job)
        self._post(self._body(job, 1 + _attempt(latest)))

    def _send(self, job: Job) -> None:
        """Have the cluster know the package."""
        path = f"/api/packages/gcs/{_package(job.digest)}"
        if self.jobs.ask("GET", path, missing_ok=True) is not None:
            return
        size = job.package.stat().st_size
        if size > MOST_UPLOAD:
            raise LaunchError(
                f"target {self.target.name}: the package has {size / 1e6:.0f} MB when packed, Ray's dashboard takes "
                f"{MOST_UPLOAD / 1e6:.0f}: name what is not needed in .musweepignore"
            )
        self.jobs.ask("PUT", path, data=job.package.read_bytes())

    def _body(self, job: Job, attempt: int) -> dict[str, Any]:
        """What Ray is asked."""
        words = driver_command(job, "." if job.digest else "", self.target.python or "python")
        runtime: dict[str, Any] = {"env_vars": {**job.env, "RAY_JOB_STOP_WAIT_TIME_S": str(LEAVE_S)}}
        if job.digest:
            runtime["working_dir"] = f"gcs://{_package(job.digest)}"
        metadata = {_ID: job.id, _FOLDER: job.folder, _DIGEST: job.digest, _ATTEMPT: str(attempt)}
        return {
            "submission_id": job.id if attempt == 1 else f"{job.id}-{attempt}",
            "entrypoint": f"exec {shlex.join(words)}",  # no shell stays between Ray's signal and the driver
            "runtime_env": runtime,
            "metadata": metadata,
        }

    def _post(self, body: dict[str, Any]) -> None:
        """Have Ray start a job; one of the same id that somebody else has just started will do."""
        limit = time.monotonic() + BUSY_S
        while True:
            try:
                self.jobs.ask("POST", "/api/jobs/", json=body)
                return
            except LaunchError as error:
                if "already exists" in str(error):
                    return
                if "try again later" not in str(error) or time.monotonic() > limit:
                    raise
            time.sleep(1.0)

    def render(self, job: Job) -> str:
        """The body of the request, as JSON."""
        import json

        return json.dumps(self._body(job, 1), indent=2)

    def status(self, id_: str) -> JobStatus:
        """What Ray says of the latest job of a sweep."""
        latest = self._latest(id_)
        if latest is None:
            known = f"the cluster at {self.target.url} has no job of this id"
            again = f"; has its head been restarted? go on with it: musweep resume {id_} --to {self.target.name}"
            return JobStatus(id_, "unknown", known + (again if self._lies_here(id_) else ""))
        told, folder = _told(id_, latest, self.target.name), latest["metadata"].get(_FOLDER, "")
        if folder in ("", self.target.folder(id_)):
            return told
        elsewhere = f"it lies in {folder}, not in the storage of target {self.target.name}"
        return replace(told, why="; ".join(filter(None, [told.why, elsewhere])))

    def logs(self, id_: str, follow: bool = False) -> Iterator[str]:
        """The lines of the latest job's log."""
        shown, name = 0, self._known(id_)["submission_id"]
        while True:
            began = time.monotonic()
            over = not follow or _state(self.jobs.ask("GET", f"/api/jobs/{name}")) not in ACTIVE
            text = str((self.jobs.ask("GET", f"/api/jobs/{name}/logs", missing_ok=True) or {}).get("logs", ""))
            lines = text.split("\n")
            whole = len(lines) if over and lines[-1] else len(lines) - 1  # the last one may not be all there yet
            for line in lines[shown:whole]:
                yield plain(line)
            shown = max(shown, whole)
            if over:
                return
            time.sleep(max(self.poll_s, 10 * (time.monotonic() - began)))  # a long log costs a tenth of the time

    def stop(self, id_: str) -> None:
        """Have Ray ask the driver to leave, and wait until it has."""
        latest = self._known(id_)
        if _state(latest) not in ACTIVE:
            return
        name = latest["submission_id"]
        self.jobs.ask("POST", f"/api/jobs/{name}/stop")
        limit = time.monotonic() + LEAVE_S + 30
        while _state(self.jobs.ask("GET", f"/api/jobs/{name}")) in ACTIVE:
            if time.monotonic() > limit:
                raise LaunchError(f"{id_}: its driver has not left in {LEAVE_S + 30} s; see: musweep logs {id_}")
            time.sleep(0.3)

    def resume(self, id_: str) -> None:
        """Have another job go on in the sweep's folder, with what was sent if the cluster still has it."""
        self.jobs.versions()
        latest = self._latest(id_)
        if latest is None and not self._lies_here(id_):
            raise LaunchError(f"{self._never_heard(id_)}; where its head was restarted, submit the spec again")
        if latest is not None and _state(latest) in (*ACTIVE, "finished"):
            return
        metadata = (latest or {}).get("metadata") or {}
        digest = metadata.get(_DIGEST, "")
        if digest and self.jobs.ask("GET", f"/api/packages/gcs/{_package(digest)}", missing_ok=True) is None:
            digest = ""
        job = job_of(self.target, id_, Path(), metadata.get(_FOLDER, ""), digest)
        self._post(self._body(job, 1 + _attempt(latest)))

    def check(self) -> str:
        """Say which Ray answers."""
        there, _ = self.jobs.versions()
        jobs = self.list()
        busy = sum(job.state in ACTIVE for job in jobs)
        return f"Ray {there} at {self.target.url}, {len(jobs)} sweeps, {busy} of them active"

    def digest(self, id_: str) -> str:
        """Of the package that the latest job of a sweep was sent with; empty if it has none."""
        latest = self._latest(id_)
        return str(((latest or {}).get("metadata") or {}).get(_DIGEST, ""))

    def _all(self) -> list[dict[str, Any]]:
        told = self.jobs.ask("GET", "/api/jobs/")
        if not isinstance(told, list):
            raise LaunchError(f"target {self.target.name}: {self.target.url} answers, but is no Ray dashboard")
        return [job for job in told if (job.get("metadata") or {}).get(_ID) and job.get("submission_id")]

    def _latest(self, id_: str) -> dict[str, Any] | None:
        found = [job for job in self._all() if job["metadata"][_ID] == id_]
        return max(found, key=_attempt) if found else None

    def _known(self, id_: str) -> dict[str, Any]:
        latest = self._latest(id_)
        if latest is None:
            raise LaunchError(f"{self._never_heard(id_)}; see: musweep ls --remote {self.target.name}")
        return latest

    def _never_heard(self, id_: str) -> str:
        return f"target {self.target.name} does not know {id_}"

    def _lies_here(self, id_: str) -> bool:
        """Whether the sweep's folder is seen from here; its spec and code are all that a driver needs to go on."""
        from cluster.folders import is_sweep

        folder = self.target.folder(id_)
        return _ID_LIKE.fullmatch(id_) is not None and "://" not in folder and is_sweep(Path(folder))

    def list(self) -> list[JobStatus]:
        """The latest job of every sweep."""
        latest: dict[str, dict[str, Any]] = {}
        for job in self._all():
            id_ = job["metadata"][_ID]
            if id_ not in latest or _attempt(job) > _attempt(latest[id_]):
                latest[id_] = job
        newest = sorted(latest.items(), key=lambda item: item[1].get("start_time") or 0, reverse=True)
        return [_told(id_, job, self.target.name) for id_, job in newest]


def _package(digest: str) -> str:
    """The name under which Ray keeps a package of these contents."""
    return f"_ray_pkg_{digest[:32]}.zip"


def _attempt(job: dict[str, Any] | None) -> int:
    told = ((job or {}).get("metadata") or {}).get(_ATTEMPT, "0")
    return int(told) if str(told).isdecimal() else 0


def _state(job: dict[str, Any]) -> str:
    return _STATES.get(str(job.get("status")), "unknown")


def _told(id_: str, job: dict[str, Any], target: str) -> JobStatus:
    """Ray's word on a job in ours."""
    state, message = _state(job), str(job.get("message") or "")
    if state == "pending":
        return JobStatus(id_, state, " ".join(message.split()).rstrip(".") or "Ray has not started its driver yet")
    if state == "stopped":
        return JobStatus(id_, state, f"go on with it: musweep resume {id_} --to {target}")
    if state != "failed":
        return JobStatus(id_, state)
    code = job.get("driver_exit_code")
    if code == 130:  # by a signal that was not Ray's
        return JobStatus(id_, "stopped", f"go on with it: musweep resume {id_} --to {target}")
    words = last_words(message)
    if _OURS.search(words):
        words += "; musweep must be installed on the cluster, or `python` of the target name the one that has it"
    return JobStatus(id_, state, f"exit code {code}: {words}" if code else words or "Ray does not say why")
