"""How weights start: one pure function of net, init and seed, in float64 (docs/inits.md has all kinds in a table).

Each weight layer draws from its own generator, seeded by (the trial's `init` stream, layer number), so that
two nets that begin with the same layers begin with the same weights, whatever follows. Biases are 0 but for
the tanh layers of `sparse` and `sparse-distinct`.

The first matrix of a recurrent net is two blocks, inputs to hidden [I, H] above hidden to hidden [H, H]. Each is
drawn as a layer of its own, of fan-in I and of fan-in H: what suits a layer suits each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.config import InitConfig, NetConfig, SeedConfig

Array = NDArray[np.float64]
Params = list[tuple[Array, Array]]

CUT = 2.0
"""Where the truncated normal ends, in standard deviations of the normal it is cut from (HR18)."""
CUT_VARIANCE = 1 - 2 * CUT * math.exp(-(CUT**2) / 2) / math.sqrt(2 * math.pi) / math.erf(CUT / math.sqrt(2))
"""What the cut leaves of the variance, 1 - 2c phi(c) / (2 Phi(c) - 1) = 0.77374 for c = 2."""


def initial(net: NetConfig, init: InitConfig, seed: SeedConfig) -> Params:
    """Draw the (weights [I, O], biases [O]) of every layer, first to last, all float64.

    Raises ValueError for kinds that the net cannot have.
    """
    if init.kind == "pretrained":
        raise ValueError("init 'pretrained' is learned from data: pretraining.pretrained(config, data) returns it")
    if init.kind == "echo" and not net.steps:
        raise ValueError("init 'echo' is for recurrent nets (S13 Table 4): give the net steps, or choose another init")
    stream = seed.stream("init")
    params: Params = []
    for layer, (_, outputs) in enumerate(net.layers):
        rng = np.random.default_rng([stream, layer])
        parts = [_draw(rng, init, net, layer, inputs, recurrent) for inputs, recurrent in _blocks(net, layer)]
        biases = 0.5 if init.kind in _SPARSE and _is_tanh(net, layer) else 0.0  # S13 section 3.1
        params.append((init.scale * np.concatenate(parts), np.full(outputs, biases)))
    return params


def _blocks(net: NetConfig, layer: int) -> list[tuple[int, bool]]:
    """List the (rows, whether they come from the hidden units themselves) that make up a layer's matrix."""
    if net.steps and layer == 0:
        return [(net.widths[0], False), (net.widths[1], True)]
    return [(net.layers[layer][0], False)]


def _draw(
    rng: np.random.Generator, init: InitConfig, net: NetConfig, layer: int, inputs: int, recurrent: bool
) -> Array:
    """Draw one block [inputs, O] of a layer, before `scale`."""
    outputs = net.layers[layer][1]
    if init.kind == "echo":
        return _echo(rng, init, layer, recurrent, inputs, outputs)
    if init.kind in _SPARSE:
        after_tanh = recurrent or (layer > 0 and _is_tanh(net, layer - 1))
        factor: float = 0.5 ** (_is_tanh(net, layer) + after_tanh)  # once for each side (SCIENCE 1.4)
        return factor * _SPARSE[init.kind](rng, inputs, outputs, init.fan_in)
    return _DENSE[init.kind](rng, inputs, outputs, init)


def _is_tanh(net: NetConfig, layer: int) -> bool:
    """Whether a weight layer feeds tanh units; the output layer has no activation of its own, so it does not."""
    return layer < len(net.hidden) and net.hidden[layer] == "tanh"


def _sparse(rng: np.random.Generator, inputs: int, outputs: int, fan_in: int) -> Array:
    """S13 section 3.1 as its released code does it (SCIENCE 1.4): indices drawn with replacement."""
    rows = rng.integers(inputs, size=(fan_in, outputs))
    values = rng.standard_normal((fan_in, outputs))
    columns = np.arange(outputs)
    weights = np.zeros((inputs, outputs))
    for row, value in zip(rows, values, strict=True):
        weights[row, columns] = value  # a second draw of an index overwrites the first: never their sum
    return weights


