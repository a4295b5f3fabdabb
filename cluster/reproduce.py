"""`musweep reproduce`: run the papers' experiments, store what came of each, write REPRODUCTION.md from that."""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.folders import UserError
from sweeps.errors import nearest
from sweeps.experiments import EXPERIMENTS, PROTOCOLS, Experiment

if TYPE_CHECKING:
    from sweeps.history import Trial
    from sweeps.spec import SweepSpec
    from trainers.tasks import Task

RESULTS = Path("docs/reproduction")
PAGE = Path("REPRODUCTION.md")
PICTURES = Path("runs/reproduction.html")


def chosen(names: Iterable[str]) -> list[Experiment]:
    """The experiments of these names, or that begin so; all, if none are given.

    Raises:
        UserError: a name that begins no experiment.
    """
    wanted = list(names)
    for name in wanted:
        if not any(each.startswith(name) for each in EXPERIMENTS):
            hint = nearest(name, EXPERIMENTS)
            raise UserError(
                f"experiment {name!r}: {f'did you mean {hint}? ' if hint else ''}one of {', '.join(EXPERIMENTS)}"
            )
    exact = EXPERIMENTS.keys() & set(wanted)
    begin = tuple(name for name in wanted if name not in exact)
    return [
        each for name, each in EXPERIMENTS.items() if not wanted or name in exact or (begin and name.startswith(begin))
    ]


def result_path(results: Path, experiment: Experiment, protocol: str) -> Path:
    """Where the result of an experiment is stored."""
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol={protocol}: one of {', '.join(PROTOCOLS)}")
    return results / f"{experiment.name}.{protocol}.json"


def run(
    experiment: Experiment,
    protocol: str,
    results: Path,
    drive: Callable[[SweepSpec, Path], Path],
    overrides: Iterable[str] = (),
) -> Path:
    """Run one experiment and store its result; a sweep that was begun is gone on with.

    `drive` runs or resumes a sweep in a folder and returns it.
    """
    from sweeps.store import atomic_write

    path = result_path(results, experiment, protocol)
    started = time.monotonic()
    machine = _machine()
    if experiment.compute:
        options = dict(experiment.options.get(protocol, {}))
        made: dict[str, Any] = {"values": _compute(experiment.compute, options), "about": _words(options)}
        seconds = time.monotonic() - started
    else:
        from sweeps.spec import load

        spec = load(experiment.name, overrides, protocol)
        folder = drive(spec, Path(spec.storage) / f"reproduce-{experiment.name}.{protocol}")
        made, seconds = collect(folder, spec, experiment.metrics)
    head = {
        "experiment": experiment.name,
        "protocol": protocol,
        "measured_on": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds),
        "machine": machine,
    }
    results.mkdir(parents=True, exist_ok=True)
    atomic_write(path, _text({**head, **made}).encode())
    return path


def write_page(results: Path, page: Path) -> Path:
    """Write REPRODUCTION.md from the stored results."""
    from dashboards.reproduction import page as text
    from sweeps.store import atomic_write

    atomic_write(page, text(results).encode())
    return page


def write_pictures(results: Path, page: Path) -> Path:
    """Write the stored results as plots in one HTML file."""
    from dashboards.reproduction import pictures
    from sweeps.store import atomic_write

    page.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(page, pictures(results).encode())
    return page


def collect(folder: Path, spec: SweepSpec, metrics: tuple[str, ...]) -> tuple[dict[str, Any], float]:
    """What is stored of a sweep, and the seconds that its trials trained."""
    from sweeps import history
    from trainers.tasks import load

    told, task = history.load(folder), load(spec.task.name, spec.task.settings)
    tests = _test_errors(folder, task, told.trials.values()) if any(m.startswith("test_") for m in metrics) else {}
    doomed = _doomed(task, told.trials.values())
    runs = []
    for trial in told.trials.values():
        series = {
            metric: [
                (update, _stored(values[metric]))
                for update, values in sorted(trial.metrics.items())
                if metric in values
            ]
            for metric in metrics
        }
        series.update({name: [(trial.updates, _stored(value))] for name, value in tests.get(trial.number, {}).items()})
        runs.append(
            {
                "params": {**trial.params, **_derived(trial)},
                "replicate": trial.replicate,
                "state": trial.state,
                "updates": trial.updates,
                "doomed": doomed[trial.number],
                "series": {metric: points for metric, points in series.items() if points},
            }
        )
    made = {
        "about": about(spec),
        "data": task.source if task.look_alike else "",
        "values": {"test_examples": len(task.test)} if tests else {},
        "runs": runs,
    }
    return made, sum(trial.wall_s for trial in told.trials.values())


