"""The keys of a sweep file: one model per section; type, range, default and meaning of each key.

What a trial is, is in `schema_trial.py`. What ties keys together (a depth the model cannot have, an objective the task
does not report) is in `checks.py`; the whole file is `SweepSpec` in `spec.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from sweeps.errors import nearest
from sweeps.modules import PLACE
from sweeps.parameters import KINDS, Choice, Fixed, Float, Int, Scalar, expand
from sweeps.schema_baselines import Baseline, Compare, Confirm
from sweeps.schema_diagnostics import DiagnosticsField, DoomedField
from sweeps.schema_night import NightRules
from sweeps.schema_search import Search
from sweeps.schema_trial import Model, Task, Training
from sweeps.schema_values import (
    AutoOrCount,
    Count,
    Duration,
    Section,
    Seed,
    Tunable,
    refuse,
    rung_updates,
    whole,
)
from sweeps.space import Space
from trainers.tasks.options import TaskError, info

_AUTO = Literal["auto"]


class Budget(Section):
    """When the search ends, whichever comes first."""

    trials: Count = 48
    """Trials in all, replicates included."""
    wall: Duration = None
    """Time of the searches on the clock, as 90s, 5m, 8h or in seconds, baselines' among them; null for no limit."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """GPU-hours of all workers together; null for no limit."""


class Fork(Section):
    """A short detour at low momentum by which trials are compared (S13 Table 2: high momentum looks worse)."""

    updates: Count = 50
    """Updates of the detour; the trial itself goes on as if there had been none."""
    mu: Annotated[float, Tunable("tail_mu")] = 0.9
    """Momentum of the detour is at most this."""


class EarlyStopping(Section):
    """Successive halving: at each rung the best 1/factor of the trials go on."""

    rungs: Annotated[
        list[int] | _AUTO | None, BeforeValidator(rung_updates, json_schema_input_type=list[int] | _AUTO | None)
    ] = "auto"
    """Updates at which trials are compared; auto: updates / factor^k, once momentum schedules differ; null: none."""
    factor: Annotated[int, Field(ge=2), BeforeValidator(whole)] = 3
    """One trial in so many passes a rung."""
    order: Literal["number", "arrival"] = "number"
    """number: judged among lower-numbered trials, whatever the timing. arrival: judged as they come."""
    compare_within: list[str] | None = None
    """Compare only trials alike in these parameters; null: [depth] where depth is searched."""
    fork: Fork | None = Field(default_factory=Fork)
    """How a rung's score is taken; null: the objective as it stands."""
    doomed: DoomedField = None
    """Trials whose net cannot start: true or skip, to end them before their first update; record; or bounds."""


class Phase(Section):
    """A last phase at low momentum, trained on a copy of each trial and measured at its end (S13 Table 2).

    The trial itself goes on as if there had been none, so it is the control. The measurements are rows of the trial
    at the update of the fork, named fork/NAME/METRIC; a trial is trained once, whatever forks there are.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    """Names its measurements."""
    at: Count
    """The report at which each trial is forked."""
    updates: Count
    """Updates of the phase; it ends when the trial does, or before."""
    mu: Annotated[float, Tunable("tail_mu")] = 0.9
    """Momentum of the phase is at most this."""


class Target(Section):
    """What ends a trial as complete when it is reached, at a report (HR18: updates to 20% accuracy)."""

    metric: str
    """A metric that the task reports on train or valid, such as valid_error."""
    below: float
    """Reached when the metric is below this."""

    def reached(self, metrics: Mapping[str, float]) -> bool:
        """Whether a report's measurements reach it."""
        return metrics.get(self.metric, math.nan) < self.below


class Start(Section):
    """The stored state that all trials of a sweep start from, as `musweep fork` writes it."""

    sweep: str
    """Folder of the sweep that the state is of."""
    trial: Seed
    """Number of its trial there."""
    at: Count
    """Update of the state: the end of the trial, or one of its training.keep."""
    replicate: Seed = 0
    """Replicate of the trial, so that its batches go on."""


class Resources(Section):
    """What a worker gets."""

    cpu: Annotated[float, Field(gt=0)] = 1.0
    """CPU cores a worker reserves; it computes in one thread."""
    gpu: Annotated[float, Field(ge=0)] = 0.0
    """GPUs a worker reserves, 0.5 for two workers on one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where trials train; auto: the GPU if a worker has one."""
    workers: AutoOrCount = "auto"
    """Worker processes; auto: as many as fit."""
    patience: Annotated[Duration, Field(gt=0)] = 300.0
    """How long a worker may neither report nor compute before it is started again, as 90s, 5m; null: for ever."""
    engine: Literal["auto", "loop", "stacked"] = "auto"
    """How a group computes; auto: measured for each shape. Loop gives the same bits in any group."""


class Mlflow(Section):
    """Where trials are mirrored for browsing."""

    enabled: bool = True
    """Whether to mirror at all."""
    uri: str | None = None
    """Tracking server; null: MLFLOW_TRACKING_URI, else mlflow.db beside the sweeps."""
    experiment: str | None = None
    """Experiment name; null: the sweep's name."""


class Objective(Section):
    """What trials are judged by."""

    metric: str
    """A metric that the task reports on train or valid, such as valid_squared_error."""
    at: Literal["last"] = "last"
    """Which measurement counts: the last."""


_KIND = Annotated[Float | Int | Choice | Fixed, Field(discriminator="type")]


