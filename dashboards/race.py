"""Error on the way: arms against work and seconds, every confirmed seed, and when the target was reached."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dashboards.arms import Look, amount, looks, spoken, unit
from dashboards.plots import GREY, Figure, Scale, objective_scale, safe, value_axis
from dashboards.view import View, number
from sweeps.comparison import Arm, Comparison
from sweeps.history import Trial

LOG_FROM = 30.0
"""An axis of work is logarithmic where its last point is so many times its first."""


def race(comparison: Comparison, height: int = 400) -> Figure | None:
    """Median error of each arm with its middle half, against work and against seconds; None without any curve.

    At the right the geometric mean of each arm's ends stands with its 95% interval.
    """
    arms = [arm for arm in comparison.arms if arm.curve.updates]
    if not arms:
        return None
    forms = {
        "work": _race(comparison, arms, lambda arm: [amount(comparison, w) for w in arm.curve.work], unit(comparison)),
        "seconds": _race(comparison, arms, lambda arm: list(arm.curve.seconds), "seconds of training"),
    }
    title = f"{spoken(comparison.metric)}: median and quartiles of the runs that finished; right, mean and 95% interval"
    return Figure(height=height, title=title, forms=forms)


def _race(comparison: Comparison, arms: list[Arm], x_of: Callable[[Arm], list[float]], title: str) -> Figure:
    look = looks(comparison)
    xs = {arm.name: x_of(arm) for arm in arms}
    firsts = [x for each in xs.values() for x in each if x > 0]
    log = max(firsts) > LOG_FROM * min(firsts)
    values = [value for arm in arms for each in (arm.curve.low, arm.curve.high) for value in each]
    values += [value for arm in arms for value in (arm.low, arm.high) if value is not None]
    scale = objective_scale(values)
    assert scale is not None, "arms have curves"
    data = [trace for arm in reversed(arms) for trace in _band(arm, xs[arm.name], look[arm.name])]
    last, gap = max(firsts), 1.045 if log else 0.022 * max(firsts)
    for i, arm in enumerate(arms, 1):
        x = last * gap**i if log else last + gap * i
        data += [_end(arm, x, look[arm.name])] if arm.typical is not None else []
    axis: dict[str, Any] = {"title": {"text": title}}
    axis |= {"type": "log", "dtick": "D2" if max(firsts) < 300 * min(firsts) else 1} if log else {"rangemode": "tozero"}
    shapes, notes = _levels(comparison, scale)
    layout = {
        "xaxis": axis, "yaxis": value_axis(comparison.metric, scale), "hovermode": "closest", "shapes": shapes,
        "annotations": notes, "legend": {"traceorder": "reversed"},
    }  # fmt: skip
    return Figure(data, layout)


def _band(arm: Arm, x: list[float], look: Look) -> list[dict[str, Any]]:
    curve = arm.curve
    keep = [i for i, place in enumerate(x) if place > 0]
    x = [x[i] for i in keep]
    low, median, high = ([each[i] for i in keep] for each in (curve.low, curve.median, curve.high))
    edge = {
        "type": "scatter", "mode": "lines", "x": x, "line": {"width": 0, "color": look.colour}, "hoverinfo": "skip",
        "showlegend": False, "legendgroup": arm.name,
    }  # fmt: skip
    line = {
        "type": "scatter", "mode": "lines+markers", "name": legend(arm, look), "legendgroup": arm.name, "x": x,
        "y": median, "line": {"width": 2.6, "color": look.colour, "dash": look.dash},
        "marker": {"symbol": look.symbol, "size": 7, "color": look.colour, "maxdisplayed": 12},
        "hovertemplate": f"{safe(arm.label)}<br>%{{x:.4~g}}: median %{{y:.3~g}}<extra></extra>",
    }  # fmt: skip
    return [edge | {"y": low}, edge | {"y": high, "fill": "tonexty", "fillcolor": look.tint()}, line]


def legend(arm: Arm, look: Look) -> str:
    """An arm's name with where it ended."""
    return safe(look.name) + ("" if arm.typical is None else f": {number(arm.typical)}")


