"""What a sweep ran on: package versions, git state and machine, stored with every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PACKAGES = ("musweep", "torch", "numpy", "ray", "optuna", "mlflow", "pyarrow", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions by package name, with `python`, `platform`, `cpu`, `cores` and the code's `git` commit, if any."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpu": _cpu()}
    found["cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["git"] = _git()
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def _git() -> str:
    """`COMMIT` or `COMMIT+changes` of the checkout that musweep runs from; empty when it is none."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