def _parameter(data: Any) -> Any:
    """The full form of a parameter, with errors that pydantic would scatter over the members of a union."""
    data = expand(data)
    if not isinstance(data, Mapping):
        return data
    if "type" not in data:
        refuse("a parameter needs a type", f"type: {', '.join(KINDS)}")
    if data["type"] not in KINDS:
        refuse("unknown type", ", ".join(KINDS), nearest(data["type"], KINDS), below="type")
    if data["type"] == "int":
        data = {key: whole(value) for key, value in data.items()}
    for key in ("low", "high"):  # pydantic's lax mode would take text and true for numbers
        if key in data and (isinstance(data[key], bool) or not isinstance(data[key], int | float)):
            refuse("not a number", "a number", below=key)
    for key in ("value", "values"):
        for value in data[key] if isinstance(data.get(key), list) else [data.get(key, 0)]:
            if isinstance(value, bool) or not isinstance(value, Scalar):
                refuse("not a number or a name", "numbers and names", below=key)
    conditions = data.get("when", {})
    for other, values in conditions.items() if isinstance(conditions, Mapping) else ():
        for value in values:
            if isinstance(value, bool) or not isinstance(value, Scalar):
                refuse("not a number or a name", "numbers and names", below=f"when.{other}")
    return data


ParameterField = Annotated[
    _KIND, BeforeValidator(_parameter, json_schema_input_type=_KIND | list[Scalar] | Scalar)
]  # fmt: skip


class _SpaceSchema:
    """Reads and writes a `Space` as a plain mapping."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        mapping = handler.generate_schema(dict[str, ParameterField])
        return core_schema.no_info_after_validator_function(
            Space, mapping, serialization=core_schema.plain_serializer_function_ser_schema(dict, return_schema=mapping)
        )


def _from_space(data: Any) -> Any:
    return dict(data) if isinstance(data, Space) else data


SpaceField = Annotated[Space, _SpaceSchema(), BeforeValidator(_from_space)]


def unfold(key: str) -> Any:
    """A validator that reads a bare name as `{key: name}`: the short form of a section."""
    return lambda data: {key: data} if isinstance(data, str) else data


def _trainer(value: Any) -> Any:
    if not isinstance(value, str) or not PLACE.fullmatch(value):
        refuse("not the name of a function", "package.module:function, as in my_training:train")
    return value


TaskField = Annotated[Task, BeforeValidator(unfold("name"), json_schema_input_type=Task | str)]
ObjectiveField = Annotated[Objective, BeforeValidator(unfold("metric"), json_schema_input_type=Objective | str)]


def _default_objective(data: dict[str, Any]) -> Objective:
    """S13's squared error where the task reports it, else the smooth one of a class's two metrics."""
    task = data.get("task")
    if data.get("trainer"):  # only its author knows what it reports
        return Objective(metric="")
    try:
        metrics = info(task.name, task.settings).metrics if task and task.name else ()
    except TaskError:  # which the checks report
        metrics = ()
    return Objective(metric="valid_squared_error" if "squared_error" in metrics else "valid_loss")


class Fields(Section):
    """The keys of a sweep file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)] = "sweep"
    """Begins the sweep's id and names its MLflow experiment; default: the file's name."""
    trainer: Annotated[str, BeforeValidator(_trainer)] | None = None
    """A function of your own that trains each trial, package.module:function (docs/own-trainer.md); null: musweep."""
    modules: str | None = None
    """Folder of your own code; default: where it is found, beside the file or in the working directory."""
    task: TaskField = Field(default_factory=Task)
    """What is learned: a name, or a section; beside a trainer, data for it to use, or nothing."""
    model: Model = Field(default_factory=Model)
    """The nets."""
    training: Training = Field(default_factory=Training)
    """Values that are not searched."""
    space: SpaceField = Field(default_factory=lambda: Space({}))
    """What is searched: parameters by name."""
    search: Search = Field(default_factory=Search)
    """Who proposes points."""
    budget: Budget = Field(default_factory=Budget)
    """When the search ends."""
    early_stopping: EarlyStopping | None = None
    """How weak trials are stopped; null: they are not."""
    diagnostics: DiagnosticsField = None
    """What is measured inside nets; true for the defaults, null: nothing."""
    target: Target | None = None
    """What ends a trial when it is reached; null: trials train all their updates."""
    forks: list[Phase] = Field(default_factory=list)
    """Last phases to try on copies of the trials (S13 Table 2, lowering mu early)."""
    start: Start | None = None
    """A stored state to start from; null: trials start from their init."""
    confirm: Confirm | None = None
    """How the search's best points are trained again on fresh seeds; null: they are not."""
    baselines: list[Baseline] = Field(default_factory=list)
    """What they are held against: hf, published tables, other sweeps."""
    compare: Compare = Field(default_factory=Compare)
    """How the verdict is reached."""
    night: Annotated[NightRules | None, Field(exclude_if=lambda rules: rules is None)] = None
    """How a sweep that is run every night is judged; null: only whether it ended."""
    resources: Resources = Field(default_factory=Resources)
    """What a worker gets."""
    storage: str = "runs"
    """Folder for sweep folders and mlflow.db."""
    mlflow: Mlflow = Field(default_factory=Mlflow)
    """Where trials are mirrored."""
    objective: ObjectiveField = Field(default_factory=_default_objective)
    """What trials are judged by; default: valid_squared_error, or valid_loss for classification; none for a trainer."""
    mode: Literal["min", "max"] = "min"
    """Whether a small or a large objective is good."""
    protocol: str | None = None
    """Which protocol of the file this is: full, or one of `protocols`, as chosen by --protocol; null without any."""
    protocols: dict[str, dict[str, Any]] = Field(default_factory=dict, exclude=True)
    """Variants by name, each with the keys that differ from the file's own, called full; null takes a key out."""
