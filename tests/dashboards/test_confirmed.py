from dataclasses import replace
from pathlib import Path

import pytest

from dashboards import confirmed, spending
from dashboards.view import number, read
from tests.dashboards.synthetic import Sweep, make
from tests.dashboards.synthetic_contest import Contest, compared, make_contest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_contest(tmp_path_factory.mktemp("contest"), Sweep(trials=30), Contest(stuck=(2, 0), diverged=(1, 0)))


def test_every_run_is_a_dot_in_its_lane_or_a_mark_on_the_strip(folder: Path) -> None:
    comparison = compared(folder)
    figure = confirmed.dots(comparison)
    strip = [trace for trace in figure.data if trace.get("xaxis") == "x2" and trace["mode"] == "markers"]
    assert {(trace["x"][0], len(trace["x"])) for trace in strip} == {(0, 2), (1, 1)}  # stuck, diverged
    for lane, arm in enumerate(comparison.arms):
        dots = [t for t in figure.data if t.get("xaxis") is None and abs(t["y"][0] - lane) < 0.5]
        ends = [value for value in arm.values if value is not None and value <= 14.4]
        assert dots[0]["x"] == ends
        assert all(abs(y - lane) < 0.5 for trace in dots for y in trace["y"])
        ring = next(trace for trace in dots if trace["marker"]["symbol"] == "circle-open")
        assert ring["x"] == [arm.searched]
        mean = next(trace for trace in dots if "error_x" in trace)
        assert mean["x"][0] + mean["error_x"]["array"][0] == pytest.approx(arm.high)
        assert mean["x"][0] - mean["error_x"]["arrayminus"][0] == pytest.approx(arm.low)


def test_stuck_is_on_the_bad_side(folder: Path) -> None:
    comparison = compared(folder)
    assert confirmed.is_stuck(comparison, 15.0)
    assert not confirmed.is_stuck(comparison, 14.4)
    assert confirmed.is_stuck(replace(comparison, mode="max", stuck_above=0.2), 0.1)
    assert not confirmed.is_stuck(replace(comparison, stuck_above=None), 1e9)


def test_the_verdicts_are_the_contrasts_the_one_named_beforehand_first(folder: Path) -> None:
    comparison = compared(folder)
    shuffled = replace(comparison, contrasts=comparison.contrasts[::-1])
    rows = confirmed.verdicts(shuffled).split("<tr>")[2:]
    assert len(rows) == len(comparison.contrasts) == 3
    for row, contrast in zip(rows[:1], comparison.contrasts[:1], strict=True):
        assert "<b>" in row
        assert contrast.verdict in row
        assert f"{number(contrast.low)} to {number(contrast.high)}" in row
    assert "<b>" not in "".join(rows[1:])
    assert confirmed.verdicts(replace(comparison, contrasts=())) == ""


def test_the_budget_adds_up(folder: Path) -> None:
    view = read(folder)
    (figure,) = spending.bars(view)
    assert not isinstance(figure, str)
    assert list(figure.forms) == ["passes", "seconds", "trials"]
    whole = {name: sum(sum(trace["x"]) for trace in form.data) for name, form in figure.forms.items()}
    assert whole["trials"] == len(view.everything) == 30 + 7 + 30 + 10
    assert whole["seconds"] == pytest.approx(sum(trial.wall_s for trial in view.everything))
    assert whole["passes"] == pytest.approx(sum(trial.work for trial in view.everything) / 5000)
    last = spending.table(view).split("<tr>")[-1]
    assert f">{len(view.everything):,}<" in last
    assert ">100%<" in last
    assert "GPU-seconds" not in spending.table(view)
    held = max(view.history.held.seconds, whole["seconds"])
    assert f" for {number(held, keep_zeros=False)} CPU-seconds" in spending.caption(view)
    view.spec["resources"] = {"cpu": 2, "gpu": 0.5}
    (figure,) = spending.bars(view)
    assert list(figure.forms) == ["passes", "seconds", "trials", "GPU-seconds"]
    spent = sum(sum(trace["x"]) for trace in figure.forms["GPU-seconds"].data)
    assert spent == pytest.approx(0.5 * whole["seconds"])
    assert f'<td class="main">{number(spent)}</td>' in spending.table(view).split("<tr>")[-1]
    assert f" for {number(held / 2, keep_zeros=False)} GPU-seconds" in spending.caption(view)


def test_stuck_runs_are_counted_as_such(folder: Path) -> None:
    view = read(folder)
    fates = [spending.fate(view, trial) for trial in view.stages["confirm"]]
    assert (fates.count("stuck"), fates.count("diverged"), fates.count("complete")) == (2, 1, 27)


def test_stages_have_names_for_people() -> None:
    assert [spending.stage_words(name) for name in ("search", "search:hf", "confirm", "confirm:hf", "search:mine")] == [
        "search", "search of HF", "confirmed points", "confirmed HF", "search of mine",
    ]  # fmt: skip


def test_without_a_comparison_work_is_in_examples(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep(trials=5)))
    (figure,) = spending.bars(view)
    assert not isinstance(figure, str)
    assert next(iter(figure.forms)) == "examples"
