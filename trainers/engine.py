"""What every engine offers, and the one thread it must run on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from trainers.config import NetConfig, TrialConfig
from trainers.data import Part
from trainers.state import TrialState


class Engine(Protocol):
    """Trains trials of one net, batch size and family of methods, each numbered, each with its own update counter.

    An update is diverged when the sum of its output delta (the loss's gradient with respect to the logits) is not
    finite. A diverged trial is trained no further or on garbage, as the engine likes: it never disturbs another.
    """

    name: str

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:
        """Take a trial in, from `state` (copied) or from its first update. Raises ValueError if it does not fit."""

    def remove(self, number: int) -> None:
        """Forget a trial. Raises KeyError when there is none of that number."""

    def numbers(self) -> list[int]:
        """Return the numbers of the trials held."""

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:
        """Train each named trial to its update; returns each one's share of wall seconds."""

    def state(self, number: int) -> TrialState:
        """Copy a trial's state out."""

    def update(self, number: int) -> int:
        """Return how many updates a trial has behind it."""

    def diverged_at(self, number: int) -> int | None:
        """Return the first update that diverged, None while there is none."""

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:
        """Return each metric of the named trials on a part, [len(numbers)], at theta."""


def one_thread() -> None:
    """Set torch to one thread and flush denormals, as every worker must (more threads than cores collapse).

    Raises RuntimeError when either did not take.
    """
    torch.set_num_threads(1)
    if torch.get_num_threads() != 1:
        raise RuntimeError(f"torch keeps {torch.get_num_threads()} threads: unset OMP_NUM_THREADS and MKL_NUM_THREADS")
    flush_denormals()
    tiny = torch.finfo(torch.float32).tiny
    if float(torch.full((1,), tiny) * 0.25) != 0:
        raise RuntimeError("denormal numbers are not flushed to zero on this machine: engines would differ in speed")


def flush_denormals() -> None:
    """Flush denormals on the calling thread: the processor keeps this setting by thread, so engines repeat it."""
    torch.set_flush_denormal(True)


def is_narrow(outputs: int) -> bool:
    """Whether a layer is kept features first, [O, I] in memory.

    Products whose last dimension is short and no multiple of a vector's 8 lanes take up to four times as long, and so
    does the softmax along it.
    """
    return outputs < 32 and outputs % 8 != 0


def check_family(net: NetConfig, family: str) -> None:
    """Raise ValueError unless methods of a family (`MethodConfig.family`) can train a net."""
    if family == "hf":
        raise ValueError("method hf: has an engine of its own")
    if family == "diagonal" and net.steps:
        raise ValueError("method diagonal: trains feed-forward and residual nets; of a recurrent one take another")


def check_fits(
    config: TrialConfig, net: object, batch: int, held: Mapping[int, object], family: str = "momentum"
) -> None:
    """Raise ValueError unless a trial may join an engine of that net, batch size and family of methods."""
    if config.net != net or config.batch != batch:
        raise ValueError(f"trial {config.number}: net or batch {config.batch} is not this engine's")
    if config.method.family != family:
        raise ValueError(f"trial {config.number}: method {config.method.kind} is not of this engine's family, {family}")
    if config.number in held:
        raise ValueError(f"trial {config.number} is already here")
