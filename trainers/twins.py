"""Trials that are one and the same for a while: which updates two trials make alike, to the last bit.

What an update makes of a state is a function of the net, the batch and a few numbers of the method at that update: the
state after updates 0 to t - 1 knows nothing of what the schedules do from t on (NAG's look-ahead at update t is by
mu_t itself, and belongs to update t). So trials that were equal once stay equal until those numbers first differ: of
three mu_max under the ramp of S13 eq. 5 the larger two part from the smallest where it is reached, and last phases
(S13 Table 2) part where they begin.

At a trial's first update the velocity is 0, and mu means nothing yet. That one update is not shared for it: copying a
state costs as much.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from hashlib import blake2b

from trainers.config import TrialConfig
from trainers.optim import learning_rate, momentum, momentum_until, rate_until
from trainers.state import TrialState


def can_share(config: TrialConfig) -> bool:
    """Whether a trial's updates are all that its config, state and batches say: not of hf, nor of nets of one's own.

    Those keep more than a `TrialState` tells, or need not do the same twice.
    """
    return config.method.family != "hf" and not config.net.module


def arithmetic(config: TrialConfig, t: int) -> Hashable:
    """Return what update `t` takes from a config besides net and batch size: equal values, equal updates.

    With mu = 0 cm is sgd, and so is nag as long as its velocity is finite: its look-ahead point is theta.
    """
    method = config.method
    mu = momentum(t, method, config.updates)
    shared: tuple[Hashable, ...] = (method.family, config.seed, learning_rate(t, method, config.updates))
    if method.family == "momentum":
        return (*shared, mu, method.kind == "nag" and mu != 0)
    if method.family == "diagonal":
        return (*shared, method.beta2, method.damping)
    decay = method.weight_decay if method.kind == "adamw" else None
    return (*shared, method.beta1, method.beta2, method.epsilon, decay)


def alike_until(configs: Sequence[TrialConfig], start: int, end: int) -> int:
    """Return the first update from `start` on that trials of one net and batch size do not all make alike, or `end`."""
    first, *others = configs
    for other in others:
        t = start
        while t < end and arithmetic(first, t) == arithmetic(other, t):
            t = min([end, *_next_changes(first, other, t)])
        end = min(end, t)
    return end


def digest(state: TrialState) -> bytes:
    """Return what tells a state from any other: equal digests, equal bits."""
    found = blake2b(digest_size=32)
    for name, array in state.to_arrays().items():
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(array.tobytes())
    return found.digest()


def _next_changes(one: TrialConfig, other: TrialConfig, t: int) -> list[int]:
    """Updates after `t`, at which the two agree, before the first of which they agree as well."""
    changes: list[int | None] = []
    if _rates(one) != _rates(other):
        changes += [rate_until(t, each.method, each.updates) for each in (one, other)]
    tails = [_tail(each) for each in (one, other)]
    starts = [tail[0] for tail in tails if tail is not None]
    if _momenta(one) == _momenta(other) and all(t < start for start in starts):
        changes += starts if tails[0] != tails[1] else []
    elif (_momenta(one), tails[0]) != (_momenta(other), tails[1]):
        changes += [momentum_until(t, each.method, each.updates) for each in (one, other)]
    return [change for change in changes if change is not None]


def _rates(config: TrialConfig) -> Hashable:
    """What the learning rate of every update follows from."""
    method = config.method
    schedule = (method.lr_schedule, method.lr_warmup, method.lr_step, method.lr_factor)
    return (method.lr, *schedule, config.updates)


def _momenta(config: TrialConfig) -> Hashable:
    """What mu of every update before the tail follows from, and what is done with it."""
    method = config.method
    schedule = (method.mu_schedule, method.mu_step, method.mu_first, method.mu_first_updates)
    return (method.kind, method.mu_max, *schedule)


def _tail(config: TrialConfig) -> tuple[int, float] | None:
    """Where the last phase begins, and its mu."""
    method = config.method
    return (config.updates - method.tail_updates, method.tail_mu) if method.tail_updates else None
