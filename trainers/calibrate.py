"""Which engine is faster for a shape on this machine: measured once per sweep, never guessed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from trainers.config import ENGINES, InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig

if TYPE_CHECKING:
    from trainers.engine import Engine
    from trainers.tasks import Task

_BUDGET_S = 0.6
_ROUNDS = 5
_HOPELESS = 3.0  # an engine that was so many times slower in its first round is not tried again
_MARGIN = 1.05  # looped trials' bits are the same in any group: differences within the noise go to `loop`
_EXAMPLES = 2_000  # and a batch: enough to look batches up in, whatever the task's size
_ETA_TEXT = 40  # characters of a residual net's factors in a key; longer lists are hashed
_LOOPED = 4  # trials that stand for any number in the loop engine: each runs alone


def shape_key(net: NetConfig, batch: int) -> str:
    """Name a shape: trials of one key can be stacked (with others of their family), and share a calibration."""
    key = f"{'-'.join(map(str, net.widths))}/{','.join(net.hidden)}/{net.loss}/{batch}"
    if net.steps:
        key += f"/{net.steps} steps" + (", every" if net.every_step else "")
    if net.eta:
        eta = ",".join(map(repr, net.eta))
        key += "/eta " + (eta if len(eta) <= _ETA_TEXT else blake2b(eta.encode(), digest_size=8).hexdigest())
    if net.module:
        key += f"/{net.module} {net.options}"
    return key


def contenders(net: NetConfig, device: str, precision: str) -> tuple[str, ...]:
    """Return the engines there are for a net; a GPU has nothing to gain from one trial after another (loop)."""
    if net.module:
        return ("module",)
    return ENGINES if device == "cpu" and precision == "float32" else ("stacked",)


def choose(
    net: NetConfig, batch: int, task: Task, k: int, device: str = "cpu", dtype: str = "float32",
    precision: str = "float32",
) -> tuple[str, float]:  # fmt: skip
    """Return the fastest engine for k trials of a shape, and its seconds for one update of one trial.

    On a GPU and at other precisions there is one only.

    Takes under a second where an update is fast: the median of a few short rounds, the engines in turn, so that
    whatever else the machine does meets all of them; on a CPU in seconds of this thread, which others do not
    lengthen. With one thread, as workers have.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _choose(net, batch, task, k, device, dtype, precision)
    finally:
        torch.set_num_threads(threads)


def _choose(
    net: NetConfig, batch: int, task: Task, k: int, device: str, dtype: str, precision: str
) -> tuple[str, float]:
    from trainers.data import Data
    from trainers.group import make_engine

    clock = time.thread_time if device == "cpu" else time.perf_counter
    data = Data(_head(task, _EXAMPLES + batch), device, dtype)
    names = contenders(net, device, precision)
    engines = {name: make_engine(name, net, batch, data, precision=precision) for name in names}
    for name, engine in engines.items():
        for number in range(k if name == "stacked" else min(k, _LOOPED)):
            # Methods with momentum stand for all: what differs is a few operations on each weight. They alternate as
            # in a search; so small an lr that no trial diverges, whatever the task.
            method = MethodConfig(("nag", "cm")[number % 2], lr=1e-6, mu_max=0.9)
            init = InitConfig("normalized")
            engine.add(TrialConfig(number, net, init, method, 1_000_000, batch, SeedConfig(0, "calibrate")))
    # The first update of each touches its memory; the second says how many make a round.
    for engine in engines.values():
        _seconds(engine, 1, clock)
    first = {name: _seconds(engine, 1, clock) for name, engine in engines.items()}
    best = min(first.values())
    rounds = {name: [seconds] for name, seconds in first.items()}
    close = [name for name in engines if first[name] <= _HOPELESS * best]
    share = _BUDGET_S / (_ROUNDS * len(close))
    for _ in range(_ROUNDS):
        for name in close:
            engine = engines[name]
            updates = max(1, min(200, math.floor(share / (first[name] * len(engine.numbers())))))
            rounds[name].append(_seconds(engine, updates, clock))
    medians = {name: _median(seconds[1:] or seconds) for name, seconds in rounds.items()}
    fastest = min(medians, key=lambda name: medians[name] / (_MARGIN if name == "loop" else 1.0))
    return fastest, medians[fastest]


def _seconds(engine: Engine, updates: int, clock: Callable[[], float]) -> float:
    """Seconds of one update of one trial, over so many updates of each."""
    numbers = engine.numbers()
    until = {number: engine.update(number) + updates for number in numbers}
    start = clock()
    engine.advance(until)
    return (clock() - start) / (updates * len(numbers))


def _head(task: Task, examples: int) -> Task:
    """The task with fewer training examples, and no others: drawing some would be timed too."""
    train = task.train
    inputs, targets, steps = train.inputs[:examples], train.targets, train.steps
    fewer = replace(
        train,
        inputs=inputs,
        targets=inputs if targets is train.inputs else targets[:examples],
        steps=None if steps is None else steps[:examples],
    )
    return replace(task, train=fewer, draw=None)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
