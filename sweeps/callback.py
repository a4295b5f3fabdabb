"""What Ray Tune tells the board: a group whose worker failed for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray import tune


class LostGroups(tune.Callback):  # type: ignore[misc]
    """Tells the board when Tune gives a group up, so that the other groups do not wait for it."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002 - Tune's
        """Tune has restarted this group as often as it may."""
        ray.get(self._board.lose.remote(trial.config["group"], _reason(trial.error_file)))


def _reason(error_file: str | None) -> str:
    """The last line of Tune's error file: the exception's own words."""
    try:
        lines = Path(error_file or "").read_text().strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "its process died"
