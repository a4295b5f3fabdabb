"""Addition, multiplication, XOR: answers, markers, lengths and means against what the papers say of them."""

from math import log, sqrt

import numpy as np
import pytest
import torch

from trainers.config import NetConfig
from trainers.data import Data
from trainers.metrics import measure
from trainers.tasks import load
from trainers.tasks.adding import make

ANSWERS = {"add": lambda u, w: (u + w) / 2, "mul": lambda u, w: u * w, "xor": lambda u, w: (u != w).astype(np.float32)}


def drawn(name, length, centre="none", count=2000, seed=0):
    return make(name, length, centre, np.random.default_rng(seed), count)


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("length", [10, 11, 29, 80])
def test_the_answer_is_of_the_two_marked_inputs_and_all_stand_in_their_windows(name, length):
    split = drawn(name, length)
    longest = length * 11 // 10
    assert split.inputs.shape == (2000, longest, 2)
    assert split.inputs.dtype == split.targets.dtype == np.float32
    values, markers = split.inputs[..., 0], split.inputs[..., 1]
    lengths = split.steps + 1
    assert (lengths.min(), lengths.max()) == (length, longest)
    assert set(np.unique(markers)) == {0, 1}
    assert np.all(markers.sum(1) == 2)
    rows, steps = np.nonzero(markers)
    first, second = (steps + 1).reshape(-1, 2).T  # steps are counted from 1, as in the papers
    assert np.array_equal(rows[::2], np.arange(2000))
    assert np.all((first >= 1) & (first <= lengths / 10))
    assert np.all((second >= np.floor(lengths / 10)) & (second <= lengths / 2))
    assert np.all(lengths - second >= lengths / 2)  # the lag that makes it hard
    u, w = values[rows, steps].reshape(-1, 2).T
    assert np.array_equal(split.targets[:, 0], ANSWERS[name](u, w))


def test_lengths_positions_and_values_are_uniform():
    count = 100_000
    split = drawn("add", 40, count=count)
    lengths = split.steps + 1

    def uniform(numbers, low, high):
        share = 1 / (high - low + 1)
        counts = np.bincount(numbers, minlength=high + 1)
        assert counts.sum() == counts[low : high + 1].sum()
        assert np.abs(counts[low:] / len(numbers) - share).max() < 4.5 * sqrt(share / len(numbers))

    uniform(lengths, 40, 44)
    for length in (40, 44):
        _, steps = np.nonzero(split.inputs[lengths == length, :, 1])
        uniform(steps[::2] + 1, 1, length // 10)
        uniform(steps[1::2] + 1, length // 10 + 1, length // 2)
    values = split.inputs[:, :40, 0].ravel()[:count]
    assert abs(values.mean() - 1 / 2) < 4 * sqrt(1 / 12 / count)
    assert abs(values.var() - 1 / 12) < 4 * sqrt(1 / 180 / count)
    bits = drawn("xor", 40).inputs[:, :40, 0]
    assert set(np.unique(bits)) == {0, 1}
    assert abs(bits.mean() - 1 / 2) < 4 / sqrt(4 * bits.size)


@pytest.mark.parametrize("name", ANSWERS)
def test_centring_subtracts_means_from_the_steps_read_and_nothing_from_the_zeros_after(name):
    plain, centred = drawn(name, 47, count=20_000), drawn(name, 47, "inputs", count=20_000)
    assert np.array_equal(plain.targets, centred.targets)
    read = np.arange(51) < plain.steps[:, None] + 1
    assert not np.any(plain.inputs[~read])
    assert not np.any(centred.inputs[~read])
    shift = (plain.inputs - centred.inputs)[read]
    assert np.ptp(shift, axis=0).max() < 1e-6
    assert shift[0] == pytest.approx((1 / 2, 2 / 49), abs=1e-6)  # mean length 49
    assert np.abs(centred.inputs[read].mean(0)).max() < 1.5e-3
    if name != "xor":
        both = drawn(name, 47, "both", count=20_000)
        assert np.array_equal(both.inputs, centred.inputs)
        assert np.array_equal(both.targets, drawn(name, 47, "outputs", count=20_000).targets)
        assert np.ptp(plain.targets - both.targets) < 1e-6
        assert abs(both.targets.mean()) < 4 * plain.targets.std() / sqrt(20_000)


def errors(name, answers, options=None):
    """The error of each constant answer on 100,000 sequences, in the project's own metric."""
    part = Data(load(name, {"length": 10, "holdout": 100_000} | (options or {})), dtype="float64").valid
    net = NetConfig((2, 3, 1), ("tanh",), "squared", steps=11)
    logits = torch.tensor(answers, dtype=torch.float64).view(-1, 1, 1).expand(-1, 100_000, 1)
    return measure(load(name).info, net, logits, part)["error"].tolist()


def test_constant_answers_are_as_wrong_as_they_should_be():
    # |(u + w) / 2 - 1/2| > .04 is 1 - |1 - u - w| < .92, a share of .92^2; of the sum it would be .96^2.
    assert errors("add", [0.0])[0] == pytest.approx(0.92**2, abs=0.004)
    plain = load("add", {"length": 10, "centre": "none", "holdout": 100_000}).valid.targets[:, 0]
    assert np.mean(np.abs(2 * plain - 1) > 0.04) == pytest.approx(0.96**2, abs=0.003)

    def below(z):  # P(u w < z)
        return z - z * log(z)

    median = 0.18668
    assert below(median) == pytest.approx(1 / 2, abs=1e-4)
    exact = [1 - below(m + 0.04) + below(m - 0.04) for m in (1 / 4, median)]
    assert exact == pytest.approx([0.889, 0.865], abs=5e-4)
    assert errors("mul", [1 / 4, median], {"centre": "none"}) == pytest.approx(exact, abs=0.004)
    assert errors("mul", [0.0, median - 1 / 4]) == pytest.approx(exact, abs=0.004)


def test_xor_is_as_often_0_as_1_and_its_error_is_of_the_logistic_output():
    task = load("xor", {"length": 10, "holdout": 20_000})
    part = Data(task, dtype="float64").valid
    net = NetConfig((2, 3, 1), ("tanh",), "logistic", steps=11)
    right = (2 * part.targets - 1) * 3
    found = measure(task.info, net, torch.stack([right, -right, torch.ones_like(right)]), part)
    assert found["error"].tolist()[:2] == [0, 1]
    assert found["error"][2] == pytest.approx(1 / 2, abs=4 / sqrt(4 * 20_000))
    assert found["loss"][0] == pytest.approx(log(1 + np.exp(-3)))
