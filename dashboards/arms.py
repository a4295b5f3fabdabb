"""How the arms of a comparison are called, coloured and measured: the same in every plot and table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dashboards.plots import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from dashboards.view import text
from sweeps.comparison import Arm, Comparison
from sweeps.labels import method_name

SHORT = {kind: method_name(kind) for kind in ("sgd", "cm", "nag", "adam", "adamw", "hf")}
MOST_PARTS = 4
_POINTS = ((BLUE, "circle"), (ORANGE, "square"), (GREEN, "triangle-up"), (PURPLE, "triangle-down"), (SKY, "cross"))
_BASELINES = (("--ink", "diamond", "dash"), ("--soft", "star", "dot"))
_SWEEPS = ((VERMILION, "hexagon", "dashdot"),)


@dataclass(frozen=True, slots=True)
class Look:
    """An arm's short name, colour, line and mark; baselines are in the page's ink and dashed."""

    name: str
    colour: str
    symbol: str
    dash: str

    def tint(self, opacity: str = "26") -> str:
        """The colour, nearly transparent; opacity in hex."""
        return self.colour + opacity


def looks(comparison: Comparison) -> dict[str, Look]:
    """The look of each arm, by the arm's name; the primary contrast's point has the first colour."""
    primary = comparison.primary
    arms = sorted(comparison.arms, key=lambda arm: primary is None or arm.name != primary.a)
    names = dict(zip((arm.name for arm in arms), _names(arms), strict=True))
    found: dict[str, Look] = {}
    counts = {"point": 0, "hf": 0, "sweep": 0}
    for arm in arms:
        place = counts[arm.kind]
        counts[arm.kind] += 1
        if arm.kind == "point":
            colour, symbol = _POINTS[place % len(_POINTS)]
            found[arm.name] = Look(names[arm.name], colour, symbol, "solid")
        else:
            some = _BASELINES if arm.kind == "hf" else _SWEEPS
            found[arm.name] = Look(names[arm.name], *some[place % len(some)])
    return {arm.name: found[arm.name] for arm in comparison.arms}


def _names(arms: Sequence[Arm]) -> list[str]:
    """The shortest names that tell the arms apart: methods, methods with µ_max, or numbered methods."""
    methods = [SHORT.get(arm.method, arm.method) for arm in arms]
    methods = [
        f"{name} of {arm.name}" if arm.kind == "sweep" else name for name, arm in zip(methods, arms, strict=True)
    ]
    momenta = [arm.params.get("mu_max") if arm.method != "sgd" else None for arm in arms]
    longer = [
        name if mu is None else f"{name} µ {text('mu_max', mu)}" for name, mu in zip(methods, momenta, strict=True)
    ]
    names = [many if methods.count(name) > 1 else name for name, many in zip(methods, longer, strict=True)]
    alike = {name for name in names if names.count(name) > 1}
    return [f"{name} ({arm.name})" if name in alike else name for name, arm in zip(names, arms, strict=True)]


def amount(comparison: Comparison, work: float) -> float:
    """Work in passes over the training set, or where examples are drawn online in examples."""
    return work / comparison.train_examples if comparison.train_examples else work


def unit(comparison: Comparison) -> str:
    """What `amount` counts."""
    return "passes over the training set" if comparison.train_examples else "examples seen"


def spoken(metric: str) -> str:
    """A metric's name in a sentence."""
    return metric.replace("_", " ")


def wrapped(label: str) -> str:
    """A label with a line for each of its first parts, for plotly."""
    parts = label.split(", ")
    return "<br>".join(parts[:MOST_PARTS]) + (" ..." if len(parts) > MOST_PARTS else "")
