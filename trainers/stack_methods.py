"""What a family of methods does with the gradients of K trials: its coefficients and its calls on packed weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Protocol

import torch
from torch import Tensor

from trainers import optim, stack_fused
from trainers.config import MethodConfig, TrialConfig
from trainers.stack_layout import Call, Packed

Starts = Sequence[tuple[TrialConfig, int]]
"""Of each trial its update to come."""


class Rule(Protocol):
    """The updates of one family of methods on K trials.

    An update is: `before` (while the weights of `point` are still those of the forward pass), the output delta times
    `scale`, the backward pass, which adds to `into`, and `after`. All read the coefficients, a tensor [C, K].
    """

    point: Packed
    into: Packed
    scale: Tensor
    """[K, 1]."""
    look: list[Call]
    """Calls that prepare what is stored for a first update, setting `point` where it is not theta; `after` ends with
    them."""
    before: list[Call]
    after: list[Call]
    curved: tuple[Packed, Packed] | None
    """Where the squares of the point's weights are, and where their curvature is to be added."""


class Momentum:
    """sgd, cm, nag: the gradient goes straight into the velocity, with -lr put before the output delta.

    `extra` is NAG's look-ahead.
    """

    stored = ("params", "velocity")
    spare = 1
    coefficients = 3

    def __init__(self, packed: Sequence[Packed], coefficients: Tensor, extra: bool) -> None:
        theta, velocity, spare = packed
        self.point = spare if extra else theta
        self.into = velocity
        mu, ahead, self.scale = coefficients.unsqueeze(-1)
        self.curved: tuple[Packed, Packed] | None = None
        self.before: list[Call] = []
        triples = zip(theta.alike, velocity.alike, spare.alike, strict=True)
        look: list[Call] = [
            # The point where the gradient is taken, theta + mu*v for NAG (S13 eq. 3), theta for the others.
            *(partial(torch.addcmul, w, v, ahead, out=p) for w, v, p in triples if extra),
            *(partial(v.mul_, mu) for v in velocity.alike),  # S13 eq. 1, 3
        ]
        after: list[Call] = [partial(theta.vector.add_, velocity.vector), *look]  # S13 eq. 2, 4
        fused = stack_fused.momentum(theta, velocity, self.point, coefficients)
        self.look, self.after = (look, after) if fused is None else fused

    @staticmethod
    def table(starts: Starts, count: int, factor: float) -> Tensor:
        """Rows of (mu of the update after, the same for NAG, -lr*factor), [1 + count, 3, K].

        The first is before all updates and looks ahead to the first; the last leaves the velocity as it is.
        """
        mus = torch.stack([_mus(config, update, count) for config, update in starts], 1)
        nag = torch.tensor([config.method.kind == "nag" for config, _ in starts])
        return torch.stack(
            [torch.cat([mus[:-1], torch.ones_like(mus[:1])]), mus * nag, -factor * _rates(starts, count)], 1
        )

    @staticmethod
    def extra(table: Tensor) -> bool:
        """Whether the gradient of any of these updates is taken elsewhere than at theta."""
        return bool(table[:, 1].any())


class Adam:
    """adam and adamw, as torch.optim has them. `extra` is weight decay."""

    stored = ("params", "velocity", "second")
    spare = 1
    coefficients = 7

    def __init__(self, packed: Sequence[Packed], coefficients: Tensor, extra: bool) -> None:
        self.point, mean, second, self.into = packed
        g = self.into
        self.look: list[Call] = []
        self.curved: tuple[Packed, Packed] | None = None
        self.scale, new, new_2, root, epsilon, step, decay = coefficients.unsqueeze(-1)
        self.before: list[Call] = [g.vector.zero_]
        self.after: list[Call] = [
            *(partial(m.lerp_, each, new) for m, each in zip(mean.alike, g.alike, strict=True)),
            partial(g.vector.square_),
            *(partial(v.lerp_, each, new_2) for v, each in zip(second.alike, g.alike, strict=True)),
            # From here on `g` is room for the step.
            partial(torch.sqrt, second.vector, out=g.vector),
            *(partial(torch.addcmul, epsilon, each, root, out=each) for each in g.alike),
            partial(torch.div, mean.vector, g.vector, out=g.vector),
            *(partial(w.mul_, decay) for w in self.point.alike if extra),
            *(partial(w.addcmul_, each, step) for w, each in zip(self.point.alike, g.alike, strict=True)),
        ]

    @staticmethod
    def table(starts: Starts, count: int, factor: float) -> Tensor:
        """Rows of (factor, 1 - beta1, 1 - beta2, what corrects the root, epsilon, -step, decay), [1 + count, 7, K]."""
        lr, t = _rates(starts, count), _numbers(starts, count)
        methods = [config.method for config, _ in starts]
        beta, beta_2, epsilon, decay = (
            torch.tensor([values], dtype=torch.float64)
            for values in zip(
                *((m.beta1, m.beta2, m.epsilon, m.weight_decay * (m.kind == "adamw")) for m in methods), strict=True
            )
        )
        rows = (
            torch.tensor(factor, dtype=torch.float64), 1 - beta, 1 - beta_2, (1 - beta_2**t) ** -0.5, epsilon,
            -lr / (1 - beta**t), 1 - lr * decay,
        )  # fmt: skip
        return torch.stack([row.expand_as(lr) for row in rows], 1)

    @staticmethod
    def extra(table: Tensor) -> bool:
        """Whether any weight decays."""
        return bool((table[:, -1] != 1).any())


