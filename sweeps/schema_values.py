"""The values that keys of a sweep file can have: counts, durations, names, tunables, rungs."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sweeps.errors import nearest
from sweeps.parameters import TUNABLE, Scalar

JsonSchema = dict[str, Any]


def refuse(wrong: str, allowed: str = "", hint: str = "", below: str = "") -> NoReturn:
    """Refuse a value in the words of a `Problem`; `below` names the key of a mapping that is at fault."""
    raise PydanticCustomError("problem", "{wrong}", {"wrong": wrong, "allowed": allowed, "hint": hint, "below": below})


class OneOf:
    """One of the names that another module lists."""

    def __init__(self, noun: str, names: tuple[str, ...]) -> None:
        self.noun = noun
        self.names = names

    def _check(self, value: Any) -> str:
        if value not in self.names:
            refuse(f"unknown {self.noun}", ", ".join(self.names), nearest(value, self.names))
        return str(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {**handler(schema), "enum": list(self.names)}


class OneOfOrOwn(OneOf):
    """One of the names that another module lists, or `package.module:function` for one of the user's own."""

    def _check(self, value: Any) -> str:
        return value if isinstance(value, str) and ":" in value else super()._check(value)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {**handler(schema), "anyOf": [{"enum": list(self.names)}, {"pattern": ":"}]}


class TaskName(OneOfOrOwn):
    """The name of a task, one of the user's own, or "" for none, as beside a trainer."""

    def _check(self, value: Any) -> str:
        return value if value == "" else super()._check(value)


class Tunable:
    """A value that `parameters.TUNABLE` says the legal values of, so that training and space agree."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.legal = TUNABLE[name]

    def _check(self, value: Any) -> Any:
        if problem := self.legal.problem(self.name, value):
            refuse(problem.wrong, problem.allowed, problem.hint)
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
        if self.legal.most is not None:
            found["maximum"] = self.legal.most
        return found


def whole(value: Any) -> Any:
    """Whole numbers written as 2e3 are whole; pydantic's strict mode refuses the rest."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def scalar(value: Any) -> Any:
    """A number or a name, nothing else."""
    if isinstance(value, bool) or not isinstance(value, Scalar):
        refuse("not a number or a name", "numbers and names")
    return value


def _auto_or_count(value: Any) -> Any:
    value = whole(value)
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        refuse("neither auto nor a count", "auto, or a whole number, 1 or more", nearest(value, ["auto"]))
    return value


def rung_updates(value: Any) -> Any:
    """`auto`, update counts that grow, or None."""
    allowed = "auto, null, or a list of growing updates such as [300, 900]"
    if value == "auto" or value is None:
        return value
    if not isinstance(value, list) or not value:
        refuse("not rungs", allowed, nearest(value, ["auto"]) if isinstance(value, str) else "")
    updates = [whole(update) for update in value]
    if any(isinstance(update, bool) or not isinstance(update, int) or update < 1 for update in updates):
        refuse("a rung is an update count", allowed)
    if any(a >= b for a, b in itertools.pairwise(updates)):
        refuse("rungs that do not grow", allowed)
    return updates


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*[smhd]\s*)+")


def duration(value: Any) -> Any:
    """Seconds from a number or text such as 90s, 5m, 1h30m, 2d."""
    if isinstance(value, str):
        text = value.strip().lower()
        if not _DURATION.fullmatch(text):
            refuse("not a duration", "seconds, or text such as 90s, 5m, 1h30m, 2d")
        value = sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text))
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        refuse("not a duration above 0", "seconds, or text such as 90s, 5m, 1h30m, 2d")
    return value


Count = Annotated[int, Field(ge=1), BeforeValidator(whole)]
Seed = Annotated[int, Field(ge=0), BeforeValidator(whole)]
AutoOrCount = Annotated[
    int | Literal["auto"], BeforeValidator(_auto_or_count, json_schema_input_type=int | Literal["auto"])
]
Duration = Annotated[float | None, BeforeValidator(duration, json_schema_input_type=float | str | None)]


class Section(BaseModel):
    """What all sections share: unknown keys refused, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)
