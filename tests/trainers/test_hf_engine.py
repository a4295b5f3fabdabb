"""The engine: its clock of work, its examples, states on the way, and real problems on which it may never rise."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainers.cases import AUTOENCODER, BATCH, NETS, RESIDUAL, data, flat, same_bits, task, trial
from tests.trainers.hf_twin import Twin
from trainers import models
from trainers.checkpoint import pack, unpack
from trainers.config import NetConfig, SeedConfig, TrialConfig
from trainers.config_hf import HFConfig, HFPhase
from trainers.curvature import curvature
from trainers.data import Data, Part
from trainers.group import Group, make_engine
from trainers.hf import Piece
from trainers.hf_engine import HFEngine
from trainers.loop import LoopEngine
from trainers.serial import SerialTrial
from trainers.state import TrialState

MLP = NETS["mlp-tanh"]
CLASSICAL = HFConfig(damping=1.0, chunks=3, cg_max=20)
MOMENTUM = HFConfig(damping=1.0, chunks=3, cg_max=5, gradient="chunk", line_search=False)


def configured(net: NetConfig, hf: HFConfig = CLASSICAL, number: int = 0, updates: int = 600) -> TrialConfig:
    config = trial(net, number, "hf")
    return replace(config, method=replace(config.method, hf=hf), updates=updates)


def engine_of(*configs: TrialConfig, dtype: str = "float64") -> HFEngine:
    engine = HFEngine(configs[0].net, BATCH, data(configs[0].net, dtype))
    for config in configs:
        engine.add(config)
    return engine


def cut(data: Data, config: TrialConfig, chunks: int) -> list[Piece]:
    """The training set as it is documented to be cut."""
    order = np.random.default_rng([config.seed.stream("data"), chunks]).permutation(len(data.train.inputs))
    return [Piece(data.train, torch.from_numpy(np.sort(some)), len(some)) for some in np.array_split(order, chunks)]


@pytest.mark.parametrize("hf", [CLASSICAL, MOMENTUM], ids=["classical", "momentum"])
@pytest.mark.parametrize("net", [AUTOENCODER, MLP, RESIDUAL], ids=["autoencoder", "mlp", "residual"])
def test_its_iterations_are_the_twins_on_one_chunk_in_turn(net: NetConfig, hf: HFConfig) -> None:
    hf, examples = replace(hf, damping=2.0, cg_max=10), 25  # few steps: rounding grows with them
    config, tensors = configured(net, hf), data(net, examples=examples)
    engine = HFEngine(net, BATCH, tensors)
    engine.add(config)
    vector = curvature(net, tensors).pack
    twin = Twin(net, vector(engine.state(0).params), hf.damping)
    pieces = cut(tensors, config, 3)
    assert sorted(torch.cat([piece.rows for piece in pieces]).tolist()) == list(range(examples))  # type: ignore[arg-type]
    for iteration in range(4):
        twin.iterate(hf, *((pieces, iteration % 3) if hf.gradient == "full" else ([pieces[iteration % 3]], 0)))
        while engine.notes(0)["hf_iterations"] <= iteration:
            engine.advance({0: engine.update(0) + 1})
        found = vector(engine.state(0).params).numpy()
        assert np.abs(found - twin.theta).max() < 1e-10 * np.abs(twin.theta).max()
        assert engine.notes(0)["hf_damping"] == pytest.approx(twin.damping, rel=1e-12)


@pytest.mark.parametrize("hf", [CLASSICAL, MOMENTUM], ids=["classical", "momentum"])
def test_a_trial_stands_where_its_last_whole_iteration_within_the_work_ended(hf: HFConfig) -> None:
    config = configured(MLP, hf)
    slow, quick = engine_of(config), engine_of(config)
    seen = [(0.0, slow.state(0))]
    for update in range(1, 301):
        slow.advance({0: update})
        notes = slow.notes(0)
        assert notes["hf_work"] <= update * BATCH < slow.state(0).scalars["next_work"]
        if notes["hf_work"] > seen[-1][0]:
            assert notes["hf_iterations"] == len(seen)
            seen.append((notes["hf_work"], slow.state(0)))
    assert len(seen) > 4
    for update in (37, 300):  # whatever the reports between
        quick.advance({0: update})
        expected = max((work, place) for place, (work, _) in enumerate(seen) if work <= update * BATCH)[1]
        assert quick.notes(0)["hf_iterations"] == expected
        assert torch.equal(flat(quick.state(0).params), flat(seen[expected][1].params))
        assert quick.update(0) == update
    assert quick.state(0).scalars == slow.state(0).scalars


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hf", [CLASSICAL, MOMENTUM], ids=["classical", "momentum"])
def test_killed_and_resumed_its_trajectory_is_the_same(hf: HFConfig, dtype: str) -> None:
    phases = (HFPhase(0.3, cg_max=4, l2=1e-3), HFPhase(0.6, chunks=2))
    config = configured(MLP, replace(hf, phases=phases), updates=200)
    whole = engine_of(config, dtype=dtype)
    pending = 0
    marks = (0, 20, 30, 31, 77, 150, 200)
    states: dict[int, TrialState] = {}
    for update in marks:
        whole.advance({0: update})
        states[update] = unpack(pack({0: whole.state(0)}))[0]
        assert same_bits(states[update], whole.state(0))
        pending += "next_work" in states[update].scalars
    assert pending >= 4
    for update in marks[:-1]:
        again = HFEngine(MLP, BATCH, data(MLP, dtype))
        again.add(config, states[update])
        for later in marks:
            again.advance({0: max(update, later)})
        assert same_bits(again.state(0), states[200])
        assert again.state(0).scalars == states[200].scalars
    assert states[200].scalars["iterations"] >= 4


def test_what_is_ahead_travels_in_a_state() -> None:
    engine = engine_of(configured(MLP))
    engine.advance({0: 40})
    state = engine.state(0)
    assert state.second is not None
    assert not torch.equal(flat(state.second), flat(state.params))  # it holds what comes next
    while engine.notes(0)["hf_iterations"] == state.scalars["iterations"]:
        engine.advance({0: engine.update(0) + 1})
    assert torch.equal(flat(engine.state(0).params), flat(state.second))
    assert engine.notes(0)["hf_work"] == state.scalars["next_work"]


def test_an_iteration_that_does_not_fit_the_budget_is_not_finished_in_vain() -> None:
    short, long = configured(MLP, updates=100), configured(MLP, updates=100_000)
    one, other = engine_of(short), engine_of(long)
    one.advance({0: 100})
    other.advance({0: 100})
    assert "next_work" not in one.state(0).scalars
    assert one.state(0).scalars["short"] == 100 * BATCH
    assert torch.equal(flat(one.state(0).params), flat(other.state(0).params))
    one.advance({0: 200})  # a fork may go on beyond
    other.advance({0: 200})
    assert same_bits(one.state(0), other.state(0)) or one.state(0).scalars["short"] == 200 * BATCH
    assert torch.equal(flat(one.state(0).params), flat(other.state(0).params))
    assert one.notes(0) == other.notes(0)


def test_phases_follow_the_share_of_the_work() -> None:
    phases = (HFPhase(0.25, cg_max=2), HFPhase(0.5, cg_max=4, gradient="chunk", line_search=False))
    config = configured(MLP, replace(CLASSICAL, cg_max=7, phases=phases))
    engine, before = engine_of(config), {"hf_iterations": 0.0, "hf_cg_steps": 0.0, "hf_work": 0.0}
    seen = set()
    for update in range(1, 601):
        engine.advance({0: update})
        notes = engine.notes(0)
        if notes["hf_iterations"] > before["hf_iterations"]:
            share = before["hf_work"] / (600 * BATCH)
            expected = 2 if share < 0.25 else 4 if share < 0.5 else 7
            assert notes["hf_cg_steps"] - before["hf_cg_steps"] == expected
            if expected == 4:  # 20 examples' gradient, squares, 4 products and one more from the warm start, 1 forward
                work = 20 * (2 + 5 * MLP.product_cost + MLP.forward_cost)
                assert notes["hf_work"] - before["hf_work"] == pytest.approx(work)
            before = notes
            seen.add(expected)
    assert seen == {2, 4, 7}


def test_steps_without_line_search_shrink() -> None:
    hf = replace(MOMENTUM, step_decay=1.5, step_from=1)
    engine = engine_of(configured(MLP, hf))
    before = engine.state(0)
    sizes = []
    for update in range(1, 200):
        engine.advance({0: update})
        if engine.notes(0)["hf_iterations"] == len(sizes) + 1:
            state, solution = engine.state(0), before.velocity
            moved, taken = flat(state.params) - flat(before.params), flat(solution)
            sizes.append(float(moved @ taken / (taken @ taken)))
            assert torch.allclose(moved, sizes[-1] * taken, atol=1e-12)
        before = engine.state(0)
    assert sizes[:5] == pytest.approx([1, 1, 0.75, 0.5, 0.375])


def test_divergence_is_a_result_at_the_work_that_led_there() -> None:
    wild = replace(MOMENTUM, step=1e200)
    net = NETS["squared-sigmoid"]
    ends = []
    for marks in ((1, 2, 40), (40,), (13, 40)):
        engine = engine_of(configured(net, wild), configured(net, CLASSICAL, 1))
        for update in marks:
            engine.advance({0: update, 1: update})
        ends.append(engine.diverged_at(0))
        alone = engine_of(configured(net, CLASSICAL, 1))
        alone.advance({1: 40})
        assert same_bits(alone.state(1), engine.state(1))
        assert engine.diverged_at(1) is None
        assert engine.update(0) == 40
        assert TrialState.from_arrays(engine.state(0).to_arrays()).diverged_at == ends[0]
    # 20 examples' gradient, squares, 5 products; a forward pass for the model's ratio, one for where the step led.
    work = 20 * (2 + 5 * net.product_cost + 2 * net.forward_cost)
    assert ends == [math.ceil(work / BATCH)] * 3
    group = Group(task(net), "loop", dtype="float32")
    group.add(configured(net, replace(wild, step=1e30)))
    group.advance({0: 40})
    assert group.diverged_at(0) is not None
    assert all(math.isnan(value) for name, value in group.evaluate([0])[0].items() if not name.startswith("hf_"))


def test_a_start_that_is_not_finite_scores_nothing() -> None:
    group = Group(task(AUTOENCODER), "loop", dtype="float64")
    group.add(configured(AUTOENCODER))
    state = group.state(0)
    state.params[0][0].fill_(math.inf)
    group.remove(0)
    group.add(configured(AUTOENCODER), state)
    group.advance({0: 1})
    assert group.diverged_at(0) == 0
    assert math.isnan(group.evaluate([0])[0]["valid_loss"])


def test_hf_shares_a_group_and_a_clock_with_momentum() -> None:
    engines = {"another shape": "loop"}
    with_hf, without = Group(task(MLP), "loop", dtype="float32"), Group(task(MLP), "loop", dtype="float32")
    nags = [trial(MLP, number) for number in (1, 2)]
    for config in (nags[0], configured(MLP, number=0), nags[1], configured(MLP, MOMENTUM, 3)):
        with_hf.add(config)
    for config in nags:
        without.add(config)
    for update in (10, 55, 120):
        with_hf.advance(dict.fromkeys(range(4), update))
        without.advance(dict.fromkeys((1, 2), update))
        with_hf.fork([0, 1, 3], 9, 0.5)
        measured = with_hf.evaluate(range(4))
        assert {with_hf.update(number) for number in range(4)} == {update}
        assert all(same_bits(with_hf.state(number), without.state(number)) for number in (1, 2))
        assert {name for name in measured[0] if name.startswith("hf_")} == {
            f"hf_{name}" for name in ("iterations", "cg_steps", "damping", "objective", "work")
        }
        assert not [name for name in measured[1] if name.startswith("hf_")]
    alone = engine_of(configured(MLP, number=0), dtype="float32")
    alone.advance({0: 120})
    assert same_bits(alone.state(0), with_hf.state(0))
    assert [with_hf.engine(number) for number in range(4)] == ["hf", "loop", "loop", "hf"]
    no_engine_chosen = Group(task(MLP), engines)
    no_engine_chosen.add(configured(MLP))
    assert no_engine_chosen.engine(0) == "hf"


def test_a_fork_simply_goes_on() -> None:
    group = Group(task(MLP), "stacked", dtype="float64", eval_examples=30)
    group.add(configured(MLP))
    group.advance({0: 90})
    before = group.state(0)
    forked = group.fork([0], 60, 0.1)[0]
    assert same_bits(group.state(0), before)
    group.advance({0: 150})
    assert forked == {name: value for name, value in group.evaluate([0])[0].items() if not name.startswith("hf_")}


def test_the_objective_is_the_training_sets_loss_and_l2() -> None:
    config, tensors = configured(MLP, replace(CLASSICAL, l2=0.02)), data(MLP)
    engine = engine_of(config)
    module = models.build(MLP, torch.float64)
    for update in (1, 50, 200):
        engine.advance({0: update})
        params = engine.state(0).params
        models.set_parameters(module, params)
        with torch.no_grad():
            loss = float(models.loss(MLP, module(tensors.train.inputs), tensors.train.expected))
        assert engine.notes(0)["hf_objective"] == pytest.approx(loss + 0.01 * float(flat(params).square().sum()))
        measured = SerialTrial(trial(MLP), tensors, state=TrialState(0, params, params)).evaluate(tensors.valid)
        assert float(engine.evaluate([0], tensors.valid)["loss"][0]) == pytest.approx(measured["loss"], rel=1e-12)


def test_where_another_method_led_the_clock_is_as_if_it_had_worked() -> None:
    nag = SerialTrial(trial(MLP), data(MLP))
    nag.advance(50)
    engine = HFEngine(MLP, BATCH, data(MLP))
    engine.add(configured(MLP), nag.state())
    assert engine.notes(0)["hf_work"] == 50 * BATCH
    engine.advance({0: 51})
    assert torch.equal(flat(engine.state(0).params), flat(nag.state().params))
    engine.advance({0: 150})
    assert 50 * BATCH < engine.notes(0)["hf_work"] <= 150 * BATCH


def test_online_tasks_have_fresh_examples_for_chunks_and_a_fixed_part_for_all() -> None:
    seen: list[tuple[Part, Tensor | slice]] = []

    def draw(seed: int, count: int) -> Any:
        return task(MLP, count, seed % 2**32).train

    drawn = Data(replace(task(MLP), draw=draw), "cpu", "float64")

    def watched(hf: HFConfig) -> list[tuple[Part, Tensor | slice]]:
        engine = HFEngine(MLP, BATCH, drawn)
        engine.add(configured(MLP, hf))
        at, seen = engine._trials[0].net.curvature.at, []

        def watch(theta: Tensor, part: Part, rows: Tensor | slice) -> Tensor:
            seen.append((part, rows))
            return at(theta, part, rows)

        engine._trials[0].net.curvature.at = watch  # type: ignore[method-assign]
        engine.advance({0: 300})
        return seen

    seen = watched(MOMENTUM)
    assert len(seen) > 6
    for turn, (part, rows) in enumerate(seen):
        assert part is not drawn.train
        assert rows == (slice(0, 20), slice(20, 40), slice(40, 60))[turn % 3]
        pool = drawn.pool(configured(MLP).seed, turn // 3, 60).part
        assert torch.equal(part.inputs, pool.inputs)
    assert not torch.equal(seen[0][0].inputs, seen[3][0].inputs)
    assert all(part is drawn.train for part, _ in watched(CLASSICAL))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="hf chunks=61: more than the 60 training examples"):
        engine_of(configured(MLP, replace(CLASSICAL, phases=(HFPhase(0.5, chunks=61),))))
    engine = engine_of(configured(MLP))
    with pytest.raises(ValueError, match="method nag is not of this engine's family, hf"):
        engine.add(trial(MLP, 1))
    with pytest.raises(ValueError, match="method hf: has an engine of its own"):
        LoopEngine(MLP, BATCH, data(MLP), "hf")
    with pytest.raises(ValueError, match="method hf: has an engine of its own"):
        SerialTrial(configured(MLP), data(MLP))
    assert isinstance(make_engine("whatever", MLP, BATCH, data(MLP), "hf"), HFEngine)


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(inputs, 11), nn.BatchNorm1d(11), nn.Linear(11, outputs)
        self.norm.running_mean.copy_(torch.randn(11))
        self.frozen = nn.Parameter(torch.rand(11), requires_grad=False)

    def forward(self, inputs):
        return self.two(torch.tanh(self.norm(self.one(inputs))) * self.frozen)

def plain(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 11), nn.Tanh(), nn.Linear(11, outputs))
"""


