import time
from dataclasses import replace

import numpy as np
import pytest

from tests.trainers.cases import AUTOENCODER, task
from trainers import group
from trainers.calibrate import choose, shape_key
from trainers.config import ENGINES, NetConfig, TaskInfo, TrialConfig
from trainers.tasks import Split, Task

SMALL = NetConfig((20, 16, 16, 10), ("tanh", "tanh"), "softmax")


class Sleeper:
    """An engine that takes a known time for each update of each trial."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.updates: dict[int, int] = {}

    def add(self, config: TrialConfig) -> None:
        self.updates[config.number] = 0

    def numbers(self) -> list[int]:
        return list(self.updates)

    def update(self, number: int) -> int:
        return self.updates[number]

    def advance(self, until: dict[int, int]) -> None:
        end = time.thread_time() + self.seconds * sum(until[n] - self.updates[n] for n in until)
        self.updates.update(until)
        while time.thread_time() < end:
            pass


@pytest.mark.parametrize("fastest", ENGINES)
def test_the_faster_engine_wins_and_its_time_is_told(fastest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "make_engine", lambda name, *rest, **more: Sleeper(2e-4 if name == fastest else 4e-4))
    name, seconds = choose(AUTOENCODER, 8, task(AUTOENCODER), 3)
    assert name == fastest
    assert seconds == pytest.approx(2e-4, rel=0.5)


def test_a_tie_goes_to_the_engine_whose_bits_do_not_depend_on_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "make_engine", lambda name, *rest, **more: Sleeper(2e-4))
    assert choose(AUTOENCODER, 8, task(AUTOENCODER), 3)[0] == "loop"


def test_a_small_net_is_stacked_and_it_takes_about_a_second() -> None:
    start = time.thread_time()
    name, seconds = choose(SMALL, 10, task(SMALL), 16)
    assert time.thread_time() - start < 3
    assert name == "stacked"  # by a factor of about ten
    assert 0 < seconds < 1e-3


def test_shapes_are_told_apart_by_all_that_stacking_needs() -> None:
    other = NetConfig((20, 16, 16, 10), ("tanh", "relu"), "softmax")
    squared = NetConfig((20, 16, 16, 10), ("tanh", "tanh"), "squared")
    residual = [NetConfig((20, 16, 16, 10), ("tanh", "tanh"), "softmax", eta=(eta,)) for eta in (1.0, 0.5)]
    deep = [NetConfig((20, *[5] * 99, 10), ("tanh",) * 99, "softmax", eta=(eta,) * 98) for eta in (0.1, 0.1 + 1e-16)]
    recurrent = [
        NetConfig((20, 16, 10), ("tanh",), "softmax", steps=steps, every_step=every)
        for steps, every in ((0, False), (9, False), (9, True), (10, False))
    ]
    keys = {shape_key(SMALL, 10), shape_key(SMALL, 11), *(shape_key(net, 10) for net in (other, squared))}
    keys |= {shape_key(net, 10) for net in (*residual, *deep, *recurrent)}
    assert len(keys) == 4 + 2 + 2 + 4
    assert len(shape_key(deep[0], 10)) < len(shape_key(replace(deep[0], eta=()), 10)) + 30


@pytest.mark.parametrize("every", [False, True])
def test_sequences_are_calibrated_on_a_few_examples_without_drawing_more(every: bool) -> None:
    rng = np.random.default_rng(0)
    net = NetConfig((2, 6, 3), ("tanh",), "softmax", steps=4, every_step=every)

    def never(seed: int, count: int) -> Split:
        raise AssertionError(f"{count} examples drawn from seed {seed}")

    inputs, classes = rng.random((3000, 4, 2), np.float32), rng.integers(0, 3, (3000, 4) if every else 3000)
    split = Split(inputs, classes, None if every else rng.integers(1, 4, 3000))
    info = TaskInfo("made", "sequence", 2, 3, "softmax", ("loss",), steps=4, every_step=every)
    name, seconds = choose(net, 10, Task(info, split, split, split, "made", False, draw=never), 4)
    assert name in ENGINES
    assert seconds > 0
