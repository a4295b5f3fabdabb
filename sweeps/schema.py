"""The keys of a sweep file: one model per section; type, range, default and meaning of each key.

What ties keys together (a depth the model cannot have, an objective the task does not report) is in
`checks.py`; the whole file is `SweepSpec` in `spec.py`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sweeps.errors import nearest
from sweeps.parameters import KINDS, TUNABLE, Choice, Fixed, Float, Int, Scalar, expand
from sweeps.space import Space
from trainers.config import ACTIVATIONS, TASKS

JsonSchema = dict[str, Any]


def _refuse(wrong: str, allowed: str = "", hint: str = "", below: str = "") -> NoReturn:
    """Refuse a value in the words of a `Problem`; `below` names the key of a mapping that is at fault."""
    raise PydanticCustomError("problem", "{wrong}", {"wrong": wrong, "allowed": allowed, "hint": hint, "below": below})


class OneOf:
    """One of the names that another module lists."""

    def __init__(self, noun: str, names: tuple[str, ...]) -> None:
        self.noun = noun
        self.names = names

    def _check(self, value: Any) -> str:
        if value not in self.names:
            _refuse(f"unknown {self.noun}", ", ".join(self.names), nearest(value, self.names))
        return str(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {**handler(schema), "enum": list(self.names)}


class Tunable:
    """A value that `parameters.TUNABLE` says the legal values of, so that training and space agree."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.legal = TUNABLE[name]

    def _check(self, value: Any) -> Any:
        if problem := self.legal.problem(self.name, value):
            _refuse(problem.wrong, problem.allowed, problem.hint)
        return self.legal.coerce(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        found = dict(handler(schema))
        if self.legal.names:
            found["enum"] = list(self.legal.names)
        if self.legal.low is not None:
            found["minimum"] = self.legal.low
        if self.legal.positive:
            found["exclusiveMinimum"] = 0
        if self.legal.below is not None:
            found["exclusiveMaximum"] = self.legal.below
        return found


def _whole(value: Any) -> Any:
    """Whole numbers written as 2e3 are whole; pydantic's strict mode refuses the rest."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _scalar(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Scalar):
        _refuse("not a number or a name", "numbers and names")
    return value


def _auto_or_count(value: Any) -> Any:
    value = _whole(value)
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        _refuse("neither auto nor a count", "auto, or a whole number, 1 or more", nearest(value, ["auto"]))
    return value


def _rungs(value: Any) -> Any:
    allowed = "auto, or a list of growing updates such as [300, 900]"
    if value == "auto":
        return value
    if not isinstance(value, list) or not value:
        _refuse("not rungs", allowed, nearest(value, ["auto"]) if isinstance(value, str) else "")
    updates = [_whole(update) for update in value]
    if any(isinstance(update, bool) or not isinstance(update, int) or update < 1 for update in updates):
        _refuse("a rung is an update count", allowed)
    if any(a >= b for a, b in itertools.pairwise(updates)):
        _refuse("rungs that do not grow", allowed)
    return updates


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*[smhd]\s*)+")


def duration(value: Any) -> Any:
    """Seconds from a number or text such as 90s, 5m, 1h30m, 2d."""
    if isinstance(value, str):
        text = value.strip().lower()
        if not _DURATION.fullmatch(text):
            _refuse("not a duration", "seconds, or text such as 90s, 5m, 1h30m, 2d")
        value = sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text))
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        _refuse("not a duration above 0", "seconds, or text such as 90s, 5m, 1h30m, 2d")
    return value


Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
AutoOrCount = Annotated[
    int | Literal["auto"], BeforeValidator(_auto_or_count, json_schema_input_type=int | Literal["auto"])
]
Duration = Annotated[float | None, BeforeValidator(duration, json_schema_input_type=float | str | None)]


class Section(BaseModel):
    """What all sections share: unknown keys refused, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Task(Section):
    """What is learned: data, loss and metrics, and how much of the data is used."""

    name: Annotated[str, OneOf("task", tuple(TASKS))]
    """The task."""
    examples: Count | None = None
    """Train on the first so many examples only; null for all."""
    file: str | None = None
    """A data file of your own (for curves: digs3pts_1.mat); null for the built-in or downloaded data."""
    seed: Seed = 0
    """Seed of generated data and of the split; trials of all sweeps share it."""

    holdout: Seed | None = None
    """Training examples held out as valid where the data bring none (mnist, mnist-ae); 0 trains on all, as S13 did."""

    @property
    def options(self) -> dict[str, Any]:
        """What `trainers.tasks.load` takes beside the name."""
        return {"examples": self.examples, "file": self.file, "seed": self.seed, "holdout": self.holdout}


class Model(Section):
    """The family of nets; null means what suits the task, and is filled in."""

    kind: Literal["autoencoder", "mlp"] | None = None
    """autoencoder (default where the task is one): mirrored, code layer linear. mlp: hidden layers of one width."""
    depth: Annotated[int, Tunable("depth")] | None = None
    """Hidden layers, where the space does not search them; default: all the task's encoder has, 2 for an mlp."""
    activation: Annotated[str, OneOf("activation", ACTIVATIONS)] | None = None
    """Of all hidden layers but the code; default: sigmoid for an autoencoder, tanh for an mlp."""
    width: Annotated[int, Tunable("width")] = 64
    """Units of each hidden layer of an mlp."""
    widths: Annotated[list[Count], Field(min_length=1)] | None = None
    """Widths of your own: of an autoencoder's encoder, after the inputs, code last; or of an mlp's hidden layers."""


class Training(Section):
    """How every trial is trained where the space does not say otherwise."""

    updates: Count = 2000
    """Updates of a trial that is not stopped early."""
    batch: Annotated[int, Tunable("batch")] = 100
    """Examples per update."""
    reports: Count = 20
    """Measurements of a trial, evenly spread; the last one at its end."""
    method: Annotated[str, Tunable("method")] = "nag"
    """sgd, cm (classical momentum) or nag (Nesterov's)."""
    lr: Annotated[float, Tunable("lr")] = 0.01
    """Learning rate."""
    mu_max: Annotated[float, Tunable("mu_max")] = 0.9
    """Where the momentum schedule ends; unused by sgd."""
    mu_step: Annotated[int, Tunable("mu_step")] = 250
    """Updates per step of the momentum schedule (S13 eq. 5); scale it with `updates` in short runs."""
    tail_updates: Annotated[int, Tunable("tail_updates")] = 0
    """Last updates, trained with momentum of at most `tail_mu`; 0 for none."""
    tail_mu: Annotated[float, Tunable("tail_mu")] = 0.9
    """Momentum of the last updates."""
    init: Annotated[str, Tunable("init")] = "sparse"
    """How weights start."""
    init_scale: Annotated[float, Tunable("init_scale")] = 1.0
    """Factor on the initial weights."""
    fan_in: Annotated[int, Tunable("fan_in")] = 15
    """Incoming weights of a unit under sparse init."""
    eval_examples: Count = 500
    """Examples of train and of valid on which trials are measured."""


_AUTO = Literal["auto"]


class Search(Section):
    """Who proposes points, and from which seed."""

    algorithm: Literal["tpe", "random", "qmc", "grid", "gp", "cmaes"] = "tpe"
    """The sampler; qmc is a scrambled Sobol sequence."""
    seed: Seed = 0
    """Seed of everything in the sweep: proposals, initial weights, order of batches."""
    group_size: AutoOrCount = "auto"
    """Trials that train together in one worker; auto suits machine and budget."""
    seeds: Count = 1
    """Replicates per point, each with its own weights and batches."""
    points: list[dict[str, Annotated[Scalar, BeforeValidator(_scalar)]]] = []
    """Points to try first; what a point leaves out is sampled."""
    grid: dict[str, Count] = {}
    """For algorithm grid: how many values of each range to try, both ends among them."""


class Budget(Section):
    """When the search ends, whichever comes first."""

    trials: Count = 48
    """Trials in all, replicates included."""
    wall: Duration = None
    """Time on the clock, in seconds or as 90s, 5m, 8h; null for no limit."""
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

    rungs: Annotated[list[int] | _AUTO, BeforeValidator(_rungs, json_schema_input_type=list[int] | _AUTO)] = "auto"
    """Updates at which trials are compared; auto: updates / factor^k, once momentum schedules differ."""
    factor: Annotated[int, Field(ge=2), BeforeValidator(_whole)] = 3
    """One trial in so many passes a rung."""
    order: Literal["number", "arrival"] = "number"
    """number: judged among lower-numbered trials, whatever the timing. arrival: judged as they come."""
    compare_within: list[str] | None = None
    """Compare only trials alike in these parameters; null: [depth] where depth is searched."""
    fork: Fork | None = Field(default_factory=Fork)
    """How a rung's score is taken; null: the objective as it stands."""


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
        _refuse("a parameter needs a type", f"type: {', '.join(KINDS)}")
    if data["type"] not in KINDS:
        _refuse("unknown type", ", ".join(KINDS), nearest(data["type"], KINDS), below="type")
    if data["type"] == "int":
        data = {key: _whole(value) for key, value in data.items()}
    for key in ("low", "high"):  # pydantic's lax mode would take text and true for numbers
        if key in data and (isinstance(data[key], bool) or not isinstance(data[key], int | float)):
            _refuse("not a number", "a number", below=key)
    for key in ("value", "values"):
        for value in data[key] if isinstance(data.get(key), list) else [data.get(key, 0)]:
            if isinstance(value, bool) or not isinstance(value, Scalar):
                _refuse("not a number or a name", "numbers and names", below=key)
    conditions = data.get("when", {})
    for other, values in conditions.items() if isinstance(conditions, Mapping) else ():
        for value in values:
            if isinstance(value, bool) or not isinstance(value, Scalar):
                _refuse("not a number or a name", "numbers and names", below=f"when.{other}")
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


TaskField = Annotated[Task, BeforeValidator(unfold("name"), json_schema_input_type=Task | str)]
ObjectiveField = Annotated[Objective, BeforeValidator(unfold("metric"), json_schema_input_type=Objective | str)]


def _default_objective(data: dict[str, Any]) -> Objective:
    """S13's squared error where the task reports it, else the smooth one of a class's two metrics."""
    metrics = TASKS[data["task"].name].metrics
    return Objective(metric="valid_squared_error" if "squared_error" in metrics else "valid_loss")


class Fields(Section):
    """The keys of a sweep file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)] = "sweep"
    """Begins the sweep's id and names its MLflow experiment; default: the file's name."""
    task: TaskField
    """What is learned: a name, or a section."""
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
    resources: Resources = Field(default_factory=Resources)
    """What a worker gets."""
    storage: str = "runs"
    """Folder for sweep folders and mlflow.db."""
    mlflow: Mlflow = Field(default_factory=Mlflow)
    """Where trials are mirrored."""
    objective: ObjectiveField = Field(default_factory=_default_objective)
    """What trials are judged by; default: valid_squared_error, or valid_loss for classification."""
    mode: Literal["min", "max"] = "min"
    """Whether a small or a large objective is good."""
