"""The schedules of momentum and learning rate, as functions of the update. Pure arithmetic: no torch.

The update of momentum methods: v' = mu_t*v - lr_t*grad f(theta [+ mu_t*v for NAG]); theta' = theta + v'  # S13 eq. 1-4
The velocity contains the learning rate, which is not `torch.optim.SGD`'s form (SCIENCE 1.1). The other methods' updates
are in `serial.py`.
"""

from __future__ import annotations

import math
from array import array
from functools import lru_cache

from trainers.config import MethodConfig


def momentum(t: int, method: MethodConfig, updates: int) -> float:
    """Return the mu of update `t` (0-based) of a trial of `updates` updates; 0 for methods without.

    In the last `tail_updates` updates it is at most `tail_mu`.
    """
    if method.kind not in ("cm", "nag"):
        return 0.0
    mu = _untailed(t, method)
    return min(mu, method.tail_mu) if method.tail_updates and t >= updates - method.tail_updates else mu


def learning_rate(t: int, method: MethodConfig, updates: int) -> float:
    """Return the learning rate of update `t` (0-based) of a trial of `updates` updates."""
    lr = method.lr
    if method.lr_schedule == "step":
        lr *= method.lr_factor ** (t // method.lr_step)
    elif method.lr_schedule == "cosine":
        lr *= 0.5 * (1 + math.cos(math.pi * min(t, updates) / updates))
    return lr * (t + 1) / method.lr_warmup if t + 1 < method.lr_warmup else lr


def constant_until(t: int, method: MethodConfig, updates: int) -> int | None:
    """Return an update up to which (exclusive) mu and the learning rate are what they are at `t`, None for ever."""
    ends = [momentum_until(t, method, updates), rate_until(t, method, updates)]
    return min((end for end in ends if end is not None), default=None)


def momentum_until(t: int, method: MethodConfig, updates: int) -> int | None:
    """Return an update up to which (exclusive) mu is what it is at `t`, None for ever."""
    return min(_mu_changes(t, method, updates), default=None)


def rate_until(t: int, method: MethodConfig, updates: int) -> int | None:
    """Return an update up to which (exclusive) the learning rate is what it is at `t`, None for ever."""
    return min(_lr_changes(t, method, updates), default=None)


def span(t: int, count: int, method: MethodConfig, updates: int) -> tuple[list[float], list[float]]:
    """Return mu of the updates t to t + count, one more than count (NAG looks ahead), and the count learning rates."""
    until = constant_until(t, method, updates)
    if until is None or until > t + count:
        return [momentum(t, method, updates)] * (count + 1), [learning_rate(t, method, updates)] * count
    mus = [momentum(u, method, updates) for u in range(t, t + count + 1)]
    return mus, [learning_rate(u, method, updates) for u in range(t, t + count)]


def _untailed(t: int, method: MethodConfig) -> float:
    """Mu of cm and nag but for the tail."""
    if method.mu_schedule == "constant":
        return method.mu_max
    if method.mu_schedule == "first":
        return method.mu_first if t < method.mu_first_updates else method.mu_max  # S13 section 4
    if method.mu_schedule == "nesterov":
        return _nesterov(t, method.mu_max)
    # The second form of S13 eq. 5: the first, 1 - 2^(-1 - log2(floor(t/250) + 1)), is the same but rounds.
    return min(1 - 0.5 / (t // method.mu_step + 1), method.mu_max)


def _mu_changes(t: int, method: MethodConfig, updates: int) -> list[int]:
    """Updates after `t` at which mu may change next."""
    if method.kind not in ("cm", "nag"):
        return []
    tail = updates - method.tail_updates
    ends = [tail] if method.tail_updates and t < tail else []
    if method.mu_schedule == "first":
        ends += [method.mu_first_updates] if t < method.mu_first_updates else []
    elif method.mu_schedule != "constant" and _untailed(t, method) < method.mu_max:
        ends.append(t + 1 if method.mu_schedule == "nesterov" else (t // method.mu_step + 1) * method.mu_step)
    return ends


def _lr_changes(t: int, method: MethodConfig, updates: int) -> list[int]:
    """Updates after `t` at which the learning rate may change next."""
    ends = [t + 1] if t + 1 < method.lr_warmup or (method.lr_schedule == "cosine" and t < updates) else []
    if method.lr_schedule == "step":
        ends.append((t // method.lr_step + 1) * method.lr_step)
    return ends


def _nesterov(t: int, mu_max: float) -> float:
    """The smaller of (a_t - 1) / a_(t+1) and mu_max."""
    # a_t >= (t + 2) / 2 and a_(t+1) < a_t + 1/2 + 1/(8 a_t): a bound from below, which spares long tables.
    a = (t + 2) / 2
    if a - 1 >= mu_max * (a + 0.5 + 0.125 / a):
        return mu_max
    return min(_nesterov_table(1 << max(12, t.bit_length()))[t], mu_max)


@lru_cache(maxsize=24)
def _nesterov_table(size: int) -> array[float]:
    """(a_t - 1) / a_(t+1) for t < size, where a_0 = 1 and a_(t+1) = (1 + sqrt(4 a_t^2 + 1)) / 2  # S13 section 2."""
    table = array("d")
    a = 1.0
    for _ in range(size):
        after = (1 + math.sqrt(4 * a * a + 1)) / 2
        table.append((a - 1) / after)
        a = after
    return table
