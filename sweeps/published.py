"""The papers' numbers of published.yaml, and whether one of them can be put beside a sweep's as its equal.

A number is comparable only if everything that is known of how it was got is the same here: the data themselves (a
look-alike never is), the metric and the part it is of, net, training set, updates and batch. Else `comparable` says
what differs, and whoever shows the number shows that with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import reading
from sweeps.checks_hf import train_examples

if TYPE_CHECKING:
    from sweeps.comparison import PublishedValue
    from sweeps.spec import SweepSpec

CERTAINTIES = ("verified", "derived", "second-hand", "memory")
_SURE = {
    "derived": "computed from the definitions, not printed",
    "second-hand": "known at second hand only",
    "memory": "not checked against a copy of the paper",
}


@dataclass(frozen=True, slots=True)
class Value:
    """A printed number with all that is known of it; None stands for what is not."""

    table: str
    paper: str
    place: str
    """Table, figure or section."""
    page: int | None
    row: str
    column: str
    value: float | None
    """As printed; None where a formula or nothing is."""
    unit: str
    protocol: str
    certainty: str
    metric: tuple[str, ...] = ()
    """Names that musweep measures the same by."""
    scale: float = 1.0
    """Times this the value is in musweep's unit."""
    note: str = ""
    differs: str = ""
    """How it was got otherwise than the table's protocol says."""
    doubt: str = ""
    formula: str = ""
    task: str | None = None
    method: str | None = None
    mu_max: float | None = None
    activation: str | None = None
    init: str | None = None
    init_scale: float | None = None
    length: int | None = None
    updates: int | None = None
    batch: int | None = None
    examples: int | None = None
    widths: tuple[int, ...] = ()

    @property
    def source(self) -> str:
        """Paper, place and page in words."""
        return f"{self.paper}, {self.place}" + ("" if self.page is None else f", p. {self.page}")

    @property
    def ours(self) -> float | None:
        """The value in musweep's unit."""
        return None if self.value is None else self.value * self.scale


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a paper, or what stands for one."""

    name: str
    title: str
    paper: str
    where: str
    """Where the paper appeared."""
    place: str
    protocol: str
    values: tuple[Value, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it has values of."""
        return tuple(dict.fromkeys(value.task for value in self.values if value.task))


@dataclass(frozen=True, slots=True)
class Ours:
    """What a sweep did, in so far as printed numbers depend on it; None stands for what is not known or varies."""

    task: str
    metric: str
    updates: int
    batch: int | None
    widths: tuple[int, ...] | None
    train_examples: int | None
    length: int | None
    look_alike: bool
    source: str = ""
    """The data in words."""


@cache
def _tables() -> dict[str, Table]:
    data = reading.parse(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return {name: _table(name, table, data["papers"]) for name, table in data["tables"].items()}


def _table(name: str, data: dict[str, Any], papers: Mapping[str, Any]) -> Table:
    data = dict(data)
    paper, rows, columns, values = (data.pop(key) for key in ("paper", "rows", "columns", "values"))
    title = data.pop("title")
    made = []
    for value in values:
        told = {**data, **(rows[value["row"]]), **(columns[value["column"]]), **value}
        sequences = {key: tuple(told[key]) for key in ("metric", "widths") if key in told}
        made.append(Value(**{**told, **sequences, "table": name, "paper": papers[paper]["cite"]}))
    cite, where = papers[paper]["cite"], papers[paper]["where"]
    return Table(name, title, cite, where, data["place"], data["protocol"], tuple(made))


def names() -> list[str]:
    """The names of all tables."""
    return list(_tables())


def table(name: str) -> Table:
    """A table by its name. Raises KeyError."""
    return _tables()[name]


def tasks() -> set[str]:
    """All tasks that some table has values of."""
    return {task for each in _tables().values() for task in each.tasks}


def values(name: str | None = None, **told: Any) -> list[Value]:
    """The values of a table, or of all, that have these fields: `values("s13-table1", task="curves", method="nag")`."""
    tables = [table(name)] if name else _tables().values()
    return [
        value
        for each in tables
        for value in each.values
        if all(getattr(value, key) == wanted for key, wanted in told.items())
    ]


def ours(
    spec: SweepSpec, metric: str, params: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
) -> Ours:
    """What a sweep did at a point.

    Args:
        params: the point whose net is meant; without it the net is known only if no part of it is searched.
        data: `resolved.data` of spec.json: source, look_alike, train_examples. Without it data are taken for a
            look-alike.
    """
    data = data or {}
    net = None
    shaping = ("depth", "width", "widths", "activation", "eta_base")
    if spec.trainer is None and (params is not None or not any(name in spec.space.searched for name in shaping)):
        net = spec.net(params or {})
    batch = (params or {}).get("batch", None if "batch" in spec.space.searched else spec.training.batch)
    return Ours(
        task=spec.task.name,
        metric=metric,
        updates=spec.training.updates,
        batch=batch,
        widths=None if net is None else tuple(net.widths),
        train_examples=data.get("train_examples") or train_examples(spec),
        length=spec.task.length,
        look_alike=bool(data.get("look_alike", True)),
        source=str(data.get("source", "")),
    )


def comparable(value: Value, ours: Ours) -> tuple[bool, str]:
    """Whether a printed number can stand beside the sweep's as its equal, and everything that forbids it."""
    reasons = list(_reasons(value, ours))
    return not reasons, "; ".join(reasons)


def _reasons(value: Value, ours: Ours) -> list[str]:
    found = []
    if value.value is None:
        found.append("no number is printed" if not value.formula else "a formula")
    if value.certainty != "verified":
        found.append(_SURE[value.certainty])
    if value.doubt:
        found.append(value.doubt)
    if value.task is None:
        found.append("of no task of musweep's")
    elif value.task != ours.task:
        found.append(f"of task {value.task}, not {ours.task}")
    elif ours.look_alike:
        found.append(f"ours are other data than the paper's{f' ({ours.source})' if ours.source else ''}")
    if ours.metric not in value.metric:
        found.append(f"it is {' or '.join(value.metric) or value.unit}, ours is {ours.metric}")
    if value.differs:
        found.append(value.differs)
    return found + _budget(value, ours)


def _budget(value: Value, ours: Ours) -> list[str]:
    """What differs in net, training set and amount of training."""
    found = []
    for theirs, own, noun in (
        (value.examples, ours.train_examples, "training examples"),
        (value.updates, ours.updates, "updates"),
        (value.batch, ours.batch, "examples a batch"),
    ):
        if theirs is not None and theirs != own:
            found.append(f"{theirs:,} {noun}, ours {'several' if own is None else f'{own:,}'}")
    if value.widths and value.widths != ours.widths:
        own_net = "several nets" if ours.widths is None else "-".join(map(str, ours.widths))
        found.append(f"net {'-'.join(map(str, value.widths))}, ours {own_net}")
    if value.length is not None and ours.length not in (None, value.length):
        found.append(f"T = {value.length}, ours {ours.length}")
    return found


def shown(value: Value, ours: Ours) -> PublishedValue:
    """A value as a comparison holds it."""
    from sweeps.comparison import PublishedValue

    same, why = comparable(value, ours)
    return PublishedValue(
        value.table, value.row, value.column, value.value, value.source, value.protocol, value.certainty, same, why
    )
