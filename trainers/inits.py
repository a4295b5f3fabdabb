"""How weights start: one pure function of net, init and seed, in numpy float64.

Each weight layer draws from its own generator, seeded by (the trial's `init` stream, layer number), so that
two nets that begin with the same layers begin with the same weights, whatever follows. Biases are 0 but for
the tanh layers of `sparse`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainers.config import InitConfig, NetConfig, SeedConfig

Params = list[tuple[NDArray[np.float64], NDArray[np.float64]]]


def initial(net: NetConfig, init: InitConfig, seed: SeedConfig) -> Params:
    """Draw the (weights [I, O], biases [O]) of every layer, first to last, all float64."""
    stream = seed.stream("init")
    params: Params = []
    for layer, (inputs, outputs) in enumerate(net.layers):
        rng = np.random.default_rng([stream, layer])
        if init.kind == "sparse":
            weights, biases = _sparse(rng, net, layer, init.fan_in)
        else:
            weights, biases = _DENSE[init.kind](rng, inputs, outputs), np.zeros(outputs)
        params.append((init.scale * weights, biases))
    return params


def _sparse(
    rng: np.random.Generator, net: NetConfig, layer: int, fan_in: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """S13 section 3.1 as its released code does it (SCIENCE 1.4): indices drawn with replacement."""
    inputs, outputs = net.layers[layer]
    rows = rng.integers(inputs, size=(fan_in, outputs))
    values = rng.standard_normal((fan_in, outputs))
    columns = np.arange(outputs)
    weights = np.zeros((inputs, outputs))
    for row, value in zip(rows, values, strict=True):
        weights[row, columns] = value  # a second draw of an index overwrites the first: never their sum
    # The output layer has no activation of its own in `hidden`: it counts as not tanh, its input may be.
    is_tanh = layer < len(net.hidden) and net.hidden[layer] == "tanh"
    after_tanh = layer > 0 and net.hidden[layer - 1] == "tanh"
    weights *= 0.5 ** (is_tanh + after_tanh)
    return weights, np.full(outputs, 0.5 if is_tanh else 0.0)


def _standard(rng: np.random.Generator, inputs: int, outputs: int) -> NDArray[np.float64]:
    bound = 1 / math.sqrt(inputs)  # GB10 eq. 1
    return rng.uniform(-bound, bound, (inputs, outputs))


def _normalized(rng: np.random.Generator, inputs: int, outputs: int) -> NDArray[np.float64]:
    bound = math.sqrt(6 / (inputs + outputs))  # GB10 eq. 16
    return rng.uniform(-bound, bound, (inputs, outputs))


def _he(rng: np.random.Generator, inputs: int, outputs: int) -> NDArray[np.float64]:
    return rng.standard_normal((inputs, outputs)) * math.sqrt(2 / inputs)  # variance 2 / fan-in


_DENSE: dict[str, Callable[[np.random.Generator, int, int], NDArray[np.float64]]] = {
    "standard": _standard,
    "normalized": _normalized,
    "he": _he,
}
