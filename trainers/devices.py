"""What PyTorch knows of the GPU that a process computes on."""

from __future__ import annotations

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
