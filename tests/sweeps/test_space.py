"""Spaces: order, conditions, and the exact ways between points, samplers' numbers and the unit cube."""

from __future__ import annotations

import itertools
import math
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.parameters import TUNABLE, Choice, Fixed, Float, Int, Legal
from sweeps.space import Space, point_id

CONDITIONAL = Space(
    {
        "fan_in": Int(5, 30, when={"init": ["sparse"]}),
        "mu_max": Float(0.5, 0.99, "one_minus_log", when={"method": ["cm", "nag"]}),
        "lr": Float(1e-4, 1.0, "log"),
        "init": Choice(["sparse", "he"], when={"depth": [3, 7]}),
        "method": Choice(["sgd", "cm", "nag"]),
        "depth": Choice([1, 3, 7]),
        "batch": Fixed(50),
    }
)
units = st.floats(0, 1, exclude_max=True)
cube = st.fixed_dictionaries(dict.fromkeys(CONDITIONAL.searched, units))


def test_parents_come_before_those_that_depend_on_them() -> None:
    order = list(CONDITIONAL)
    for name, parameter in CONDITIONAL.items():
        assert all(order.index(other) < order.index(name) for other in parameter.when)
    assert order == ["lr", "method", "mu_max", "depth", "init", "fan_in", "batch"]
    assert CONDITIONAL.searched == ("lr", "method", "mu_max", "depth", "init", "fan_in")


def test_a_space_without_conditions_keeps_its_order() -> None:
    names = ["width", "lr", "batch", "mu_max"]
    assert list(Space({name: Fixed(1) for name in names})) == names


@settings(deadline=None)
@given(cube)
def test_a_point_has_a_name_exactly_where_its_condition_holds(place: dict[str, float]) -> None:
    point = CONDITIONAL.from_unit(place)
    assert {"lr", "method", "depth", "batch"} <= point.keys()
    assert ("mu_max" in point) == (point["method"] != "sgd")
    assert ("init" in point) == (point["depth"] != 1)
    # fan_in hangs on init, which hangs on depth: without its parent it is not active either
    assert ("fan_in" in point) == (point["depth"] != 1 and point["init"] == "sparse")
    assert list(point) == [name for name in CONDITIONAL if name in point]
    assert CONDITIONAL.check(point, "point") == []


def test_active_drops_what_hangs_on_a_dropped_name() -> None:
    point = CONDITIONAL.active({"depth": 1, "init": "sparse", "fan_in": 9, "method": "sgd", "mu_max": 0.9, "lr": 1})
    assert point == {"lr": 1.0, "method": "sgd", "depth": 1, "batch": 50}
    assert isinstance(point["lr"], float)


@settings(deadline=None)
@given(cube)
def test_points_survive_the_way_to_a_sampler_and_back_exactly(place: dict[str, float]) -> None:
    point = CONDITIONAL.from_unit(place)
    numbers = CONDITIONAL.to_internal(point)
    assert numbers.keys() == point.keys() - {"batch"}
    assert CONDITIONAL.from_internal(numbers) == point
    for name, value in numbers.items():
        shape = CONDITIONAL.internal()[name]
        assert value in shape.choices if shape.kind == "choice" else shape.low <= float(value) <= shape.high


@settings(deadline=None)
@given(st.floats(1e-4, 1 - 1e-6))
def test_a_samplers_own_number_settles_after_one_trip(number: float) -> None:
    momentum = Float(1e-6, 1 - 1e-4, "one_minus_log")
    settled = momentum.to_internal(momentum.from_internal(number))
    assert isinstance(settled, float)
    assert abs(settled - number) <= 1e-15
    assert momentum.to_internal(momentum.from_internal(settled)) == settled


@pytest.mark.parametrize("mu", [0.0, 0.1, 0.3, 0.5, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999])
def test_momentum_as_a_person_writes_it_is_kept(mu: float) -> None:
    momentum = Float(0.0, 0.99999, "one_minus_log")
    assert momentum.from_internal(momentum.to_internal(mu)) == mu
    assert momentum.to_internal(mu) == pytest.approx(1 - mu, abs=1e-15)


