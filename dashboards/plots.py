"""The plots about trials: learning curves, the momentum x learning rate map, parameter importance.

A figure is plain data for plotly.js. Plotly's Python half is not imported: it would build the same JSON slower.
Each function returns figures, or the reason why there is nothing to draw as a sentence.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import Any

from dashboards.importance import importances
from dashboards.view import Param, View, linear_marks, log_marks, number, text
from sweeps.history import Trial

# Okabe and Ito's palette, told apart by colour-blind readers
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
GREY = "#8c8c8c"
LEADERS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
VIRIDIS = (
    "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
)  # fmt: skip
STATE_COLOURS = {
    "complete": BLUE, "stopped": SKY, "diverged": VERMILION, "failed": PURPLE, "skipped": "#bbbbbb", "running": GREEN,
}  # fmt: skip
MOST_CURVES = 200
FEW_MARKS, SHORT_SPAN = 4, 30.0
"""A log axis over less than SHORT_SPAN with fewer round marks gets finer ones."""
_FINER = [step * 10.0**power for power in range(-9, 9) for step in (1, 1.5, 2, 3, 4, 5, 7)]
TAIL = 0.3
"""The worst tenth is left off a scale if it would add this share or more to its length."""


@dataclass(slots=True)
class Figure:
    """One plot: traces and layout as plotly.js takes them, a height, and for wide ones a least width, in pixels.

    `fallback` is another form of it for browsers without WebGL; `forms`, by name, are what a reader can switch
    between, in place of data and layout. A colour of the page's own is written "--ink", or "--ink22" with an opacity.
    """

    data: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 420
    least_width: int = 0
    title: str = ""
    fallback: Figure | None = None
    forms: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scale:
    """How objectives become positions and colours: linear or log10, over the finite ones."""

    log: bool
    low: float
    high: float
    clipped: bool = False
    """Whether the worst objectives lie beyond its bad end."""

    def place(self, value: float) -> float:
        """The position of a value."""
        return math.log10(value) if self.log else value

    @property
    def span(self) -> tuple[float, float]:
        """Positions of both ends, never equal."""
        low, high = self.place(self.low), self.place(self.high)
        return (low, high) if low < high else (low - 0.5, high + 0.5)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Positions and texts of round values."""
        marks = log_marks(self.low, self.high) if self.log else linear_marks(self.low, self.high)
        return [self.place(mark) for mark in marks], [number(mark, keep_zeros=False) for mark in marks]


def objective_scale(values: list[float], clip: str = "") -> Scale | None:
    """A log scale where all objectives are positive and span a factor of five or more; None without objectives.

    With the mode as `clip` it ends at the worst tenth where that would otherwise take up much of it: trials about to
    diverge must not squeeze all others into one colour.
    """
    if not values:
        return None
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    full = Scale(low > 0 and high / low >= 5, low, high)
    tenth = len(ordered) // 10
    if clip == "max":
        low = ordered[tenth]
    elif clip == "min":
        high = ordered[-1 - tenth]
    kept = Scale(full.log, low, high, clipped=True)
    outside = full.place(full.high) - full.place(full.low) - (kept.place(high) - kept.place(low))
    return kept if high > low and outside > TAIL * (kept.place(high) - kept.place(low)) else full


@dataclass(slots=True)
class _Line:
    """Curves of one kind as a single trace, parted by gaps."""

    x: list[float | None] = field(default_factory=list)
    y: list[float | None] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    ends: list[tuple[int, float, str]] = field(default_factory=list)

    def add(self, trial: Trial, points: list[tuple[int, float]]) -> None:
        self.x += [update for update, _ in points] + [None]
        self.y += [value for _, value in points] + [None]
        self.text += [trial.id] * (len(points) + 1)
        self.ends.append((*points[-1], trial.id))


