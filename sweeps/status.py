"""The state of a running sweep as plain values, for the live table."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from sweeps.board import Board
from sweeps.history import END_STATES, Trial
from sweeps.stages import is_search


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


def status(board: Board, meter: Meter, why: str = "") -> dict[str, Any]:
    """Counts by state and by stage, best trial, rungs, speed, the time left and groups, as the live table shows them.

    Args:
        board: what is told of.
        meter: of this board.
        why: what a worker needs and what the cluster has, for groups that have no worker.
    """
    tally = board.history.tally
    states = tally.by_state()
    updates = tally.updates.total()
    rate = meter.rate(updates)
    leader = tally.best(board.spec.mode)
    rungs = {rung: [tally.reached[rung], tally.passed[rung]] for rung in board.spec.rungs()}
    left, sizes = _updates_left(board, rungs), board.sizes
    ended = {name: counts.total() - counts["running"] for name, counts in tally.states.items()}
    return {
        "trials": {
            "asked": states.total(),
            "budget": sum(sizes.values()),
            "running": states["running"],
            **{state: states[state] for state in END_STATES},
        },
        "stages": {name: [ended.get(name, 0), size] for name, size in sizes.items()},
        "confirming": board.history.confirming,
        "best": leader and {"trial": leader.number, "objective": leader.objective, "params": leader.params},
        "rungs": rungs,
        "updates": updates,
        "updates_per_s": rate,
        "eta_s": left / rate if rate > 0 else None,
        "elapsed_s": meter.elapsed,
        "trouble": board.trouble,
        "note": board.note,
        "lost": board.lost,
        "groups": board.groups(),
        "waiting": board.waiting(why),
    }


def _updates_left(board: Board, rungs: dict[int, list[int]]) -> float:
    """Trial-updates still to do, those of other stages in updates that take as long as what trains now."""
    tally, cost = board.history.tally, _seconds_per_update(board)
    running = list(tally.running.values())
    known = [cost[trial.stage] for trial in running if trial.stage in cost]
    now = sum(known) / len(known) if known else 0.0
    asked = {name: counts.total() for name, counts in tally.states.items()}
    total = 0.0
    for name, size in board.sizes.items():
        mine = [trial for trial in running if trial.stage == name]
        if is_search(name):
            left = _search_left(board, rungs, mine, size - asked.get(name, 0))
        else:
            updates = mine[0].config["updates"] if mine else board.spec.training.updates
            left = sum(updates - trial.updates for trial in mine) + updates * (size - asked.get(name, 0))
        total += left * (cost[name] / now if now and name in cost else 1.0)
    return total


def _seconds_per_update(board: Board) -> dict[str, float]:
    """What an update of a trial took so far, by stage."""
    tally = board.history.tally
    return {name: s / n for name, n in tally.updates.items() if n and (s := tally.seconds[name]) > 0}


def _search_left(board: Board, rungs: dict[int, list[int]], running: list[Trial], to_come: int) -> float:
    """Updates of the search if rungs pass as many as they have passed so far (1/factor where none was judged)."""
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

    return sum(expected(trial.updates) for trial in running) + expected(0) * to_come