@settings(deadline=None)
@given(st.floats(0, 0.999999))
def test_momentum_to_fifteen_decimals_is_kept(value: float) -> None:
    momentum, mu = Float(0.0, 0.9999999, "one_minus_log"), round(value, 15)
    assert momentum.from_internal(momentum.to_internal(mu)) == mu


def test_samplers_see_momentum_as_log_uniform_in_one_minus_mu() -> None:
    shape = Float(0.9, 0.999, "one_minus_log").internal("mu_max")
    assert (shape.kind, shape.low, shape.high, shape.log) == ("float", 0.001, 0.1, True)


def test_the_middle_of_each_scale() -> None:
    assert Float(0.0, 1.0).from_unit(0.5) == 0.5
    assert Float(0.01, 1.0, "log").from_unit(0.5) == pytest.approx(0.1)
    assert Float(0.9, 0.999, "one_minus_log").from_unit(0.5) == pytest.approx(0.99)  # 1-mu: .1, .01, .001
    assert Float(0.9, 0.999, "one_minus_log").from_unit(0.0) == 0.9
    assert Float(0.9, 0.999, "one_minus_log").from_unit(1.0) == 0.999


@settings(deadline=None)
@given(st.sampled_from(["linear", "log", "one_minus_log"]), st.lists(units, min_size=2, max_size=5))
def test_the_unit_interval_is_laid_out_in_order(scale: str, places: list[float]) -> None:
    parameter = Float(0.2, 0.99, scale)  # type: ignore[arg-type]
    values = [float(parameter.from_unit(unit)) for unit in sorted(places)]
    assert values == sorted(values)
    assert all(0.2 <= value <= 0.99 for value in values)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_whole_numbers_get_their_share_of_the_unit_interval(scale: str) -> None:
    parameter, n = Int(1, 4, scale), 40_000  # type: ignore[arg-type]
    drawn = [parameter.from_unit((i + 0.5) / n) for i in range(n)]
    for value in (1, 2, 3, 4):
        width = math.log((value + 0.5) / (value - 0.5)) / math.log(4.5 / 0.5) if scale == "log" else 1 / 4
        assert fmean(v == value for v in drawn) == pytest.approx(width, abs=1e-3)


def test_choices_share_the_unit_interval_equally() -> None:
    parameter = Choice(["a", "b", "c"])
    assert [parameter.from_unit(u) for u in (0.0, 0.333, 0.334, 0.666, 0.667, 0.999)] == ["a", "a", "b", "b", "c", "c"]


def test_a_grid_has_every_active_combination_once() -> None:
    space = Space(
        {
            "method": Choice(["sgd", "nag"]),
            "mu_max": Float(0.9, 0.999, "one_minus_log", when={"method": ["nag"]}),
            "lr": Float(0.01, 1.0, "log"),
            "depth": Int(1, 2),
            "batch": Fixed(10),
        }
    )
    points = space.grid({"mu_max": 3, "lr": 2})
    # sgd has no momentum: 2 rates x 2 depths; nag: 3 momenta x 2 x 2
    assert len(points) == 4 + 12
    assert len({point_id(point) for point in points}) == len(points)
    assert all(point["batch"] == 10 for point in points)
    momenta = sorted({point["mu_max"] for point in points if "mu_max" in point})
    assert momenta == [0.9, pytest.approx(0.99), 0.999]
    assert sorted({point["lr"] for point in points}) == [pytest.approx(0.01), pytest.approx(1.0)]


def test_grids_of_whole_numbers() -> None:
    assert Int(1, 5).grid(None) == [1, 2, 3, 4, 5]
    assert Int(1, 100, "log").grid(3) == [1, 10, 100]
    assert Int(0, 10).grid(3) == [0, 5, 10]
    assert Int(0, 10).grid(1) == [5]


