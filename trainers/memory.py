"""What a worker process and each of its trials take of memory: measured, on the device they train on."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.config import TrialConfig
    from trainers.tasks import Task

_UPDATES = {"cpu": 2, "cuda": 40}  # on a GPU enough for all recordings (`trainers.stack_replay`), which keep memory
_MANY_BYTES = 2**28  # trials of more than this are told apart by two of them
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at their peak. A worker of K trials takes about `process + K * trial`."""

    process: int
    """Without any trial: libraries, data, the device's context."""
    trial: int
    """Each trial of the largest shape."""
    device: int = 0
    """Memory of the GPU that was measured on; 0 on a CPU."""

    def worker(self, trials: int) -> int:
        """A worker of so many trials."""
        return self.process + trials * self.trial

    def fits(self, limit: float) -> int:
        """How many trials a worker of so many bytes can train at once, at least one; on a GPU also the empty places."""
        trials = max(1, int((limit - self.process) // max(1, self.trial)))
        if not self.device:
            return trials
        from trainers.stack import most_in_places

        return most_in_places(trials)


def measure(
    config: TrialConfig,
    task: Task,
    engine: str,
    device: str = "cpu",
    eval_examples: int = 500,
    precision: str = "float32",
) -> Memory:
    """Train one trial and then several in this process and see what more they take.

    Raises:
        OSError: this system does not tell a process's peak (CPU, other than Linux).
    """
    weights = 4 * config.net.parameters * 4
    several = 2 if weights > _MANY_BYTES else 8
    how = (config, task, engine, device, eval_examples, precision)
    one, many = (_peak(*how, trials) for trials in (1, several))
    trial = max((many - one) // (several - 1), weights)
    total = 0
    if device == "cuda":
        import torch

        total = torch.cuda.mem_get_info()[1]
    return Memory(max(0, one - trial), trial, total)


def broken(device: str) -> str:
    """What keeps a device from computing, in words; empty if it does."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        build = "is built without CUDA" if torch.version.cuda is None else "sees no GPU"
        return f"PyTorch {torch.__version__} there {build}"
    try:
        ones = torch.ones(8, 8, device=device)
        return "" if float((ones @ ones).sum()) == 512.0 else f"{device} computes wrongly"
    except RuntimeError as error:
        return str(error).splitlines()[0]


def _peak(
    config: TrialConfig, task: Task, engine: str, device: str, eval_examples: int, precision: str, trials: int
) -> int:
    """Peak bytes of this process on the device while it trains and measures so many trials."""
    from trainers.group import Group

    _forget(device)
    group = Group(task, engine, device=device, precision=precision, eval_examples=eval_examples)
    for number in range(trials):
        lr = config.method.lr * (1 + number)  # equal ones would be trained as one
        group.add(replace(config, number=number, method=replace(config.method, lr=lr)))
    group.advance(dict.fromkeys(range(trials), _UPDATES[device]))
    group.evaluate(range(trials))
    for number in range(trials):
        group.state(number)
    return _highest(device)


def _forget(device: str) -> None:
    """Begin to look for a peak from what is held now."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        _CLEAR.write_text("5")  # resets the peak of the resident set (Linux, proc(5))


def _highest(device: str) -> int:
    """The peak since `_forget`, on a GPU with what its context takes."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        context = max(0, total - free - torch.cuda.memory_reserved())
        return int(torch.cuda.max_memory_reserved() + context)
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
