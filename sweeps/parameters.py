"""The kinds of parameter a space is made of, and what each tunable name may be.

Standard-library dataclasses: `sweeps/schema.py` lets pydantic build and describe them. A sampler sees a
parameter through `internal`, where a `one_minus_log` parameter x is log-uniform in 1-x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from sweeps.errors import Problem, nearest
from trainers.config import ACTIVATIONS, INITS, LR_SCHEDULES, METHODS, MU_SCHEDULES

Scalar = str | int | float
_DIGITS = 15
"""Decimals kept by one_minus_log: x -> 1-x is then exactly invertible, as floats near 1 are 1.1e-16 apart."""

_CONFIG = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, slots=True)
class Legal:
    """The values a tunable can take in any spec: a number of an interval, or one of some names.

    `low` and `most` belong to the interval, `below` does not. Without `names` any name will do here: which there are,
    another key says. A `listed` number is part of a net's shape, so only so many values of it can be searched.
    """

    kind: Literal["float", "int", "name"]
    low: float | None = None
    below: float | None = None
    most: float | None = None
    positive: bool = False
    names: tuple[str, ...] = ()
    listed: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The parameter kinds that can produce such values."""
        return ("choice", "fixed") if self.kind == "name" or self.listed else (self.kind, "choice", "fixed")

    def __str__(self) -> str:
        if self.kind == "name":
            return ", ".join(self.names) or "a name"
        noun = "a number" if self.kind == "float" else "a whole number"
        if self.most is not None:
            return f"{noun} {'above 0' if self.positive else f'from {self.low:g}'}, at most {self.most:g}"
        if self.positive:
            return f"{noun} above 0"
        if self.below is not None:
            return f"{noun} in [{self.low:g}, {self.below:g})"
        return f"{noun}, {self.low:g} or more"

    def coerce(self, value: Any) -> Any:
        """The value in its right type where that loses nothing (1 for 1.0), else the value untouched."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if self.kind == "float":
            return float(value)
        return int(value) if self.kind == "int" and math.isfinite(value) and value == int(value) else value

    def problem(self, path: str, value: Any) -> Problem | None:
        """What is wrong with a value at a path, None if nothing is."""
        value = self.coerce(value)
        if self.kind == "name":
            if value in self.names or (not self.names and isinstance(value, str)):
                return None
            noun = path.rpartition(".")[2]
            return Problem(path, f"unknown {noun}", value, str(self), nearest(value, self.names))
        right = isinstance(value, float if self.kind == "float" else int) and not isinstance(value, bool)
        if not right or not math.isfinite(value):
            return Problem(path, "not a number" if self.kind == "float" else "not a whole number", value, str(self))
        small = value <= 0 if self.positive else self.low is not None and value < self.low
        large = (self.below is not None and value >= self.below) or (self.most is not None and value > self.most)
        if small or large:
            return Problem(path, "out of range", value, str(self))
        return None


_UNIT = Legal("float", low=0, below=1)
_POSITIVE = Legal("float", positive=True)
_COUNT = Legal("int", low=1)
_COUNT_0 = Legal("int", low=0)
TUNABLE: dict[str, Legal] = {
    "mu_max": _UNIT,
    "lr": _POSITIVE,
    "method": Legal("name", names=METHODS),
    "init": Legal("name", names=INITS),
    "depth": _COUNT_0,
    "init_scale": _POSITIVE,
    "fan_in": _COUNT,
    "mu_schedule": Legal("name", names=MU_SCHEDULES),
    "mu_step": _COUNT,
    "mu_first": _UNIT,
    "mu_first_updates": _COUNT_0,
    "tail_updates": _COUNT_0,
    "tail_mu": _UNIT,
    "lr_schedule": Legal("name", names=LR_SCHEDULES),
    "lr_warmup": _COUNT_0,
    "lr_step": _COUNT,
    "lr_factor": Legal("float", positive=True, most=1),
    "beta1": _UNIT,
    "beta2": _UNIT,
    "epsilon": _POSITIVE,
    "weight_decay": Legal("float", low=0),
    "damping": _POSITIVE,
    "hf_damping": _POSITIVE,
    "hf_cg_max": _COUNT,
    "hf_cg_decay": Legal("float", low=0, most=1),
    "hf_l2": Legal("float", low=0),
    "hf_chunks": _COUNT,
    "hf_structural": Legal("float", low=0),
    "kappa": _POSITIVE,
    "spectral_radius": _POSITIVE,
    "input_scale": _POSITIVE,
    "pretrain_updates": _COUNT_0,
    "pretrain_lr": _POSITIVE,
    "corruption": _UNIT,
    "batch": _COUNT,
    "width": _COUNT,
    "widths": Legal("name"),
    "eta_base": Legal("float", positive=True, listed=True),
    "activation": Legal("name", names=ACTIVATIONS),
}
"""Every name that a space can hold, with its legal values."""


@dataclass(frozen=True, slots=True)
class Internal:
    """A searched parameter as a sampler sees it: uniform (or log-uniform) numbers, or one of `choices`."""

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Scalar, ...] = ()


def _between(unit: float, low: float, high: float, log: bool) -> float:
    """The number a share `unit` in [0, 1] of the way from low to high, the ends exactly."""
    if unit in (0, 1):
        return high if unit else low
    if log:
        return min(max(math.exp(math.log(low) + unit * (math.log(high) - math.log(low))), low), high)
    return min(max(low + unit * (high - low), low), high)


@dataclass(frozen=True, slots=True)
class Float:
    """A real number between `low` and `high`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    low: float
    """The smallest value."""
    high: float
    """The largest value, above `low`."""
    scale: Literal["linear", "log", "one_minus_log"] = "linear"
    """How values spread: evenly, evenly in log x, or evenly in log (1-x), which suits momentum."""
    when: dict[str, list[Scalar]] = field(default_factory=dict)
    """Searched only where each named parameter has one of the values."""
    type: Literal["float"] = "float"
    """The kind of parameter."""

    def internal(self, name: str) -> Internal:
        """Its distribution for a sampler."""
        if self.scale == "one_minus_log":
            return Internal(name, "float", round(1 - self.high, _DIGITS), round(1 - self.low, _DIGITS), log=True)
        return Internal(name, "float", self.low, self.high, log=self.scale == "log")

    def to_internal(self, value: Scalar) -> Scalar:
        """A value as the sampler's number."""
        return round(1 - float(value), _DIGITS) if self.scale == "one_minus_log" else float(value)

    def from_internal(self, value: Scalar) -> Scalar:
        """The sampler's number as a value, within [low, high]."""
        value = round(1 - float(value), _DIGITS) if self.scale == "one_minus_log" else float(value)
        return min(max(value, self.low), self.high)

    def from_unit(self, unit: float) -> Scalar:
        """The value at a share `unit` in [0, 1] of the range."""
        shape = self.internal("")
        if self.scale == "one_minus_log":  # upwards in x, as the other scales
            unit = 1 - unit
        return self.from_internal(_between(unit, shape.low, shape.high, shape.log))

    def grid(self, points: int | None) -> list[Scalar]:
        """So many values, evenly spread over the scale, both ends among them."""
        assert points, "spec checks that a grid has points for every continuous parameter"
        return [self.from_unit(i / (points - 1)) for i in range(points)] if points > 1 else [self.from_unit(0.5)]

    def contains(self, value: Any) -> bool:
        """Whether a sampler could propose the value."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    @property
    def values(self) -> list[Scalar] | None:
        """All values where they are few, else None."""
        return None

    @property
    def allowed(self) -> str:
        """Its values in words."""
        return f"{self.low:g} to {self.high:g}"

    def problems(self, path: str) -> list[Problem]:
        """An empty range, or one that its scale cannot span."""
        if not self.low < self.high:
            return [Problem(f"{path}.low", f"empty range: not below high={self.high:g}", self.low)]
        if self.scale == "log" and self.low <= 0:
            return [
                Problem(f"{path}.low", "a log range cannot reach 0", self.low, "a number above 0, or scale: linear")
            ]
        if self.scale == "one_minus_log" and self.low < 0:
            return [Problem(f"{path}.low", "one_minus_log needs values in [0, 1)", self.low, "a number in [0, 1)")]
        if self.scale == "one_minus_log" and self.high > 1 - 1e-9:
            wrong = "one_minus_log needs values in [0, 1)"
            return [Problem(f"{path}.high", wrong, self.high, "a number in [0, 1)", "0.999" if self.high >= 1 else "")]
        return []


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number from `low` to `high`, both included."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    low: int
    """The smallest value."""
    high: int
    """The largest value, above `low`."""
    scale: Literal["linear", "log"] = "linear"
    """How values spread: evenly, or evenly in log x."""
    when: dict[str, list[Scalar]] = field(default_factory=dict)
    """Searched only where each named parameter has one of the values."""
    type: Literal["int"] = "int"
    """The kind of parameter."""

    def internal(self, name: str) -> Internal:
        """Its distribution for a sampler."""
        return Internal(name, "int", self.low, self.high, log=self.scale == "log")

    def to_internal(self, value: Scalar) -> Scalar:
        """A value as the sampler's number: itself."""
        return int(value)

    def from_internal(self, value: Scalar) -> Scalar:
        """The sampler's number as a value: itself."""
        return int(value)

    def from_unit(self, unit: float) -> Scalar:
        """The value at a share `unit` in [0, 1] of the range; each whole number owns half a step on both sides."""
        low, high = self.low - 0.5, self.high + 0.5
        return min(max(math.floor(_between(unit, low, high, self.scale == "log") + 0.5), self.low), self.high)

    def grid(self, points: int | None) -> list[Scalar]:
        """So many values evenly over the scale, both ends among them; all of them without a number."""
        if points is None or points >= self.high - self.low + 1:
            return list(range(self.low, self.high + 1))
        if points == 1:
            return [self.from_unit(0.5)]
        spread = (_between(i / (points - 1), self.low, self.high, self.scale == "log") for i in range(points))
        return list(dict.fromkeys(round(value) for value in spread))

    def contains(self, value: Any) -> bool:
        """Whether a sampler could propose the value."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    @property
    def values(self) -> list[Scalar] | None:
        """All values where they are few, else None."""
        return list(range(self.low, self.high + 1)) if self.high - self.low < 100_000 else None

    @property
    def allowed(self) -> str:
        """Its values in words."""
        return f"{self.low} to {self.high}"

    def problems(self, path: str) -> list[Problem]:
        """An empty range, or one that its scale cannot span."""
        if not self.low < self.high:
            return [Problem(f"{path}.low", f"empty range: not below high={self.high}", self.low)]
        if self.scale == "log" and self.low <= 0:
            return [Problem(f"{path}.low", "a log range cannot reach 0", self.low, "1 or more, or scale: linear")]
        return []


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, without an order."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    values: list[Scalar]
    """The values to choose from, each once."""
    when: dict[str, list[Scalar]] = field(default_factory=dict)
    """Searched only where each named parameter has one of the values."""
    type: Literal["choice"] = "choice"
    """The kind of parameter."""

    def internal(self, name: str) -> Internal:
        """Its distribution for a sampler."""
        return Internal(name, "choice", choices=tuple(self.values))

    def to_internal(self, value: Scalar) -> Scalar:
        """A value as the sampler's choice: itself."""
        return value

    def from_internal(self, value: Scalar) -> Scalar:
        """The sampler's choice as a value: itself."""
        return value

    def from_unit(self, unit: float) -> Scalar:
        """The value at a share `unit` in [0, 1] of the list."""
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def grid(self, points: int | None) -> list[Scalar]:  # noqa: ARG002 - the same question as to the other kinds
        """All values."""
        return list(self.values)

    def contains(self, value: Any) -> bool:
        """Whether a sampler could propose the value."""
        return value in self.values

    @property
    def allowed(self) -> str:
        """Its values in words."""
        return ", ".join(map(str, self.values))

    def problems(self, path: str) -> list[Problem]:
        """No value, or one twice."""
        if not self.values:
            return [Problem(f"{path}.values", "no values to choose from", self.values, "a list of values")]
        twice = sorted({str(value) for value in self.values if self.values.count(value) > 1})
        if twice:
            return [Problem(f"{path}.values", f"{', '.join(twice)} given twice", self.values, "each value once")]
        return []


