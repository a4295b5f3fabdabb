"""GB10 Fig. 5: the cost as a function of two weights of a net with one hidden tanh layer, two costs side by side.

The net is 1-1-1 in the two weights that vary, with random inputs and binary targets, as the paper's caption has it:
one weight into the hidden unit, one out of it. The quadratic cost has broader plateaus than cross-entropy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def costs(w1: Array, w2: Array, inputs: Array, targets: Array) -> tuple[Array, Array]:
    """Return the mean cross-entropy and the mean quadratic cost at each pair of weights, each [len(w1), len(w2)].

    The output is p = logistic(w2 tanh(w1 x)); the quadratic cost is (p - target)^2.
    """
    hidden = np.tanh(w1[:, None] * inputs)
    logits = w2[None, :, None] * hidden[:, None, :]
    # log(1 + exp(z)) - t z is the cross-entropy of a logistic output, without overflow
    entropy = np.logaddexp(0, logits) - targets * logits
    quadratic = (1 / (1 + np.exp(-logits)) - targets) ** 2
    return entropy.mean(-1), quadratic.mean(-1)


def plateau(cost: Array, step: float, share: float = 0.05) -> float:
    """Share of the surface whose slope is below `share` of the steepest slope."""
    slopes = np.hypot(*np.gradient(cost, step))
    return float((slopes < share * slopes.max()).mean())


def cost_surface(seeds: int = 20, examples: int = 50, bound: float = 10.0, points: int = 101) -> dict[str, Any]:
    """Compute both surfaces for the first seed, and the share of plateau of each cost for every seed."""
    axis = np.linspace(-bound, bound, points)
    shares: dict[str, list[float]] = {"cross_entropy": [], "quadratic": []}
    surfaces: dict[str, Any] = {}
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 5])
        entropy, quadratic = costs(
            axis, axis, rng.standard_normal(examples), rng.integers(0, 2, examples).astype(np.float64)
        )
        for name, cost in (("cross_entropy", entropy), ("quadratic", quadratic)):
            shares[name].append(plateau(cost, axis[1] - axis[0]))
            surfaces.setdefault(name, np.round(cost[::4, ::4], 4).tolist())
    return {"axis": axis[::4].tolist(), "surfaces": surfaces, "plateau_share": shares}
