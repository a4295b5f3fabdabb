"""What a constant scores, against closed forms, figures of the papers and a search over all constants."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainers.cases import AUTOENCODER, NETS
from tests.trainers.cases import task as synthetic
from trainers import models
from trainers.config import NetConfig, TaskInfo
from trainers.data import Part, part
from trainers.tasks import Split, Task, load
from trainers.trivial import constant, of_constant, trivial

LINEAR = NetConfig((64, 10), (), "softmax")


def rnn(task: Task) -> NetConfig:
    info = task.info
    return NetConfig((info.inputs, 4, info.outputs), ("tanh",), info.loss, steps=info.steps, every_step=info.every_step)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
def test_no_constant_has_less_loss(net: NetConfig) -> None:
    whole = part(synthetic(net).train, net.widths[-1], torch.device("cpu"), torch.float64)
    best = constant(net, whole).clone().requires_grad_()
    loss = models.loss(net, best.expand(len(whole.targets), -1), whole.expected)
    (slope,) = torch.autograd.grad(loss, best)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)  # the losses are convex


def test_an_autoencoder_s_constant_is_the_mean_image() -> None:
    task = synthetic(AUTOENCODER, 60)
    x = task.train.inputs[:50].astype(np.float64)
    p = x.mean(0)
    found = trivial(task, AUTOENCODER, 50)
    assert found["train_squared_error"] == pytest.approx(x.var(0).sum(), rel=1e-12)
    assert found["train_loss"] == pytest.approx(-(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(), rel=1e-12)
    assert found["valid_squared_error"] == pytest.approx(task.valid.inputs.astype(np.float64).var(0).sum(), rel=1e-12)


def test_pixels_that_never_change_cost_nothing() -> None:
    x = np.repeat(np.array([[0, 1, 0.5, 0], [0, 1, 0.25, 0]], np.float32), 3, axis=0)
    info = TaskInfo("still", "autoencoder", 4, 4, "logistic", ("loss", "squared_error"))
    whole = part(Split(x, x), 4, torch.device("cpu"), torch.float64)
    found = of_constant(info, NetConfig((4, 4), (), "logistic"), whole)
    assert found["squared_error"] == pytest.approx(0.125**2, rel=1e-9)
    assert found["loss"] == pytest.approx(-(0.375 * math.log(0.375) + 0.625 * math.log(0.625)), rel=1e-9)


def test_a_classifier_s_constant_is_the_prior() -> None:
    task = load("digits")
    counts = np.bincount(task.train.targets[:500], minlength=10)
    prior = counts / counts.sum()
    found = trivial(task, LINEAR, 500)
    assert found["train_error"] == pytest.approx(1 - prior.max(), rel=1e-12)
    assert found["train_loss"] == pytest.approx(-(prior * np.log(prior)).sum(), rel=1e-12)
    assert trivial(task, NetConfig((64, 10), (), "squared"), 500)["train_error"] == pytest.approx(1 - prior.max())


def test_a_class_that_never_occurs_has_no_share() -> None:
    classes = torch.tensor([0, 0, 2])
    targets = torch.eye(3, dtype=torch.float64)[classes]
    info = TaskInfo("gap", "classification", 3, 3, "softmax", ("loss", "error"))
    found = of_constant(info, NetConfig((3, 3), (), "softmax"), Part(targets, targets.clone(), classes))
    assert found["error"] == pytest.approx(1 / 3)
    assert found["loss"] == pytest.approx(math.log(3) - 2 / 3 * math.log(2), rel=1e-9)


def test_more_examples_than_a_chunk_holds_are_averaged() -> None:
    task = load("mem-5", {"length": 10, "examples": 4500, "holdout": 100})
    shown = task.train.targets[:, -5:]
    wrong = sum(1 - np.bincount(shown[:, step]).max() / len(shown) for step in range(5))
    assert trivial(task, rnn(task), 4500)["train_recall_errors"] == pytest.approx(wrong, rel=1e-9)


@pytest.mark.parametrize(("name", "wrong", "symbols", "values"), [("mem-5", 2.5, 5, 2), ("mem-20", 8.0, 10, 5)])
def test_memory_s_biases_are_those_of_s13_table_5(name: str, wrong: float, symbols: int, values: int) -> None:
    task = load(name, {"length": 20, "examples": 5000, "holdout": 500})
    found = trivial(task, rnn(task), 5000)
    assert found["train_recall_errors"] == pytest.approx(wrong, rel=0.02)  # the best symbol of 5,000 is a bit better
    assert found["train_errors"] == found["train_recall_errors"]  # the blanks are all right
    assert found["train_loss"] == pytest.approx(symbols * math.log(values), rel=0.001)


@pytest.mark.parametrize(("name", "error"), [("add", 0.846), ("mul", 0.889), ("xor", 0.5)])
def test_the_mean_answer_is_as_wrong_as_theory_says(name: str, error: float) -> None:
    task = load(name, {"length": 20, "examples": 5000, "holdout": 500})  # SCIENCE 1.5, for the mean predictor
    found = trivial(task, rnn(task), 5000)
    assert found["train_error"] == pytest.approx(error, abs=4 * math.sqrt(error * (1 - error) / 5000))


def test_chance_on_shapeset_is_five_in_six() -> None:
    task = load("shapeset", {"size": 20})
    net = NetConfig((400, 9), (), "softmax")
    found = trivial(task, net, len(task.train))["train_error"]
    assert found == pytest.approx(5 / 6, abs=0.03)  # GB10 Table 1's sigmoid, 82.61%, is chance


def test_reduced_curves_have_the_plateau_that_was_seen() -> None:
    assert trivial(load("curves", {"size": 14}), NetConfig((196, 196), (), "logistic"), 20_000)[
        "train_squared_error"
    ] == pytest.approx(7.1, abs=0.05)  # SCIENCE 11


def test_mnist_s_mean_image_is_what_was_measured(data_folder: Path) -> None:
    assert data_folder
    found = trivial(load("mnist-ae", {"holdout": 0}), NetConfig((784, 784), (), "logistic"), 60_000)
    assert found["train_squared_error"] == pytest.approx(52.725, abs=0.001)  # SCIENCE 4.1