def curves(view: View) -> tuple[list[Figure], Scale] | str:
    """Objective against update: the best five in colour, the rest behind them in grey, rungs as dotted lines."""
    drawn = [(trial, view.curve(trial)) for trial in _sample(view)]
    drawn = [(trial, points) for trial, points in drawn if points]
    if not drawn:
        return "No trial has reported a finite objective yet."
    leaders = [trial.number for trial in view.ranked if view.value(trial) is not None][: len(LEADERS)]
    crowd = {state: _Line() for state in ("stopped", "diverged", "running", "complete")}
    for trial, points in drawn:
        if trial.number not in leaders and trial.state in crowd:
            crowd[trial.state].add(trial, points)
    data = [trace for state, line in crowd.items() if line.x for trace in _crowd(state, line)]
    points_of = {trial.number: (trial, points) for trial, points in drawn}
    for colour, leader in reversed(list(zip(LEADERS, leaders, strict=False))):
        data.append(_leader(view, *points_of[leader], colour, first=leader == leaders[0]))
    sane = [value for trial, points in drawn if trial.state != "diverged" for _, value in points]
    scale = objective_scale(sane or [value for _, points in drawn for _, value in points], view.mode)
    assert scale is not None, "a curve drawn has a finite value"
    layout = {
        "xaxis": {"title": {"text": "update"}, "rangemode": "tozero", "separatethousands": True},
        "yaxis": value_axis(view.metric, scale),
        "hovermode": "closest",
        "legend": {"traceorder": "reversed"},
        "shapes": [_rung_line(rung) for rung in view.rungs],
        "annotations": [_rung_text(i, rung) for i, rung in enumerate(view.rungs)],
    }
    return [Figure(data, layout, 480)], scale


