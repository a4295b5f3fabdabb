"""Updates that need nothing of the host: as serial has them, whoever comes and goes; and what recordings rely on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.cases import AUTOENCODER, BATCH, NETS, data, distance, same_bits, task
from trainers import stack
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.data import Data, batch_span
from trainers.passes import Call
from trainers.serial import SerialTrial
from trainers.stack import StackedEngine, _size
from trainers.stack_layout import Layout, arena_size
from trainers.stack_program import Program
from trainers.stack_replay import Record, plain
from trainers.stack_source import Source
from trainers.tasks import Split

RECURRENT = NetConfig((2, 5, 1), ("tanh",), "squared", steps=4)


class Recorder:
    """Counts what is recorded and replayed; a replay is the call itself."""

    def __init__(self) -> None:
        self.made, self.replayed = 0, 0

    def __call__(self, call: Call) -> Call:
        self.made += 1

        def replay() -> None:
            self.replayed += 1
            call()

        return replay


def drawn(net: NetConfig, examples: int) -> Data:
    """The task of a net whose examples are drawn anew for each pool."""

    def draw(seed: int, count: int) -> Split:
        rng = np.random.default_rng(seed)
        return Split(rng.random((count, net.widths[0]), dtype=np.float32), rng.integers(0, net.widths[-1], count))

    return Data(replace(task(net, examples), draw=draw), "cpu", "float64")


def config(net: NetConfig, number: int, kind: str = "nag", replicate: int = 0, lr: float = 0.01) -> TrialConfig:
    method = MethodConfig(kind, lr * (1 + number / 10), 0.8 + number / 100, mu_step=3, tail_updates=40, tail_mu=0.5)
    seed = SeedConfig(5, replicate=replicate)
    return TrialConfig(number, net, InitConfig("normalized"), method, 60, BATCH, seed)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from(("nag", "cm", "sgd")), st.integers(0, 2)),
        st.tuples(st.just("stop"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("fork"), st.integers(0, 20), st.integers(0, 2)),
        st.tuples(st.just("train"), st.integers(1, 9), st.integers(1, 3)),
    ),
    min_size=4,
    max_size=14,
)


@pytest.mark.parametrize("online", [False, True])
@settings(max_examples=25, deadline=None)
@given(events=EVENTS)
def test_whoever_joins_stops_and_forks_each_trial_is_as_if_alone(
    online: bool, events: list[tuple[str, int | str, int]]
) -> None:
    """In float64, update by update of the serial twin's: refill and forks at random times, 1e-12.

    Nets that contract rounding: small rates. Trials stand at different updates, of different seeds; a fork is a copy of
    a state at another momentum.
    """
    net = NETS["mlp-tanh"]
    tensors = drawn(net, 30) if online else data(net, examples=27)
    recorder = Recorder()
    engine = StackedEngine(net, BATCH, tensors, record=recorder)
    twins: dict[int, SerialTrial] = {}
    for kind, value, other in [("join", "nag", 0), ("join", "cm", 1), *events, ("train", 9, 1)]:
        number = len(twins)
        held = engine.numbers()
        if kind == "join":
            made = config(net, number, str(value), other)
            twins[number] = SerialTrial(made, tensors)
            engine.add(made)
        elif kind == "stop" and held:
            engine.remove(held[int(value) % len(held)])
        elif kind == "fork" and held:
            parent = twins[held[int(value) % len(held)]]
            method = replace(parent.config.method, mu_max=min(parent.config.method.mu_max, 0.3 * other))
            made = replace(parent.config, number=number, method=method)
            twins[number] = SerialTrial(made, tensors, state=parent.state())
            engine.add(made, engine.state(parent.config.number))
        elif kind == "train":
            # Some go ahead of others: every `other`-th trial trains further.
            until = {n: engine.update(n) + int(value) * (1 + i % other) for i, n in enumerate(held)}
            engine.advance(until)
            for n, update in until.items():
                twins[n].advance(update - twins[n].update)
    for number in engine.numbers():
        assert engine.update(number) == twins[number].update
        assert distance(engine.state(number), twins[number].state()) < 1e-12
    assert recorder.replayed or not recorder.made


def test_a_recording_is_made_once_and_serves_whoever_comes_and_goes() -> None:
    net, recorder = AUTOENCODER, Recorder()
    engine = StackedEngine(net, BATCH, data(net, "float32"), record=recorder)
    for number in range(4):
        engine.add(config(net, number))
    engine.advance(dict.fromkeys(range(4), 300))
    assert recorder.made == 2  # a block of updates, and one update
    assert recorder.replayed < 300
    settled = 0
    for number in range(4, 20):
        engine.remove(number - 4)
        engine.add(config(net, number))
        engine.advance({n: engine.update(n) + 100 for n in engine.numbers()})
        settled = settled if number > 8 else recorder.made
    # Slots at different updates see different batches: once more, and again when there was no room for their orders.
    assert recorder.made == settled <= 6
    engine.remove(19)
    engine.advance({n: engine.update(n) + 40 for n in engine.numbers()})  # three trials in four places
    assert recorder.made == settled


def test_neighbours_of_an_empty_place_do_as_they_would_without() -> None:
    net, tensors = NETS["mlp-relu-softsign"], data(NETS["mlp-relu-softsign"])
    engine, other = (StackedEngine(net, BATCH, tensors, record=plain) for _ in range(2))
    for number in range(5):  # in eight places
        engine.add(config(net, number))
    engine.advance(dict.fromkeys(range(5), 20))
    for number in range(4):
        other.add(config(net, number))
    other.advance(dict.fromkeys(range(4), 20))
    for number in range(4):
        assert distance(engine.state(number), other.state(number)) < 1e-12


@pytest.mark.parametrize("trials", [1, 3, 5, 9, 48, 49, 100, 257, 500])
def test_places_are_few_sizes_and_at_most_twice_the_trials(trials: int) -> None:
    assert trials <= _size(trials) <= 2 * trials
    assert len({_size(n) for n in range(1, 513)}) <= 16


def test_what_cannot_be_recorded_is_trained_all_the_same_and_said() -> None:
    net, tensors = AUTOENCODER, data(AUTOENCODER, "float32")

    def refuses(call: Call) -> Call:
        raise RuntimeError("operation not permitted when stream is capturing")

    engines = [StackedEngine(net, BATCH, tensors, record=record) for record in (plain, refuses)]
    for engine in engines:
        engine.add(config(net, 0))
    engines[0].advance({0: 50})
    with pytest.warns(UserWarning, match=r"one by one.*operation not permitted when stream is capturing"):
        engines[1].advance({0: 50})
    assert same_bits(engines[0].state(0), engines[1].state(0))


def test_a_recording_that_makes_too_few_updates_is_found_out() -> None:
    net, tensors = AUTOENCODER, data(AUTOENCODER, "float32")
    engine = StackedEngine(net, BATCH, tensors, record=lambda call: lambda: None)
    engine.add(config(net, 0))
    with pytest.raises(RuntimeError, match="made 3 updates where 50 were asked for"):
        engine.advance({0: 50})


def test_a_recurrent_net_is_recorded_too() -> None:
    rng = np.random.default_rng(0)
    info = task(NETS["squared-sigmoid"]).info
    split = Split(rng.random((40, 4, 2), dtype=np.float32), rng.random((40, 1), dtype=np.float32), np.arange(40) % 4)
    tensors = Data(replace(task(NETS["squared-sigmoid"]), info=info, train=split, valid=split), "cpu", "float64")
    engine = StackedEngine(RECURRENT, BATCH, tensors, record=plain)
    twins = [SerialTrial(config(RECURRENT, number, replicate=number % 2), tensors) for number in range(3)]
    for twin in twins:
        engine.add(twin.config)
        twin.advance(12)
    engine.advance(dict.fromkeys(range(3), 12))
    for twin in twins:
        assert distance(engine.state(twin.config.number), twin.state()) < 1e-12


@settings(max_examples=40, deadline=None)
@given(
    updates=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400)), min_size=1, max_size=6),
    count=st.integers(1, 60),
    examples=st.integers(BATCH, 45),
)
def test_the_device_sees_the_batches_that_the_host_sees(
    updates: list[tuple[int, int]], count: int, examples: int
) -> None:
    """`Source` against `batch_span`, also after other slots have asked for other epochs."""
    tensors = data(AUTOENCODER, examples=examples)
    source = Source(tensors, BATCH)
    starts = [(SeedConfig(1, replicate=replicate), update) for replicate, update in updates]
    for some in (starts, starts[:1], starts[::-1], [(seed, update + 7) for seed, update in starts]):
        where = source.take(tensors.pool(*some[0], BATCH), some, count)
        for slot in range(where.shape[1]):
            rows = source.orders[where[:, slot, None] + torch.arange(BATCH)]
            seed, update = some[slot]
            assert np.array_equal(rows.numpy(), batch_span(examples, BATCH, seed, update, count))
        assert where.shape[1] in (1, len(some))
        assert where.shape[1] > 1 or len(set(some)) == 1


def test_pools_that_are_drawn_are_brought_to_where_the_last_one_was() -> None:
    tensors = drawn(NETS["mlp-tanh"], 20)
    source, seed = Source(tensors, BATCH), SeedConfig(1)
    source.take(tensors.pool(seed, 0, BATCH), [(seed, 0)], 2)
    table, generation = source.table, source.generation
    for update in (2, 4, 7):
        pool = tensors.pool(seed, update, BATCH)
        where = source.take(pool, [(seed, update)], 1)
        assert source.table is table
        assert source.generation == generation
        assert torch.equal(table, pool.part.table)
        assert torch.equal(source.orders[where[0] + torch.arange(BATCH)], pool.rows([(seed, update)], 1)[0])


@pytest.mark.parametrize("where", ["arenas", "program"])
@pytest.mark.parametrize("record", [None, plain])
def test_out_of_memory_trials_take_turns(where: str, record: Record | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For more than four at once there is no memory: half of seven, and each as if alone."""
    net = NETS["mlp-tanh"]
    tensors = data(net)
    engine = StackedEngine(net, BATCH, tensors, record=record)
    most = arena_size(Layout(net, BATCH), 4)

    def empty(*shape: int) -> torch.Tensor:
        if len(shape) == 1 and shape[0] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.empty(shape, dtype=torch.float64)

    def program(*args: Any) -> Program:
        if args[-3] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Program(*args)

    monkeypatch.setattr(*((engine, "_empty", empty) if where == "arenas" else (stack, "Program", program)))
    twins = [SerialTrial(config(net, number), tensors) for number in range(7)]
    for twin in twins:
        engine.add(twin.config)
        twin.advance(30)
    with pytest.warns(UserWarning, match="no memory to train 7 trials at once; 3 by turns"):
        engine.advance(dict.fromkeys(range(7), 10))
    engine.advance(dict.fromkeys(range(7), 30))
    for twin in twins:
        assert distance(engine.state(twin.config.number), twin.state()) < 1e-12


