"""Pydantic's findings in the words of `Problem`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sweeps.errors import ABSENT, Problem, ProblemsError, SpecError, nearest
from sweeps.parameters import KINDS, Choice, Fixed, Float, Int, expand
from sweeps.schema import Fields
from sweeps.schema_baselines import BASELINES

_PLAIN = {
    "bool_type": ("neither true nor false", "true, false"),
    "dict_type": ("not a section", "keys with values"),
    "finite_number": ("not a finite number", ""),
    "float_type": ("not a number", "a number"),
    "int_type": ("not a whole number", "a whole number"),
    "list_type": ("not a list", "a list"),
    "model_attributes_type": ("not a parameter", "a section with a type, a list of values, or one value"),
    "model_type": ("not a section", "keys with values"),
    "string_pattern_mismatch": ("not a name for a folder", "letters, digits, then also . - _"),
    "string_too_long": ("too long for the name of a folder", "80 characters"),
    "string_type": ("not text", "text"),
    "too_long": ("too many", "fewer"),
    "too_short": ("too few", "more"),
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("gt", "a number above {}"),
    "greater_than_equal": ("ge", "a number, {} or more"),
    "less_than": ("lt", "a number below {}"),
    "less_than_equal": ("le", "a number, {} or less"),
}
_BOOLS = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "1": "true",
    "no": "false",
    "off": "false",
    "n": "false",
    "0": "false",
}


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field's type holds, None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section(part))), None)


def _walk(section: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every key path of a section."""
    for name, field in section.model_fields.items():
        yield path + name
        if inner := _section(field.annotation):
            yield from _walk(inner, f"{path}{name}.")


def _siblings(loc: Sequence[str | int]) -> list[str]:
    """The keys that are known where an unknown one stood."""
    if loc[0] == "space":
        kind = {"float": Float, "int": Int, "choice": Choice, "fixed": Fixed}[str(loc[2])]
        return [field.name for field in dataclasses.fields(kind)]
    section: type[BaseModel] | None = Fields
    if loc[0] == "baselines":
        section, loc = BASELINES[str(loc[2])], loc[3:]
    for key in loc[:-1]:
        if isinstance(key, int):  # an item of a list
            continue
        assert section is not None
        section = _section(section.model_fields[str(key)].annotation)
    assert section is not None
    return list(section.model_fields)


def _unknown(path: str, value: Any, loc: Sequence[str | int]) -> Problem:
    """An unknown key: perhaps a known one elsewhere, a mistyped one here, or another tool's word."""
    key, siblings = str(loc[-1]), _siblings(loc)
    paths: dict[str, str] = {}
    for known in _walk(Fields):
        paths.setdefault(known.rpartition(".")[2], known)
    paths["seed"] = "search.seed"  # not task.seed: what people mean
    best = key if key in paths else nearest(key, [*siblings, *paths])
    hint = best if best in siblings else paths.get(best, "")
    return Problem(path, "unknown key", value, ", ".join(siblings), hint)


def _one(error: ErrorDetails) -> list[Problem]:
    """The problems of one finding."""
    loc, kind, ctx = list(error["loc"]), error["type"], error.get("ctx", {})
    if kind == "default_factory_not_called":  # follows from another error
        return []
    if isinstance(inner := ctx.get("error"), ProblemsError):
        return inner.problems
    tagged = len(loc) > 2 and (
        (loc[0] == "space" and loc[2] in KINDS) or (loc[0] == "baselines" and loc[2] in BASELINES)
    )
    shown = loc[:2] + loc[3:] if tagged else loc
    path, value = ".".join(map(str, shown)), error["input"]
    if kind == "problem":
        if below := ctx["below"]:
            path, value = f"{path}.{below}", expand(value)
            for key in below.split("."):
                value = value[key]
        return [Problem(path, ctx["wrong"], value, ctx["allowed"], ctx["hint"])]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return [_unknown(path, value, loc)]
    if kind in ("union_tag_invalid", "union_tag_not_found"):  # parameters have refused theirs before
        told = value.get("kind", ABSENT) if isinstance(value, dict) else ABSENT
        wrong = "a baseline needs a kind" if kind == "union_tag_not_found" else "unknown kind of baseline"
        return [Problem(f"{path}.kind", wrong, told, ", ".join(BASELINES), nearest(told, BASELINES))]
    if kind == "missing":
        return [Problem(path, "missing", ABSENT)]
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", str(ctx["expected"]))
        return [Problem(path, "not one of the choices", value, ", ".join(names), nearest(value, names))]
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return [Problem(path, "out of range", value, words.format(f"{ctx[bound]:g}"))]
    if kind == "model_attributes_type" and loc[0] == "baselines":
        return [Problem(path, "not a section", value, "keys with values, as in {kind: hf}")]
    wrong, allowed = _PLAIN.get(kind, (error["msg"], ""))
    hint = _BOOLS.get(str(value).lower(), "") if kind == "bool_type" else ""
    return [Problem(path, wrong, value, allowed, hint)]


def problems_of(error: ValidationError) -> list[Problem]:
    """Everything that pydantic, or our own checks through it, found wrong."""
    return [problem for found in error.errors(include_url=False) for problem in _one(found)]


def problems_in(error: ValueError) -> list[Problem]:
    """What made a spec be refused, whether pydantic says so or we. Raises the error if it is about no spec."""
    if isinstance(error, SpecError):
        return error.errors
    if not isinstance(error, ValidationError):
        raise error
    return problems_of(error)
