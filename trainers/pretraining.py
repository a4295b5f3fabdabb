"""The init that is learned: greedy layer-wise denoising autoencoders (GB10 figure 11; Vincent et al. 2008).

Each hidden layer f(x W + b) learns to rebuild its inputs x from corrupted ones: every input is set to 0 with
probability `corruption`, the code is h = f(x' W + b), the reconstruction h W^T + c with the same W (tied). Inputs
within [0, 1] are rebuilt by logistic units and cross-entropy, others by linear units and squared error, each summed
over inputs and averaged over cases, as everywhere in musweep. A layer's inputs are the codes of the layer below,
uncorrupted; those lie within [0, 1] if it is logistic.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trainers import inits, passes
from trainers.config import InitConfig, NetConfig, SeedConfig, TrialConfig
from trainers.data import Data

_BLOCK = 64  # batches looked up at a time


def pretrained(config: TrialConfig, data: Data) -> inits.Params:
    """Learn the (weights [I, O], biases [O]) of the hidden layers on the train part, in its dtype; no labels are seen.

    Layer l starts from `normalized` and does `pretrain_updates` updates of plain SGD on the batches that updates
    l * pretrain_updates and on of the trial itself would see; the masks are drawn from the seed's stream `pretrain`.
    The output layer stays `normalized`. The arrays are float64. What a process has learned for a layer serves every
    trial of equal seed, batch and layers so far: the output layer, `scale`, the method and the updates do not matter.

    Raises ValueError for residual and recurrent nets.
    """
    net, init = config.net, config.init
    if net.eta or net.steps:
        kind = "residual" if net.eta else "recurrent"
        raise ValueError(f"init 'pretrained': this net is {kind}; autoencoders train plain ones: choose another init")
    learning = InitConfig(
        "pretrained",
        pretrain_updates=init.pretrain_updates,
        pretrain_lr=init.pretrain_lr,
        corruption=init.corruption,
    )
    layers = [
        _learned(data, net.widths[: depth + 1], net.hidden[:depth], learning, config.seed, config.batch)
        for depth in range(1, len(net.hidden) + 1)
    ]
    params = [(weights.double().cpu().numpy(), biases.double().cpu().numpy()) for weights, biases in layers]
    params.append(inits.initial(net, InitConfig("normalized"), config.seed)[-1])
    return [(init.scale * weights, biases.copy()) for weights, biases in params]


@lru_cache(maxsize=32)
def _learned(
    data: Data, widths: tuple[int, ...], hidden: tuple[str, ...], init: InitConfig, seed: SeedConfig, batch: int
) -> tuple[Tensor, Tensor]:
    """Learn the last of the layers between `widths`, after those below it; callers must not write to it."""
    layer, like = len(hidden) - 1, data.train.inputs
    below = [_learned(data, widths[: n + 1], hidden[:n], init, seed, batch) for n in range(1, layer + 1)]
    start = inits.initial(NetConfig(widths, hidden[:-1], "squared"), InitConfig("normalized"), seed)[-1][0]
    weights = torch.tensor(start, dtype=like.dtype, device=like.device)
    biases, visible = like.new_zeros(widths[-1]), like.new_zeros(widths[-2])
    loss = "logistic" if _within_unit(data, hidden, layer) else "squared"
    step = init.pretrain_lr * passes.delta_factor(loss) / batch
    rng = np.random.default_rng([seed.stream("pretrain"), layer])
    first = layer * init.pretrain_updates
    for inputs in _batches(data, seed, batch, first, first + init.pretrain_updates):
        for activation, (w, b) in zip(hidden, below, strict=False):
            inputs = _codes(activation, inputs, w, b)
        kept = torch.from_numpy(rng.random(inputs.shape, dtype=np.float32) >= init.corruption)
        corrupted = inputs * kept.to(like.device)
        codes = _codes(hidden[-1], corrupted, weights, biases)
        delta = torch.addmm(visible, codes, weights.T)
        passes.output_delta(loss, delta, inputs, delta)
        delta_codes = delta @ weights
        passes.backpropagate(hidden[-1], delta_codes, codes)
        weights.addmm_(corrupted.T, delta_codes, alpha=-step).addmm_(delta.T, codes, alpha=-step)
        biases.sub_(delta_codes.sum(0), alpha=step)
        visible.sub_(delta.sum(0), alpha=step)
    return weights, biases


def _within_unit(data: Data, hidden: tuple[str, ...], layer: int) -> bool:
    """Whether the inputs of a layer lie in [0, 1]: by their values if they are data, by their activation if codes."""
    if layer:
        return hidden[layer - 1] == "sigmoid"
    low, high = data.train.inputs.aminmax()
    return float(low) >= 0 and float(high) <= 1


def _codes(activation: str, inputs: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    z = torch.addmm(biases, inputs, weights).mul_(passes.scale_before(activation))
    passes.activate(activation, z, z)
    return z


def _batches(data: Data, seed: SeedConfig, batch: int, update: int, until: int) -> Iterator[Tensor]:
    """Yield the inputs [B, I] of updates `update` to `until` (exclusive) of a trial."""
    while update < until:
        pool = data.pool(seed, update, batch)
        count = min(_BLOCK, until - update, pool.until - update)
        for rows in pool.rows([(seed, update)], count):
            yield pool.part.inputs[rows.to(data.device)]
        update += count
