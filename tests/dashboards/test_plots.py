import math
from pathlib import Path
from typing import Any

import pytest

from dashboards import parallel, plots
from dashboards.view import View, read
from tests.dashboards.synthetic import SPACE, Sweep, make, only


def view_of(folder: Path, **changes: Any) -> View:
    return read(make(folder, Sweep(**changes)))


def drawn_curves(view: View) -> tuple[plots.Figure, plots.Scale]:
    drawn = plots.curves(view)
    assert not isinstance(drawn, str)
    (figure,), scale = drawn
    return figure, scale


def test_curves_hold_every_report_and_colour_the_best(tmp_path: Path) -> None:
    view = view_of(tmp_path)
    figure, _ = drawn_curves(view)
    best = view.best
    assert best is not None
    thick = max(figure.data, key=lambda trace: trace.get("line", {}).get("width", 0))
    assert thick["name"].startswith(best.id)
    assert list(zip(thick["x"], thick["y"], strict=True)) == view.curve(best)
    drawn = sum(y is not None for trace in figure.data if trace["mode"] == "lines" for y in trace["y"])
    assert drawn == sum(len(view.curve(trial)) for trial in view.trials)
    assert [shape["x0"] for shape in figure.layout["shapes"]] == [200, 600, 1200]
    assert figure.layout["yaxis"]["type"] == "log"


def test_at_most_two_hundred_curves_are_drawn_and_the_best_among_them(tmp_path: Path) -> None:
    view = view_of(tmp_path, trials=1000, groups=4, slots=16)
    sample = plots._sample(view)
    assert len(sample) == len({trial.number for trial in sample}) == 200
    assert sample[:100] == view.ranked[:100]


def test_map_places_trials_by_log_distance_of_mu_from_one(tmp_path: Path) -> None:
    view = view_of(tmp_path)
    drawn = plots.momentum_map(view)
    assert not isinstance(drawn, str)
    figures, scale = drawn
    assert [figure.title.split(",")[0] for figure in figures] == ["sgd", "cm", "nag"]
    finite = [value for trial in view.trials if (value := view.value(trial)) is not None]
    assert scale is not None
    assert scale.low == min(finite)
    assert scale.high == sorted(finite)[-1 - len(finite) // 10 if scale.clipped else -1]
    nag = [trial for trial in view.trials if trial.params["method"] == "nag"]
    marks = {
        (x, y) for trace in figures[2].data if trace["marker"]["symbol"] != "circle-open"
        for x, y in zip(trace["x"], trace["y"], strict=True)
    }  # fmt: skip
    expected = {(-math.log10(1 - t.params["mu_max"]), math.log10(t.params["lr"])) for t in nag}
    assert marks == expected
    crosses = sum(len(t["x"]) for f in figures for t in f.data if t["marker"]["symbol"] == "x-thin")
    assert crosses == view.counts["diverged"]
    rings = [f for f in figures for t in f.data if t["marker"]["symbol"] == "circle-open"]
    assert len(rings) == 1


def test_map_needs_both_parameters(tmp_path: Path) -> None:
    drawn = plots.momentum_map(view_of(tmp_path, space={"lr": SPACE["lr"], "init": SPACE["init"]}))
    assert isinstance(drawn, str)
    assert "mu_max and lr" in drawn


def test_importance_bars_are_shares(tmp_path: Path) -> None:
    drawn = plots.importance(view_of(tmp_path))
    assert not isinstance(drawn, str)
    (figure,), basis = drawn
    assert sum(figure.data[0]["x"]) == pytest.approx(1)
    assert "best 10 trials and among all 64" in basis


def test_parallel_has_an_axis_per_searched_parameter_and_passes_missing_values_below(tmp_path: Path) -> None:
    view = view_of(tmp_path)
    figure = only(parallel.parallel(view))
    axes = {axis["label"]: axis for axis in figure.data[0]["dimensions"]}
    assert list(axes) == [*SPACE, "valid_squared_error"]
    fan_in = axes["fan_in"]
    missing = sum("fan_in" not in trial.params for trial in view.trials)
    assert fan_in["ticktext"][0] == "not set"
    assert fan_in["values"].count(fan_in["tickvals"][0]) == missing > 0
    lost = axes["valid_squared_error"]
    assert lost["values"].count(lost["tickvals"][lost["ticktext"].index("diverged")]) == view.counts["diverged"]
    for axis in axes.values():
        assert len(axis["values"]) == 64
        assert axis["range"][0] <= min(axis["values"]) <= max(axis["values"]) <= axis["range"][1] + 1e-12
    assert figure.fallback is not None
    ends = sum(x is None for trace in figure.fallback.data for x in trace["x"])
    assert ends == 64  # each line ends with a gap
    assert figure.data[0]["line"]["color"][-1] == pytest.approx(0.1, abs=0.05)  # the best is last, at the dark end


def test_the_best_colour_is_the_same_for_both_modes(tmp_path: Path) -> None:
    for mode in ("min", "max"):
        view = view_of(tmp_path / mode, mode=mode)
        figure = only(parallel.parallel(view))
        assert figure.fallback is not None
        assert view.best is not None
        shade = next(
            t["line"]["color"] for t in figure.fallback.data if any(view.best.id in words for words in t["text"])
        )
        assert shade in plots.VIRIDIS[:2]
        stops = figure.data[0]["line"]["colorscale"]
        assert max(stop for stop, colour in stops if colour == parallel.LOST) < 0.1 - 2 / 256  # Plotly has 256 shades
        assert {colour for stop, colour in stops if 0.1 - 2 / 256 > stop > 0.05} == {dict(stops)[0.1]}


@pytest.mark.parametrize(
    ("values", "log"),
    [([1.0, 4.9], False), ([1.0, 5.0], True), ([-1.0, 50.0], False), ([0.0, 5.0], False), ([3.0], False)],
)
def test_objectives_are_on_a_log_scale_where_that_is_possible_and_worthwhile(values: list[float], log: bool) -> None:
    scale = plots.objective_scale(values)
    assert scale is not None
    assert scale.log is log
    assert scale.span[0] < scale.span[1]


def test_the_worst_tenth_does_not_squeeze_a_scale() -> None:
    good = [1.0 + 0.1 * i for i in range(18)]
    assert plots.objective_scale([*good, 90.0, 95.0], "min") == plots.Scale(True, 1.0, good[-1], clipped=True)
    assert plots.objective_scale([-90.0, -95.0, *good], "max") == plots.Scale(False, 1.0, good[-1], clipped=True)
    assert plots.objective_scale([*good, 2.8, 2.9], "min") == plots.Scale(False, 1.0, 2.9)
    assert plots.objective_scale([*good, 90.0, 95.0]) == plots.Scale(True, 1.0, 95.0)
    assert plots.objective_scale([2.0] * 20, "min") == plots.Scale(False, 2.0, 2.0)


def test_names_are_escaped_for_plotly() -> None:
    assert plots.safe('<a href="x">&') == '&lt;a href="x"&gt;&amp;'
