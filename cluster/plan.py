"""`musweep check` and `musweep plan`: what a spec asks for, and what it would cost on this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster import text

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.resolve import Resolved
    from sweeps.schema import Fork
    from sweeps.spec import SweepSpec
    from sweeps.stages import Stage
    from trainers.config import TrialConfig

SAMPLED = 64  # points asked for, to know which shapes the search will train
SHOWN = 6
START_S = 12.0  # processes, imports, Ray, the report: about the same for every sweep
BASE_BYTES = 450 * 2**20  # a worker process with PyTorch and Ray, before any trial; the driver likewise
FLOATS = 6  # arrays of a trial's size: weights, velocity, gradient, look-ahead and scratch


HF_FACTOR = 2.0
"""Seconds of an update of HF over one of the other methods, which is as much arithmetic: 1.1 to 4 were measured on one
core, about 1.2 on reduced CURVES, 4 on digits, whose nets are small."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stage is expected to cost."""

    name: str
    trials: int
    updates: int
    """Trial-updates in all."""
    evaluations: float
    """What measuring costs, in trial-updates."""
    update_s: float
    """Seconds of a trial-update."""
    trial_s: float
    """Seconds of the slowest whole trial."""
    waits: bool
    """Whether it begins when the stages before it have ended."""

    @property
    def work_s(self) -> float:
        """Seconds of training and measuring, all workers together."""
        return (self.updates + self.evaluations) * self.update_s


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep is expected to do; `arrivals` holds (update, trials that get there), the end included.

    Of a trainer of the user's own, and on a GPU where there is none, no times and no memory are known: they are NaN.
    """

    resolved: Resolved
    arrivals: list[tuple[int, int]]
    points: list[dict[str, Any]]
    updates: int
    """Trial-updates in all, forks included."""
    fork_updates: int
    """Trial-updates of the forks alone."""
    evaluations: float
    """What measuring costs, in trial-updates."""
    update_s: float
    """Seconds of one trial-update, averaged over the sampled points."""
    slowest_s: float
    memory: float
    """Bytes, all processes together."""
    later: tuple[Cost, ...] = ()
    """Every stage but the search, in the order in which they begin."""
    unknown: str = ""
    """Why times are not known, in words; empty where they are."""

    @property
    def stages(self) -> tuple[Cost, ...]:
        """Every stage, the search first."""
        (end, _), trials = self.arrivals[-1], self.arrivals[0][1]
        mine = Cost("search", trials, self.updates, self.evaluations, self.update_s, self.slowest_s * end, True)
        return (mine, *self.later)

    @property
    def work_s(self) -> float:
        """Seconds of training and measuring, all workers and stages together."""
        return sum(stage.work_s for stage in self.stages)

    @property
    def wall_s(self) -> float:
        """Seconds from the command to the report."""
        return START_S + sum(self.spans_s)

    @property
    def spans_s(self) -> list[float]:
        """Seconds of the stages that run together, in the order in which these begin."""
        together: list[list[Cost]] = []
        for stage in self.stages:
            if stage.waits:
                together.append([])
            together[-1].append(stage)
        # the last trial starts when the others end
        return [
            max(sum(stage.work_s for stage in some) / self.resolved.workers, *(stage.trial_s for stage in some), 0.0)
            for some in together
        ]


def summary(spec: SweepSpec) -> str:
    """A spec in one line."""
    searched = ", ".join(spec.space.searched) or "nothing"
    rungs = spec.rungs()
    stops = f"rungs at {', '.join(map(str, rungs))}" if rungs else "no early stopping"
    trials = text.plural(spec.budget.trials, "trial")
    search = f"{trials} of {spec.trainer or spec.task.name} by {spec.search.algorithm} over {searched}"
    return f"{search}; {spec.training.updates} updates, {stops}{_after(spec)}"


def _after(spec: SweepSpec) -> str:
    """What a spec has beside its search, in words."""
    names = [getattr(each, "name", None) or getattr(each, "table", None) or each.kind for each in spec.baselines]
    against = f"; baselines {', '.join(names)}" if names else ""
    if spec.confirm is None:
        return against
    of = f" of each {' and '.join(spec.confirm.each)}" if spec.confirm.each else ""
    return f"; the best {spec.confirm.top}{of} confirmed on {text.plural(spec.confirm.seeds, 'seed')}{against}"


def warnings(spec: SweepSpec) -> list[str]:
    """What is allowed in a spec but likely not meant."""
    return list(spec.warnings())


def make(spec: SweepSpec) -> Plan:
    """Measure the engines, sample the first points and add up; takes some seconds."""
    from sweeps.resolve import choose, unmeasured
    from sweeps.search import Proposer

    unknown = _unknown(spec)
    resolved = choose(spec) if not unknown or spec.trainer else unmeasured(spec)
    proposer = Proposer(spec)
    points = [
        proposer.ask(number) for number in range(min(SAMPLED, spec.budget.trials)) if not proposer.exhausted(number)
    ]
    forks = 0 if spec.trainer else spec.cost_of_forks()
    updates = spec.expected_updates() + forks
    if unknown:
        later = _later(spec, math.nan, math.nan)
        return Plan(
            resolved, spec.arrivals(), points, updates, forks, 0.0, math.nan, math.nan, math.nan, later, unknown
        )
    configs = [spec.trial_config(number, point) for number, point in enumerate(points)]
    seconds = [_seconds(config, resolved, spec) for config in configs]
    mean, memory = sum(seconds) / len(seconds), _memory(configs, resolved)
    slowest, later = max(seconds), _later(spec, mean, max(seconds))
    measuring = _measuring(spec)
    return Plan(resolved, spec.arrivals(), points, updates, forks, measuring, mean, slowest, memory, later)


def _unknown(spec: SweepSpec) -> str:
    """Why nobody can say here how long trials take, in words."""
    from sweeps.resolve import device

    if spec.trainer is not None:
        return f"{spec.trainer} is not tried here"
    if device(spec) != "cuda":
        return ""
    from trainers.memory import broken

    wrong = broken("cuda").replace(" there ", " here ")
    return wrong and f"{wrong}; a sweep measures its GPU when it starts"


def _later(spec: SweepSpec, update_s: float, slowest_s: float) -> tuple[Cost, ...]:
    """What the stages after the search cost, or beside it: their nets are taken to be the search's on average."""
    from sweeps import stages

    alike = {baseline.name for baseline in spec.baselines if baseline.kind == "hf" and baseline.match == "wall"}
    found: list[Cost] = []
    for stage in stages.of(spec)[1:]:
        slower = 1.0 if not stages.baseline_of(stage.name) else HF_FACTOR
        if stage.confirms and stages.baseline_of(stage.name) in alike:
            slower = 1.0  # as many seconds as the others, however many updates those are
        waits = bool(stage.taken) or (stage.confirms and not any(stages.is_confirm(cost.name) for cost in found))
        found.append(_cost(stage, slower * update_s, slower * slowest_s, waits))
    return tuple(found)


