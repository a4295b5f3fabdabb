"""From a sweep's folder to its arms: the confirmed points and baselines, each with what its trials came to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps import history as histories
from sweeps import stages
from sweeps.comparison import Arm, Curve
from sweeps.folder import read_spec_file
from sweeps.history import History, Trial
from sweeps.labels import label
from sweeps.schema_baselines import Compare

STUCK = 0.9
"""A run that ends above this share of a constant output's error is stuck, unless the spec says another error."""

RATES = ("error", "recall_errors", "errors")
"""Metrics that count examples or symbols, so that their smallest step is one of an example's."""


@dataclass(frozen=True, slots=True)
class Study:
    """A sweep's folder as comparing reads it."""

    folder: Path
    spec: Mapping[str, Any]
    """spec.json, with `resolved`."""
    history: History
    rules: Compare
    metric: str
    mode: str

    @property
    def name(self) -> str:
        """What to call it beside others."""
        return self.history.sweep_id or self.folder.resolve().name

    @property
    def trivial(self) -> float | None:
        """The metric of the best constant output; None if it is not known."""
        value = ((self.spec.get("resolved") or {}).get("trivial") or {}).get(self.metric)
        return float(value) if value else None

    @property
    def stuck_above(self) -> float | None:
        """A run that ends above this value is stuck, in mode max one below it; None if that is not known.

        In mode max the error is the distance to 1, as everywhere in comparing.
        """
        if self.rules.stuck is not None:
            return self.rules.stuck
        if self.trivial is None:
            return None
        return self.trivial * STUCK if self.mode == "min" else 1 - STUCK * (1 - self.trivial)

    @property
    def data(self) -> Mapping[str, Any]:
        """What was resolved of the data: `source`, `look_alike`, `train_examples`."""
        return (self.spec.get("resolved") or {}).get("data") or {}

    def better(self, one: float, other: float) -> bool:
        """Whether a value is strictly better than another."""
        return one < other if self.mode == "min" else one > other


@dataclass(frozen=True, slots=True)
class Runs:
    """The trials of an arm: those that count, sorted by how they ended, and those that do not."""

    stage: str
    point_id: str
    searched: float | None
    trials: list[Trial]
    """Those with an outcome, by number."""
    values: dict[int, float | None]
    """The metric at the end, by trial; None of those that diverged."""
    stuck: set[int] = field(default_factory=set)
    """Those that ended above the stuck error, without those that diverged."""
    failed: list[Trial] = field(default_factory=list)
    """Ended by a fault, which says nothing of the method."""
    unfinished: list[Trial] = field(default_factory=list)
    due: int = 0
    """Seeds that were asked for and have not begun, of a sweep that is not done."""

    @property
    def diverged(self) -> list[Trial]:
        """Those that diverged."""
        return [trial for trial in self.trials if self.values[trial.number] is None]

    @property
    def finishers(self) -> list[Trial]:
        """Those neither stuck nor diverged."""
        return [t for t in self.trials if self.values[t.number] is not None and t.number not in self.stuck]

    @property
    def ends(self) -> list[float]:
        """The finishers' values at the end."""
        return [value for trial in self.finishers if (value := self.values[trial.number]) is not None]

    @property
    def budget(self) -> float:
        """What a trial may spend, in gradients of one example."""
        each = [trial.config["updates"] * trial.config.get("batch", 1) for trial in self.trials]
        return float(statistics.median(each)) if each else 0.0

    @property
    def iterations(self) -> float | None:
        """Median outer iterations of runs of HF; None of others."""
        ends = (trial.metrics.get(trial.updates, {}).get("hf_iterations") for trial in self.trials)
        done = [each for each in ends if each is not None]
        return statistics.median(done) if done else None

    @property
    def seconds(self) -> float:
        """Median seconds of training."""
        return statistics.median(trial.wall_s for trial in self.trials) if self.trials else 0.0


def read(folder: Path) -> Study:
    """Read a sweep's folder, also beside a running sweep.

    Raises:
        FileNotFoundError: the folder is no sweep.
        JournalError: its journal is damaged.
    """
    spec = read_spec_file(folder)
    rules = Compare.model_validate(spec.get("compare") or {})
    objective = spec.get("objective") or ""
    metric = objective.get("metric", "") if isinstance(objective, dict) else str(objective)
    return Study(folder, spec, histories.load(folder), rules, rules.metric or metric, spec.get("mode") or "min")


