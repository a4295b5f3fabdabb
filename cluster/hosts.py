"""The file that `ray up` makes a Ray of plain machines from, as text."""

from __future__ import annotations

from typing import Any

import yaml

from cluster.targets import Target

TOKEN_FILE = "~/.ray/auth_token"


def render(target: Target) -> str:
    """The cluster file: one head, fixed workers, reached by SSH, every connection behind Ray's token."""
    assert target.hosts is not None
    hosts = target.hosts
    auth: dict[str, Any] = {"ssh_user": hosts.user}
    if hosts.key:
        auth["ssh_private_key"] = hosts.key
    before = "".join(f"{line} && " for line in hosts.setup)  # each command has a shell of its own
    start = f"{before}RAY_AUTH_MODE=token ray start --disable-usage-stats"
    made: dict[str, Any] = {
        "cluster_name": target.name,
        "max_workers": len(hosts.workers),
        "provider": {"type": "local", "head_ip": hosts.head, "worker_ips": list(hosts.workers)},
        "auth": auth,
        "file_mounts": {TOKEN_FILE: TOKEN_FILE},
        "setup_commands": [f"{before}{target.python or 'python'} -P -m cluster.cli --version"],
        "head_start_ray_commands": [
            f"{before}ray stop",
            f"{start} --head --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [f"{before}ray stop", f"{start} --address=$RAY_HEAD_IP:6379"],
    }
    if target.image:
        made["docker"] = {
            "image": target.image,
            "container_name": "musweep",
            "run_options": ["--shm-size=8g", f"--volume={target.storage}:{target.storage}"],
        }
    return f"# For: ray up {target.name}.yaml\n{yaml.safe_dump(made, sort_keys=False)}"
