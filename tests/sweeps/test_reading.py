"""YAML's traps and overrides."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import reading
from sweeps.errors import ProblemsError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E3", 1000.0), ("-2.5e+4", -25000.0), (".5", 0.5), ("5.", 5.0), ("0.1", 0.1),
        ("20_000", 20000), ("010", 10), ("-7", -7), ("0", 0), ("1:30", "1:30"), ("2020-01-02", "2020-01-02"),
        ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("'5'", "5"), ("1e", "1e"), ("e5", "e5"), ("90s", "90s"), ("-", [None]), (".", "."), ("1.2.3", "1.2.3"),
        ("[cm, nag]", ["cm", "nag"]), ("{a: 1e-3}", {"a": 1e-3}),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_they_look_like(text: str, value: Any) -> None:
    found = reading.parse(text)
    assert found == value
    assert type(found) is type(value)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(value: float) -> None:
    for text in (repr(value), f"{value:e}", f"{value:.17g}"):
        assert float(reading.parse(text)) == float(text)


_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc xyz-_.5", max_size=8)
_keys = st.text("abcde", min_size=1, max_size=4)
_plain = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3), max_leaves=8
)


@settings(deadline=None)
@given(_plain)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    assert reading.parse(yaml.safe_dump(value)) == value


def test_merge_keys_are_no_duplicates() -> None:
    data = reading.parse("base: &b {low: 1, high: 2}\nspace: {lr: {<<: *b, high: 3}}")
    assert data["space"]["lr"] == {"low": 1, "high": 3}


def test_a_list_inside_itself_is_refused() -> None:
    for text in ("&a [1, *a]", "&a {b: *a}", "[*unknown]"):
        with pytest.raises(ProblemsError):
            reading.parse(text)


def _set(data: dict[str, Any], *overrides: str) -> dict[str, Any]:
    for text in overrides:
        reading.override(data, text)
    return data


def test_overrides_make_the_sections_they_need() -> None:
    assert _set({}, "training.lr=1e-3", "budget.wall=5m", "early_stopping.fork.mu=0.8") == {
        "training": {"lr": 0.001}, "budget": {"wall": "5m"}, "early_stopping": {"fork": {"mu": 0.8}},
    }  # fmt: skip
    assert _set({"early_stopping": None}, "early_stopping.factor=2") == {"early_stopping": {"factor": 2}}
    assert _set({"a": 1}, "a=x=y") == {"a": "x=y"}
    assert _set({"a": 1}, "a=") == {"a": None}


def test_overrides_reach_into_short_forms() -> None:
    assert _set({"task": "curves"}, "task.examples=100") == {"task": {"name": "curves", "examples": 100}}
    assert _set({"objective": "valid_loss"}, "objective.at=last") == {
        "objective": {"metric": "valid_loss", "at": "last"}
    }
    data = _set({"space": {"method": ["cm", "nag"], "lr": 0.1}}, "space.method.values.1=sgd", "space.lr.value=0.2")
    assert data["space"] == {
        "method": {"type": "choice", "values": ["cm", "sgd"]}, "lr": {"type": "fixed", "value": 0.2},
    }  # fmt: skip
    assert _set(data, "space.lr=null")["space"].keys() == {"method"}
    assert _set({}, "space.lr={type: float, low: 1e-3, high: 1, scale: log}")["space"]["lr"]["low"] == 1e-3


def test_overrides_reach_into_lists() -> None:
    data = {"search": {"points": [{"lr": 0.1}]}}
    assert _set(data, "search.points.0.lr=0.2", "search.points.1={lr: 0.3}")["search"]["points"] == [
        {"lr": 0.2}, {"lr": 0.3},
    ]  # fmt: skip


BASE = """
name: base
task: curves
training: {updates: 750000, mu_step: 250, lr: 0.1}
space:
  mu_max: {type: choice, values: [0.9, 0.999], when: {method: nag}}
  lr: {type: float, low: 0.1, high: 1}
  method: [cm, nag]
  depth: [3, 5]
early_stopping: {factor: 3}
forks: [{name: a, at: 1, updates: 1}]
protocols:
  reduced:
    task: {size: 14}
    training: {updates: 600, mu_step: null}
    space: {mu_max: {values: [0.9]}, lr: {type: choice, values: [0.1]}, method: [nag], depth: null}
    early_stopping: {fork: null}
    forks: null
  tiny: {name: very-small, task: digits, early_stopping: null}
"""


def test_a_protocol_changes_what_it_names_and_nothing_else() -> None:
    reading.protocol_of(data := reading.parse(BASE), "reduced")
    assert data == {
        "name": "base-reduced",
        "task": {"name": "curves", "size": 14},
        "training": {"updates": 600, "lr": 0.1},  # null takes a key out
        "space": {
            "mu_max": {"type": "choice", "values": [0.9], "when": {"method": ["nag"]}},
            "lr": {"type": "choice", "values": [0.1]},  # of another type: nothing of the range is left
            "method": ["nag"],
        },
        "early_stopping": {"factor": 3, "fork": None},  # but for null that is a value of its own
        "protocol": "reduced",
    }
    reading.protocol_of(data := reading.parse(BASE), "tiny")
    assert (data["name"], data["task"], "early_stopping" in data) == ("very-small", "digits", False)


def test_the_file_itself_is_the_full_protocol() -> None:
    written = reading.parse(BASE)
    for name in (None, "full"):
        reading.protocol_of(data := reading.parse(BASE), name)
        assert data == {**{key: value for key, value in written.items() if key != "protocols"}, "protocol": "full"}
    plain = {"task": "curves"}
    reading.protocol_of(plain, None)
    assert plain == {"task": "curves"}


def test_protocols_that_are_not_there() -> None:
    with pytest.raises(ProblemsError) as caught:
        reading.protocol_of(reading.parse(BASE), "reduecd")
    assert [str(problem) for problem in caught.value.problems] == [
        "protocol=reduecd: no such protocol; allowed: full, reduced, tiny; did you mean reduced?"
    ]
    with pytest.raises(ProblemsError, match="no such protocol"):
        reading.protocol_of({"task": "curves"}, "reduced")
    with pytest.raises(ProblemsError, match="not protocols"):
        reading.protocol_of({"protocols": {"reduced": 5}}, None)
