"""What this worker process uses, of the machine and of its own GPU."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

Usage = dict[str, Any]


def usage(device: str = "cpu") -> Usage:
    """`rss_bytes` and `cpu_s` of this process; with a GPU also its `gpu` (UUID) and what is used of it.

    `gpu_bytes` is what this process has allocated, `gpu_used_bytes` of `gpu_total_bytes` what all on that GPU have, and
    `gpu_busy` the share of the last second or so in which it computed. What cannot be told is left out.

    Args:
        device: where the trials train, as PyTorch names it.
    """
    import psutil

    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        found: Usage = {"rss_bytes": process.memory_info().rss, "cpu_s": round(times.user + times.system, 2)}
    if device.startswith("cuda"):
        found |= _gpu(device)
    return found


def used_s() -> float:
    """Seconds of processors that this process and its children have used; loading data may be the children's work."""
    import psutil

    total = 0.0
    process = psutil.Process()
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def born() -> float:
    """When this process was started, in seconds since 1970 by its own system's account."""
    import psutil

    return float(psutil.Process().create_time())


def _gpu(device: str) -> Usage:
    from trainers.devices import memory, uuid

    named = uuid(device)
    if named is None:
        return {}
    allocated, used, total = memory(device)
    found = {"gpu": named, "gpu_bytes": allocated, "gpu_used_bytes": used, "gpu_total_bytes": total}
    with contextlib.suppress(Exception):  # NVML has errors of its own, and may be of another version than the driver
        nvml = _nvml()
        if nvml is not None:
            handle = nvml.nvmlDeviceGetHandleByUUID(named)
            found["gpu_busy"] = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    return found


@cache
def _nvml() -> Any:
    """The library of NVIDIA's management interface, ready; None without it."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, no driver, no permission
        return None
    return pynvml
