"""Sweeps as RayJobs of KubeRay, through `kubectl`: its context and its rights are the user's own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from cluster import k8s
from cluster.launch import ACTIVE, Job, JobStatus, LaunchError, Unreachable, plain

if TYPE_CHECKING:
    from cluster.targets import Target

_PATIENCE_S = 60.0
STOP_S = 300.0
_STATES = {"SUCCEEDED": "finished", "RUNNING": "running", "FAILED": "failed", "STOPPED": "stopped"}
_ABSENT = ("NotFound", "not found")
_SILENT = ("refused", "timed out", "no such host", "Unable to connect", "i/o timeout")


class K8sLauncher:
    """Applies manifests and follows them."""

    poll_s = 2.0

    def __init__(self, target: Target) -> None:
        if target.k8s is None:
            raise LaunchError(f"target {target.name}: kind k8s needs a section k8s, as in k8s: {{namespace: default}}")
        self.target, self._section = target, target.k8s

    def submit(self, job: Job) -> None:
        """Apply the manifests; a job that has failed or was stopped is made anew and goes on."""
        known = self.status(job.id)
        if known.state in (*ACTIVE, "finished"):
            return
        if known.state != "unknown":
            self._kubectl("delete", "rayjob", k8s.name_of(job.id), "--wait=true")
        self._kubectl("apply", "-f", "-", given=self.render(job))

    def render(self, job: Job) -> str:
        """The manifests."""
        return k8s.text(k8s.rayjob(job, self.target))

    def status(self, id_: str) -> JobStatus:
        """What the RayJob says."""
        found = self._rayjob(id_)
        if found is None:
            return JobStatus(id_, "unknown", f"no RayJob {k8s.name_of(id_)} in namespace {self._section.namespace}")
        return _told(id_, found, self.target.name)

    def logs(self, id_: str, follow: bool = False) -> Iterator[str]:
        """Lines of the pod that submits the driver and follows its output."""
        self._known(id_)
        words = self._words("logs", f"job/{k8s.name_of(id_)}", *(["--follow"] if follow else []))
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                yield plain(line.rstrip("\n"))

    def stop(self, id_: str) -> None:
        """Leave a word for the driver in the sweep's folder, wait, then let the cluster go."""
        found = self._known(id_)
        if self.status(id_).state not in ACTIVE:
            return
        folder, cluster = self.target.folder(id_), str((found.get("status") or {}).get("rayClusterName") or "")
        if cluster and "://" not in folder:
            self._ask_to_leave(cluster, folder)
            limit = time.monotonic() + STOP_S
            while self.status(id_).state == "running" and time.monotonic() < limit:
                time.sleep(self.poll_s)
        patch = json.dumps({"spec": {"suspend": True}})
        self._kubectl("patch", "rayjob", k8s.name_of(id_), "--type=merge", f"--patch={patch}")

    def _ask_to_leave(self, cluster: str, folder: str) -> None:
        selected = f"--selector=ray.io/cluster={cluster},ray.io/node-type=head"
        pods = json.loads(self._kubectl("get", "pods", selected, "--output=json"))["items"]
        if pods:
            word = str(PurePosixPath(folder) / "logs" / "stop")
            self._kubectl("exec", pods[0]["metadata"]["name"], "--container=ray-head", "--", "touch", word)

    def resume(self, id_: str) -> None:
        """Let a suspended job go on; one that failed is to be submitted again, since what was sent goes with it."""
        found = self._known(id_)
        if self.status(id_).state in (*ACTIVE, "finished"):
            return
        if not (found.get("spec") or {}).get("suspend"):
            raise LaunchError(f"{id_}: it has ended by itself; submit its spec again, and it goes on")
        patch = json.dumps({"spec": {"suspend": False}})
        self._kubectl("patch", "rayjob", k8s.name_of(id_), "--type=merge", f"--patch={patch}")

    def digest(self, id_: str) -> str:  # noqa: ARG002 - of this contract
        """A ConfigMap says nothing of it."""
        return ""

    def check(self) -> str:
        """Say whether the cluster answers and knows RayJobs."""
        version = json.loads(self._kubectl("version", "--output=json")).get("serverVersion", {}).get("gitVersion", "?")
        try:
            self._kubectl("get", "crd", "rayjobs.ray.io", "--output=name")
        except LaunchError as error:
            if any(word in str(error) for word in _ABSENT):
                raise LaunchError(f"target {self.target.name}: no RayJobs there; install KubeRay's operator") from None
        return f"Kubernetes {version}, namespace {self._section.namespace}"

    def _known(self, id_: str) -> dict[str, Any]:
        found = self._rayjob(id_)
        if found is None:
            raise LaunchError(
                f"target {self.target.name} does not know {id_}; see: musweep ls --remote {self.target.name}"
            )
        return found

    def _rayjob(self, id_: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(
                self._kubectl("get", "rayjob", k8s.name_of(id_), "--output=json"),
            )
        except LaunchError as error:
            if any(word in str(error) for word in _ABSENT):
                return None
            raise
        return found

    def _words(self, *words: str) -> list[str]:
        context = [f"--context={self._section.context}"] if self._section.context else []
        return ["kubectl", *context, f"--namespace={self._section.namespace}", *words]

    def _kubectl(self, *words: str, given: str | None = None) -> str:
        try:
            done = subprocess.run(
                self._words(*words), input=given, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
            )
        except FileNotFoundError:
            raise LaunchError(
                f"target {self.target.name}: no kubectl here; install it, or submit from elsewhere"
            ) from None
        except subprocess.TimeoutExpired:
            raise Unreachable(f"target {self.target.name}: kubectl gives no answer in {_PATIENCE_S:.0f} s") from None
        if done.returncode:
            said = (done.stderr.strip() or f"kubectl ended with {done.returncode}").splitlines()[-1]
            kind = Unreachable if any(word in said for word in _SILENT) else LaunchError
            raise kind(f"target {self.target.name}: {said}")
        return done.stdout

    def list(self) -> list[JobStatus]:
        """The RayJobs that musweep made in the namespace."""
        wanted = "--selector=app.kubernetes.io/managed-by=musweep"
        items = json.loads(self._kubectl("get", "rayjobs", wanted, "--output=json"))["items"]
        newest = sorted(items, key=lambda item: str(item["metadata"].get("creationTimestamp")), reverse=True)
        return [_told(item["metadata"]["name"], item, self.target.name) for item in newest]


def _told(id_: str, found: dict[str, Any], target: str) -> JobStatus:
    """KubeRay's word on a RayJob in ours."""
    status, suspended = found.get("status") or {}, bool((found.get("spec") or {}).get("suspend"))
    state, deployment = str(status.get("jobStatus") or ""), str(status.get("jobDeploymentStatus") or "")
    words = " ".join(str(status.get("message") or status.get("reason") or "").split())
    if state == "SUCCEEDED":
        return JobStatus(id_, "finished")
    if suspended or state == "STOPPED":
        return JobStatus(id_, "stopped", f"go on with it: musweep resume {id_} --to {target}")
    if deployment == "Failed" or (state == "FAILED" and deployment not in ("Retrying", "Initializing", "Waiting")):
        return JobStatus(id_, "failed", words or "KubeRay does not say why; see its logs")
    if state == "RUNNING":
        return JobStatus(id_, "running")
    return JobStatus(id_, "pending", words or f"KubeRay is {deployment.lower() or 'about to look at it'}")