def _sparse_distinct(rng: np.random.Generator, inputs: int, outputs: int, fan_in: int) -> Array:
    """S13 section 3.1 as its text says it: exactly `fan_in` inputs of each unit, or all where there are fewer."""
    chosen = min(fan_in, inputs)
    keys = rng.random((inputs, outputs))
    rows = np.sort(np.argpartition(keys, chosen - 1, axis=0)[:chosen], axis=0)  # sorted: alike on every processor
    weights = np.zeros((inputs, outputs))
    np.put_along_axis(weights, rows, rng.standard_normal((chosen, outputs)), axis=0)
    return weights


def _echo(rng: np.random.Generator, init: InitConfig, layer: int, recurrent: bool, inputs: int, outputs: int) -> Array:
    """S13 Table 4: dense weights in and out, sparse recurrent weights of a given spectral radius."""
    if layer:
        return 0.1 * rng.standard_normal((inputs, outputs))
    if not recurrent:
        return init.input_scale * rng.standard_normal((inputs, outputs))
    weights = _sparse(rng, inputs, outputs, init.fan_in)
    # Every unit hears at least one, so there is a cycle, and the radius is not 0.
    with _one_thread():
        radius = float(torch.linalg.eigvals(torch.from_numpy(weights)).abs().max())
    return weights * (init.spectral_radius / radius)


def _standard(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    bound = 1 / math.sqrt(inputs)  # GB10 eq. 1
    return rng.uniform(-bound, bound, (inputs, outputs))


def _normalized(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    bound = math.sqrt(6 / (inputs + outputs))  # GB10 eq. 16
    return rng.uniform(-bound, bound, (inputs, outputs))


def _normalized_normal(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    return rng.standard_normal((inputs, outputs)) * math.sqrt(2 / (inputs + outputs))  # GB10 eq. 12


def _lecun(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    return rng.standard_normal((inputs, outputs)) * math.sqrt(1 / inputs)  # LeCun et al. 1998, section 4.6


def _he(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    return rng.standard_normal((inputs, outputs)) * math.sqrt(2 / inputs)  # He et al. 2015, eq. 10


def _he_uniform(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    bound = math.sqrt(6 / inputs)  # variance bound^2 / 3 = 2 / fan-in
    return rng.uniform(-bound, bound, (inputs, outputs))


def _he_truncated(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    return _cut_normal(rng, inputs, outputs) * math.sqrt(2 / inputs)  # variance 0.77374 x 2 / fan-in


def _he_truncated_corrected(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    return _cut_normal(rng, inputs, outputs) * math.sqrt(2 / inputs / CUT_VARIANCE)


def _kappa(rng: np.random.Generator, inputs: int, outputs: int, init: InitConfig) -> Array:
    return rng.standard_normal((inputs, outputs)) * math.sqrt(init.kappa / inputs)  # HR18 Theorem FC


def _orthogonal(rng: np.random.Generator, inputs: int, outputs: int, _: InitConfig) -> Array:
    """Saxe et al. 2014: Q of a normal matrix's QR, uniform once R's diagonal is made positive (Mezzadri 2007)."""
    tall = torch.from_numpy(rng.standard_normal((max(inputs, outputs), min(inputs, outputs))))
    with _one_thread():
        q, r = torch.linalg.qr(tall)
    signed: Array = (q * r.diagonal().sign()).numpy()
    return np.ascontiguousarray(signed if inputs >= outputs else signed.T)


def _cut_normal(rng: np.random.Generator, inputs: int, outputs: int) -> Array:
    """Draw from the standard normal law given abs(x) <= CUT."""
    values = rng.standard_normal(inputs * outputs)
    while len(beyond := np.flatnonzero(abs(values) > CUT)):
        values[beyond] = rng.standard_normal(len(beyond))
    return values.reshape(inputs, outputs)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Factor matrices on one thread, as torch can and numpy cannot: the last bits depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_SPARSE: dict[str, Callable[[np.random.Generator, int, int, int], Array]] = {
    "sparse": _sparse,
    "sparse-distinct": _sparse_distinct,
}
_DENSE: dict[str, Callable[[np.random.Generator, int, int, InitConfig], Array]] = {
    "standard": _standard,
    "normalized": _normalized,
    "normalized-normal": _normalized_normal,
    "lecun": _lecun,
    "he": _he,
    "he-uniform": _he_uniform,
    "he-truncated": _he_truncated,
    "he-truncated-corrected": _he_truncated_corrected,
    "kappa": _kappa,
    "orthogonal": _orthogonal,
}
