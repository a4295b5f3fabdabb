import math
from pathlib import Path
from typing import Any

import pytest

from dashboards import race
from dashboards.arms import looks
from dashboards.view import read
from tests.dashboards.synthetic import Sweep, make
from tests.dashboards.synthetic_contest import EXAMPLES, Contest, compared, make_contest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_contest(tmp_path_factory.mktemp("contest"), Sweep(trials=30), Contest(stuck=(1, 0), diverged=(1, 0)))


def lines(traces: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {trace["legendgroup"]: trace for trace in traces if trace.get("name")}


def test_the_picture_is_the_comparisons_curves(folder: Path) -> None:
    comparison = compared(folder)
    figure = race.race(comparison)
    assert figure is not None
    assert list(figure.forms) == ["work", "seconds"]
    for form, x_of in (("work", lambda c: [w / EXAMPLES for w in c.work]), ("seconds", lambda c: list(c.seconds))):
        drawn = lines(figure.forms[form].data)
        assert drawn.keys() == {"p1", "p2", "p3", "hf"}
        for arm in comparison.arms:
            assert drawn[arm.name]["x"] == pytest.approx(x_of(arm.curve))
            assert drawn[arm.name]["y"] == list(arm.curve.median)
            mine = [trace for trace in figure.forms[form].data if trace["legendgroup"] == arm.name]
            assert [trace["y"] for trace in mine[:2]] == [list(arm.curve.low), list(arm.curve.high)]
            end = next(trace for trace in mine if "error_y" in trace)
            assert end["y"][0] + end["error_y"]["array"][0] == pytest.approx(arm.high)
            assert end["y"][0] - end["error_y"]["arrayminus"][0] == pytest.approx(arm.low)


def test_the_target_is_a_line_at_its_value(folder: Path) -> None:
    comparison = compared(folder)
    figure = race.race(comparison)
    assert figure is not None
    layout = figure.forms["work"].layout
    levels = {shape["y0"] for shape in layout["shapes"]}
    assert comparison.target in levels
    names = {note["text"].split()[0]: note["y"] for note in layout["annotations"]}
    assert comparison.target is not None
    assert 10 ** names["target"] == pytest.approx(comparison.target)  # plotly wants the exponent there


def test_arms_differ_in_more_than_colour(folder: Path) -> None:
    found = looks(compared(folder))
    assert len({look.symbol for look in found.values()}) == len({look.colour for look in found.values()}) == 4
    assert found["hf"].dash != "solid"
    assert found["hf"].colour == "--ink"


def test_examples_drawn_online_are_counted_as_examples(tmp_path: Path) -> None:
    figure = race.race(compared(make_contest(tmp_path, Sweep(trials=30), Contest(online=True))))
    assert figure is not None
    assert figure.forms["work"].layout["xaxis"]["title"]["text"] == "examples seen"
    assert max(lines(figure.forms["work"].data)["hf"]["x"]) == 2000 * 100


def test_every_seed_is_drawn_also_those_that_failed(folder: Path) -> None:
    view, comparison = read(folder), compared(folder)
    figure = race.seeds(view, comparison)
    assert not isinstance(figure, str)
    drawn = lines(figure.data)
    for arm in comparison.arms:
        assert drawn[arm.name]["x"].count(None) == len(arm.trials) == 10
        points = sum(len(view.history.trials[n].metrics) for n in arm.trials)
        assert len(drawn[arm.name]["x"]) == points + 10
    crosses = [trace for trace in figure.data if trace["mode"] == "markers"]
    assert [len(trace["x"]) for trace in crosses] == [1]
    top = 10 ** figure.layout["yaxis"]["range"][1]
    assert top > 16  # the stuck run is in sight


def test_steps_follow_kaplan_and_meier_by_hand() -> None:
    """6 runs: reached at 1, 3 (twice) and 5; the two that ended without it, at 2 and 3, count to the arm's end.

    Still waiting are 5 of 6 after 1, 3 after 3, 2 after 5.
    """
    reached = ((1.0, True), (2.0, False), (3.0, True), (3.0, True), (3.0, False), (5.0, True))
    steps = race.waiting(reached)
    assert [work for work, _ in steps] == [0, 1, 3, 5]
    assert [share for _, share in steps] == pytest.approx([0, 1 / 6, 1 / 2, 2 / 3])
    assert race.waiting(((2.0, False), (9.0, False))) == [(0.0, 0.0), (9.0, 0.0)]  # nobody did, and the line says so


def test_without_censoring_the_share_is_the_share(folder: Path) -> None:
    times = ((4.0, True), (1.0, True), (2.0, True), (9.0, False))
    assert [share for _, share in race.waiting(times)] == pytest.approx([0, 0.25, 0.5, 0.75, 0.75])
    figure = race.arrivals(compared(folder))
    assert not isinstance(figure, str)
    for arm in compared(folder).arms:
        there = sum(happened for _, happened in arm.reached)
        assert lines(figure.data)[arm.name]["y"][-1] == pytest.approx(there / 10)  # all were watched to the end


def test_a_search_alone_shows_the_best_trial_of_each_method(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep()))
    figure = race.leaders(view)
    assert figure is not None
    assert figure.title.endswith("one seed")
    for trace in figure.data:
        method = trace["name"].split()[0]
        best = next(t for t in view.ranked if view.setting(t, "method") == method and view.curve(t))
        assert list(zip(trace["x"], trace["y"], strict=True)) == view.curve(best)
    assert race.leaders(read(make(tmp_path / "none", Sweep(trials=0)))) is None
    assert all(math.isfinite(y) for trace in figure.data for y in trace["y"])


def test_a_seeds_work_is_of_its_own_batch(folder: Path) -> None:
    view, comparison = read(folder), compared(folder)
    trial = view.history.trials[comparison.arm("p1").trials[0]]
    once = race._points(view, comparison, trial.number)
    trial.config["batch"] *= 2
    assert [x for x, _ in race._points(view, comparison, trial.number)] == [2 * x for x, _ in once]
