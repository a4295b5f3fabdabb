"""The JSON Schema of a sweep file, with each key described by the docstring below it in the source.

pydantic can read these docstrings itself, but does so at import, which costs every command 50 ms.
"""

from __future__ import annotations

import ast
import inspect
import itertools
from types import ModuleType
from typing import Any

from sweeps import (
    parameters,
    schema,
    schema_baselines,
    schema_diagnostics,
    schema_night,
    schema_search,
    schema_trial,
    shapes,
)
from sweeps.schema import Fields


def _docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """For each class of a module, its fields' docstrings."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields = found.setdefault(node.name, {})
        for field, after in itertools.pairwise(node.body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                fields[field.target.id] = inspect.cleandoc(str(after.value.value))
    return found


def json_schema(spec: type[Fields]) -> dict[str, Any]:
    """JSON Schema of a sweep file, for editors: every key with its meaning, short forms included."""
    docs: dict[str, dict[str, str]] = {}
    modules = (
        parameters, shapes, schema_trial, schema_diagnostics, schema_baselines, schema_night, schema_search, schema,
    )  # fmt: skip
    for module in modules:
        docs |= _docstrings(module)
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **spec.model_json_schema()}
    for name, section in [("Fields", found), *found["$defs"].items()]:
        for key, described in section["properties"].items():
            described["description"] = docs[name][key]
        if when := section["properties"].get("when"):  # a kind of parameter: one value may stand for a list of one
            values = when["additionalProperties"]
            when["additionalProperties"] = {"anyOf": [*values["items"]["anyOf"], values]}
            section["required"] = [*section["required"], "type"]
    return found
