"""What is chosen automatically, once: workers, group size, device and the engine of each shape.

The choices are written into `spec.json`; a resume or a rerun reads them there and never chooses again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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
    from trainers.memory import Memory

MODEL_BASED = ("tpe", "gp", "cmaes")
LARGEST_GROUP = {"cpu": 64, "cuda": 512}
"""Trials that a group has at most, if its size is left to us: a GPU's time hardly depends on how many small nets."""
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
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes of a worker without trials and of each trial, if they were measured (`trainers.memory`)."""

    @property
    def worker_bytes(self) -> int:
        """What a full worker takes; 0 if that was not measured."""
        return self.memory["process"] + self.group_size * self.memory["trial"] if self.memory else 0


Choose = Callable[[SweepSpec, int | None], Resolved]


def resolve(folder: Path, spec: SweepSpec, fit: int | None = None, chooser: Choose | None = None) -> Resolved:
    """Read the folder's choices, or make and store them.

    Args:
        folder: the sweep folder.
        spec: its spec.
        fit: how many workers there is room for; None: what this machine has.
        chooser: `choose` where the trials will train; None: here.

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
    resolved = (chooser or choose)(spec, fit)
    folders.write_spec_file(folder, {**spec.model_dump(mode="json"), "resolved": asdict(resolved)})
    return resolved


def places(folder: Path, spec: SweepSpec) -> tuple[int, int]:
    """Workers and group size, known at once: Ray and the board can start while the engines are measured."""
    stored = folders.read_spec_file(folder).get("resolved")
    if stored:
        return stored["workers"], stored["group_size"]
    workers = _workers(spec)
    return workers, _group_size(spec, workers)


def choose(spec: SweepSpec, fit: int | None = None, *, probe: bool = False) -> Resolved:
    """Choose for this machine; takes about half a second for each shape.

    Args:
        spec: what to choose for.
        fit: how many workers there is room for; None: what this machine has.
        probe: measure what trials take of memory, too, and let no group be larger than fits.
    """
    workers = _workers(spec, fit)
    size, where = _group_size(spec, workers), device(spec)
    engines: dict[str, str] = {}
    seconds: dict[str, float] = {}
    memory: Memory | None = None
    if probe and where == "cuda" and not spec.trainer:  # first, as engines are measured with full groups
        memory = _memory(spec, {}, where)
        size = _that_fits(spec, size, memory)
    if not spec.trainer:
        engines, seconds = _engines(spec, size, where)
    if probe and where == "cpu" and not spec.trainer:
        memory = _memory(spec, engines, where)
        size = _that_fits(spec, size, memory)
    told = {} if memory is None else {"process": memory.process, "trial": memory.trial}
    return Resolved(workers, size, where, engines, seconds, versions(), *known_of_data(spec), told)


def unmeasured(spec: SweepSpec) -> Resolved:
    """What can be said where trials cannot train: as if there were one worker."""
    return Resolved(1, _group_size(spec, 1), device(spec), {}, {}, versions())


def _memory(spec: SweepSpec, engines: dict[str, str], where: str) -> Memory | None:
    """What trials of the largest shape take; None where this system does not tell. `engines` by shape, if chosen."""
    from trainers.calibrate import contenders
    from trainers.memory import measure
    from trainers.tasks import load

    key, config = max(shapes(spec).items(), key=lambda item: item[1].net.parameters)
    precision, named = spec.training.precision, spec.resources.engine
    engine = engines.get(key) or (contenders(config.net, where, precision)[0] if named == "auto" else named)
    task = load(spec.task.name, spec.task.settings)
    try:
        return measure(config, task, engine, where, spec.training.eval_examples, precision)
    except OSError:
        return None


def _that_fits(spec: SweepSpec, size: int, memory: Memory | None) -> int:
    """A group's size, or what there is memory for if that is less and the size is left to us."""
    if memory is None or spec.search.group_size != "auto":
        return size
    return min(size, memory.fits(_share_bytes(spec, memory)))


def _share_bytes(spec: SweepSpec, memory: Memory) -> float:
    """What a worker may take: its part of the GPU, or of this machine by its part of the cores; a tenth is left."""
    import psutil

    if memory.device:
        return 0.9 * memory.device * min(1.0, spec.resources.gpu)
    return 0.9 * float(psutil.virtual_memory().total) / max(1, cores() // max(1, int(spec.resources.cpu)))


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


def device(spec: SweepSpec) -> str:
    """Where trials train."""
    if spec.resources.device != "auto":
        return spec.resources.device
    return "cuda" if spec.resources.gpu > 0 else "cpu"


def _workers(spec: SweepSpec, fit: int | None = None) -> int:
    if spec.resources.workers != "auto":
        return int(spec.resources.workers)
    if fit is None:
        fit = cores() // max(1, int(spec.resources.cpu))
    return max(1, min(fit, stages.at_once(spec)))


def _group_size(spec: SweepSpec, workers: int) -> int:
    """For model-based search a group is at most a quarter of its share of the trials, so that it can learn."""
    if spec.trainer is not None:
        return 1
    if spec.search.group_size != "auto":
        return int(spec.search.group_size)
    share = -(-spec.budget.trials // workers)
    if spec.search.algorithm in MODEL_BASED:
        share = spec.budget.trials // (4 * workers)
    return max(1, min(share, LARGEST_GROUP[device(spec)]))


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
        engines[key], seconds[key] = fastest(
            config.net, config.batch, task, slots, device, precision=spec.training.precision
        )
    for index, (key, _) in enumerate(configs):
        nearest = configs[min(measured, key=lambda m: abs(m - index))][0]
        engines[key] = engines[nearest] if spec.resources.engine == "auto" else spec.resources.engine
    return engines, seconds
