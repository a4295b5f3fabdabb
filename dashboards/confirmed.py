"""How the confirmed runs ended: every seed as a dot, means with intervals, and the verdict on each pair."""

from __future__ import annotations

import math
from typing import Any

from dashboards.arms import Look, looks, spoken, wrapped
from dashboards.page import escape
from dashboards.plots import Figure, Scale, objective_scale, safe, value_axis
from dashboards.view import NONE, number
from sweeps.comparison import Arm, Comparison, Contrast

LANE = 92
"""Pixels of an arm's lane."""
_GOLDEN = 0.618034


def dots(comparison: Comparison) -> Figure:
    """A lane for each arm: seeds as dots, mean and 95% interval below them, what the search saw as a hollow ring.

    Runs that are stuck or diverged stand in a strip of their own at the right.
    """
    look = looks(comparison)
    ends = [value for arm in comparison.arms for value in _finished(comparison, arm)]
    ends += [value for arm in comparison.arms for value in (arm.low, arm.high, arm.searched) if value is not None]
    scale = objective_scale(ends) or Scale(False, 0.0, 1.0)
    lanes = list(enumerate(comparison.arms))
    data: list[dict[str, Any]] = []
    for lane, arm in lanes:
        data += [*_ends(comparison, arm, lane, look[arm.name]), *_lost(comparison, arm, lane, look[arm.name])]
    axis = value_axis(comparison.metric, scale) | {"domain": [0, 0.78]}
    axis["range"] = [axis["range"][0], scale.span[1] + 0.05 * (scale.span[1] - scale.span[0])]
    layout = {
        "xaxis": axis,
        "xaxis2": {"domain": [0.81, 1], "range": [-0.55, 1.55], "tickvals": [0, 1], "ticktext": ["stuck", "diverged"],
                   "showgrid": False, "tickangle": 0, "tickfont": {"size": 11}},
        "yaxis": {"tickvals": [lane for lane, _ in lanes], "ticktext": [wrapped(safe(arm.label)) for _, arm in lanes],
                  "range": [len(lanes) - 0.45, -0.55], "showgrid": False, "ticks": ""},
        "shapes": _strips(len(lanes)), "showlegend": False, "hovermode": "closest",
        "narrow": {"xaxis": {"domain": [0, 0.72], **_few(axis)},
                   "xaxis2": {"domain": [0.77, 1], "ticktext": ["stuck", "div."]}},
    }  # fmt: skip
    return Figure(data, layout, 70 + LANE * len(lanes))


def _few(axis: dict[str, Any]) -> dict[str, Any]:
    """Ticks that fit a phone: of a log axis the powers of ten alone, if there are two."""
    marks = list(zip(axis.get("tickvals", ()), axis.get("ticktext", ()), strict=True))
    powers = [mark for mark in marks if math.isclose(math.log10(mark[0]), round(math.log10(mark[0])), abs_tol=1e-9)]
    few = powers if len(powers) > 1 else marks[::2]
    return {"tickangle": 0, "nticks": 4} | (
        {"tickvals": [m for m, _ in few], "ticktext": [t for _, t in few]} if few else {}
    )


def is_stuck(comparison: Comparison, value: float) -> bool:
    """Whether a run that ended at this value is stuck."""
    limit = comparison.stuck_above
    return limit is not None and (value > limit if comparison.mode == "min" else value < limit)


def _finished(comparison: Comparison, arm: Arm) -> list[float]:
    return [value for value in arm.values if value is not None and not is_stuck(comparison, value)]


def _ends(comparison: Comparison, arm: Arm, lane: int, look: Look) -> list[dict[str, Any]]:
    found = _finished(comparison, arm)
    spread = [lane - 0.17 + 0.26 * ((i * _GOLDEN) % 1 - 0.5) for i in range(len(found))]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "x": found, "y": spread,
            "marker": {"symbol": look.symbol, "size": 9, "color": look.colour, "opacity": 0.75},
            "hovertemplate": f"{safe(arm.label)}<br>one seed: %{{x:.4~g}}<extra></extra>",
        }
    ]  # fmt: skip
    if arm.searched is not None:
        data.append({
            "type": "scatter", "mode": "markers", "x": [arm.searched], "y": [lane - 0.17],
            "marker": {"symbol": "circle-open", "size": 15, "color": look.colour, "line": {"width": 2}},
            "hovertemplate": f"what the search saw: {number(arm.searched)}, a lucky value<extra></extra>",
        })  # fmt: skip
    if arm.typical is not None and arm.low is not None and arm.high is not None:
        bars = {"type": "data", "symmetric": False, "array": [arm.high - arm.typical],
                "arrayminus": [arm.typical - arm.low], "color": look.colour, "thickness": 3, "width": 7}  # fmt: skip
        words = f"mean {number(arm.typical)}, 95% interval {number(arm.low)} to {number(arm.high)}"
        data.append({
            "type": "scatter", "mode": "markers+text", "x": [arm.typical], "y": [lane + 0.2], "error_x": bars,
            "text": [number(arm.typical)], "textposition": "bottom center", "cliponaxis": False,
            "marker": {"symbol": "line-ns", "size": 15, "line": {"width": 3, "color": look.colour}},
            "hovertemplate": f"{safe(arm.label)}<br>{words}<extra></extra>",
        })  # fmt: skip
    return data


