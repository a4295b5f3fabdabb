"""`musweep ls` and `musweep show`: sweeps and trials as a terminal shows them."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from cluster import text
from cluster.folders import Folder, read, sweeps_in
from cluster.text import plain
from sweeps.busy import sentence
from sweeps.cost import Devices, bill
from sweeps.history import END_STATES, Trial
from sweeps.lease import held
from sweeps.stages import is_confirm

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {"complete": "green", "stopped": "cyan", "diverged": "yellow", "failed": "red", "running": "blue"}


def console(stderr: bool = False) -> Console:
    """A console that neither guesses colours from words nor folds tables to 80 columns when piped."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made = Console(stderr=stderr, highlight=False, emoji=False, width=160)
    return made


def table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> Table:
    """A table without a frame; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        header_style="dim",
        title=f"\n{title}" if title else None,
        title_justify="left",
        title_style="bold",
    )
    for name in columns:
        made.add_column(plain(name), justify="right" if name in right else "left", no_wrap=name in ("trial", "sweep"))
    return made


def state_of(folder: Folder) -> str:
    """How a sweep stands, in a word or two: `running`, `finished`, `interrupted`, `cut off` (its driver died)."""
    if held(folder.path):
        return "running"
    closed = folder.history.closed
    return "cut off" if closed is None else {"budget": "out of budget"}.get(closed, closed)


def counted(folder: Folder) -> str:
    """Trials by state: `30 complete, 12 stopped`."""
    states = Counter(trial.state for trial in folder.history.trials.values())
    return ", ".join(f"{states[state]} {state}" for state in (*END_STATES, "running") if states[state]) or "none yet"


def listing(root: Path) -> Table | None:
    """All sweeps under a folder, newest first; None if there are none."""
    paths = sweeps_in(root)
    made = table("sweep", "state", "trials", "best", "objective", "age", right=("trials", "best", "age"))
    for path in paths:
        try:
            folder = read(path)
        except Exception as error:  # one damaged folder must not hide the others
            made.add_row(plain(path.name), "[red]unreadable[/]", "", "", plain(str(error).splitlines()[0]), "")
            continue
        ended = sum(trial.state != "running" for trial in folder.history.trials.values())
        best = folder.ranked()
        opened = folder.history.opened_at
        made.add_row(
            plain(path.name),
            state_of(folder),
            f"{ended}/{folder.budget}",
            text.value(best[0].objective) if best else "-",
            plain(folder.objective),
            text.span(time.time() - opened) if opened else "-",
        )
    return made if paths else None


def best_trials(folder: Folder, number: int = 10) -> Table:
    """The best complete trials, a column for each parameter."""
    names = folder.names
    made = table(
        "trial", folder.objective, *names, "updates", "time",
        right=(folder.objective, *names, "updates", "time"), title="Best trials",
    )  # fmt: skip
    for trial in folder.ranked()[:number]:
        made.add_row(
            trial.id,
            text.value(trial.objective),
            *(plain(text.value(trial.params[name])) if name in trial.params else "·" for name in names),
            str(trial.updates),
            text.span(trial.wall_s),
        )
    return made


def by_stage(folder: Folder) -> str:
    """Trials ended of each stage: `stages: search 20 of 20 · confirm 3 of 12`."""
    ended = Counter(trial.stage for trial in folder.history.trials.values() if trial.state != "running")
    return "stages: " + " · ".join(f"{name} {ended[name]} of {size}" for name, size in folder.stages.items())


def confirmed(folder: Folder) -> Table | None:
    """What confirmed points came to on fresh seeds, beside the value they were chosen for; None without any."""
    points: dict[tuple[str, str], list[Trial]] = {}
    for trial in folder.history.trials.values():
        if is_confirm(trial.stage):
            points.setdefault((trial.stage, trial.point_id), []).append(trial)
    if not points:
        return None
    right = ("seeds", "median", "best", "worst", "diverged", "in search")
    made = table("stage", *right, "point", right=right, title=f"Confirmed points, {folder.objective}")
    for (stage, point), trials in points.items():
        values = sorted((t.objective for t in trials if t.objective is not None), reverse=folder.maximise)
        chosen = [t for t in folder.history.trials.values() if not is_confirm(t.stage) and t.point_id == point]
        seen = [t.objective for t in chosen if t.state == "complete" and t.objective is not None]
        ended = sum(trial.state != "running" for trial in trials)
        made.add_row(
            plain(stage),
            f"{ended} of {len(trials)}" if ended < len(trials) else str(ended),
            *map(text.value, (median(values), values[0], values[-1]) if values else (None, None, None)),
            str(sum(trial.state == "diverged" for trial in trials)),
            text.value(fmean(seen) if seen else None),
            plain(text.params(trials[0].params)),
        )
    return made


def rungs(folder: Folder) -> Table | None:
    """How many trials reached, passed and left at each rung; None without early stopping."""
    trials = folder.searched
    stopped = Counter(trial.stopped_at_rung for trial in trials if trial.stopped_at_rung is not None)
    passed = Counter(update for trial in trials for update in trial.promoted)
    if not stopped and not passed:
        return None
    made = table(
        "update", "reached", "passed", "stopped", right=("update", "reached", "passed", "stopped"), title="Rungs"
    )
    for update in sorted(stopped.keys() | passed.keys()):
        reached = sum(update in trial.metrics for trial in trials)
        made.add_row(str(update), str(reached), str(passed[update]), str(stopped[update]))
    return made


def searched(folder: Folder) -> Table:
    """Each searched parameter: its range, and where the best trial and the best tenth of the trials lie."""
    ranked = folder.ranked()
    top = ranked[: max(3, len(ranked) // 10)]
    made = table("parameter", "searched", "best", "best few", title="Parameters")
    for name in folder.names:
        values = [trial.params[name] for trial in top if name in trial.params]
        best = text.value(values[0]) if values and name in top[0].params else "-"
        made.add_row(
            plain(name), plain(_range(folder.spec.get("space", {}).get(name))), plain(best), plain(_few(values))
        )
    return made


def _range(parameter: Any) -> str:
    """A parameter of the spec in words: `0.001 … 0.5 log`, `sgd, cm, nag`."""
    if not isinstance(parameter, dict):
        return text.value(parameter)
    if "values" in parameter:
        words = ", ".join(text.value(item) for item in parameter["values"])
    elif "low" in parameter:
        scale = parameter.get("scale")
        words = f"{text.value(parameter['low'])} … {text.value(parameter['high'])}"
        words += f" {scale}" if scale and scale != "linear" else ""
    else:
        words = text.value(parameter.get("value"))
    conditions = (f"{other} is {_either(wanted)}" for other, wanted in (parameter.get("when") or {}).items())
    when = " and ".join(conditions)
    return words + (f"  when {when}" if when else "")


def _either(wanted: Any) -> str:
    return " or ".join(map(text.value, wanted)) if isinstance(wanted, list) else text.value(wanted)


def _few(values: Sequence[Any]) -> str:
    """The spread of some values: a range for numbers, counts for names."""
    if not values:
        return "-"
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in values):
        low, high = min(values), max(values)
        return text.value(low) if low == high else f"{text.value(low)} … {text.value(high)}"
    return ", ".join(f"{item} {times}×" for item, times in Counter(map(str, values)).most_common())


def show_sweep(folder: Folder, out: Console) -> None:
    """Print a sweep's summary: how it stands, its best trials, parameters and rungs."""
    history, spec = folder.history, folder.spec
    out.print(f"[bold]{plain(history.sweep_id or folder.path.name)}[/]  {state_of(folder)}", soft_wrap=True)
    task = spec.get("task", {})
    search = spec.get("search", {})
    named = task.get("name") if isinstance(task, dict) else task
    trainer = spec.get("trainer")
    facts = [
        *([f"trainer {trainer}"] if trainer else []),
        *([f"task {named}"] if named or not trainer else []),
        f"{folder.objective} {'max' if folder.maximise else 'min'}",
        f"search {search.get('algorithm')}, seed {search.get('seed')}",
    ]
    out.print(plain(" · ".join(facts)), soft_wrap=True)
    ended = [trial for trial in history.trials.values() if trial.state != "running"]
    out.print(f"{len(ended)} of {folder.budget} trials ended: {counted(folder)}", soft_wrap=True)
    if len(folder.stages) > 1:
        out.print(plain(by_stage(folder)), soft_wrap=True)
    last = max((trial.ended_at for trial in ended if trial.ended_at), default=None)
    if history.opened_at and last:
        work = sum(trial.wall_s for trial in history.trials.values())
        out.print(
            f"from first ask to last result {text.span(last - history.opened_at)}, training {text.span(work)} in all"
        )
        cost = bill(spec, history.held, work)
        out.print(f"cost {cost.held:,.0f} {cost.kind}-seconds, {cost.training / (cost.held or 1):.0%} of it training")
        if said := sentence(spec, history.busy):
            out.print(said, soft_wrap=True)
    if folder.ranked():
        out.print(best_trials(folder))
        out.print(searched(folder))
    if (made := confirmed(folder)) is not None:
        out.print(made)
    if (made := rungs(folder)) is not None:
        out.print(made)
    out.print()
    _say_failed(folder, out)
    if history.note:
        out.print(f"[yellow]{plain(history.note)}[/]", soft_wrap=True)
    out.print(f"one trial:  musweep show {plain(str(folder.path))} {_example(folder)}", soft_wrap=True)
    report = folder.path / "report.html"
    out.print(f"report:     {report if report.exists() else f'musweep report {folder.path}'}", soft_wrap=True)
    if state_of(folder) not in ("running", "finished"):
        out.print(f"go on:      musweep resume {plain(str(folder.path))}", soft_wrap=True)


