"""What is particular to stacked trials: isolation, slots that move, batches shared or not, schedules side by side."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainers.cases import (
    AUTOENCODER,
    BATCH,
    FIRST_ORDER,
    NETS,
    data,
    distance,
    distances,
    same_bits,
    task,
    trial,
    trials,
)
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.data import Data
from trainers.serial import SerialTrial
from trainers.stack import StackedEngine
from trainers.stack_layout import Layout
from trainers.stack_replay import plain
from trainers.state import TrialState, initial_state
from trainers.tasks import Split

FAMILIES = {"momentum": ("cm", "nag", "sgd"), "adam": ("adam", "adamw"), "diagonal": ("diagonal",)}
SCHEDULES: tuple[dict[str, Any], ...] = (
    {"lr_schedule": "cosine"}, {"lr_warmup": 30}, {"lr_schedule": "step", "lr_step": 3}, {},
    {"mu_schedule": "nesterov"}, {"mu_schedule": "first", "mu_first_updates": 20}, {"mu_step": 3},
    {"mu_schedule": "constant", "tail_updates": 295},
)  # fmt: skip
# Layers features first, rows first, with rows that pad and without, next to one another; (net, batch).
ACTIVATIONS = ("tanh", "softsign", "relu", "sigmoid", "linear")
WIDTHS = {
    "plain": (NetConfig((7, 14, 16, 22, 22, 8, 5), ACTIVATIONS, "softmax"), 32),
    "short-batch": (NetConfig((7, 14, 16, 22, 22, 8, 5), ACTIVATIONS, "logistic"), 8),
    "residual-narrow": (NetConfig((7, *[14] * 5, 3), ACTIVATIONS, "softmax", (0.9, 0.5, -0.3, 0.0)), 8),
    "residual-wide": (NetConfig((7, *[16] * 4, 16), ACTIVATIONS[:4], "squared", (1.0, 0.5, 0.25)), 8),
}
SHAPES = pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())


def of_family(net: NetConfig, batch: int, family: str, seeds: int = 1) -> list[TrialConfig]:
    """Every method of a family x every schedule, all with rates of their own."""
    configs = []
    for number, (kind, schedule) in enumerate(product(FAMILIES[family], SCHEDULES)):
        method = MethodConfig(kind, 0.02 + 0.002 * number, 0.9 + 0.004 * number, beta1=0.8, damping=0.3)
        if family == "adam":
            method = replace(method, lr=0.002 + 0.0002 * number, beta2=0.9 + 0.003 * number)
        seed = SeedConfig(3, replicate=number % seeds)
        configs.append(
            TrialConfig(number, net, InitConfig("normalized"), replace(method, **schedule), 300, batch, seed)
        )
    return configs


def both(net: NetConfig, batch: int, tensors: Data, family: str = "momentum") -> list[StackedEngine]:
    """An engine whose updates the host makes, and one whose updates are recorded, though a CPU records nothing."""
    return [StackedEngine(net, batch, tensors, family, record=record) for record in (None, plain)]


def filled(config: TrialConfig, value: float, dtype: torch.dtype = torch.float32) -> TrialState:
    """A state whose every number is the same."""
    state = initial_state(config, dtype)
    for tensor in (t for params in (state.params, state.velocity, state.second or []) for pair in params for t in pair):
        tensor.fill_(value)
    return state


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", WIDTHS)
def test_each_update_of_a_family_from_the_twins_state_is_the_twins(shape: str, family: str) -> None:
    """Methods and schedules mixed in one stack, seeds shared or not, float64: 1e-12."""
    net, batch = WIDTHS[shape]
    tensors = Data(task(net, 100), "cpu", "float64")
    configs = of_family(net, batch, family, seeds=1 if shape == "plain" else 2)
    twins = [SerialTrial(config, tensors) for config in configs]
    for update in range(8):
        engines = both(net, batch, tensors, family)
        for config, twin in zip(configs, twins, strict=True):
            for engine in engines:
                engine.add(config, twin.state())
            twin.advance(1)
        for engine in engines:
            engine.advance(dict.fromkeys(engine.numbers(), update + 1))
            reached = [engine.state(number) for number in engine.numbers()]
            assert max(distances(reached, [twin.state() for twin in twins])) < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_schedules_do_not_depend_on_how_calls_are_cut(family: str) -> None:
    """Coefficients are worked out for up to 256 updates at once; NAG looks ahead from the last of them to the next."""
    net, batch = WIDTHS["residual-narrow"]
    tensors = Data(task(net), "cpu", "float32")
    engines = [*both(net, batch, tensors, family), *both(net, batch, tensors, family)]
    for engine, stride in zip(engines, (290, 290, 29, 29), strict=True):
        for config in of_family(net, batch, family):
            engine.add(config)
        for until in range(stride, 290 + stride, stride):
            engine.advance(dict.fromkeys(engine.numbers(), until))
    for number in engines[0].numbers():
        assert all(same_bits(engines[0].state(number), engine.state(number)) for engine in engines[1:])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", ["plain", "residual-narrow"])
def test_a_nan_slot_leaves_its_neighbours_bits_in_every_family(shape: str, family: str) -> None:
    """All trials share their batches here: the first layer is one product for all of them."""
    net, batch = WIDTHS[shape]
    tensors = Data(task(net, 100), "cpu", "float32")
    found: list[list[TrialState]] = []
    for poison in (None, float("nan"), float("inf")):
        engine = StackedEngine(net, batch, tensors, family)
        for config in of_family(net, batch, family):
            engine.add(config, filled(config, poison) if poison is not None and config.number == 3 else None)
        engine.advance(dict.fromkeys(engine.numbers(), 20))
        assert (engine.diverged_at(3) is None) == (poison is None)
        found.append([engine.state(number) for number in engine.numbers() if number != 3])
    for state, *poisoned in zip(*found, strict=True):
        assert state.is_finite()
        assert all(same_bits(other, state) for other in poisoned)


@pytest.mark.parametrize("kind", FIRST_ORDER)
def test_a_state_survives_the_way_in_out_and_through_arrays(kind: str) -> None:
    net, batch = WIDTHS["plain"]
    config = TrialConfig(0, net, InitConfig("he"), MethodConfig(kind, 0.01, 0.9), 300, batch, SeedConfig(3))
    tensors = Data(task(net, 100), "cpu", "float32")
    engine = StackedEngine(net, batch, tensors, config.method.family)
    engine.add(config)
    engine.advance({0: 13})
    state = engine.state(0)
    assert (state.second is None) == (config.method.family == "momentum")
    again = StackedEngine(net, batch, tensors, config.method.family)
    again.add(config, TrialState.from_arrays(state.to_arrays()))
    assert same_bits(again.state(0), state)
    for each in (engine, again):
        each.advance({0: 40})
    assert same_bits(engine.state(0), again.state(0))


def test_trials_train_together_only_on_one_pool() -> None:
    """An online task: three data streams, and a trial that has gone ahead into the next pool."""
    net = NETS["mlp-tanh"]

    def draw(seed: int, count: int) -> Split:
        rng = np.random.default_rng(seed)
        return Split(rng.random((count, 7), dtype=np.float32), rng.integers(0, 3, count))

    tensors = Data(replace(task(net), draw=draw), "cpu", "float64")
    configs = [replace(trial(net, number, lr=0.01), seed=SeedConfig(1, replicate=number // 2)) for number in range(6)]
    engine = StackedEngine(net, BATCH, tensors)
    for config in configs:
        engine.add(config)
    engine.advance({0: 9})  # 60 examples in a pool: 7 updates
    engine.advance(dict.fromkeys(range(6), 25))
    for config in configs:
        twin = SerialTrial(config, tensors)
        twin.advance(25)
        assert distance(engine.state(config.number), twin.state()) < 1e-12


def test_narrow_layers_lie_features_first_and_few_rows_are_padded() -> None:
    places = Layout(WIDTHS["plain"][0], 32).places
    assert [place.first for place in places] == [True, False, True, True, False, True]
    assert [place.rows for place in places] == [8, 15, 17, 24, 23, 9]


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