def _end(arm: Arm, x: float, look: Look) -> dict[str, Any]:
    """The mean of the ends with its interval."""
    assert arm.typical is not None
    low, high = arm.low if arm.low is not None else arm.typical, arm.high if arm.high is not None else arm.typical
    bars = {
        "type": "data", "symmetric": False, "array": [high - arm.typical], "arrayminus": [arm.typical - low],
        "color": look.colour, "thickness": 2.2, "width": 5,
    }  # fmt: skip
    words = f"{safe(arm.label)}<br>ended at {number(arm.typical)}, 95% interval {number(low)} to {number(high)}"
    return {
        "type": "scatter", "mode": "markers", "x": [x], "y": [arm.typical], "error_y": bars, "showlegend": False,
        "legendgroup": arm.name, "marker": {"symbol": look.symbol, "size": 8, "color": look.colour},
        "hovertemplate": f"{words}<extra></extra>",
    }  # fmt: skip


def _levels(comparison: Comparison, scale: Scale) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines at the target and at the stuck error, where they lie within the scale."""
    shapes, notes = [], []
    for name, value, end in (
        ("target", comparison.target, "left"),
        (_stuck(comparison), comparison.stuck_above, "right"),
    ):
        if value is None or not scale.low <= value <= scale.high:
            continue
        line = {"dash": "dot", "width": 1.4, "color": "--soft"}
        shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line,
                       "layer": "below"})  # fmt: skip
        shift = 4 if end == "left" else -4
        notes.append({
            "xref": "paper", "x": int(end == "right"), "y": scale.place(value), "text": f"{name} {number(value)}",
            "showarrow": False, "xanchor": end, "yanchor": "bottom", "xshift": shift, "font": {"size": 11},
        })  # fmt: skip
    return shapes, notes


def _stuck(comparison: Comparison) -> str:
    return "stuck above" if comparison.mode == "min" else "stuck below"


def seeds(view: View, comparison: Comparison) -> Figure | str:
    """Every confirmed trial's curve against work, stuck and diverged ones too; other sweeps' arms as their medians."""
    look = looks(comparison)
    data, values = [], []
    for arm in reversed(comparison.arms):
        lines = [(number, _points(view, comparison, number)) for number in arm.trials if arm.kind != "sweep"]
        lines = lines or [
            (-1, [(amount(comparison, w), y) for w, y in zip(arm.curve.work, arm.curve.median, strict=True)])
        ]
        lines = [(number, line) for number, line in lines if line]
        lost = [number for number, value in zip(arm.trials, arm.values, strict=True) if value is None]
        values += [y for number, line in lines for _, y in line if number not in lost]
        if lines:
            data += _threads(arm, lines, look[arm.name], lost)
    scale = objective_scale(values or [y for trace in data for y in trace["y"] if y is not None])
    if scale is None:
        return "No confirmed trial has reported yet."
    axis = {"title": {"text": unit(comparison)}, "rangemode": "tozero"}
    shapes, notes = _levels(comparison, scale)
    layout = {
        "xaxis": axis, "yaxis": value_axis(comparison.metric, scale), "hovermode": "closest", "shapes": shapes,
        "annotations": notes, "legend": {"traceorder": "reversed"},
    }  # fmt: skip
    return Figure(data, layout, 400, title="Confirmed: every fresh seed")


def _points(view: View, comparison: Comparison, number: int) -> list[tuple[float, float]]:
    trial = view.history.trials.get(number)
    if trial is None:
        return []
    rows = ((update, metrics.get(comparison.metric)) for update, metrics in sorted(trial.metrics.items()) if update)
    return [
        (amount(comparison, update * trial.config.get("batch", 1)), value)
        for update, value in rows
        if value is not None and math.isfinite(value)
    ]


def _threads(
    arm: Arm, lines: list[tuple[int, list[tuple[float, float]]]], look: Look, diverged: list[int]
) -> list[dict[str, Any]]:
    """The lines of one arm as one trace, and crosses where runs diverged."""
    x: list[float | None] = []
    y: list[float | None] = []
    for _, line in lines:
        x += [*(place for place, _ in line), None]
        y += [*(value for _, value in line), None]
    trace = {
        "type": "scatter", "mode": "lines", "name": safe(look.name), "legendgroup": arm.name, "x": x, "y": y,
        "line": {"width": 1.3, "color": look.colour, "dash": "solid" if look.dash == "solid" else "dash"},
        "opacity": 0.75, "hovertemplate": f"{safe(arm.label)}<br>%{{x:.4~g}}: %{{y:.3~g}}<extra></extra>",
    }  # fmt: skip
    lost = [line[-1] for number, line in lines if number in diverged]
    if not lost:
        return [trace]
    crosses = {
        "type": "scatter", "mode": "markers", "showlegend": False, "legendgroup": arm.name, "x": [p for p, _ in lost],
        "y": [v for _, v in lost], "marker": {"symbol": "x", "size": 8, "color": look.colour},
        "hovertemplate": f"{safe(look.name)}: diverged after this<extra></extra>",
    }  # fmt: skip
    return [trace, crosses]


def waiting(reached: tuple[tuple[float, bool], ...]) -> list[tuple[float, float]]:
    """The share of runs that have reached the target, as steps (work, share from there on).

    One minus Kaplan and Meier's curve, drawn to the arm's end.
    """
    from sweeps.compare_curves import survival  # late: only comparisons need scipy

    found = survival(reached)
    steps = [(work, 1 - share) for work, share in zip(found.work, found.share, strict=True)]
    end = max(work for work, _ in reached)
    return steps if steps[-1][0] == end else [*steps, (end, steps[-1][1])]


def arrivals(comparison: Comparison) -> Figure | str:
    """How many runs of each arm had reached the target, against work."""
    look = looks(comparison)
    data = []
    for arm in reversed(comparison.arms):
        if not arm.reached:
            continue
        steps = waiting(arm.reached)
        there = sum(happened for _, happened in arm.reached)
        ended = [(work, next(share for at, share in reversed(steps) if at <= work))
                 for work, happened in arm.reached if not happened]  # fmt: skip
        style = look[arm.name]
        data.append({
            "type": "scatter", "mode": "lines", "name": f"{safe(style.name)}: {there} of {len(arm.reached)}",
            "legendgroup": arm.name, "x": [amount(comparison, work) for work, _ in steps],
            "y": [share for _, share in steps], "line": {"shape": "hv", "width": 2.6, "color": style.colour,
            "dash": style.dash}, "hovertemplate": f"{safe(arm.label)}<br>%{{x:.4~g}}: %{{y:.0%}}<extra></extra>",
        })  # fmt: skip
        data += [_censored(comparison, ended, style)] if ended else []
    if not data or comparison.target is None:
        return "No target was compared."
    layout = {
        "xaxis": {"title": {"text": unit(comparison)}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "runs at the target"}, "range": [-0.03, 1.06], "tickformat": ".0%"},
        "hovermode": "closest", "legend": {"traceorder": "reversed"},
    }  # fmt: skip
    return Figure(data, layout, 340)


def _censored(comparison: Comparison, ended: list[tuple[float, float]], look: Look) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "showlegend": False, "x": [amount(comparison, w) for w, _ in ended],
        "y": [share for _, share in ended], "marker": {"symbol": "x-thin", "size": 9, "line": {"width": 2,
        "color": look.colour}}, "hovertemplate": f"{safe(look.name)}: ended without it<extra></extra>",
    }  # fmt: skip


def leaders(view: View, height: int = 380) -> Figure | None:
    """For a sweep that confirmed nothing: the search's best trial of each method, one seed each."""
    found: dict[str, tuple[Trial, list[tuple[int, float]]]] = {}
    for trial in view.ranked:
        method = str(view.setting(trial, "method") or "trial")
        if trial.state != "diverged" and method not in found and (points := view.curve(trial)):
            found[method] = (trial, points)
    scale = objective_scale([value for _, points in found.values() for _, value in points], view.mode)
    if scale is None:
        return None
    styles = (("#0072B2", "circle"), ("#E69F00", "square"), ("#009E73", "triangle-up"), (GREY, "cross"))
    data = []
    for (method, (trial, points)), (colour, symbol) in zip(found.items(), styles, strict=False):
        name = f"{safe(method)} {trial.id}, {number(view.value(trial))}"
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": name, "x": [u for u, _ in points],
            "y": [v for _, v in points], "line": {"width": 2.4, "color": colour},
            "marker": {"symbol": symbol, "size": 7, "color": colour, "maxdisplayed": 12},
            "hovertemplate": f"{trial.id}: {safe(view.described(trial))}<br>update %{{x:,}}: %{{y:.3~g}}"
            "<extra></extra>",
        })  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "update"}, "rangemode": "tozero", "separatethousands": True},
        "yaxis": value_axis(view.metric, scale), "hovermode": "closest",
    }  # fmt: skip
    each = "of each method, " if len(found) > 1 else ""
    return Figure(data, layout, height, title=f"{spoken(view.metric)} of the search's best trial {each}one seed")