def near(path: Path) -> Path:
    """A path as short as it can be typed here; whole where it is this folder, as for a driver in the background."""
    whole, here = path.resolve(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) and whole != here else path


def _say_failed(folder: Folder, out: Console) -> None:
    failed = [trial for trial in folder.history.trials.values() if trial.state == "failed"]
    for trial in failed[:3]:
        out.print(f"[red]{trial.id} failed[/]: {plain(trial.reason)}", soft_wrap=True)


def show_end(path: Path, out: Console) -> bool:
    """Print what a sweep found and where it lies, with the commands that look further; whether any trial trained."""
    path = near(path)
    folder = read(path)
    out.print(f"{text.plural(len(folder.history.trials), 'trial')}: {counted(folder)}", soft_wrap=True)
    if folder.ranked():
        out.print(best_trials(folder, 5))
        out.print()
    else:
        out.print("[yellow]no trial was complete[/]: musweep show tells why each one ended", soft_wrap=True)
    if (made := confirmed(folder)) is not None:
        out.print(made)
        out.print()
    if folder.history.note:
        out.print(f"[yellow]{plain(folder.history.note)}[/]", soft_wrap=True)
    _say_failed(folder, out)
    if verdict := _verdict(path):
        out.print(f"[bold]{plain(verdict)}[/]", soft_wrap=True)
        out.print()
    lines = [
        *([f"compare:     musweep compare {path}"] if made is not None else []),
        f"look again:  musweep show {path}",
        f"report:      {path / 'report.html'}"
        if (path / "report.html").exists()
        else f"report:      musweep report {path}",
        f"go on:       musweep run {path} --more 50",
    ]
    if folder.spec.get("mlflow", {}).get("enabled", True):
        lines.append(f"MLflow:      {mlflow_command(folder)}")
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
    states = {trial.state for trial in folder.history.trials.values()}
    return states != {"failed"}


