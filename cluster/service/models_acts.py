"""What is asked of the service, what came of that, and what is around the sweeps."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from cluster.service.models import Model, Number


class Known(Model):
    """What a place knows of a sweep that was sent to it."""

    id: str
    target: str = ""
    state: str
    """pending, running, finished, failed, stopped or unknown."""
    why: str = ""


class Submission(Model):
    """A sweep to be sent to a target."""

    spec: str | dict[str, Any]
    """A spec as YAML text or as JSON, or the name of a shipped one."""
    target: str = Field(default="local", max_length=100)
    """As `musweep clusters` lists them."""
    overrides: list[Annotated[str, Field(max_length=10_000)]] = Field(default_factory=list, alias="set", max_length=200)
    """`key.path=value`, as `--set` takes them."""
    protocol: str | None = Field(default=None, max_length=100)
    again: bool = False
    """A new sweep, though this spec is there already."""
    priority: int = Field(default=0, ge=-1_000_000, le=1_000_000)
    """In a queue; higher goes first."""


class Submitted(Model):
    """What came of a submission."""

    id: str
    target: str
    folder: str
    """Where the sweep lies, at the target."""
    state: str
    """submitted, queued, or what it was already."""
    new: bool
    """Whether anything was started or queued."""
    notes: list[str]
    """What its owner should know."""


class ToCheck(Model):
    """A spec to be checked."""

    spec: str | dict[str, Any]
    overrides: list[Annotated[str, Field(max_length=10_000)]] = Field(default_factory=list, alias="set", max_length=200)
    protocol: str | None = Field(default=None, max_length=100)


class Checked(Model):
    """A spec that can be run."""

    summary: str
    warnings: list[str]


class QueueEntry(Model):
    """A sweep in a queue."""

    seq: int
    id: str
    name: str
    target: str
    owner: str
    priority: int
    cpus: float
    gpus: float
    workers: int
    granted: int
    state: str
    wanted: str
    """Where it goes when its driver has left, if it is being stopped."""
    why: str
    starts: int
    failures: int
    submitted: float
    started: float | None
    ended: float | None


class QueueState(Model):
    """A target's queue."""

    target: str
    summary: str
    entries: list[QueueEntry]


class Priority(Model):
    """A priority in a queue."""

    priority: int = Field(ge=-1_000_000, le=1_000_000)
    """Higher goes first."""


class TargetInfo(Model):
    """A place that sweeps can be sent to. Nothing here is secret."""

    name: str
    kind: str
    storage: str
    """Where sweeps lie there."""
    queue: bool
    allow: list[str]
    """Code of users' own that may run there."""


class PublishedNumber(Model):
    """A printed number."""

    row: str
    column: str
    value: Number | None
    unit: str
    task: str | None
    method: str | None
    certainty: str
    page: int | None
    note: str


class PublishedTable(Model):
    """A table of a paper."""

    name: str
    title: str
    paper: str
    where: str
    place: str
    protocol: str
    values: list[PublishedNumber]


class TokenInfo(Model):
    """A token without its secret."""

    id: str
    name: str
    role: str
    state: str
    """valid, expired or revoked."""
    made: float
    expires: float | None
    revoked: float | None
    used: float | None


class Audited(Model):
    """A line of the audit log."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    time: float
    who: str = ""
    role: str = ""
    origin: str = Field(default="", alias="from")
    """The client's address."""
    what: str = ""
    status: int = 0


class Health(Model):
    """That the service answers."""

    status: Literal["ok"] = "ok"


class Version(Model):
    """What answers."""

    musweep: str
    api: str
    who: str
    """The name of your token."""
    role: str
    root: str
    """The folder of sweeps; empty for readers."""


class ScheduleInfo(Model):
    """A sweep that is started again and again by the clock."""

    name: str
    cron: str
    """Five fields."""
    zone: str
    """Whose clock it is read by."""
    spec: str
    """A shipped spec's name, or the name of the file."""
    target: str
    overrides: list[str]
    protocol: str | None
    overlap: str
    catch_up: str
    deadline_s: float | None
    jitter_s: float
    owner: str
    notify_when: str
    paused: bool
    created: float
    next: list[float]
    """The next moments at which it is due; none while it is paused."""


class NewSchedule(Model):
    """A schedule to be added."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")
    cron: str = Field(max_length=200)
    """Five fields, as in `0 2 * * *`."""
    zone: str = Field(default="UTC", max_length=100)
    spec: str | dict[str, Any]
    """As in a submission. It is kept as it is now."""
    target: str = Field(default="local", max_length=100)
    overrides: list[Annotated[str, Field(max_length=10_000)]] = Field(default_factory=list, alias="set", max_length=200)
    protocol: str | None = Field(default=None, max_length=100)
    overlap: Literal["skip", "queue", "replace"] = "skip"
    catch_up: Literal["latest", "all", "none"] = "latest"
    deadline_s: float | None = Field(default=None, gt=0, le=31_536_000)
    jitter_s: float = Field(default=0.0, ge=0, le=86_400)
    notify: list[Annotated[str, Field(pattern=r"^env:[A-Za-z_][A-Za-z0-9_]{0,99}$")]] = Field(
        default_factory=list, max_length=20
    )
    """`env:NAME`, variables of the scheduler that hold a URL of apprise."""
    notify_when: Literal["change", "always"] = "change"


class FiringInfo(Model):
    """One time that a schedule was due."""

    schedule: str
    at: float
    manual: bool
    late: bool
    sweep: str
    target: str
    state: str
    why: str
    started: float | None
    ended: float | None
    result: str
    """ok, worse, better or broken, once it is done."""
    sentence: str
