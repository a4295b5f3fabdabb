"""The keys of a sweep file's `search`: who proposes points, from what, and from which seed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sweeps.errors import nearest
from sweeps.parameters import Scalar
from sweeps.schema_values import AutoOrCount, Count, Section, Seed, refuse, scalar, whole
from sweeps.window import LEAST

Point = dict[str, Annotated[Scalar, BeforeValidator(scalar)]]


class Known(Section):
    """What an earlier sweep came to at a point."""

    point: Point
    """The point."""
    objective: float
    """Mean objective of its complete trials."""


class Warm(Section):
    """An earlier sweep whose best points are tried first; read once, when the spec is."""

    sweep: str
    """Its folder, or its name in storage."""
    top: Annotated[int, Field(ge=0), BeforeValidator(whole)] = 5
    """How many of its best points to try, those left out that do not lie in this space."""
    tell: bool = False
    """Whether the model also learns from its results; only if they were measured as they are here."""
    points: list[Point] | None = None
    """The points, as they were found; null: not looked for yet."""
    skipped: int = 0
    """How many better points do not lie in this space."""
    told: list[Known] = Field(default_factory=list)
    """Results for the model to learn from, if it is told."""


def _sources(value: Any) -> Any:
    """One sweep or several, each by its name or as a section."""
    several = value if isinstance(value, list) else [value]
    return [{"sweep": source} if isinstance(source, str) else source for source in several]


def _window(value: Any) -> Any:
    value = whole(value)
    if value is None or value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < LEAST:
        refuse("no window", f"auto, null, or a whole number, {LEAST} or more", nearest(value, ["auto"]))
    return value


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
    points: list[Point] = Field(default_factory=list)
    """Points to try first; what a point leaves out is sampled."""
    warm: Annotated[list[Warm], BeforeValidator(_sources, json_schema_input_type=list[Warm | str] | Warm | str)] = (
        Field(default_factory=list)
    )
    """Earlier sweeps whose best points to try next: a folder, or {sweep: FOLDER, top: 5}, or a list of them."""
    duplicates: Literal["skip", "repeat"] = "skip"
    """A point that was tried: skip, to look for another and to end when all were tried; or repeat it."""
    window: Annotated[
        int | Literal["auto"] | None, BeforeValidator(_window, json_schema_input_type=int | Literal["auto"] | None)
    ] = "auto"
    """How many ended trials tpe learns from, a third of them the best, the others the latest; auto: 750; null: all."""
    grid: dict[str, Count] = Field(default_factory=dict)
    """For algorithm grid: how many values of each range to try, both ends among them."""

    @property
    def started(self) -> list[dict[str, Any]]:
        """The points to try first: one's own, then those of earlier sweeps, each once."""
        found = [dict(point) for point in self.points]
        for source in self.warm:
            found += [dict(point) for point in source.points or () if point not in found]
        return found

    @property
    def told(self) -> list[tuple[dict[str, Any], float]]:
        """What earlier sweeps came to, for the model to learn from."""
        return [(dict(known.point), known.objective) for source in self.warm for known in source.told]
