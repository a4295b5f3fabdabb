"""Updates in one pass over the weights, where a GPU and Triton are there: elsewhere an update is several calls.

On a GPU an update of methods with momentum reads and writes each of theta, velocity and look-ahead; as separate calls
it does so 40 bytes a number, in one pass 20, the gradient's product aside.
"""

from __future__ import annotations

from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor

from trainers.stack_layout import Call, Packed


@cache
def available() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def momentum(
    theta: Packed, velocity: Packed, point: Packed, coefficients: Tensor
) -> tuple[list[Call], list[Call]] | None:
    """Return `look` and `after` of `trainers.stack_methods.Momentum` as one call each; None where that is not to be."""
    if not coefficients.is_cuda or coefficients.dtype != torch.float32 or not available():
        return None
    from trainers import stack_triton

    where = pieces(theta, stack_triton.BLOCK)
    vectors = (theta.vector, velocity.vector, point.vector, coefficients, where)
    nag = point is not theta
    look, after = (partial(stack_triton.momentum, *vectors, step, nag) for step in (False, True))
    return [look], [after]


def pieces(packed: Packed, most: int) -> Tensor:
    """Return start, length and trial of pieces of at most so many numbers that make up all weights, int64 [N, 3]."""
    found = []
    for layer in packed.layers:
        size, first = layer[0].numel(), int(layer.storage_offset())
        starts = torch.arange(0, size, most)
        for trial in range(len(layer)):
            found.append(
                torch.stack(
                    [first + trial * size + starts, (size - starts).clamp(max=most), torch.full_like(starts, trial)], 1
                )
            )
    return torch.cat(found).to(packed.vector.device)
