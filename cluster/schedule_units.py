"""What starts a scheduler without anybody, as text to apply: a systemd timer, or a CronJob of Kubernetes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import yaml

from cluster.folders import UserError

_SERVICE = """\
# ~/.config/systemd/user/musweep-scheduler.service
[Unit]
Description=musweep: fire what is due, judge nights, send messages

[Service]
Type=oneshot
WorkingDirectory={folder}
ExecStart={command} scheduler --once
# The sweeps that it starts must outlive it.
KillMode=process
TimeoutStartSec=10min
# Variables that schedules name in --notify and --ping, as CHAT=slack://...; mode 600.
EnvironmentFile=-%h/.config/musweep/environment
"""
_TIMER = """\
# ~/.config/systemd/user/musweep-scheduler.timer
[Unit]
Description=musweep: look every minute what is due

[Timer]
OnCalendar=minutely
AccuracySec=5s
Persistent=true

[Install]
WantedBy=timers.target
"""
_HOW = """\
# systemctl --user daemon-reload && systemctl --user enable --now musweep-scheduler.timer
# loginctl enable-linger   (so that it runs while nobody is logged in)
"""


def systemd(folder: Path) -> str:
    """A unit and its timer, which looks every minute.

    Args:
        folder: where it works.
    """
    command = shlex.join([sys.executable, "-P", "-m", "cluster.cli"]).replace("%", "%%")
    where = str(folder).replace("%", "%%")
    return _SERVICE.format(folder=where, command=command) + "\n" + _TIMER + "\n" + _HOW


def kubernetes(image: str, secret: str, namespace: str = "default", claim: str = "", storage: str = "") -> str:
    """A CronJob that looks every minute.

    Args:
        image: with musweep.
        secret: of the namespace; its keys become variables: MUSWEEP_DATABASE (PostgreSQL, since pods keep nothing),
            and what schedules name in --notify and --ping.
        namespace: where.
        claim: a PersistentVolumeClaim with the sweeps' folders, so that nights can be judged.
        storage: where it is mounted.

    Raises:
        UserError: a claim without a place, or the other way round.
    """
    if bool(claim) != bool(storage):
        raise UserError("render --kubernetes: give --claim and --storage together, the volume and where it is mounted")
    container: dict[str, object] = {
        "name": "scheduler",
        "image": image,
        "command": ["python", "-P", "-m", "cluster.cli", "scheduler", "--once"],
        "envFrom": [{"secretRef": {"name": secret}}],
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod: dict[str, object] = {
        "restartPolicy": "Never",
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    if claim:
        container["volumeMounts"] = [{"name": "shared", "mountPath": storage}]
        pod["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}]
    labels = {"app.kubernetes.io/managed-by": "musweep"}
    made = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "musweep-scheduler", "namespace": namespace, "labels": labels},
        "spec": {
            "schedule": "* * * * *",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 120,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": 600,
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                }
            },
        },
    }
    return yaml.safe_dump(made, sort_keys=False, width=200)
