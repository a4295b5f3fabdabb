"""What PyTorch knows of the GPU that a process computes on."""

from __future__ import annotations

import platform
import subprocess
import time

import torch


def uuid(device: str) -> str | None:
    """The GPU's own name, `GPU-...`, whatever number it has in this process; None for a CPU."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    found = str(getattr(torch.cuda.get_device_properties(torch.device(device)), "uuid", ""))
    return found if not found or found.startswith(("GPU-", "MIG-")) else f"GPU-{found}"


def memory(device: str) -> tuple[int, int, int]:
    """Bytes that this process has reserved on a GPU, that all processes use of it, and that it has."""
    where = torch.device(device)
    free, total = torch.cuda.mem_get_info(where)
    return torch.cuda.memory_reserved(where), total - free, total


def keep_to(device: str, share: float) -> None:
    """Let this process have no more than its share of a GPU's memory: who asks for more has its own error, not others'.

    `share` in (0, 1); 1 or more is all of it, and a CPU has nothing of the kind.
    """
    if device.startswith("cuda") and 0 < share < 1:
        torch.cuda.set_per_process_memory_fraction(share, torch.device(device).index)


def described(device: str) -> dict[str, str | None]:
    """What a measurement was made on and when, in words; nothing that names a machine or a person."""
    found: dict[str, str | None] = {
        "device": f"CPU ({platform.machine()}), {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "cuda": None,
        "driver": None,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    if device.startswith("cuda"):
        found |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, "driver": _driver()}
    return found


def _driver() -> str | None:
    """The version of the GPU's driver, if its own program is there to say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return told.split("\n", 1)[0].strip() or None
