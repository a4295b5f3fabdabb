"""What is particular to stacked trials: isolation, slots that move, batches shared or not."""

import pytest

from tests.trainers.cases import AUTOENCODER, BATCH, NETS, data, distance, same_bits, trial, trials
from trainers.config import NetConfig
from trainers.serial import SerialTrial
from trainers.stack import StackedEngine
from trainers.state import TrialState, initial_state

SHAPES = pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())


def trained(net: NetConfig, poisoned: float | None, updates: int = 40) -> list[TrialState]:
    """Eleven trials beside a twelfth that is healthy, or full of some value."""
    engine = StackedEngine(net, BATCH, data(net, "float32"))
    for config in trials(net):
        state = initial_state(config)
        if config.number == 4 and poisoned is not None:
            for tensor in (t for pair in (*state.params, *state.velocity) for t in pair):
                tensor.fill_(poisoned)
        engine.add(config, state)
    engine.advance(dict.fromkeys(engine.numbers(), updates))
    if poisoned is not None:
        assert engine.diverged_at(4) is not None
    return [engine.state(number) for number in engine.numbers() if number != 4]


@SHAPES
def test_a_nan_or_infinite_slot_leaves_its_neighbours_bits_unchanged(net: NetConfig) -> None:
    healthy = trained(net, None)
    for poison in (float("nan"), float("inf")):
        for state, expected in zip(trained(net, poison), healthy, strict=True):
            assert state.is_finite()
            assert same_bits(state, expected)


@SHAPES
def test_stacked_is_alone_but_for_rounding_in_float32(net: NetConfig) -> None:
    tensors = data(net, "float32")
    engine = StackedEngine(net, BATCH, tensors)
    for config in trials(net):
        engine.add(config)
    engine.advance(dict.fromkeys(engine.numbers(), 8))
    for config in trials(net):
        one = StackedEngine(net, BATCH, tensors)
        one.add(config)
        one.advance({config.number: 8})
        assert distance(engine.state(config.number), one.state(config.number)) < 4e-6


def test_slots_come_go_and_move_without_disturbing_anyone() -> None:
    net = AUTOENCODER
    tensors = data(net)
    configs = {config.number: config for config in trials(net, lr=0.01)}
    twins = {number: SerialTrial(config, tensors) for number, config in configs.items()}
    engine = StackedEngine(net, BATCH, tensors)

    def advance(until: dict[int, int]) -> None:
        engine.advance(until)
        for number, update in until.items():
            twins[number].advance(update - twins[number].update)

    for number in (0, 1, 2):
        engine.add(configs[number])
    advance({0: 3, 1: 8, 2: 5})
    engine.remove(0)
    for number in (3, 4, 5, 6, 7):
        engine.add(configs[number])  # grows past the first capacity
    advance({7: 4, 2: 9, 5: 1})
    engine.remove(2)
    engine.remove(7)
    engine.add(configs[8])
    advance({1: 30, 3: 30, 4: 30, 5: 30, 6: 30, 8: 30})
    assert sorted(engine.numbers()) == [1, 3, 4, 5, 6, 8]
    for number in engine.numbers():
        assert engine.update(number) == 30
        assert distance(engine.state(number), twins[number].state()) < 1e-12


def test_trials_of_one_seed_share_batches_and_others_do_not() -> None:
    net = NETS["mlp-tanh"]
    engine = StackedEngine(net, BATCH, data(net))
    for number in range(3):
        engine.add(trial(net, number, lr=0.01 * (number + 1)))
    engine.advance({0: 2, 1: 2, 2: 2})
    assert {key[:2] for key in engine._programs} == {(3, True)}
    engine.advance({1: 4})
    engine.advance({0: 6, 1: 8, 2: 6})
    assert (3, False) in {key[:2] for key in engine._programs}
