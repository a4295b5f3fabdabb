"""Memorisation: what is shown, when the trigger comes, what is to be said, and how wrong constant answers are."""

from math import sqrt

import numpy as np
import pytest
import torch

from trainers.config import NetConfig
from trainers.data import Data
from trainers.metrics import measure
from trainers.tasks import load
from trainers.tasks.memory import make


@pytest.mark.parametrize(("symbols", "values", "length"), [(5, 2, 200), (10, 5, 80), (5, 2, 10)])
def test_the_symbols_shown_are_to_be_said_after_the_trigger(symbols, values, length):
    split = make(symbols, values, length, np.random.default_rng(0), 300)
    steps = length + 2 * symbols
    assert split.inputs.shape == (300, steps, values + 2)
    assert split.targets.shape == (300, steps)
    assert split.steps is None
    assert np.all(split.inputs.sum(2) == 1)
    read = split.inputs.argmax(2)
    blank, trigger = values, values + 1
    shown = read[:, :symbols]
    assert shown.max() < values
    at = symbols + length  # counted from 1: T + 5 and T + 10
    assert np.all((read == trigger) == (np.arange(1, steps + 1) == at))
    rest = np.delete(read[:, symbols:], at - 1 - symbols, axis=1)
    assert np.all(rest == blank)
    assert np.array_equal(split.targets[:, -symbols:], shown)
    assert np.all(split.targets[:, :-symbols] == blank)


def test_symbols_are_independent_and_uniform():
    shown = make(10, 5, 10, np.random.default_rng(1), 20_000).inputs[:, :10].argmax(2)
    shares = np.stack([np.bincount(column, minlength=5) for column in shown.T]) / 20_000
    assert np.abs(shares - 1 / 5).max() < 4.5 * sqrt(0.16 / 20_000)
    correlations = np.corrcoef(shown.T) - np.eye(10)
    assert np.abs(correlations).max() < 4.5 / sqrt(20_000)


@pytest.mark.parametrize(("name", "recall", "every"), [("mem-5", 2.5, 5), ("mem-20", 8.0, 10)])
def test_a_net_that_knows_only_its_biases_scores_as_published(name, recall, every):
    task = load(name, {"length": 10, "holdout": 10_000})
    part = Data(task, dtype="float64").valid
    info = task.info
    net = NetConfig((info.inputs, 3, info.outputs), ("tanh",), "softmax", steps=info.steps, every_step=True)
    assert part.inputs.shape[1] == info.steps == 10 + 2 * info.recall
    biases = torch.zeros(info.outputs, dtype=torch.float64)
    biases[-1] = 5  # blanks are by far the most frequent answer
    biases[1] = 1
    found = measure(info, net, biases.expand(*part.classes.shape, -1), part)
    assert found["errors"] == every
    deviation = sqrt(info.recall * (info.outputs - 2)) / (info.outputs - 1)
    assert found["recall_errors"] == pytest.approx(recall, abs=4 * deviation / 100)
    perfect = measure(info, net, 9 * part.targets, part)
    assert perfect["errors"] == perfect["recall_errors"] == 0
