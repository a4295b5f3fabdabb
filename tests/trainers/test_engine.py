"""What both engines owe: the contract of trainers.engine.Engine, held against the serial twin."""

import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
import torch

from tests.trainers.cases import (
    AUTOENCODER,
    BATCH,
    NETS,
    RESIDUAL,
    data,
    distance,
    distances,
    flat,
    same_bits,
    trial,
    trials,
)
from trainers.config import METHODS, InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.engine import one_thread
from trainers.group import make_engine
from trainers.serial import SerialTrial
from trainers.state import TrialState, initial_state

ENGINES = ["loop", "stacked"]
BOTH = pytest.mark.parametrize("name", ENGINES)


# Every kind of model and every activation; `linear` is the autoencoder's code layer.
KINDS = ["autoencoder", "mlp-tanh", "mlp-relu-softsign", "squared-sigmoid"]


@pytest.mark.parametrize("net", [NETS[kind] for kind in KINDS], ids=KINDS)
def test_each_of_100_updates_from_the_twins_state_is_the_twins(net: NetConfig) -> None:
    """Every method with momentum x init, all hyperparameters different, mu stepping and a tail, float64: 1e-12."""
    tensors = data(net)
    configs = trials(net, updates=100)
    twins = {config.number: SerialTrial(config, tensors) for config in configs}
    engines = [make_engine(name, net, BATCH, tensors) for name in ENGINES]
    worst = dict.fromkeys(ENGINES, 0.0)
    states = {number: twin.state() for number, twin in twins.items()}
    for update in range(100):
        for config in configs:
            for engine in engines:
                engine.add(config, states[config.number])
            twins[config.number].advance(1)
            states[config.number] = twins[config.number].state()
        for engine in engines:
            engine.advance(dict.fromkeys(twins, update + 1))
            reached = [engine.state(number) for number in states]
            worst[engine.name] = max(worst[engine.name], *distances(reached, list(states.values())))
            for number in states:
                engine.remove(number)
    assert all(twin.diverged_at is None for twin in twins.values())
    assert max(worst.values()) < 1e-12, worst


@BOTH
@pytest.mark.parametrize("net", [AUTOENCODER, NETS["squared-sigmoid"]], ids=["autoencoder", "squared-sigmoid"])
def test_whole_trajectories_are_the_twins_where_training_contracts(name: str, net: NetConfig) -> None:
    """Sigmoid nets at lr <= 0.01, 200 updates, slots at different updates, float64: 1e-10."""
    tensors = data(net)
    configs = trials(net, lr=0.01)
    engine = make_engine(name, net, BATCH, tensors)
    for config in configs:
        engine.add(config)
    engine.advance({config.number: 10 * config.number for config in configs})
    engine.advance({config.number: 200 for config in configs})
    for config, expected in zip(configs, after_200_updates(net), strict=True):
        assert distance(engine.state(config.number), expected) < 1e-10


@lru_cache
def after_200_updates(net: NetConfig) -> list[TrialState]:
    """The twins' states, for both engines."""
    twins = [SerialTrial(config, data(net)) for config in trials(net, lr=0.01)]
    for twin in twins:
        twin.advance(200)
    return [twin.state() for twin in twins]


@BOTH
@pytest.mark.parametrize("net", [*NETS.values(), RESIDUAL], ids=[*NETS.keys(), "residual"])
def test_metrics_are_the_twins(name: str, net: NetConfig) -> None:
    tensors = data(net)
    engine = make_engine(name, net, BATCH, tensors)
    configs = trials(net)
    for config in configs:
        engine.add(config)
    engine.advance({config.number: 5 + config.number for config in configs})
    chosen = [7, 2, 11]
    for numbers in (chosen, engine.numbers(), chosen):
        if numbers is not chosen:  # then all at one update, trained together
            engine.advance(dict.fromkeys(numbers, 20))
        measured = engine.evaluate(numbers, tensors.valid)
        for i, number in enumerate(numbers):
            twin = SerialTrial(configs[number], tensors, state=engine.state(number))
            for metric, value in twin.evaluate(tensors.valid).items():
                assert float(measured[metric][i]) == pytest.approx(value, rel=1e-12)


@BOTH
@pytest.mark.parametrize("kind", ["nag", "adam", "adamw", "diagonal"])
def test_divergence_is_found_at_the_twins_update_however_the_calls_are_cut(name: str, kind: str) -> None:
    net = NETS["squared-sigmoid"]
    tensors = data(net)
    for lr in (1e30, 1e100, 1e300):
        config = trial(net, kind=kind, lr=lr)
        twin = SerialTrial(config, tensors)
        twin.advance(200)
        # The steps of adam are as large as lr, whatever the gradient: it takes a large one to overflow.
        assert twin.diverged_at is not None or (lr < 1e300 and kind != "nag")
        for stride in (1, 7, 200):
            engine = make_engine(name, net, BATCH, tensors, config.method.family)
            engine.add(config)
            engine.add(trial(net, 1, kind, 0.01))
            for until in range(stride, 200 + stride, stride):
                engine.advance({0: until, 1: until})
            assert engine.diverged_at(0) == twin.diverged_at
            assert engine.state(0).diverged_at == twin.diverged_at
            assert engine.diverged_at(1) is None
            assert engine.update(0) == engine.update(1)


