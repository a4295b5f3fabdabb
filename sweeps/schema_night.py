"""The keys of a sweep file that say how its nights are judged, when it is run every night (docs/nights.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sweeps.schema_values import Count, Section


class Expect(Section):
    """What is known of the results, so that even the first night is judged; until a person accepts a night."""

    source: str = ""
    """Where the numbers come from, and when, for people."""
    best: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """The best objective lies between these two, as in [0.3, 0.4]."""
    trials: dict[str, float] = Field(default_factory=dict)
    """Fixed nights: objectives by trial, as in t00003: 0.312."""
    within: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Fixed nights: objectives may differ so much from `trials`, relatively, as another kind of machine's do."""


class NightRules(Section):
    """What a night is held against."""

    kind: Literal["fixed", "fresh"]
    """fixed: the same seeds every night, results equal to tolerance. fresh: new ones every night, compared by tests."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Fixed nights: the largest relative difference that is none."""
    reference: Count = 20
    """Fresh nights: the first so many nights are what all later ones are held against."""
    expect: Expect | None = None
    """What is known of the results beforehand; null: the first night is the reference as it is."""
