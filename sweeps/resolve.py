"""What is chosen automatically, once: workers, group size, device and the engine of each shape.

The choices are written into `spec.json`; a resume or a rerun reads them there and never chooses again.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import folder as folders
from sweeps import stages
from sweeps.errors import Problem
from sweeps.spec import SpecError, SweepSpec
from sweeps.versions import versions

if TYPE_CHECKING:
    from trainers.config import TrialConfig

MODEL_BASED = ("tpe", "gp", "cmaes")
LARGEST_GROUP = 64
MOST_CALIBRATED = 8
SHAPE_PARAMETERS = ("depth", "width", "widths", "eta_base", "activation", "batch")


@dataclass(frozen=True, slots=True)
class Resolved:
    """Everything that `auto` stood for."""

    workers: int
    group_size: int
    device: str
    engines: dict[str, str]
    """Engine by shape (`trainers.calibrate.shape_key`)."""
    seconds: dict[str, float]
    """Seconds per trial-update by calibrated shape."""
    versions: dict[str, str]
    trivial: dict[str, float] = field(default_factory=dict)
    """The task's objectives of a constant output (`trainers.trivial`), on the examples of confirmed trials."""
    data: dict[str, Any] = field(default_factory=dict)
    """What was trained on: `source` in words, `look_alike`, `train_examples` (0 where they are drawn online)."""


def resolve(folder: Path, spec: SweepSpec) -> Resolved:
    """Read the folder's choices, or make and store them.

    Raises:
        SpecError: the data do not suit the spec.
        TaskError: the data, or code of the user's own, cannot be had.
    """
    if spec.trainer is not None:
        from trainers.tasks.own import function

        function(spec.trainer, "trainer")
    data = folders.read_spec_file(folder)
    if data.get("resolved"):
        return Resolved(**data["resolved"])
    resolved = choose(spec)
    folders.write_spec_file(folder, {**spec.model_dump(mode="json"), "resolved": asdict(resolved)})
    return resolved


def places(folder: Path, spec: SweepSpec) -> tuple[int, int]:
    """Workers and group size, known at once: Ray and the board can start while the engines are measured."""
    stored = folders.read_spec_file(folder).get("resolved")
    if stored:
        return stored["workers"], stored["group_size"]
    workers = _workers(spec)
    return workers, _group_size(spec, workers)


def choose(spec: SweepSpec) -> Resolved:
    """Choose for this machine; takes about half a second for each shape."""
    workers = _workers(spec)
    size = _group_size(spec, workers)
    device = _device(spec)
    engines, seconds = ({}, {}) if spec.trainer else _engines(spec, size, device)
    return Resolved(workers, size, device, engines, seconds, versions(), *known_of_data(spec))


def known_of_data(spec: SweepSpec) -> tuple[dict[str, float], dict[str, Any]]:
    """What comparing needs to know of the data, so that it need not read them; nothing beside a trainer."""
    if spec.trainer is not None:
        return {}, {}
    from trainers.tasks import load
    from trainers.trivial import trivial

    task = load(spec.task.name, spec.task.settings)
    net = next(iter(shapes(spec).values())).net
    examples = (spec.confirm and spec.confirm.eval_examples) or spec.training.eval_examples
    known = {
        "source": task.source,
        "look_alike": task.look_alike,
        "train_examples": len(task.train) if task.draw is None else 0,
        "valid_examples": len(task.valid),
    }
    return trivial(task, net, examples), known


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(spec: SweepSpec) -> str:
    if spec.resources.device != "auto":
        return spec.resources.device
    return "cuda" if spec.resources.gpu > 0 else "cpu"


def _workers(spec: SweepSpec) -> int:
    if spec.resources.workers != "auto":
        return int(spec.resources.workers)
    return max(1, min(cores() // max(1, int(spec.resources.cpu)), stages.at_once(spec)))


def _group_size(spec: SweepSpec, workers: int) -> int:
    """For model-based search a group is at most a quarter of its share of the trials, so that it can learn."""
    if spec.trainer is not None:
        return 1
    if spec.search.group_size != "auto":
        return int(spec.search.group_size)
    share = -(-spec.budget.trials // workers)
    if spec.search.algorithm in MODEL_BASED:
        share = spec.budget.trials // (4 * workers)
    return max(1, min(share, LARGEST_GROUP))


def shapes(spec: SweepSpec) -> dict[str, TrialConfig]:
    """One trial config for each shape (net and batch) that the space can produce, by shape key."""
    from trainers.calibrate import shape_key

    values = {name: spec.space[name].values or [] for name in SHAPE_PARAMETERS if name in spec.space}
    found: dict[str, TrialConfig] = {}
    for point in product(*values.values()):
        config = spec.trial_config(0, dict(zip(values, point, strict=True)))
        found.setdefault(shape_key(config.net, config.batch), config)
    return found


def _engines(spec: SweepSpec, size: int, device: str) -> tuple[dict[str, str], dict[str, float]]:
    """The faster engine of each shape, with about as many slots as it will have.

    Of many shapes a few are measured; each other one takes the engine of the measured one nearest in arithmetic.
    """
    from trainers.calibrate import choose as fastest
    from trainers.tasks import load

    configs = sorted(shapes(spec).items(), key=lambda item: item[1].net.flops * item[1].batch)
    task = load(spec.task.name, spec.task.settings)
    largest = max(config.batch for _, config in configs)
    if largest > len(task.train.inputs):
        wrong = f"more than the {len(task.train.inputs)} training examples of {spec.task.name}"
        raise SpecError([Problem("training.batch", wrong, largest)], spec.name)
    slots = max(1, round(size / len(configs)))
    count = min(len(configs), MOST_CALIBRATED)
    measured = sorted({round(i * (len(configs) - 1) / max(1, count - 1)) for i in range(count)})
    engines: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for index in measured:
        key, config = configs[index]
        engines[key], seconds[key] = fastest(config.net, config.batch, task, slots, device)
    for index, (key, _) in enumerate(configs):
        nearest = configs[min(measured, key=lambda m: abs(m - index))][0]
        engines[key] = engines[nearest] if spec.resources.engine == "auto" else spec.resources.engine
    return engines, seconds
