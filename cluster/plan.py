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
    from trainers.config import TrialConfig

SAMPLED = 64  # points asked for, to know which shapes the search will train
SHOWN = 6
START_S = 12.0  # processes, imports, Ray, the report: about the same for every sweep
BASE_BYTES = 450 * 2**20  # a worker process with PyTorch and Ray, before any trial; the driver likewise
FLOATS = 6  # arrays of a trial's size: weights, velocity, gradient, look-ahead and scratch


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep is expected to do; `arrivals` holds (update, trials that get there), the end included.

    Of a trainer of the user's own no times and no memory are known: they are NaN.
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

    @property
    def work_s(self) -> float:
        """Seconds of training and measuring, all workers together."""
        return (self.updates + self.evaluations) * self.update_s

    @property
    def wall_s(self) -> float:
        """Seconds from the command to the report."""
        last_trial = self.slowest_s * self.arrivals[-1][0]  # the last one starts when the others end
        return START_S + max(self.work_s / self.resolved.workers, last_trial)


def summary(spec: SweepSpec) -> str:
    """A spec in one line."""
    searched = ", ".join(spec.space.searched) or "nothing"
    rungs = spec.rungs()
    stops = f"rungs at {', '.join(map(str, rungs))}" if rungs else "no early stopping"
    trials = text.plural(spec.budget.trials, "trial")
    search = f"{trials} of {spec.trainer or spec.task.name} by {spec.search.algorithm} over {searched}"
    return f"{search}; {spec.training.updates} updates, {stops}"


def warnings(spec: SweepSpec) -> list[str]:
    """What is allowed in a spec but likely not meant."""
    return list(spec.warnings())


def make(spec: SweepSpec) -> Plan:
    """Measure the engines, sample the first points and add up; takes some seconds."""
    from sweeps.resolve import choose
    from sweeps.search import Proposer

    resolved = choose(spec)
    proposer = Proposer(spec)
    points = [
        proposer.ask(number) for number in range(min(SAMPLED, spec.budget.trials)) if not proposer.exhausted(number)
    ]
    if spec.trainer is not None:  # nothing of it is known beforehand
        return Plan(resolved, spec.arrivals(), points, spec.expected_updates(), 0, 0.0, math.nan, math.nan, math.nan)
    configs = [spec.trial_config(number, point) for number, point in enumerate(points)]
    seconds = [_seconds(config, resolved, spec) for config in configs]
    updates = spec.expected_updates() + spec.cost_of_forks()
    mean, memory = sum(seconds) / len(seconds), _memory(configs, resolved)
    return Plan(
        resolved, spec.arrivals(), points, updates, spec.cost_of_forks(), _measuring(spec), mean, max(seconds), memory
    )


def _measuring(spec: SweepSpec) -> float:
    """What all measurements cost, in trial-updates: a case's forward pass is a third of its part in an update."""
    before, reports = 0, 0
    for update, count in spec.arrivals():
        reports += count * sum(before < report <= update for report in spec.report_updates())
        before = update
    return reports * 2 * spec.training.eval_examples / 3 / spec.training.batch  # train and valid


def _seconds(config: TrialConfig, resolved: Resolved, spec: SweepSpec) -> float:
    """Seconds of a trial-update; a shape that was not measured is scaled by arithmetic from the nearest one."""
    from sweeps.resolve import shapes
    from trainers.calibrate import shape_key

    key = shape_key(config.net, config.batch)
    if key in resolved.seconds:
        return resolved.seconds[key]
    own = config.net.flops * config.batch
    known = {name: other.net.flops * other.batch for name, other in shapes(spec).items() if name in resolved.seconds}
    nearest = min(known, key=lambda name: abs(math.log(known[name] / own)))
    return resolved.seconds[nearest] * own / known[nearest]


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
    _show_costs(spec, plan, out)
    names = list(spec.space)
    first = table("trial", *names, right=names, title="First points")
    for number, point in enumerate(plan.points[:SHOWN]):
        first.add_row(f"t{number:05d}", *(text.value(point[name]) if name in point else "·" for name in names))
    out.print(first)


def _fork(spec: SweepSpec) -> Fork | None:
    return spec.early_stopping.fork if spec.early_stopping and spec.rungs() else None


def _show_costs(spec: SweepSpec, plan: Plan, out: Console) -> None:
    from rich.table import Table

    resolved = plan.resolved
    if spec.trainer is not None:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(
            "groups", f"{text.plural(resolved.workers, 'worker')}, a trial at a time each, on {resolved.device}"
        )
        grid.add_row("training", f"{text.count(plan.updates)} trial-updates")
        grid.add_row("time", f"not known: {spec.trainer} is not tried here")
        out.print(grid)
        return
    counts = {name: list(resolved.engines.values()).count(name) for name in sorted(set(resolved.engines.values()))}
    engines = ", ".join(f"{name} for {text.plural(count, 'shape')}" for name, count in counts.items())
    grid = Table.grid(padding=(0, 2))
    slots = text.plural(resolved.group_size, "slot")
    grid.add_row("groups", f"{resolved.workers} × {slots} on {resolved.device}; engine {engines}")
    fork = _fork(spec)
    share = round(100 * plan.fork_updates / plan.updates)
    low = f" at µ ≤ {fork.mu:g}" if fork and not spec.forks else ""
    forks = f", {share}% of them in forks{low}" if plan.fork_updates else ""
    grid.add_row("training", f"{text.count(plan.updates)} trial-updates{forks}")
    rate = resolved.workers / plan.update_s
    grid.add_row("speed", f"{text.count(rate)} trial-updates/s ({1e3 * plan.update_s:.2g} ms each per worker)")
    wall, fits = spec.budget.wall, ""
    if wall is not None:
        fits = f"; the budget of {text.span(wall)} {'is enough' if plan.wall_s < wall else 'ends it before'}"
    grid.add_row("time", f"about {text.span(plan.wall_s)}, {text.span(plan.work_s)} of one core{fits}")
    share_of_one = text.size(plan.memory / (resolved.workers + 1))
    grid.add_row("memory", f"about {text.size(plan.memory)}, {share_of_one} a process")
    out.print(grid)
