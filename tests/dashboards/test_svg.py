import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dashboards import svg
from dashboards.view import read
from tests.dashboards.synthetic import SPACE, Sweep, make

NASTY = "</svg><script>alert('x')</script>\"&amp; Ünï"


def parsed(source: str) -> ElementTree.Element:
    return ElementTree.fromstring(source)


def titles(source: str, kind: str) -> list[str]:
    return [each.findtext("title") or "" for each in parsed(source).iter() if kind in (each.get("class") or "").split()]


def test_an_axis_is_linear_between_its_ends() -> None:
    frame = svg.Frame(svg.Axis(0, 10, []), svg.Axis(-1, 1, []), "label")
    left, bottom = frame.at(0, -1)
    right, top = frame.at(10, 1)
    assert frame.at(5, 0) == pytest.approx(((left + right) / 2, (top + bottom) / 2))
    assert (left, right) == (svg.LEFT, svg.WIDTH - svg.RIGHT)
    assert (top, bottom) == (svg.TOP, svg.HEIGHT - svg.BOTTOM)
    assert frame.at(99, 99) == pytest.approx((right, top))


@pytest.mark.parametrize("sweep", [Sweep(), Sweep(mode="max"), Sweep(trials=400, groups=4), Sweep(rungs=())])
def test_the_five_best_are_drawn_above_a_sample_of_the_others(tmp_path: Path, sweep: Sweep) -> None:
    view = read(make(tmp_path, sweep))
    drawn = svg.curves(view)
    leaders = [trial.id for trial in view.ranked if view.value(trial) is not None][:5]
    assert [words.split(",")[0] for words in titles(drawn, "lead")] == leaders[::-1]  # the best last, so on top
    with_points = [trial for trial in view.ranked if view.curve(trial)]
    assert len(titles(drawn, "crowd")) + 5 <= min(len(with_points), svg.MOST_CURVES)
    assert drawn.count('class="rule"') == len(view.rungs)


def test_a_curve_goes_from_left_to_right_and_down_as_it_gets_better(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep(trials=1, diverge=0)))
    line = re.search(r'class="lead k0" points="([^"]+)"', svg.curves(view))
    assert line
    points = [tuple(map(float, pair.split(","))) for pair in line.group(1).split()]
    values = [value for _, value in view.curve(view.ranked[0])]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    for (_, high), (_, low), before, after in zip(points, points[1:], values, values[1:], strict=False):
        assert (high < low) == (after < before)  # y of SVG goes down


def test_the_map_has_a_mark_for_each_trial_at_its_place_and_rings_the_best(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep(trials=60)))
    facets = dict(svg.momentum_map(view))
    assert set(facets) == {str(view.setting(trial, "method")) for trial in view.ranked}
    for name, plot in facets.items():
        mine = [trial for trial in view.ranked if view.setting(trial, "method") == name]
        marked = [words.split(":")[0] for words in titles(plot, "v") + titles(plot, "lost")]
        assert sorted(marked) == sorted(trial.id for trial in mine)
    assert view.best
    ringed = [name for name, plot in facets.items() if titles(plot, "chosen")]
    assert ringed == [view.setting(view.best, "method")]


def test_the_best_colour_is_the_best_whatever_the_mode(tmp_path: Path) -> None:
    for mode in ("min", "max"):
        view = read(make(tmp_path / mode, Sweep(trials=40, mode=mode, diverge=0)))
        drawn = "".join(plot for _, plot in svg.momentum_map(view))
        assert view.best
        shade = re.search(rf'class="v v(\d)"[^>]*><title>{view.best.id}:', drawn)
        assert shade
        assert shade.group(1) == "0"


def test_no_map_without_both_parameters(tmp_path: Path) -> None:
    assert svg.momentum_map(read(make(tmp_path, Sweep(trials=5, space={"lr": SPACE["lr"]})))) == []


def test_names_of_others_stay_text(tmp_path: Path) -> None:
    space = SPACE | {"init": {"type": "choice", "values": [NASTY, "he"], "when": {}}}
    view = read(make(tmp_path, Sweep(trials=20, space=space, metric="valid_squared_error")))
    for drawn in (svg.curves(view), *(plot for _, plot in svg.momentum_map(view))):
        root = parsed(drawn)
        assert {each.tag for each in root.iter()} <= {
            "svg", "path", "text", "polyline", "circle", "title"
        }  # fmt: skip
        assert any(NASTY in (each.text or "") for each in root.iter("title"))


def test_what_is_not_finite_is_not_drawn() -> None:
    drawn = svg.series([(0, 3.0), (10, math.inf), (20, 1.0), (30, math.nan)], "loss", "one")
    assert len(titles(drawn, "end")) == 2
    assert svg.series([(0, math.nan)], "loss", "none") == ""
    assert svg.spark([1.0], "one point") == ""
    assert parsed(svg.spark([3.0, math.inf, 1.0], "two")).find("polyline") is not None


def test_ticks_are_at_most_as_many_as_asked_for() -> None:
    ticks = [(float(i), str(i)) for i in range(23)]
    for most in (1, 5, 8, 23, 99):
        thinned = svg.thinned(ticks, most)
        assert len(thinned) <= most
        assert thinned[0] == ticks[0]
