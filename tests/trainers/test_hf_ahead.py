"""Outer iterations on a device that is not waited for: the same to the bit, and few looks at it."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.trainers.cases import AUTOENCODER, BATCH, NETS, data, same_bits, task, trial
from tests.trainers.host_reads import counted
from tests.trainers.test_hf import CONFIGS, whole
from tests.trainers.test_recurrent import recurrent_net
from tests.trainers.test_recurrent import task as sequences
from trainers.config import NetConfig
from trainers.config_hf import HFConfig
from trainers.curvature import curvature
from trainers.data import Data
from trainers.hf import HessianFree, Outcome, OverBudget, Progress
from trainers.hf_cg import kept_steps
from trainers.hf_cg_ahead import AheadConjugateGradients
from trainers.hf_engine import HFEngine
from trainers.state import initial_state

NET = NETS["mlp-tanh"]
STRUCTURAL = {
    "structural": HFConfig(damping=0.2, structural=0.5, chunks=2, cg_max=20),
    "structural step": HFConfig(damping=0.2, structural=0.5, chunks=2, cg_max=9, line_search=False, step=0.5),
}
ALL = CONFIGS | STRUCTURAL


def iterations(
    net: NetConfig, tensors: Data, config: HFConfig, ahead: int, most: float = math.inf
) -> Iterator[Outcome]:
    """Outer iterations, one from where the other led; ends where the work is too much."""
    made = curvature(net, tensors, waits=ahead > 0)
    theta = made.pack(initial_state(trial(net), tensors.dtype).params)
    one = HessianFree(net, theta, ahead)
    solution, progress = torch.zeros_like(theta), Progress(damping=config.damping)
    pieces = whole(tensors.train, config.chunks)
    for turn in range(5):
        target = turn % config.chunks
        some, at = (pieces, target) if config.gradient == "full" else ([pieces[target]], 0)
        try:
            found = one.iterate(made, theta, solution, progress, config, some, at, most)
        except OverBudget:
            return
        yield found
        theta, solution, progress = found.theta, found.solution, found.progress


def equal(one: list[Outcome], other: list[Outcome]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.theta, b.theta)
        assert torch.equal(a.solution, b.solution)
        assert (a.objective, a.lost, a.diverged) == (b.objective, b.lost, b.diverged)
        assert a.progress == b.progress


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ALL)
def test_iterations_are_the_same_to_the_bit(name: str, dtype: str) -> None:
    config = ALL[name]
    net = recurrent_net("softmax", False) if config.structural else AUTOENCODER
    tensors = Data(sequences(net), dtype=dtype) if config.structural else data(net, dtype)
    expected = list(iterations(net, tensors, config, 0))
    assert len(expected) == 5
    for ahead in (1, 4, 1000):
        equal(list(iterations(net, tensors, config, ahead)), expected)


@pytest.mark.parametrize("name", ["classical", "rough", "momentum", "structural", "structural step"])
def test_the_budget_ends_a_run_at_the_same_iteration(name: str) -> None:
    config = replace(ALL[name], cg_max=6)
    net = recurrent_net("squared", False) if config.structural else NET
    tensors = Data(sequences(net), dtype="float64") if config.structural else data(net, examples=31)
    works = [found.progress.work for found in iterations(net, tensors, config, 0)]
    # Just within and just beyond an iteration's end, and at all sorts of places in the second.
    limits = [works[1], works[1] * (1 - 1e-12), *(works[0] + (works[1] - works[0]) * i / 7 for i in range(7))]
    for limit in limits:
        expected = list(iterations(net, tensors, config, 0, limit))
        assert len(expected) == sum(work <= limit for work in works)
        for ahead in (2, 10):
            equal(list(iterations(net, tensors, config, ahead, limit)), expected)


@pytest.mark.parametrize("cg_max", [1, 20, 60])
@pytest.mark.parametrize("line_search", [True, False])
def test_an_iteration_looks_once_a_block_and_a_few_times_more(cg_max: int, line_search: bool) -> None:
    config = HFConfig(
        damping=0.01, chunks=3, cg_max=cg_max, cg_tolerance=1e-30, preconditioner=0.0, line_search=line_search
    )
    for ahead in (10, 1000):
        run = iterations(NET, data(NET), config, ahead)
        before = 0.0
        for turn in range(5):
            with counted() as reads:
                found = next(run)
            # One product for each step, the one that showed B not to be positive too, and one for a start not at 0.
            used, before = found.progress.products - before - (turn > 0), found.progress.products
            blocks = math.ceil(used / ahead)
            # What is there at the start; the model's numbers; whether all is finite. Tries come by twos, fours, eights.
            tries = reads.count - blocks - 3
            assert 1 <= tries <= (1 if not line_search else 4 + 6)
            assert reads.count <= blocks + 13
    with counted() as reads:
        found = next(iterations(NET, data(NET), config, 0))
    assert found.progress.cg_steps >= min(cg_max, 20)
    assert reads.count > 3 * found.progress.cg_steps


def test_an_engine_comes_to_the_same_states() -> None:
    net = recurrent_net("softmax", True)
    config = trial(net, 0, "hf")
    hf = HFConfig(damping=1.0, chunks=3, cg_max=20, structural=0.1)
    config = replace(config, method=replace(config.method, hf=hf), updates=300)
    states = []
    for ahead in (0, 7):
        engine = HFEngine(net, BATCH, Data(sequences(net)), ahead=ahead)
        engine.add(config)
        engine.advance({0: 300})
        states.append(engine.state(0))
    assert states[0].scalars["iterations"] >= 3
    assert same_bits(*states)
    assert states[0].scalars == states[1].scalars


KINDS = {
    **{name: NETS[name] for name in ("mlp-tanh", "squared-sigmoid", "no-hidden")},
    "autoencoder": AUTOENCODER,
    **{f"sequences, {loss}, {every}": recurrent_net(loss, every) for loss in ("softmax",) for every in (False, True)},
    "sequences, squared": recurrent_net("squared", False),
    "module": NetConfig((7, 3), (), "softmax", module="torch.nn:Linear"),
}


@pytest.mark.parametrize("name", KINDS)
def test_curvatures_read_nothing(name: str) -> None:
    net = KINDS[name]
    tensors = Data(sequences(net) if net.steps else task(net), dtype="float64")
    made = curvature(net, tensors, piece=200, kept=400, waits=True)
    theta, rows = torch.full((made.size,), 0.01, dtype=torch.float64), torch.arange(3, 20, 2)
    out = torch.empty_like(theta)
    for _ in range(2):
        with counted() as reads:
            losses = [made.at(theta, tensors.train, rows), made.loss(theta, tensors.train, rows)]
            made.gradient(out)
            made.squares(out)
            made.product(theta, out, 0.1)
            made.product(theta, out)
        assert reads.count == 0
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-14)


@pytest.mark.parametrize("name", ["mlp-tanh", "autoencoder"])
def test_all_lies_on_one_device_that_cannot_be_read(name: str) -> None:
    """Of PyTorch's meta device, whose tensors have no values and cannot be met by those of the host."""
    net = KINDS[name]
    there = Data(task(net), "meta")
    made = curvature(net, there, piece=200, kept=400)
    theta, out = (torch.empty(made.size, device="meta") for _ in range(2))
    for rows in (torch.arange(3, 20, 2, device="meta"), slice(2, 25), slice(2, 25, 3)):
        assert made.at(theta, there.train, rows).is_meta
        assert made.loss(theta, there.valid, rows).is_meta
        made.gradient(out)
        made.squares(out)
        made.product(theta, out)
    solver = AheadConjugateGradients(theta, 20)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):  # where the host looks, after all steps
        solver.solve(made.product, theta, theta, out, 15, 1e-3)
    assert len(solver._kept) == len(kept_steps(15))
