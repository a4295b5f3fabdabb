"""A trained trial as other programs take it: a state_dict of ordinary PyTorch modules in a file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import torch

from trainers import models, module, own
from trainers.checkpoint import DamagedStateError, unpack
from trainers.config import NetConfig, SeedConfig


def write_state_dict(packed: bytes, number: int, net: NetConfig, path: Path) -> str:
    """Write the state_dict of a packed trial and return the modules it fits, as PyTorch prints them.

    Of residual and recurrent nets these are `models.Residual` and `models.Recurrent`, which say what they compute.
    The file appears whole or not at all; `torch.load(path, weights_only=True)` reads it.

    Raises:
        DamagedStateError: the packed bytes are damaged, or hold another trial.
    """
    state = unpack(packed, {number}).get(number)
    if state is None:
        raise DamagedStateError(f"no trial {number} in it")
    file = io.BytesIO()
    if net.module:
        torch.save(module.to_state_dict(net, SeedConfig(0), state.params), file)
    else:
        torch.save(models.to_state_dict(net, state.params), file)
    _write(file.getvalue(), path)
    return str(module.build(net, SeedConfig(0)) if net.module else models.build(net))


def write_own_state(packed: bytes, number: int, path: Path) -> None:
    """Write the state that a trainer of the user's own gave, as `torch.load(path, weights_only=True)` reads it.

    Raises:
        DamagedStateError: the packed bytes are damaged, or hold another trial.
    """
    state = own.unpack(packed, {number}).get(number)
    if state is None:
        raise DamagedStateError(f"no trial {number} in it")
    _write(state.data, path)


def _write(data: bytes, path: Path) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
