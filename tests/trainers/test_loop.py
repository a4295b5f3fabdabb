"""A trial's bits depend on nothing but itself (float32, hard equality)."""

from dataclasses import replace

import pytest
import torch

from tests.trainers.cases import BATCH, FIRST_ORDER, NETS, RESIDUAL, data, distance, same_bits, task, trial
from trainers.config import MethodConfig, NetConfig
from trainers.data import Data
from trainers.flat import row_blocks
from trainers.loop import LoopEngine
from trainers.serial import SerialTrial
from trainers.state import TrialState, initial_state
from trainers.tasks import Split

LARGE = NetConfig((300, 220, 31, 300), ("sigmoid", "linear"), "logistic")  # over the size where updates go by blocks
SHAPES = pytest.mark.parametrize(
    "net",
    [NETS["autoencoder"], NETS["mlp-tanh"], LARGE, RESIDUAL],
    ids=["autoencoder", "mlp", "large", "residual"],
)
UPDATES = 24
OTHERS = {"momentum": ("cm", "sgd", "nag"), "adam": ("adam", "adamw", "adam"), "diagonal": ("diagonal",) * 3}


def engine_for(net: NetConfig, kind: str) -> LoopEngine:
    return LoopEngine(net, BATCH, data(net, "float32"), MethodConfig(kind, 1).family)


def alone(net: NetConfig, number: int, kind: str) -> TrialState:
    engine = engine_for(net, kind)
    engine.add(trial(net, number, kind))
    engine.advance({number: UPDATES})
    return engine.state(number)


@SHAPES
@pytest.mark.parametrize("kind", FIRST_ORDER)
def test_bits_do_not_depend_on_slot_neighbours_nan_compaction_or_refill(net: NetConfig, kind: str) -> None:
    expected = alone(net, 3, kind)
    one, other, third = OTHERS[MethodConfig(kind, 1).family]
    poison = initial_state(trial(net, 1, one))
    for pair in (*poison.params, *(poison.second or [])):
        pair[0].fill_(float("nan"))
    engine = engine_for(net, kind)
    engine.add(trial(net, 0, one, lr=0.3))
    engine.add(trial(net, 1, one), poison)
    engine.add(trial(net, 2, other, lr=1e30))
    engine.add(trial(net, 3, kind))
    engine.advance({0: 5, 1: 5, 2: 5, 3: 5})
    engine.remove(0)  # compaction
    engine.advance({1: 9, 3: 9})
    assert engine.diverged_at(1) == 0
    engine.remove(1)
    engine.add(trial(net, 9, third, lr=0.7))  # refill
    engine.advance({9: 4, 3: 16, 2: 6})
    again = engine_for(net, kind)  # resume elsewhere, from arrays
    again.add(trial(net, 8, one))
    again.add(trial(net, 3, kind), TrialState.from_arrays(engine.state(3).to_arrays()))
    engine.advance({3: UPDATES})
    again.advance({8: 2, 3: UPDATES})
    assert same_bits(engine.state(3), expected)
    assert same_bits(again.state(3), expected)


@SHAPES
def test_a_refilled_slot_trains_like_a_first_one(net: NetConfig) -> None:
    engine = LoopEngine(net, BATCH, data(net, "float32"))
    engine.add(trial(net, 0, "nag", lr=1e30))
    engine.advance({0: 10})
    engine.remove(0)
    engine.add(trial(net, 5, "nag"))
    engine.advance({5: UPDATES})
    assert same_bits(engine.state(5), alone(net, 5, "nag"))


def test_a_diverged_trial_is_trained_no_further() -> None:
    net = NETS["autoencoder"]
    poison = initial_state(trial(net))
    poison.params[0][0].fill_(float("nan"))
    engine = LoopEngine(net, BATCH, data(net, "float32"))
    engine.add(trial(net), poison)
    engine.advance({0: 3})
    before = engine.state(0)
    engine.advance({0: 50})
    assert engine.diverged_at(0) == 0
    assert engine.update(0) == 50
    assert torch.equal(before.params[0][1].nan_to_num(), engine.state(0).params[0][1].nan_to_num())


def test_examples_come_from_one_pool_after_another() -> None:
    net = NETS["mlp-tanh"]

    def draw(seed: int, count: int) -> Split:
        return task(net, count, seed % 1000).train

    online = Data(replace(task(net, 20), draw=draw), "cpu", "float64")  # two updates in a pool
    engine, slowly = LoopEngine(net, BATCH, online), LoopEngine(net, BATCH, online)
    engine.add(trial(net))
    slowly.add(trial(net))
    engine.advance({0: 15})
    for update in range(1, 16):
        slowly.advance({0: update})
    twin = SerialTrial(trial(net), online)
    twin.advance(15)
    assert distance(engine.state(0), twin.state()) < 1e-12
    assert same_bits(engine.state(0), slowly.state(0))


@pytest.mark.parametrize("shape", [(1, 1), (784, 1000), (1000, 784), (30, 250), (7, 100_000)])
def test_row_blocks_cover_each_row_once(shape: tuple[int, int]) -> None:
    blocks = row_blocks(*shape)
    assert [row for start, end in blocks for row in range(start, end)] == list(range(shape[0]))
