"""One net by itself: its metrics on a part of its task when nothing is chosen any more, and its chances at birth."""

from __future__ import annotations

import torch

from trainers import diagnostics, metrics, models
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, part
from trainers.doomed import NEEDED, Bounds, verdict
from trainers.state import Params, initial_state
from trainers.tasks import Split, Task

_EXAMPLES = 2000  # at a time


def evaluate(task: Task, net: NetConfig, params: Params, split: Split) -> dict[str, float]:
    """Return each metric of the task on all of a split, in float32 on the CPU."""
    module = models.build(net)
    models.set_parameters(module, params)
    whole = part(split, task.info.outputs, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        logits = [module(*whole.arguments(rows)) for rows in torch.split(torch.arange(len(split)), _EXAMPLES)]
        measured = metrics.measure(task.info, net, torch.cat(logits), whole)
    return {name: float(value) for name, value in measured.items()}


def doomed_at_birth(config: TrialConfig, data: Data, bounds: Bounds | None = None) -> str:
    """Return why a trial's net cannot start (`doomed.verdict`), measured as workers do; empty if nothing says so."""
    params = initial_state(config, torch.float64, data=data).params
    found = diagnostics.measure(config.net, params, data.valid.head(diagnostics.EXAMPLES), NEEDED)
    return verdict(found, bounds or Bounds()) or ""
