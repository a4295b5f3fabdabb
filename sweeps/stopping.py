"""Asynchronous successive halving: a pure function, and one that keeps its scores in order. No clock, no library.

NaN policy: a score that is not finite is never promoted, and counts as a score worse than every finite one.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

Mode = Literal["min", "max"]
Order = Literal["number", "arrival"]


def promote(
    number: int,
    score: float,
    others: Iterable[tuple[int, float]],
    factor: int,
    mode: Mode = "min",
    order: Order = "number",
) -> bool:
    """Whether a trial goes on past a rung, a decision that is never taken back.

    A score that is not finite is never promoted and ranks last for others. Otherwise a trial is judged among
    the m scores of its class at this rung, its own included: with `order="number"` those of trials 0..number,
    with `"arrival"` all in `others`. It goes on if its rank, the lower number first among equals, is at most
    max(1, m // factor).

    m // factor is the top k of ASHA (Li et al. 2020, algorithm 2). There the first factor - 1 trials of a rung
    are paused and may go on later; a slot here is refilled at once, so a trial of theirs goes on if it is the
    best so far, as in Optuna's pruner. Rounding up instead would let more than 1 / factor of exchangeable
    trials through, and later proposals, being better than exchangeable, pass more often anyway.

    Args:
        number: the trial's number.
        score: its score at the rung.
        others: (number, score) pairs of the same class and rung, in any order; one of `number` itself is ignored.
        factor: the reduction factor, 2 or more.
        mode: `min` if lower scores are better.
        order: whom a trial is judged against.

    Raises:
        ValueError: a factor below 2, or an unknown mode or order.
    """
    if factor < 2:
        raise ValueError(f"factor={factor}: at least 2")
    if mode not in ("min", "max"):
        raise ValueError(f"mode={mode!r}: min or max")
    if order not in ("number", "arrival"):
        raise ValueError(f"order={order!r}: number or arrival")
    if not math.isfinite(score):
        return False
    judges = [pair for pair in others if pair[0] != number and (order == "arrival" or pair[0] < number)]
    own = (_cost(score, mode), number)
    rank = 1 + sum((_cost(theirs, mode), other) < own for other, theirs in judges)
    return rank <= max(1, (len(judges) + 1) // factor)


_MOST = 2**24
"""Trials that a sweep may have; the scores of one are in as many sorted lists as this has binary digits."""


class Standing:
    """The scores of one rung and class; `passes` is `promote` among them, in log n steps instead of n.

    A Fenwick tree over trial numbers, each node with the sorted costs of the numbers it covers: how many of the trials
    0..n cost less than this one is then a few searches in sorted lists.
    """

    def __init__(self, mode: Mode) -> None:
        self._mode: Mode = mode
        self._costs: dict[int, float] = {}
        self._nodes: defaultdict[int, list[float]] = defaultdict(list)
        self._all: list[float] = []

    def __setitem__(self, number: int, score: float) -> None:
        """Enter a trial's score, in the place of one that it had before."""
        cost = _cost(score, self._mode)
        old = self._costs.get(number)
        if cost == old:
            return
        self._costs[number] = cost
        place = number + 1
        while place <= _MOST:
            _replace(self._nodes[place], old, cost)
            place += place & -place
        _replace(self._all, old, cost)

    def passes(self, number: int, score: float, factor: int, order: Order = "number") -> bool:
        """Whether a trial that has this score here goes on: what `promote` says of the same scores."""
        if not math.isfinite(score):
            return False
        cost = _cost(score, self._mode)
        own = self._costs.get(number)
        lower, equal, among = 0, 0, 0  # of the trials 0..number - 1
        place = number
        while place:
            node = self._nodes.get(place, ())
            less = bisect_left(node, cost)
            lower, equal, among = lower + less, equal + bisect_right(node, cost) - less, among + len(node)
            place -= place & -place
        if order == "arrival":
            lower = bisect_left(self._all, cost) - (own is not None and own < cost)
            among = len(self._all) - (own is not None)
        return 1 + lower + equal <= max(1, (among + 1) // factor)


def _replace(costs: list[float], old: float | None, new: float) -> None:
    if old is not None:
        del costs[bisect_left(costs, old)]
    insort(costs, new)


def _cost(score: float, mode: Mode) -> float:
    """The score as something to minimise, infinite if it is not finite."""
    if not math.isfinite(score):
        return math.inf
    return score if mode == "min" else -score


def class_of(params: Mapping[str, Any], compare_within: Sequence[str] | None) -> tuple[Hashable, ...]:
    """The key of the trials that a trial is compared with: its values of the `compare_within` parameters.

    A parameter that a trial does not have, being fixed or not active, counts as the value None.
    """
    return tuple(params.get(name) for name in compare_within or ())
