"""Sorting and filtering the trials of a sweep as the table asks for it."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster.folders import Folder, UserError
from sweeps.errors import nearest
from sweeps.history import Trial


class BadQuery(UserError):
    """A sort or filter that cannot be understood."""


COLUMNS: dict[str, Callable[[Trial], Any]] = {
    "number": lambda trial: trial.number,
    "id": lambda trial: trial.number,
    "state": lambda trial: trial.state,
    "stage": lambda trial: trial.stage,
    "point": lambda trial: trial.point_id,
    "replicate": lambda trial: trial.replicate,
    "group": lambda trial: trial.group,
    "objective": lambda trial: trial.objective,
    "updates": lambda trial: trial.updates,
    "wall_s": lambda trial: trial.wall_s,
    "work": lambda trial: trial.work,
    "engine": lambda trial: trial.engine,
    "asked_at": lambda trial: trial.asked_at,
    "ended_at": lambda trial: trial.ended_at,
}
"""What every trial has; parameters come beside these by their own names."""

_TERM = re.compile(r"([^\s:<>=!]+)(:|<=|>=|!=|<|>|=)(\S+)")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ":": operator.eq, "=": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
MOST_TERMS = 12


@dataclass(frozen=True, slots=True)
class Picked:
    """The trials that a filter lets pass, by number, in order."""

    numbers: tuple[int, ...]


def pick(folder: Folder, sort: str, descending: bool, filter: str) -> Picked:
    """Sort and filter.

    Raises:
        BadQuery: there is no such column, or a term cannot be understood.
    """
    names = folder.names_of(folder.history.trials.values())
    key = _column(sort, names)
    tests = [_test(term, names) for term in _terms(filter)]
    there = [trial for trial in folder.history.trials.values() if all(test(trial) for test in tests)]
    some: list[tuple[tuple[int, Any], int]] = []
    rest: list[int] = []
    for trial in there:
        value = _comparable(key(trial))
        if value is None:
            rest.append(trial.number)
        else:
            some.append((value, trial.number))
    some.sort()
    if descending:  # equal ones by number all the same
        some.sort(key=lambda each: each[0], reverse=True)
    return Picked((*(number for _, number in some), *sorted(rest)))


def _terms(filter: str) -> list[str]:
    terms = filter.split()
    if len(terms) > MOST_TERMS:
        raise BadQuery(f"filter: {len(terms)} terms; legal: up to {MOST_TERMS}")
    return terms


def _column(name: str, names: list[str]) -> Callable[[Trial], Any]:
    if name in COLUMNS:
        return COLUMNS[name]
    plain = name.removeprefix("param.")
    if plain in names:
        return lambda trial: trial.params.get(plain)
    known = [*COLUMNS, *names]
    close = nearest(name, known)
    raise BadQuery(f"no column {name[:60]!r}; legal: {', '.join(known)}{f'; did you mean {close}?' if close else ''}")


def _comparable(value: Any) -> tuple[int, Any] | None:
    """A value that can be compared with any other: numbers before words; None and NaN have no place."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return (0, float(value)) if isinstance(value, int | float) else (1, str(value))


def _test(term: str, names: list[str]) -> Callable[[Trial], bool]:
    """What tells whether a trial fits a term."""
    match = _TERM.fullmatch(term)
    if match is None:
        word = term.lower()
        return lambda trial: word in _words(trial)
    name, sign, wanted = match.groups()
    key, compare = _column(name, names), _COMPARE[sign]
    if name == "id" and wanted[:1] == "t":
        wanted = wanted[1:]
    number = _number(wanted)

    def fits(trial: Trial) -> bool:
        value = _comparable(key(trial))
        if value is None:
            return sign == "!="
        if value[0] == 0:
            return number is not None and compare(value[1], number)
        return compare(value[1].lower(), wanted.lower())

    return fits


def _number(text: str) -> float | None:
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        return float(text)
    except ValueError:
        return None


def _words(trial: Trial) -> str:
    """All that a plain word is looked for in."""
    values = " ".join(str(value) for value in trial.params.values())
    return f"{trial.id} {trial.state} {trial.stage} {trial.point_id} {trial.reason} {values}".lower()
