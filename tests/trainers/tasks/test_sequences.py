"""What the sequence tasks share: pools, fixed training sets, parts, options."""

import pickle

import numpy as np
import pytest
import torch

from trainers.config import TASKS, SeedConfig
from trainers.data import Data
from trainers.tasks import TaskError, info, load, resolve
from trainers.tasks.sequences import pool_size

NAMES = [name for name, each in TASKS.items() if each.kind == "sequence"]
SMALL = {"length": 12, "holdout": 40}


def same(one, other):
    return np.array_equal(one.inputs, other.inputs) and np.array_equal(one.targets, other.targets)


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_what_the_info_says(name):
    what = info(name, SMALL)
    task = load(name, SMALL)
    assert task.info == what
    assert (len(task.train), len(task.valid), len(task.test)) == (pool_size(what), 40, 40)
    part = Data(task).valid
    assert part.inputs.shape == (40, what.steps, what.inputs)
    assert part.targets.shape == ((40, what.steps, what.outputs) if what.every_step else (40, what.outputs))
    assert (part.steps is None) == what.every_step
    assert len(part.arguments()) == 2 - what.every_step
    assert task.held_out
    assert not task.look_alike


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_functions_of_the_seeds_alone(name):
    task, again, other = (
        load(name, SMALL),
        pickle.loads(pickle.dumps(load(name, SMALL))),
        load(name, SMALL | {"seed": 1}),
    )
    parts = [task.train, task.valid, task.test, task.draw(0, 40), task.draw(1, 40), other.valid, other.draw(0, 40)]
    assert all(not same(one, two) for i, one in enumerate(parts) for two in parts[:i])
    assert same(task.train, again.train)
    assert same(task.test, again.test)
    assert same(parts[4], again.draw(1, 40))


def test_training_pools_go_on_for_ever_and_seeds_have_their_own():
    data = Data(load("add", SMALL))
    seed = SeedConfig(1)
    assert data.pool(seed, 49, 100).until == 50
    first, later, other = (data.pool(*each, 100).part.inputs for each in ((seed, 0), (seed, 10**6), (SeedConfig(2), 0)))
    assert len(first) == len(later) == 5_000
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)
    assert torch.equal(first, Data(load("add", SMALL)).pool(seed, 7, 100).part.inputs)


def test_examples_fix_the_training_set():
    task = load("mul", SMALL | {"examples": 70})
    assert task.draw is None
    assert len(task.train) == 70
    assert same(task.valid, load("mul", SMALL).valid)
    assert Data(task).pool(SeedConfig(1), 5, 10).until > 10**12
    assert task.source.endswith("seed 0, 70 training sequences")


def test_pools_are_smaller_where_a_sequence_is_larger():
    sizes = {name: pool_size(TASKS[name]) for name in NAMES}
    assert sizes["add"] == 5_000
    assert sizes["permutation"] == 500
    assert all(4 * TASKS[name].steps * TASKS[name].inputs * size <= 2**24 for name, size in sizes.items())


@pytest.mark.parametrize(
    ("name", "length", "steps"),
    [
        ("add", 30, 33),
        ("xor", 19, 20),
        ("mem-5", 30, 40),
        ("mem-20", 10, 30),
        ("order", 30, 30),
        ("permutation", 30, 29),
    ],
)
def test_length_is_the_papers_t(name, length, steps):
    assert info(name, {"length": length}).steps == steps


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("add", {"length": 9}, "task add: option length=9: must be a whole number, 10 to 1000"),
        ("mul", {"centre": "all"}, "task mul: option centre='all': must be one of both, inputs, outputs, none"),
        ("xor", {"centre": "both"}, "task xor: option centre='both': must be one of inputs, none"),
        (
            "order",
            {"centre": "both"},
            "task order: option centre=both: this task takes examples, seed, holdout, length",
        ),
        ("mem-5", {"holdout": 0}, "task mem-5: option holdout=0: must be 1 or more, its valid part is drawn"),
        ("mnist", {"length": 80}, "task mnist: option length=80: this task takes examples, file, holdout"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(TaskError) as caught:
        resolve(name, options)
    assert str(caught.value) == message
