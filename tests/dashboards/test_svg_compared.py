import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dashboards.svg_compared import NIGHT_SHAPES, Mark, intervals, strip
from dashboards.view import read
from tests.dashboards.synthetic_contest import make_contest


def ends(source: str, kind: str = "span") -> list[tuple[float, float]]:
    """Left and right ends of all intervals."""
    found = re.findall(rf'class="{kind} [^"]*" d="M([\d.]+) [\d.]+H([\d.]+)', source)
    return [(float(a), float(b)) for a, b in found]


def test_intervals_lie_as_their_numbers_do(tmp_path: Path) -> None:
    compared = read(make_contest(tmp_path)).comparison
    assert compared
    drawn = intervals(compared)
    spans = ends(drawn)
    assert len(spans) == len(compared.arms)
    by_number = sorted(zip(compared.arms, spans, strict=True), key=lambda pair: pair[0].low or 0)
    for (_, (a, b)), (_, (c, _)) in pairwise(by_number):
        assert a <= c
        assert a < b
    seeds = ElementTree.fromstring(drawn).findall(".//circle[@class]")
    dots = [each for each in seeds if (each.get("class") or "").startswith("seed")]
    assert len(dots) == sum(value is not None for arm in compared.arms for value in arm.values)


def test_the_band_is_the_interval_of_what_is_held_against(tmp_path: Path) -> None:
    compared = read(make_contest(tmp_path)).comparison
    assert compared
    assert compared.primary
    drawn = intervals(compared)
    band = re.search(r'class="band" d="M([\d.]+) 4H([\d.]+)V', drawn)
    assert band
    place = [arm.name for arm in compared.arms].index(compared.primary.b)
    assert (float(band.group(1)), float(band.group(2))) == ends(drawn)[place]


def test_the_label_says_all_in_words(tmp_path: Path) -> None:
    compared = read(make_contest(tmp_path)).comparison
    assert compared
    label = ElementTree.fromstring(intervals(compared)).get("aria-label") or ""
    assert label.count(" to ") == len(compared.arms)


@pytest.mark.parametrize("result", ["ok", "better", "worse", "broken", "missed", "running", "skipped"])
def test_a_nights_result_is_told_by_shape_and_words(result: str) -> None:
    others = [Mark("01 Nov", "ok", "fine", 1.0)]
    drawn = strip([*others, Mark("02 Nov", result, "<b>words</b>", 1.2)], "nightly")
    mark = [each for each in ElementTree.fromstring(drawn).iter() if "night" in (each.get("class") or "").split()][-1]
    assert mark.findtext("title") == "02 Nov: <b>words</b>"
    assert (mark.tag == "circle") == (NIGHT_SHAPES.get(result, "ring") in ("circle", "ring"))
    assert len({NIGHT_SHAPES[word] for word in ("ok", "better", "worse", "broken", "missed", "running")}) == 6


def test_higher_is_worse_and_small_noise_stays_small() -> None:
    nights = [Mark(str(i), "ok", "", value) for i, value in enumerate((1.0, 1.001, 1.2))]
    drawn = strip(nights, "nightly")
    way = re.search(r'class="way" points="([^"]+)"', drawn)
    assert way
    _, y0, _, y1, _, y2 = (float(v) for pair in way.group(1).split() for v in pair.split(","))
    assert y2 < y1 <= y0
    assert y0 - y1 < 0.02 * (y0 - y2)


def test_no_nights_no_strip_and_one_night_is_one_mark() -> None:
    assert strip([], "nightly") == ""
    one = strip([Mark("1 Nov", "ok", "fine")], "nightly")
    assert one.count('class="night') == 1
    assert "1 nights" not in one


def test_the_reference_itself_stands_on_the_line_and_what_is_broken_does_not() -> None:
    drawn = strip([Mark("1", "ok", ""), Mark("2", "ok", "", 1.1), Mark("3", "broken", "")], "nightly")
    line = re.search(r'class="rule" d="M4 ([\d.]+)H', drawn)
    marks = re.findall(r'class="night r-ok" cx="[\d.]+" cy="([\d.]+)"', drawn)
    assert line
    assert marks[0] == line.group(1)
    assert float(marks[1]) < float(marks[0])  # worse is higher
    cross = re.search(r'class="night r-broken" d="M[\d.]+ ([\d.]+)', drawn)
    assert cross
    assert float(cross.group(1)) > float(line.group(1))
