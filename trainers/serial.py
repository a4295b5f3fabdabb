"""One trial with ordinary PyTorch autograd and modules: slow, obvious, and what the fast engines must equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainers import metrics, models
from trainers.config import NetConfig, TrialConfig
from trainers.data import Data, Part
from trainers.engine import check_family, flush_denormals
from trainers.optim import learning_rate, momentum
from trainers.state import Params, TrialState, initial_state, zeros


class SerialTrial:
    """A trial of any method: `advance` it, read its `state`, `evaluate` it."""

    def __init__(
        self, config: TrialConfig, data: Data, dtype: torch.dtype | None = None, state: TrialState | None = None
    ) -> None:
        check_family(config.net, config.method.family)
        self.config = config
        self.data = data
        dtype = data.dtype if dtype is None else dtype
        state = initial_state(config, dtype, data=data) if state is None else state
        self.net = models.build(config.net, dtype)
        self.gradient = models.build(config.net, dtype)  # whose parameters hold the gradient with respect to the net's
        self.theta = [(w.to(dtype, copy=True), b.to(dtype, copy=True)) for w, b in state.params]
        self.velocity = [(w.to(dtype, copy=True), b.to(dtype, copy=True)) for w, b in state.velocity]
        second = zeros(self.theta) if state.second is None else state.second
        self.second = [(w.to(dtype, copy=True), b.to(dtype, copy=True)) for w, b in second]
        self.update = state.update
        self.diverged_at = state.diverged_at

    def advance(self, updates: int) -> None:
        """Train for so many updates, or until one diverges."""
        flush_denormals()
        for _ in range(updates):
            if self.diverged_at is not None:
                return
            self._step()
        if self.diverged_at is None and not all(bool(t.isfinite().all()) for pair in self.theta for t in pair):
            self.diverged_at = self.update

    def _step(self) -> None:
        config, method = self.config, self.config.method
        pool = self.data.pool(config.seed, self.update, config.batch)
        rows = pool.rows([(config.seed, self.update)], 1)[0]
        mu = momentum(self.update, method, config.updates)
        lr = learning_rate(self.update, method, config.updates)
        point = self.theta
        if method.kind == "nag":
            pairs = zip(self.theta, self.velocity, strict=True)
            point = [(w + mu * v, b + mu * c) for (w, b), (v, c) in pairs]  # look ahead, S13 eq. 3
        gradient = self._gradient_at(point, pool.part, rows)
        seconds = gradient
        if method.kind == "diagonal":
            seconds = curvature(config.net, point, pool.part.inputs[rows])
        for now, velocity, second, g, d in zip(
            *map(_tensors, (self.theta, self.velocity, self.second, gradient, seconds)), strict=True
        ):
            if method.family == "momentum":
                velocity.mul_(mu).sub_(g, alpha=lr)  # S13 eq. 1, 3
                now.add_(velocity)  # S13 eq. 2, 4
            elif method.family == "adam":
                self._adam(now, velocity, second, g, lr)
            else:
                second.mul_(method.beta2).add_(d, alpha=1 - method.beta2)
                unbiased = second / (1 - method.beta2 ** (self.update + 1))
                now.sub_(lr * g / (method.damping + unbiased))  # GB10 section 5
        self.update += 1

    def _adam(self, now: Tensor, mean: Tensor, second: Tensor, g: Tensor, lr: float) -> None:
        """torch.optim.Adam's and AdamW's update, written out."""
        method, t = self.config.method, self.update + 1
        if method.kind == "adamw":
            now.mul_(1 - lr * method.weight_decay)
        mean.mul_(method.beta1).add_(g, alpha=1 - method.beta1)
        second.mul_(method.beta2).add_(g * g, alpha=1 - method.beta2)
        root = (second / (1 - method.beta2**t)).sqrt() + method.epsilon
        now.sub_(lr * (mean / (1 - method.beta1**t)) / root)

    def _gradient_at(self, point: Params, part: Part, rows: Tensor) -> Params:
        """The gradient of the batch's loss; notes the update as diverged when the output delta is not finite."""
        models.set_parameters(self.net, point)
        self.net.zero_grad()
        logits = self.net(*part.arguments(rows))
        logits.retain_grad()
        loss = models.loss(self.config.net, logits, part.expected[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        # A finite loss has finite logits, hence a finite delta: the exact question is asked of the others only.
        if not math.isfinite(loss.item()) and logits.grad is not None and not bool(logits.grad.sum().isfinite()):
            self.diverged_at = self.update
        with torch.no_grad():
            for parameter, holder in zip(self.net.parameters(), self.gradient.parameters(), strict=True):
                assert parameter.grad is not None
                holder.copy_(parameter.grad)
        return models.get_parameters(self.gradient)

    def state(self) -> TrialState:
        """Copy the state out."""
        second = None if self.config.method.family == "momentum" else self.second
        return TrialState(self.update, self.theta, self.velocity, self.diverged_at, second).clone()

    def evaluate(self, part: Part) -> dict[str, float]:
        """Return the metrics on a part, at theta whatever became of it."""
        models.set_parameters(self.net, self.theta)
        with torch.no_grad():
            measured = metrics.measure(self.data.info, self.config.net, self.net(*part.arguments()), part)
        return {name: float(value) for name, value in measured.items()}


def curvature(net: NetConfig, params: Params, inputs: Tensor) -> Params:
    """Return the diagonal of the Gauss-Newton matrix of the batch's loss, each layer's propagated as squares.

    Becker & LeCun's approximation (GB10 section 5): what units of one layer have in common counts as nothing, which is
    exact for the last layer, and for the one before where outputs do not share (all losses but softmax).
    Feed-forward and residual nets.
    """
    xs, slopes = [inputs], []
    for layer, name in enumerate(net.hidden):
        z = (xs[-1] @ params[layer][0] + params[layer][1]).requires_grad_()
        h = _FUNCTIONS[name](z)
        slopes.append(torch.autograd.grad(h.sum(), z)[0])  # f'(z), since f works element by element
        factor = net.eta[layer - 1] if net.eta and layer else 1.0
        h = h.detach() * factor
        slopes[-1] = slopes[-1] * factor
        xs.append(xs[-1] + h if net.eta and layer else h)
    logits = xs[-1] @ params[-1][0] + params[-1][1]
    if net.loss == "squared":
        second = torch.full_like(logits, 2.0)
    else:
        p = logits.sigmoid() if net.loss == "logistic" else logits.softmax(-1)
        second = p * (1 - p)
    result: Params = []
    at_sum = second  # with respect to what leaves the layer
    for layer in range(len(params) - 1, -1, -1):
        weights = params[layer][0]
        if layer < len(net.hidden):
            second = slopes[layer] ** 2 * at_sum
        result.append(((xs[layer] ** 2).T @ second / len(inputs), second.mean(0)))
        skipped = at_sum if net.eta and 0 < layer < len(net.hidden) else 0.0
        at_sum = skipped + second @ (weights**2).T
    return result[::-1]


_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softsign": torch.nn.functional.softsign,
    "linear": lambda z: z * 1.0,
}


def _tensors(params: Params) -> list[Tensor]:
    return [tensor for pair in params for tensor in pair]
