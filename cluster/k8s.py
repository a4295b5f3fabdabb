"""Manifests of a sweep for Kubernetes, as plain data and text: a RayJob of KubeRay, a CronJob, what was sent."""

from __future__ import annotations

import base64
import importlib.metadata
import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from cluster.launch import Job, LaunchError, driver_command
from cluster.targets import Target, megabytes

MOST_SENT = 700_000
"""Bytes of a package: a ConfigMap holds a mebibyte, in base64."""
MOST_NAME = 47
"""Characters of a RayJob's name; KubeRay appends to it."""
SENT, SHARED = "/musweep", "sweeps"
_GRACE_S = 120
_DONE_S = 3600


def name_of(id_: str) -> str:
    """A sweep's id as Kubernetes takes names; the hash at its end stays, so that names stay different."""
    front, _, digest = id_.rpartition("-")
    plain = re.sub(r"[^a-z0-9]+", "-", front.lower()).strip("-") or "sweep"
    return f"{plain[: MOST_NAME - len(digest) - 1].rstrip('-')}-{digest.lower()}"


def rayjob(job: Job, target: Target) -> list[dict[str, Any]]:
    """The ConfigMap of what is sent, and the RayJob.

    Should its cluster die, KubeRay makes another and runs the entrypoint again, which goes on where the folder ends.

    Raises:
        LaunchError: too much is sent, or the target names no image.
    """
    name, labels = name_of(job.id), _labels(job.id, target)
    there = target.resources
    workers = there.workers or 1
    need = {
        "cpu": (there.cpus or workers) / workers,
        "gpu": (there.gpus or 0.0) / workers,
        "memory": there.memory and f"{megabytes(there.memory, workers)}M",
    }
    words = driver_command(job, f"{SENT}/package.zip", target.python or "python")
    assert target.k8s is not None
    spec: dict[str, Any] = {
        "entrypoint": shlex.join(words),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": _DONE_S,
        "backoffLimit": 5,
        "rayClusterSpec": {
            "rayVersion": importlib.metadata.version("ray"),
            "authOptions": {"mode": "token"},
            "headGroupSpec": {
                # Drivers run on the head, groups do not: what trains is on the workers.
                "rayStartParams": {"num-cpus": "0", "num-gpus": "0"},
                "template": _pod(job, target, {"cpu": 2.0, "gpu": 0.0, "memory": "8G"}, "ray-head"),
            },
            "workerGroupSpecs": [
                {
                    "groupName": "groups",
                    "replicas": 0 if target.k8s.autoscale else workers,
                    "minReplicas": 0 if target.k8s.autoscale else workers,
                    "maxReplicas": workers,
                    "rayStartParams": {},
                    "template": _pod(job, target, need, "ray-worker"),
                }
            ],
        },
    }
    if target.k8s.autoscale:
        spec["rayClusterSpec"]["enableInTreeAutoscaling"] = True
    made = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": _metadata(name, labels, target), "spec": spec}
    return [_sent(name, job, labels, target), made]


def cronjob(job: Job, target: Target, schedule: str, zone: str = "Etc/UTC") -> list[dict[str, Any]]:
    """The ConfigMap of what is sent, and a CronJob that runs the sweep anew each time, in one pod with its own Ray.

    Args:
        job: its `folder` is where the folders of the firings lie, each by the name of its Kubernetes Job.
        target: where.
        schedule: five fields of cron.
        zone: the clock they are read by, as in Europe/Paris.

    Raises:
        LaunchError: too much is sent, or the target names no image.
    """
    name, labels, there = name_of(job.id), _labels(job.id, target), target.resources
    storage = job.folder.rstrip("/")
    pod = _pod(job, target, {"cpu": there.cpus or 1.0, "gpu": there.gpus or 0.0, "memory": there.memory}, "driver")
    container = pod["spec"]["containers"][0]
    # Set by Kubernetes on the pods of a Job; each firing has a folder by that name.
    field = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    container["env"] = [*container.get("env", []), {"name": "FIRING", "valueFrom": field}]
    each = Job(job.id, job.package, f"{storage}/$(FIRING)", job.env, job.secrets)
    container["command"] = driver_command(each, f"{SENT}/package.zip", target.python or "python")
    pod["spec"]["restartPolicy"] = "OnFailure"
    spec = {
        "schedule": schedule,
        "timeZone": zone,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": labels}, "spec": {"backoffLimit": 5, "template": pod}},
    }
    made = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": _metadata(name, labels, target), "spec": spec}
    return [_sent(name, job, labels, target), made]


def text(documents: list[dict[str, Any]]) -> str:
    """Documents as `kubectl apply -f -` takes them."""
    return str(yaml.safe_dump_all(documents, sort_keys=False, width=200))


def _sent(name: str, job: Job, labels: Mapping[str, str], target: Target) -> dict[str, Any]:
    packed = job.package.read_bytes() if job.package.is_file() else b""  # none yet where a job is only shown
    size = len(packed)
    if size > MOST_SENT:
        raise LaunchError(
            f"target {target.name}: the package has {size / 1e6:.2f} MB, a ConfigMap takes {MOST_SENT / 1e6:.1f}: "
            "have your code in the image, or name what is not needed in .musweepignore"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(name, labels, target),
        "binaryData": {"package.zip": base64.b64encode(packed).decode()},
    }


def _metadata(name: str, labels: Mapping[str, str], target: Target) -> dict[str, Any]:
    assert target.k8s is not None
    return {"name": name, "namespace": target.k8s.namespace, "labels": dict(labels)}


def _labels(id_: str, target: Target) -> dict[str, str]:
    assert target.k8s is not None
    labels = {"app.kubernetes.io/managed-by": "musweep", "musweep/sweep": name_of(id_)}
    return labels | ({"kueue.x-k8s.io/queue-name": target.k8s.kueue} if target.k8s.kueue else {})


def _pod(job: Job, target: Target, need: Mapping[str, Any], container: str) -> dict[str, Any]:
    """A pod's template: no privileges, what was sent under /musweep, storage where the target says."""
    assert target.k8s is not None
    if not target.image:
        raise LaunchError(f"target {target.name}: kind k8s needs an image, as the project's Dockerfile makes one")
    asked: dict[str, Any] = {"cpu": _cpu(need["cpu"])}
    asked |= {"memory": need["memory"]} if need["memory"] else {}
    asked |= {"nvidia.com/gpu": str(max(1, round(need["gpu"])))} if need["gpu"] else {}
    mounts = [{"name": "sent", "mountPath": SENT, "readOnly": True}]
    volumes: list[dict[str, Any]] = [
        {"name": "sent", "configMap": {"name": name_of(job.id)}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    if target.k8s.claim:
        volumes.append({"name": SHARED, "persistentVolumeClaim": {"claimName": target.k8s.claim}})
        mounts.append({"name": SHARED, "mountPath": target.storage})
    made: dict[str, Any] = {
        "name": container,
        "image": target.image,
        "resources": {"requests": asked, "limits": dict(asked)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    if job.env:
        made["env"] = [{"name": name, "value": value} for name, value in sorted(job.env.items())]
    if target.k8s.secret:
        made["envFrom"] = [{"secretRef": {"name": target.k8s.secret}}]
    spec: dict[str, Any] = {
        "containers": [made],
        "volumes": volumes,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": _GRACE_S,
    }
    if target.k8s.service_account:
        spec["serviceAccountName"] = target.k8s.service_account
    return {"metadata": {"labels": {"musweep/sweep": name_of(job.id)}}, "spec": spec}


def _cpu(cores: float) -> str:
    return f"{cores:g}" if cores == int(cores) else f"{round(1000 * cores)}m"
