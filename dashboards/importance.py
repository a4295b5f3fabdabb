"""Parameter importance by PED-ANOVA, in the standard library alone.

The same numbers as `optuna.importance.PedAnovaImportanceEvaluator` (a test holds the two together); Optuna's own
import brings scikit-learn, SciPy and pandas with it, which would be most of the time a report takes.

PED-ANOVA asks how differently a parameter is distributed among the best trials and among all of them: the Pearson
divergence of two one-dimensional Parzen densities on a grid (Watanabe et al. 2023, arXiv 2304.10255, section 3.2).
A conditional parameter counts within the trials that have it, weighted by alpha^2 / beta (arXiv 2601.20800, theorem
4.2). It uses only ranks, so trials stopped early and diverged ones count too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from dashboards.view import Param, View
from sweeps.history import Trial

CELLS = 50
"""Grid cells of a continuous parameter."""
SHARE = 0.1
LEAST = 5
ENOUGH = 10
"""The best trials are this share of all, but ENOUGH where these are few (at most a third of all and half of
those with an objective), and never fewer than LEAST."""


def importances(view: View) -> tuple[dict[str, float], int, int] | str:
    """Shares by parameter (largest first, summing to 1), how many trials count as best, and how many in all.

    Returns:
        Or, where nothing can be said, the reason as a sentence.
    """
    trials = [trial for trial in view.ranked if trial.state in ("complete", "stopped", "diverged")]
    finite = sum(view.value(trial) is not None for trial in trials)
    top = max(LEAST, math.ceil(SHARE * len(trials)), min(ENOUGH, len(trials) // 3, finite // 2))
    if len(view.params) < 2:
        return "Importance compares parameters, and fewer than two were searched."
    if len(trials) < 2 * LEAST:
        return f"Importance needs at least {2 * LEAST} finished trials; there are {len(trials)}."
    if finite <= top:
        return f"Importance needs more than {top} trials that did not diverge; there are {finite}."
    raw = {param.name: _param(param, trials[:top], trials) for param in view.params}
    total = sum(raw.values())
    if not total > 0:
        return "The best trials are spread over every parameter just as all trials are, so no importance stands out."
    ordered = sorted(raw.items(), key=lambda item: -item[1])
    return {name: value / total for name, value in ordered}, top, len(trials)


def _param(param: Param, best: Sequence[Trial], trials: Sequence[Trial]) -> float:
    """Unnormalised importance of one parameter, over the trials in which it was active."""
    size = _grid_size(param)
    top, region = _cells(param, best, size), _cells(param, trials, size)
    if not top or len(region) < 2 or size < 2:
        return 0.0
    density = _choice_density if param.kind == "choice" else _number_density
    top_p = [p + 1e-12 for p in density(top, size)]
    region_p = [p + 1e-12 for p in density(region, size)]
    divergence = sum(q * (p / q - 1) ** 2 for p, q in zip(top_p, region_p, strict=True))
    alpha, beta = len(top) / len(best), len(region) / len(trials)
    return alpha**2 / beta * divergence


def _grid_size(param: Param) -> int:
    if param.kind == "choice":
        return len(param.values)
    return CELLS if param.kind == "float" else min(CELLS, int(param.high - param.low) + 1)


def _cells(param: Param, trials: Sequence[Trial], size: int) -> list[int]:
    """The grid cell of each trial that has the parameter."""
    low, high = param.span()
    step = (high - low) / (size - 1)
    places = (param.place(trial.params[param.name]) for trial in trials if param.name in trial.params)
    return [min(max(math.ceil((place - low) / step - 0.5), 0), size - 1) for place in places if place is not None]


def _number_density(cells: list[int], size: int) -> list[float]:
    """Parzen density of ordered cells: Scott's bandwidth, and a flat prior worth one trial."""
    ordered, n = sorted(cells), len(cells)
    mean = sum(cells) / n
    deviation = math.sqrt(sum((cell - mean) ** 2 for cell in cells) / max(1, n - 1))
    quartiles = ordered[3 * n // 4] - ordered[max(n // 4 - 1, 0)]
    width = max(1.059 * min(quartiles / 1.34, deviation) * n**-0.2, 0.5 / 1.64)  # at least: 90% in its own cell
    kernels = [(cell, width, count) for cell, count in Counter(cells).items()] + [((size - 1) / 2, size, 1)]
    density = [0.0] * size
    for centre, sigma, weight in kernels:
        edges = [math.erf((i - 0.5 - centre) / (sigma * math.sqrt(2))) for i in range(size + 1)]
        scale = weight / (n + 1) / (edges[-1] - edges[0])
        for i in range(size):
            density[i] += scale * (edges[i + 1] - edges[i])
    return density


def _choice_density(cells: list[int], size: int) -> list[float]:
    """Density of unordered cells: each value seen leaks a little to the others, and a flat prior worth one trial."""
    counts, n = Counter(cells), len(cells)
    leak = 1 / (len(counts) + 1)
    flat = (1 / size + sum(counts.values()) * leak / (1 + size * leak)) / (n + 1)
    return [flat + counts[i] / (1 + size * leak) / (n + 1) for i in range(size)]