def confirmed(study: Study) -> dict[str, Runs]:
    """The arms' trials by the arm's name: p1, p2, ... in the search's order, then each baseline by its own name."""
    points: dict[tuple[str, str], list[Trial]] = {}
    for _, trial in sorted(study.history.trials.items()):
        if stages.is_confirm(trial.stage):
            points.setdefault((trial.stage, trial.point_id), []).append(trial)
    arms = [_runs(study, stage, point, trials) for (stage, point), trials in points.items()]
    found = {f"p{rank}": runs for rank, runs in enumerate(_ranked(study, arms, stages.CONFIRM), 1)}
    for stage in dict.fromkeys(runs.stage for runs in arms if runs.stage != stages.CONFIRM):
        for rank, runs in enumerate(_ranked(study, arms, stage), 1):
            name = stages.baseline_of(stage)
            found[name if rank == 1 else f"{name}-{rank}"] = runs
    return found


def _ranked(study: Study, arms: Iterable[Runs], stage: str) -> list[Runs]:
    """A stage's arms, the one that the search thought best first; those asked for first among equals."""
    ranking: Any = study  # of a spec only its mode is asked for
    found = stages.in_stage(study.history, _searching(stage))
    rank = {point.point_id: place for place, point in enumerate(stages.best_points(ranking, found, len(found)))}
    mine = [runs for runs in arms if runs.stage == stage]
    return sorted(mine, key=lambda runs: rank.get(runs.point_id, len(rank)))


def _searching(stage: str) -> str:
    """The stage that found what a stage confirms."""
    return stage.replace(stages.CONFIRM, stages.SEARCH, 1)


def _runs(study: Study, stage: str, point: str, trials: Sequence[Trial]) -> Runs:
    ended = [trial for trial in trials if trial.state in ("complete", "diverged")]
    values = {trial.number: end_of(trial, study.metric) for trial in ended}
    limit = study.stuck_above
    seeds = 0 if study.history.closed in ("finished", "budget") else (study.spec.get("confirm") or {}).get("seeds", 0)
    stuck = {
        number
        for number, value in values.items()
        if value is not None and limit is not None and study.better(limit, value)
    }
    return Runs(
        stage, point, searched(study, stage, point), ended, values, stuck,
        [trial for trial in trials if trial.state in ("failed", "skipped")],
        [trial for trial in trials if trial.state in ("running", "stopped")],
        max(0, int(seeds) - len(trials)),
    )  # fmt: skip


def end_of(trial: Trial, metric: str) -> float | None:
    """What a trial measured at its end; None if it diverged."""
    value = trial.metrics.get(trial.updates, {}).get(metric, math.nan)
    return value if trial.state == "complete" and math.isfinite(value) else None


def searched(study: Study, stage: str, point: str) -> float | None:
    """What the search saw at a point, averaged over its replicates there."""
    seen = [t for t in stages.in_stage(study.history, _searching(stage)) if t.point_id == point]
    values = [value for trial in seen if (value := end_of(trial, study.metric)) is not None]
    return statistics.fmean(values) if values else None


@dataclass(frozen=True, slots=True)
class Scale:
    """How values of a metric are read as positive errors, whose ratios mean something (`compare.errors`)."""

    mode: str
    zero: float
    """What an error of 0 counts as."""

    def errors(self, values: Iterable[float | None]) -> tuple[float | None, ...]:
        """Positive errors. Raises ValueError for a value beyond the best possible one."""
        from sweeps.compare import errors

        return errors(values, self.mode, zero=self.zero)

    def typical(self, ends: Sequence[float]) -> tuple[float | None, float | None, float | None]:
        """Geometric mean of errors with its interval, as values of the metric; None without runs or without ratios."""
        from sweeps.compare import typical

        try:
            found = typical([error for error in self.errors(ends) if error is not None])
        except ValueError:
            return None, None, None
        if self.mode == "min":
            return found
        middle, high, low = (None if error is None else 1 - error for error in found)
        return middle, low, high


def scale(study: Study, every: Iterable[Runs]) -> Scale:
    """The scale that arms are compared on: one for all of them."""
    from sweeps.compare import floor

    rate = study.metric.partition("_")[2] in RATES
    ends = [value for runs in every for value in runs.values.values()]
    return Scale(study.mode, floor(ends, study.mode, examples=_measured_on(study) if rate else None))


def _measured_on(study: Study) -> int | None:
    """As `examples`, or as many as the part has."""
    asked, part = examples(study), study.metric.partition("_")[0]
    have = study.data.get(f"{part}_examples")  # 0 where they are drawn online
    return min(asked, int(have)) if asked and have else asked


