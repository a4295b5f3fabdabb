"""What a trial is between two updates, and its way to arrays and back (checkpoints hold arrays, never pickles)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers import inits
from trainers.config import InitConfig, NetConfig, SeedConfig, TrialConfig

if TYPE_CHECKING:
    from trainers.data import Data

Params = list[tuple[Tensor, Tensor]]

_SCALAR = "scalar:"
"""What names of scalars begin with, among a state's arrays."""


@dataclass
class TrialState:
    """A trial after `update` updates: theta and the velocity, each (weights [I, O], biases [O]) of every layer.

    `params` are theta itself, never NAG's look-ahead point. Of adam and adamw `velocity` holds the running mean of the
    gradient and `second` that of its square, both uncorrected; of diagonal `second` holds the running mean of the
    curvature and `velocity` zeros; methods with momentum have no `second`. Of hf `velocity` holds CG's last solution
    and `second` the theta that comes next, theta itself while none is known. `scalars` are the numbers that an engine
    keeps besides, by name: most methods have none, theirs following from the update. `diverged_at` is the first update
    whose output delta was not finite, None while there is none.
    """

    update: int
    params: Params
    velocity: Params
    diverged_at: int | None = None
    second: Params | None = None
    scalars: dict[str, float] = field(default_factory=dict)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Name every number: update, diverged_at (-1 for None), w0, b0, vw0, vb0, w1, ..., and sw0, sb0, ... if any.

        Each scalar is `scalar:NAME`, a float64.
        """
        arrays = {
            "update": np.array(self.update, dtype=np.int64),
            "diverged_at": np.array(-1 if self.diverged_at is None else self.diverged_at, dtype=np.int64),
        }
        for prefix, layers in (("", self.params), ("v", self.velocity), ("s", self.second or [])):
            for layer, (weights, biases) in enumerate(layers):
                arrays[f"{prefix}w{layer}"] = weights.cpu().numpy()
                arrays[f"{prefix}b{layer}"] = biases.cpu().numpy()
        for name, value in self.scalars.items():
            arrays[_SCALAR + name] = np.array(value, dtype=np.float64)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TrialState:
        """The inverse of `to_arrays`, bit by bit. Raises KeyError when an array is missing."""
        layers = sum(name[0] == "w" for name in arrays)

        def read(prefix: str) -> Params:
            return [
                (torch.tensor(arrays[f"{prefix}w{layer}"]), torch.tensor(arrays[f"{prefix}b{layer}"]))
                for layer in range(layers)
            ]

        diverged = int(arrays["diverged_at"])
        second = read("s") if "sw0" in arrays else None
        scalars = {name[len(_SCALAR) :]: float(arrays[name]) for name in arrays if name.startswith(_SCALAR)}
        return cls(int(arrays["update"]), read(""), read("v"), None if diverged < 0 else diverged, second, scalars)

    def clone(self) -> TrialState:
        """Copy every tensor."""

        def copy(layers: Params) -> Params:
            return [(w.clone(), b.clone()) for w, b in layers]

        second = None if self.second is None else copy(self.second)
        params, velocity = copy(self.params), copy(self.velocity)
        return TrialState(self.update, params, velocity, self.diverged_at, second, dict(self.scalars))

    def is_finite(self) -> bool:
        """Whether all its numbers are finite."""
        layers = (*self.params, *self.velocity, *(self.second or []))
        return all(bool(tensor.isfinite().all()) for pair in layers for tensor in pair)


@lru_cache(maxsize=8)
def _initial(net: NetConfig, init: InitConfig, seed: SeedConfig) -> inits.Params:
    return inits.initial(net, init, seed)


def initial_state(
    config: TrialConfig,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    data: Data | None = None,
) -> TrialState:
    """Return a trial before its first update: the weights of its init, the rest 0.

    `data` are needed by the init `pretrained` only. Raises ValueError where they are missing.
    """
    if config.init.kind != "pretrained":
        drawn = _initial(config.net, config.init, config.seed)
    elif data is None:
        raise ValueError("init pretrained: trains on data, and none were given")
    else:
        from trainers.pretraining import pretrained

        drawn = pretrained(config, data)
    params = [
        (torch.tensor(w, dtype=dtype, device=device), torch.tensor(b, dtype=dtype, device=device)) for w, b in drawn
    ]
    second = None if config.method.family == "momentum" else zeros(params)
    return TrialState(0, params, zeros(params), second=second)


def zeros(like: Params) -> Params:
    """Zeros of the same shapes, dtype and device."""
    return [(torch.zeros_like(w), torch.zeros_like(b)) for w, b in like]
