import json
from dataclasses import replace
from pathlib import Path

import pytest

from dashboards import table1
from dashboards.view import number, read
from tests.dashboards.synthetic import SPACE, Sweep, make
from tests.dashboards.synthetic_contest import PUBLISHED, compared, make_contest, rewrite


@pytest.mark.parametrize(
    ("mu", "column"),
    [(0.9, 0.9), (0.85, 0.9), (0.96, 0.9), (0.97, 0.99), (0.9928, 0.99), (0.9931, 0.995), (0.9999, 0.999), (0.7, None)],
)
def test_a_momentum_belongs_to_the_column_nearest_in_log_distance_from_one(mu: float, column: float | None) -> None:
    """Between .9 and .99 the border is 1 - sqrt(.1 * .01) = .968."""
    assert table1.nearest(mu, table1.MOMENTA) == column


def test_columns_are_the_tables_or_those_searched(tmp_path: Path) -> None:
    heads = [(column.method, column.mu) for column in table1.columns(read(make(tmp_path / "a", Sweep(trials=2))))]
    four = [0.9, 0.99, 0.995, 0.999]
    assert heads == [("sgd", None), *(("nag", mu) for mu in four), *(("cm", mu) for mu in four), ("hf", None),
                     ("hf published", None)]  # fmt: skip
    space = SPACE | {"mu_max": {"type": "choice", "values": [0, 0.5, 0.95], "when": {"method": ["cm", "nag"]}}}
    view = read(make(tmp_path / "b", Sweep(trials=2, space=space)))
    assert [column.mu for column in table1.columns(view) if column.method == "cm"] == [0, 0.5, 0.95]


def test_cells_are_confirmed_means_where_there_are_any_else_the_searchs_best(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep())
    view, comparison = read(folder), compared(folder)
    cells = dict(zip([(c.method, c.mu) for c in table1.columns(view)], table1.measured(view), strict=False))
    point = comparison.arm("p1")
    place = (point.method, table1.nearest(point.params["mu_max"], table1.MOMENTA))
    assert cells[place].kind == "confirmed"
    assert cells[place].value == point.typical
    assert f"{number(point.low)} to {number(point.high)}" in cells[place].below
    assert "1 of 10 stuck" in cells[place].below
    assert cells["hf", None].value == comparison.arm("hf").typical
    for (method, mu), cell in cells.items():
        if cell.kind == "lucky" and cell.value is not None:
            mine = [t for t in view.ranked if view.setting(t, "method") == method and view.value(t) is not None]
            if mu is not None:
                mine = [t for t in mine if table1.nearest(t.params["mu_max"], table1.MOMENTA) == mu]
            full = [t for t in mine if t.state == "complete"]
            assert cell.value == min(view.value(t) or 0 for t in full or mine)
            assert bool(full) != any(words.startswith("only to ") for words in cell.below)


def test_printed_values_stand_in_their_own_row_and_in_no_computed_cell(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep())
    view, comparison = read(folder), compared(folder)
    ((name, cells, why),) = table1.printed(comparison, view)
    assert name.startswith("Curves, S13 Table 1")
    assert why == "the data are a look-alike of CURVES"
    by_head = {(c.method, c.mu): cell for c, cell in zip(table1.columns(view), cells, strict=True)}
    assert by_head["nag", 0.995].value == PUBLISHED[".995N"]
    assert by_head["cm", 0.999].value == PUBLISHED[".999M"]
    assert by_head["sgd", None].value == PUBLISHED["0 (SGD)"]
    assert by_head["hf published", None].shown == "0.058 / 0.11"
    assert {cell.kind for cell in cells} == {"printed", ""}
    assert by_head["hf", None].kind == ""
    assert {cell.kind for cell in table1.measured(view)} <= {"confirmed", "lucky", ""}
    page = table1.markup(view)
    assert page.count("* not comparable: the data are a look-alike of CURVES") == 1
    assert page.count('class="printed') == 2 * (1 + 1 + 4 + 4 + 1)  # in our row HF alone; across and turned


def test_what_holds_for_some_columns_only_names_them(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep())
    values = tuple(
        replace(value, why=f"{value.why}; its work is not matched") if value.column == "HF*" else value
        for value in compared(folder).published
    )
    rewrite(folder, published=values)
    ((_, _, why),) = table1.printed(compared(folder), read(folder))
    assert why == "the data are a look-alike of CURVES; HF*: its work is not matched"


def test_comparable_values_carry_no_mark(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep())
    rewrite(folder, published=tuple(replace(v, comparable=True, why="") for v in compared(folder).published))
    page = table1.markup(read(folder))
    assert "not comparable" not in page
    assert "*</b>" not in page.replace("HF*", "")


def test_a_search_alone_is_all_lucky_and_a_sweep_without_methods_has_no_table(tmp_path: Path) -> None:
    view = read(make(tmp_path / "a", Sweep()))
    assert {cell.kind for cell in table1.measured(view)} == {"lucky", ""}
    assert "Bold" not in table1.caption(view)
    make(tmp_path / "b", Sweep(trials=0))
    assert table1.markup(read(tmp_path / "b")) == ""
    assert json.loads((tmp_path / "b" / "spec.json").read_text())["name"] == "curves-depth"


def test_of_two_points_in_a_cell_the_one_the_search_thought_best_is_shown(tmp_path: Path) -> None:
    folder = make_contest(tmp_path, Sweep())
    arms = list(compared(folder).arms)
    lucky = replace(arms[1], method=arms[0].method, params=arms[0].params, typical=(arms[0].typical or 1.0) / 2)
    rewrite(folder, arms=(arms[0], lucky, *arms[2:]))
    values = [cell.value for cell in table1.measured(read(folder))]
    assert arms[0].typical in values
    assert lucky.typical not in values
