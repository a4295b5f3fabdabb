"""The keys of a sweep file that say what is measured inside nets, when, and which nets are not worth training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sweeps.errors import nearest
from sweeps.rungs import snap
from sweeps.schema_values import Count, OneOf, Section, refuse, whole
from trainers.config import DIAGNOSTICS
from trainers.doomed import Bounds

MOMENTS = ("init", "rungs", "reports", "end")
ONCE = ("jacobian", "histograms")
"""What costs most and the papers show for a few moments only: left out at rungs and reports."""


def _moments(value: Any) -> Any:
    allowed = f"a list of {', '.join(MOMENTS)} and updates, such as [init, rungs, end, 500]"
    if not isinstance(value, list) or not value:
        refuse("not moments", allowed)
    moments = [whole(moment) for moment in value]
    for moment in moments:
        if moment in MOMENTS and isinstance(moment, str):
            continue
        if isinstance(moment, bool) or not isinstance(moment, int) or moment < 0:
            refuse("neither a moment nor an update", allowed, nearest(moment, MOMENTS))
    return moments


class Diagnostics(Section):
    """What is measured inside nets, and when (`trainers/diagnostics.py`)."""

    at: Annotated[list[int | str], BeforeValidator(_moments, json_schema_input_type=list[int | str])] = Field(
        default_factory=lambda: list[int | str](["init", "rungs", "end"])
    )
    """When: init, rungs, reports, end, and updates, which stand for the next report."""
    what: list[Annotated[str, OneOf("diagnostic", DIAGNOSTICS)]] = Field(default_factory=lambda: list(DIAGNOSTICS))
    """What: activations, gradients, lengths, jacobian, histograms; the last two not at rungs and reports."""
    examples: Count = 300
    """Examples of valid to measure on, the first so many."""

    def updates(self, reports: Sequence[int], rungs: Iterable[int]) -> dict[int, tuple[str, ...]]:
        """What to measure at which update, 0 for init."""
        light = tuple(name for name in self.what if name not in ONCE)
        often = {
            update for name, some in (("rungs", rungs), ("reports", reports)) if name in self.at for update in some
        }
        named = {snap(update, reports) if update else 0 for update in self.at if isinstance(update, int)}
        named |= {update for name, update in (("init", 0), ("end", reports[-1])) if name in self.at}
        found = dict.fromkeys(often, light) | dict.fromkeys(named, tuple(self.what))
        return {update: what for update, what in sorted(found.items()) if what}


def _bounds(value: Any) -> Any:
    allowed = "a list of two, the least ratio in [0, 1) and the largest above 1"
    if not isinstance(value, list) or len(value) != 2:
        refuse("not bounds", allowed)
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in value):
        refuse("not bounds", allowed)
    if not 0 <= value[0] < 1 < value[1]:
        refuse("bounds that leave no net, or all", allowed)
    return [float(bound) for bound in value]


class Doomed(Section):
    """Trials whose net cannot start, by its diagnostics before the first update (`trainers/doomed.py`)."""

    act: Literal["skip", "record"] = "skip"
    """skip: such a trial ends before its first update. record: it is trained all the same, and the verdict kept."""
    length: Annotated[list[float], BeforeValidator(_bounds)] = Field(default_factory=lambda: list(Bounds().length))
    """Least and largest ratio of M_d, the last hidden layer's to the inputs' (HR18)."""
    gradient: Annotated[list[float], BeforeValidator(_bounds)] = Field(default_factory=lambda: list(Bounds().gradient))
    """Least and largest ratio of the back-propagated gradient's sd, the first hidden layer's to the last's."""

    @property
    def bounds(self) -> Bounds:
        """For `doomed.verdict`."""
        return Bounds((self.length[0], self.length[1]), (self.gradient[0], self.gradient[1]))


def _switch(short: dict[Any, Any], allowed: str) -> Any:
    """A validator that reads a short form of a section, such as true for its defaults."""

    def read(data: Any) -> Any:
        if not isinstance(data, bool | str):
            return data
        if data not in short:
            refuse(
                "neither a switch nor a section", allowed, nearest(data, [key for key in short if isinstance(key, str)])
            )
        return short[data]

    return read


_SWITCH: dict[Any, Any] = {True: {}, False: None}
DiagnosticsField = Annotated[
    Diagnostics | None,
    BeforeValidator(_switch(_SWITCH, "true, false, or a section"), json_schema_input_type=Diagnostics | bool | None),
]
DoomedField = Annotated[
    Doomed | None,
    BeforeValidator(
        _switch(_SWITCH | {"skip": {}, "record": {"act": "record"}}, "true, false, skip, record, or a section"),
        json_schema_input_type=Doomed | bool | Literal["skip", "record"] | None,
    ),
]
