"""Hessian-free optimisation on any `Curvature`, one outer iteration at a time (Martens 2010; SCIENCE 2).

The objective is f(theta) = loss + l2/2 |theta|^2. An iteration minimises the model of its change,
q(d) = g'd + d'(G + l2)d / 2, damped, by conjugate gradients, and takes what is left of d after back-tracking and line
search. The damping follows how well the model foretold the objective. `HFConfig` says what can be otherwise.

Numbers that the next decision needs stay on their device until then and are read together, by `look`.

The Levenberg-Marquardt ratio, the preconditioner and G are of one piece of the examples, the target; gradient and
objective of all pieces that the iteration is given, which may be the target alone.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, chain, repeat

import torch
from torch import Tensor

from trainers.config import NetConfig
from trainers.config_hf import HFConfig
from trainers.curvature import Curvature
from trainers.data import Part
from trainers.hf_cg import ConjugateGradients, Iterate, Solver
from trainers.hf_cg_ahead import AheadConjugateGradients, default_ahead

_ARMIJO = 1e-2
RATES = tuple(accumulate(repeat(0.8, 59), operator.mul, initial=1.0))
"""What a line search tries."""
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
    """The work of an iteration, in gradients of one example; raises OverBudget beyond `most`.

    A gradient is a forward pass and the rest; squares count as one gradient; what products and forward passes cost is
    the net's arithmetic (`NetConfig.product_cost`, `forward_cost`), so a course is the same on any machine. Counted is
    what an iteration uses, whatever a device that is not waited for computes besides.
    """

    def __init__(self, net: NetConfig, work: float, most: float, examples: int) -> None:
        """`examples` are those of the target, of which products and squares are."""
        self.work, self.products, self.most = work, 0, most
        self._product, self._forward = net.product_cost * examples, net.forward_cost
        self._examples = examples

    def forward(self, examples: int) -> None:
        """Count a forward pass."""
        self._spend(self._forward * examples)

    def gradient(self, examples: int) -> None:
        """Count what is left of a gradient after its forward pass."""
        self._spend((1 - self._forward) * examples)

    def squares(self) -> None:
        """Count the squares of each example's gradient."""
        self._spend(float(self._examples))

    def spend(self, products: int) -> None:
        """See `trainers.hf_cg.Clock`."""
        for _ in range(products):  # a sum of floats, which multiplication would round otherwise
            self._spend(self._product)
            self.products += 1

    def room(self, products: int) -> int:
        """See `trainers.hf_cg.Clock`."""
        work = self.work
        for made in range(products):
            work += self._product
            if work > self.most:
                return made
        return products

    def _spend(self, work: float) -> None:
        self.work += work
        if self.work > self.most:
            raise OverBudget


@dataclass(frozen=True)
class Tried:
    """Numbers of a point theta: the mean loss of each piece that was asked for, and theta'theta."""

    losses: Sequence[float]
    square: float


def look(numbers: Sequence[Tensor]) -> list[float]:
    """Return the values of tensors []: the one place where the host waits for a device, apart from CG's own."""
    found: list[float] = torch.stack([number.double() for number in numbers]).tolist()
    return found


def adapted(damping: float, rho: float) -> float:
    """Return the damping after a step whose objective changed by rho times what the model foretold."""
    if math.isnan(rho) or rho < _POOR:
        return min(damping * _BOOST, max(damping, _MOST))
    return max(damping * _DROP, min(damping, _LEAST)) if rho > _GOOD else damping


def step_size(config: HFConfig, iteration: int) -> float:
    """Return the step of outer iteration `iteration`, from 1 on, without line search (S13 A.6); at most `step`."""
    since = iteration - config.step_from
    return min(config.step, config.step_decay / since) if config.step_decay > 0 and since > 0 else config.step


def line_search(objectives: Iterable[float], before: float, slope: float) -> tuple[float, float]:
    """Return the rate that Armijo's rule takes, from 1 down, and the objective there; (0, before) where it takes none.

    `objectives` are those at `RATES`, asked for one by one. A direction that does not descend, which a warm start can
    bring about, may not raise the objective either.
    """
    for rate, value in zip(RATES, objectives, strict=False):
        if value <= before + _ARMIJO * rate * min(slope, 0.0):
            return rate, value
    return 0.0, before


