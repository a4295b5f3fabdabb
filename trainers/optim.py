"""Momentum methods in S13's own form, and the schedule of mu. Pure arithmetic: no torch.

The update of every engine: v' = mu*v - lr*grad f(theta [+ mu*v for NAG]); theta' = theta + v'  # S13 eq. 1-4
The velocity contains the learning rate, which is not `torch.optim.SGD`'s form (SCIENCE 1.1).
"""

from __future__ import annotations

from trainers.config import MethodConfig


def momentum(t: int, method: MethodConfig, updates: int) -> float:
    """Return the mu of update `t` (0-based) of a trial of `updates` updates; 0 for plain SGD.

    In the last `tail_updates` updates it is at most `tail_mu`.
    """
    if method.kind == "sgd":
        return 0.0
    # The second form of S13 eq. 5: the first, 1 - 2^(-1 - log2(floor(t/250) + 1)), is the same but rounds.
    mu = min(1 - 0.5 / (t // method.mu_step + 1), method.mu_max)
    return min(mu, method.tail_mu) if t >= updates - method.tail_updates else mu


def constant_until(t: int, method: MethodConfig, updates: int) -> int | None:
    """Return an update up to which (exclusive) mu is what it is at `t`, None when it never changes again."""
    if method.kind == "sgd":
        return None
    tail = updates - method.tail_updates
    ends = [tail] if method.tail_updates and t < tail else []
    if 1 - 0.5 / (t // method.mu_step + 1) < method.mu_max:
        ends.append((t // method.mu_step + 1) * method.mu_step)
    return min(ends, default=None)
