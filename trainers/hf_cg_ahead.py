"""Conjugate gradients on a device that computes while the host goes on: the host waits once in a block of steps.

All numbers stay on the device, those by which CG stops too. Steps that were begun after the stop are lost: they change
neither the point nor what is counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.hf_cg import Iterate, Solver, System, window

AHEAD = 10  # steps of a block: none but that of the curvature's sign can stop CG before step 11
_GOING, _USED, _TAKEN, _PHI = range(4)  # places in the book, phi after no step being the first of many


def default_ahead(device: torch.device) -> int:
    """Return after how many steps the host looks at a device: 0, at every number, if it is the host itself."""
    return 0 if device.type == "cpu" else AHEAD


class AheadConjugateGradients(Solver):
    """See `trainers.hf_cg.Solver`; `ConjugateGradients` is its twin, and says in fewer words what is computed."""

    def __init__(self, like: Tensor, ahead: int) -> None:
        """`ahead` is after how many steps the host looks, from 1 on."""
        super().__init__(like)
        self._ahead = ahead
        self._going, self._is, self._falls = (torch.empty((), device=like.device, dtype=torch.bool) for _ in range(3))
        self._ry, self._before, self._curved, self._ratio = self._numbers(4).unbind()
        self._length = like.new_empty(())  # a ratio in the dtype of the vectors
        self._book: tuple[Tensor, ...] = ()

    def _numbers(self, count: int) -> Tensor:
        return torch.empty(count, device=self._x.device, dtype=torch.float64)

    def _descend(self, system: System, most: int, keep: Sequence[int]) -> list[Iterate]:
        clock, gradient = system.clock, system.gradient
        places = {step: place for place, step in enumerate(keep)}
        book = self._numbers(_PHI + most + 1)
        self._book = book.unbind()
        book[:_PHI].zero_()
        self._going.fill_(True)
        self.dot(self._r, self._y, out=self._ry)
        self._phi(gradient, 0)
        done, spent, going = 0, 0, True
        while going and done < most:
            clock.spend(1)  # that the first step of a block is used is known
            block = 1 + clock.room(min(self._ahead, most - done) - 1)
            for step in range(done + 1, done + block + 1):
                self._step(step, system)
                if step in places:
                    self._keep(places[step])
            done += block
            self._book[_GOING].copy_(self._going)
            read = book[: _PHI + 1 + done].tolist()
            going, used = bool(read[_GOING]), int(read[_USED])
            clock.spend(used - spent - 1)
            spent = used
        taken = int(read[_TAKEN])
        found = [Iterate(kept, self._kept[place], read[_PHI + kept]) for kept, place in places.items() if kept <= taken]
        if not found or found[-1].step < taken:
            found.append(Iterate(taken, self._keep(len(found)), read[_PHI + taken]))
        return found

    def _step(self, step: int, system: System) -> None:
        """Do a step, which after the stop leaves x and the book's counts alone; nothing else is used then."""
        x, r, y, p, bp = self._x, self._r, self._y, self._p, self._bp
        system.product(p, bp)
        self._book[_USED].add_(self._going)
        self._go_on_if(torch.gt(self.dot(p, bp, out=self._curved), 0, out=self._is))
        self._go_on_if(torch.gt(self._ry, 0, out=self._is))
        self._book[_TAKEN].add_(self._going)
        torch.div(self._ry, self._curved, out=self._ratio)
        self._length.copy_(self._ratio)
        # Chosen, not multiplied by 0: p may hold anything by now.
        torch.where(self._going, torch.addcmul(x, p, self._length, out=y), x, out=x)
        r.addcmul_(bp, self._length)
        self._divide(system.preconditioner)
        self._before.copy_(self._ry)
        torch.div(self.dot(r, y, out=self._ry), self._before, out=self._ratio)
        self._length.copy_(self._ratio)
        p.mul_(self._length).sub_(y)
        self._phi(system.gradient, step)
        self._stop_if_stalled(step, system.tolerance)

    def _stop_if_stalled(self, step: int, tolerance: float) -> None:
        """`has_stalled` on the device."""
        k = window(step)
        if step <= k:
            return
        phi = self._book[_PHI + step]
        torch.sub(phi, self._book[_PHI + step - k], out=self._ratio).div_(phi)
        torch.lt(self._ratio, k * tolerance, out=self._is)
        self._is.logical_and_(torch.lt(phi, 0, out=self._falls))
        self._go_on_if(self._is.logical_not_())

    def _go_on_if(self, condition: Tensor) -> None:
        self._going.logical_and_(condition)

    def _phi(self, gradient: Tensor, step: int) -> None:
        torch.add(self._r, gradient, out=self._bp)
        self.dot(self._bp, self._x, out=self._book[_PHI + step]).mul_(0.5)
