"""A comparison's numbers in MLflow: kept up to comparison.json, which may be made anew after all else is mirrored.

MLflow keeps every value of a metric and shows the one of the greatest step and time. So a value that is there already
is left alone, and one that has changed is written a millisecond after the last: done twice, it is done once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeps import tracked, tracked_comparison
from sweeps.comparison import Comparison
from sweeps.history import History, Trial
from sweeps.tracked_comparison import GAP

Point = tuple[str, float, int, int]
NAN = float("nan")  # a metric cannot be deleted


class Verdict:
    """What MLflow holds of a sweep's comparison, and what it should hold."""

    def __init__(self, folder: Path, client: Any) -> None:
        self._folder, self._client = folder, client
        self._stamp: list[int] = []
        self._comparison: Comparison | None = None
        self._gaps: dict[int, float] = {}
        self._there: dict[str, float] = {}  # gap by run id, as MLflow has it
        self._parent: Mapping[str, Any] = {}
        self._tags: Mapping[str, str] = {}
        self._settled = False

    def looked(self, parent: Any | None, children: Iterable[Any]) -> None:
        """Take note of the runs that MLflow holds now."""
        self._parent = dict(parent.data.metrics) if parent is not None else {}
        self._tags = dict(parent.data.tags) if parent is not None else {}
        self._there = {run.info.run_id: run.data.metrics[GAP] for run in children if GAP in run.data.metrics}
        self._settled = False

    def refresh(self, history: History) -> None:
        """Read comparison.json if it is new."""
        try:
            stat = (self._folder / tracked_comparison.FILE).stat()
            stamp = [stat.st_mtime_ns, stat.st_size, stat.st_ino]
        except FileNotFoundError:
            stamp = []
        if stamp == self._stamp:
            return
        self._stamp, self._comparison = stamp, tracked_comparison.read(self._folder)
        told = self._comparison
        self._gaps = tracked_comparison.gaps(told, history.trials.values()) if told is not None else {}
        self._settled = False

    def first(self, run_id: str, trial: Trial, end: int) -> list[Point]:
        """A trial's gap, to go with the rest that is written at its end; nothing if it is there or not known."""
        gap = self._gaps.get(trial.number)
        if gap is None or run_id in self._there:
            return []
        return [(GAP, gap, end, trial.updates)]

    def wrote(self, run_id: str, points: Iterable[Point]) -> None:
        """Points of `first` have arrived."""
        for name, value, *_ in points:
            if name == GAP:
                self._there[run_id] = value

    def settle(self, parent: str, runs: Mapping[int, str], history: History, go_on: Callable[[], None]) -> None:
        """Bring the parent and the ended trials up to the comparison.

        Args:
            parent: the parent's run id.
            runs: run id by number of the trials that MLflow has whole.
            history: the sweep's.
            go_on: called between two requests; may raise.

        Raises:
            Exception: whatever MLflow raises; look again, then call again.
        """
        if self._settled or self._comparison is None:
            return
        for number, run_id in runs.items():
            trial = history.trials[number]
            wanted = {GAP: self._gaps[number]} if number in self._gaps else {}
            there = {GAP: self._there[run_id]} if run_id in self._there else {}
            end = tracked.millis(trial.ended_at or 0.0)
            if points := self._changes(run_id, wanted, there, end, trial.updates):
                go_on()
                self._client.write(run_id, points)
                self.wrote(run_id, points)
        ends = [trial.ended_at or 0.0 for trial in history.trials.values()]
        at = tracked.millis(max(ends, default=0.0) or history.opened_at or 0.0)
        metrics = tracked_comparison.metrics(self._comparison)
        there = {name: value for name, value in self._parent.items() if tracked_comparison.ours(name)}
        points = self._changes(parent, metrics, there, at, 0)
        tags = tracked_comparison.tags(self._comparison)
        changed = tracked.differs(tags, self._tags)
        if points or changed:
            self._client.write(parent, points, tags=changed)
        for name in self._tags:
            if name.startswith(tracked_comparison.VERDICT) and name not in tags:
                self._client.delete_tag(parent, name)
        self._parent = {**self._parent, **{name: value for name, value, *_ in points}}
        self._tags = {n: v for n, v in self._tags.items() if not n.startswith(tracked_comparison.VERDICT)} | tags
        self._settled = True

    def _changes(
        self, run_id: str, wanted: Mapping[str, float], there: Mapping[str, float], at: int, step: int
    ) -> list[Point]:
        """Points that make MLflow show what is wanted; what is no longer known becomes not a number."""
        gone = dict.fromkeys(there.keys() - wanted.keys(), NAN)
        changed = tracked.differs({**wanted, **gone}, there)
        points = []
        for name, value in sorted(changed.items()):
            when = at
            if name in there:
                when = 1 + max(point.timestamp for point in self._client.get_metric_history(run_id, name))
            points.append((name, value, when, step))
        return points
