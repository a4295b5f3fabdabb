"""Which nets cannot start: a rule on a net's diagnostics before its first update, without state or randomness.

HR18 show that a net cannot train when its lengths M_l shrink or grow exponentially with depth, GB10 and S13 that one
cannot whose gradients do. The rule compares the last hidden layer with the first; it says nothing of recurrent nets,
of learning rates, or of what goes wrong later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a spec names bounds, and is read without torch
    from trainers.diagnostics import Diagnostics

NEEDED = ("lengths", "gradients")
"""What of `diagnostics.measure` the rule looks at."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The ratios that a net may have at birth.

    `length` is M_H / M_0. Its default lets pass what was seen to start: kappa = 4 at depth 10 (2^10), and not what was
    not: kappa 1 and 4 from depth 20 (2^-20, 2^20; SCIENCE 11). `gradient` is the standard deviation of dCost/dz at
    layer 1 over that at layer H: the sparse init of S13 Table 3 at a quarter of its scale, which fails, has 1e-6,
    at half its scale 2e-4.
    """

    length: tuple[float, float] = (1e-5, 1e5)
    gradient: tuple[float, float] = (1e-4, 1e4)

    def __post_init__(self) -> None:
        for name in ("length", "gradient"):
            low, high = getattr(self, name)
            if not 0 <= low < 1 < high:
                raise ValueError(
                    f"doomed {name}=[{low:g}, {high:g}]: the bounds of a ratio, one in [0, 1), one above 1"
                )


def verdict(found: Diagnostics, bounds: Bounds) -> str | None:
    """Why a net measured at birth cannot start, in words with the numbers; None if nothing speaks against it."""
    if "length" not in found or "gradient_sd" not in found:  # a recurrent net
        return None
    lengths: list[float] = found["length"].values[:, 0].tolist()
    gradients: list[float] = found["gradient_sd"].values[:-1, 0].tolist()
    hidden = len(lengths) - 1
    if not hidden:
        return None
    if (layer := _first(lengths, broken=True)) is not None:
        return f"M of layer {layer} is not finite"
    if (layer := _first(lengths[1:], broken=False)) is not None:
        return f"layer {layer + 1} is dead: its units are 0 on every example"
    if (layer := _first(gradients, broken=True)) is not None:
        return f"the gradient at layer {layer + 1} is not finite"
    if lengths[0] and (why := _beyond(lengths[-1] / lengths[0], bounds.length)):
        return f"lengths {why[0]} with depth: M_{hidden} / M_0 = {lengths[-1] / lengths[0]:.3g}, {why[1]}"
    if hidden == 1:
        return None
    if not gradients[0] or not gradients[-1]:
        return f"no gradient arrives at layer {1 if gradients[-1] else hidden}"
    ratio = gradients[0] / gradients[-1]
    if why := _beyond(ratio, bounds.gradient):
        return f"gradients {why[0]} on the way back: sd at layer 1 / at layer {hidden} = {ratio:.3g}, {why[1]}"
    return None


def _first(values: Sequence[float], *, broken: bool) -> int | None:
    """The place of the first value that is not finite (`broken`), or else 0."""
    return next((i for i, value in enumerate(values) if (not math.isfinite(value) if broken else value == 0)), None)


def _beyond(ratio: float, bounds: tuple[float, float]) -> tuple[str, str] | None:
    """How a ratio leaves its bounds."""
    low, high = bounds
    if ratio < low:
        return "shrink", f"below {low:g}"
    return ("grow", f"above {high:g}") if ratio > high else None