def _sample(view: View) -> list[Trial]:
    """At most MOST_CURVES trials: the foremost half of them, and the others evenly over the ranking."""
    ranked = view.ranked
    if len(ranked) <= MOST_CURVES:
        return ranked
    half = MOST_CURVES // 2
    rest = ranked[half:]
    return ranked[:half] + [rest[i * len(rest) // half] for i in range(half)]


def _crowd(state: str, line: _Line) -> list[dict[str, Any]]:
    """The trace of a state's curves, and marks where they end early."""
    warm = state == "diverged"
    trace = {
        "type": "scatter", "mode": "lines", "name": state, "legendgroup": state, "x": line.x, "y": line.y,
        "text": line.text, "hovertemplate": f"%{{text}}, {state}<br>update %{{x:,}}: %{{y:.3~g}}<extra></extra>",
        "line": {"width": 1, "color": VERMILION if warm else GREY},
        "opacity": {"complete": 0.9, "running": 0.7, "diverged": 0.55}.get(state, 0.45),
    }  # fmt: skip
    if state not in ("stopped", "diverged"):
        return [trace]
    x, y, names = zip(*line.ends, strict=True)
    marker = {"size": 6, "symbol": "x-thin-open", "color": VERMILION} if warm else {"size": 4, "color": GREY}
    ends = {
        "type": "scatter", "mode": "markers", "showlegend": False, "legendgroup": state, "x": x, "y": y,
        "text": names, "hovertemplate": f"%{{text}}, {state} here<extra></extra>", "marker": marker,
    }  # fmt: skip
    return [trace, ends]


def _leader(view: View, trial: Trial, points: list[tuple[int, float]], colour: str, first: bool) -> dict[str, Any]:
    words = safe(view.described(trial))
    return {
        "type": "scatter", "mode": "lines" if len(points) > 1 else "markers",
        "name": f"{trial.id} {number(view.value(trial))}",
        "x": [update for update, _ in points], "y": [value for _, value in points],
        "hovertemplate": f"{trial.id}: {words}<br>update %{{x:,}}: %{{y:.3~g}}<extra></extra>",
        "line": {"width": 3.5 if first else 1.8, "color": colour},
    }  # fmt: skip


def _rung_line(rung: int) -> dict[str, Any]:
    line = {"dash": "dot", "width": 1, "color": GREY}
    return {"type": "line", "x0": rung, "x1": rung, "yref": "paper", "y0": 0, "y1": 1, "line": line, "layer": "below"}


def _rung_text(i: int, rung: int) -> dict[str, Any]:
    """A rung's name, every other one a line lower so that near ones do not overlap."""
    return {
        "x": rung, "y": 1, "yref": "paper", "text": f"rung {rung:,}", "showarrow": False, "xanchor": "left",
        "yanchor": "top", "font": {"size": 11}, "xshift": 3, "yshift": -14 * (i % 2),
    }  # fmt: skip


def value_axis(name: str, scale: Scale) -> dict[str, Any]:
    """An axis of errors: ticks at round values, the range set so that diverging trials run out of it."""
    low, high = scale.span
    pad = 0.04 * (high - low)
    title = {"text": safe(name) + (" (log)" if scale.log else "")}
    axis: dict[str, Any] = {"title": title, "range": [low - pad, high + 2 * pad]}
    if scale.log:
        marks = log_marks(scale.low, scale.high)
        if len(marks) < FEW_MARKS and scale.high < SHORT_SPAN * scale.low:
            marks = [mark for mark in _FINER if scale.low <= mark <= scale.high * 1.1] or marks
        axis |= {"type": "log", "tickvals": marks, "ticktext": [number(mark, keep_zeros=False) for mark in marks]}
    return axis


def momentum_map(view: View) -> tuple[list[Figure], Scale | None] | str:
    """Learning rate against momentum, one figure per method, all on one colour scale of the objective."""
    mu, lr = view.param("mu_max"), view.param("lr")
    if mu is None or lr is None:
        return "The map needs both mu_max and lr to be searched; here at least one was fixed."
    trials = [trial for trial in view.ranked if "lr" in trial.params]
    if not trials:
        return "No trial has been asked for yet."
    scale = objective_scale([value for trial in trials if (value := view.value(trial)) is not None], view.mode)
    method = view.param("method")
    methods = list(method.values) if method else sorted({str(view.setting(trial, "method")) for trial in trials})
    figures = []
    for name in methods:
        mine = [trial for trial in trials if view.setting(trial, "method") == name]
        if mine:
            figures.append(_facet(view, str(name), mine, mu, lr, scale))
    return (figures, scale) if figures else "No trial names its method."


def _facet(view: View, name: str, trials: list[Trial], mu: Param, lr: Param, scale: Scale | None) -> Figure:
    flat = name == "sgd" or not any("mu_max" in trial.params for trial in trials)
    data = []
    for state, symbol, size in (("stopped", "circle", 8), ("running", "diamond-open", 8), ("complete", "circle", 13)):
        mine = [t for t in trials if t.state == state and view.value(t) is not None]
        if mine:
            data.append(_dots(view, mine, mu, lr, flat, symbol, size, scale))
    lost = [trial for trial in trials if trial.state == "diverged"]
    if lost:
        data.append(_dots(view, lost, mu, lr, flat, "x-thin", 9, None))
    best = view.best
    if best is not None and best in trials:
        data.append(_ring(_dots(view, [best], mu, lr, flat, "circle-open", 22, None)))
    (low, high), (bottom, top) = mu.span(), lr.span()
    ticks, labels = ([(low + high) / 2], ["0"]) if flat else mu.ticks()
    rows, row_labels = lr.ticks()
    pad_x, pad_y = 0.06 * (high - low), 0.06 * (top - bottom)
    x_title = "µ (none)" if flat else "µ_max (1 - µ on a log scale)"
    layout = {
        "xaxis": {
            "title": {"text": x_title if mu.scale == "one_minus_log" or flat else "µ_max"}, "tickvals": ticks,
            "ticktext": labels, "range": [low - pad_x, high + pad_x], "showgrid": not flat,
        },
        "yaxis": {
            "title": {"text": "lr"}, "tickvals": rows, "ticktext": row_labels, "range": [bottom - pad_y, top + pad_y],
        },
        "showlegend": False,
        "hovermode": "closest",
    }  # fmt: skip
    count = f"{len(trials)} trial" + ("s" if len(trials) > 1 else "")
    return Figure(data, layout, 340, title=f"{name}, {count}")


def _dots(
    view: View, trials: list[Trial], mu: Param, lr: Param, flat: bool, symbol: str, size: int, scale: Scale | None
) -> dict[str, Any]:
    """Marks of trials, coloured by objective on the scale; without one, in the colour of divergence."""
    low, high = mu.span()
    marker: dict[str, Any] = {"symbol": symbol, "size": size, "line": {"width": 1, "color": GREY}}
    if scale is None:
        marker |= {"color": VERMILION, "line": {"width": 2, "color": VERMILION}}
    else:
        values = [view.value(trial) for trial in trials]
        marker |= {"color": [scale.place(value) for value in values if value is not None], "cmin": scale.span[0]}
        marker |= {"cmax": scale.span[1], "colorscale": colour_stops(view.mode), "showscale": False}
    # without momentum x means nothing, so trials are spread by a golden-ratio sequence of their number
    spread = [low + (0.3 + 0.4 * (trial.number * 0.618034 % 1)) * (high - low) for trial in trials]
    x = spread if flat else [mu.place(trial.params.get("mu_max")) for trial in trials]
    return {
        "type": "scatter", "mode": "markers", "x": x, "y": [lr.place(trial.params["lr"]) for trial in trials],
        "text": [_hover(view, trial) for trial in trials], "hovertemplate": "%{text}<extra></extra>", "marker": marker,
    }  # fmt: skip


def _ring(trace: dict[str, Any]) -> dict[str, Any]:
    """The mark around the best trial."""
    trace["marker"] = {"symbol": "circle-open", "size": 22, "color": ORANGE, "line": {"width": 3, "color": ORANGE}}
    return trace | {"hoverinfo": "skip", "hovertemplate": None}


def _hover(view: View, trial: Trial) -> str:
    value = view.value(trial)
    result = trial.state if value is None else f"{safe(view.metric)} {number(value)} ({trial.state})"
    return f"{trial.id}: {result} at update {trial.updates:,}<br>{safe(view.described(trial))}"


def importance(view: View) -> tuple[list[Figure], str] | str:
    """Bars of PED-ANOVA importance, and which trials they rest on."""
    found = importances(view)
    if isinstance(found, str):
        return found
    shares, top, total = found
    names = list(reversed(shares))
    values = [shares[name] for name in names]
    bars = {
        "type": "bar", "orientation": "h", "y": [safe(name) for name in names], "x": values,
        "text": [f"{share:.0%}" if share >= 0.01 else "< 1%" for share in values], "textposition": "outside",
        "cliponaxis": False, "marker": {"color": BLUE}, "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "share of importance"}, "tickformat": ".0%", "range": [0, max(values) * 1.12]},
        "yaxis": {"type": "category", "ticklabelstandoff": 6},
        "showlegend": False, "bargap": 0.35,
    }  # fmt: skip
    basis = (
        f"PED-ANOVA: how differently each parameter is spread among the best {top} trials and among all {total} that "
        "ended; trials stopped early and diverged ones count, as worse than those that went on. It describes this "
        "search around its own samples and is not a test."
    )
    return [Figure([bars], layout, 90 + 38 * len(names))], basis


def colour_stops(mode: str) -> list[list[Any]]:
    """Viridis with its dark end at good objectives (on a dark page the script turns it round)."""
    colours = VIRIDIS if mode == "min" else VIRIDIS[::-1]
    return [[i / (len(colours) - 1), colour] for i, colour in enumerate(colours)]


def safe(words: Any) -> str:
    """Text for plotly, which reads a subset of HTML."""
    return html.escape(text("", words), quote=False)
