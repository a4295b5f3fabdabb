"""Products of matrices whose factors are rounded: TF32 and bf16, as a GPU's matrix units take them.

Sums are float32, and so is all that is not a product: weights, velocities, activations, losses. On a CPU the same
numbers come from rounding the factors first, so that what a precision does to errors can be seen without a GPU; there
it is slower, not faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trainers.config import PRECISIONS, NetConfig

_TF32 = float(2**13 + 1)  # leaves 24 - 13 bits


def check(precision: str, net: NetConfig, dtype: torch.dtype) -> None:
    """Raise ValueError unless a net can be trained at a precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: one of {', '.join(PRECISIONS)}")
    if precision != "float32" and (net.steps or net.module):
        raise ValueError(f"precision {precision}: of feed-forward and residual nets only; for others float32")
    if precision != "float32" and dtype != torch.float32:
        raise ValueError(f"precision {precision}: rounds float32 numbers, these are {dtype}")


@contextmanager
def allowed(precision: str, device: torch.device) -> Iterator[None]:
    """Let a GPU's products of float32 numbers round their factors to TF32 meanwhile, if they are to; or not to."""
    if device.type != "cuda":
        yield
        return
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


def add_product(out: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float, precision: str) -> None:
    """Make out = beta*out + alpha*a@b of [K, N, M] and [K, M, L], factors rounded; of bf16 and tf32 only."""
    if not out.is_cuda:
        a, b = factor(a, precision), factor(b, precision)
    elif precision == "bf16":
        factors = a.to(torch.bfloat16), b.to(torch.bfloat16)
        torch.ops.aten.baddbmm.dtype_out(out, *factors, torch.float32, beta=beta, alpha=alpha, out=out)
        return
    out.baddbmm_(a, b, beta=beta, alpha=alpha)


def factor(x: Tensor, precision: str) -> Tensor:
    """Round float32 numbers to the nearest that have 8 bits (bf16) or 11 bits (tf32), the leading one included."""
    if precision == "bf16":
        return x.to(torch.bfloat16).to(x.dtype)
    scaled = x * _TF32  # Dekker 1971, splitting; above 2^114 it overflows, and what is that large has diverged
    return scaled - (scaled - x)
