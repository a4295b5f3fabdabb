"""Metrics against values that can be counted by hand, and what diverged nets score."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from tests.trainers import cases
from trainers.config import NetConfig, TaskInfo
from trainers.data import Part
from trainers.group import make_engine
from trainers.metrics import measure
from trainers.serial import SerialTrial

SOFTMAX = NetConfig((1, 3), (), "softmax")
LOGISTIC = NetConfig((1, 1), (), "logistic")
SQUARED = NetConfig((1, 1), (), "squared")


def info(*metrics: str, loss: str = "softmax", steps: int = 0, recall: int = 0) -> TaskInfo:
    return TaskInfo("made", "sequence" if steps else "classification", 1, 1, loss, metrics, steps=steps, recall=recall)


def part(targets: torch.Tensor) -> Part:
    """A part of classes, or of numbers."""
    inputs = torch.zeros(len(targets), 1)
    return Part(inputs, targets, None if targets.is_floating_point() else targets)


def test_exactly_the_task_s_metrics_are_measured():
    logits, classes = torch.eye(3).repeat(2, 1)[:4], torch.tensor([0, 1, 0, 1])
    found = measure(info("error", "loss"), SOFTMAX, logits, part(classes))
    assert list(found) == ["error", "loss"]
    assert float(found["error"]) == 0.5
    with pytest.raises(ValueError, match="metric 'accuracy': one of loss, squared_error, error, recall_errors, errors"):
        measure(info("accuracy"), SOFTMAX, logits, part(classes))


def test_squared_error_is_a_sum_without_one_half_of_outputs_not_logits():
    logits, targets = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    both = ("loss", "squared_error")
    found = measure(info(*both, loss="squared"), NetConfig((1, 3), (), "squared"), logits, part(targets))
    assert {name: float(value) for name, value in found.items()} == {"loss": 5.0, "squared_error": 5.0}
    grey = torch.tensor([[0.5, 0.25, 0.9]], dtype=torch.float64)
    found = measure(info(*both, loss="logistic"), NetConfig((1, 3), (), "logistic"), torch.logit(grey), part(grey))
    assert float(found["squared_error"]) == pytest.approx(0, abs=1e-30)
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.5, 0.25, 0.9))
    assert float(found["loss"]) == pytest.approx(entropy, rel=1e-13)


def test_one_logistic_output_errs_on_the_wrong_side_of_one_half():
    logits, targets = torch.tensor([[2.0], [-1.0], [0.3], [-0.2]]), torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    assert float(measure(info("error", loss="logistic"), LOGISTIC, logits, part(targets))["error"]) == 0.5


def test_a_number_errs_by_more_than_004():
    targets = torch.zeros(4, 1, dtype=torch.float64)
    logits = torch.tensor([[0.0399], [-0.0399], [0.0401], [-0.0401]], dtype=torch.float64)
    found = measure(info("error", loss="squared", steps=5), SQUARED, logits, part(targets))
    assert float(found["error"]) == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("net", "metrics", "logits", "targets"),
    [
        (SQUARED, ("loss", "squared_error", "error"), torch.zeros(2, 1), torch.zeros(2, 1)),
        (LOGISTIC, ("loss", "squared_error", "error"), torch.tensor([[9.0], [-9.0]]), torch.tensor([[1.0], [0.0]])),
        (SOFTMAX, ("loss", "error"), 20 * torch.eye(3)[:2], torch.arange(2)),
    ],
)
def test_what_is_not_finite_scores_well_in_no_metric(net, metrics, logits, targets, bad):
    task = info(*metrics, loss=net.loss, steps=1)
    perfect = measure(task, net, logits, part(targets))
    assert all(float(value) < 0.001 for value in perfect.values())
    for index in range(logits.numel()):  # an infinite logit of the right sign would be a perfect answer
        broken = logits.clone()
        broken.view(-1)[index] = bad
        both = measure(task, net, torch.stack([logits, broken]), part(targets))
        assert all(math.isnan(value[1]) for value in both.values())
        assert all(torch.equal(value[0], perfect[name]) for name, value in both.items())


def memory(symbols: int, recall: int, delay: int) -> tuple[TaskInfo, NetConfig, Part]:
    """All strings of two recall steps' symbols, repeated; blank elsewhere. The blank is the last class."""
    strings = torch.tensor([pair * (recall // 2) + pair[: recall % 2] for pair in product(range(symbols), repeat=2)])
    blanks = torch.full((len(strings), delay), symbols)
    net = NetConfig((1, 1, symbols + 1), ("tanh",), "softmax", steps=delay + recall, every_step=True)
    task = info("loss", "recall_errors", "errors", steps=delay + recall, recall=recall)
    return task, net, part(torch.cat([blanks, strings], 1))


@pytest.mark.parametrize(("symbols", "recall", "of_recall", "of_all"), [(2, 5, 2.5, 5), (5, 10, 8.0, 10)])
def test_a_constant_answer_scores_what_science_11_says(symbols, recall, of_recall, of_all):
    task, net, targets = memory(symbols, recall, 7)
    shape = (*targets.expected.shape, symbols + 1)
    for favourite in range(symbols):  # any symbol, but the blank above all
        biases = torch.zeros(symbols + 1)
        biases[favourite], biases[-1] = 1.0, 2.0
        found = measure(task, net, biases.expand(shape), targets)
        assert float(found["recall_errors"]) == of_recall
        assert float(found["errors"]) == of_all


def test_memory_of_a_perfect_and_of_a_diverged_net():
    task, net, targets = memory(2, 5, 7)
    perfect = 50 * torch.nn.functional.one_hot(targets.expected, 3).to(torch.float64)
    wrong = perfect.clone()
    wrong[0, -1] = wrong[0, -1].flip(0)  # 0 1 2 -> 2 1 0: blank for 0 (or 0 for blank)
    diverged = perfect.clone()
    diverged[2, 3, 1] = math.nan
    found = measure(task, net, torch.stack([perfect, wrong, diverged]), targets)
    assert float(found["recall_errors"][0]) == float(found["errors"][0]) == 0
    assert float(found["errors"][1]) == 1 / 4
    assert all(math.isnan(value[2]) for value in found.values())


def test_steps_that_are_not_scored_are_no_errors_and_error_is_of_the_last_step():
    net = NetConfig((1, 1, 3), ("tanh",), "softmax", steps=4, every_step=True)
    classes = torch.tensor([[-1, 0, 1, 2], [-1, 0, 1, 0]])
    logits = torch.zeros(2, 4, 3)
    logits[:, :, 0] = 1.0  # 0 everywhere
    found = measure(info("error", "errors", steps=4), net, logits, part(classes))
    assert float(found["error"]) == 0.5
    assert float(found["errors"]) == 1.5


def test_a_leading_trial_axis_gives_each_trial_what_it_gets_alone():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 3, generator=generator, dtype=torch.float64)
    task, classes = info("loss", "error"), part(torch.arange(5) % 3)
    together = measure(task, SOFTMAX, logits, classes)
    for trial in range(3):
        alone = measure(task, SOFTMAX, logits[trial], classes)
        assert {key: float(value[trial]) for key, value in together.items()} == pytest.approx(
            {key: float(value) for key, value in alone.items()}, rel=1e-13
        )


def test_classes_met_by_linear_outputs_err_where_another_output_is_larger():
    logits, classes = torch.tensor([[0.2, 0.1, 0.0], [0.4, 0.9, 2.0]]), torch.tensor([0, 1])
    net = NetConfig((1, 3), (), "squared")
    found = measure(info("error", "loss"), net, logits, part(classes))
    assert float(found["error"]) == 0.5
    assert float(found["loss"]) == pytest.approx((0.64 + 0.01 + 0.16 + 0.01 + 4.0) / 2)


@pytest.mark.parametrize("name", ["loop", "stacked"])
def test_engines_train_classes_on_the_quadratic_cost_as_the_twin_does(name: str):
    shape = cases.NETS["mlp-tanh"]
    tensors, net = cases.data(shape), replace(shape, loss="squared")
    config = cases.trial(net)
    engine, twin = make_engine(name, net, cases.BATCH, tensors), SerialTrial(config, tensors)
    engine.add(config)
    engine.advance({0: 30})
    twin.advance(30)
    assert cases.distance(engine.state(0), twin.state()) < 1e-12
    assert {key: float(value[0]) for key, value in engine.evaluate([0], tensors.valid).items()} == pytest.approx(
        twin.evaluate(tensors.valid), rel=1e-12
    )
