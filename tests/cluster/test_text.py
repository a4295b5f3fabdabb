"""Numbers and curves as text."""

import math

import pytest

from cluster import text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0.0s"), (9.94, "9.9s"), (9.97, "10s"), (59.4, "59s"), (59.6, "1m00s"), (200, "3m20s"), (7500, "2h05m"),
     (273_600, "3d04h"), (None, "-"), (math.inf, "-")],
)  # fmt: skip
def test_span_names_its_units(seconds: float | None, expected: str) -> None:
    assert text.span(seconds) == expected


@pytest.mark.parametrize(
    ("item", "expected"),
    [(0.0123456, "0.01235"), (0.9984567, "0.99846"), (0.99, "0.99"), (0.9, "0.9"), (1.0, "1"), (15, "15"),
     ("nag", "nag"), (None, "-"), (True, "True"), (math.nan, "nan"), (math.inf, "inf"), (1e-7, "1e-07")],
)  # fmt: skip
def test_momentum_near_one_keeps_the_digits_that_matter(item: object, expected: str) -> None:
    assert text.value(item) == expected


def test_momenta_that_differ_in_one_minus_mu_by_a_percent_read_differently() -> None:
    shown = [text.value(1 - 1e-3 * 1.01**k) for k in range(20)]
    assert len(set(shown)) == 20


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0"), (950, "950"), (9999, "9999"), (12_345, "12.3k"), (4.56e6, "4.6M")]
)
def test_count_shortens_large_numbers(number: float, expected: str) -> None:
    assert text.count(number) == expected


@pytest.mark.parametrize(
    ("octets", "expected"), [(512, "512 B"), (1024, "1.0 KiB"), (3.2 * 2**20, "3.2 MiB"), (2**41, "2.0 TiB")]
)
def test_size_counts_in_binary_units(octets: float, expected: str) -> None:
    assert text.size(octets) == expected


def test_sparkline_rises_with_its_values_and_marks_what_is_not_finite() -> None:
    assert text.sparkline([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) == "▁▂▃▄▅▆▇█"
    assert text.sparkline([1.0, math.nan, 8.0]) == "▁×█"
    assert text.sparkline([3.0, 3.0]) == "▅▅"
    assert text.sparkline([math.inf]) == "×"


def test_sparkline_takes_a_log_axis_where_values_span_a_factor_of_ten() -> None:
    assert text.sparkline([1.0, 10.0, 100.0])[1] == "▅"  # half way up in logs; 10 is near the bottom otherwise


def test_long_sparkline_keeps_its_ends() -> None:
    shown = text.sparkline([float(value) for value in range(1000, 0, -1)], width=24)
    assert len(shown) == 24
    assert shown[0] == "█"
    assert shown[-1] == "▁"


def test_plot_of_a_falling_line_runs_from_top_left_to_bottom_right() -> None:
    lines = text.plot([0, 1, 2, 3], [4.0, 3.0, 2.0, 1.0], width=8, height=4)
    rows = [line.split("│")[1] for line in lines[:4]]
    assert lines[0].startswith("4 │")
    assert lines[3].startswith("1 │")
    assert rows[0][0] != "\u2800"
    assert rows[3][7] != "\u2800"
    assert rows[0][7] == rows[3][0] == "\u2800"
    assert "update" in lines[-1]
    assert "log" not in lines[-1]


def test_plot_leaves_out_what_is_not_finite() -> None:
    assert text.plot([1, 2], [math.nan, math.inf]) == ["(no finite values)"]
    whole = text.plot([0, 2], [1.0, 2.0], width=6, height=3)
    assert text.plot([0, 1, 2], [1.0, math.nan, 2.0], width=6, height=3) == whole
