"""A trained trial as other programs take it: a state_dict of ordinary PyTorch modules in a file."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from trainers import models
from trainers.checkpoint import DamagedStateError, unpack
from trainers.config import NetConfig


def write_state_dict(packed: bytes, number: int, net: NetConfig, path: Path) -> str:
    """Write the state_dict of a packed trial and return the modules it fits, as PyTorch prints them.

    The file appears whole or not at all; `torch.load(path, weights_only=True)` reads it.

    Raises:
        DamagedStateError: the packed bytes are damaged, or hold another trial.
    """
    state = unpack(packed, {number}).get(number)
    if state is None:
        raise DamagedStateError(f"no trial {number} in it")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(models.to_state_dict(net, state.params), beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return str(models.build(net))
