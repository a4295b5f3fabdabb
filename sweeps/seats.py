"""The Ray Tune side of the search: hands out seats for groups. Who trains what is the board's to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher


class Seats(Searcher):  # type: ignore[misc]
    """Proposes `groups` Tune trials, each a group's worker for the whole sweep, and then no more.

    Args:
        groups: how many.
        config: what each group's config holds beside its `group` number.
    """

    def __init__(self, groups: int, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._groups = groups
        self._config = dict(config or {})
        self._next = 0

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:  # noqa: ARG002 - Tune's signature
        """Accept any metric and mode; there is nothing here that looks at results."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # noqa: ARG002 - Tune's signature
        """The config of the next group, or `Searcher.FINISHED`."""
        if self._next >= self._groups:
            return str(Searcher.FINISHED)
        group = self._next
        self._next += 1
        return {**self._config, "group": group}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: a group's end is known to the board."""

    def save(self, checkpoint_path: str) -> None:
        """Write how many seats were handed out."""
        Path(checkpoint_path).write_text(json.dumps({"next": self._next}))

    def restore(self, checkpoint_path: str) -> None:
        """Read what `save` wrote."""
        self._next = json.loads(Path(checkpoint_path).read_text())["next"]