def _verdict(path: Path) -> str:
    """What the sweep's comparison says first, empty if there is none."""
    from sweeps.comparison import Comparison

    try:
        found = Comparison.from_dict(json.loads((path / "comparison.json").read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none yet, or not ours
        return ""
    return found.primary.sentence if found.primary else ""


def mlflow_command(folder: Folder) -> str:
    """How to look at a sweep in MLflow: the server's address, or the command that starts one."""
    from sweeps.tracking import tracking_uri

    uri = tracking_uri(folder.path, (folder.spec.get("mlflow") or {}).get("uri"))
    if uri.startswith("http"):
        return uri
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{near(Path(uri.removeprefix('sqlite:///')))}"
    return f"mlflow server --backend-store-uri {uri} --port 5000"


def _example(folder: Folder) -> str:
    best = folder.ranked()
    return best[0].id if best else "0"


def show_trial(folder: Folder, trial: Trial, out: Console) -> None:
    """Print one trial: how it ended and why, its parameters, its curve."""
    style = STYLES.get(trial.state, "default")
    out.print(f"[bold]{trial.id}[/]  [{style}]{trial.state}[/]  {plain(why(folder, trial))}".rstrip(), soft_wrap=True)
    place, devices = _place(folder, trial), Devices.of(folder.spec)
    facts = [
        f"{folder.objective} {text.value(trial.objective)}{place}",
        f"{text.plural(trial.updates, 'update')} in {text.span(trial.wall_s)}",
        *([f"{devices.seconds(trial.wall_s):,.1f} GPU-seconds"] if devices.gpus else []),
        f"engine {trial.engine or '-'}",
        f"group {trial.group}",
        f"stage {trial.stage}, replicate {trial.replicate}",
    ]
    out.print(plain(" · ".join(facts)), soft_wrap=True)
    made = table("parameter", "value", right=("value",), title="Parameters")
    for name in folder.names_of([trial]):
        if name in trial.params:
            made.add_row(plain(name), plain(text.value(trial.params[name])))
    out.print(made)
    updates = sorted(trial.metrics)
    ys = [trial.metrics[update].get(folder.objective, float("nan")) for update in updates]
    if len(updates) > 1:
        out.print(f"\n[bold]{plain(folder.objective)}[/]")
        for line in text.plot(updates, ys):
            out.print(line, markup=False, no_wrap=True)
    _metrics(trial, out)
    if trial.promoted:
        out.print("rungs passed: " + ", ".join(map(str, sorted(trial.promoted))))
    if trial.traceback:
        out.print(f"\n[bold]Traceback[/]\n{plain(trial.traceback.rstrip())}", soft_wrap=True)


def _metrics(trial: Trial, out: Console) -> None:
    """Print each metric's curve as a sparkline with its first, best and last value."""
    updates = sorted(trial.metrics)
    names = dict.fromkeys(name for update in updates for name in trial.metrics[update])
    if not names:
        return
    made = table("metric", "curve", "first", "lowest", "last", right=("first", "lowest", "last"), title="Metrics")
    for name in names:
        values = [trial.metrics[update][name] for update in updates if name in trial.metrics[update]]
        made.add_row(plain(name), text.sparkline(values), *map(text.value, (values[0], min(values), values[-1])))
    out.print(made)


def why(folder: Folder, trial: Trial) -> str:
    """Say why a trial ended, and for a stopped one how it stood among those it was compared with."""
    rung = trial.stopped_at_rung
    if trial.state == "stopped" and rung is not None:
        rivals = _rivals(folder, trial, rung)
        place = 1 + sum(_better(folder, other.scores[rung], trial.scores.get(rung, math.nan)) for other in rivals)
        return f"at the rung of update {rung}: score {text.value(trial.scores.get(rung))}, no. {place} of {len(rivals)}"
    if trial.state == "running":
        return f"at update {trial.updates}"
    told = f"after {text.plural(trial.updates, 'update')}" if trial.state == "diverged" else ""
    return ": ".join(part for part in (told, trial.reason) if part)


def _rivals(folder: Folder, trial: Trial, rung: int) -> list[Trial]:
    """All trials scored at a rung that are alike in what the spec compares within."""
    within = (folder.spec.get("early_stopping") or {}).get("compare_within") or []
    return [
        other
        for other in folder.searched
        if rung in other.scores and all(other.params.get(name) == trial.params.get(name) for name in within)
    ]


def _better(folder: Folder, score: float, than: float) -> bool:
    """Whether a score beats another; a NaN is beaten by everything else."""
    if math.isnan(score) or math.isnan(than):
        return math.isnan(than) and not math.isnan(score)
    return score > than if folder.maximise else score < than


def _place(folder: Folder, trial: Trial) -> str:
    order = [other.number for other in folder.ranked()]
    return f" (no. {order.index(trial.number) + 1} of {len(order)} complete)" if trial.number in order else ""
