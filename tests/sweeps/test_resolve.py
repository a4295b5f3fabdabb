"""What is chosen for a GPU, how it is measured being told."""

from typing import Any

import pytest

from sweeps.resolve import choose
from sweeps.spec import SweepSpec
from trainers import calibrate, memory

SPEC = {
    "name": "card",
    "task": "digits",
    "training": {"updates": 100, "batch": 32, "precision": "bf16"},
    "model": {"width": 16},
    "space": {"lr": {"type": "float", "low": 1e-3, "high": 1.0, "scale": "log"}},
    "search": {"algorithm": "random"},
    "budget": {"trials": 400},
    "resources": {"gpu": 0.5, "workers": 1},
    "objective": "valid_loss",
}


def test_on_a_gpu_no_more_trials_are_measured_than_its_memory_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """9 of 10 bytes of half a card of 2,400 are 1,080: 98 trials of 10 beside 100, and there are 96 places."""
    asked: list[Any] = []

    def measure(_config: Any, _task: Any, engine: str, device: str, _examples: int, precision: str) -> memory.Memory:
        asked.append(("memory", engine, device, precision))
        return memory.Memory(process=100, trial=10, device=2400)

    def fastest(_net: Any, _batch: int, _task: Any, k: int, device: str, precision: str) -> tuple[str, float]:
        asked.append(("engine", k, device, precision))
        return "stacked", 1e-6

    monkeypatch.setattr(memory, "measure", measure)
    monkeypatch.setattr(calibrate, "choose", fastest)
    found = choose(SweepSpec.model_validate(SPEC), 1, probe=True)
    assert asked == [("memory", "stacked", "cuda", "bf16"), ("engine", 96, "cuda", "bf16")]
    assert (found.group_size, found.device, set(found.engines.values())) == (96, "cuda", {"stacked"})