def _cost(stage: Stage, update_s: float, slowest_s: float, waits: bool) -> Cost:
    """A stage none of whose trials is stopped."""
    spec, updates = stage.spec, stage.spec.training.updates
    measured = _reported(stage.trials * len(spec.report_updates()), spec)
    return Cost(stage.name, stage.trials, stage.trials * updates, measured, update_s, slowest_s * updates, waits)


def _measuring(spec: SweepSpec) -> float:
    """What all measurements cost, in trial-updates: a case's forward pass is a third of its part in an update."""
    before, reports = 0, 0
    for update, count in spec.arrivals():
        reports += count * sum(before < report <= update for report in spec.report_updates())
        before = update
    return _reported(reports, spec)


def _reported(reports: int, spec: SweepSpec) -> float:
    """What so many reports cost, in trial-updates."""
    return reports * 2 * spec.training.eval_examples / 3 / spec.training.batch  # train and valid


def _seconds(config: TrialConfig, resolved: Resolved, spec: SweepSpec) -> float:
    """Seconds of a trial-update; a shape that was not measured is scaled by arithmetic from the nearest one."""
    from sweeps.resolve import shapes
    from trainers.calibrate import shape_key

    key, slower = shape_key(config.net, config.batch), HF_FACTOR if config.method.kind == "hf" else 1.0
    if key in resolved.seconds:
        return slower * resolved.seconds[key]
    own = config.net.flops * config.batch
    known = {name: other.net.flops * other.batch for name, other in shapes(spec).items() if name in resolved.seconds}
    nearest = min(known, key=lambda name: abs(math.log(known[name] / own)))
    return slower * resolved.seconds[nearest] * own / known[nearest]


def _memory(configs: list[TrialConfig], resolved: Resolved) -> float:
    weights = max(config.net.parameters for config in configs)
    activations = max(sum(config.net.widths) * max(1, config.net.steps) * config.batch for config in configs) * 2
    slot = 4.0 * (weights * FLOATS + activations)
    return (resolved.workers + 1) * BASE_BYTES + resolved.workers * resolved.group_size * slot


