"""Points that depend on nothing but the sweep's seed and their place in the sequence: random, Sobol, grid.

They are the same whatever the group size, the number of workers, the order of results or the number of
resumes, and extending a sweep continues the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sweeps.space import Params, Space, point_id
from trainers.config import SeedConfig

_LEAST_LOG2 = 6


def uniform(seed: int, name: str) -> float:
    """A number in [0, 1) that a name stands for under a seed: hashed, so equal on every machine and version."""
    return (SeedConfig(seed).stream(f"sampler/{name}") >> 10) / 2**53


def random_units(space: Space, seed: int, index: int) -> dict[str, float]:
    """Independent uniform numbers, one for each searched name; adding a name leaves the others' as they are."""
    return {name: uniform(seed, f"{index}/{name}") for name in space.searched}


def sobol_units(space: Space, seed: int, index: int) -> dict[str, float]:
    """The index-th point of a scrambled Sobol sequence, one dimension for each searched name."""
    names = space.searched
    if not names:
        return {}
    log2 = max(_LEAST_LOG2, index.bit_length())
    return dict(zip(names, _sobol(len(names), seed, log2)[index], strict=True))


@lru_cache(maxsize=4)
def _sobol(dimensions: int, seed: int, log2: int) -> list[list[float]]:
    """The first 2^log2 points; a longer sequence starts with the shorter one."""
    from scipy.stats import qmc

    engine = qmc.Sobol(dimensions, scramble=True, rng=SeedConfig(seed).stream("sampler/sobol"))
    points: list[list[float]] = engine.random_base2(log2).tolist()
    return points


def at(space: Space, units: Mapping[str, float], given: Mapping[str, Any]) -> Params:
    """The point at a place of the unit cube, save for the names `given`, which may switch others on or off."""
    if not given:
        return space.from_unit(units)
    values = {name: space[name].from_unit(units[name]) for name in space.searched}  # type: ignore[union-attr]
    return space.active({**values, **given})


def grid(space: Space, levels: Mapping[str, int] | None, seed: int) -> list[Params]:
    """Each point of the grid once, shuffled by the seed.

    In the order of the product, a budget smaller than the grid would search one corner of it, and rungs would
    compare neighbours with neighbours.
    """
    nodes = space.grid(levels)
    return sorted(nodes, key=lambda node: uniform(seed, f"grid/{point_id(node)}"))


def finite(space: Space, limit: int = 10_000) -> list[Params] | None:
    """All points of a space in which nothing is continuous, None if they are more than `limit`."""
    total = 1
    for name in space.searched:
        values = space[name].values
        if values is None:
            return None
        total *= len(values)
        if total > limit:
            return None
    return space.grid()
