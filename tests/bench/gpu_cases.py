"""What `gpu_bench.py` measures: nets, random data of their shapes, trials, and the body that most would write."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from trainers import models
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo, TrialConfig
from trainers.data import Data
from trainers.state import initial_state
from trainers.tasks import Split, Task


class Case(NamedTuple):
    name: str
    net: NetConfig
    batch: int


def autoencoder(loss: str, *encoder: int) -> NetConfig:
    """Sigmoid layers, a linear code, the mirror image."""
    widths = encoder + encoder[-2::-1]
    hidden = tuple("linear" if layer == len(encoder) - 2 else "sigmoid" for layer in range(len(widths) - 2))
    return NetConfig(widths, hidden, loss)


def recurrent(inputs: int, hidden: int, outputs: int, steps: int, every: bool = False) -> NetConfig:
    loss = "softmax" if every else "squared"
    return NetConfig((inputs, hidden, outputs), ("tanh",), loss, steps=steps, every_step=every)


CASES = (
    Case("CURVES", autoencoder("logistic", 784, 400, 200, 100, 50, 25, 6), 200),  # S13 Table 6
    Case("MNIST-AE", autoencoder("logistic", 784, 1000, 500, 250, 30), 200),
    Case("FACES-AE", autoencoder("squared", 625, 2000, 1000, 500, 30), 200),
    Case("RNN T=80", recurrent(2, 100, 1, 88), 100),  # S13 section 4: add reads up to 11 T / 10 steps
    Case("MLP 5x1000", NetConfig((784, *[1000] * 5, 10), ("tanh",) * 5, "softmax"), 100),  # GB10's nets
)
QUICK = (
    Case("small AE", autoencoder("logistic", 20, 16, 4), 10),
    Case("small RNN", recurrent(2, 8, 1, 6), 10),
)


def random_task(net: NetConfig, examples: int) -> Task:
    """Random data of a net's shape; sequences with one answer have it in the last tenth of their steps."""
    rng = np.random.default_rng(0)
    shape = (examples, net.steps, net.widths[0]) if net.steps else (examples, net.widths[0])
    x, outputs = rng.random(shape, dtype=np.float32), net.widths[-1]
    steps = None
    if net.loss == "softmax":
        y: Any = rng.integers(0, outputs, (examples, net.steps) if net.every_step else examples)
    elif net.steps:
        y = rng.random((examples, outputs), dtype=np.float32)
        steps = rng.integers(net.steps * 9 // 10, net.steps, examples)
    else:
        y = x
    kind = "sequence" if net.steps else "classification" if net.loss == "softmax" else "autoencoder"
    info = TaskInfo(
        "random", kind, net.widths[0], outputs, net.loss, ("loss",), steps=net.steps, every_step=net.every_step
    )
    split = Split(x, y, steps)
    return Task(info, split, split, split, "random numbers", True)


def trial(case: Case, number: int, kind: str, lr: float, replicate: int = 0) -> TrialConfig:
    method = MethodConfig(kind, lr * (1 + number % 7 / 10), 0.8 + number % 16 / 100, mu_step=5)
    seed = SeedConfig(0, replicate=replicate)
    return TrialConfig(number, case.net, InitConfig("normalized"), method, 10**7, case.batch, seed)


class Usual:
    """What a user of PyTorch writes: modules, autograd, `torch.optim.SGD`; examples and their order on the device."""

    def __init__(self, case: Case, data: Data, precision: str, fused: bool) -> None:
        self.case, self.part, self.precision = case, data.train, precision
        self.net = (Rnn(case.net) if case.net.steps else models.build(case.net)).to(data.device)
        if not case.net.steps:
            models.set_parameters(self.net, initial_state(trial(case, 0, "nag", 1e-6), device=data.device).params)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 1e-6, 0.9, nesterov=True, fused=fused or None)

    def run(self, updates: int) -> None:
        device, examples = self.part.inputs.device, len(self.part.inputs)
        for _ in range(updates):
            rows = torch.randint(examples, (self.case.batch,), device=device)
            self.optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = self.net(*self.part.arguments(rows))
            models.loss(self.case.net, logits.float(), self.part.expected[rows]).backward()
            self.optimizer.step()


class Rnn(nn.Module):
    """PyTorch's own recurrent layer, and the outputs of the steps that answer."""

    def __init__(self, net: NetConfig) -> None:
        super().__init__()
        self.rnn = nn.RNN(net.widths[0], net.widths[1], batch_first=True)
        self.output = nn.Linear(net.widths[1], net.widths[2])

    def forward(self, inputs: torch.Tensor, steps: torch.Tensor | None = None) -> torch.Tensor:
        h = self.rnn(inputs)[0]
        return self.output(h if steps is None else h[torch.arange(len(h), device=h.device), steps])