def show(spec: SweepSpec, plan: Plan, out: Console) -> None:
    """Print a plan."""
    from rich.markup import escape

    from cluster.show import table

    out.print(f"[bold]{spec.name}[/]: {summary(spec)}", soft_wrap=True)
    for line in warnings(spec):
        out.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True)
    fork = _fork(spec)
    columns = ["update", "trials that get there", "stop there", *(["fork updates"] if fork else [])]
    made = table(*columns, right=columns, title="Rungs (expected)")
    for (update, count), following in zip(plan.arrivals, [*(n for _, n in plan.arrivals[1:]), None], strict=True):
        row = [str(update), str(count), "end" if following is None else str(count - following)]
        if fork:
            row.append("" if following is None else str(count * fork.updates))
        made.add_row(*row)
    out.print(made)
    out.print()
    if plan.later:
        _show_stages(spec, plan, out)
    _show_costs(spec, plan, out)
    names = list(spec.space)
    first = table("trial", *names, right=names, title="First points")
    for number, point in enumerate(plan.points[:SHOWN]):
        first.add_row(f"t{number:05d}", *(text.value(point[name]) if name in point else "·" for name in names))
    out.print(first)


def _fork(spec: SweepSpec) -> Fork | None:
    return spec.early_stopping.fork if spec.early_stopping and spec.rungs() else None


def _show_stages(spec: SweepSpec, plan: Plan, out: Console) -> None:
    """What each stage does; those in one block train together."""
    from cluster.show import table

    columns = ["stage", "trials", "trial-updates", *([] if plan.unknown else ["of one core"])]
    made = table(*columns, right=columns[1:], title="Stages (expected)")
    for stage in plan.stages:
        spent = [] if plan.unknown else [text.span(stage.work_s)]
        made.add_row(stage.name, str(stage.trials), text.count(stage.updates), *spent)
    out.print(made)
    if any(baseline.kind == "hf" for baseline in spec.baselines):
        out.print(
            f"HF: an update is as much work as another method's; it is taken to last {HF_FACTOR:g} times as long, "
            "which is not measured",
            soft_wrap=True,
        )
    out.print()


def _show_costs(spec: SweepSpec, plan: Plan, out: Console) -> None:
    from rich.table import Table

    resolved = plan.resolved
    if plan.unknown:
        grid = Table.grid(padding=(0, 2))
        workers = text.plural(resolved.workers, "worker") if spec.trainer else "as many workers as there is room for"
        each = "a trial at a time" if spec.trainer else f"up to {text.plural(resolved.group_size, 'trial')}"
        grid.add_row("groups", f"{workers}, {each} each, on {resolved.device}")
        grid.add_row("training", f"{text.count(sum(stage.updates for stage in plan.stages))} trial-updates")
        grid.add_row("time", f"not known: {plan.unknown}")
        out.print(grid)
        return
    counts = {name: list(resolved.engines.values()).count(name) for name in sorted(set(resolved.engines.values()))}
    engines = ", ".join(f"{name} for {text.plural(count, 'shape')}" for name, count in counts.items())
    grid = Table.grid(padding=(0, 2))
    slots = text.plural(resolved.group_size, "slot")
    grid.add_row("groups", f"{resolved.workers} × {slots} on {resolved.device}; engine {engines}")
    fork = _fork(spec)
    total = sum(stage.updates for stage in plan.stages)
    share = round(100 * plan.fork_updates / total)
    low = f" at µ ≤ {fork.mu:g}" if fork and not spec.forks else ""
    forks = f", {share}% of them in forks{low}" if plan.fork_updates else ""
    grid.add_row("training", f"{text.count(total)} trial-updates{forks}")
    rate = resolved.workers / plan.update_s
    grid.add_row("speed", f"{text.count(rate)} trial-updates/s ({1e3 * plan.update_s:.2g} ms each per worker)")
    wall, fits = spec.budget.wall, ""
    if wall is not None:
        fits = f"; the budget of {text.span(wall)} {'is enough' if plan.wall_s < wall else 'ends it before'}"
    spans = plan.spans_s
    parts = f" ({', then '.join(map(text.span, spans))})" if len(spans) > 1 else ""
    grid.add_row("time", f"about {text.span(plan.wall_s)}{parts}, {text.span(plan.work_s)} of one core{fits}")
    share_of_one = text.size(plan.memory / (resolved.workers + 1))
    grid.add_row("memory", f"about {text.size(plan.memory)}, {share_of_one} a process")
    out.print(grid)
