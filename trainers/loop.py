"""The loop engine: one trial after another, hand-written passes into buffers that exist.

Each trial owns its theta and running means, aligned alike; the activations are shared, since one trial runs at a
time. So a trial's bits depend on nothing but itself: not on its place, its neighbours or what they came to.
What a kind of net does with a batch is in its passes (`trainers.flat.Passes`); this file knows trials and methods.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from trainers import metrics, passes
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, Part
from trainers.engine import check_family, check_fits, flush_denormals
from trainers.feedforward import FeedForward
from trainers.flat import Flat, Passes
from trainers.optim import span
from trainers.recurrent import RecurrentPasses
from trainers.state import TrialState, initial_state

_SMALL = 1 << 16  # parameters: below, the update runs over all layers at once; it is calls that cost, not bytes
_CHUNK = 1 << 16  # parameters whose running means are updated at once, while in cache
_SPAN = 256  # updates whose batches are looked up at once


@dataclass
class _Trial:
    """A trial's own memory. `point` is where the gradient is taken: theta itself, or NAG's look-ahead.

    `second` are the running means of squared gradients or of curvature, empty for methods with momentum.
    """

    config: TrialConfig
    update: int
    diverged_at: int | None
    theta: Flat
    velocity: Flat
    point: Flat
    second: Flat | None
    blocks: list[list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=list)
    """Rows of (velocity, theta, point) of each layer, where updates go by blocks."""
    chunks: list[tuple[Tensor, ...]] = field(default_factory=list)
    """Parts of (theta, velocity, second, gradient, scratch), where there is a second."""


class LoopEngine:
    """Trials of one net, batch size and family of methods, trained one after another; see `trainers.engine.Engine`."""

    name = "loop"

    def __init__(self, net: NetConfig, batch: int, data: Data, family: str = "momentum") -> None:
        check_family(net, family)
        self.net = net
        self.batch = batch
        self.data = data
        self.family = family
        self._trials: dict[int, _Trial] = {}
        self._like = torch.empty(0, device=data.device, dtype=data.dtype)
        self._passes: Passes = (
            RecurrentPasses(net, batch, data) if net.steps else FeedForward(net, batch, data, family == "diagonal")
        )
        self._sums = torch.zeros(_SPAN, device=data.device, dtype=data.dtype)
        self._sum_of = self._sums.unbind(0)
        self._factor = passes.delta_factor(net.loss)
        self._gradient, self._scratch = self._flat(), self._flat()
        """Where the gradient goes if not straight into the velocity, and what its chunks need besides."""

    def _flat(self) -> Flat:
        return Flat(self.net, self._like)

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:  # noqa: D102 - on the protocol
        check_fits(config, self.net, self.batch, self._trials, self.family)
        state = initial_state(config, self.data.dtype, self.data.device, self.data) if state is None else state
        theta, velocity = self._flat(), self._flat()
        theta.load(state.params)
        velocity.load(state.velocity)
        point = self._flat() if config.method.kind == "nag" else theta
        trial = _Trial(config, state.update, state.diverged_at, theta, velocity, point, None)
        if self.family != "momentum":
            trial.second = self._flat()
            assert state.second is not None, "a state of another family"
            trial.second.load(state.second)
            vectors = [each.vector for each in (theta, velocity, trial.second, self._gradient, self._scratch)]
            trial.chunks = list(zip(*(torch.split(vector, _CHUNK) for vector in vectors), strict=True))
        elif theta.vector.numel() > _SMALL:
            for v, w, p, ranges in zip(
                velocity.weights, theta.weights, point.weights, self._passes.blocks, strict=True
            ):
                trial.blocks.append([(v[a:b], w[a:b], p[a:b]) for a, b in ranges])
        self._trials[config.number] = trial

    def remove(self, number: int) -> None:  # noqa: D102
        del self._trials[number]

    def numbers(self) -> list[int]:  # noqa: D102
        return list(self._trials)

    def update(self, number: int) -> int:  # noqa: D102
        return self._trials[number].update

    def diverged_at(self, number: int) -> int | None:  # noqa: D102
        return self._trials[number].diverged_at

    def state(self, number: int) -> TrialState:  # noqa: D102
        trial = self._trials[number]
        second = None if trial.second is None else trial.second.save()
        return TrialState(trial.update, trial.theta.save(), trial.velocity.save(), trial.diverged_at, second)

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:  # noqa: D102
        flush_denormals()
        seconds = {}
        with torch.inference_mode():
            for number, update in until.items():
                start = time.perf_counter()
                self._advance(self._trials[number], update)
                seconds[number] = time.perf_counter() - start
        return seconds

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:  # noqa: D102
        flush_denormals()
        with torch.inference_mode():
            each = []
            for number in numbers:
                logits = self._passes.logits(self._trials[number].theta, part)
                each.append(metrics.measure(self.data.info, self.net, logits, part))
            return {name: torch.stack([measured[name] for measured in each]) for name in each[0]} if each else {}

    def _advance(self, trial: _Trial, until: int) -> None:
        while trial.update < until:
            if trial.diverged_at is not None:
                trial.update = until
                return
            self._span(trial, min(until, trial.update + _SPAN))
        if trial.diverged_at is None and not bool((trial.theta.vector.sum() + trial.velocity.vector.sum()).isfinite()):
            # A sum can overflow where its terms do not: ask each.
            theta, velocity = trial.theta.vector, trial.velocity.vector
            if not bool(theta.isfinite().all() & velocity.isfinite().all()):
                trial.diverged_at = trial.update

    def _span(self, trial: _Trial, end: int) -> None:
        """Train up to `end`, or as far as the pool of examples goes."""
        config, start = trial.config, trial.update
        pool = self.data.pool(config.seed, start, self.batch)
        count = min(end, pool.until) - start
        rows = pool.rows([(config.seed, start)], count)
        mus, lrs = span(start, count, config.method, config.updates)
        step, fetch, forward = self._step(trial), self._passes.fetch, self._passes.forward
        if trial.point is not trial.theta:
            torch.add(trial.theta.vector, trial.velocity.vector, alpha=mus[0], out=trial.point.vector)  # S13 eq. 3
        for i in range(count):
            fetch(pool.part, rows[i])
            forward(trial.point, self._sum_of[i])
            step(trial, start + i, lrs[i], mus[i], mus[i + 1])
        finite = self._sums[:count].isfinite()
        if not bool(finite.all()):
            trial.diverged_at = start + int((~finite).to(torch.uint8).argmax())
        trial.update = start + count

    def _step(self, trial: _Trial) -> Callable[[_Trial, int, float, float, float], None]:
        """What follows the forward pass: called with a trial, its update, lr, mu and the next update's mu."""
        if self.family == "momentum":
            return self._momentum_by_blocks if trial.blocks else self._momentum
        return self._adam if self.family == "adam" else self._diagonal

    def _momentum(self, trial: _Trial, _: int, lr: float, mu: float, next_mu: float) -> None:
        theta, velocity = trial.theta.vector, trial.velocity.vector
        self._passes.backward(trial.point, trial.velocity, mu, -lr * self._factor / self.batch)
        theta.add_(velocity)  # S13 eq. 2, 4
        if trial.point is not trial.theta:
            torch.add(theta, velocity, alpha=next_mu, out=trial.point.vector)

    def _momentum_by_blocks(self, trial: _Trial, _: int, lr: float, mu: float, next_mu: float) -> None:
        """Like `_momentum`, but a block of rows at a time, each used while in cache."""
        after = partial(self._after, trial, next_mu, trial.point is not trial.theta)
        self._passes.backward(trial.point, trial.velocity, mu, -lr * self._factor / self.batch, after)
        trial.theta.all_biases.add_(trial.velocity.all_biases)
        if trial.point is not trial.theta:
            biases = (trial.theta.all_biases, trial.velocity.all_biases)
            torch.add(*biases, alpha=next_mu, out=trial.point.all_biases)

    @staticmethod
    def _after(trial: _Trial, next_mu: float, ahead: bool, layer: int, block: int) -> None:
        v, w, p = trial.blocks[layer][block]
        w.add_(v)  # S13 eq. 2, 4
        if ahead:
            torch.add(w, v, alpha=next_mu, out=p)

    def _adam(self, trial: _Trial, update: int, lr: float, _: float, __: float) -> None:
        """torch.optim.Adam's and AdamW's update, the corrections of both means put into the step and epsilon."""
        method, t = trial.config.method, update + 1
        self._passes.backward(trial.point, self._gradient, 0.0, self._factor / self.batch)
        root = math.sqrt(1 - method.beta2**t)
        step, epsilon = -lr * root / (1 - method.beta1**t), method.epsilon * root
        for theta, mean, second, g, scratch in trial.chunks:
            if method.kind == "adamw":
                theta.mul_(1 - lr * method.weight_decay)
            mean.mul_(method.beta1).add_(g, alpha=1 - method.beta1)
            second.mul_(method.beta2).addcmul_(g, g, value=1 - method.beta2)
            torch.sqrt(second, out=scratch).add_(epsilon)
            theta.addcdiv_(mean, scratch, value=step)

    def _diagonal(self, trial: _Trial, update: int, lr: float, _: float, __: float) -> None:
        """Each parameter's own step, lr / (damping + its running mean of curvature)."""
        method = trial.config.method
        assert trial.second is not None
        self._passes.curvature(trial.point, trial.second, method.beta2, (1 - method.beta2) / self.batch)
        self._passes.backward(trial.point, self._gradient, 0.0, self._factor / self.batch)
        unbias = 1 / (1 - method.beta2 ** (update + 1))
        for theta, _velocity, second, g, scratch in trial.chunks:
            torch.mul(second, unbias, out=scratch).add_(method.damping)
            theta.addcdiv_(g, scratch, value=-lr)  # GB10 section 5
