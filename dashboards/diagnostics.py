"""The plots of what was measured inside nets, as the papers have them: by depth, over training, and as histograms.

Only a sweep with diagnostics has them; pyarrow is imported for such a one alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dashboards.page import Section
from dashboards.plots import BLUE, GREY, PURPLE, VERMILION, VIRIDIS, Figure, safe
from dashboards.view import View, duration
from sweeps.history import Trial

MOST_LAYERS = 6
MOST_NETS = 60
_DECADES = 2.0
"""What is more decades below the lowest layer's highest density is not shown: single counts in the tails."""
_NATURAL = ((0.0, 1.0), (-1.0, 1.0))
"""Ends of an activation's own. Elsewhere the outermost bins also count what lies beyond, and are not drawn."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One quantity of one layer: a number as a list of one, or a histogram's counts between its ends."""

    layer: int
    values: list[float]
    ends: tuple[float, float] | None


@dataclass(slots=True)
class Nets:
    """All measurements: layers by (trial number, update) and quantity."""

    found: dict[tuple[int, int], dict[str, list[Layer]]] = field(default_factory=dict)

    def updates(self, trial: Trial, quantity: str) -> list[int]:
        """When a quantity of a trial was measured."""
        return sorted(update for (its, update), have in self.found.items() if its == trial.number and quantity in have)

    def layers(self, trial: Trial, update: int, quantity: str) -> list[Layer]:
        """A quantity by layer, first to last."""
        return self.found.get((trial.number, update), {}).get(quantity, [])

    def has(self, trial: Trial) -> bool:
        """Whether anything was measured of a trial."""
        return any(its == trial.number for its, _ in self.found)

    @property
    def seconds(self) -> float:
        """What it took in worker time."""
        return sum(have["seconds"][0].values[0] for have in self.found.values() if "seconds" in have)


def read(view: View) -> Nets | None:
    """The measurements of a sweep folder, None where there are none."""
    if view.folder is None or not any((view.folder / "diagnostics").glob("*.parquet")):
        return None
    from sweeps.store import read_diagnostics

    nets = Nets()
    for row in read_diagnostics(view.folder).to_pylist():
        net = nets.found.setdefault((int(row["trial_id"][1:]), row["update"]), {})
        ends = None if row["low"] is None else (row["low"], row["high"])
        net.setdefault(row["quantity"], []).append(Layer(row["layer"], row["values"], ends))
    return nets


def sections(view: View) -> list[Section]:
    """The report's sections about nets; none for a sweep that measured nothing."""
    nets = read(view)
    if nets is None:
        return []
    shown = chosen(view, nets)
    words = ", ".join(f"the {name} trial is {trial.id}" for name, trial in shown)
    words = f"{words[:1].upper()}{words[1:]}."
    drawn = [
        Section("depth", "Nets by depth", f"{_DEPTH} {_cost(view, nets)}", by_depth(view, nets, shown)),
        Section("training", "Nets over training", f"{_OVER} {words}", over_training(nets, shown)),
        Section("histograms", "Histograms by layer", f"{_COUNTS} {words}", histograms(nets, shown)),
    ]
    return [section for section in drawn if section.figures]


_DEPTH = (
    "What a signal meets on its way through each net, measured on a fixed set of examples: lengths M (mean square "
    "activation, HR18), the standard deviation of back-propagated gradients, the mean singular value of each layer's "
    "Jacobian (GB10). Lines that fall or rise steadily mean a signal that vanishes or explodes with depth."
)
_OVER = (
    "Each line is a layer, dark for the first and light for the last. Bars around means are standard deviations (GB10 "
    "figure 2); 98th percentiles are of absolute activations (figure 3)."
)
_COUNTS = (
    "Densities of activations, back-propagated gradients and weight gradients, before the first update and at the end "
    "(GB10 figures 4, 6, 7 and 8); each line is a layer, dark for the first and light for the last."
)


def _cost(view: View, nets: Nets) -> str:
    worked = sum(trial.wall_s for trial in view.trials)
    share = f", {nets.seconds / worked:.1%} of the {duration(worked)} of training" if worked else ""
    return f"Measuring took {duration(nets.seconds)}{share}."


def chosen(view: View, nets: Nets) -> list[tuple[str, Trial]]:
    """The best and the worst trial of those that were measured during training, or else of all measured."""
    measured = [trial for trial in view.ranked if nets.has(trial)]
    trained = [trial for trial in measured if any(update for its, update in nets.found if its == trial.number)]
    some = trained or measured
    return [("best", some[0]), ("worst", some[-1])][: len(some)]


# -- by depth ----------------------------------------------------------------------------------------------------

_BY_DEPTH = (
    ("length", "length M", True),
    ("gradient_sd", "sd of back-propagated gradients", True),
    ("singular_mean", "mean singular value of the Jacobian", True),
    ("hidden_sd", "sd of hidden units", False),
)


