"""Methods over several sweeps: shares worked out by hand, what a method stands for, what is left out and told."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.compare_tasks import FACTORS, profile_of
from sweeps.compared import compare
from sweeps.comparison import Comparison
from tests.sweeps.confirmed import CM, HF, METRIC, NAG, TEN, End, Point, make, times

SGD = {"method": "sgd", "lr": 0.1}
OTHER: dict[str, Any] = {"task": {"name": "curves", "size": 12}}
LOST: tuple[End, ...] = (*TEN[:5], *[None] * 5)


def three(root: Path) -> list[Path]:
    """Errors over the best: NAG 1, 1, 1.8; CM 1.3, 4, failed; HF 1.05, 9, 1."""
    return [
        make(root / "a", Point(NAG, 0.4, TEN), Point(CM, 0.5, times(1.3)), Point(HF, 0.4, times(1.05), "hf")),
        make(root / "b", Point(NAG, 0.4, TEN), Point(CM, 0.5, times(4)), Point(HF, 0.4, times(9), "hf"), spec=OTHER),
        make(root / "c", Point(NAG, 0.4, times(1.8)), Point(CM, 0.5, LOST), Point(HF, 0.4, TEN, "hf"), spec=OTHER),
    ]


def test_shares_by_hand(tmp_path: Path) -> None:
    found = profile_of(three(tmp_path))
    assert found is not None
    assert (found.tasks, found.factors, found.left_out) == (("a", "b", "c"), FACTORS, ())
    assert {method: [round(3 * each) for each in shares] for method, shares in found.share.items()} == {
        "nag": [2, 2, 2, 3, 3], "cm": [0, 0, 1, 1, 2], "hf": [1, 2, 2, 2, 2],
    }  # fmt: skip
    assert found.errors["a"]["nag"] == pytest.approx(0.5872, abs=1e-4)
    assert found.errors["c"]["cm"] is None  # half of its runs were lost


def test_it_stands_beside_contrasts_or_without_and_survives_json(tmp_path: Path) -> None:
    a, b, c = three(tmp_path)
    found = compare(a, None, [b, c])
    assert found.contrasts == ()
    assert found.profile == profile_of([a, b, c])
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    like = compare(b, c)  # one sweep against another: no profile, and no key for it
    assert like.profile is None
    assert "profile" not in like.to_dict()
    both = compare(b, None, [c])
    assert len(both.contrasts) == 1
    assert both.profile is not None
    assert both.profile.tasks == ("b", "c")


def test_the_searchs_best_stands_for_a_method(tmp_path: Path) -> None:
    lucky = Point({**NAG, "lr": 0.02}, 0.45, times(0.1))  # best when confirmed: to choose it would be luck again
    free = Point({"hf_damping": 1.0}, 0.3, times(0.5), "free")
    spec = {"baselines": [{"kind": "hf"}, {"kind": "hf", "name": "free"}]}
    points = (Point(NAG, 0.4, TEN), lucky, Point(HF, 0.4, times(2), "hf"), free)
    found = profile_of([make(tmp_path / "a", *points, spec=spec), three(tmp_path / "more")[1]])
    assert found is not None
    assert found.errors["a"] == pytest.approx({"nag": 0.5872, "hf": 0.5872 / 2}, abs=1e-4)
    assert found.left_out == ("CM: not on a",)


def test_in_mode_max_errors_are_distances_to_one(tmp_path: Path) -> None:
    points = Point(NAG, 0.9, [0.9] * 10), Point(CM, 0.8, [0.7] * 10)
    known = {"trivial": {METRIC: 0.1}}
    folders = [make(tmp_path / each, *points, spec={"mode": "max"}, resolved=known, start=0.1) for each in "ab"]
    found = profile_of(folders)
    assert found is not None
    assert found.errors["a"] == pytest.approx({"nag": 0.1, "cm": 0.3})
    assert found.share == {"nag": (1,) * 5, "cm": (0, 0, 0, 0, 1)}


def test_the_greatest_whole_table_is_shown_and_the_rest_told(tmp_path: Path) -> None:
    a, b, c = three(tmp_path)
    sgd = make(tmp_path / "d", Point(NAG, 0.4, TEN), Point(SGD, 0.5, times(2)))
    found = profile_of([a, sgd, b, c])
    assert found is not None
    assert (found.tasks, tuple(found.share)) == (("a", "b", "c"), ("nag", "cm", "hf"))
    assert found.left_out == ("d: without CM, HF",)


def test_what_is_not_comparable_is_left_out_with_why(tmp_path: Path) -> None:
    _, b, c = three(tmp_path)
    running = make(
        tmp_path / "r", Point(NAG, 0.4, TEN), Point(CM, 0.5, (*TEN[:9], "running")), Point(HF, 0.4, TEN, "hf", batch=20)
    )
    assert profile_of([b, running]) is None
    thin = profile_of([b, c, running])
    assert thin is not None
    assert thin.left_out == (
        "r: CM: some runs have not ended yet",
        "r: HF: budget: 1,000 example gradients a trial against 2,000 example gradients a trial",
        "r: without CM, HF",
    )
    timed = {"baselines": [{"kind": "hf", "match": "wall"}]}  # then the work may differ
    wall = make(tmp_path / "w", Point(NAG, 0.4, TEN), Point(HF, 0.4, TEN, "hf", batch=20), spec=timed)
    found = profile_of([b, wall])
    assert found is not None
    assert tuple(found.share) == ("nag", "hf")


def test_one_sweep_twice_is_one_task(tmp_path: Path) -> None:
    a, b, _ = three(tmp_path)
    assert profile_of([a, a]) is None
    found = profile_of([a, b, a])
    assert found is not None
    assert found.tasks == ("a", "b")
