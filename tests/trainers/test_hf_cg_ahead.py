"""Conjugate gradients in blocks: whatever goes wrong when, they are those that look at every number, to the bit."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainers.host_reads import counted
from trainers.hf_cg import Boundless, ConjugateGradients, Iterate, Solver, System
from trainers.hf_cg_ahead import AheadConjugateGradients

BLOCKS = (1, 3, 7, 1000)
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda out: out,
    "negative": lambda out: out.neg_(),
    "zero": lambda out: out.zero_(),
    "nan": lambda out: out.fill_(math.nan),
    "inf": lambda out: out.fill_(math.inf),
    "huge": lambda out: out.mul_(1e30),
    "tiny": lambda out: out.mul_(1e-38),
}


class TooMuch(Exception):
    pass


class Counter:
    """A clock of so many products."""

    def __init__(self, most: int) -> None:
        self.spent, self.most = 0, most

    def spend(self, products: int) -> None:
        self.spent += products
        if self.spent > self.most:
            raise TooMuch

    def room(self, products: int) -> int:
        return max(0, min(products, self.most - self.spent))


@dataclass(frozen=True)
class Problem:
    """A system, and from which product on what is wrong with it."""

    size: int
    condition: float
    dtype: torch.dtype
    warm: bool
    preconditioned: bool
    wrong: str
    since: int
    most: int
    tolerance: float
    every: bool
    limit: int

    def solve(self, solver: Callable[[Tensor], Solver], twice: bool = True) -> tuple[Any, int, int]:
        """Iterates (None if it was too much), products that were counted, and those that were made."""
        draw = np.random.default_rng(self.size)
        q, _ = np.linalg.qr(draw.standard_normal((self.size, self.size)))
        matrix = torch.from_numpy(q @ np.diag(np.geomspace(1, self.condition, self.size)) @ q.T).to(self.dtype)
        g, start = (torch.from_numpy(draw.standard_normal(self.size)).to(self.dtype) for _ in range(2))
        made = 0

        def product(v: Tensor, out: Tensor) -> None:
            nonlocal made
            made += 1
            torch.mv(matrix, v, out=out)
            if made >= self.since:
                WRONG[self.wrong](out)

        one = solver(g)
        for _ in range(1 + twice):  # the second time in the buffers that the first has left
            made, clock = 0, Counter(self.limit)
            diagonal = matrix.diagonal() ** 0.75 if self.preconditioned else None
            how = (self.most, self.tolerance, self.every, clock)
            try:
                found = one.solve(product, g, start if self.warm else None, diagonal, *how)
            except TooMuch:
                found = None
        return found, clock.spent, made


def ahead_by(steps: int) -> Callable[[Tensor], Solver]:
    return lambda like: AheadConjugateGradients(like, steps)


def same(one: list[Iterate], other: list[Iterate]) -> None:
    assert [each.step for each in one] == [each.step for each in other]
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.x.numpy(), b.x.numpy(), equal_nan=True), (a, b)
        assert a.phi == b.phi or (math.isnan(a.phi) and math.isnan(b.phi)), (a, b)


@settings(max_examples=150, deadline=None)
@given(
    st.builds(
        Problem,
        size=st.integers(1, 40),
        condition=st.sampled_from([1.0, 1e2, 1e5]),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        warm=st.booleans(),
        preconditioned=st.booleans(),
        wrong=st.sampled_from(sorted(WRONG)),
        since=st.integers(1, 30),
        most=st.integers(1, 45),
        tolerance=st.sampled_from([5e-4, 1e-2, 0.05, 1e-30]),
        every=st.booleans(),
        limit=st.one_of(st.just(10**6), st.integers(0, 45)),
    )
)
def test_blocks_of_any_length_come_to_the_same_bits(problem: Problem) -> None:
    expected, spent, made = problem.solve(ConjugateGradients)
    for ahead in BLOCKS:
        found, found_spent, found_made = problem.solve(ahead_by(ahead))
        assert (found is None) == (expected is None)
        assert found_spent == spent
        assert found_made < made + ahead
        if expected is not None:
            same(found, expected)


@pytest.mark.parametrize(("wrong", "since"), [("nothing", 1), ("negative", 1), ("nan", 9), ("inf", 4), ("zero", 26)])
def test_the_cases_meet_every_way_to_stop(wrong: str, since: int) -> None:
    """At the first, a middle and a kept step, by the rule and by curvature, with much left of the block."""
    problem = Problem(40, 1e3, torch.float64, False, True, wrong, since, 45, 5e-3, True, 10**6)
    expected, spent, _ = problem.solve(ConjugateGradients)
    last = expected[-1].step
    assert last == (since - 1 if wrong in ("negative", "nan", "zero", "inf") else last)
    assert last < 45
    found, found_spent, made = problem.solve(ahead_by(1000))
    same(found, expected)
    assert (found_spent, made) == (spent, 45)


@pytest.mark.parametrize("ahead", [1, 4, 10, 64])
def test_the_host_reads_once_a_block(ahead: int) -> None:
    problem = Problem(40, 1e4, torch.float32, False, True, "nothing", 1, 40, 1e-30, True, 10**6)
    with counted() as reads:
        found, _, _ = problem.solve(ahead_by(ahead), twice=False)
    assert found[-1].step == 40
    assert reads.count == -(-40 // ahead)
    with counted() as reads:
        problem.solve(ConjugateGradients, twice=False)
    assert reads.count > 3 * 40


class Storages(TorchDispatchMode):
    """Collects the memory that results lie in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(each, Tensor):
                self.seen.add(each.untyped_storage().data_ptr())
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_makes_no_tensor(dtype: torch.dtype) -> None:
    """So that it could be recorded once and replayed."""
    matrix, g = torch.eye(8, dtype=dtype), torch.ones(8, dtype=dtype)
    solver = AheadConjugateGradients(g, 5)

    def product(v: Tensor, out: Tensor) -> None:
        torch.mv(matrix, v, out=out)

    solver.solve(product, g, None, g, 12, 1e-30)
    held = [value for value in vars(solver).values() if isinstance(value, Tensor)]
    held += [*solver._book, *solver._kept, *solver.dot._wide]
    with Storages() as storages:
        for step in (1, 12):  # before and after progress is judged
            solver._step(step, System(product, g, g, 1e-30, Boundless()))
    assert storages.seen <= {each.untyped_storage().data_ptr() for each in held}


def test_a_number_that_the_dtype_cannot_hold_is_infinite() -> None:
    """Float64 holds the ratio of two dot products of float32 vectors; float32 need not."""
    g = torch.full((4,), 1e3)

    def product(v: Tensor, out: Tensor) -> None:
        torch.mul(v, 1e-37, out=out)

    for solver in (ConjugateGradients(g), AheadConjugateGradients(g, 2)):
        found = solver.solve(product, g, None, g, 3, 1e-30)
        assert not found[-1].x.isfinite().all()