class HessianFree:
    """Outer iterations on nets of one shape, in buffers that all trials use in turn."""

    def __init__(self, net: NetConfig, like: Tensor, ahead: int | None = None) -> None:
        """`like` is a vector [P], on the device of all others.

        `ahead` is how many steps of CG the host lets go by before it looks: 0 where to look costs nothing, so that
        nothing is computed in vain; None: as the device has it. What comes of it is the same, to the bit.
        """
        ahead = default_ahead(like.device) if ahead is None else ahead
        self._net, self._waits = net, ahead > 0
        self._cg: Solver = AheadConjugateGradients(like, ahead) if ahead else ConjugateGradients(like)
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
        meter = self._meter = Meter(self._net, progress.work, most, pieces[target].count)
        whole = sum(piece.count for piece in pieces)
        self._curvature = curvature
        self._weights = [piece.count / whole for piece in pieces]
        self._pieces, self._target, self._l2 = pieces, target, config.l2
        losses = self._losses_and_gradient(theta)
        flags = self._gradient.isfinite().all(), solution.any()
        *losses_here, square, finite, moved = look([*losses, self._cg.dot(theta, theta), *flags])
        before = Tried(losses_here, square)
        f = self._objective(before)
        if not math.isfinite(f) or not finite:
            lost = replace(progress, work=meter.work)
            return Outcome(theta.clone(), torch.zeros_like(theta), lost, f, lost=True, diverged=True)
        start = solution * config.cg_decay if config.cg_decay > 0 and moved else None
        iterates = self._solve(start, progress.damping, config)
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
        sound, usable = look([reached.isfinite().all(), last.isfinite().all()])
        finite = math.isfinite(objective) and math.isfinite(damping) and bool(sound)
        # A solution that overflowed is no place to start from.
        kept = last.clone() if usable else torch.zeros_like(last)
        return Outcome(reached, kept, after, f, diverged=not finite)

    def _losses_and_gradient(self, theta: Tensor) -> list[Tensor]:
        """Leave the objective's gradient in its buffer, the curvature at the target; returns each piece's loss []."""
        order = [i for i in range(len(self._pieces)) if i != self._target]
        losses: dict[int, Tensor] = {}
        torch.mul(theta, self._l2, out=self._gradient)
        for place in (*order, self._target):  # last, so that what products need is there
            piece = self._pieces[place]
            self._meter.forward(piece.count)
            losses[place] = self._curvature.at(theta, piece.part, piece.rows)
            self._meter.gradient(piece.count)
            self._curvature.gradient(self._scratch)
            self._gradient.add_(self._scratch, alpha=self._weights[place])
        return [losses[place] for place in range(len(self._pieces))]

    def _solve(self, start: Tensor | None, damping: float, config: HFConfig) -> list[Iterate]:
        preconditioner = None
        if config.preconditioner > 0:
            preconditioner = self._diagonal
            self._meter.squares()
            self._curvature.squares(preconditioner)
            preconditioner.add_(damping + config.l2).pow_(config.preconditioner)
        structural, ridge = config.structural * damping, damping + config.l2

        def product(v: Tensor, out: Tensor) -> None:
            self._curvature.product(v, out, structural)
            out.add_(v, alpha=ridge)

        how = (config.cg_max, config.cg_tolerance, config.line_search)
        return self._cg.solve(product, self._gradient, start, preconditioner, *how, self._meter)

    def _searched(
        self, theta: Tensor, iterates: list[Iterate], progress: Progress, config: HFConfig, before: Tried
    ) -> tuple[Tensor, float, float, float]:
        """Back-track and search the line; returns theta, rate, objective and rho."""
        chosen, found, f = iterates[-1], before, math.inf
        backwards = iterates[::-1]
        for iterate, tried in zip(backwards, self._try(theta, [(each.x, 1.0) for each in backwards]), strict=True):
            value = _or_inf(self._objective(tried))
            if value > f and iterate is not iterates[-1]:
                break
            chosen, found, f = iterate, tried, value
        rho, slope = self._judged(chosen, progress.damping, config, before, found, self._target)
        others = self._try(theta, [(chosen.x, rate) for rate in RATES[1:]])
        objectives = (_or_inf(self._objective(tried)) for tried in others)
        rate, value = line_search(chain([f], objectives), self._objective(before), slope)
        return torch.add(theta, chosen.x, alpha=rate) if rate else theta.clone(), rate, value, rho

    def _stepped(
        self, theta: Tensor, iterates: list[Iterate], progress: Progress, config: HFConfig, before: Tried
    ) -> tuple[Tensor, float, float, float]:
        """Take CG's last iterate by a step that was fixed beforehand; objectives are the target's (S13 A.6)."""
        last, rate = iterates[-1], step_size(config, int(progress.iterations) + 1)
        # The model is judged by its own minimum, whatever is made of it.
        rates = (1.0, rate) if config.adapt and rate != 1 else (rate,)
        tries = self._try(theta, [(last.x, each) for each in rates], [self._pieces[self._target]])
        tried, rho = next(tries), math.nan
        if config.adapt:
            rho, _ = self._judged(last, progress.damping, config, before, tried, 0)
        *_, tried = [tried, *tries]
        return torch.add(theta, last.x, alpha=rate), rate, tried.losses[0] + self._penalty(tried), rho

    def _try(
        self, theta: Tensor, moves: Sequence[tuple[Tensor, float]], pieces: Sequence[Piece] | None = None
    ) -> Iterator[Tried]:
        """Yield what theta + rate * x comes to for each move (x [P], rate), counted as it is asked for.

        Where to look is to wait, the first two are computed together, then four, and so on: looks are few, and no more
        is computed in vain than twice what is used.
        """
        pieces = self._pieces if pieces is None else pieces
        first, size = 0, 2 if self._waits else 1
        while first < len(moves):
            self._count_forward(pieces)  # before it is made: it may be too much
            block, numbers = moves[first : first + size], []
            for x, rate in block:
                point = torch.add(theta, x, alpha=rate, out=self._point)
                numbers += [self._curvature.loss(point, piece.part, piece.rows) for piece in pieces]
                numbers.append(self._cg.dot(point, point))
            read, each = look(numbers), len(pieces) + 1
            for place in range(len(block)):
                if place:
                    self._count_forward(pieces)
                *losses, square = read[place * each : (place + 1) * each]
                yield Tried(losses, square)
            first += size
            size *= 2 if self._waits else 1

    def _count_forward(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            self._meter.forward(piece.count)

    def _judged(
        self, step: Iterate, damping: float, config: HFConfig, before: Tried, after: Tried, place: int
    ) -> tuple[float, float]:
        """Return rho and the slope along x: the target's change of objective, over the undamped model's change.

        `after` is of theta + x, and `place` the target's there. Rho is NaN where no damping follows it.
        """
        dot, x = self._cg.dot, step.x
        new = after.losses[place] + self._penalty(after)
        old = before.losses[self._target] + self._penalty(before)
        numbers = [dot(self._gradient, x), dot(x, x)]
        rises, structural = new > old, config.structural > 0
        if config.adapt and structural and not rises:
            self._meter.spend(1)
            self._curvature.product(x, self._scratch, 0.0)
            numbers.append(dot(self._scratch, x))
        slope, square, *curved = look(numbers)
        if not config.adapt:
            return math.nan, slope
        if rises:
            return -math.inf, slope
        # With structural damping, which is no part of the model, phi is of another.
        change = slope + 0.5 * (curved[0] + config.l2 * square) if curved else step.phi - 0.5 * damping * square
        return (new - old) / change if change else math.nan, slope

    def _objective(self, tried: Tried) -> float:
        """The objective there, given the losses of all pieces."""
        loss = sum(weight * loss for weight, loss in zip(self._weights, tried.losses, strict=True))
        return loss + self._penalty(tried)

    def _penalty(self, tried: Tried) -> float:
        return 0.5 * self._l2 * tried.square


def _or_inf(value: float) -> float:
    """The value, or infinity for what is not a number: the worst, and comparable."""
    return math.inf if math.isnan(value) else value
