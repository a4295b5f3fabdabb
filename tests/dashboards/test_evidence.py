"""Stored results and the statistics on them, against values worked out by hand or by counting."""

import json
import math
from itertools import product
from pathlib import Path

import pytest

from dashboards.evidence import Evidence, Run, load, logrank, smaller, spread, trend


def run(value: float, replicate: int = 0, state: str = "complete", **params: object) -> Run:
    return Run(params, replicate, state, 100, {"error": [(50, 2 * value), (100, value)]})


def test_value_is_the_median_of_the_last_reports_and_divergence_is_infinite() -> None:
    one = Run({}, 0, "complete", 5, {"error": [(1, 9.0), (2, 1.0), (3, 5.0), (4, 2.0)]})
    assert one.value("error") == 2
    assert one.value("error", last=3) == 2
    assert one.value("missing") == math.inf
    assert run(0.1, state="diverged").value("error") == math.inf
    assert Run({}, 0, "complete", 2, {"error": [(1, math.nan)]}).value("error") == math.inf


def test_first_below() -> None:
    assert run(1.0).first_below("error", 1.5) == 100
    assert run(1.0).first_below("error", 2.5) == 50
    assert run(1.0).first_below("error", 1.0) == math.inf


def test_tuned_takes_the_learning_rate_with_the_smallest_median() -> None:
    values = {0.1: (1.0, 9.0, 9.0), 0.01: (2.0, 2.0, 8.0)}
    runs = tuple(run(v, i, lr=lr, method="nag") for lr, each in values.items() for i, v in enumerate(each))
    assert Evidence("e", "reduced", runs=runs).tuned("error", ("method",)) == {("nag",): {0: 2.0, 1: 2.0, 2: 8.0}}


def test_a_cell_holds_a_replicate_once() -> None:
    """Else the last of two learning rates would stand for both."""
    one = Evidence("e", "reduced", runs=(run(1.0, lr=0.1), run(2.0, lr=0.01)), values={"test_examples": 7})
    with pytest.raises(AssertionError, match="replicate 0 twice"):
        one.cells("error", ())
    assert one.select(lr=0.1).cells("error", ()) == {(): {0: 1.0}}
    assert one.select(lr=0.1).values == {"test_examples": 7}


def test_signed_rank_test_by_counting_all_signs() -> None:
    """Without ties the exact p is the share of sign patterns with a rank sum at least as extreme."""
    a, b = (1.0, 2.0, 3.0, 1.0, 2.0), (3.0, 6.0, 2.0, 9.0, 7.0)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    order = sorted(range(5), key=lambda i: abs(differences[i]))
    rank = {i: r for r, i in enumerate(order, 1)}
    seen = sum(rank[i] for i in range(5) if differences[i] > 0)
    count = sum(sum(r for r, up in zip(range(1, 6), signs, strict=True) if up) <= seen
                for signs in product((False, True), repeat=5))  # fmt: skip
    assert smaller(dict(enumerate(a)), dict(enumerate(b))) == pytest.approx(count / 32)


def test_signed_rank_takes_divergence_as_worst_and_equality_as_nothing() -> None:
    good = dict.fromkeys(range(5), 1.0)
    assert smaller(good, dict.fromkeys(range(5), math.inf)) == pytest.approx(1 / 32)
    assert smaller(good, good) == 1
    assert smaller(good, {}) == 1


def test_logrank_on_a_textbook_case() -> None:
    """Two samples that do not overlap: observed less expected 3 - (.5 + .4 + .25), variance .25 + .24 + .1875."""
    early, late = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 4.0, 1: 5.0, 2: math.inf}
    statistic = (3 - (3 / 6 + 2 / 5 + 1 / 4)) / math.sqrt(0.25 + 0.24 + 0.1875)
    assert logrank((early, late), 6.0) == pytest.approx(math.erfc(statistic / math.sqrt(2)), rel=1e-6)


def test_trend() -> None:
    tau, p = trend([(1, 1.0), (2, 2.0), (3, 3.0), (4, math.inf)])
    assert tau == pytest.approx(1)
    assert p == pytest.approx(1 / 24)


def test_load_reads_null_as_infinite_and_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    stored = {"params": {"lr": 1}, "replicate": 0, "state": "complete", "updates": 2, "series": {"error": [[2, None]]}}
    path.write_text(json.dumps({"experiment": "e", "protocol": "reduced", "runs": [stored]}))
    assert load(path).runs[0].value("error") == math.inf
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a stored result"):
        load(path)


def test_spread() -> None:
    assert spread({0: 1.0, 1: 2.0, 2: math.inf}) == "2 (1 to diverged)"
    assert spread({}) == "not run"
