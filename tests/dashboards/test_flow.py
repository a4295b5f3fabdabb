from pathlib import Path

import pytest

from dashboards import flow
from dashboards.view import read
from sweeps.history import Trial
from tests.dashboards.synthetic import Sweep, make, only


def test_each_rungs_trials_are_those_that_passed_the_one_before(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep()))
    table = flow.fates(view, view.trials)
    assert [rung for rung, _ in table] == [200, 600, 1200, None]
    totals = [sum(found.values()) for _, found in table]
    assert totals[0] == 64
    assert totals[1:] == [found["passed"] for _, found in table[:-1]]
    for state in ("complete", "stopped", "diverged"):
        assert sum(found[state] for _, found in table) == view.counts[state]
    assert table[1][1]["stopped"] == sum(trial.stopped_at_rung == 600 for trial in view.trials)


def test_bars_add_up_within_classes(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep()))
    figure = only(flow.rungs(view))
    for depth in (3, 7, 11):
        mine = [
            i
            for i, row in enumerate(zip(*figure.data[0]["y"], strict=True))
            if row == ("to rung 200", f"depth {depth}")
        ]
        assert len(mine) == 1
        asked = sum(trial.params["depth"] == depth for trial in view.trials)
        assert sum(trace["x"][mine[0]] for trace in figure.data) == asked


def test_many_classes_are_drawn_together(tmp_path: Path) -> None:
    space = dict(Sweep().space) | {"depth": {"type": "choice", "values": [1, 3, 5, 7, 9, 11, 13]}}
    figure = only(flow.rungs(read(make(tmp_path, Sweep(space=space)))))
    assert figure.data[0]["y"] == ["to 2,000", "to rung 1,200", "to rung 600", "to rung 200"]


def test_saved_counts_the_updates_stopped_trials_did_not_train(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep()))
    spared = sum(2000 - (trial.stopped_at_rung or 2000) for trial in view.trials)
    assert flow.saved(view) == (spared, 64 * 2000)
    assert spared > 0
    assert flow.saved(read(make(tmp_path / "off", Sweep(trials=8, rungs=())))) == (0, 8 * 2000)


def trial(number: int, start: float, end: float | None) -> Trial:
    return Trial(number, {}, {}, "search", "p", 0, 0, start, ended_at=end)


def test_lanes_are_few_and_hold_no_overlap() -> None:
    trials = [trial(0, 0, 4), trial(1, 0, 2), trial(2, 2, 3), trial(3, 3.5, None), trial(4, 4, 6)]
    found = [[t.number for t in lane] for lane in flow.lanes(trials, now=9)]
    assert found == [[0, 4], [1, 2, 3]]


def test_timeline_has_a_bar_per_trial_in_milliseconds_of_utc(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep()))
    figure = only(flow.timeline(view))
    bars = sorted((x0, x0 + x) for trace in figure.data for x0, x in zip(trace["base"], trace["x"], strict=True))
    times = sorted((round(t.asked_at * 1000), (t.ended_at or 0) * 1000) for t in view.trials)
    assert len(bars) == 64
    for bar, span in zip(bars, times, strict=True):
        assert bar == pytest.approx(span, abs=2)
    assert figure.layout["yaxis"]["ticktext"] == ["group 0", "group 1"]