def by_depth(view: View, nets: Nets, shown: list[tuple[str, Trial]]) -> list[Figure]:
    """Lengths, gradients and singular values by layer: all nets before their first update, two also at their end."""
    figures = []
    for quantity, title, log in _BY_DEPTH:
        data = [*_crowd(view, nets, quantity)]
        for (name, trial), colour in zip(shown, (BLUE, PURPLE), strict=False):
            data += _first_and_last(nets, name, trial, quantity, colour)
        if not data:
            continue
        x = "step" if quantity == "hidden_sd" else "layer"
        layout = {
            "xaxis": {"title": {"text": x}, "tickformat": ",d"},
            "yaxis": _axis(title, data, log),
            "hovermode": "closest",
        }
        figures.append(Figure(data, layout, 380, title=title[0].upper() + title[1:]))
    return figures


def _crowd(view: View, nets: Nets, quantity: str) -> Iterator[dict[str, Any]]:
    """All nets at birth: one trace of those that were judged unable to start, one of the others."""
    for name, colour, doomed in (("others at start", GREY, False), ("doomed at start", VERMILION, True)):
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        some = [trial for trial in view.trials if bool(trial.doomed) == doomed and nets.layers(trial, 0, quantity)]
        for trial in some[:MOST_NETS]:
            layers = nets.layers(trial, 0, quantity)
            x += [*(layer.layer for layer in layers), None]
            y += [*(layer.values[0] for layer in layers), None]
            text += [f"{trial.id}: {safe(view.described(trial))}"] * (len(layers) + 1)
        if x:
            yield {
                "type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "text": text, "opacity": 0.5,
                "line": {"width": 1, "color": colour}, "hovertemplate": "%{text}<br>%{y:.3~g}<extra></extra>",
            }  # fmt: skip


def _first_and_last(nets: Nets, name: str, trial: Trial, quantity: str, colour: str) -> list[dict[str, Any]]:
    updates = nets.updates(trial, quantity)
    traces = []
    for update in sorted({*updates[:1], *updates[-1:]}):
        layers = nets.layers(trial, update, quantity)
        when = "at start" if not update else f"at {update:,}"
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(layers) < 16 else "lines",
                "name": f"{name} {when}",
                "x": [layer.layer for layer in layers],
                "y": [layer.values[0] for layer in layers],
                "line": {"width": 2.5, "color": colour, "dash": "solid" if update else "dot"},
                "marker": {"size": 6},
                "hovertemplate": f"{trial.id} {when}<br>layer %{{x}}: %{{y:.3~g}}<extra></extra>",
            }
        )
    return traces


def _axis(title: str, data: list[dict[str, Any]], log: bool = True) -> dict[str, Any]:
    """A y axis; a log one over many decades has ticks at powers of ten alone."""
    axis: dict[str, Any] = {"title": {"text": title + (" (log)" if log else "")}}
    if not log:
        return axis | {"rangemode": "tozero"}
    places = [math.log10(y) for trace in data for y in trace["y"] if y and 0 < y < math.inf]
    decades = max(places, default=0.0) - min(places, default=0.0)
    ticks = {"dtick": math.ceil(decades / 8)} if decades > 2 else {}
    return axis | {"type": "log", "exponentformat": "power"} | ticks


# -- over training -----------------------------------------------------------------------------------------------


def over_training(nets: Nets, shown: list[tuple[str, Trial]]) -> list[Figure]:
    """Activations and weight gradients of a few layers over updates, for each trial shown."""
    figures = []
    for name, trial in shown:
        for draw, title in (
            (_means, "activations"),
            (_tails, "98th percentile and sd"),
            (_weights, "weight gradients"),
        ):
            if found := draw(nets, trial):
                data, axis = found
                layout = {
                    "xaxis": {"title": {"text": "update"}, "rangemode": "tozero", "separatethousands": True},
                    "yaxis": axis, "hovermode": "closest",
                }  # fmt: skip
                figures.append(Figure(data, layout, 360, title=f"{name}, {trial.id}: {title}"))
    return figures


def _means(nets: Nets, trial: Trial) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Mean activation of each layer with its standard deviation as bars (GB10 fig. 2)."""
    means, sds = (_series(nets, trial, f"activation_{which}") for which in ("mean", "sd"))
    if not means:
        return None
    data = []
    for colour, layer in _coloured(list(means)):
        line = _line(f"layer {layer}", colour, means[layer])
        bars = {"type": "data", "array": [sd for _, sd in sds[layer]], "thickness": 1, "width": 3}
        data.append(line | {"error_y": bars})
    return data, {"title": {"text": "mean activation ± sd"}}


def _tails(nets: Nets, trial: Trial) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """98th percentile (marks) and standard deviation (lines) of each layer's activations (GB10 fig. 3)."""
    tails, sds = (_series(nets, trial, f"activation_{which}") for which in ("p98", "sd"))
    if not tails:
        return None
    data = []
    for colour, layer in _coloured(list(tails)):
        data.append(_line(f"layer {layer}", colour, sds[layer]))
        marks = _line(f"layer {layer}", colour, tails[layer], what="98th percentile")
        data.append(marks | {"mode": "markers", "showlegend": False, "marker": {"symbol": "triangle-up", "size": 8}})
    return data, {"title": {"text": "▲ 98th percentile, ● sd"}, "rangemode": "tozero"}


