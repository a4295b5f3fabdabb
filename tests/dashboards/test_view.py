import json
import math
from pathlib import Path

import pytest

from dashboards.view import Param, duration, linear_marks, log_marks, number, read, searched, text, utc
from tests.dashboards.synthetic import SPACE, Sweep, make
from tests.dashboards.synthetic_contest import compared, make_contest, rewrite

MU = Param("mu_max", "float", "one_minus_log", 0.8, 0.999)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3.2149, "3.21"), (0.0123456, "0.0123"), (12345.6, "12,346"), (0.5, "0.500"), (999.96, "1,000"), (0.0, "0"),
        (-2.5, "-2.50"), (1.234e-7, "1.23e-7"), (3e12, "3.00e12"), (math.inf, "∞"), (math.nan, "–"), (None, "–"),
    ],
)  # fmt: skip
def test_number_has_three_significant_digits(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("mu_max", 0.99123, "0.9912"), ("mu_max", 0.9, "0.9"), ("mu_max", 0.995, "0.995"),
        ("tail_mu", 0.31234, "0.312"),
        ("lr", 0.0120, "0.012"), ("depth", 11, "11"), ("init", "sparse", "sparse"), ("lr", None, "–"),
        ("flag", True, "True"),
    ],
)  # fmt: skip
def test_momentum_is_shown_by_its_distance_from_one(name: str, value: object, shown: str) -> None:
    assert text(name, value) == shown


def test_momentum_axis_gives_each_tenfold_shrinking_of_one_minus_mu_the_same_length() -> None:
    places = [MU.place(value) for value in (0.9, 0.99, 0.999)]
    assert places == pytest.approx([1, 2, 3])
    assert MU.span() == pytest.approx((-math.log10(0.2), 3))
    positions, labels = MU.ticks()
    assert positions == sorted(positions)
    assert labels == ["0.8", "0.9", "0.95", "0.98", "0.99", "0.995", "0.998", "0.999"]


def test_other_axes() -> None:
    lr = Param("lr", "float", "log", 0.001, 0.5)
    assert lr.place(0.01) == pytest.approx(-2)
    assert lr.ticks()[1] == ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5"]
    method = Param("method", "choice", values=("sgd", "nag"))
    assert [method.place(value) for value in ("nag", "cm", None)] == [1, None, None]
    assert Param("fan_in", "int", low=5, high=30).ticks() == (
        [5, 10, 15, 20, 25, 30],
        ["5", "10", "15", "20", "25", "30"],
    )


def test_marks_are_round_and_inside() -> None:
    assert log_marks(0.003, 0.7) == [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    assert log_marks(3.1, 3.2) == [3.1, 3.2]
    assert log_marks(1e-6, 1e3) == [10.0**power for power in range(-6, 4)]
    assert linear_marks(14.1, 15.9) == [14.5, 15.0, 15.5]
    assert linear_marks(3, 5, whole=True) == [3, 4, 5]


def test_searched_leaves_out_what_cannot_vary() -> None:
    space = SPACE | {
        "batch": {"type": "fixed", "value": 100}, "width": 64, "activation": {"type": "choice", "values": ["tanh"]},
        "tail_mu": ["a", "b"],
    }  # fmt: skip
    assert [param.name for param in searched(space)] == [*SPACE, "tail_mu"]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_ranking_puts_complete_trials_first_then_by_objective(tmp_path: Path, mode: str) -> None:
    view = read(make(tmp_path, Sweep(mode=mode)))
    sign = -1 if mode == "max" else 1
    complete = [t for t in view.trials if t.state == "complete"]
    assert view.best is min(complete, key=lambda t: sign * (t.objective or 0))
    assert [t.state for t in view.ranked] == sorted(
        (t.state for t in view.ranked), key=["complete", "stopped", "diverged"].index
    )
    assert len(view.ranked) == 64
    assert view.rungs == [200, 600, 1200]
    assert sum(view.counts.values()) == 64


def test_best_is_none_without_a_result(tmp_path: Path) -> None:
    assert read(make(tmp_path / "a", Sweep(trials=0))).best is None
    assert read(make(tmp_path / "b", Sweep(trials=9, rungs=(), diverge=1e9))).best is None


def test_description_leaves_out_momentum_of_sgd(tmp_path: Path) -> None:
    space = {name: {k: v for k, v in entry.items() if k != "when"} for name, entry in SPACE.items()}
    view = read(make(tmp_path, Sweep(space=space)))
    sgd = next(t for t in view.trials if t.params["method"] == "sgd")
    nag = next(t for t in view.trials if t.params["method"] == "nag")
    assert "mu_max" not in view.described(sgd)
    assert view.described(sgd).startswith("sgd, lr ")
    assert f"mu_max {text('mu_max', nag.params['mu_max'])}" in view.described(nag)


def test_times() -> None:
    assert utc(1_780_000_000) == "2026-05-28 20:26:40 UTC"
    assert [duration(s) for s in (None, 0.1234, 59, 61, 3_725, 200_000)] == [
        "–", "0.123 s", "59 s", "1 min 1 s", "1 h 2 min", "2 d 7 h",
    ]  # fmt: skip


def test_a_folder_without_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no spec\.json"):
        read(tmp_path)


def test_a_comparison_that_is_missing_or_behind_the_journal_is_made_anew(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep(trials=30))
    view = read(folder)
    assert view.comparison == compared(folder)
    assert [t.stage for t in view.trials] == ["search"] * 30
    behind = rewrite(folder, arms=compared(folder).arms[1:])
    for change in (lambda: None, (folder / "comparison.json").unlink):
        change()
        made = read(folder).comparison
        assert made is not None
        assert made != behind
        assert sorted(arm.trials for arm in made.arms) == sorted(arm.trials for arm in view.comparison.arms)
    (folder / "comparison.json").write_text("{}")
    again = read(folder).comparison
    assert again == made


def test_a_comparison_of_another_shape_is_made_anew(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep(trials=30))
    told = compared(folder).to_dict()
    told["arms"][0]["curve"] = []
    (folder / "comparison.json").write_text(json.dumps(told))
    assert read(folder).comparison is not None
