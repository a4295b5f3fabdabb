"""The state of a running sweep as plain values, for the live table."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from sweeps.board import Board
from sweeps.history import END_STATES, History, Trial


class Meter:
    """Updates per second over the last half minute."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._began = time.monotonic()

    def rate(self, updates: int) -> float:
        """Note the total so far; return the recent rate."""
        now = time.monotonic()
        self._marks.append((now, updates))
        while len(self._marks) > 2 and now - self._marks[0][0] > 30:
            self._marks.popleft()
        start, before = self._marks[0]
        span = now - start
        return (updates - before) / span if span > 0 else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the meter was made."""
        return time.monotonic() - self._began


def best(history: History, mode: str) -> Trial | None:
    """The best trial: of the complete ones; of all that have an objective while none is complete."""
    sign = 1.0 if mode == "min" else -1.0
    for state in ("complete", "stopped"):
        trials = [t for t in history.trials.values() if t.state == state and t.objective is not None]
        if trials:
            return min(trials, key=lambda t: (sign * (t.objective or 0.0), t.number))
    return None


def status(board: Board, meter: Meter) -> dict[str, Any]:
    """Counts, best trial, rungs, speed and the time left, as the live table shows them."""
    trials = board.history.trials
    states = Counter(trial.state for trial in trials.values())
    updates = sum(trial.updates for trial in trials.values())
    rate = meter.rate(updates)
    leader = best(board.history, board.spec.mode)
    rungs = {
        rung: [
            sum(rung in trial.scores or rung in trial.promoted for trial in trials.values()),
            sum(rung in trial.promoted for trial in trials.values()),
        ]
        for rung in board.spec.rungs()
    }
    left = _updates_left(board, rungs)
    return {
        "trials": {
            "asked": len(trials),
            "budget": board.budget,
            "running": states["running"],
            **{state: states[state] for state in END_STATES},
        },
        "best": leader and {"trial": leader.number, "objective": leader.objective, "params": leader.params},
        "rungs": rungs,
        "updates": updates,
        "updates_per_s": rate,
        "eta_s": left / rate if rate > 0 else None,
        "elapsed_s": meter.elapsed,
        "trouble": board.trouble,
        "lost": board.lost,
    }


def _updates_left(board: Board, rungs: dict[int, list[int]]) -> float:
    """Trial-updates still to do, if rungs pass as many as they have passed so far (1/factor where none was judged)."""
    stopping = board.spec.early_stopping
    share = 1 / stopping.factor if stopping else 1.0
    passes = {rung: promoted / reached if reached else share for rung, (reached, promoted) in rungs.items()}
    ends = [*rungs, board.spec.training.updates]

    def expected(update: int) -> float:
        """Updates that a trial at this update has before it."""
        total, chance = 0.0, 1.0
        for end in ends:
            if end > update:
                total += chance * (end - update)
                update = end
                chance *= passes.get(end, 0.0)
        return total

    running = sum(expected(t.updates) for t in board.history.trials.values() if t.state == "running")
    return running + expected(0) * (board.budget - len(board.history.trials))
