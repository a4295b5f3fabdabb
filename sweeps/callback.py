"""What Ray Tune tells: a worker has died, or has come to its end. What follows is the board's to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray import tune

from sweeps.seats import Seats


class Ends(tune.Callback):  # type: ignore[misc]
    """Tells the board of workers' ends, and has the seat of one that died handed out again.

    Args:
        board: the board's actor.
        seats: of the same sweep.
    """

    def __init__(self, board: Any, seats: Seats) -> None:
        self._board, self._seats = board, seats

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002 - Tune's
        """A worker has died, or could not be started."""
        group = trial.config["group"]
        delay = ray.get(self._board.fault.remote(group, _told(trial.error_file)))
        if delay is not None:
            self._seats.again(group, delay)
        self._look()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002 - Tune's
        """A worker was told that there is nothing more to do, and has ended."""
        self._look()

    def _look(self) -> None:
        self._seats.over = ray.get(self._board.over.remote())


def _told(error_file: str | None) -> str:
    """What Tune knows of a death."""
    try:
        return Path(error_file or "").read_text()
    except OSError:
        return ""
