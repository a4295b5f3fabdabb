import math

import numpy as np
import pytest

from sweeps import designs
from sweeps.parameters import Choice, Fixed, Float, Int
from sweeps.space import Space, point_id

SPACE = Space(
    {
        "lr": Float(1e-3, 1.0, "log"),
        "mu_max": Float(0.9, 0.99, "one_minus_log"),
        "init": Choice(["sparse", "he"]),
        "fan_in": Int(5, 30, when={"init": ["sparse"]}),
        "batch": Fixed(100),
    }
)


def test_uniform_is_uniform():
    values = np.array([designs.uniform(3, f"{n}/lr") for n in range(4000)])
    assert values.min() >= 0
    assert values.max() < 1
    # The Kolmogorov-Smirnov distance of n uniform numbers passes 1.63 / sqrt(n) with probability 0.01.
    ranks = np.arange(4000) / 4000
    assert np.abs(np.sort(values) - ranks).max() < 1.63 / math.sqrt(4000)


def test_random_and_sobol_depend_on_seed_and_index_only():
    for units in (designs.random_units, designs.sobol_units):
        forwards = [units(SPACE, 7, n) for n in range(70)]
        backwards = [units(SPACE, 7, n) for n in reversed(range(70))]
        assert forwards == backwards[::-1]
        assert forwards != [units(SPACE, 8, n) for n in range(70)]
        assert len({tuple(u.values()) for u in forwards}) == 70


def test_another_name_leaves_random_values_as_they_are():
    more = Space({**SPACE, "width": Int(16, 64)})
    less, full = designs.random_units(SPACE, 7, 5), designs.random_units(more, 7, 5)
    assert {name: full[name] for name in less} == less


@pytest.mark.parametrize("log2", [3, 6, 7, 9])
def test_sobol_puts_one_point_into_each_interval_of_every_dimension(log2):
    # The first 2^m points of a Sobol sequence, scrambled or not, are a (0, m, 1)-net in each projection.
    n = 2**log2
    points = np.array([list(designs.sobol_units(SPACE, 1, i).values()) for i in range(n)])
    for column in points.T:
        assert sorted(np.floor(column * n).astype(int)) == list(range(n))


def test_a_space_without_a_searched_name_has_one_point():
    fixed = Space({"lr": Fixed(0.1)})
    assert designs.at(fixed, designs.sobol_units(fixed, 0, 3), {}) == {"lr": 0.1}


def test_given_names_win_and_switch_others_on_and_off():
    units = {"lr": 0.0, "mu_max": 1.0, "init": 0.9, "fan_in": 0.0}  # init: he
    assert designs.at(SPACE, units, {}) == pytest.approx({"lr": 1e-3, "mu_max": 0.99, "init": "he", "batch": 100})
    on = designs.at(SPACE, units, {"init": "sparse"})
    assert on == pytest.approx({"lr": 1e-3, "mu_max": 0.99, "init": "sparse", "fan_in": 5, "batch": 100})
    assert "fan_in" not in designs.at(SPACE, units | {"init": 0.1}, {"init": "he"})


def test_grid_has_each_point_once_in_an_order_of_the_seed():
    levels = {"lr": 3, "mu_max": 2, "fan_in": 4}
    nodes = designs.grid(SPACE, levels, 7)
    # 3 lr x 2 mu x (4 fan-ins under sparse, and he without one)
    assert len(nodes) == len({point_id(node) for node in nodes}) == 3 * 2 * (4 + 1)
    assert nodes == designs.grid(SPACE, levels, 7)
    other = designs.grid(SPACE, levels, 8)
    assert nodes != other
    assert sorted(map(point_id, nodes)) == sorted(map(point_id, other))


def test_finite_counts_only_spaces_without_a_range_of_floats():
    assert designs.finite(SPACE) is None
    discrete = Space({name: SPACE[name] for name in ("init", "fan_in")})
    assert len(designs.finite(discrete)) == 26 + 1
    assert designs.finite(discrete, limit=10) is None
