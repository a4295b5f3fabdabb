"""Which ended trials a model learns from: the best ones, and of the others the latest. An entry costs log n."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any

AUTO = 750
"""Ended trials that a model learns from unless the spec says otherwise; fewer are all learnt from."""
LEAST = 75
"""A third of a window are the best trials: as many as TPE, which calls at most 25 good, ever asks for."""


class Window:
    """Numbers of ended trials, at most `size`: the best third of all that were ever added, of the others the latest.

    What is in it is a function of what was added, in whatever order.
    """

    def __init__(self, size: int) -> None:
        self._best_size, self._latest_size = size // 3, size - size // 3
        self._best: list[tuple[Any, int]] = []
        self._latest: list[int] = []
        self._numbers: list[int] = []

    def __iter__(self) -> Iterator[int]:
        """The numbers, ascending."""
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, rank: Any) -> int | None:
        """Take in a trial, whose rank is the less the better; return the number that has to leave for it, if any."""
        insort(self._best, (rank, number))
        insort(self._numbers, number)
        if len(self._best) <= self._best_size:
            return None
        insort(self._latest, self._best.pop()[1])
        if len(self._latest) <= self._latest_size:
            return None
        left = self._latest.pop(0)  # it never comes back: the best only get better, the latest later
        del self._numbers[bisect_left(self._numbers, left)]
        return left
