"""The keys of a sweep file that say what its best points are held against: confirm, baselines, compare."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sweeps.schema_values import Count, Section

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Confirm(Section):
    """After the search the best points are trained again, on fresh seeds, to the full budget."""

    top: Count = 3
    """How many of the search's best points."""
    seeds: Count = 10
    """Fresh replicates of each, all different; under 6 there is no verdict."""
    each: list[str] = Field(default_factory=list)
    """The best points of each combination of these parameters, as in [method, mu_max] for S13 Table 1."""
    eval_examples: Count | None = None
    """Examples of train and of valid on which confirmed trials are measured; null: as in the search."""


class HFBaseline(Section):
    """Hessian-free optimisation by our own code, with a search of its own; its best point is confirmed too."""

    kind: Literal["hf"]
    """Hessian-free optimisation by musweep's own code."""
    name: Annotated[str, Field(pattern=_NAME, max_length=40)] = "hf"
    """Names its stages, search:NAME and confirm:NAME."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Its search gets so many trials, as a share of budget.trials, on top of them."""
    match: Literal["work", "wall"] = "work"
    """What its confirmed trials may spend: as much work, or as many seconds, as the best point's."""
    space: dict[str, Any] = Field(default_factory=dict)
    """What is searched; empty: damping, CG steps, decay and init scale. Net parameters are those of the best point."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Values of `training` that differ for HF."""


class PublishedBaseline(Section):
    """A printed table; shown beside, never mixed with what was measured."""

    kind: Literal["published"]
    """A table of a paper."""
    table: str
    """Its name in published.yaml, as in s13-table1."""


class SweepBaseline(Section):
    """Another sweep's confirmed best point."""

    kind: Literal["sweep"]
    """Another sweep that was confirmed."""
    id: str
    """Its folder, or its id in `storage`."""


BASELINES: dict[str, type[Section]] = {"hf": HFBaseline, "published": PublishedBaseline, "sweep": SweepBaseline}
Baseline = Annotated[HFBaseline | PublishedBaseline | SweepBaseline, Field(discriminator="kind")]


class Compare(Section):
    """How the verdict is reached."""

    metric: str | None = None
    """What is compared; null: the objective."""
    against: str | None = None
    """The baseline of the primary contrast, by name; null: the first of `baselines` that is measured."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Two errors are equivalent when their ratio is surely within 1/(1 + margin) and 1 + margin."""
    stuck: Annotated[float, Field(gt=0)] | None = None
    """A run that ends above this error (below it, if large is good) is stuck; null: 0.9 of a constant's error."""
    target: float | None = None
    """The error whose time to reach is compared; null: the worse of the two arms' median errors."""