def test_point_ids_do_not_depend_on_order_or_type_and_tell_points_apart() -> None:
    assert point_id({"lr": 1, "depth": 3}) == point_id({"depth": 3.0, "lr": 1.0})
    assert point_id({"lr": 0.1}) != point_id({"lr": 0.2})
    assert point_id({"lr": 0.1}) != point_id({"mu_max": 0.1})
    ids = {point_id({"lr": i * 1e-7}) for i in range(1, 20_000)}
    assert len(ids) == 19_999
    # stable over versions and machines: journals hold it
    assert point_id({"lr": 0.1, "method": "nag"}) == "e5cc8dc7e8e4"


def test_values_take_the_type_of_their_name() -> None:
    space = Space({"mu_max": Choice([0, 0.9]), "depth": Choice([1.0, 3]), "lr": Fixed(1)})
    assert [type(value) for value in space["mu_max"].values or ()] == [float, float]
    assert [type(value) for value in space["depth"].values or ()] == [int, int]
    assert isinstance(space.active({})["lr"], float)


def test_circles_are_found_and_named() -> None:
    ring = {
        "lr": Choice([0.1, 1.0], when={"init": ["he"]}),
        "init": Choice(["he"], when={"method": ["nag"]}),
        "method": Choice(["nag"], when={"init": ["he"]}),
    }
    (problem,) = Space(ring).problems()  # type: ignore[arg-type]
    assert problem.wrong == "conditions in a circle: init -> method -> init"
    (problem,) = Space({"init": Choice(["he"], when={"init": ["he"]})}).problems()
    assert problem.wrong == "conditions in a circle: init -> init"


def test_checks_of_a_partial_point() -> None:
    assert CONDITIONAL.check({"lr": 0.1}, "p") == []
    assert CONDITIONAL.check({"fan_in": 9}, "p") == []  # whether it is active is not known yet
    assert [str(p) for p in CONDITIONAL.check({"fan_in": 9, "init": "he"}, "p")] == [
        "p.fan_in=9: set only when init is sparse, here he; allowed: leave it out"
    ]
    assert [p.path for p in CONDITIONAL.check({"batch": 60, "fan_in": 4, "typo": 1}, "p")] == [
        "p.batch", "p.fan_in", "p.typo",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "legal"), TUNABLE.items())
def test_what_is_legal_is_legal_at_its_bounds(name: str, legal: Legal) -> None:
    good: list[object]
    bad: list[object]
    if legal.kind == "name":
        good, bad = list(legal.names), [*(["typo"] if legal.names else []), 1, True, None]
    elif legal.below is not None:
        good, bad = [0, 0.0, 0.999], [1, 1.0, -1e-9, math.nan, math.inf, "0.5", True]
    elif legal.most is not None:
        good, bad = [1e-12, 0.5, 1, 1.0], [-1e-9, 1.001, math.nan, "1", True]
        (bad if legal.positive else good).append(0)
    elif legal.positive:
        good, bad = [1e-12, 3, 1e12], [0, -1, math.nan, math.inf, "1", False]
    else:
        assert legal.low is not None
        good, bad = [int(legal.low), 7, 7.0], [legal.low - 1, math.inf, "7", True]
        (good if legal.kind == "float" else bad).append(7.5)
    assert [legal.problem(name, value) for value in good] == [None] * len(good)
    assert [legal.problem(name, value) is not None for value in bad] == [True] * len(bad)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.sampled_from(["linear", "log"]))
def test_every_whole_number_can_be_drawn(low: int, extra: int, scale: str) -> None:
    parameter = Int(low, low + extra + 1, scale)  # type: ignore[arg-type]
    drawn = [int(parameter.from_unit(i / 5000)) for i in range(5000)]
    assert set(drawn) == set(parameter.values or ())
    assert all(a <= b for a, b in itertools.pairwise(drawn))
