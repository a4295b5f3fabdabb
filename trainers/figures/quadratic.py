"""S13 Fig. 2: gradient descent, classical momentum and Nesterov's on an oblong quadratic in two dimensions.

The paper prints neither curvatures nor learning rate; those here are ours, the claim is about the shape of the paths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def path(method: str, curvatures: Array, start: Array, lr: float, mu: float, updates: int) -> Array:
    """Follow f(x) = sum_i curvature_i x_i^2 / 2 from `start`: the points [updates + 1, D]."""
    points = [start.astype(np.float64)]
    velocity = np.zeros_like(points[0])
    for _ in range(updates):
        ahead = points[-1] + mu * velocity if method == "nag" else points[-1]
        velocity = (0.0 if method == "sgd" else mu) * velocity - lr * curvatures * ahead  # S13 eq. 1, 3
        points.append(points[-1] + velocity)  # S13 eq. 2, 4
    return np.stack(points)


def twin_path(curvatures: Array, start: Array, lr: float, mu: float, updates: int) -> Array:
    """NAG's path by S13 Theorem 2.1: classical momentum with mu (1 - lr * curvature) in each eigen-direction."""
    effective = mu * (1 - lr * curvatures)
    points = [start.astype(np.float64)]
    velocity = np.zeros_like(points[0])
    for _ in range(updates):
        velocity = effective * velocity - lr * curvatures * points[-1]
        points.append(points[-1] + velocity)
    return np.stack(points)


def oblong(
    curvatures: tuple[float, float] = (1.0, 50.0),
    start: tuple[float, float] = (-1.0, 1.0),
    lr: float = 0.018,
    mu: float = 0.9,
    updates: int = 60,
) -> dict[str, Any]:
    """Compute the three paths, and how far each swings along the steep axis.

    `swing` is the path length along the steep axis over the distance from the start to the minimum on it: 1 for a
    path that goes straight there. `twin_distance` is the largest difference between NAG and Theorem 2.1's twin.
    """
    steep, begin = np.array(curvatures), np.array(start)
    paths = {method: path(method, steep, begin, lr, mu, updates) for method in ("sgd", "cm", "nag")}
    twin = twin_path(steep, begin, lr, mu, updates)
    values = {method: 0.5 * (points**2 @ steep) for method, points in paths.items()}
    return {
        "paths": {method: points.tolist() for method, points in paths.items()},
        "values": {method: value.tolist() for method, value in values.items()},
        "swing": {m: float(np.abs(np.diff(p[:, 1])).sum() / abs(begin[1])) for m, p in paths.items()},
        "sign_changes": {m: int((np.diff(np.sign(p[:, 1])) != 0).sum()) for m, p in paths.items()},
        "twin_distance": float(np.abs(paths["nag"] - twin).max()),
    }