def _weights(nets: Nets, trial: Trial) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Standard deviation of each layer's weight gradients (GB10 fig. 9)."""
    sds = _series(nets, trial, "weight_gradient_sd")
    if not sds:
        return None
    data = [_line(f"layer {layer}", colour, sds[layer]) for colour, layer in _coloured(list(sds))]
    return data, _axis("sd of weight gradients", data)


def _series(nets: Nets, trial: Trial, quantity: str) -> dict[int, list[tuple[int, float]]]:
    """(update, value) by layer; nothing where it was measured once only."""
    series: dict[int, list[tuple[int, float]]] = {}
    updates = nets.updates(trial, quantity)
    for update in updates if len(updates) > 1 else ():
        for layer in nets.layers(trial, update, quantity):
            series.setdefault(layer.layer, []).append((update, layer.values[0]))
    return series


def _line(name: str, colour: str, points: list[tuple[int, float]], what: str = "") -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "legendgroup": name,
        "x": [update for update, _ in points], "y": [value for _, value in points],
        "line": {"width": 1.8, "color": colour}, "marker": {"size": 5, "color": colour},
        "hovertemplate": f"{name}{' ' + what if what else ''}<br>update %{{x:,}}: %{{y:.3~g}}<extra></extra>",
    }  # fmt: skip


def _coloured(layers: list[int]) -> list[tuple[str, int]]:
    """At most MOST_LAYERS layers, the first and the last among them, from dark to light."""
    layers = sorted(layers)
    if len(layers) > MOST_LAYERS:
        layers = [layers[round(i * (len(layers) - 1) / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]
    ramp = VIRIDIS[:-1]  # its lightest colour does not show on paper
    return [(ramp[round(i * (len(ramp) - 1) / max(1, len(layers) - 1))], layer) for i, layer in enumerate(layers)]


# -- histograms --------------------------------------------------------------------------------------------------

_HISTOGRAMS = (  # the outputs' own gradient is the cost's, on another scale
    ("activation_histogram", "activations"),
    ("gradient_histogram", "back-propagated gradients"),
    ("weight_gradient_histogram", "weight gradients"),
)


def histograms(nets: Nets, shown: list[tuple[str, Trial]]) -> list[Figure]:
    """Densities by layer, before the first update and at the last measurement, for each trial shown."""
    figures = []
    for name, trial in shown:
        for quantity, title in _HISTOGRAMS:
            updates = nets.updates(trial, quantity)
            for update in sorted({*updates[:1], *updates[-1:]}):
                when = "at start" if not update else f"at {update:,}"
                layers = nets.layers(trial, update, quantity)
                if data := _densities(layers[:-1] if quantity == "gradient_histogram" else layers):
                    layout = {
                        "xaxis": {"title": {"text": title}}, "hovermode": "closest",
                        "yaxis": _axis("density", data) | {"range": _range(data)},
                    }  # fmt: skip
                    figures.append(Figure(data, layout, 320, title=f"{name}, {trial.id}: {title} {when}"))
    return figures


def _densities(layers: list[Layer]) -> list[dict[str, Any]]:
    by_layer = {layer.layer: layer for layer in layers if layer.ends and sum(layer.values[1:-1])}
    data = []
    for colour, layer in _coloured(list(by_layer)):
        counts, (low, high) = by_layer[layer].values, by_layer[layer].ends or (0.0, 1.0)
        width, total = (high - low) / len(counts), sum(counts)
        x = [low + (i + 0.5) * width for i in range(len(counts))]
        y = [count / total / width or None for count in counts]
        inner = slice(None) if (low, high) in _NATURAL else slice(1, -1)
        filled = [i for i in range(len(counts))[inner] if counts[i]]
        shown = slice(filled[0], filled[-1] + 1)
        x, y = x[shown], y[shown]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"layer {layer}",
                "x": x,
                "y": y,
                "connectgaps": False,
                "line": {"width": 1.6, "color": colour, "shape": "hvh"},
                "hovertemplate": f"layer {layer}<br>%{{x:.3~g}}: %{{y:.3~g}}<extra></extra>",
            }
        )
    return data


def _range(data: list[dict[str, Any]]) -> list[float]:
    """The log axis, from below the flattest layer's peak to above the sharpest's."""
    peaks = [math.log10(max(y for y in trace["y"] if y)) for trace in data]
    return [min(peaks) - _DECADES, max(peaks) + 0.1]
