"""Conjugate gradients as Hessian-free optimisation uses them (Martens 2010; SCIENCE 2), in buffers that exist.

They minimise phi(x) = g'x + x'Bx / 2. Vectors are of the parameters' dtype, dot products of float64: of a million
float32 numbers a float32 sum is off in the fifth place, and the stop rule asks for differences of phi.

`ConjugateGradients` looks at every number as soon as it is there, which costs nothing where tensors lie in the host's
memory; `trainers.hf_cg_ahead` does the same for a device that would have to be waited for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor], None]
"""Called with v and out, both [P]: writes B v to out."""


class Clock(Protocol):
    """Counts products against a limit."""

    def spend(self, products: int) -> None:
        """Count products that are used; whoever counts before they are made need not make those beyond the limit."""

    def room(self, products: int) -> int:
        """Return how many of so many products are still within the limit."""


class Boundless:
    """A clock without limit that does not count."""

    def spend(self, products: int) -> None:
        """See `Clock.spend`."""

    def room(self, products: int) -> int:
        """See `Clock.room`."""
        return products


class Dot:
    """The dot product in float64 of two vectors [P]."""

    def __init__(self, like: Tensor) -> None:
        narrow = like.dtype != torch.float64
        self._wide = [torch.empty_like(like, dtype=torch.float64) for _ in range(2)] if narrow else []

    def __call__(self, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
        """Return a'b [], written to `out` [] if there is one."""
        if self._wide:
            a, b = self._wide[0].copy_(a), self._wide[1].copy_(b)
        return torch.dot(a, b) if out is None else torch.dot(a, b, out=out)


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


def window(step: int) -> int:
    """Return over how many steps progress is judged after `step` of them: 10, or a tenth rounded up."""
    return max(10, -(-step // 10))  # Martens 2010, section 4.4


def has_stalled(phis: Sequence[float], tolerance: float) -> bool:
    """Whether CG stops after step i = len(phis), phis[j - 1] being phi after step j.

    With k = `window` it does where i > k, phi is below 0 and its relative progress over the last k steps is below
    k * tolerance.
    """
    i = len(phis)
    k = window(i)
    return i > k and phis[-1] < 0 and (phis[-1] - phis[-1 - k]) / phis[-1] < k * tolerance  # Martens 2010, section 4.4


@dataclass(frozen=True)
class System:
    """What is solved: `gradient` and `preconditioner` [P], `tolerance` that of `has_stalled`."""

    product: Product
    gradient: Tensor
    preconditioner: Tensor | None
    tolerance: float
    clock: Clock


class Solver(ABC):
    """Conjugate gradients for vectors like one; what they come to does not depend on the solver, to the bit.

    Iterates that are kept stay until the next solve.
    """

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
        clock: Clock = Boundless(),  # noqa: B008 - it holds nothing
    ) -> list[Iterate]:
        """Return the iterates of `kept_steps` (none unless `every`) and the last, from `start` (None: from 0).

        `preconditioner` [P] is the diagonal of M, residuals being divided by it. At most `most` steps; less where
        `has_stalled`, or where B is seen to be not positive, which rounding and overflow can do. `clock` counts the
        products that led there, that of the start and the one that was not positive included, and no others.
        """
        if start is None:
            self._x.zero_()
            self._r.copy_(gradient)
        else:
            self._x.copy_(start)
            clock.spend(1)
            product(self._x, self._r)
            self._r.add_(gradient)
        self._divide(preconditioner)
        torch.neg(self._y, out=self._p)
        keep = kept_steps(most) if every else []
        return self._descend(System(product, gradient, preconditioner, tolerance, clock), most, keep)

    @abstractmethod
    def _descend(self, system: System, most: int, keep: Sequence[int]) -> list[Iterate]:
        """Take the steps, keeping the iterates after some, from x, r = Bx + g (minus the residual), y and p = -y."""

    def _divide(self, preconditioner: Tensor | None) -> None:
        if preconditioner is None:
            self._y.copy_(self._r)
        else:
            torch.div(self._r, preconditioner, out=self._y)

    def _keep(self, place: int) -> Tensor:
        """Copy x to the buffer of a place; returns that."""
        if place == len(self._kept):
            self._kept.append(torch.empty_like(self._x))
        return self._kept[place].copy_(self._x)


class ConjugateGradients(Solver):
    """See `Solver`; one step after another."""

    def _descend(self, system: System, most: int, keep: Sequence[int]) -> list[Iterate]:
        x, r, y, p, bp = self._x, self._r, self._y, self._p, self._bp
        gradient = system.gradient
        ry, largest = float(self.dot(r, y)), torch.finfo(x.dtype).max
        found: list[Iterate] = []
        phis: list[float] = []
        for step in range(1, most + 1):
            system.clock.spend(1)
            system.product(p, bp)
            curved = float(self.dot(p, bp))
            if not curved > 0 or not ry > 0:
                break
            length = ry / curved
            length = length if length <= largest else math.inf  # PyTorch refuses a number that its dtype cannot hold
            x.add_(p, alpha=length)
            r.add_(bp, alpha=length)
            self._divide(system.preconditioner)
            before, ry = ry, float(self.dot(r, y))
            p.mul_(ry / before).sub_(y)
            phis.append(self._phi(gradient))
            stops = has_stalled(phis, system.tolerance) or step == most
            if step in keep or stops:
                found.append(Iterate(step, self._keep(len(found)), phis[-1]))
            if stops:
                break
        if not found or found[-1].step < len(phis):
            found.append(Iterate(len(phis), self._keep(len(found)), self._phi(gradient)))
        return found

    def _phi(self, gradient: Tensor) -> float:
        """Phi at x, from r = Bx + g: (r + g)'x / 2."""
        return 0.5 * float(self.dot(torch.add(self._r, gradient, out=self._bp), self._x))