@dataclass(frozen=True, slots=True)
class Fixed:
    """One value for all trials, shown with the searched ones."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    value: Scalar
    """The value."""
    when: dict[str, list[Scalar]] = field(default_factory=dict)
    """Set only where each named parameter has one of the values."""
    type: Literal["fixed"] = "fixed"
    """The kind of parameter."""

    def internal(self, name: str) -> Internal:
        """One choice; samplers leave it out."""
        return Internal(name, "choice", choices=(self.value,))

    def to_internal(self, value: Scalar) -> Scalar:
        """A value as it stands."""
        return value

    def from_internal(self, value: Scalar) -> Scalar:  # noqa: ARG002 - the same question as to the other kinds
        """The value, whatever a sampler says."""
        return self.value

    def from_unit(self, unit: float) -> Scalar:  # noqa: ARG002
        """The value everywhere."""
        return self.value

    def grid(self, points: int | None) -> list[Scalar]:  # noqa: ARG002
        """The value."""
        return [self.value]

    def contains(self, value: Any) -> bool:
        """Whether it is the value."""
        return bool(value == self.value)

    @property
    def values(self) -> list[Scalar]:
        """The value, as a list."""
        return [self.value]

    @property
    def allowed(self) -> str:
        """Its value in words."""
        return str(self.value)

    def problems(self, path: str) -> list[Problem]:  # noqa: ARG002
        """Nothing can be wrong with one value that its name does not say."""
        return []


Parameter = Float | Int | Choice | Fixed
KINDS = ("float", "int", "choice", "fixed")


def expand(data: Any) -> Any:
    """The full form of a parameter written short: a list is a choice, a bare value is fixed."""
    if isinstance(data, list | tuple):
        return {"type": "choice", "values": list(data)}
    if isinstance(data, Scalar):
        return {"type": "fixed", "value": data}
    if not isinstance(data, Mapping):
        return data
    data = dict(data)
    if isinstance(when := data.get("when"), Mapping):
        data["when"] = {name: value if isinstance(value, list) else [value] for name, value in when.items()}
    return data
