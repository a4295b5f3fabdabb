"""One net by itself: metrics on a part, and the rule at birth."""

import numpy as np
import pytest
import torch

from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.data import Data
from trainers.evaluate import doomed_at_birth, evaluate
from trainers.tasks import load


def test_metrics_of_a_net_that_knows_one_answer() -> None:
    """Weights of 0 and one large bias: the error is the share of the other classes, whatever the piece of the split."""
    task = load("digits")
    net = NetConfig((64, 10), (), "softmax")
    bias = torch.zeros(10)
    bias[3] = 5.0
    found = evaluate(task, net, [(torch.zeros(64, 10), bias)], task.test)
    assert found["error"] == pytest.approx(float((np.asarray(task.test.targets) != 3).mean()), abs=1e-6)


@pytest.mark.parametrize(("kappa", "words"), [(1.0, "lengths shrink"), (2.0, ""), (4.0, "lengths grow")])
def test_nets_at_birth(kappa: float, words: str) -> None:
    """HR18: variance kappa / fan-in multiplies lengths by kappa / 2 a layer."""
    net = NetConfig((64, *[64] * 40, 10), ("relu",) * 40, "softmax")
    config = TrialConfig(0, net, InitConfig("kappa", kappa=kappa), MethodConfig("sgd", 0.1), 10, 10, SeedConfig(1))
    found = doomed_at_birth(config, Data(load("digits"), dtype="float64"))
    assert found.startswith(words)
    assert bool(found) == bool(words)
