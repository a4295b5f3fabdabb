"""What trials take of memory, against what their arrays must take."""

import pytest

from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.memory import Memory, broken, measure
from trainers.tasks import load

NET = NetConfig((64, 600, 600, 10), ("tanh", "tanh"), "softmax")
CONFIG = TrialConfig(
    0, NET, InitConfig("normalized"), MethodConfig("nag", lr=1e-3, mu_max=0.9), 100, 32, SeedConfig(0, "search")
)


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_a_trial_takes_its_weights_velocity_gradient_and_copy(engine: str) -> None:
    found = measure(CONFIG, load("digits"), engine)
    weights = 4 * NET.parameters
    assert 2.5 * weights <= found.trial <= 9 * weights
    assert found.process > 50 * 2**20  # PyTorch alone
    assert found.device == 0


def test_how_many_trials_fit() -> None:
    memory = Memory(process=100, trial=10)
    assert memory.worker(4) == 140
    assert [memory.fits(limit) for limit in (140, 149, 150, 0)] == [4, 4, 5, 1]


def test_a_device_that_works_and_one_that_is_not_there() -> None:
    import torch

    assert broken("cpu") == ""
    if not torch.cuda.is_available():
        assert "PyTorch" in broken("cuda")


def test_on_a_gpu_empty_places_take_memory_too() -> None:
    memory = Memory(process=100, trial=10, device=10_000)
    assert [memory.fits(limit) for limit in (100, 140, 300, 850, 5100)] == [1, 4, 16, 64, 384]