@pytest.mark.parametrize("record", [None, plain])
def test_what_was_made_before_memory_ran_out_counts(record: Record | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 300 updates at mu = 0 nag looks ahead, which takes a program more; by then a neighbour has diverged."""
    net = NETS["squared-sigmoid"]
    tensors = data(net)
    first = {"mu_schedule": "first", "mu_first": 0.0, "mu_first_updates": 300}
    configs = [
        replace(made, updates=600, method=replace(made.method, tail_updates=0, **first))
        for made in (config(net, 0), config(net, 1, lr=1e9))
    ]
    plenty, little = (StackedEngine(net, BATCH, tensors, record=record) for _ in range(2))

    def program(*args: Any) -> Program:
        if args[-1] and args[-3] > 1 and args[3] is little._layout:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Program(*args)

    monkeypatch.setattr(stack, "Program", program)
    for engine in (plenty, little):
        for each in configs:
            engine.add(each)
    plenty.advance({0: 600, 1: 600})
    with pytest.warns(UserWarning, match="no memory to train 2 trials at once; 1 by turns"):
        little.advance({0: 600, 1: 600})
    assert plenty.diverged_at(1) is not None
    assert plenty.diverged_at(1) < stack.SPAN
    assert [little.diverged_at(n) for n in (0, 1)] == [plenty.diverged_at(n) for n in (0, 1)]
    assert distance(little.state(0), plenty.state(0)) < 1e-12


def test_no_memory_for_one_trial_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(*_: Any) -> Program:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stack, "Program", program)
    engine = StackedEngine(AUTOENCODER, BATCH, data(AUTOENCODER))
    engine.add(config(AUTOENCODER, 0))
    with pytest.raises(torch.OutOfMemoryError, match="a single trial"):
        engine.advance({0: 5})
    assert engine.update(0) == 0