@BOTH
def test_infinite_weights_after_the_last_update_count_as_diverged(name: str) -> None:
    net = NETS["no-hidden"]
    config = trial(net)
    state = initial_state(config, torch.float64)
    state.velocity[0][1].fill_(torch.finfo(torch.float64).max)
    state.params[0][1].fill_(torch.finfo(torch.float64).max)
    engine = make_engine(name, net, BATCH, data(net))
    engine.add(trial(net, kind="cm", mu_max=0.99, mu_step=1), state)
    engine.advance({0: 3})
    assert engine.diverged_at(0) is not None
    assert engine.diverged_at(0) <= 3  # type: ignore[operator]


@BOTH
@pytest.mark.parametrize("kind", METHODS)
def test_a_state_given_back_goes_on_as_if_never_taken_out(name: str, kind: str) -> None:
    net, config = AUTOENCODER, trial(AUTOENCODER, kind=kind, lr=0.02, lr_schedule="cosine", mu_schedule="nesterov")
    tensors = data(net, "float32")
    engine, again = (make_engine(name, net, BATCH, tensors, config.method.family) for _ in range(2))
    engine.add(config)
    engine.advance({0: 13})
    again.add(config, engine.state(0))
    for each in (engine, again):
        each.advance({0: 40})
    assert same_bits(engine.state(0), again.state(0))


@BOTH
def test_only_the_named_trials_move(name: str) -> None:
    net = AUTOENCODER
    engine = make_engine(name, net, BATCH, data(net, "float32"))
    for number in range(4):
        engine.add(trial(net, number))
    engine.advance(dict.fromkeys(range(4), 5))
    before = engine.state(2)
    seconds = engine.advance({0: 9, 1: 6, 3: 5})
    assert [engine.update(n) for n in range(4)] == [9, 6, 5, 5]
    assert same_bits(engine.state(2), before)
    assert set(seconds) == {0, 1, 3}
    assert seconds[0] > 0
    assert seconds[3] >= 0


@BOTH
def test_what_does_not_fit_is_refused(name: str) -> None:
    engine = make_engine(name, AUTOENCODER, BATCH, data(AUTOENCODER))
    engine.add(trial(AUTOENCODER))
    with pytest.raises(ValueError, match="already here"):
        engine.add(trial(AUTOENCODER))
    with pytest.raises(ValueError, match="not this engine's"):
        engine.add(trial(NETS["no-hidden"], 1))
    with pytest.raises(ValueError, match="method adam is not of this engine's family, momentum"):
        engine.add(trial(AUTOENCODER, 1, "adam"))
    recurrent = NetConfig((3, 4, 2), ("tanh",), "softmax", steps=5)
    with pytest.raises(ValueError, match="method diagonal: trains feed-forward and residual nets"):
        make_engine(name, recurrent, BATCH, data(AUTOENCODER), "diagonal")
    with pytest.raises(KeyError):
        engine.remove(9)


def denormals(values: torch.Tensor) -> int:
    """Count by the bits: with denormals flushed, a comparison would call them zero."""
    bits = values.contiguous().numpy().view(np.uint32)
    return int((((bits & 0x7F800000) == 0) & ((bits & 0x7FFFFF) != 0)).sum())


@pytest.mark.parametrize("name", [*ENGINES, "serial"])
def test_denormals_are_flushed_alike(name: str) -> None:
    """Steps of lr * gradient below 1.2e-38 are zero in every engine, so none is slowed by them or differs in them."""
    net = NETS["autoencoder"]
    method = MethodConfig("cm", 1e-35, 0.5)
    config = TrialConfig(0, net, InitConfig("normalized", scale=0.01), method, 100, BATCH, SeedConfig(0))
    tensors = data(net, "float32")
    torch.set_flush_denormal(False)
    assert denormals(torch.full((1,), 1e-37) * 0.01) == 1
    if name == "serial":
        serial = SerialTrial(config, tensors)
        serial.advance(3)
        velocity = serial.state().velocity
    else:
        engine = make_engine(name, net, BATCH, tensors)
        engine.add(config)
        engine.advance({0: 3})
        velocity = engine.state(0).velocity
    assert denormals(flat(velocity)) == 0
    assert bool((velocity[0][0] == 0).any())
    assert bool((velocity[-1][1] != 0).any())


def test_one_thread_takes_and_flushes() -> None:
    one_thread()
    assert torch.get_num_threads() == 1
    assert denormals(torch.full((1,), 1e-37) * 0.01) == 0


def test_engines_do_without_the_heavy_libraries() -> None:
    code = (
        "import sys, trainers.group, trainers.calibrate, trainers.serial\n"
        "heavy = {'scipy', 'sklearn', 'pandas', 'pyarrow', 'ray', 'optuna', 'mlflow', 'pydantic', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