@pytest.fixture
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_hf.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_own")
def test_a_net_of_ones_own_trains_as_ours_does() -> None:
    own, ours = (
        NetConfig((7, 3), (), "softmax", module="own_hf:plain"),
        NetConfig((7, 11, 3), ("tanh",), "softmax"),
    )
    hf = replace(CLASSICAL, damping=3.0)
    one = engine_of(configured(own, hf))
    params = one.state(0).params
    same = [(params[layer][0].T.contiguous(), params[layer + 1][0]) for layer in (0, 2)]
    other = HFEngine(ours, BATCH, data(ours))
    other.add(configured(ours, hf), TrialState(0, same, same))
    for engine in (one, other):
        while engine.notes(0)["hf_iterations"] < 4:
            engine.advance({0: engine.update(0) + 20})
    for layer, (weights, biases) in enumerate(
        other.state(0).params
    ):  # CG magnifies rounding: 2e-9 on one Intel, less on AMD
        assert torch.allclose(one.state(0).params[2 * layer][0].T, weights, rtol=0, atol=1e-7)
        assert torch.allclose(one.state(0).params[2 * layer + 1][0], biases, rtol=0, atol=1e-7)
    part = data(ours).valid
    mine, its = one.evaluate([0], part)["loss"], other.evaluate([0], part)["loss"]
    assert torch.allclose(mine, its, rtol=1e-6)


@pytest.mark.usefixtures("_own")
def test_trials_of_modules_keep_what_each_holds_besides() -> None:
    net = NetConfig((7, 3), (), "softmax", module="own_hf:Net")
    configs = [
        replace(configured(net, number=number), seed=SeedConfig(1, replicate=number), updates=300)
        for number in range(2)
    ]
    both = engine_of(*configs)
    start = both.state(0)
    both.advance({0: 100, 1: 100})
    stored = unpack(pack({0: both.state(0)}))[0]
    both.advance({0: 300, 1: 300})
    alone = HFEngine(net, BATCH, data(net))
    alone.add(configs[0], stored)
    alone.advance({0: 300})
    assert both.notes(0)["hf_objective"] < 1.1
    for before, one, other in zip(start.params[4:], both.state(0).params[4:], alone.state(0).params[4:], strict=True):
        assert torch.equal(one[0], other[0])
        assert before[0].shape == one[0].shape
    assert torch.equal(both.state(0).params[6][0], start.params[6][0])  # frozen
    assert not torch.equal(both.state(0).params[6][0], both.state(1).params[6][0])
    part = data(net).valid
    assert torch.equal(alone.evaluate([0], part)["loss"], both.evaluate([0, 1], part)["loss"][:1])
