"""What the service tells, as pages and API clients get it. Needs pydantic only, so that the client can share it."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

T = TypeVar("T")

Number = Annotated[
    float,
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]}),
]
"""A float; JSON has no word for what is not finite, so that is a string."""

State = Literal["running", "finished", "interrupted", "out of budget", "cut off", "failed", "unreadable"]
"""Of a sweep: `interrupted` left when it was asked to, `cut off` lost its driver, `failed` ended with an error."""
TrialState = Literal["running", "complete", "stopped", "diverged", "failed", "skipped"]


class Model(BaseModel):
    """What all answers have in common."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True, ser_json_inf_nan="strings", populate_by_name=True
    )


class Summary(Model):
    """A sweep in a line."""

    id: str
    """Its folder's name."""
    sweep_id: str = ""
    """What its journal calls it, for life."""
    name: str = ""
    """What its spec calls it."""
    state: State
    phase: str = ""
    """What its driver is at, such as searching or confirming."""
    objective: str = ""
    """The metric's name."""
    mode: Literal["min", "max"] = "min"
    counts: dict[str, int] = Field(default_factory=dict)
    """Trials by state, those of all stages."""
    ended: int = 0
    """Trials that train no more."""
    budget: int = 0
    """Trials in all."""
    best: Number | None = None
    """The best objective of the search."""
    best_trial: str = ""
    best_params: dict[str, Any] = Field(default_factory=dict)
    opened_at: float | None = None
    """Seconds since 1970."""
    updated_at: float = 0.0
    """When its folder last changed, seconds since 1970."""
    updates_per_s: float | None = None
    eta_s: float | None = None
    """Seconds left, as its driver reckons."""
    verdict: str = ""
    """What its comparison says first, a sentence."""
    troubles: list[str] = Field(default_factory=list)
    """What a person should know although it goes on."""
    reading: bool = False
    """Whether its journal is being read for the first time, so that the counts are still to come."""
    error: str = ""
    """Why it cannot be read."""
    version: str = ""
    """Changes whenever anything here does."""

    @property
    def progress(self) -> float:
        """Share of the trials that have ended."""
        return min(1.0, self.ended / self.budget) if self.budget else 0.0


class Stage(Model):
    """A stage of a sweep."""

    name: str
    ended: int
    size: int


class Rung(Model):
    """What became of the trials at a rung."""

    update: int
    reached: int
    passed: int
    stopped: int


class Group(Model):
    """A group of a running sweep, as its driver last told."""

    group: int
    state: str = ""
    host: str = ""
    device: str = ""
    pid: int | None = None
    restarts: int = 0
    running: int = 0
    """Trials in it."""
    silent_s: float | None = None
    """Since its last report."""


class Links(Model):
    """Where else a sweep or trial can be looked at."""

    mlflow: str = ""
    """A page of MLflow's, where its server has an address."""
    mlflow_command: str = ""
    """What starts MLflow where there is none."""
    optuna: str = ""
    """What opens Optuna Dashboard on the sweep; empty where that is not installed."""
    report: str = ""
    """The report, a path of this service; empty where there is none yet."""


class TrialRow(Model):
    """A trial in a line of the table."""

    id: str
    number: int
    state: TrialState
    stage: str
    point: str
    replicate: int
    group: int
    objective: Number | None
    updates: int
    wall_s: float
    work: float
    params: dict[str, Any]
    engine: str
    why: str
    """Why it ended, where it was not complete."""
    asked_at: float
    ended_at: float | None


class Sheet(Model):
    """All of a sweep that its page shows at first."""

    summary: Summary
    spec: dict[str, Any]
    """As it was resolved."""
    names: list[str]
    """The parameters that the search varies."""
    metrics: list[str]
    """What was measured."""
    stages: list[Stage]
    rungs: list[Rung]
    best: list[TrialRow]
    """The ten best complete trials of the search."""
    groups: list[Group]
    versions: dict[str, str]
    note: str
    """What its last driver could not do."""
    updates: int
    """Of all trials."""
    seconds: float
    """Of training, over all workers."""
    cost: str
    """What it held, in words."""
    waiting: str
    """What it waits for."""
    compared: bool
    """Whether there is a comparison."""
    links: Links
    folder: str
    """Where it lies, as this service sees it."""


class Page(Model, Generic[T]):
    """A part of a longer list."""

    rows: list[T]
    total: int
    """All there are."""
    matched: int
    """Those that the filter lets pass."""
    offset: int
    limit: int


class Curve(Model):
    """One metric of one trial by update."""

    trial: str
    state: TrialState
    stage: str
    params: dict[str, Any]
    objective: Number | None
    metric: str
    updates: list[int]
    values: list[Number]


class Point(Model):
    """A trial of the search as a dot on a map of two parameters."""

    trial: str
    state: TrialState
    x: Number | str | bool | None
    y: Number | str | bool | None
    objective: Number | None


class TrialSheet(Model):
    """All of a trial."""

    row: TrialRow
    config: dict[str, Any]
    curves: list[Curve]
    """Of every metric."""
    scores: dict[int, Number]
    """What rungs compared, by update."""
    promoted: list[int]
    """Updates of the rungs that it passed."""
    place: int | None
    """Its place among the complete trials of the search, from 1."""
    doomed: str
    traceback: str
    links: Links


class Measurement(Model):
    """One number: of a trial, at an update."""

    trial: str
    update: int
    metric: str
    value: Number


class Log(Model):
    """The end of what was printed."""

    lines: list[str]
    cut: bool
    """Whether there were more before."""


class Wrong(Model):
    """One thing wrong with what was sent."""

    key: str
    """Where, as in search.algorithm or body.target."""
    problem: str
    value: Any = None
    legal: str = ""


class Problem(Model):
    """Why a request was not done."""

    status: int
    """The HTTP status."""
    title: str
    """The status in words."""
    detail: str
    """What is wrong, and what to do."""
    problems: list[Wrong] = Field(default_factory=list)
    """Each thing that is wrong with what was sent."""
