"""Plots of comparisons and nights as inline SVG, as `dashboards/svg.py` makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dashboards.arms import looks, spoken
from dashboards.plots import objective_scale
from dashboards.svg import SHAPES, escape, picture, symbol, thinned, value_axis
from dashboards.view import number
from sweeps.comparison import Arm, Comparison

WIDTH, ROW, FOOT = 480, 46, 40
LEFT, RIGHT = 10, 14


def intervals(comparison: Comparison) -> str:
    """Each arm's interval over its seeds, one below the other; empty without a finished run."""
    values = [value for arm in comparison.arms for value in (*arm.values, arm.low, arm.high) if value is not None]
    scale = objective_scale([value for value in values if math.isfinite(value)])
    if scale is None:
        return ""
    axis = value_axis(scale, "")
    names = looks(comparison)
    height = ROW * len(comparison.arms) + FOOT + 6
    bottom = height - FOOT

    def across(value: float) -> float:
        share = (scale.place(value) - axis.low) / (axis.high - axis.low)
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT)

    parts = []
    for place, words in thinned(axis.ticks, 7):
        x = LEFT + (place - axis.low) / (axis.high - axis.low) * (WIDTH - LEFT - RIGHT)
        parts.append(f'<path class="grid" d="M{x:.1f} 4V{bottom}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{bottom + 15}">{escape(words)}</text>')
    band = _band(comparison)
    if band is not None:
        a, b = across(band[0]), across(band[1])
        parts.append(f'<path class="band" d="M{a:.1f} 4H{b:.1f}V{bottom}H{a:.1f}z"/>')
    kinds = _kinds(comparison)
    for row, arm in enumerate(comparison.arms):
        parts += _row(arm, names[arm.name].name, 4 + ROW * row, across, kinds[arm.name])
    better = "smaller" if comparison.mode == "min" else "larger"
    name = f"{spoken(comparison.metric)}{' (log)' if scale.log else ''}, {better} is better"
    parts.append(f'<text class="name mid" x="{WIDTH / 2:.0f}" y="{height - 8}">{escape(name)}</text>')
    label = f"{spoken(comparison.metric)} of {len(comparison.arms)} arms with 95% intervals: " + "; ".join(
        f"{names[arm.name].name} {number(arm.typical)} ({number(arm.low)} to {number(arm.high)})"
        for arm in comparison.arms
    )
    return picture(WIDTH, height, label, "".join(parts))


def _band(comparison: Comparison) -> tuple[float, float] | None:
    """The interval of the arm that the others are held against."""
    contrast = comparison.primary or (comparison.contrasts[0] if comparison.contrasts else None)
    arm = comparison.arm(contrast.b) if contrast is not None else None
    return None if arm is None or arm.low is None or arm.high is None else (arm.low, arm.high)


def _kinds(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """(colour's class, shape) of each arm: baselines in the page's ink."""
    found, place = {}, 0
    for arm in comparison.arms:
        if arm.kind == "hf":
            found[arm.name] = ("ink", "diamond")
        else:
            found[arm.name] = (f"k{place % len(SHAPES)}", SHAPES[place % len(SHAPES)])
            place += 1
    return found


def _row(arm: Arm, name: str, top: float, across: Callable[[float], float], kind: tuple[str, str]) -> list[str]:
    colour, shape = kind
    y = top + 32
    lost = f"; {arm.stuck.count} of {arm.stuck.of} stuck or diverged" if arm.stuck.count else ""
    words = f"{name}  {number(arm.typical)} ({number(arm.low)} to {number(arm.high)}){lost}"
    parts = [f'<text class="arm" x="{LEFT}" y="{top + 15:.1f}">{escape(words)}</text>']
    for value in arm.values:
        if value is not None and math.isfinite(value):
            parts.append(symbol(across(value), y, "circle", 2.6, f"seed {colour}", number(value)))
    if arm.low is not None and arm.high is not None:
        a, b = across(arm.low), across(arm.high)
        parts.append(f'<path class="span {colour}" d="M{a:.1f} {y}H{b:.1f}M{a:.1f} {y - 5}v10M{b:.1f} {y - 5}v10"/>')
    if arm.typical is not None:
        parts.append(symbol(across(arm.typical), y, shape, 4.5, f"end {colour}", arm.label))
    return parts


@dataclass(frozen=True, slots=True)
class Mark:
    """A night on a strip: its day in words, how it ended, and its figure with interval, if it had one."""

    day: str
    result: str
    """ok, worse, better, broken, missed, skipped, running or queued."""
    words: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


NIGHT_SHAPES = {
    "ok": "circle", "better": "triangle", "worse": "down", "broken": "cross", "missed": "ring", "running": "diamond",
    "skipped": "dash", "queued": "dash",
}  # fmt: skip
STRIP_HEIGHT = 104
ROOM = (0.9, 1.1)
"""A strip's multiples of the reference span at least this, lest noise of a thousandth look like a change."""


def strip(nights: Sequence[Mark], name: str, width: int = 480, height: int = STRIP_HEIGHT) -> str:
    """One mark a night, oldest first, its shape telling the result.

    Nights' values are multiples of the reference's error: higher is worse, the line is at 1. A night that is ok
    without a value, as the reference itself, stands on the line, others on the floor.
    """
    if not nights:
        return ""
    floor = height - 22
    step = (width - 36) / max(len(nights) - 1, 1)
    seen = [v for night in nights for v in (night.value, night.low, night.high) if v is not None and math.isfinite(v)]
    scale = objective_scale([*seen, *ROOM]) if seen else None

    def up(value: float | None) -> float:
        if scale is None or value is None or not math.isfinite(value):
            return floor - 7
        low, high = scale.span
        return floor - 8 - (scale.place(value) - low) / (high - low) * (floor - 30)

    levels = [1.0 if night.value is None and night.result == "ok" else night.value for night in nights]
    placed = [(18 + i * step if len(nights) > 1 else width / 2, up(level)) for i, level in enumerate(levels)]
    parts = [f'<path class="axis" d="M4 {floor + 3}H{width - 4}"/>']
    if scale is not None:
        parts.append(f'<path class="rule" d="M4 {up(1.0):.1f}H{width - 4}"/>')
    way = [f"{x:.1f},{y:.1f}" for (x, y), night in zip(placed, nights, strict=True) if night.value is not None]
    if len(way) > 1:
        parts.append(f'<polyline class="way" points="{" ".join(way)}"/>')
    for (x, y), night in zip(placed, nights, strict=True):
        if night.low is not None and night.high is not None:
            parts.append(f'<path class="span r-{night.result}" d="M{x:.1f} {up(night.low):.1f}V{up(night.high):.1f}"/>')
        shape = NIGHT_SHAPES.get(night.result, "ring")
        parts.append(symbol(x, y, shape, 5.2, f"night r-{night.result or 'none'}", f"{night.day}: {night.words}"))
    if scale is not None and nights[-1].value is not None:
        x, y = placed[-1]
        words = f"{number(nights[-1].value)}×"
        parts.append(f'<text class="tick right" x="{x + 12:.1f}" y="{max(12.0, y - 12):.1f}">{words}</text>')
    every = max(1, math.ceil(len(nights) / 5))
    for i in range(len(nights) - 1, -1, -every):
        x = min(max(placed[i][0], 30), width - 30)
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{height - 5}">{escape(nights[i].day)}</text>')
    last = nights[-1]
    label = f"{name}: {len(nights)} {'nights' if nights[1:] else 'night'}, the last {last.day}: {last.words}"
    return picture(width, height, label, "".join(parts), "plot strip" if width <= WIDTH else "plot wide-strip")
