"""Parallel coordinates: an axis per searched parameter and one for the objective, a line per trial.

Plotly's own kind lets a reader select ranges but needs WebGL, which a browser on a remote desktop often lacks; for
those the same lines are given as an ordinary plot.
"""

from __future__ import annotations

from typing import Any

from dashboards.plots import VIRIDIS, Figure, Scale, colour_stops, objective_scale, safe
from dashboards.view import Param, View
from sweeps.history import Trial

LOST = "#b3b3b3"
"""The grey of diverged trials."""
LONG = 12
"""Letters of a name that fit beside others."""


def parallel(view: View) -> list[Figure] | str:
    """The figure, with its fallback; the best trials are drawn last, on top."""
    trials = [trial for trial in reversed(view.ranked) if trial.state in ("complete", "stopped", "diverged")]
    if not view.params:
        return "No parameter was searched."
    if len(trials) < 2:
        return f"Parallel coordinates compare trials that ended; there {'is 1' if trials else 'are 0'}."
    values = [value for trial in trials if (value := view.value(trial)) is not None]
    axes = [*(_axis(param, trials) for param in view.params), _outcome(view, trials, objective_scale(values))]
    colours = _colours(view, trials, objective_scale(values, view.mode))
    shades = colour_stops(view.mode)
    # Plotly rounds to 256 shades: the grey has to end well before the best trial's 0.1
    stops = [[0, LOST], [0.05, LOST], [0.06, shades[0][1]], *([0.1 + 0.9 * stop, colour] for stop, colour in shades)]
    line = {"color": colours, "colorscale": stops, "cmin": 0, "cmax": 1, "showscale": False}
    trace = {"type": "parcoords", "dimensions": axes, "line": line, "labelside": "top"}
    width = 120 * len(axes)
    fallback = Figure(_lines(view, trials, axes, colours), _frame(axes))
    layout = {"margin": {"l": 60, "r": 80, "t": 56, "b": 24}}
    return [Figure([trace], layout, 440, least_width=width, fallback=fallback)]


def _axis(param: Param, trials: list[Trial]) -> dict[str, Any]:
    """A parameter's axis; trials without the parameter pass below its lower end."""
    low, high = param.span()
    places = [param.place(trial.params.get(param.name)) for trial in trials]
    ticks, labels = param.ticks()
    if any(place is None for place in places):
        nowhere = low - 0.18 * (high - low)
        places = [nowhere if place is None else place for place in places]
        ticks, labels, low = [nowhere, *ticks], ["not set", *labels], nowhere
    return {
        "label": safe(param.name), "values": places, "range": [low, high], "tickvals": ticks,
        "ticktext": [safe(label) for label in labels],
    }  # fmt: skip


def _outcome(view: View, trials: list[Trial], scale: Scale | None) -> dict[str, Any]:
    """The objective's axis; diverged trials end beyond its bad end."""
    low, high = scale.span if scale else (0.0, 1.0)
    ticks, labels = scale.ticks() if scale else ([], [])
    lost = high + 0.15 * (high - low) if view.mode == "min" else low - 0.15 * (high - low)
    values = [scale.place(value) if scale and (value := view.value(t)) is not None else lost for t in trials]
    if lost in values:
        ticks, labels, low, high = [*ticks, lost], [*labels, "diverged"], min(low, lost), max(high, lost)
    return {"label": safe(view.metric), "values": values, "range": [low, high], "tickvals": ticks, "ticktext": labels}


def _colours(view: View, trials: list[Trial], scale: Scale | None) -> list[float]:
    """Positions on the colour scale: 0 for trials without objective, the others from 0.1 to 1."""
    low, high = scale.span if scale else (0.0, 1.0)
    values = [view.value(trial) for trial in trials]
    shares = [None if v is None or scale is None else (scale.place(v) - low) / (high - low) for v in values]
    return [0.0 if share is None else 0.1 + 0.9 * min(max(share, 0.0), 1.0) for share in shares]


def _lines(view: View, trials: list[Trial], axes: list[dict[str, Any]], colours: list[float]) -> list[dict[str, Any]]:
    """The lines as one trace per shade, since a trace has one colour."""
    shades = VIRIDIS if view.mode == "min" else VIRIDIS[::-1]
    traces: dict[str, dict[str, Any]] = {}
    for i, (trial, place) in enumerate(zip(trials, colours, strict=True)):
        shade = LOST if place < 0.1 else shades[min(int((place - 0.1) / 0.9 * len(shades)), len(shades) - 1)]
        trace = traces.setdefault(shade, {
            "type": "scatter", "mode": "lines", "x": [], "y": [], "text": [], "line": {"color": shade, "width": 1.3},
            "hovertemplate": "%{text}<extra></extra>", "showlegend": False,
        })  # fmt: skip
        words = f"{trial.id}, {trial.state}: {safe(view.described(trial))}"
        trace["x"] += [*range(len(axes)), None]
        trace["y"] += [_share(axis, axis["values"][i]) for axis in axes] + [None]
        trace["text"] += [words] * len(axes) + [""]
    return list(traces.values())


def _frame(axes: list[dict[str, Any]]) -> dict[str, Any]:
    """Axis lines as shapes, and their ticks and names as annotations."""
    shapes = [{"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "line": {"width": 1, "color": "#8c8c8c"}}
              for i in range(len(axes))]  # fmt: skip
    notes: list[dict[str, Any]] = []
    for i, axis in enumerate(axes):
        notes.append({"x": i, "y": 1.09, "text": f"<b>{_broken(axis['label'])}</b>", "showarrow": False})
        for place, words in zip(axis["tickvals"], axis["ticktext"], strict=True):
            notes.append({"x": i, "y": _share(axis, place), "text": words, "showarrow": False, "xanchor": "right",
                          "xshift": -5, "font": {"size": 11}})  # fmt: skip
    return {
        "xaxis": {"visible": False, "range": [-0.6, len(axes) - 0.5]},
        "yaxis": {"visible": False, "range": [-0.05, 1.15]},
        "shapes": shapes, "annotations": notes, "hovermode": "closest",
    }  # fmt: skip


def _broken(label: str) -> str:
    """A long name on two lines, parted near its middle."""
    cuts = [i for i, char in enumerate(label) if char == "_"]
    if len(label) <= LONG or not cuts:
        return label
    cut = min(cuts, key=lambda i: abs(i - len(label) / 2))
    return f"{label[: cut + 1]}<br>{label[cut + 1 :]}"


def _share(axis: dict[str, Any], place: float) -> float:
    """A place as a share of its axis."""
    low, high = axis["range"]
    return float((place - low) / (high - low))
