"""The strip chart: every night is on it, where its number says, told by form and in words."""

import json
import math
from dataclasses import replace

import pytest

from dashboards import strip
from dashboards.plots import Figure
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


def drawn(nights: list[Night]) -> Figure:
    found = strip.figure(nights)
    assert isinstance(found, Figure)
    json.dumps([found.data, found.layout], allow_nan=False)
    return found


@pytest.mark.parametrize("nights", [FRESH, FIXED])
def test_every_night_is_a_mark_of_its_result(nights: list[Night]) -> None:
    found = drawn(nights)
    seen = {trace["name"].split(" ")[0]: trace for trace in found.data}
    for result, trace in seen.items():
        mine = [each for each in nights if each.result == result]
        assert len(trace["x"]) == len(trace["y"]) == len(trace["text"]) == len(mine)
        assert trace["marker"]["color"] == strip.COLOURS[result]
        assert trace["text"][0] == f"&lt;{result}&gt; &amp; so on"  # what a sweep is called is no HTML
    assert sum(len(trace["x"]) for trace in found.data) == len(nights)


def test_results_differ_in_form_and_colour() -> None:
    assert set(strip.MARKS) == set(strip.COLOURS) == set(RESULTS)
    assert len(set(strip.MARKS.values())) == len(set(strip.COLOURS.values())) == len(RESULTS)


def test_fresh_nights_stand_at_their_ratio_with_its_interval() -> None:
    worse = next(trace for trace in drawn(FRESH).data if trace["name"].startswith("worse"))
    assert worse["y"] == [1.5]
    assert worse["error_y"]["array"] == [pytest.approx(0.3)]
    assert worse["error_y"]["arrayminus"] == [pytest.approx(0.2)]
    low, high = drawn(FRESH).layout["yaxis"]["range"]
    assert low == pytest.approx(-high)  # twice as bad is as far from 1 as twice as good
    assert 10**high > 1.8


def test_fixed_nights_stand_at_their_difference_below_or_above_the_tolerance() -> None:
    found = drawn(FIXED)
    worse = next(trace for trace in found.data if trace["name"].startswith("worse"))
    assert worse["y"] == [1e-3, strip.LARGEST]
    ok = next(trace for trace in found.data if trace["name"].startswith("ok"))
    assert ok["y"][1] == strip.SAME
    assert ok["marker"]["symbol"] == ["circle-open", "circle"]  # the first had nothing to be held against
    assert found.layout["shapes"][0]["y0"] == 1e-6
    low, high = found.layout["yaxis"]["range"]
    assert all(low <= math.log10(y) <= high for trace in found.data for y in trace["y"])


def test_where_a_reference_begins_is_marked() -> None:
    nights = [*FRESH[:3], replace(FRESH[3], accepted=True), replace(FRESH[4], spec="b")]
    assert [(each.sweep, why) for each, why in strip.begun(nights)] == [("s3", "accepted"), ("s4", "new spec")]
    assert [note["text"] for note in drawn(nights).layout["annotations"]] == ["accepted", "new spec"]


def test_what_cannot_be_drawn_is_said() -> None:
    assert strip.figure([]) == "Nothing to draw: no night has been judged yet."
    assert "only whether a night ended" in str(strip.figure([night(0, kind="plain")]))
