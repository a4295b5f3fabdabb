"""All pairs of model, method, init, task and learning rate's schedule, on both engines, held to the serial twin.

Every value that `trainers.config` names is in a case, and every two values that can meet do meet in one: most mistakes
need no more than two things to come together. Which cannot meet is said by `meets`.
"""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from tests.trainers.cases import BATCH, FIRST_ORDER, distance
from trainers.config import (
    ACTIVATIONS,
    ENGINES,
    INITS,
    LR_SCHEDULES,
    MU_SCHEDULES,
    InitConfig,
    MethodConfig,
    NetConfig,
    SeedConfig,
    TaskInfo,
    TrialConfig,
)
from trainers.data import Data
from trainers.group import make_engine
from trainers.serial import SerialTrial
from trainers.tasks import Split, Task

STEPS, HIDDEN, UPDATES = 5, 6, 5
MODELS = (*(f"mlp-{activation}" for activation in ACTIVATIONS), "autoencoder", "residual", "rnn")
SEQUENCES = ("sequence-softmax", "sequence-squared", "sequence-logistic", "every-step")
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "model": MODELS,
    "method": (*(m for m in FIRST_ORDER if m != "nag"), *(f"nag-{schedule}" for schedule in MU_SCHEDULES)),
    "init": INITS,
    "task": ("classification", "autoencoder-logistic", "autoencoder-squared", *SEQUENCES),
    "lr": (*LR_SCHEDULES, "warm-up"),
}
Case = tuple[str, ...]
"""A value of each dimension, in order."""
Pair = tuple[int, str, int, str]


def meets(model: str, method: str, init: str, task: str) -> bool:
    """Whether a trial can be so: what a spec refuses otherwise (sweeps/checks_model.py)."""
    recurrent = model == "rnn"
    if recurrent != (task in SEQUENCES):  # only a recurrent net reads sequences, and it reads nothing else
        return False
    if model == "autoencoder" and task == "classification":  # its outputs are its inputs
        return False
    if method == "diagonal" and recurrent:  # curvature is propagated through layers, not through time
        return False
    if init == "pretrained" and (recurrent or model == "residual"):  # autoencoders train plain layers
        return False
    return init != "echo" or recurrent  # S13 Table 4: about recurrent weights


def pairs_of(case: Case) -> set[Pair]:
    """Every two values of a case with the numbers of their dimensions."""
    return {(i, case[i], j, case[j]) for i, j in combinations(range(len(case)), 2)}


@lru_cache
def valid() -> tuple[set[Pair], dict[Pair, list[Case]]]:
    """All pairs that can meet, and the (model, method, init, task) in which those of these four do."""
    names = list(DIMENSIONS.values())
    cores = [core for core in product(*names[:4]) if meets(*core)]
    holding: dict[Pair, list[Case]] = {}
    for core in cores:
        for pair in pairs_of(core):
            holding.setdefault(pair, []).append(core)
    free = {(i, a, j, b) for i, j in combinations(range(5), 2) if j >= 4 for a in names[i] for b in names[j]}
    return set(holding) | free, holding


@lru_cache
def cases() -> list[Case]:
    """A short list of cases that covers all pairs: greedy, the same at each call."""
    every, holding = valid()
    cores = sorted({core for some in holding.values() for core in some})
    names, chance, left, chosen = list(DIMENSIONS.values()), random.Random(0), sorted(every), []
    missing = set(every)
    for pair in left:
        if pair not in missing:
            continue
        fitting = holding.get(pair) or [core for core in cores if core[pair[0]] == pair[1] or pair[0] >= 4]
        best: tuple[int, float, Case] = (0, 0.0, ())
        for core in chance.sample(fitting, min(40, len(fitting))):
            for rest in product(*names[4:]):
                case = (*core, *rest)
                if case[pair[0]] == pair[1] and case[pair[2]] == pair[3]:
                    best = max(best, (len(pairs_of(case) & missing), chance.random(), case))
        missing -= pairs_of(best[-1])
        chosen.append(best[-1])
    return chosen


