"""The strip chart: every night is on it, where its number says, told by form and in words."""

from dataclasses import replace

import pytest

from dashboards import strip
from sweeps.night_file import RESULTS, Night

DAY = 86_400.0
PNG = b"\x89PNG\r\n\x1a\n"


def night(at: int, result: str = "ok", kind: str = "fresh", **fields: object) -> Night:
    plain = {"at": at * DAY, "sweep": f"s{at}", "kind": kind, "result": result, "sentence": f"<{result}> & so on",
             "spec": "a", "tolerance": 1e-6 if kind == "fixed" else None, "reference": "s0" if at else ""}  # fmt: skip
    return Night.from_dict({"schema_version": 1, **plain, **fields})


FRESH = [
    night(0),
    night(1, effect=1.1, low=1.0, high=1.2),
    night(2, "worse", effect=1.5, low=1.3, high=1.8),
    night(3, "better", effect=0.7, low=0.6, high=0.8),
    night(4, "broken"),
]
FIXED = [
    night(0, kind="fixed"),
    night(1, kind="fixed", difference=0.0),
    night(2, "worse", "fixed", difference=1e-3),
    night(3, "worse", "fixed"),  # a number that is none any more
    night(4, "broken", "fixed"),
]


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(PNG)
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


@pytest.mark.parametrize("nights", [FRESH, FIXED, [], FRESH[:1], FIXED[:1], [night(0, kind="plain")]], ids=len)
def test_the_picture_has_its_size_whatever_there_is(nights: list[Night]) -> None:
    assert size(strip.png(nights, "nightly/digits")) == (800, 300)


def test_the_picture_is_a_function_of_the_nights() -> None:
    assert strip.png(FRESH) == strip.png(FRESH[::-1])
    assert strip.png(FRESH) != strip.png([*FRESH[:2], replace(FRESH[2], effect=1.6), *FRESH[3:]])


def test_results_differ_in_form_and_colour() -> None:
    assert set(strip.MARKS) == set(strip.COLOURS) == set(RESULTS)
    assert len(set(strip.MARKS.values())) == len(set(strip.COLOURS.values())) == len(RESULTS)


def test_fresh_nights_stand_at_their_ratio() -> None:
    assert [strip.place(each, "fresh") for each in FRESH if each.result == "worse"] == [1.5]
    assert all(strip.place(each, "fresh") is None for each in FRESH if each.result == "broken")


def test_fixed_nights_stand_at_their_difference_below_or_above_the_tolerance() -> None:
    assert [strip.place(each, "fixed") for each in FIXED if each.result == "worse"] == [1e-3, strip.LARGEST]
    ok = [strip.place(each, "fixed") for each in FIXED if each.result == "ok"]
    assert ok[:2] == [None, strip.SAME]  # the first had nothing to be held against


def test_where_a_reference_begins_is_marked() -> None:
    nights = [*FRESH[:3], replace(FRESH[3], accepted=True), replace(FRESH[4], spec="b")]
    assert [(each.sweep, why) for each, why in strip.begun(nights)] == [("s3", "accepted"), ("s4", "new spec")]