class Diagonal:
    """diagonal: each step divided by the damped running mean of its curvature (GB10 section 5)."""

    stored = ("params", "second")
    spare = 3
    coefficients = 5

    def __init__(self, packed: Sequence[Packed], coefficients: Tensor, extra: bool) -> None:  # noqa: ARG002
        self.point, second, g, curvature, squares = packed
        self.into = g
        self.look: list[Call] = []
        self.curved: tuple[Packed, Packed] | None = (squares, curvature)
        self.scale, new, unbias, damping, step = coefficients.unsqueeze(-1)
        self.before: list[Call] = [
            g.vector.zero_,
            curvature.vector.zero_,
            partial(torch.mul, self.point.vector, self.point.vector, out=squares.vector),
        ]
        self.after: list[Call] = [
            *(partial(h.lerp_, each, new) for h, each in zip(second.alike, curvature.alike, strict=True)),
            *(
                partial(torch.addcmul, damping, h, unbias, out=each)
                for h, each in zip(second.alike, curvature.alike, strict=True)
            ),  # from here on `curvature` is room for the step
            partial(torch.div, g.vector, curvature.vector, out=curvature.vector),
            *(partial(w.addcmul_, each, step) for w, each in zip(self.point.alike, curvature.alike, strict=True)),
        ]

    @staticmethod
    def table(starts: Starts, count: int, factor: float) -> Tensor:
        """Rows of (factor, 1 - beta2, what corrects the mean, damping, -lr), [1 + count, 5, K]."""
        lr, t = _rates(starts, count), _numbers(starts, count)
        methods = [config.method for config, _ in starts]
        beta_2 = torch.tensor([[method.beta2 for method in methods]], dtype=torch.float64)
        damping = torch.tensor([[method.damping for method in methods]], dtype=torch.float64)
        rows = (torch.tensor(factor, dtype=torch.float64), 1 - beta_2, 1 / (1 - beta_2**t), damping, -lr)
        return torch.stack([row.expand_as(lr) for row in rows], 1)

    @staticmethod
    def extra(table: Tensor) -> bool:  # noqa: ARG004
        """Nothing is left out."""
        return False


RULES: Mapping[str, type[Momentum | Adam | Diagonal]] = {"momentum": Momentum, "adam": Adam, "diagonal": Diagonal}
"""Of each family: `stored` names what of a `TrialState` it keeps, packed before so many `spare` ones."""


class Coefficients:
    """Every coefficient of `count` updates of K trials.

    `before` and `rows` are [C, K] each, for the first look-ahead and for every update; `changed` says which rows differ
    from the one before them.
    """

    def __init__(self, family: str, starts: Starts, count: int, factor: float, like: Tensor) -> None:
        rule = RULES[family]
        table = rule.table(starts, count, factor)
        self.extra = rule.extra(table)
        changes = (table[1:] != table[:-1]).flatten(1).any(1)
        self.changed: list[bool] = changes.tolist()
        self.table = table.to(like)
        self.before = self.table[0]
        self.rows: Sequence[Tensor] = self.table[1:].unbind(0) if any(self.changed) else [self.before] * count


def _numbers(starts: Starts, count: int) -> Tensor:
    """Numbers of the updates, the trial's first being 1, [1 + count, K]; the first row is the second again."""
    first = torch.tensor([[update for _, update in starts]], dtype=torch.float64)
    return first + torch.arange(count + 1, dtype=torch.float64).clamp(min=1).unsqueeze(1)


def _rates(starts: Starts, count: int) -> Tensor:
    """Learning rates, [1 + count, K]; the first row is the second again."""
    shapes = []
    for config, update in starts:
        method = config.method
        shape = (method.lr_schedule, method.lr_warmup, method.lr_step, method.lr_factor)
        shapes.append(_rates_of_one(*shape, config.updates, update, count))
    return torch.stack(shapes, 1) * torch.tensor([config.method.lr for config, _ in starts], dtype=torch.float64)


@lru_cache(maxsize=256)
def _rates_of_one(schedule: str, warmup: int, step: int, factor: float, updates: int, start: int, count: int) -> Tensor:
    """Over lr, so that trials which differ in lr alone have them worked out once."""
    method = MethodConfig("sgd", 1.0, lr_schedule=schedule, lr_warmup=warmup, lr_step=step, lr_factor=factor)
    rates: list[float] = []
    while len(rates) < count:
        t = start + len(rates)
        rates += [optim.learning_rate(t, method, updates)] * _steady(t, method, updates, count - len(rates))
    return torch.tensor([rates[0], *rates], dtype=torch.float64)


def _mus(config: TrialConfig, start: int, count: int) -> Tensor:
    """Return mu of `count` updates and of the one after, [1 + count]."""
    method = config.method
    if method.lr_schedule != "constant" or method.lr_warmup:
        method = _at_constant_rate(method)
    mus: list[Tensor] = []
    t, end = start, start + count + 1
    while t < end:
        some = _steady(t, method, config.updates, end - t)
        mus.append(torch.full((some,), optim.momentum(t, method, config.updates), dtype=torch.float64))
        t += some
    return mus[0] if len(mus) == 1 else torch.cat(mus)


@lru_cache(maxsize=256)
def _at_constant_rate(method: MethodConfig) -> MethodConfig:
    return replace(method, lr_schedule="constant", lr_warmup=0)


def _steady(t: int, method: MethodConfig, updates: int, most: int) -> int:
    """Return how many updates from `t` on are under the same coefficients."""
    until = optim.constant_until(t, method, updates)
    return most if until is None else min(until - t, most)
