"""The driver's part of a sweep as a measurement calls it: what `musweep run` does beside Ray, two looks a second.

MLflow is one that takes all and keeps nothing: what a real one costs is `mlflow_copy.py`'s to say.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MIRROR_EVERY, STATUS_EVERY = 2, 4
"""Looks between rounds of the mirror (one a second at most) and writings of status.json (one in two seconds)."""

ASKS = (500, 1000, 2000, 3000, 5000, 7000, 10_000)


class Costs:
    """CPU seconds by who spent them, with how often; of reports also each one's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.lags: list[float] = []
        self._each: list[float] = []
        self._asks: list[tuple[int, float]] = []

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Do something and note what it took."""
        began, wall = time.thread_time(), time.perf_counter()
        found = work()
        spent = time.thread_time() - began
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.calls[name] = self.calls.get(name, 0) + 1
        if name == "board, reports":
            self.lags.append(time.perf_counter() - wall)
            self._each.append(spent)
        return found

    def seated(self, trials: Iterable[int]) -> None:
        """The last report was answered with these new trials."""
        self._asks += [(number, self._each[-1]) for number in trials]

    def asks(self) -> dict[str, float]:
        """Milliseconds of a report that was answered with a new trial, by the trials asked for until then."""
        found = {}
        for low, high in itertools.pairwise(ASKS):
            some = [1e3 * spent for number, spent in self._asks if low <= number < high]
            if some:
                found[f"{low}-{high}"] = sum(some) / len(some)
        return found

    def fifths(self) -> list[float]:
        """Microseconds of a report, from the first fifth of them to the last."""
        cut = [len(self._each) * i // 5 for i in range(6)]
        return [1e6 * sum(self._each[a:b]) / max(1, b - a) for a, b in itertools.pairwise(cut)]


class _Page(list[Any]):
    """No runs, and no more of them."""

    token = None


class Nowhere:
    """An MLflow that takes everything."""

    def __init__(self) -> None:
        self._runs = itertools.count()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_arguments, **_options: None

    def create_experiment(self, _name: str, **_place: str) -> str:
        return "1"

    def search_runs(self, *_arguments: Any, **_options: Any) -> _Page:
        return _Page()

    def create_run(self, *_arguments: Any) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=f"{next(self._runs):032x}"))


class Driver:
    """Follows a board that is called by others.

    Args:
        folder: the sweep's.
        spec: the sweep's.
        state: asks the board for its status.
        costs: where to note what each look took.
    """

    def __init__(self, folder: Path, spec: Any, state: Callable[[], dict[str, Any]], costs: Costs) -> None:
        from sweeps import journal, tracked
        from sweeps.drive import Rows
        from sweeps.mlflow_copy import Copy
        from sweeps.telemetry import Watch

        self._folder, self._state, self._costs = folder, state, costs
        self._watch = Watch(folder, spec.model_dump(mode="json"), 1)
        self._rows = Rows(folder, self._watch)
        self._rows.follow()
        self._looks = 0
        self._follower, self._offset, self._fence = tracked.Follower(), 0, journal.Fence()
        self._copy = Copy(folder, Nowhere(), "nowhere", None, repair=False)

    def look(self) -> None:
        """What happens twice a second."""
        time_ = self._costs.time
        state = time_("board, status", lambda: {**self._state(), "phase": "searching"})
        time_("driver, telemetry", lambda: self._watch(state))
        time_("driver, rows and events", self._rows.follow)
        self._looks += 1
        if self._looks % MIRROR_EVERY == 0:
            time_("driver, mirror", self._mirror)
        if self._looks % STATUS_EVERY == 0:
            time_("driver, telemetry", self._watch._write)

    def close(self) -> None:
        """What is left when all trials have ended."""
        self._costs.time("driver, rows and events", self._rows.close)
        self._costs.time("driver, mirror", self._mirror)

    def _mirror(self) -> None:
        from sweeps import journal

        records, self._offset = journal.tail(self._folder / "journal.jsonl", self._offset, self._fence)
        self._follower.apply(records)
        self._copy.push(self._follower, final=False)
