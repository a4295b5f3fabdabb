"""Hessian-free optimisation on any `Curvature`, one outer iteration at a time (Martens 2010; SCIENCE 2).

The objective is f(theta) = loss + l2/2 |theta|^2. An iteration minimises the model of its change,
q(d) = g'd + d'(G + l2)d / 2, damped, by conjugate gradients, and takes what is left of d after back-tracking and line
search. The damping follows how well the model foretold the objective. `HFConfig` says what can be otherwise.

The Levenberg-Marquardt ratio, the preconditioner and G are of one piece of the examples, the target; gradient and
objective of all pieces that the iteration is given, which may be the target alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from trainers.config import NetConfig
from trainers.config_hf import HFConfig
from trainers.curvature import Curvature
from trainers.data import Part
from trainers.hf_cg import ConjugateGradients, Iterate

_ARMIJO = 1e-2
_SHRINK = 0.8
_TRIES = 60
_POOR, _GOOD = 0.25, 0.75
_BOOST, _DROP = 3 / 2, 2 / 3
_LEAST, _MOST = 1e-20, 1e20  # so that float32 holds the damping, however long nothing gets better


@dataclass(frozen=True)
class Piece:
    """Examples of a part, and how many they are."""

    part: Part
    rows: Tensor | slice
    count: int


@dataclass(frozen=True)
class Progress:
    """How far a run of HF is; `damping` is that of the next iteration, `objective` f at theta, NaN while unknown.

    `work` is in gradients of one example.
    """

    iterations: float = 0.0
    cg_steps: float = 0.0
    products: float = 0.0
    rejected: float = 0.0
    damping: float = math.nan
    objective: float = math.nan
    work: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """An outer iteration: where it leads [P], CG's last solution [P], and the progress there.

    `objective` is f at the theta it began with. `lost` says that there f or its gradient was not finite (then nothing
    was tried), `diverged` that where it leads they are not.
    """

    theta: Tensor
    solution: Tensor
    progress: Progress
    objective: float
    lost: bool = False
    diverged: bool = False


class OverBudget(Exception):
    """An iteration has spent more work than it may."""


class Meter:
    """A curvature whose work is counted, in gradients of one example; raises OverBudget beyond `most`.

    A gradient is a forward pass (`at`) and the rest; squares count as one gradient; what products and forward passes
    cost is the net's arithmetic (`NetConfig.product_cost`, `forward_cost`), so a course is the same on any machine.
    """

    def __init__(self, net: NetConfig, curvature: Curvature, work: float, most: float) -> None:
        self.curvature = curvature
        self.work, self.products, self.most = work, 0, most
        self._product, self._forward = net.product_cost, net.forward_cost
        self._examples = 0

    def at(self, theta: Tensor, piece: Piece) -> float:
        """See `Curvature.at`."""
        self._examples = piece.count
        self._spend(self._forward * piece.count)
        return self.curvature.at(theta, piece.part, piece.rows)

    def gradient(self, out: Tensor) -> None:
        """See `Curvature.gradient`."""
        self._spend((1 - self._forward) * self._examples)
        self.curvature.gradient(out)

    def squares(self, out: Tensor) -> None:
        """See `Curvature.squares`."""
        self._spend(float(self._examples))
        self.curvature.squares(out)

    def product(self, v: Tensor, out: Tensor, structural: float) -> None:
        """See `Curvature.product`."""
        self._spend(self._product * self._examples)
        self.products += 1
        self.curvature.product(v, out, structural)

    def loss(self, theta: Tensor, piece: Piece) -> float:
        """See `Curvature.loss`."""
        self._spend(self._forward * piece.count)
        return self.curvature.loss(theta, piece.part, piece.rows)

    def _spend(self, work: float) -> None:
        self.work += work
        if self.work > self.most:
            raise OverBudget


def adapted(damping: float, rho: float) -> float:
    """Return the damping after a step whose objective changed by rho times what the model foretold."""
    if math.isnan(rho) or rho < _POOR:
        return min(damping * _BOOST, max(damping, _MOST))
    return max(damping * _DROP, min(damping, _LEAST)) if rho > _GOOD else damping


def step_size(config: HFConfig, iteration: int) -> float:
    """Return the step of outer iteration `iteration`, from 1 on, without line search (S13 A.6); at most `step`."""
    since = iteration - config.step_from
    return min(config.step, config.step_decay / since) if config.step_decay > 0 and since > 0 else config.step


def line_search(objective: Callable[[float], float], first: float, before: float, slope: float) -> tuple[float, float]:
    """Return the rate that Armijo's rule takes, from 1 down, and the objective there; (0, before) where it takes none.

    `first` is the objective at rate 1. A direction that does not descend, which a warm start can bring about, may not
    raise the objective either.
    """
    rate, value = 1.0, first
    for tried in range(1, _TRIES + 1):
        if value <= before + _ARMIJO * rate * min(slope, 0.0):
            return rate, value
        if tried < _TRIES:
            rate *= _SHRINK
            value = objective(rate)
    return 0.0, before


class HessianFree:
    """Outer iterations on nets of one shape, in buffers that all trials use in turn."""

    def __init__(self, net: NetConfig, like: Tensor) -> None:
        """`like` is a vector [P]."""
        self._net = net
        self._cg = ConjugateGradients(like)
        self._gradient, self._diagonal, self._scratch, self._point = (torch.empty_like(like) for _ in range(4))
        self._weights: list[float] = []
        self._pieces: Sequence[Piece] = ()
        self._target = 0
        self._l2 = 0.0

    def iterate(
        self,
        curvature: Curvature,
        theta: Tensor,
        solution: Tensor,
        progress: Progress,
        config: HFConfig,
        pieces: Sequence[Piece],
        target: int,
        most: float = math.inf,
    ) -> Outcome:
        """Do an outer iteration from theta [P], CG starting from the last `solution` [P]; neither is changed.

        Raises OverBudget once the run's work is more than `most`.
        """
        meter = self._meter = Meter(self._net, curvature, progress.work, most)
        whole = sum(piece.count for piece in pieces)
        self._weights = [piece.count / whole for piece in pieces]
        self._pieces, self._target, self._l2 = pieces, target, config.l2
        before = self._losses_and_gradient(theta)
        f = self._objective(before, theta)
        if not math.isfinite(f) or not bool(self._gradient.isfinite().all()):
            lost = replace(progress, work=meter.work)
            return Outcome(theta.clone(), torch.zeros_like(theta), lost, f, lost=True, diverged=True)
        iterates = self._solve(solution, progress.damping, config)
        search = self._searched if config.line_search else self._stepped
        reached, rate, objective, rho = search(theta, iterates, progress, config, before)
        damping = adapted(progress.damping, rho) if config.adapt else progress.damping
        last = iterates[-1].x
        after = Progress(
            iterations=progress.iterations + 1,
            cg_steps=progress.cg_steps + iterates[-1].step,
            products=progress.products + meter.products,
            rejected=progress.rejected + (rate == 0),
            damping=damping,
            objective=objective,
            work=meter.work,
        )
        finite = math.isfinite(objective) and math.isfinite(damping) and bool(reached.isfinite().all())
        # A solution that overflowed is no place to start from.
        kept = last.clone() if bool(last.isfinite().all()) else torch.zeros_like(last)
        return Outcome(reached, kept, after, f, diverged=not finite)

    def _losses_and_gradient(self, theta: Tensor) -> list[float]:
        """Leave the objective's gradient in its buffer, the curvature at the target; returns each piece's loss."""
        losses, order = [0.0] * len(self._pieces), [i for i in range(len(self._pieces)) if i != self._target]
        torch.mul(theta, self._l2, out=self._gradient)
        for place in (*order, self._target):  # last, so that what products need is there
            losses[place] = self._meter.at(theta, self._pieces[place])
            self._meter.gradient(self._scratch)
            self._gradient.add_(self._scratch, alpha=self._weights[place])
        return losses

    def _solve(self, solution: Tensor, damping: float, config: HFConfig) -> list[Iterate]:
        preconditioner = None
        if config.preconditioner > 0:
            preconditioner = self._diagonal
            self._meter.squares(preconditioner)
            preconditioner.add_(damping + config.l2).pow_(config.preconditioner)
        structural, ridge = config.structural * damping, damping + config.l2

        def product(v: Tensor, out: Tensor) -> None:
            self._meter.product(v, out, structural)
            out.add_(v, alpha=ridge)

        start = None
        if config.cg_decay > 0 and bool(solution.any()):
            start = solution * config.cg_decay
        every = config.line_search
        return self._cg.solve(product, self._gradient, start, preconditioner, config.cg_max, config.cg_tolerance, every)

    def _searched(
        self, theta: Tensor, iterates: list[Iterate], progress: Progress, config: HFConfig, before: list[float]
    ) -> tuple[Tensor, float, float, float]:
        """Back-track and search the line; returns theta, rate, objective and rho."""
        chosen = iterates[-1]
        losses = self._losses(self._moved(theta, chosen.x, 1.0))
        f = _or_inf(self._objective(losses, self._point))
        for earlier in reversed(iterates[:-1]):
            found = self._losses(self._moved(theta, earlier.x, 1.0))
            value = _or_inf(self._objective(found, self._point))
            if value > f:
                break
            chosen, losses, f = earlier, found, value
        rho = math.nan
        if config.adapt:
            self._moved(theta, chosen.x, 1.0)
            rho = self._rho(theta, chosen, progress.damping, config, before, losses[self._target])

        def objective(rate: float) -> float:
            losses = self._losses(self._moved(theta, chosen.x, rate))
            return _or_inf(self._objective(losses, self._point))

        old = self._objective(before, theta)
        rate, value = line_search(objective, f, old, self._cg.dot(self._gradient, chosen.x))
        return torch.add(theta, chosen.x, alpha=rate) if rate else theta.clone(), rate, value, rho

    def _stepped(
        self, theta: Tensor, iterates: list[Iterate], progress: Progress, config: HFConfig, before: list[float]
    ) -> tuple[Tensor, float, float, float]:
        """Take CG's last iterate by a step that was fixed beforehand; objectives are the target's (S13 A.6)."""
        last, rate = iterates[-1], step_size(config, int(progress.iterations) + 1)
        target = self._pieces[self._target]
        rho = math.nan
        if config.adapt and rate != 1:  # the model is judged by its own minimum, whatever is made of it
            loss = self._meter.loss(self._moved(theta, last.x, 1.0), target)
            rho = self._rho(theta, last, progress.damping, config, before, loss)
        loss = self._meter.loss(self._moved(theta, last.x, rate), target)
        if config.adapt and rate == 1:
            rho = self._rho(theta, last, progress.damping, config, before, loss)
        objective = loss + self._penalty(self._moved(theta, last.x, rate))
        return self._point.clone(), rate, objective, rho

    def _rho(
        self, theta: Tensor, step: Iterate, damping: float, config: HFConfig, before: list[float], loss: float
    ) -> float:
        """The target's change of objective at theta + x, which is in `_point`, over the undamped model's change."""
        new, old = loss + self._penalty(self._point), before[self._target] + self._penalty(theta)
        if new > old:
            return -math.inf
        dot, x = self._cg.dot, step.x
        if config.structural > 0:
            self._meter.product(x, self._scratch, 0.0)
            change = dot(self._gradient, x) + 0.5 * (dot(self._scratch, x) + config.l2 * dot(x, x))
        else:
            change = step.phi - 0.5 * damping * dot(x, x)
        return (new - old) / change if change else math.nan

    def _moved(self, theta: Tensor, x: Tensor, rate: float) -> Tensor:
        return torch.add(theta, x, alpha=rate, out=self._point)

    def _losses(self, theta: Tensor) -> list[float]:
        return [self._meter.loss(theta, piece) for piece in self._pieces]

    def _objective(self, losses: Sequence[float], theta: Tensor) -> float:
        return sum(weight * loss for weight, loss in zip(self._weights, losses, strict=True)) + self._penalty(theta)

    def _penalty(self, theta: Tensor) -> float:
        return 0.5 * self._l2 * self._cg.dot(theta, theta)


def _or_inf(value: float) -> float:
    """The value, or infinity for what is not a number: the worst, and comparable."""
    return math.inf if math.isnan(value) else value
