"""One trial with ordinary PyTorch autograd and modules: slow, obvious, and what the fast engines must equal."""

from __future__ import annotations

import math

import torch

from trainers import models
from trainers.config import TrialConfig
from trainers.data import Data, Part, batch_indices
from trainers.engine import flush_denormals
from trainers.optim import momentum
from trainers.state import TrialState, initial_state


class SerialTrial:
    """A trial of S13: `advance` it, read its `state`, `evaluate` it."""

    def __init__(
        self, config: TrialConfig, data: Data, dtype: torch.dtype | None = None, state: TrialState | None = None
    ) -> None:
        self.config = config
        self.data = data
        dtype = data.dtype if dtype is None else dtype
        state = initial_state(config, dtype) if state is None else state
        self.net = models.build(config.net, dtype)
        models.set_parameters(self.net, state.params)
        self.params = list(self.net.parameters())
        # As nn.Linear has its parameters: weights [O, I], then biases, of each layer.
        self.velocity = [v.to(dtype, copy=True) for w, b in state.velocity for v in (w.T.contiguous(), b)]
        self.update = state.update
        self.diverged_at = state.diverged_at

    def advance(self, updates: int) -> None:
        """Train for so many updates, or until one diverges."""
        flush_denormals()
        for _ in range(updates):
            if self.diverged_at is not None:
                return
            self._step()
        if self.diverged_at is None and not all(bool(p.isfinite().all()) for p in self.params):
            self.diverged_at = self.update

    def _step(self) -> None:
        config, train = self.config, self.data.train
        rows = torch.from_numpy(batch_indices(len(train.inputs), config.batch, config.seed, self.update))
        mu = momentum(self.update, config.method, config.updates)
        theta = [p.detach().clone() for p in self.params] if config.method.kind == "nag" else None
        if theta is not None:
            with torch.no_grad():
                for p, v in zip(self.params, self.velocity, strict=True):
                    p.add_(v, alpha=mu)  # look ahead, S13 eq. 3

        self.net.zero_grad()
        logits = self.net(train.inputs[rows])
        logits.retain_grad()
        loss = models.loss(config.net, logits, train.expected[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        # A finite loss has finite logits, hence a finite delta: the exact question is asked of the others only.
        if not math.isfinite(loss.item()) and logits.grad is not None and not bool(logits.grad.sum().isfinite()):
            self.diverged_at = self.update

        with torch.no_grad():
            for i, (p, v) in enumerate(zip(self.params, self.velocity, strict=True)):
                if theta is not None:
                    p.copy_(theta[i])
                assert p.grad is not None
                v.mul_(mu).sub_(p.grad, alpha=config.method.lr)
                p.add_(v)
        self.update += 1

    def state(self) -> TrialState:
        """Copy the state out."""
        pairs = zip(self.velocity[::2], self.velocity[1::2], strict=True)
        velocity = [(w.T.contiguous().clone(), b.clone()) for w, b in pairs]
        return TrialState(self.update, models.get_parameters(self.net), velocity, self.diverged_at)

    def evaluate(self, part: Part) -> dict[str, float]:
        """Return the metrics on a part."""
        with torch.no_grad():
            return models.metrics(self.config.net, self.net(part.inputs), part.expected)
