"""The stages of a sweep: which there are, what their trials are trained by, and which points are confirmed.

`search` is the sweep's own search and `search:NAME` that of the hf baseline NAME; when all their trials have ended
`confirm` and `confirm:NAME` train the best points again. A stage's trials are trained by the stage's own SweepSpec.
Everything here is a function of the spec and of what the journal says; importing it costs nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeps.errors import Problem, SpecError
from sweeps.space import Fixed, Space
from sweeps.stopping import class_of

if TYPE_CHECKING:
    from sweeps.history import History, Trial
    from sweeps.schema_baselines import HFBaseline
    from sweeps.spec import SweepSpec

SEARCH, CONFIRM = "search", "confirm"
SHAPE = ("depth", "width", "widths", "eta_base", "activation", "batch")
"""What makes a net and the size of an update: HF takes these from the best point, to train the same net."""

_MATCHED = {
    "updates": "HF gets the work of the sweep's own trials; for as many seconds: match: wall",
    "batch": "an update of HF is as much work as one of the sweep's own trials",
    "method": "the method of an hf baseline is hf",
    "eval_examples": "HF is measured as the sweep's own trials are",
    "keep": "states are kept of the sweep's own trials",
    "precision": "HF computes in float32",
}
"""What a baseline's `training` cannot change, and why."""

_SAME: dict[str, Any] = {"hf": {"l2": 0.0}}
"""What a baseline's `training` is by default: the objective that the sweep's own methods have, who know no L2."""

_SPACE: dict[str, dict[str, Any]] = {
    "hf_damping": {"type": "float", "low": 0.1, "high": 100.0, "scale": "log"},
    "hf_cg_max": {"type": "int", "low": 10, "high": 250, "scale": "log"},
    "hf_cg_decay": {"type": "float", "low": 0.5, "high": 0.995, "scale": "one_minus_log"},
}
_INIT_SCALE = {"type": "float", "low": 0.5, "high": 2.0, "scale": "log"}
_STRUCTURAL = {"type": "float", "low": 0.01, "high": 1.0, "scale": "log"}  # 1/30 in Martens, Sutskever 2011


def is_search(stage: str) -> bool:
    """Whether a stage is the sweep's own search: what is best, important or mapped is looked for there."""
    return stage == SEARCH


def is_confirm(stage: str) -> bool:
    """Whether a stage trains chosen points on fresh seeds."""
    return stage.partition(":")[0] == CONFIRM


def baseline_of(stage: str) -> str:
    """The name of the baseline that a stage belongs to; empty for the sweep's own stages."""
    return stage.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a sweep whose trials are trained alike."""

    name: str
    spec: SweepSpec
    """What its trials are trained by; of a search also what its search is."""
    trials: int
    """How many there are to be; of a confirm stage at most, since a search may find fewer points."""
    taken: tuple[str, ...] = ()
    """Parameters that its points have from the best point of the search, which therefore ends first."""

    @property
    def confirms(self) -> bool:
        """Whether it trains chosen points on fresh seeds."""
        return is_confirm(self.name)


def of(spec: SweepSpec) -> list[Stage]:
    """The stages of a sweep in the order in which their trials are asked for.

    Raises:
        ValueError: what a baseline says makes no sound spec (`faults.problems_in` tells what is wrong, at the keys of
            the spec that HF would have).
    """
    counts = planned(spec.budget.trials, spec.confirm.model_dump() if spec.confirm else None, _plain(spec))
    found = []
    for baseline in _hf(spec):
        taken = tuple(name for name in SHAPE if name in spec.space)
        name = f"{SEARCH}:{baseline.name}"
        found.append(Stage(name, _hf_spec(spec, baseline, taken, counts[name]), counts[name], taken))
    searches = [Stage(SEARCH, spec, counts[SEARCH]), *found]
    if spec.confirm is None:
        return searches
    arms = spec.confirm.top * _combinations(spec)
    counts[CONFIRM] = arms * spec.confirm.seeds
    return [*searches, *(_confirming(stage, spec, counts) for stage in searches)]


def by_name(spec: SweepSpec) -> dict[str, Stage]:
    """The stages of a sweep by name."""
    return {stage.name: stage for stage in of(spec)}


def planned(trials: int, confirm: Mapping[str, Any] | None, baselines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Trials of each stage, from a spec's plain values; of `confirm` as if confirm.each had one combination.

    HF's search is a share of the sweep's: it grows with a budget that is extended, or it would fall behind.
    """
    names = {str(b.get("name", "hf")): float(b.get("share", 0.25)) for b in baselines if b.get("kind") == "hf"}
    found = {SEARCH: trials} | {f"{SEARCH}:{name}": max(1, round(share * trials)) for name, share in names.items()}
    if confirm is None:
        return found
    seeds = int(confirm["seeds"])
    return found | {CONFIRM: int(confirm["top"]) * seeds} | {f"{CONFIRM}:{name}": seeds for name in names}


