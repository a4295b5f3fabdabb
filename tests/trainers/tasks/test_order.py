"""Temporal order and random permutation: where the symbols stand, and that the class follows from them alone."""

from math import sqrt

import numpy as np
import pytest

from trainers.tasks import load
from trainers.tasks.order import make_permutation

WINDOWS = {"order": ((1, 2), (5, 6)), "order-3bit": ((1, 2), (3, 4), (6, 7))}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("length", [10, 19, 80])
def test_the_class_is_the_order_of_the_special_symbols_in_their_windows(name, length):
    task = load(name, {"length": length, "holdout": 2000})
    split = task.valid
    assert split.inputs.shape == (2000, length, 6) == (2000, task.info.steps, task.info.inputs)
    assert np.all(split.steps == length - 1)
    assert np.all(split.inputs.sum(2) == 1)
    symbols = split.inputs.argmax(2)
    rows, steps = np.nonzero(symbols >= 4)
    windows = np.array(WINDOWS[name])
    assert np.array_equal(rows, np.repeat(np.arange(2000), len(windows)))
    places = (steps + 1).reshape(2000, -1)
    assert np.all(places >= np.floor(windows[:, 0] * length / 10))
    assert np.all(places <= windows[:, 1] * length / 10)
    assert places.min(0).tolist() == (windows[:, 0] * length // 10).tolist()
    assert places.max(0).tolist() == (windows[:, 1] * length // 10).tolist()
    words = symbols[rows, steps].reshape(2000, -1) - 4
    assert split.targets.tolist() == [int("".join(map(str, word)), 2) for word in words.tolist()]
    assert set(split.targets.tolist()) == set(range(task.info.outputs))


def test_classes_and_distractors_are_uniform():
    split = load("order-3bit", {"length": 10, "holdout": 20_000}).valid
    classes = np.bincount(split.targets, minlength=8) / 20_000
    assert np.abs(classes - 1 / 8).max() < 4.5 * sqrt(7 / 64 / 20_000)
    symbols = split.inputs.argmax(2)
    distractors = symbols[symbols < 4]
    shares = np.bincount(distractors) / len(distractors)
    assert np.abs(shares - 1 / 4).max() < 4.5 * sqrt(3 / 16 / len(distractors))


def test_a_permutation_ends_as_it_begins_and_asks_for_the_next_symbol():
    split = make_permutation(30, np.random.default_rng(0), 4000)
    assert split.inputs.shape == (4000, 29, 100)
    assert split.targets.shape == (4000, 29)
    assert split.steps is None
    assert np.all(split.inputs.sum(2) == 1)
    read = split.inputs.argmax(2)
    assert np.array_equal(split.targets[:, :-1], read[:, 1:])
    assert np.array_equal(split.targets[:, -1], read[:, 0])
    assert set(read[:, 0].tolist()) == {0, 1}
    assert abs(read[:, 0].mean() - 1 / 2) < 4 / sqrt(4 * 4000)
    between = read[:, 1:]
    shares = np.bincount(between.ravel(), minlength=100) / between.size
    assert not shares[:2].any()
    assert np.abs(shares[2:] - 1 / 98).max() < 4.5 * sqrt(1 / 98 / between.size)