def about(spec: SweepSpec) -> str:
    """A protocol in words."""
    options = {key: value for key, value in spec.task.settings.items() if value}
    training = spec.training
    searched = ", ".join(spec.space.searched)
    name = f"{spec.task.name} ({_words(options)})" if options else spec.task.name
    return (
        f"{name}, {spec.model.kind}, {training.updates:,} updates of batch {training.batch}; "
        f"over {searched}; {spec.search.seeds} seed{'s' * (spec.search.seeds > 1)}"
        + (f", then {spec.confirm.seeds} fresh ones" if spec.confirm else "")
    )


def _derived(trial: Trial) -> dict[str, Any]:
    """What claims need and a point may leave to the spec: method, init, activation, depth, HR18's sum of 1/n, stage."""
    from sweeps.stages import is_search

    net = trial.config["net"]
    hidden = net["widths"][1:-1]
    found = {"method": trial.config["method"]["kind"], "init": trial.config["init"]["kind"], "depth": len(hidden)}
    if not is_search(trial.stage):
        found |= {"stage": trial.stage}
    if hidden:
        found |= {"activation": net["hidden"][0], "sum_1_n": round(sum(1 / width for width in hidden), 4)}
    return found


def _test_errors(folder: Path, task: Task, trials: Iterable[Trial]) -> dict[int, dict[str, float]]:
    """The metrics of each finished trial on the test part, measured once, now that nothing is chosen any more."""
    from trainers.checkpoint import unpack
    from trainers.config import TrialConfig
    from trainers.evaluate import evaluate

    found = {}
    for trial in trials:
        kept = folder / "models" / f"{trial.id}.npz"
        if kept.is_file():
            params = unpack(kept.read_bytes(), {trial.number})[trial.number].params
            measured = evaluate(task, TrialConfig.from_dict(trial.config).net, params, task.test)
            found[trial.number] = {f"test_{name}": value for name, value in measured.items()}
    return found


def _doomed(task: Task, trials: Iterable[Trial]) -> dict[int, str]:
    """What the rule says of each trial's net at birth, though all were trained: what it would have saved, and cost."""
    from trainers.config import TrialConfig
    from trainers.data import Data
    from trainers.evaluate import doomed_at_birth

    data = Data(task, dtype="float64")
    known: dict[tuple[Any, ...], str] = {}
    found = {}
    for trial in trials:
        config = TrialConfig.from_dict(trial.config)
        born = (config.net, config.init, config.seed)
        if born not in known:
            known[born] = doomed_at_birth(config, data)
        found[trial.number] = known[born]
    return found


def _compute(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    module, _, function = name.partition(":")
    values: dict[str, Any] = getattr(importlib.import_module(module), function)(**options)
    return values


def _words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())


def _stored(value: float) -> float | None:
    """Five significant digits; JSON has no infinity."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _machine() -> str:
    from sweeps.versions import versions

    found = versions()
    return f"{found['cores']} x {found['cpu']}, torch {found['torch']}, no GPU, code {found['git'][:12] or 'unknown'}"


def _text(data: Mapping[str, Any]) -> str:
    """JSON with a line for each run, so that a difference can be read."""
    runs = data.get("runs")
    head = json.dumps({key: value for key, value in data.items() if key != "runs"}, separators=(", ", ": "))
    if runs is None:
        return head + "\n"
    lines = ",\n".join(json.dumps(run, separators=(",", ":")) for run in runs)
    return f'{head[:-1]}, "runs": [\n{lines}\n]}}\n'
