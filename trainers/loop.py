"""The loop engine: one trial after another, hand-written passes into buffers that exist.

Each trial owns its theta and velocity, aligned alike; the activations are shared, since one trial runs at a time.
So a trial's bits depend on nothing but itself: not on its place, its neighbours or what they came to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainers import models, passes
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, Part, index_tensors
from trainers.engine import check_fits, flush_denormals, is_narrow
from trainers.optim import constant_until, momentum
from trainers.state import Params, TrialState, initial_state

_ALIGN = 16  # elements: 64 bytes of float32, a cache line
_SMALL = 1 << 16  # parameters: below, the update runs over all layers at once; it is calls that cost, not bytes
_BLOCK = 1 << 18  # weights whose step is taken while their velocity is still in cache; smaller blocks slow the products
_SPAN = 256  # updates whose batches are looked up at once


class _Flat:
    """One contiguous vector of all parameters: weights of every layer, then biases of every layer, each aligned."""

    def __init__(self, net: NetConfig, like: Tensor) -> None:
        sizes = [i * o for i, o in net.layers] + [o for _, o in net.layers]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // _ALIGN) * _ALIGN)
        self.vector = like.new_zeros(starts[-1])
        pieces = [self.vector[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        layers = len(net.layers)
        self.weights = [_matrix(piece, *shape) for piece, shape in zip(pieces[:layers], net.layers, strict=True)]
        self.weights_t = [w.t() for w in self.weights]
        self.biases = pieces[layers:]
        self.all_biases = self.vector[starts[layers] :]

    def load(self, params: Params) -> None:
        for (w, b), to_w, to_b in zip(params, self.weights, self.biases, strict=True):
            to_w.copy_(w)
            to_b.copy_(b)

    def save(self) -> Params:
        pairs = zip(self.weights, self.biases, strict=True)
        return [(w.clone(memory_format=torch.contiguous_format), b.clone()) for w, b in pairs]


@dataclass
class _Trial:
    """A trial's own memory. `point` is where the gradient is taken: theta itself, or NAG's look-ahead."""

    config: TrialConfig
    update: int
    diverged_at: int | None
    theta: _Flat
    velocity: _Flat
    point: _Flat
    blocks: list[list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=list)
    """Rows of (velocity, theta, point) of each layer."""


class _Workspace:
    """Activations and deltas of one batch, [B, widths], used by every trial in turn."""

    def __init__(self, net: NetConfig, batch: int, data: Data) -> None:
        def empty(width: int) -> Tensor:
            return torch.empty(batch, width, device=data.device, dtype=data.dtype)

        self.h = [empty(width) for width in net.widths]
        self.target = self.h[0] if data.train.targets is data.train.inputs else empty(net.widths[-1])
        self.grads = [empty(width) for width in net.widths[1:-1]]
        self.delta = empty(net.widths[-1]) if net.loss == "softmax" else self.h[-1]
        self.flat_delta = self.delta.view(-1)
        self.ones = torch.ones(batch, device=data.device, dtype=data.dtype)
        self.sums = torch.zeros(_SPAN, device=data.device, dtype=data.dtype)
        self.sum_of = self.sums.unbind(0)
        self.rows_t: list[list[Tensor]] = [
            [h[:, a:b].t() for a, b in _row_blocks(*shape)] for h, shape in zip(self.h, net.layers, strict=False)
        ]


class LoopEngine:
    """Trials of one net and batch size, trained one after another; see `trainers.engine.Engine`."""

    name = "loop"

    def __init__(self, net: NetConfig, batch: int, data: Data) -> None:
        self.net = net
        self.batch = batch
        self.data = data
        self._trials: dict[int, _Trial] = {}
        self._like = torch.empty(0, device=data.device, dtype=data.dtype)
        self._work = _Workspace(net, batch, data)

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:  # noqa: D102 - on the protocol
        check_fits(config, self.net, self.batch, self._trials)
        state = initial_state(config, self.data.dtype, self.data.device) if state is None else state
        theta, velocity = _Flat(self.net, self._like), _Flat(self.net, self._like)
        point = _Flat(self.net, self._like) if config.method.kind == "nag" else theta
        theta.load(state.params)
        velocity.load(state.velocity)
        blocks = []
        for layer, shape in enumerate(self.net.layers):
            triple = (velocity.weights[layer], theta.weights[layer], point.weights[layer])
            blocks.append([(triple[0][a:b], triple[1][a:b], triple[2][a:b]) for a, b in _row_blocks(*shape)])
        self._trials[config.number] = _Trial(config, state.update, state.diverged_at, theta, velocity, point, blocks)

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
        return TrialState(trial.update, trial.theta.save(), trial.velocity.save(), trial.diverged_at)

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
                logits = self._logits(self._trials[number].theta, part.inputs)
                each.append(models.metric_tensors(self.net, logits, part.expected))
            return {name: torch.stack([metrics[name] for metrics in each]) for name in each[0]} if each else {}

    def _logits(self, theta: _Flat, inputs: Tensor) -> Tensor:
        h = inputs
        for layer, (w, b) in enumerate(zip(theta.weights, theta.biases, strict=True)):
            name = self.net.hidden[layer] if layer < len(self.net.hidden) else "linear"
            scale = passes.scale_before(name)
            h = torch.addmm(b, h, w, beta=scale, alpha=scale)
            passes.activate(name, h, h)
        return h

    def _advance(self, trial: _Trial, until: int) -> None:
        while trial.update < until:
            if trial.diverged_at is not None:
                trial.update = until
                return
            changes = constant_until(trial.update, trial.config.method, trial.config.updates)
            end = min(until, trial.update + _SPAN, until if changes is None else changes)
            self._span(trial, end)
        if trial.diverged_at is None and not bool((trial.theta.vector.sum() + trial.velocity.vector.sum()).isfinite()):
            # A sum can overflow where its terms do not: ask each.
            theta, velocity = trial.theta.vector, trial.velocity.vector
            if not bool(theta.isfinite().all() & velocity.isfinite().all()):
                trial.diverged_at = trial.update

    def _span(self, trial: _Trial, end: int) -> None:
        """Train up to `end` under one mu."""
        config, train, work = trial.config, self.data.train, self._work
        count = end - trial.update
        rows = index_tensors(len(train.inputs), self.batch, [(config.seed, trial.update)], count)
        mu = momentum(trial.update, config.method, config.updates)
        alpha = -config.method.lr * passes.delta_factor(self.net.loss) / self.batch
        ahead = trial.point is not trial.theta
        if ahead:
            torch.add(trial.theta.vector, trial.velocity.vector, alpha=mu, out=trial.point.vector)  # S13 eq. 3
        backward = self._backward_small if trial.theta.vector.numel() <= _SMALL else self._backward
        for i in range(count):
            torch.index_select(train.inputs, 0, rows[i], out=work.h[0])
            if work.target is not work.h[0]:
                torch.index_select(train.targets, 0, rows[i], out=work.target)
            self._forward(trial.point)
            passes.output_delta(self.net.loss, work.h[-1], work.target, work.delta)
            torch.sum(work.flat_delta, 0, out=work.sum_of[i])
            backward(trial, mu, alpha, ahead)
        finite = work.sums[:count].isfinite()
        if not bool(finite.all()):
            trial.diverged_at = trial.update + int((~finite).to(torch.uint8).argmax())
        trial.update = end

    def _forward(self, point: _Flat) -> None:
        h, hidden = self._work.h, self.net.hidden
        for layer, name in enumerate((*hidden, "linear")):
            scale = passes.scale_before(name)
            z = h[layer + 1]
            torch.addmm(point.biases[layer], h[layer], point.weights[layer], beta=scale, alpha=scale, out=z)
            passes.activate(name, z, z)

    def _deltas(self, trial: _Trial, layer: int, delta: Tensor) -> Tensor:
        """Return the delta of the layer below; the weights between are still the old ones."""
        grad = self._work.grads[layer - 1]
        torch.mm(delta, trial.point.weights_t[layer], out=grad)
        passes.backpropagate(self.net.hidden[layer - 1], grad, self._work.h[layer])
        return grad

    def _backward_small(self, trial: _Trial, mu: float, alpha: float, ahead: bool) -> None:
        work, velocity = self._work, trial.velocity
        delta = work.delta
        for layer in range(len(self.net.layers) - 1, -1, -1):
            velocity.biases[layer].addmv_(delta.t(), work.ones, beta=mu, alpha=alpha)
            below = self._deltas(trial, layer, delta) if layer else delta
            velocity.weights[layer].addmm_(work.h[layer].t(), delta, beta=mu, alpha=alpha)  # S13 eq. 1, 3
            delta = below
        trial.theta.vector.add_(velocity.vector)  # S13 eq. 2, 4
        if ahead:
            torch.add(trial.theta.vector, velocity.vector, alpha=mu, out=trial.point.vector)

    def _backward(self, trial: _Trial, mu: float, alpha: float, ahead: bool) -> None:
        """Like `_backward_small`, but a block of rows at a time, each used while in cache."""
        work, velocity, theta, point = self._work, trial.velocity, trial.theta, trial.point
        delta = work.delta
        for layer in range(len(self.net.layers) - 1, -1, -1):
            velocity.biases[layer].addmv_(delta.t(), work.ones, beta=mu, alpha=alpha)
            below = self._deltas(trial, layer, delta) if layer else delta
            for (v, w, p), rows_t in zip(trial.blocks[layer], work.rows_t[layer], strict=True):
                v.addmm_(rows_t, delta, beta=mu, alpha=alpha)  # S13 eq. 1, 3
                w.add_(v)  # S13 eq. 2, 4
                if ahead:
                    torch.add(w, v, alpha=mu, out=p)
            delta = below
        theta.all_biases.add_(velocity.all_biases)
        if ahead:
            torch.add(theta.all_biases, velocity.all_biases, alpha=mu, out=point.all_biases)


def _matrix(piece: Tensor, inputs: int, outputs: int) -> Tensor:
    """View a vector as weights [I, O]; narrow ones lie in memory as [O, I], see `trainers.engine.is_narrow`."""
    return piece.view(outputs, inputs).t() if is_narrow(outputs) else piece.view(inputs, outputs)


def _row_blocks(inputs: int, outputs: int) -> list[tuple[int, int]]:
    """Cut the rows of a weight matrix into blocks of about _BLOCK weights, a function of its shape only."""
    pieces = max(1, round(inputs * outputs / _BLOCK))
    rows = max(1, -(-inputs // pieces))
    return [(start, min(start + rows, inputs)) for start in range(0, inputs, rows)]
