"""What the board and a group's worker say to each other, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What a worker reports of one trial at one update. `score` is what rungs compare."""

    number: int
    update: int
    metrics: Mapping[str, float]
    score: float
    wall_s: float
    diverged_at: int | None = None
    failed: str | None = None
    traceback: str = ""
    returned: bool = False
    """The trial's own function ended after its last report, which is not repeated here."""
    init: Mapping[str, float] | None = None
    """What was measured before the first update."""
    doomed: str | None = None
    """Why the trial's net cannot start; at update 0 it was not trained for that."""
    engine: str | None = None
    """What trained it, where that is not all that trains its group."""
    fork_s: float = 0.0
    """Seconds in which its forks were trained."""

    @property
    def skipped(self) -> bool:
        """Whether the trial was not trained because its net cannot start."""
        return self.doomed is not None and not self.update


@dataclass(frozen=True, slots=True)
class Seated:
    """A trial that a group holds: what it is, its stage, and the update it last reported."""

    stage: str
    config: dict[str, Any]
    update: int = 0

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.config["number"])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a group does next: drop these trials, add those, then go on unless `done` or `leave`."""

    drop: tuple[int, ...] = ()
    new: tuple[Seated, ...] = ()
    """Trials to take in, from their first update or, where another group had them before, from their last report."""
    only_new: bool = False
    """Train and report the new ones alone: the round still waits for them, and has all others of this group."""
    checkpoint: bool = False
    """Some trial passed a rung in this round."""
    done: bool = False
    """No trial is left for this group, and none will come."""
    leave: bool = False
    """The sweep is being interrupted: checkpoint and leave."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A group's place at the board, and the trials it holds."""

    incarnation: int
    trials: tuple[Seated, ...]
    resident: int | None = None
    """How many trials may be in memory at once; None: all."""
    alone: bool = False
    """Train one by one until it is known which trial raises an error."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs."""

    host: str
    node: str
    """Ray's id of the node."""
    pid: int
    created: float
    """When the process was started, by its own system's account: a later process may have the same pid."""
    device: str = "cpu"


class StaleWorkerError(RuntimeError):
    """A worker that was replaced spoke up; it must end without touching anything."""
