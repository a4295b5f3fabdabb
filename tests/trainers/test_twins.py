"""Twins are trained once, at the price of theory, and come to what each comes to alone (loop engine: to the bit)."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.cases import (
    AUTOENCODER,
    BATCH,
    FIRST_ORDER,
    NETS,
    RESIDUAL,
    data,
    distance,
    flat,
    same_bits,
    task,
    trial,
)
from trainers import group as groups
from trainers import twins
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.data import Data
from trainers.group import Group
from trainers.loop import LoopEngine
from trainers.serial import SerialTrial
from trainers.state import TrialState, initial_state
from trainers.twins import alike_until, arithmetic, digest

LARGE = NetConfig((300, 220, 31, 300), ("sigmoid", "linear"), "logistic")  # over the size where updates go by blocks
UPDATES = 60


# Few values of everything, so that trials often agree, for a while or for ever.
METHODS = st.builds(
    MethodConfig,
    st.sampled_from(FIRST_ORDER) | st.sampled_from(["cm", "nag"]),
    st.sampled_from([0.02, 0.02, 0.04]),
    st.sampled_from([0.0, 0.5, 0.75, 0.9, 0.95]),
    mu_step=st.sampled_from([1, 4, 9]),
    tail_updates=st.sampled_from([0, 0, 7, 30, UPDATES + 5]),
    tail_mu=st.sampled_from([0.0, 0.3, 0.6, 0.8]),
    mu_schedule=st.sampled_from(["ramp", "ramp", "constant", "first", "nesterov"]),
    mu_first=st.sampled_from([0.0, 0.3]),
    mu_first_updates=st.sampled_from([0, 11, 25]),
    lr_schedule=st.sampled_from(["constant", "constant", "step", "cosine"]),
    lr_warmup=st.sampled_from([0, 0, 6]),
    lr_step=st.sampled_from([10, 21]),
    weight_decay=st.sampled_from([0.01, 0.05]),
    damping=st.sampled_from([0.1, 0.2]),
)
TRIALS = st.builds(
    TrialConfig,
    st.just(0),
    st.sampled_from([AUTOENCODER, AUTOENCODER, RESIDUAL]),
    st.just(InitConfig("normalized")),
    METHODS,
    st.sampled_from([UPDATES, UPDATES, UPDATES + 10]),
    st.just(BATCH),
    st.sampled_from([SeedConfig(1), SeedConfig(1), SeedConfig(2)]),
)


# -- which updates are alike -----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(TRIALS, min_size=1, max_size=4), st.integers(0, UPDATES + 15), st.integers(0, 40))
def test_trials_are_alike_until_the_first_update_that_differs(
    configs: list[TrialConfig], start: int, count: int
) -> None:
    end = start + count
    differ = (t for t in range(start, end) if len({arithmetic(config, t) for config in configs}) > 1)
    assert alike_until(configs, start, end) == next(differ, end)


def counted_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    looks: list[int] = []

    def counting(config: TrialConfig, t: int) -> object:
        looks.append(t)
        return arithmetic(config, t)

    monkeypatch.setattr(twins, "arithmetic", counting)
    return looks


@pytest.mark.parametrize(
    ("one", "other", "parts"),
    [
        ({"mu_max": 0.99}, {"mu_max": 0.999}, 12_500),  # the larger goes on: 1 - 0.5/50 = .99 is the last in common
        ({"mu_max": 0.995}, {"mu_max": 0.999}, 25_000),
        ({"tail_updates": 1000, "tail_mu": 0.9}, {"tail_updates": 1000, "tail_mu": 0.5}, 749_000),  # S13 Table 2
        ({}, {"tail_updates": 1000}, 749_000),
        ({"lr_schedule": "cosine"}, {"lr_schedule": "cosine", "tail_updates": 9}, 749_991),
        ({"mu_schedule": "nesterov", "tail_updates": 10}, {"mu_schedule": "nesterov", "tail_updates": 9}, 749_990),
        ({"mu_schedule": "first"}, {"mu_schedule": "first", "mu_max": 0.98}, 1000),  # S13 section 4
        ({"lr_schedule": "step", "lr_step": 5000}, {}, 5000),
        ({"kind": "nag"}, {}, 0),
        ({"lr": 0.2}, {}, 0),
        ({"damping": 0.3}, {"beta1": 0.4, "tail_mu": 0.7}, 750_000),  # what cm does not know
    ],
)
def test_schedules_of_the_paper_part_where_they_differ_and_are_not_gone_through(
    one: dict[str, Any], other: dict[str, Any], parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = counted_looks(monkeypatch)
    configs = [
        replace(
            trial(AUTOENCODER),
            updates=750_000,
            method=MethodConfig(**({"kind": "cm", "lr": 0.1, "mu_max": 0.99} | own)),
        )
        for own in (one, other)
    ]
    assert alike_until(configs, 0, 750_000) == parts
    assert len(looks) < 500


def test_a_digest_tells_states_apart_and_equal_ones_not() -> None:
    config = trial(AUTOENCODER)
    state = initial_state(config)
    assert digest(state) == digest(initial_state(replace(config, number=3, method=MethodConfig("sgd", 1.0))))
    assert digest(state) == digest(TrialState.from_arrays(state.to_arrays()))
    others = [replace(state.clone(), update=1), replace(state.clone(), diverged_at=0)]
    for params in ("params", "velocity"):
        changed = state.clone()
        getattr(changed, params)[1][1][0] = 1e-30
        others.append(changed)
    others.append(initial_state(replace(config, method=MethodConfig("adam", 1.0))))
    assert len({digest(each) for each in (state, *others)}) == 6


# -- groups ----------------------------------------------------------------------------------------------------


class Counting(LoopEngine):
    """The loop engine, with the updates that it makes."""

    made = 0

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:
        Counting.made += sum(max(0, update - self.update(number)) for number, update in until.items())
        return super().advance(until)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setitem(groups._ENGINES, "loop", Counting)  # type: ignore[arg-type]
    Counting.made = 0
    return Counting


class Alone:
    """Each trial in a loop engine of its own."""

    def __init__(self, tensors: Mapping[NetConfig, Data]) -> None:
        self.data = tensors
        self.engines: dict[int, LoopEngine] = {}
        self.configs: dict[int, TrialConfig] = {}

    def engine(self, config: TrialConfig, state: TrialState | None = None) -> LoopEngine:
        engine = LoopEngine(config.net, config.batch, self.data[config.net], config.method.family)
        engine.add(config, state)
        return engine

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:
        self.engines[config.number], self.configs[config.number] = self.engine(config, state), config

    def advance(self, until: Mapping[int, int]) -> None:
        for number, update in until.items():
            self.engines[number].advance({number: update})

    def fork(self, number: int, updates: int, mu: float) -> dict[str, float]:
        config, state = self.configs[number], self.engines[number].state(number)
        caps = {name: min(getattr(config.method, name), mu) for name in ("mu_max", "mu_first", "tail_mu")}
        engine = self.engine(replace(config, method=replace(config.method, **caps)), state)
        engine.advance({number: state.update + updates})
        tensors = self.data[config.net]
        diverged = engine.diverged_at(number) is not None
        return {
            f"{name}_{metric}": math.nan if diverged else float(value)
            for name, part in (("train", tensors.train.head(20)), ("valid", tensors.valid.head(20)))
            for metric, value in engine.evaluate([number], part).items()
        }


def assert_as_alone(group: Group, alone: Alone) -> None:
    for number in group.numbers():
        engine = alone.engines[number]
        assert group.diverged_at(number) == engine.diverged_at(number)
        assert group.update(number) == engine.update(number)
        if engine.diverged_at(number) is None:
            assert same_bits(group.state(number), engine.state(number)), number


# One task for both nets, whose inputs and outputs differ: each net has a group, moved in step.
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_group_of_twins_trains_each_as_alone_whatever_comes_and_goes(draws: st.DataObject) -> None:
    """Methods, schedules, joins, stops, targets, forks and resumed states at random; float32, hard equality."""
    net = draws.draw(st.sampled_from([AUTOENCODER, RESIDUAL]))
    group = Group(task(net), "loop", dtype="float32", eval_examples=20)
    alone = Alone({net: data(net, "float32")})
    steps = st.sampled_from([1, 3, 8, 8, 20])
    wild = draws.draw(st.sampled_from([1.0, 1.0, 1e4, 1e30]))

    def join(number: int) -> None:
        config = replace(draws.draw(TRIALS), number=number, net=net)
        config = replace(config, method=replace(config.method, lr=config.method.lr * wild))
        group.add(config)
        alone.add(config)

    joined = draws.draw(st.integers(2, 5))
    for number in range(joined):
        join(number)
    for _ in range(draws.draw(st.integers(1, 6))):
        numbers = group.numbers()
        some = draws.draw(st.lists(st.sampled_from(numbers), unique=True)) if draws.draw(st.booleans()) else numbers
        stride = draws.draw(st.none() | steps)
        until = {n: group.update(n) + (draws.draw(steps) if stride is None else stride) for n in some}
        seconds = group.advance(until)
        alone.advance(until)
        assert set(seconds) == set(until)
        assert_as_alone(group, alone)
        phases = draws.draw(st.lists(st.tuples(steps, st.sampled_from([0.0, 0.4, 0.9])), min_size=1, max_size=2))
        for found, phase in zip(group.forks(some, phases), phases, strict=True):
            assert list(found) == some
            for number, measured in found.items():
                np.testing.assert_equal(measured, alone.fork(number, *phase))
        assert_as_alone(group, alone)
        what = draws.draw(st.sampled_from(["on", "join", "leave", "resume", "move"]))
        if what == "join":
            join(joined)
            joined += 1
        elif what == "leave" and len(numbers) > 1:
            group.remove(numbers[0])
        elif what == "resume":  # from a checkpoint
            for number in numbers:
                config, state = alone.configs[number], TrialState.from_arrays(group.state(number).to_arrays())
                group.remove(number)
                group.add(config, state)
        elif what == "move" and alone.configs[numbers[0]].method.family == "momentum":  # another trial, from its state
            state = group.state(numbers[0])
            config = replace(draws.draw(TRIALS), number=joined, net=net)
            if config.method.family == "momentum":
                group.add(config, state)
                alone.add(config, state)
                joined += 1
    assert_as_alone(group, alone)


@pytest.mark.parametrize("kind", ["cm", "nag"])
def test_layers_that_are_updated_by_blocks_are_shared_to_the_bit(kind: str) -> None:
    group, alone = Group(task(LARGE), "loop"), Alone({LARGE: data(LARGE, "float32")})
    for number, mu_max in enumerate((0.5, 0.8, 0.9)):
        config = trial(LARGE, number, kind, lr=1e-3, mu_max=mu_max, mu_step=3)
        group.add(config)
        alone.add(config)
    until = dict.fromkeys(range(3), 24)
    group.advance(until)
    alone.advance(until)
    assert_as_alone(group, alone)
    assert group.shared_updates == 2 * 3 + 3  # .5 is left at update 3, .8 at 6


@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize("net", [AUTOENCODER, RESIDUAL], ids=["autoencoder", "residual"])
def test_twins_are_the_serial_twin_in_float64(net: NetConfig, engine: str) -> None:
    """mu_max x kind x tail, and two other methods: to 1e-12 of the serial twin at every report."""
    tails = ({}, {"tail_updates": 12, "tail_mu": 0.3})
    configs = [
        trial(net, number, kind, 0.01, mu_max=mu_max, mu_step=4, **tail)
        for number, (kind, mu_max, tail) in enumerate(product(("cm", "nag"), (0.0, 0.75, 0.9), tails))
    ]
    for kind in ("adam", "adamw", "diagonal"):
        configs += [trial(net, len(configs) + n, kind, 0.002, lr_schedule="step", lr_step=9 + 6 * n) for n in (0, 1)]
    configs = [replace(config, updates=40) for config in configs]
    tensors = data(net)
    group, serial = Group(task(net), engine, dtype="float64"), [SerialTrial(config, tensors) for config in configs]
    for config in configs:
        group.add(config)
    for update in (7, 18, 31, 40):
        group.advance(dict.fromkeys(group.numbers(), update))
        for twin in serial:
            twin.advance(update - twin.update)
        assert max(distance(group.state(n), twin.state()) for n, twin in enumerate(serial)) < 1e-12
    # Of cm and of nag at most 40 updates (two parts after 4 * 2 of three mu_max), four last phases of 12; of sgd, once.
    assert group.shared_updates > 40


# -- what it costs ---------------------------------------------------------------------------------------------


def test_last_phases_cost_the_training_once(counting: type[Counting]) -> None:
    """S13 Table 2 at 400 updates: n last phases of 20."""
    tails = (0.0, 0.5, 0.9, 0.95)
    group = Group(task(AUTOENCODER), "loop")
    for number, mu in enumerate(tails):
        group.add(trial(AUTOENCODER, number, mu_max=0.99, mu_step=2, tail_updates=20, tail_mu=mu))
    for update in range(50, 401, 50):
        group.advance(dict.fromkeys(range(4), update))
    assert counting.made == 400 + 20 * 3
    assert group.shared_updates == 4 * 400 - counting.made
    assert len({float(flat(group.state(number).params).sum()) for number in range(4)}) == 4


def test_mu_max_under_the_ramp_costs_each_segment_once(counting: type[Counting]) -> None:
    """mu is 1 - .5/n in the n-th stretch of 10 updates: .75 is left at update 20, .9 at 50."""
    group = Group(task(AUTOENCODER), "loop")
    for number, mu_max in enumerate((0.75, 0.9, 0.95)):
        group.add(trial(AUTOENCODER, number, mu_max=mu_max, mu_step=10))
    for update in (15, 30, 90, 120):
        group.advance(dict.fromkeys(range(3), update))
    assert counting.made == 120 + (120 - 20) + (120 - 50)


def test_a_rungs_forks_and_last_phases_are_shared_too(counting: type[Counting]) -> None:
    group = Group(task(AUTOENCODER), "loop")
    for number, mu_max in enumerate((0.75, 0.9, 0.95)):
        group.add(trial(AUTOENCODER, number, mu_max=mu_max, mu_step=10))
    group.advance(dict.fromkeys(range(3), 20))
    counting.made = 0
    group.fork(range(3), 8, 0.5)
    assert counting.made == 8
    counting.made = 0
    short, long, other = group.forks([1], [(8, 0.5), (30, 0.5), (8, 0.1)])
    assert counting.made == 30 + 8
    assert short != long != other != short
    assert short == group.fork([1], 8, 0.5)


def test_twins_that_stop_apart_and_come_late_are_shared_as_far_as_they_can_be(counting: type[Counting]) -> None:
    group = Group(task(AUTOENCODER), "loop")
    for number in range(3):
        group.add(trial(AUTOENCODER, number))
    group.advance({0: 10, 1: 25, 2: 25})
    assert counting.made == 25
    group.advance({0: 25})  # 25 again, but by its own way: nobody knows that it is equal now
    group.advance(dict.fromkeys(range(3), 40))
    assert counting.made == 25 + 15 + 2 * 15
    group.add(trial(AUTOENCODER, 7), group.state(1))
    state = group.state(1)
    group.remove(1)
    group.add(trial(AUTOENCODER, 1), state)
    group.advance({1: 60, 7: 60})  # by their states' digest
    assert counting.made == 25 + 15 + 2 * 15 + 20


def test_other_seeds_inits_and_user_nets_share_nothing(counting: type[Counting]) -> None:
    group = Group(task(AUTOENCODER), "loop")
    first = trial(AUTOENCODER)
    others = (first, replace(first, seed=SeedConfig(2)), replace(first, init=InitConfig("he")))
    for number, config in enumerate((*others, replace(first, batch=4))):
        group.add(replace(config, number=number))
    group.advance(dict.fromkeys(range(4), 30))
    assert counting.made == 4 * 30
    assert group.shared_updates == 0
    own = replace(first, net=NetConfig((12, 12), (), "logistic", module="mine:net"))
    assert not twins.can_share(own)
    assert not twins.can_share(trial(AUTOENCODER, kind="hf"))


def test_seconds_of_a_twin_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clocked(LoopEngine):
        def advance(self, until: Mapping[int, int]) -> dict[int, float]:
            spent = {number: float(update - self.update(number)) for number, update in until.items()}
            super().advance(until)
            return spent

    monkeypatch.setitem(groups._ENGINES, "loop", Clocked)  # type: ignore[arg-type]
    group = Group(task(AUTOENCODER), "loop")
    for number, mu_max in enumerate((0.75, 0.9, 0.95)):
        group.add(trial(AUTOENCODER, number, mu_max=mu_max, mu_step=10))
    seconds = group.advance(dict.fromkeys(range(3), 60))
    third, half = 20 / 3, 30 / 2
    assert seconds == pytest.approx({0: third + 40, 1: third + half + 10, 2: third + half + 10})
    assert group.seconds_per_update() == 1


# -- divergence ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_what_diverges_in_one_diverges_in_all_twins_at_one_update(engine: str) -> None:
    net = NETS["squared-sigmoid"]
    group, alone = Group(task(net), engine, dtype="float32"), Alone({net: data(net, "float32")})
    for number, tail_mu in enumerate((0.1, 0.2, 0.3)):
        config = trial(net, number, lr=3.0, tail_updates=200, tail_mu=tail_mu)
        group.add(config)
        alone.add(config)
    group.add(trial(net, 3))
    until = dict.fromkeys(range(3), 390)
    group.advance(until | {3: 390})
    alone.advance(until)
    assert {group.diverged_at(number) for number in range(3)} == {alone.engines[0].diverged_at(0)}
    assert group.diverged_at(0) is not None
    assert group.diverged_at(3) is None
    assert all(math.isnan(group.evaluate([number])[number]["valid_loss"]) for number in range(3))


def saturated(config: TrialConfig) -> TrialState:
    """Weights so large that all outputs are 1: no number is finite, and yet every delta is."""
    state = initial_state(config)
    for params in (state.params, state.velocity):
        for weights, biases in params:
            weights.fill_(math.inf)
            biases.fill_(math.inf)
    return state


def test_where_twins_part_nobody_looks_for_infinite_weights() -> None:
    net = NETS["no-hidden"]
    group, alone = Group(task(net), "loop", dtype="float32"), Alone({net: data(net, "float32")})
    configs = [trial(net, number, "cm", tail_updates=380, tail_mu=0.1 * number) for number in range(3)]
    configs.append(trial(net, 3, "cm", lr=0.01))  # stops where they part, being in step
    for config in configs:
        for each in (group, alone):
            each.add(config, saturated(config))
    until = {0: 30, 1: 40, 2: 40, 3: 50}
    group.advance(until)
    alone.advance(until)
    assert_as_alone(group, alone)
    assert group.diverged_at(1) == 40  # alone it is found at the next stop, too


def test_nag_without_momentum_is_cm_but_for_infinite_velocities(counting: type[Counting]) -> None:
    net = NETS["no-hidden"]
    group, alone = Group(task(net), "loop", dtype="float32"), Alone({net: data(net, "float32")})
    for number, kind in enumerate(("nag", "cm", "sgd", "nag")):
        config = trial(net, number, kind, mu_max=0.0)
        group.add(config)
        alone.add(config)
        group.add(replace(config, number=10 + number), saturated(config))
        alone.add(replace(config, number=10 + number), saturated(config))
    until = dict.fromkeys(group.numbers(), 30)
    group.advance(until)
    alone.advance(until)
    assert_as_alone(group, alone)
    assert [group.diverged_at(number) for number in (10, 11, 12, 13)] == [0, 30, 30, 0]
    assert counting.made == 30 + 2 * 30
