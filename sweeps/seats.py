"""The Ray Tune side of the search: hands out seats for groups' workers. Who trains what is the board's to say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune import Stopper
from ray.tune.search import Searcher


class Seats(Searcher):  # type: ignore[misc]
    """Proposes a Tune trial for each group: its worker. One that died has its seat handed out `again`, as a new trial.

    Args:
        groups: how many.
        config: what each group's config holds beside its `group` number.
        timer: monotonic seconds.
    """

    def __init__(
        self, groups: int, config: Mapping[str, Any] | None = None, timer: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._config = dict(config or {})
        self._timer = timer
        self._due = [(-float("inf"), group) for group in range(groups)]
        """Groups that need a worker, and from when on."""
        self.over = False
        """Whether nothing more will be done."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:  # noqa: ARG002 - Tune's signature
        """Accept any metric and mode; there is nothing here that looks at results."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # noqa: ARG002 - Tune's signature
        """The config of the next group that needs a worker now, None if none does, or `Searcher.FINISHED`."""
        if self.over:
            return str(Searcher.FINISHED)
        if not self._due or min(self._due)[0] > self._timer():
            return None
        due = min(self._due)
        self._due.remove(due)
        return {**self._config, "group": due[1]}

    def again(self, group: int, delay_s: float) -> None:
        """A group needs another worker, after so many seconds."""
        self._due.append((self._timer() + delay_s, group))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: a group's end is known to the board."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing that matters: Tune's state is never restored."""
        Path(checkpoint_path).write_text(json.dumps({}))

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing; see `save`."""


class WhenOver(Stopper):  # type: ignore[misc]
    """Ends the experiment when nothing more will be done, though seats may still wait for room.

    Args:
        seats: knows.
    """

    def __init__(self, seats: Seats) -> None:
        self._seats = seats

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 - Tune's signature
        """Let every worker go on."""
        return False

    def stop_all(self) -> bool:
        """Whether it is over."""
        return self._seats.over
