"""Conjugate gradients as Hessian-free optimisation uses them (Martens 2010; SCIENCE 2), in buffers that exist.

They minimise phi(x) = g'x + x'Bx / 2. Vectors are of the parameters' dtype, dot products of float64: of a million
float32 numbers a float32 sum is off in the fifth place, and the stop rule asks for differences of phi.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor], None]
"""Called with v and out, both [P]: writes B v to out."""


class Dot:
    """The dot product in float64 of two vectors [P]."""

    def __init__(self, like: Tensor) -> None:
        narrow = like.dtype != torch.float64
        self._wide = [torch.empty_like(like, dtype=torch.float64) for _ in range(2)] if narrow else []

    def __call__(self, a: Tensor, b: Tensor) -> float:
        """Return a'b."""
        if self._wide:
            a, b = self._wide[0].copy_(a), self._wide[1].copy_(b)
        return float(torch.dot(a, b))


@dataclass(frozen=True)
class Iterate:
    """CG after `step` steps: its point [P], a buffer until the next solve, and phi there."""

    step: int
    x: Tensor
    phi: float


def kept_steps(most: int) -> list[int]:
    """Return the steps whose iterates are kept: 5, and on by a factor of 1.3, rounded up, to `most`."""
    steps, step = [], 5
    while step <= most:
        steps.append(step)
        step = -(-13 * step // 10)
    return steps


def has_stalled(phis: Sequence[float], tolerance: float) -> bool:
    """Whether CG stops after step i = len(phis), phis[j - 1] being phi after step j.

    With k = max(10, i/10 rounded up) it does where i > k, phi is below 0 and its relative progress over the last k
    steps is below k * tolerance.
    """
    i = len(phis)
    k = max(10, -(-i // 10))
    return i > k and phis[-1] < 0 and (phis[-1] - phis[-1 - k]) / phis[-1] < k * tolerance  # Martens 2010, section 4.4


class ConjugateGradients:
    """Solves for vectors like one; iterates that are kept stay until the next solve."""

    def __init__(self, like: Tensor) -> None:
        self.dot = Dot(like)
        self._x, self._r, self._y, self._p, self._bp = (torch.empty_like(like) for _ in range(5))
        self._kept: list[Tensor] = []

    def solve(
        self,
        product: Product,
        gradient: Tensor,
        start: Tensor | None,
        preconditioner: Tensor | None,
        most: int,
        tolerance: float,
        every: bool = True,
    ) -> list[Iterate]:
        """Return the iterates of `kept_steps` (none unless `every`) and the last, from `start` (None: from 0).

        `preconditioner` [P] is the diagonal of M, residuals being divided by it. At most `most` steps; less where
        `has_stalled`, or where B is seen to be not positive, which rounding and overflow can do.
        """
        x, r, y, p, bp = self._x, self._r, self._y, self._p, self._bp
        if start is None:
            x.zero_()
            r.copy_(gradient)
        else:
            x.copy_(start)
            product(x, r)
            r.add_(gradient)  # r = Bx + g: minus the residual
        self._divided(r, preconditioner, y)
        torch.neg(y, out=p)
        ry = self.dot(r, y)
        keep = set(kept_steps(most)) if every else set()
        found: list[Iterate] = []
        phis: list[float] = []
        for step in range(1, most + 1):
            product(p, bp)
            curved = self.dot(p, bp)
            if not curved > 0 or not ry > 0:
                break
            x.add_(p, alpha=ry / curved)
            r.add_(bp, alpha=ry / curved)
            self._divided(r, preconditioner, y)
            before, ry = ry, self.dot(r, y)
            p.mul_(ry / before).sub_(y)
            phis.append(self._phi(x, r, gradient, bp))
            stops = has_stalled(phis, tolerance) or step == most
            if step in keep or stops:
                found.append(self._keep(len(found), step, x, phis[-1]))
            if stops:
                break
        if not found or found[-1].step < len(phis):
            found.append(self._keep(len(found), len(phis), x, self._phi(x, r, gradient, bp)))
        return found

    def _phi(self, x: Tensor, r: Tensor, gradient: Tensor, scratch: Tensor) -> float:
        """Phi at x, from r = Bx + g: (r + g)'x / 2."""
        return 0.5 * self.dot(torch.add(r, gradient, out=scratch), x)

    @staticmethod
    def _divided(r: Tensor, preconditioner: Tensor | None, out: Tensor) -> None:
        if preconditioner is None:
            out.copy_(r)
        else:
            torch.div(r, preconditioner, out=out)

    def _keep(self, place: int, step: int, x: Tensor, phi: float) -> Iterate:
        if place == len(self._kept):
            self._kept.append(torch.empty_like(x))
        return Iterate(step, self._kept[place].copy_(x), phi)
