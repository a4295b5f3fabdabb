"""How new trials are dealt to groups."""

import random
from itertools import combinations

import pytest

from sweeps.groups import Groups


def dealt(costs: list[float], held: list[list[float]], slots: int) -> tuple[list[int], list[float]]:
    """Which group each trial goes to, and what groups have to compute then."""
    groups = Groups(len(held), lambda: 0.0, 30.0)
    known: dict[int, float] = {}
    for group, each in enumerate(held):
        for cost in each:
            known[len(known)] = cost
            groups[group].held.append(len(known) - 1)
    found = groups.seat(costs, slots, known.__getitem__)
    loads = [sum(each) + sum(c for c, to in zip(costs, found, strict=True) if to == g) for g, each in enumerate(held)]
    return found, loads


def test_rounds_last_equally_long_where_they_can() -> None:
    assert dealt([1, 1, 3, 3], [[], []], 2) == ([0, 1, 0, 1], [4, 4])
    assert dealt([1, 5], [[4], [1]], 2)[1] == [5, 6], "the larger one goes where there is less"
    assert dealt([2, 2, 2, 2], [[], []], 2)[0] == [0, 1, 0, 1], "equal ones in turn, by number"


def test_a_group_without_a_free_slot_gets_nothing() -> None:
    assert dealt([7, 7], [[1, 1], [9]], 3)[0] == [0, 1]
    assert dealt([7, 7], [[0, 0, 0], [9]], 3)[0] == [1, 1]


@pytest.mark.parametrize("seed", range(50))
def test_two_groups_are_near_the_best_deal_there_is(seed: int) -> None:
    luck = random.Random(seed)
    slots = luck.randint(1, 5)
    costs = [luck.choice([1.0, 1.4, 2.0, 2.7]) for _ in range(2 * slots)]
    found, loads = dealt(costs, [[], []], slots)
    assert [found.count(group) for group in (0, 1)] == [slots, slots]
    halves = (sum(costs[place] for place in half) for half in combinations(range(2 * slots), slots))
    best = min(max(half, sum(costs) - half) for half in halves)
    assert best <= max(loads) <= 4 / 3 * best  # Graham's bound