def _lost(comparison: Comparison, arm: Arm, lane: int, look: Look) -> list[dict[str, Any]]:
    """The strip: runs that are stuck at 0, those that diverged at 1."""
    stuck = [value for value in arm.values if value is not None and is_stuck(comparison, value)]
    lost = len(arm.values) - len(stuck) - len(_finished(comparison, arm))
    data = []
    for place, symbol, words in ((0, "circle-x-open", [f"stuck at {number(v)}" for v in stuck]),
                                 (1, "x", ["diverged"] * lost)):  # fmt: skip
        if words:
            y = [lane + 0.7 * ((i + 0.5) / len(words) - 0.5) * min(1.0, len(words) / 5) for i in range(len(words))]
            data.append({
                "type": "scatter", "mode": "markers", "xaxis": "x2", "x": [place] * len(words), "y": y, "text": words,
                "marker": {"symbol": symbol, "size": 9, "color": look.colour},
                "hovertemplate": f"{safe(look.name)}: %{{text}}<extra></extra>",
            })  # fmt: skip
    if not data:  # an axis without a trace is not drawn
        data.append({
            "type": "scatter", "mode": "text", "xaxis": "x2", "x": [0.5], "y": [lane], "text": ["none"],
            "textfont": {"size": 11, "color": "--soft"}, "hoverinfo": "skip",
        })  # fmt: skip
    return data


def _strips(lanes: int) -> list[dict[str, Any]]:
    line = {"width": 1, "color": "--line"}
    between = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": lane + 0.5, "y1": lane + 0.5, "line": line,
         "layer": "below"}
        for lane in range(lanes - 1)
    ]  # fmt: skip
    box = {"type": "rect", "xref": "x2 domain", "yref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 1,
           "line": {"width": 0}, "fillcolor": "--ink0a", "layer": "below"}  # fmt: skip
    return [box, *between]


def caption(comparison: Comparison) -> str:
    """How to read the dots."""
    stuck = ""
    if comparison.stuck_above is not None:
        side = "above" if comparison.mode == "min" else "below"
        stuck = f" A run that ends {side} {number(comparison.stuck_above)} is stuck"
        stuck += "." if comparison.trivial is None else f": a constant output has {number(comparison.trivial)}."
    rings = any(arm.searched is not None for arm in comparison.arms)
    lucky = " The ring is what the search saw at that point, a lucky value, shown as what it was." if rings else ""
    return (
        f"Each dot is a fresh seed's {spoken(comparison.metric)} at its end; below, the mean of the runs that finished "
        f"with its 95% interval.{lucky}{stuck}"
    )


LEFT = ' class="words"'
_HEADS = ("", "verdict", "ratio", "95% interval", "stuck or diverged", "p", "p failures", "p ranks",
          "p time")  # fmt: skip


def verdicts(comparison: Comparison) -> str:
    """The contrasts as a table: the primary one first; `p` of the others is after Holm's correction."""
    if not comparison.contrasts:
        return ""
    names = looks(comparison)
    heads = "".join(f'<th scope="col"{LEFT if i < 2 else ""}>{head}</th>' for i, head in enumerate(_HEADS))
    order = sorted(comparison.contrasts, key=lambda contrast: not contrast.primary)
    rows = "".join(_row(comparison, contrast, names) for contrast in order)
    several = " of the others is after Holm's correction" if len(order) > 1 else " as it is"
    first = "The first contrast was named beforehand; p" if any(c.primary for c in order) else "p"
    note = (
        f"{first}{several}. Ratio: of errors, below 1 the first is better. p failures: Fisher's exact test on stuck "
        "and diverged runs. p ranks: Brunner and Munzel with failures last, a check. p time: log-rank, work to target."
    )
    return (
        f'<h3>Verdicts</h3><div class="scroll"><table class="tight"><thead><tr>{heads}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="caption">{note}</p>'
    )


def _row(comparison: Comparison, contrast: Contrast, names: dict[str, Look]) -> str:
    a, b = comparison.arm(contrast.a), comparison.arm(contrast.b)
    interval = NONE if contrast.low is None else f"{number(contrast.low)} to {number(contrast.high)}"
    cells = [
        number(contrast.ratio), interval, f"{a.stuck.count} of {a.stuck.of}, {b.stuck.count} of {b.stuck.of}",
        *map(_p, (contrast.p_adjusted, contrast.p_failures, contrast.p_ranks, contrast.p_time)),
    ]  # fmt: skip
    name = f"{names[a.name].name} against {names[b.name].name}"
    name = f"<b>{escape(name)}</b>" if contrast.primary else escape(name)
    rest = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    verdict = f'<td class="words" title="{escape(contrast.sentence)}">{escape(contrast.verdict)}</td>'
    return f'<tr><td class="words">{name}</td>{verdict}{rest}</tr>'


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.2g}"
