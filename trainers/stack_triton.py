"""The update of methods with momentum as one kernel: every number is read once and written once.

Imported only where Triton is installed (`trainers.stack_fused` asks).
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _momentum(
    theta, velocity, point, coefficients, pieces, trials, STEP: tl.constexpr, NAG: tl.constexpr, BLOCK: tl.constexpr
):
    piece = pieces + 3 * tl.program_id(0)
    start, length, trial = tl.load(piece), tl.load(piece + 1), tl.load(piece + 2)
    lane = tl.arange(0, BLOCK)
    at, mask = start + lane, lane < length
    v = tl.load(velocity + at, mask=mask)
    w = tl.load(theta + at, mask=mask)
    if STEP:
        w += v  # S13 eq. 2, 4
        tl.store(theta + at, w, mask=mask)
    if NAG:
        tl.store(point + at, w + tl.load(coefficients + trials + trial) * v, mask=mask)  # S13 eq. 3
    tl.store(velocity + at, v * tl.load(coefficients + trial), mask=mask)  # S13 eq. 1, 3


def momentum(
    theta: Tensor, velocity: Tensor, point: Tensor, coefficients: Tensor, pieces: Tensor, step: bool, nag: bool
) -> None:
    """Do what `trainers.stack_methods.Momentum` has in `after` (`step`) or in `look`.

    `theta`, `velocity`, `point` are vectors alike; `coefficients` [3, K]; `pieces` int64 [N, 3]: start, length (at most
    BLOCK) and trial of every piece of them.
    """
    _momentum[len(pieces),](
        theta, velocity, point, coefficients, pieces, coefficients.shape[1], STEP=step, NAG=nag, BLOCK=BLOCK
    )
