"""Plots as small inline SVG: quick to make, styled by the page around them, readable without a script.

Colours are classes (`k0` to `k4` for leaders, `v0` to `v9` for the scale of objectives, `s-STATE` for states), so that
a page's style sheet has them for light and dark, and a policy that forbids inline styles lets them pass. What a mark
stands for is its `<title>`; every plot has a label that says what it shows.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dashboards.plots import LEADERS, VIRIDIS, Scale, objective_scale
from dashboards.view import Param, View, linear_marks, number
from sweeps.history import Trial

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 12, 44
MOST_CURVES, MOST_POINTS, MOST_MARKS, FEW = 80, 24, 500, 80
STEPS = len(VIRIDIS)
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """Positions from low to high, ticks at some of them, and a name."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    name: str = ""


@dataclass(slots=True)
class Frame:
    """A plot in the making: two axes, and marks between them. Sizes are in the SVG's own units."""

    x: Axis
    y: Axis
    label: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    marks: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Drawn below the marks, and cut off where they leave the plot."""

    def at(self, x: float, y: float, beyond: float = 0.0) -> Point:
        """Where a pair of positions lies, at most so many axes' lengths beyond the plot."""
        across, up = _share(x, self.x, beyond), _share(y, self.y, beyond)
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        return self.left + across * (right - self.left), bottom - up * (bottom - TOP)

    def line(self, points: Iterable[Point], kind: str, title: str = "") -> None:
        """A line through pairs of positions."""
        placed = [self.at(x, y, 2.0) for x, y in points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        self.lines.append(f'<polyline class="{kind}" points="{way}">{_title(title)}</polyline>')

    def mark(self, x: float, y: float, shape: str, size: float, kind: str, title: str = "") -> None:
        """A mark at a pair of positions; for shapes see `symbol`."""
        self.marks.append(symbol(*self.at(x, y), shape, size, kind, title))

    def text(self, x: float, y: float, words: str, kind: str = "note", dx: float = 0, dy: float = 0) -> None:
        """Words at a pair of positions, moved by so much."""
        px, py = self.at(x, y)
        self.marks.append(f'<text class="{kind}" x="{px + dx:.1f}" y="{py + dy:.1f}">{escape(words)}</text>')

    def rule(self, x: float, kind: str = "rule") -> None:
        """A line from bottom to top at a position."""
        px, _ = self.at(x, self.y.low)
        self.marks.append(f'<path class="{kind}" d="M{px:.1f} {TOP}V{self.height - BOTTOM}"/>')

    def svg(self) -> str:
        """The whole plot."""
        box = f"{self.left} {TOP} {self.width - RIGHT - self.left} {self.height - BOTTOM - TOP}"
        x, y, width, height = box.split()
        inside = f'<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="{box}">{"".join(self.lines)}</svg>'
        return picture(self.width, self.height, self.label, "".join([*self._axes(), inside, *self.marks]))

    def _axes(self) -> list[str]:
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        found = []
        for place, words in self.x.ticks:
            px, _ = self.at(place, self.y.low)
            found.append(f'<path class="grid" d="M{px:.1f} {TOP}V{bottom}"/>')
            found.append(f'<text class="tick mid" x="{px:.1f}" y="{bottom + 17}">{escape(words)}</text>')
        for place, words in self.y.ticks:
            _, py = self.at(self.x.low, place)
            found.append(f'<path class="grid" d="M{self.left} {py:.1f}H{right}"/>')
            found.append(f'<text class="tick right" x="{self.left - 6}" y="{py + 4:.1f}">{escape(words)}</text>')
        found.append(f'<path class="axis" d="M{self.left} {TOP}V{bottom}H{right}"/>')
        if self.x.name:
            middle = (self.left + right) / 2
            found.append(f'<text class="name mid" x="{middle:.0f}" y="{self.height - 6}">{escape(self.x.name)}</text>')
        if self.y.name:
            found.append(
                f'<text class="name mid" transform="translate(13 {(TOP + bottom) / 2:.0f}) rotate(-90)">'
                f"{escape(self.y.name)}</text>"
            )
        return found


def escape(words: Any) -> str:
    """Text for SVG, in content and in double-quoted attributes."""
    return html.escape(str(words), quote=True)


def picture(width: float, height: float, label: str, inside: str, kind: str = "plot") -> str:
    """An SVG element that grows with its place, and is one image with a label to a screen reader."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{inside}</svg>'
    )


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""


def _share(place: float, axis: Axis, beyond: float) -> float:
    length = axis.high - axis.low or 1.0
    return min(1.0 + beyond, max(-beyond, (place - axis.low) / length))


def symbol(x: float, y: float, shape: str, size: float, kind: str, title: str = "") -> str:
    """A mark of a shape (circle, ring, square, diamond, triangle, down, dash, cross) around a point of the SVG."""
    s = size
    told = f' class="{kind}"'
    if shape in ("circle", "ring"):
        return f'<circle{told} cx="{x:.1f}" cy="{y:.1f}" r="{s:g}">{_title(title)}</circle>'
    ways = {
        "square": f"M{x - s:.1f} {y - s:.1f}h{2 * s:g}v{2 * s:g}h{-2 * s:g}z",
        "diamond": f"M{x:.1f} {y - 1.3 * s:.1f}l{1.3 * s:g} {1.3 * s:g}l{-1.3 * s:g} {1.3 * s:g}"
        f"l{-1.3 * s:g} {-1.3 * s:g}z",
        "triangle": f"M{x:.1f} {y - 1.2 * s:.1f}l{1.2 * s:g} {2.2 * s:g}h{-2.4 * s:g}z",
        "down": f"M{x:.1f} {y + 1.2 * s:.1f}l{1.2 * s:g} {-2.2 * s:g}h{-2.4 * s:g}z",
        "dash": f"M{x - s:.1f} {y:.1f}h{2 * s:g}",
        "cross": f"M{x - s:.1f} {y - s:.1f}l{2 * s:g} {2 * s:g}m0 {-2 * s:g}l{-2 * s:g} {2 * s:g}",
    }
    return f'<path{told} d="{ways[shape]}">{_title(title)}</path>'


def value_axis(scale: Scale, name: str) -> Axis:
    """An axis of objectives, with room at both ends."""
    low, high = scale.span
    pad = 0.04 * (high - low)
    places, words = scale.ticks()
    if scale.log and len(places) < 3 and scale.high < 30 * scale.low:
        fine = [s * 10.0**p for p in range(-9, 9) for s in (1, 1.5, 2, 3, 4, 5, 7)]
        inside = [mark for mark in fine if scale.low <= mark <= scale.high * 1.1]
        if len(inside) > len(places):
            places, words = [scale.place(mark) for mark in inside], [number(mark, keep_zeros=False) for mark in inside]
    return Axis(low - pad, high + pad, thinned(list(zip(places, words, strict=True)), 8), name)


def thinned(ticks: Sequence[tuple[float, str]], most: int) -> list[tuple[float, str]]:
    """At most so many of the ticks, evenly."""
    step = math.ceil(len(ticks) / most) if ticks else 1
    return list(ticks[::step])


def spark(values: Sequence[float], label: str, width: int = 96, height: int = 22) -> str:
    """A curve without axes, as wide as a word; on a log scale where it spans a factor of five."""
    finite = [value for value in values if math.isfinite(value)]
    scale = objective_scale(finite)
    if scale is None or len(values) < 2:
        return ""
    low, high = scale.span
    step = (width - 4) / (len(values) - 1)
    points = [
        (2 + i * step, height - 3 - (scale.place(value) - low) / (high - low) * (height - 6))
        for i, value in enumerate(values)
        if math.isfinite(value)
    ]
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    end = points[-1]
    inside = f'<polyline points="{way}"/><circle cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="2.2"/>'
    return picture(width, height, label, inside, "spark")


def curves(view: View) -> str:
    """Objective against update: the best five in colour, the others behind them, rungs as dotted lines; or empty."""
    drawn = [(trial, points) for trial in _some(view.ranked, MOST_CURVES) if (points := view.curve(trial))]
    if not drawn:
        return ""
    leaders = [trial.number for trial in view.ranked[:MOST_CURVES] if view.value(trial) is not None][: len(LEADERS)]
    sane = [value for trial, points in drawn if trial.state != "diverged" for _, value in points]
    scale = objective_scale(sane or [value for _, points in drawn for _, value in points], view.mode)
    assert scale is not None, "a curve drawn has a finite value"
    last = max(points[-1][0] for _, points in drawn)
    last = max(last, view.updates if view.updates < 3 * last else last)
    steps = [(mark, f"{mark:,.0f}") for mark in linear_marks(0, last, whole=True)]
    name = f"{view.metric.replace('_', ' ')}{' (log)' if scale.log else ''}"
    made = Frame(Axis(0, last, steps, "update"), value_axis(scale, name), _said_of_curves(view, len(drawn)))
    _rungs(made, view.rungs)
    for trial, points in drawn:
        if trial.number not in leaders:
            made.line(_placed(points, scale), f"crowd s-{trial.state}", f"{trial.id}, {trial.state}")
    by_number = {trial.number: (trial, points) for trial, points in drawn}
    for place, leader in reversed(list(enumerate(leaders))):
        if leader in by_number:
            trial, points = by_number[leader]
            words = f"{trial.id}, {view.metric} {number(view.value(trial))}: {view.described(trial)}"
            made.line(_placed(points, scale), f"lead k{place}", words)
            made.mark(*_placed(points, scale)[-1], SHAPES[place], 3.6, f"end k{place}", words)
    return made.svg()


def series(points: Sequence[tuple[int, float]], metric: str, label: str) -> str:
    """One metric of one trial against update; empty without a finite value."""
    kept = [(update, value) for update, value in points if math.isfinite(value)]
    scale = objective_scale([value for _, value in kept])
    if scale is None:
        return ""
    last = max(update for update, _ in kept) or 1
    steps = [(mark, f"{mark:,.0f}") for mark in linear_marks(0, last, whole=True)]
    name = f"{metric.replace('_', ' ')}{' (log)' if scale.log else ''}"
    made = Frame(Axis(0, last, steps, "update"), value_axis(scale, name), label, width=400, height=240)
    placed = [(float(update), scale.place(value)) for update, value in kept]
    made.line(placed, "lead k0")
    for (x, y), (update, value) in zip(placed, kept, strict=True):
        made.mark(x, y, "circle", 3.0 if len(kept) < 60 else 1.8, "end k0", f"update {update:,}: {number(value)}")
    return made.svg()


def _rungs(made: Frame, rungs: Sequence[int]) -> None:
    """Dotted lines at rungs, named where there is room for a name."""
    free = -math.inf
    for rung in rungs:
        made.rule(rung)
        x, _ = made.at(rung, made.y.low)
        if x >= free and x < made.width - 80:
            made.text(rung, made.y.high, f"rung {rung:,}", "note", dx=3, dy=9)
            free = x + 64


SHAPES = ("circle", "square", "triangle", "down", "diamond")
"""Of the leaders' ends, so that they are told apart without their colours."""


def _said_of_curves(view: View, count: int) -> str:
    best = view.best
    words = f"Learning curves of {count} of {len(view.trials):,} trials"
    return f"{words}; the best, {best.id}, is at {number(view.value(best))}" if best is not None else words


def _placed(points: Sequence[tuple[int, float]], scale: Scale) -> list[Point]:
    step = max(1, math.ceil(len(points) / MOST_POINTS))
    kept = [*points[::step], *([points[-1]] if (len(points) - 1) % step else [])]
    there = [(update, value) for update, value in kept if value > 0 or not scale.log]  # a diverging score may be 0
    return [(float(update), scale.place(value)) for update, value in there]


def _some(trials: Sequence[Trial], most: int) -> list[Trial]:
    """At most so many trials: the foremost half of them, and the others evenly over the ranking."""
    if len(trials) <= most:
        return list(trials)
    half = most // 2
    rest = trials[half:]
    return [*trials[:half], *(rest[i * len(rest) // half] for i in range(half))]


def momentum_map(view: View) -> list[tuple[str, str]]:
    """Learning rate against momentum: (method, plot) for each method; empty where one of the two is not searched."""
    mu, lr = view.param("mu_max"), view.param("lr")
    if mu is None or lr is None:
        return []
    trials = [trial for trial in _some(view.ranked, MOST_MARKS) if "lr" in trial.params]
    scale = objective_scale([value for trial in trials if (value := view.value(trial)) is not None], view.mode)
    method = view.param("method")
    names = list(method.values) if method else sorted({str(view.setting(trial, "method")) for trial in trials})
    found = []
    for name in names:
        mine = [trial for trial in trials if view.setting(trial, "method") == name]
        if mine:
            found.append((str(name), _facet(view, str(name), mine, (mu, lr), scale)))
    return found


def _axis(param: Param, name: str) -> Axis:
    low, high = param.span()
    pad = 0.05 * (high - low)
    places, words = param.ticks()
    return Axis(low - pad, high + pad, thinned(list(zip(places, words, strict=True)), 7), name)


def _facet(view: View, name: str, trials: Sequence[Trial], params: tuple[Param, Param], scale: Scale | None) -> str:
    mu, lr = params
    flat = not any("mu_max" in trial.params for trial in trials) or name == "sgd"
    x = Axis(0, 1, [], "no momentum") if flat else _axis(mu, "µ_max")
    label = f"{name}: {len(trials)} trials by learning rate and momentum"
    made = Frame(x, _axis(lr, "learning rate"), label, width=360, height=280)
    for trial in reversed(trials):  # the best are drawn last
        across = 0.3 + 0.4 * (trial.number * 0.618034 % 1) if flat else mu.place(trial.params.get("mu_max"))
        up = lr.place(trial.params["lr"])
        if across is None or up is None:
            continue
        value = view.value(trial)
        shape, size = MARKS.get(trial.state, ("circle", 3.0))
        size *= 1.0 if len(trials) <= FEW else 0.75
        kind = "awaited" if trial.state == "running" else "lost"
        kind = kind if value is None or scale is None else f"v v{_step(value, scale, view.mode)}"
        result = trial.state if value is None else f"{view.metric} {number(value)}, {trial.state}"
        made.mark(across, up, shape, size, kind, f"{trial.id}: {result}; {view.described(trial)}")
        if trial is view.best:
            made.mark(across, up, "ring", 9, "chosen", f"{trial.id}: the best")
    return made.svg()


MARKS = {
    "complete": ("circle", 5.0),
    "stopped": ("circle", 3.2),
    "running": ("diamond", 4.0),
    "diverged": ("cross", 3.4),
}
"""Shape and size of a trial's mark, by its state."""


def _step(value: float, scale: Scale, mode: str) -> int:
    """Which of the ten colours an objective has; 0 is the best."""
    low, high = scale.span
    share = min(1.0, max(0.0, (scale.place(value) - low) / (high - low)))
    return min(STEPS - 1, int((share if mode == "min" else 1 - share) * STEPS))
