"""Small synthetic tasks, nets and trials that the tests of the engines share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.config import (
    METHODS,
    MOMENTUM_METHODS,
    InitConfig,
    MethodConfig,
    NetConfig,
    SeedConfig,
    TaskInfo,
    TrialConfig,
)
from trainers.data import Data
from trainers.state import Params, TrialState
from trainers.tasks import Split, Task

BATCH = 8
FIRST_ORDER = tuple(method for method in METHODS if method != "hf")
"""What the serial twin trains; the twin of hf is in hf_twin.py."""
AUTOENCODER = NetConfig((12, 9, 4, 9, 12), ("sigmoid", "linear", "sigmoid"), "logistic")
RESIDUAL = NetConfig((7, 9, 9, 9, 3), ("tanh", "softsign", "relu"), "softmax", eta=(0.7, 0.4))
NETS = {
    "autoencoder": AUTOENCODER,
    "mlp-tanh": NetConfig((7, 11, 10, 3), ("tanh", "tanh"), "softmax"),
    "mlp-relu-softsign": NetConfig((7, 11, 10, 3), ("relu", "softsign"), "softmax"),
    "mlp-linear": NetConfig((7, 8, 3), ("linear",), "softmax"),
    "squared-sigmoid": NetConfig((6, 9, 6), ("sigmoid",), "squared"),
    "no-hidden": NetConfig((5, 4), (), "logistic"),
}


def task(net: NetConfig, examples: int = 60, seed: int = 0) -> Task:
    """Random data for a net; targets are the inputs where the shape allows it, as in an autoencoder."""
    rng = np.random.default_rng(seed)
    inputs, outputs = net.widths[0], net.widths[-1]

    def split(n: int) -> Split:
        x = rng.random((n, inputs), dtype=np.float32)
        if net.loss == "softmax":
            return Split(x, rng.integers(0, outputs, n))
        return Split(x, x if inputs == outputs else rng.random((n, outputs), dtype=np.float32))

    classes = net.loss == "softmax"
    metrics = ("loss", "error" if classes else "squared_error")
    info = TaskInfo("synthetic", "classification" if classes else "autoencoder", inputs, outputs, net.loss, metrics)
    return Task(info, split(examples), split(30), split(10), "synthetic", False)


def data(net: NetConfig, dtype: str = "float64", examples: int = 60) -> Data:
    return Data(task(net, examples), "cpu", dtype)


def trials(
    net: NetConfig, updates: int = 200, lr: float = 0.05, methods: Sequence[str] = MOMENTUM_METHODS
) -> list[TrialConfig]:
    """Every method (of one family) x four inits, no two trials with a hyperparameter in common.

    All cross steps of mu and a tail. What other inits, schedules and methods come to is in test_pairs.py.
    """
    configs = []
    for number, (method, init) in enumerate(product(methods, ("sparse", "standard", "normalized", "he"))):
        means = {"beta1": 0.8 + 0.01 * number, "beta2": 0.9 + 0.005 * number, "epsilon": 1e-8 * (1 + number)}
        own = means | {"weight_decay": 0.02 * number, "damping": 0.1 + 0.02 * number}
        steps = (9 + number, 20 + number, 0.3 + 0.02 * number)
        configs.append(
            TrialConfig(
                number,
                net,
                InitConfig(init, scale=0.6 + 0.05 * number, fan_in=3 + number),
                MethodConfig(method, lr / (1 + number), 0.8 + 0.015 * number, *steps, **own),
                updates,
                BATCH,
                SeedConfig(5, replicate=0 if number % 3 else number),
            )
        )
    return configs


def trial(net: NetConfig, number: int = 0, kind: str = "nag", lr: float = 0.05, **method: Any) -> TrialConfig:
    schedule = {"mu_max": 0.95, "mu_step": 7} | method
    return TrialConfig(
        number, net, InitConfig("normalized"), MethodConfig(kind, lr, **schedule), 400, BATCH, SeedConfig(1)
    )


def flat(params: Params) -> Tensor:
    return torch.cat([tensor.reshape(-1) for pair in params for tensor in pair])


def distances(states: list[TrialState], twins: list[TrialState]) -> list[float]:
    """Norm of the difference over norm of the weights, for each pair: the largest of theta's and the running means'."""
    worst = torch.zeros(len(states), dtype=torch.float64)
    for name in ("params", "velocity", "second"):
        some, others = ([getattr(state, name) for state in each] for each in (states, twins))
        assert [one is None for one in some] == [one is None for one in others]
        if some[0] is not None:
            one, other = (torch.stack([flat(params) for params in each]) for each in (some, others))
            worst = torch.maximum(worst, (one - other).norm(dim=1).double())
    size = torch.stack([flat(twin.params) for twin in twins]).norm(dim=1)
    return [float(value) for value in worst / size]


def distance(state: TrialState, twin: TrialState) -> float:
    """`distances` of one pair."""
    return distances([state], [twin])[0]


def same_bits(one: TrialState, other: TrialState) -> bool:
    """Whether two states are equal number by number (NaN equals nothing)."""
    pairs = [(one.params, other.params), (one.velocity, other.velocity)]
    if one.second is not None and other.second is not None:
        pairs.append((one.second, other.second))
    return one.update == other.update and all(torch.equal(flat(a), flat(b)) for a, b in pairs)