def at_once(spec: SweepSpec) -> int:
    """The most trials that could ever train at the same time: those of all searches, or all that are confirmed."""
    sides = {False: 0, True: 0}
    for stage in of(spec):
        sides[stage.confirms] += stage.trials
    return max(sides.values())


def trained(spec: SweepSpec, updates: int) -> SweepSpec:
    """A stage's spec for a trial that trains so many updates: its reports are spread alike, its end is its own."""
    if updates == spec.training.updates:
        return spec
    return spec.model_copy(update={"training": spec.training.model_copy(update={"updates": updates})})


# -- the specs of stages -------------------------------------------------------------------------------------


def _hf(spec: SweepSpec) -> list[HFBaseline]:
    return [baseline for baseline in spec.baselines if baseline.kind == "hf"]


def _plain(spec: SweepSpec) -> list[dict[str, Any]]:
    return [{"kind": "hf", "name": baseline.name, "share": baseline.share} for baseline in _hf(spec)]


def _combinations(spec: SweepSpec) -> int:
    """How many classes of points `confirm.each` can tell apart, as far as is known beforehand."""
    from sweeps.checks_baselines import combinations  # it asks for stages, to check them

    classes = combinations(spec, spec.confirm.each if spec.confirm else [])
    return max(1, min(classes, spec.budget.trials // spec.search.seeds))


def _confirming(stage: Stage, spec: SweepSpec, counts: Mapping[str, int]) -> Stage:
    """The stage that confirms what a search stage found: nothing ends its trials but divergence, or the target."""
    name = stage.name.replace(SEARCH, CONFIRM, 1)
    own: dict[str, Any] = {"early_stopping": None}
    if spec.confirm is not None and spec.confirm.eval_examples is not None:
        update = {"eval_examples": spec.confirm.eval_examples}
        own["training"] = stage.spec.training.model_copy(update=update)
    return Stage(name, stage.spec.model_copy(update=own), counts[name])


def _hf_spec(spec: SweepSpec, baseline: HFBaseline, taken: Sequence[str], trials: int) -> SweepSpec:
    """The sweep that an hf baseline is: the same task, nets and work, its own method, space and search."""
    refused = [
        Problem(f"training.{key}", wrong, baseline.training[key], "leave it out")
        for key, wrong in _MATCHED.items()
        if key in baseline.training and not (key == "method" and baseline.training[key] == "hf")
    ]
    refused += [
        Problem(f"space.{name}", "HF trains the nets of the best point", allowed="hf_*, init and what belongs to it")
        for name in (*SHAPE, "method")
        if name in baseline.space
    ]
    if refused:
        raise SpecError(refused, spec.name)
    plain = spec.model_dump(mode="json")
    nets = {name: {key: value for key, value in plain["space"][name].items() if key != "when"} for name in taken}
    search = spec.search
    data = {
        **plain,
        "space": {**(baseline.space or _default_space(spec)), **nets},
        "training": {**_merged(_merged(plain["training"], _SAME), baseline.training), "method": "hf", "keep": []},
        "search": {
            "algorithm": "tpe",
            "seed": search.seed,
            "seeds": search.seeds,
            "group_size": search.group_size,
            "duplicates": search.duplicates,
            "window": search.window,
        },
        "budget": {**plain["budget"], "trials": trials},
        "early_stopping": None,
        "forks": [],
        "confirm": None,
        "baselines": [],
        "compare": {},
        "night": None,
    }
    if "widths" not in taken:
        data["model"] = {**plain["model"], "arrangements": {}}
    return type(spec).model_validate(data)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A section with some values changed, those of sections within it one by one."""
    found = dict(base)
    for key, value in changes.items():
        inner = found.get(key)
        found[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return found


def _default_space(spec: SweepSpec) -> dict[str, dict[str, Any]]:
    """What HF searches unless the baseline says so: damping, CG steps and decay, init scale, structural damping."""
    shape = spec.shape
    more = {} if shape.own else {"init_scale": _INIT_SCALE}
    return {**_SPACE, **more, **({"hf_structural": _STRUCTURAL} if shape.kind == "rnn" else {})}


def on_net_of(stage: Stage, params: Mapping[str, Any]) -> SweepSpec:
    """A stage's spec with what it takes from the best point fixed as there."""
    if not stage.taken:
        return stage.spec
    fixed = {name: Fixed(params[name]) for name in stage.taken if name in params}
    space = {name: parameter for name, parameter in stage.spec.space.items() if name not in stage.taken}
    return stage.spec.model_copy(update={"space": Space({**space, **fixed})})


# -- which points are confirmed ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a search as its complete trials have it."""

    point_id: str
    params: Mapping[str, Any]
    objective: float
    """Mean over its complete trials."""
    trials: tuple[int, ...]
    whole: bool = field(default=True)
    """Whether none of its trials diverged."""


def best_points(spec: SweepSpec, trials: Iterable[Trial], top: int, each: Sequence[str] = ()) -> list[Point]:
    """The best distinct points of a search, best first: `top` of each combination of the values of `each`.

    Points are ranked by the mean objective of their complete trials, the lower trial number first among equals; those
    of which another replicate diverged come after all others.
    """
    taken: dict[Hashable, int] = {}
    found = []
    for point in ranked(trials, spec.mode):
        kind = class_of(point.params, each)
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] <= top:
            found.append(point)
    return found


def ranked(trials: Iterable[Trial], mode: str) -> list[Point]:
    """All points that have a complete trial, best first."""
    sign = 1.0 if mode == "min" else -1.0
    return sorted(_points(trials), key=lambda point: (not point.whole, sign * point.objective, point.trials[0]))


def _points(trials: Iterable[Trial]) -> list[Point]:
    complete: dict[str, list[Trial]] = {}
    lost = set()
    for trial in trials:
        if trial.state == "complete" and trial.objective is not None:
            complete.setdefault(trial.point_id, []).append(trial)
        elif trial.state in ("diverged", "skipped", "complete"):
            lost.add(trial.point_id)
    return [
        Point(
            point_id,
            same[0].params,
            statistics.fmean(trial.objective for trial in same if trial.objective is not None),
            tuple(sorted(trial.number for trial in same)),
            point_id not in lost,
        )
        for point_id, same in complete.items()
    ]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A point to confirm: the stage that trains it, and for how many updates."""

    stage: str
    point: Point
    updates: int


def chosen(spec: SweepSpec, stages: Mapping[str, Stage], history: History) -> list[Chosen]:
    """The points to confirm once the searches have ended: the search's best ones, then each baseline's best one."""
    confirm = spec.confirm
    if confirm is None:
        return []
    own = best_points(spec, in_stage(history, SEARCH), confirm.top, confirm.each)
    found = [Chosen(CONFIRM, point, spec.training.updates) for point in own]
    for baseline in _hf(spec):
        theirs = best_points(spec, in_stage(history, f"{SEARCH}:{baseline.name}"), 1)
        stage = f"{CONFIRM}:{baseline.name}"
        updates = spec.training.updates
        if theirs and own and baseline.match == "wall":
            updates = _in_equal_time(stages[stage].spec, history, own[0], theirs[0])
        found += [Chosen(stage, point, updates) for point in theirs]
    return [_as_before(arm, history) for arm in found]


def _as_before(arm: Chosen, history: History) -> Chosen:
    """An arm that has been begun keeps its length, though more trials may have been searched since."""
    for trial in in_stage(history, arm.stage):
        if trial.point_id == arm.point.point_id:
            return Chosen(arm.stage, arm.point, int(trial.config["updates"]))
    return arm


def missing(spec: SweepSpec, arms: Iterable[Chosen]) -> str:
    """What cannot be confirmed, and why, in words; empty if nothing is missing."""
    there = {arm.stage for arm in arms}
    wanted = [CONFIRM, *(f"{CONFIRM}:{baseline.name}" for baseline in _hf(spec))] if spec.confirm else []
    return "; ".join(
        f"nothing to confirm of {name.replace(CONFIRM, SEARCH, 1)}: no trial of it is complete"
        for name in wanted
        if name not in there
    )


def in_stage(history: History, stage: str) -> list[Trial]:
    """The trials of a stage, in order of number."""
    return [trial for _, trial in sorted(history.trials.items()) if trial.stage == stage]


def _in_equal_time(spec: SweepSpec, history: History, own: Point, theirs: Point) -> int:
    """Updates that take HF as long as the search's best point takes for its own, by the medians that were measured.

    Only trials of the best point's net and batch are compared: another net takes another time.
    """
    best = history.trials[own.trials[0]]
    seconds = []
    for mine in (best, history.trials[theirs.trials[0]]):
        alike = [t for t in in_stage(history, mine.stage) if _same_cost(t, best) and t.updates and t.wall_s > 0]
        seconds.append(statistics.median([t.wall_s / t.updates for t in alike]) if alike else math.nan)
    ratio = seconds[0] / seconds[1]
    updates = spec.training.updates
    return max(1, round(updates * ratio)) if math.isfinite(ratio) else updates


def _same_cost(trial: Trial, other: Trial) -> bool:
    return all(trial.config.get(key) == other.config.get(key) for key in ("net", "batch"))
