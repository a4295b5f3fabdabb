"""From YAML text and `--set` overrides to plain data, with every mistake placed.

The loader is PyYAML's safe one with YAML 1.2's plain scalars: `1e-3` is a number, `no` is a name, `010` is
ten. A key given twice is an error, where PyYAML silently keeps the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from sweeps.errors import ABSENT, Problem, ProblemsError, nearest
from sweeps.parameters import expand


class _Loader(yaml.SafeLoader):
    """SafeLoader with the plain scalars of YAML 1.2's core schema (and 20_000)."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way; add_implicit_resolver copies it


_NUMBER = list("-+0123456789.")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), _NUMBER)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    _NUMBER,
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)).replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:int", _whole)


def _twice(node: yaml.Node, path: str = "") -> list[Problem]:
    """The keys that a mapping gives more than once, anywhere below a node."""
    problems: list[Problem] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            place = f"{path}.{key.value}" if path else str(key.value)
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                shown = value.value if isinstance(value, yaml.ScalarNode) else ABSENT
                problems.append(Problem(place, f"key given twice, again on line {key.start_mark.line + 1}", shown))
            seen.add(str(key.value))
            problems += _twice(value, place)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            problems += _twice(item, f"{path}.{i}" if path else str(i))
    return problems


def parse(text: str) -> Any:
    """The data of YAML text.

    Raises:
        ProblemsError: text that is not YAML, or a key given twice.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if problems := _twice(node):
                raise ProblemsError(problems)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ProblemsError([Problem("", f"{place}not YAML: {reason}")]) from None
    except (ValueError, RecursionError) as error:  # a date that is none, a list inside itself
        if isinstance(error, ProblemsError):
            raise
        raise ProblemsError([Problem("", f"not YAML: {error}")]) from None


_SHORT = {"task": "name", "objective": "metric"}


def _open(data: Any, path: Sequence[str]) -> Any:
    """The full form of what stands at a path, where it may be written short."""
    if len(path) == 2 and path[0] == "space":
        return expand(data)
    if len(path) == 1 and path[0] in _SHORT and isinstance(data, str):
        return {_SHORT[path[0]]: data}
    return data


def merge(base: dict[str, Any], changes: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
    """Put a protocol's keys into a spec's data in place, section by section; null takes a key out.

    A parameter of another type replaces the one that was there. `fork: null` stays null, which is not its default.
    """
    for key, value in changes.items():
        place = (*path, str(key))
        there = _open(base.get(key), place)
        if value is None and key != "fork":
            base.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(there, dict) and value.get("type") in (None, there.get("type")):
            base[key] = dict(there)
            merge(base[key], value, place)
        else:
            base[key] = value


def protocol_of(data: dict[str, Any], name: str | None) -> None:
    """Make plain data the protocol of a name, `full` by default, in place; data without protocols stay as they are.

    Raises:
        ProblemsError: no such protocol, or protocols that are no mapping of names to keys.
    """
    protocols = data.pop("protocols", None)
    if protocols is None and name is None:
        return
    if not isinstance(protocols or {}, dict) or not all(isinstance(keys, dict) for keys in (protocols or {}).values()):
        raise ProblemsError([Problem("protocols", "not protocols", protocols, "sections of keys, each under its name")])
    known = ["full", *(protocols or {})]
    chosen = name or data.get("protocol") or "full"
    if chosen not in known:
        raise ProblemsError([Problem("protocol", "no such protocol", chosen, ", ".join(known), nearest(chosen, known))])
    changes = (protocols or {}).get(chosen, {})
    merge(data, changes)
    data["protocol"] = chosen
    if chosen != "full" and "name" in data and "name" not in changes:
        data["name"] = f"{data['name']}-{chosen}"


def override(data: dict[str, Any], text: str) -> str:
    """Set one key in place from `a.b.c=value` and return its path; the value is read as YAML.

    Whether the key exists is for the spec to say, as for a key of the file; only what has no place to go is
    refused here. In the space, null takes a parameter out.

    Raises:
        ProblemsError: not an override, or a path through something that has no such place.
    """
    path, equals, value_text = text.partition("=")
    path = path.strip()
    keys = path.split(".")
    if not equals or not all(keys):
        raise ProblemsError([Problem("", f"{text}: not an override", allowed="KEY.PATH=VALUE, as in training.lr=0.1")])
    try:
        value = parse(value_text)
    except ProblemsError as error:
        found = [replace(problem, path=f"{path}.{problem.path}".rstrip(".")) for problem in error.problems]
        raise ProblemsError(found) from None
    here: Any = data
    for depth, key in enumerate(keys[:-1], start=1):
        there = _open(_get(here, key), keys[:depth])
        if there is ABSENT or there is None:
            if keys[0] == "space" and depth == 2:
                hint = nearest(key, here)
                wrong = f"{key} is not in the space, so it has no {keys[2]}"
                raise ProblemsError([Problem(path, wrong, value, ", ".join(here), f"space.{hint}" if hint else "")])
            there = {}
        if not isinstance(there, dict | list):
            raise ProblemsError([Problem(path, f"{'.'.join(keys[:depth])} has no keys below it", value)])
        _put(here, key, there, path)
        here = there
    if value is None and keys[0] == "space" and len(keys) == 2:
        if keys[1] not in here:
            raise ProblemsError([Problem(path, "not in the space", value, ", ".join(here), nearest(keys[1], here))])
        del here[keys[1]]
    else:
        _put(here, keys[-1], value, path)
    return path


def _get(here: Any, key: str) -> Any:
    """What stands under a key or an index, ABSENT if nothing does."""
    if isinstance(here, dict):
        return here.get(key, ABSENT)
    return here[int(key)] if key.isdecimal() and int(key) < len(here) else ABSENT


def _put(here: Any, key: str, value: Any, path: str) -> None:
    """Set a key or an index; an index one past the end appends.

    Raises:
        ProblemsError: no such index.
    """
    if isinstance(here, dict):
        here[key] = value
    elif key.isdecimal() and int(key) < len(here):
        here[int(key)] = value
    elif key.isdecimal() and int(key) == len(here):
        here.append(value)
    else:
        wrong = f"a list of {len(here)} has no place {key}"
        raise ProblemsError([Problem(path, wrong, value, f"0 to {len(here)}")])
