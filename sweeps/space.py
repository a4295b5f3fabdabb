"""A search space: named parameters, some of them conditional, and the pure ways between points and numbers.

A point is a dict from the active names to values. Three views of it:

- params: what a person writes and the journal holds (`mu_max: 0.99`, `fan_in` only under sparse init);
- internal: what a sampler proposes (`mu_max` as 1-mu, log-uniform), searched names only;
- unit: numbers in [0, 1), one for each searched name, for quasi-random sequences.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.errors import Problem, nearest
from sweeps.parameters import TUNABLE, Choice, Fixed, Float, Int, Internal, Parameter, Scalar

Params = dict[str, Any]

__all__ = ["TUNABLE", "Choice", "Fixed", "Float", "Int", "Internal", "Parameter", "Params", "Space", "point_id"]


def coerce(params: Mapping[str, Any]) -> Params:
    """The point with each value in its name's own type (`lr: 1` as 1.0), so that equal points compare equal."""
    return {name: TUNABLE[name].coerce(value) if name in TUNABLE else value for name, value in params.items()}


def point_id(params: Mapping[str, Any]) -> str:
    """A short name of a point, the same on every machine and for every order of its names: 12 hex digits."""
    text = json.dumps(coerce(params), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _coerced(name: str, parameter: Parameter) -> Parameter:
    """The parameter with its choices in the type of its name, so that `[0, 0.9]` holds two floats."""
    legal = TUNABLE.get(name)
    when = {
        other: [TUNABLE[other].coerce(value) if other in TUNABLE else value for value in values]
        for other, values in parameter.when.items()
    }
    if isinstance(parameter, Choice):
        return Choice([legal.coerce(v) for v in parameter.values] if legal else parameter.values, when)
    if isinstance(parameter, Fixed):
        return Fixed(legal.coerce(parameter.value) if legal else parameter.value, when)
    if isinstance(parameter, Float):
        return Float(parameter.low, parameter.high, parameter.scale, when)
    return Int(parameter.low, parameter.high, parameter.scale, when)


class Space(Mapping[str, Parameter]):
    """Parameters by name, those that others depend on first; otherwise in the order given."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        given = {name: _coerced(name, parameter) for name, parameter in parameters.items()}
        self._parameters: dict[str, Parameter] = {}
        while given:
            ready = (name for name, p in given.items() if not any(other in given for other in p.when))
            name = next(ready, next(iter(given)))  # a circle is kept, for `problems` to name it
            self._parameters[name] = given.pop(name)
        self.cyclic = any(
            other in self._parameters and self._index(other) >= self._index(name)
            for name, parameter in self.items()
            for other in parameter.when
        )

    def _index(self, name: str) -> int:
        return list(self._parameters).index(name)

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self._parameters == other._parameters

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Space({self._parameters})"

    @property
    def searched(self) -> tuple[str, ...]:
        """The names that a sampler chooses, parents before those that depend on them."""
        return tuple(name for name, parameter in self.items() if not isinstance(parameter, Fixed))

    def is_active(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether a parameter's condition holds at a point; a parent that is itself inactive fails it."""
        when = self[name].when
        return all(
            other in params and params[other] in values and self.is_active(other, params)
            for other, values in when.items()
        )

    def active(self, params: Mapping[str, Any]) -> Params:
        """The point without names whose condition does not hold, fixed values filled in, in the space's order."""
        point: Params = {}
        for name, parameter in self.items():
            if not self.is_active(name, point):
                continue
            if isinstance(parameter, Fixed):
                point[name] = parameter.value
            elif name in params:
                point[name] = TUNABLE[name].coerce(params[name]) if name in TUNABLE else params[name]
        return point

    def internal(self) -> dict[str, Internal]:
        """The distribution of each searched name, parents first. Ask for a name only where it `is_active`."""
        return {name: self[name].internal(name) for name in self.searched}

    def to_internal(self, params: Mapping[str, Any]) -> dict[str, Scalar]:
        """A point's searched values as a sampler's numbers; the inverse of `from_internal`."""
        return {name: self[name].to_internal(params[name]) for name in self.searched if name in params}

    def from_internal(self, values: Mapping[str, Scalar]) -> Params:
        """The point that a sampler's numbers mean, fixed values included, inactive names dropped.

        `from_internal(to_internal(p)) == p` exactly. The other way round, a `one_minus_log` number is
        kept to 15 decimals, so a sampler that must replay bit for bit should be told `to_internal(p)`.
        """
        return self.active({name: self[name].from_internal(value) for name, value in values.items()})

    def from_unit(self, units: Mapping[str, float]) -> Params:
        """The point at a place of the unit cube: a number in [0, 1) for each searched name."""
        return self.active({name: self[name].from_unit(units[name]) for name in self.searched})

    def grid(self, points: Mapping[str, int] | None = None) -> list[Params]:
        """Every combination of values, the last name moving fastest, each point once.

        `points` says how many values a range contributes; a range of floats needs it.
        """
        axes = [self[name].grid((points or {}).get(name)) for name in self.searched]
        found: dict[str, Params] = {}
        for values in itertools.product(*axes):
            point = self.active(dict(zip(self.searched, values, strict=True)))
            found.setdefault(point_id(point), point)
        return list(found.values())

    def check(self, params: Mapping[str, Any], path: str, any_name: bool = False) -> list[Problem]:
        """What is wrong with a user's point, which may leave names to the sampler; `any_name` as for `problems`."""
        problems: list[Problem] = []
        point = coerce(params)
        for name, value in point.items():
            place = f"{path}.{name}"
            if name not in self:
                problems.append(_not_here(place, name, value, self))
            elif not any_name and (legal := TUNABLE.get(name)) and (problem := legal.problem(place, value)):
                problems.append(problem)
            elif not self[name].contains(value):
                problems.append(Problem(place, f"not in space.{name}", value, self[name].allowed))
            else:
                known = {**{n: p.value for n, p in self.items() if isinstance(p, Fixed)}, **point}
                for other, values in self[name].when.items():
                    if other in known and known[other] not in values:
                        wrong = f"set only when {other} is {' or '.join(map(str, values))}, here {known[other]}"
                        problems.append(Problem(place, wrong, value, "leave it out"))
        return problems

    def problems(self, path: str = "space", any_name: bool = False) -> list[Problem]:
        """What is wrong with the space itself: names, kinds, ranges, values, conditions.

        With `any_name` a name means what the user's own code makes of it, whatever it is to musweep.
        """
        problems: list[Problem] = []
        for name, parameter in self.items():
            place = f"{path}.{name}"
            if any_name:
                problems += parameter.problems(place)
            elif name not in TUNABLE:
                hint = nearest(name, TUNABLE)
                problems.append(Problem(place, "unknown parameter", allowed=", ".join(TUNABLE), hint=hint))
                continue
            else:
                problems += _illegal(place, name, parameter) or parameter.problems(place)
            problems += self._conditions(place, name, parameter)
        if self.cyclic:
            ring = self._ring()
            wrong = f"conditions in a circle: {' -> '.join((*ring, ring[0]))}"
            problems.append(Problem(f"{path}.{ring[0]}.when", wrong, allowed="conditions that end somewhere"))
        return problems

    def _conditions(self, place: str, name: str, parameter: Parameter) -> list[Problem]:
        """What is wrong with one parameter's `when`."""
        problems: list[Problem] = []
        for other, values in parameter.when.items():
            here = f"{place}.when.{other}"
            if other not in self:
                problems.append(_not_here(here, other, values if len(values) != 1 else values[0], self))
                continue
            possible = self[other].values
            if possible is None:
                wrong = f"{other} is a range: it never has just this value"
                problems.append(Problem(here, wrong, values[0] if values else None, "a choice, an int or a fixed one"))
                continue
            if not values:
                problems.append(Problem(here, f"no values: {name} would never be used", values, self[other].allowed))
            for value in values:
                if value not in possible:
                    hint = nearest(value, map(str, possible))
                    problems.append(Problem(here, f"{other} never has this value", value, self[other].allowed, hint))
        return problems

    def _ring(self) -> list[str]:
        """The names of one circle of conditions, in the order in which they depend on each other."""
        for start in self:
            trail = [start]
            while True:
                after = [o for o in self[trail[-1]].when if o in self and self._index(o) >= 0]
                step = next((o for o in after if o == start), next((o for o in after if o not in trail), None))
                if step == start:
                    return trail
                if step is None:
                    break
                trail.append(step)
        return [next(iter(self))]


def _not_here(place: str, name: str, value: Any, space: Space) -> Problem:
    """A name that the space does not hold: fixed for all trials, or unknown."""
    wrong = f"{name} is not in the space" if name in TUNABLE else "unknown parameter"
    return Problem(place, wrong, value, ", ".join(space) or "no parameter at all", nearest(name, space))


def _illegal(place: str, name: str, parameter: Parameter) -> list[Problem]:
    """What is wrong with a parameter for its name: kind and values."""
    legal = TUNABLE[name]
    if parameter.type not in legal.kinds:
        wrong = f"{name} is {'a name' if legal.kind == 'name' else 'a whole number'}"
        wrong = "a number that need not be whole" if legal.kind == "float" else wrong
        wrong = f"each {name} makes a net of its own, so some values must be listed" if legal.listed else wrong
        return [Problem(f"{place}.type", wrong, parameter.type, ", ".join(legal.kinds))]
    if isinstance(parameter, Float | Int):
        if parameter.low >= parameter.high or parameter.problems(place):
            return []  # an empty range or a wrong scale says more than its ends do
        pairs: list[tuple[str, Scalar]] = [("low", parameter.low), ("high", parameter.high)]
    elif isinstance(parameter, Fixed):
        pairs = [("value", parameter.value)]
    else:
        pairs = [("values", value) for value in parameter.values]
    found = (legal.problem(place if key in ("values", "value") else f"{place}.{key}", value) for key, value in pairs)
    return [problem for problem in found if problem]