def net_of(model: str, task: str) -> NetConfig:
    loss = {"classification": "softmax", "every-step": "softmax"}.get(task, task.partition("-")[2])
    if model == "rnn":
        return NetConfig((3, HIDDEN, 3), ("tanh",), loss, steps=STEPS, every_step=task == "every-step")
    if model == "autoencoder":
        return NetConfig((7, 5, 3, 5, 7), ("sigmoid", "linear", "sigmoid"), loss)
    inputs, outputs = (5, 3) if task == "classification" else (7, 7)
    if model == "residual":
        widths, hidden = (inputs, HIDDEN, HIDDEN, HIDDEN, outputs), ("tanh", "softsign", "relu")
        return NetConfig(widths, hidden, loss, eta=(0.7, 0.4))
    return NetConfig((inputs, HIDDEN, 9, outputs), (model.partition("-")[2],) * 2, loss)


@lru_cache
def data_of(net: NetConfig) -> Data:
    """Random examples; sequences end, or are scored, at some of their steps."""
    rng = np.random.default_rng(0)
    inputs, outputs = net.widths[0], net.widths[-1]

    def split(n: int) -> Split:
        x = rng.random((n, net.steps, inputs) if net.steps else (n, inputs))
        if not net.steps:
            return Split(x, rng.integers(0, outputs, n) if net.loss == "softmax" else x)
        steps = rng.integers(2, STEPS, n)
        x[np.arange(STEPS) > steps[:, None]] = 0
        if net.every_step:
            return Split(x, np.where(rng.random((n, STEPS)) < 0.3, -1, rng.integers(0, outputs, (n, STEPS))))
        return Split(x, rng.integers(0, outputs, n) if net.loss == "softmax" else rng.random((n, outputs)), steps)

    kind = "sequence" if net.steps else "classification" if net.loss == "softmax" else "autoencoder"
    info = TaskInfo("pairs", kind, inputs, outputs, net.loss, ("loss",), steps=net.steps, every_step=net.every_step)
    return Data(Task(info, split(30), split(9), split(1), "random", False), dtype="float64")


def trial_of(case: Case, number: int, data_seed: int) -> TrialConfig:
    model, method, init, task, lr = case
    kind, _, schedule = method.partition("-")
    more: dict[str, Any] = {"lr_warmup": 4} if lr == "warm-up" else {"lr_schedule": lr, "lr_step": 2}
    if schedule:
        more["mu_schedule"] = schedule
    how = MethodConfig(
        kind, 0.04 / number, 0.9 + 0.01 * number, mu_step=2, tail_updates=1, mu_first=0.4, mu_first_updates=3,
        beta1=0.8, beta2=0.97, weight_decay=0.3, **more,
    )  # fmt: skip
    start = InitConfig(init, scale=0.8, fan_in=4, kappa=1.3, pretrain_updates=2)
    return TrialConfig(number, net_of(model, task), start, how, UPDATES, BATCH, SeedConfig(data_seed))


@pytest.mark.parametrize("case", cases(), ids="/".join)
def test_each_update_from_the_twins_state_is_the_twins(case: Case) -> None:
    """Two trials side by side in each engine, their batches shared or not; float64: 1e-12."""
    shared = len("/".join(case)) % 2
    configs = [trial_of(case, 1, 1), trial_of(case, 2, 1 if shared else 2)]
    data = data_of(configs[0].net)
    engines = [make_engine(name, configs[0].net, BATCH, data, configs[0].method.family) for name in ENGINES]
    twins = [SerialTrial(config, data) for config in configs]
    for update in range(UPDATES):
        for config, twin in zip(configs, twins, strict=True):
            for engine in engines:
                engine.add(config, twin.state())
            twin.advance(1)
            assert twin.diverged_at is None
        for engine in engines:
            engine.advance({1: update + 1, 2: update + 1})
            for number, twin in enumerate(twins, 1):
                assert distance(engine.state(number), twin.state()) < 1e-12, engine.name
                engine.remove(number)


def test_every_two_values_that_can_meet_do_and_no_case_is_impossible() -> None:
    covered = set().union(*(pairs_of(case) for case in cases()))
    assert covered == valid()[0]
    assert all(meets(*case[:4]) for case in cases())
    for i, (name, values) in enumerate(DIMENSIONS.items()):
        assert {case[i] for case in cases()} == set(values), name
    assert len(cases()) < 250
