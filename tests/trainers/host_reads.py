"""Counts how often the host reads a tensor's value: each time it would wait, were the tensor on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_OPS = torch.ops.aten
# What has to know values to answer: `item` and all that is made of it, and results whose shape depends on values.
_READERS = {_OPS._local_scalar_dense, _OPS.nonzero, _OPS.masked_select, _OPS.equal, _OPS.is_nonzero, _OPS._unique2}


class Reads(TorchDispatchMode):
    """`count` is how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = args[1] if func.overloadpacket is _OPS.index else ()
        self.count += func.overloadpacket in _READERS
        self.count += any(isinstance(index, Tensor) and index.dtype == torch.bool for index in chosen)
        return func(*args, **(kwargs or {}))


def _counting(plain: Callable[[Tensor], Any], reads: Reads) -> Callable[[Tensor], Any]:
    def read(tensor: Tensor) -> Any:
        reads.count += 1
        return plain(tensor)

    return read


@contextmanager
def counted() -> Iterator[Reads]:
    """Count within; `tolist` and `numpy` read a CPU tensor's memory unseen by PyTorch, so they count by name."""
    with Reads() as reads, pytest.MonkeyPatch.context() as patch:
        for name in ("tolist", "numpy"):
            patch.setattr(Tensor, name, _counting(getattr(Tensor, name), reads))
        yield reads
