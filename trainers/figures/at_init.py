"""What nets look like before their first update: GB10 Fig. 6 to 8 and section 4.2.1, HR18 Fig. 1a and 2a."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trainers import diagnostics
from trainers.config import InitConfig, NetConfig, SeedConfig
from trainers.data import Data, Part
from trainers.inits import initial
from trainers.tasks import load


def gradients(width: int = 1000, depth: int = 5, examples: int = 300, seeds: int = 5) -> dict[str, Any]:
    """GB10 Fig. 6 to 8: tanh nets under standard and normalized init, a value for each seed.

    On Shapeset; the Jacobian's mean singular value, over the square layers between hidden ones and over seeds, also on
    MNIST: it depends on how far the inputs drive the first layer into saturation, and the paper names no data for it.
    """
    kinds = ("standard", "normalized")
    each = {(task, kind): _at_init(task, kind, width, depth, examples, seeds) for task in _TASKS for kind in kinds}
    found: dict[str, Any] = {"width": width, "seeds": seeds}
    for kind in kinds:
        shapes = each["shapeset", kind]
        activation, gradient, weight = (
            np.stack([one[name].values[:, 0] for one in shapes])
            for name in ("activation_sd", "gradient_sd", "weight_gradient_sd")
        )
        # Layer 1 differs by its inputs, the output layer by its width: the layers between show the claim of Fig. 8.
        for name, ratio in (
            ("activation_sd_last_over_first", activation[:, -1] / activation[:, 0]),
            ("gradient_sd_first_over_last", gradient[:, 0] / gradient[:, depth - 1]),
            ("weight_gradient_sd_first_over_last", weight[:, 1] / weight[:, depth - 1]),
        ):
            found.setdefault(name, {})[kind] = ratio.tolist()
        for name, values in (("activation_sd", activation), ("gradient_sd", gradient), ("weight_gradient_sd", weight)):
            found.setdefault(name, {})[kind] = np.median(values, 0).tolist()
    found["jacobian_mean_singular_value"] = {
        task: {kind: _singular(each[task, kind], depth) for kind in kinds} for task in _TASKS
    }
    return found


_TASKS = ("shapeset", "mnist")


def _at_init(task: str, kind: str, width: int, depth: int, examples: int, seeds: int) -> list[diagnostics.Diagnostics]:
    data = Data(load(task))
    net = NetConfig((data.info.inputs, *[width] * depth, data.info.outputs), ("tanh",) * depth, "softmax")
    nets = [initial(net, InitConfig(kind), SeedConfig(seed, "figure")) for seed in range(seeds)]
    return diagnostics.measure_all(net, nets, data.valid.head(examples), ("activations", "gradients", "jacobian"))


def _singular(each: list[diagnostics.Diagnostics], depth: int) -> float:
    return float(np.mean([one["singular_mean"].values[: depth - 1, 0] for one in each]))


def lengths(
    depth: int = 40, width: int = 200, kappas: tuple[float, ...] = (1.0, 2.0, 4.0), seeds: int = 100
) -> dict[str, Any]:
    """HR18 Fig. 1a: log of the mean length M_d by depth for variance kappa / fan-in, ReLU.

    `rate_per_layer` is the slope of log E[M_d] over depth, log(kappa / 2) in theory (HR18 Theorem FC). Products of
    many layers are heavy-tailed, so each layer's mean ratio is measured and the logs are added (SCIENCE 11).
    """
    net = NetConfig((width,) * (depth + 2), ("relu",) * depth, "squared")
    part = _one_point(width)
    rates, means = {}, {}
    for kappa in kappas:
        nets = (initial(net, InitConfig("kappa", kappa=kappa), SeedConfig(s, "figure")) for s in range(seeds))
        each = np.stack([diagnostics.measure(net, p, part, ("lengths",))["length"].values[:, 0] for p in nets])
        steps = np.log((each[:, 1:] / each[:, :-1]).mean(0))
        rates[f"{kappa:g}"] = float(steps.mean())
        means[f"{kappa:g}"] = np.concatenate([[0.0], np.cumsum(steps)]).tolist()
    return {"rate_per_layer": rates, "log_mean_length": means, "seeds": seeds, "width": width}


def residual_lengths(
    modules: int = 50, width: int = 5, bases: tuple[float, ...] = (1.0, 0.9, 0.5), seeds: int = 500
) -> dict[str, Any]:
    """HR18 Fig. 2a: mean length after so many residual modules of one layer, eta_l = b^l, He normal.

    M_L grows like exp(sum eta): `growth_of_last_half` is E[M_L / M_0] / E[M_(L/2) / M_0], means over nets, by b.
    """
    part = _one_point(width)
    growth, means = {}, {}
    for base in bases:
        eta = tuple(base ** (layer + 1) for layer in range(modules))
        net = NetConfig((width,) * (modules + 3), ("relu",) * (modules + 1), "squared", eta)
        nets = [initial(net, InitConfig("he"), SeedConfig(seed, "figure")) for seed in range(seeds)]
        each = diagnostics.measure_all(net, nets, part, ("lengths",))
        values = np.stack([one["length"].values[1:, 0] for one in each])
        started = values[values[:, 0] > 0]  # of so narrow a first layer some nets are dead from the start
        ratio = (started / started[:, :1]).mean(0)
        growth[f"{base:g}"] = float(ratio[-1] / ratio[modules // 2])
        means[f"{base:g}"] = ratio.tolist()
    return {
        "growth_of_last_half": growth,
        "mean_length_over_first": means,
        "modules": modules,
        "width": width,
        "seeds": seeds,
    }


def _one_point(width: int) -> Part:
    """One input of length 1 in HR18's measure, M_0 = 1."""
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((1, width)))
    inputs /= inputs.square().mean().sqrt()
    return Part(inputs, torch.zeros(1, width, dtype=torch.float64), None)
