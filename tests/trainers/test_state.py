import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainers.cases import NETS, data, flat, same_bits, trial
from trainers import inits
from trainers.config import InitConfig, MethodConfig
from trainers.serial import SerialTrial
from trainers.state import TrialState, initial_state


def test_a_state_survives_a_file_without_pickle_bit_by_bit() -> None:
    net = NETS["autoencoder"]
    serial = SerialTrial(trial(net), data(net, "float32"))
    serial.advance(5)
    state = serial.state()
    file = io.BytesIO()
    np.savez(file, **state.to_arrays())  # type: ignore[arg-type]
    file.seek(0)
    back = TrialState.from_arrays(np.load(file, allow_pickle=False))
    assert same_bits(back, state)
    assert back.update == 5
    assert back.diverged_at is None
    assert back.second is None
    state.diverged_at = 0
    assert TrialState.from_arrays(state.to_arrays()).diverged_at == 0


def test_a_trial_starts_from_its_init_at_rest() -> None:
    config = trial(NETS["mlp-tanh"])
    state = initial_state(config, torch.float64)
    for (w, b), (drawn_w, drawn_b) in zip(
        state.params, inits.initial(config.net, config.init, config.seed), strict=True
    ):
        assert np.array_equal(w.numpy(), drawn_w)
        assert np.array_equal(b.numpy(), drawn_b)
    assert all(not v.any() for pair in state.velocity for v in pair)
    assert state.second is None
    with pytest.raises(ValueError, match="init pretrained: trains on data"):
        initial_state(replace(config, init=InitConfig("pretrained")))


@pytest.mark.parametrize("kind", ["adam", "adamw", "diagonal"])
def test_running_means_of_the_second_kind_travel_too(kind: str) -> None:
    net = NETS["mlp-tanh"]
    config = replace(trial(net), method=MethodConfig(kind, 0.01))
    start = initial_state(config)
    assert start.second is not None
    assert not flat(start.second).any()
    serial = SerialTrial(config, data(net, "float32"))
    serial.advance(3)
    state = serial.state()
    back = TrialState.from_arrays(state.to_arrays())
    assert state.second is not None
    assert back.second is not None
    assert flat(state.second).any()
    assert same_bits(back, state)
    copy = state.clone()
    assert copy.second is not None
    copy.second[0][0][0, 0] = float("inf")
    assert state.is_finite()
    assert not copy.is_finite()


def test_a_clone_shares_nothing_and_a_nan_is_seen() -> None:
    state = initial_state(trial(NETS["no-hidden"]))
    copy = state.clone()
    copy.velocity[0][1][0] = float("nan")
    assert state.is_finite()
    assert not copy.is_finite()


def test_scalars_travel_too_to_the_last_bit() -> None:
    state = initial_state(trial(NETS["no-hidden"]))
    assert state.scalars == {}
    assert TrialState.from_arrays(state.to_arrays()).scalars == {}
    state.scalars = {"damping": 0.1 + 0.2, "work": 2.0**53 - 1, "never": float("inf")}
    copy = state.clone()
    assert TrialState.from_arrays(copy.to_arrays()).scalars == state.scalars
    assert same_bits(TrialState.from_arrays(copy.to_arrays()), state)
    copy.scalars["damping"] = 1.0
    assert state.scalars["damping"] == 0.1 + 0.2