def examples(study: Study) -> int | None:
    """On how many examples of a part confirmed trials are to be measured; a trainer measures as it likes: None."""
    if study.spec.get("trainer"):
        return None
    confirm, training = (study.spec.get(key) or {} for key in ("confirm", "training"))
    found = confirm.get("eval_examples") or training.get("eval_examples")
    return None if found is None else int(found)


def apart(study: Study, every: Sequence[Runs], on: Scale) -> bool:
    """Whether stuck runs are a sort of their own: no finisher of any arm is within the margin of one.

    Where they are not the line, a share of a constant's error, was drawn through runs of one kind, and to count those
    on either side of it would make a difference of what is none. A line that the spec draws is kept.
    """
    if study.rules.stuck is not None:
        return True
    try:
        ended = [on.errors(runs.ends) for runs in every]
        caught = [on.errors(runs.values[number] for number in runs.stuck) for runs in every]
    except ValueError:
        return True
    best = min((error for errors in caught for error in errors if error is not None), default=math.inf)
    worst = max((error for errors in ended for error in errors if error is not None), default=0.0)
    return best >= (1 + study.rules.margin) * worst


def arm(study: Study, name: str, runs: Runs, kind: str, on: Scale, target: float | None) -> Arm:
    """An arm as it is stored and shown; it has trials with an outcome."""
    from sweeps.compare import share

    middle, low, high = on.typical(runs.ends)
    lost, count, first = len(runs.diverged), len(runs.trials), runs.trials[0]
    return Arm(
        name=name,
        label=label(first, study.spec.get("space") or ()),
        kind=kind,
        stage=runs.stage,
        point_id=runs.point_id,
        params=dict(first.params),
        method=method(first),
        trials=tuple(trial.number for trial in runs.trials),
        values=tuple(runs.values[trial.number] for trial in runs.trials),
        stuck=share(len(runs.stuck) + lost, count),
        diverged=share(lost, count),
        typical=middle,
        low=low,
        high=high,
        searched=None if kind == "sweep" else runs.searched,
        work=statistics.median(trial.work for trial in runs.trials),
        seconds=runs.seconds,
        curve=curve(runs.finishers, study.metric),
        reached=() if target is None else tuple(reached(study, trial, target) for trial in runs.trials),
    )


def method(trial: Trial) -> str:
    """The method of a trial: nag, hf, ...; of a trainer of the user's own what the trial calls so, if anything."""
    kind = (trial.config.get("method") or {}).get("kind") or trial.params.get("method")
    return str(kind or trial.config.get("trainer") or "")


def curve(trials: Sequence[Trial], metric: str) -> Curve:
    """Median and quartiles of some trials at the reports where all of them had a finite value."""
    reports = [
        {u for u, row in trial.metrics.items() if u and math.isfinite(row.get(metric, math.nan))} for trial in trials
    ]
    updates = sorted(set.intersection(*reports)) if reports else []
    bands = [_quartiles([trial.metrics[update][metric] for trial in trials]) for update in updates]
    batch = trials[0].config.get("batch", 1) if trials else 1
    return Curve(
        updates=tuple(updates),
        work=tuple(float(update * batch) for update in updates),
        seconds=tuple(statistics.median(_seconds(trial, update) for trial in trials) for update in updates),
        median=tuple(band[1] for band in bands),
        low=tuple(band[0] for band in bands),
        high=tuple(band[2] for band in bands),
    )


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    """The quartiles, linear between the values (Hyndman, Fan 1996, type 7)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _seconds(trial: Trial, update: int) -> float:
    """Seconds of training up to a report."""
    return trial.walls.get(update, trial.wall_s * update / max(1, trial.updates))


def reached(study: Study, trial: Trial, target: float) -> tuple[float, bool]:
    """The work at the first report that met a target, and True; else all that the trial might have spent, and False.

    A trial that diverged would not have met it later: it counts to the end of its budget.
    """
    batch = trial.config.get("batch", 1)
    for update, row in sorted(trial.metrics.items()):
        value = row.get(study.metric, math.nan)
        if update and (value == target or study.better(value, target)):
            return float(update * batch), True
    return float(trial.config["updates"] * batch), False


def target_of(study: Study, pair: Sequence[Runs]) -> float | None:
    """The error whose time to reach is compared: the spec's, or the worse of the arms' medians, finishers only."""
    if study.rules.target is not None:
        return study.rules.target
    ended_by = study.spec.get("target") or {}
    if ended_by.get("metric") == study.metric:
        return float(ended_by["below"])
    medians = [statistics.median(runs.ends) for runs in pair if runs.ends]
    if not medians:
        return None
    return max(medians) if study.mode == "min" else min(medians)
