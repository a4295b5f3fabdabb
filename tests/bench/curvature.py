"""What a gradient, a Gauss-Newton product and the rest of `trainers/curvature.py` cost, against arithmetic and PyTorch.

Of 1,000 examples whose activations are kept. Measured as `engines.py` measures: one thread, least CPU seconds of
interleaved rounds. PyTorch's ways are eager, at a point that stays: forward derivatives and a kept backward graph
(`torch.func.jvp`, then autograd), and a kept graph of the backward pass, differentiated in turn (backward twice).
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import recurrent
import torch
from engines import autoencoder, least, mlp, synthetic
from torch import Tensor

from trainers import models
from trainers.config import InitConfig, NetConfig, SeedConfig
from trainers.curvature import curvature
from trainers.data import Data, Part
from trainers.engine import one_thread
from trainers.inits import initial

EXAMPLES = 1_000
SIDE = 768  # of the square matrices whose product is the machine's peak
STRUCTURAL = 0.03
CASES: tuple[tuple[str, NetConfig], ...] = (
    ("curves 784-400-200-100-50-25-6", autoencoder(784, 400, 200, 100, 50, 25, 6)),
    ("curves 14x14 196-100-50-25-6", autoencoder(196, 100, 50, 25, 6)),
    ("mnist 784-1000-500-250-30", autoencoder(784, 1000, 500, 250, 30)),
    ("64-64-64-10", mlp(64, 64, 64, 10)),
    ("add T=30", recurrent.net(30, 100, 1)),
    ("add T=100", recurrent.net(100, 100, 1)),
    ("every step T=100", recurrent.net(100, 100, 6, every_step=True)),
)


class Plain:
    """The same products by PyTorch alone."""

    def __init__(self, net: NetConfig, part: Part, params: list[tuple[Any, Any]]) -> None:
        self.net, self.part = net, part
        self.module = models.build(net)
        models.set_parameters(self.module, params)
        self.parameters = dict(self.module.named_parameters())
        self.tensors = tuple(self.parameters.values())
        generator = torch.Generator().manual_seed(1)
        self.v = tuple(torch.randn(p.shape, generator=generator) for p in self.tensors)
        self.logits = self.module(*part.arguments())
        self.predicted = (torch.softmax(self.logits, -1) if net.loss == "softmax" else self.logits.sigmoid()).detach()
        self.u = torch.zeros_like(self.logits, requires_grad=True)
        self.pulled = torch.autograd.grad(self.logits, self.tensors, self.u, create_graph=True)

    def gradient(self) -> None:
        loss = models.loss(self.net, self.module(*self.part.arguments()), self.part.expected)
        torch.autograd.grad(loss, self.tensors)

    def forward_over_reverse(self) -> None:
        def answers(*tensors: Tensor) -> Tensor:
            named = dict(zip(self.parameters, tensors, strict=True))
            out: Tensor = torch.func.functional_call(self.module, named, self.part.arguments())
            return out

        with torch.no_grad():
            pushed = torch.func.jvp(answers, tuple(p.detach() for p in self.tensors), self.v)[1]
        self._pull(pushed)

    def backward_twice(self) -> None:
        self._pull(torch.autograd.grad(self.pulled, self.u, self.v, retain_graph=True)[0])

    def _pull(self, pushed: Tensor) -> None:
        p = self.predicted
        if self.net.loss == "softmax":
            pushed = p * pushed - p * (p * pushed).sum(-1, keepdim=True)
        else:
            pushed = 2 * pushed if self.net.loss == "squared" else p * (1 - p) * pushed
        torch.autograd.grad(self.logits, self.tensors, pushed / EXAMPLES, retain_graph=True)


def matrix_product() -> Callable[[int], int]:
    """Multiply square matrices."""
    a, b, c = (torch.randn(SIDE, SIDE) for _ in range(3))

    def run(times: int) -> int:
        for _ in range(times):
            torch.mm(a, b, out=c)
        return times

    return run


def repeated(once: Callable[[], object]) -> Callable[[int], int]:
    """As `least` calls it."""

    def run(times: int) -> int:
        for _ in range(times):
            once()
        return times

    return run


def measure(net: NetConfig, rounds: int) -> dict[str, Any]:
    """Seconds of 1,000 examples, their ratios to a gradient, and billions of operations a second."""
    data = Data(recurrent.synthetic(net) if net.steps else synthetic(net))
    part, rows = data.train.head(EXAMPLES), slice(None)
    params = initial(net, InitConfig("normalized"), SeedConfig(0))
    made, plain = curvature(net, data), Plain(net, part, params)
    theta = made.pack([(torch.tensor(w), torch.tensor(b)) for w, b in params])
    v, out = torch.randn(made.size), torch.empty(made.size)
    contestants = {
        "gradient": lambda: (made.at(theta, part, rows), made.gradient(out)),
        "product": lambda: made.product(v, out),
        "loss": lambda: made.loss(theta, part, rows),
        "squares": lambda: made.squares(out),
        "gradient, autograd": plain.gradient,
        "product, jvp and autograd": plain.forward_over_reverse,
        "product, backward twice": plain.backward_twice,
    }
    if net.steps:
        contestants["product with structural damping"] = lambda: made.product(v, out, STRUCTURAL)
    best = least({name: repeated(once) for name, once in contestants.items()} | {"mm": matrix_product()}, rounds)
    peak = 2 * SIDE**3 / best.pop("mm")
    gradient, work = best["gradient"], net.flops * EXAMPLES
    structural = best.get("product with structural damping")
    more = {} if structural is None else {"structural product / product": round(structural / best["product"], 2)}
    return {
        "product / gradient": round(best["product"] / gradient, 2),
        "the same by arithmetic": round(net.product_cost, 2),
        "loss / gradient": round(best["loss"] / gradient, 2),
        "the same by arithmetic of a loss": round(net.forward_cost, 2),
        "squares / gradient": round(best["squares"] / gradient, 2),
        "gradient, share of peak": round(work / gradient / peak, 2),
        "product, share of peak": round(work * net.product_cost / best["product"] / peak, 2),
        "autograd / gradient": round(best["gradient, autograd"] / gradient, 2),
        "jvp and autograd / product": round(best["product, jvp and autograd"] / best["product"], 2),
        "backward twice / product": round(best["product, backward twice"] / best["product"], 2),
        **more,
        "peak_gflops": round(peak / 1e9, 1),
        "milliseconds": {name: round(value * 1e3, 2) for name, value in best.items()},
    }


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="parts of names")
    arguments = parser.parse_args()
    one_thread()
    found: dict[str, Any] = {}
    for name, net in CASES:
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        with torch.random.fork_rng():
            found[name] = measure(net, arguments.rounds)
        print(f"{name:32} {json.dumps(found[name])}", flush=True)
    picked = ("product / gradient", "the same by arithmetic", "product, share of peak", "jvp and autograd / product",
              "backward twice / product")  # fmt: skip
    ratios = {name: {key: row[key] for key in picked} for name, row in found.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps({"ratios": ratios, "nets": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
