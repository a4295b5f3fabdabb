"""What a trial is between two updates, and its way to arrays and back (checkpoints hold arrays, never pickles)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers import inits
from trainers.config import InitConfig, NetConfig, SeedConfig, TrialConfig

Params = list[tuple[Tensor, Tensor]]


@dataclass
class TrialState:
    """A trial after `update` updates: theta and the velocity, each (weights [I, O], biases [O]) of every layer.

    `params` are theta itself, never NAG's look-ahead point. `diverged_at` is the first update whose output delta
    was not finite, None while there is none.
    """

    update: int
    params: Params
    velocity: Params
    diverged_at: int | None = None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Name every number: update, diverged_at (-1 for None), w0, b0, vw0, vb0, w1, ..."""
        arrays = {
            "update": np.array(self.update, dtype=np.int64),
            "diverged_at": np.array(-1 if self.diverged_at is None else self.diverged_at, dtype=np.int64),
        }
        for prefix, layers in (("", self.params), ("v", self.velocity)):
            for layer, (weights, biases) in enumerate(layers):
                arrays[f"{prefix}w{layer}"] = weights.cpu().numpy()
                arrays[f"{prefix}b{layer}"] = biases.cpu().numpy()
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
        return cls(int(arrays["update"]), read(""), read("v"), None if diverged < 0 else diverged)

    def clone(self) -> TrialState:
        """Copy every tensor."""
        params = [(w.clone(), b.clone()) for w, b in self.params]
        velocity = [(w.clone(), b.clone()) for w, b in self.velocity]
        return TrialState(self.update, params, velocity, self.diverged_at)

    def is_finite(self) -> bool:
        """Whether theta and velocity are finite throughout."""
        return all(bool(t.isfinite().all()) for pair in (*self.params, *self.velocity) for t in pair)


@lru_cache(maxsize=8)
def _initial(net: NetConfig, init: InitConfig, seed: SeedConfig) -> inits.Params:
    return inits.initial(net, init, seed)


def initial_state(
    config: TrialConfig, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> TrialState:
    """Return a trial before its first update: `inits.initial` and a velocity of 0."""
    drawn = _initial(config.net, config.init, config.seed)
    params = [
        (torch.tensor(w, dtype=dtype, device=device), torch.tensor(b, dtype=dtype, device=device)) for w, b in drawn
    ]
    velocity = [(torch.zeros_like(w), torch.zeros_like(b)) for w, b in params]
    return TrialState(0, params, velocity)
