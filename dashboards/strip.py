"""The strip chart of a schedule's nights: how far each was from its reference, and what it was judged.

Fresh-seed nights are a ratio of errors with its interval, around 1; fixed-seed ones the largest relative difference,
with the tolerance as a line. A result is told by colour, by the form of its mark and in words.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from dashboards.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION
from sweeps.night_file import RESULTS, Night

COLOURS = {"ok": BLUE, "worse": VERMILION, "better": GREEN, "broken": PURPLE}
MARKS = {"ok": "o", "worse": "v", "better": "^", "broken": "X"}
"""Form of a mark, by result, as on the pages and in the terminal."""
SAME = 1e-12
"""Where nights that are equal to the bit stand on an axis of differences."""
LARGEST = 10.0
SIZE, DPI = (8.0, 3.0), 100
NONE = "no night has been judged yet"


def kind_of(nights: Sequence[Night]) -> str:
    """What the nights are drawn as: by the last one's kind."""
    return nights[-1].kind if nights else "plain"


def place(night: Night, kind: str) -> float | None:
    """Where a night stands on the axis; None where it measured nothing that could be compared."""
    if night.kind != kind or night.result == "broken" or kind == "plain":
        return None
    if kind == "fresh":
        return night.effect
    if night.difference is None:  # something is no number any more, or it is the first night
        return LARGEST if night.reference and night.result != "ok" else None
    return min(LARGEST, max(SAME, night.difference))


def png(nights: Sequence[Night], title: str = "") -> bytes:
    """The chart as a PNG of 800 x 300 pixels, for messages; the nights in any order, also none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    nights = sorted(nights, key=lambda night: night.at)
    kind = kind_of(nights)
    canvas = Canvas(figsize=SIZE, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    axes.set_yscale("log" if kind != "plain" else "linear")
    low, high = _ends(nights, kind)
    axes.set_ylim(low, high)
    _lines(axes, nights, kind)
    for result in RESULTS:
        _points(axes, [night for night in nights if night.result == result], kind, result)
    _words(axes, nights, kind, title)
    out = io.BytesIO()
    canvas.savefig(out, format="png")
    return out.getvalue()


def _day(night: Night) -> datetime:
    return datetime.fromtimestamp(night.at, UTC)


def _ends(nights: Sequence[Night], kind: str) -> tuple[float, float]:
    """Both ends of the axis, with room for what is drawn at its lower edge."""
    if kind == "plain":
        return 0.0, 1.0
    found = [value for night in nights if (value := place(night, kind)) is not None]
    if kind == "fixed":
        tolerances = [night.tolerance for night in nights if night.tolerance]
        return SAME / 5, 10 * max([*found, *tolerances, 1e-6])
    ends = [each for night in nights for each in (night.low, night.high) if night.kind == kind and each]
    size = max((abs(math.log(each)) for each in (*found, *ends)), default=0.0)
    size = 1.25 * min(max(size, math.log(1.1)), math.log(100))
    return math.exp(-size), math.exp(size)


def _lines(axes: Any, nights: Sequence[Night], kind: str) -> None:
    """The line that nights are held against, and where a new reference begins."""
    if kind == "fresh":
        axes.axhline(1.0, color=GREY, linewidth=1, zorder=1)
    elif kind == "fixed" and nights and nights[-1].tolerance:
        axes.axhline(nights[-1].tolerance, color=ORANGE, linewidth=1.2, linestyle="--", zorder=1)
        axes.annotate("tolerance", (0.004, nights[-1].tolerance), xycoords=("axes fraction", "data"), fontsize=8,
                      va="bottom", color="#8a5a00")  # fmt: skip
    for night, why in begun(nights):
        axes.axvline(_day(night), color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(why, (_day(night), 0.98), xycoords=("data", "axes fraction"), fontsize=7.5, rotation=90,
                      va="top", ha="right", color="#555555")  # fmt: skip


def begun(nights: Sequence[Night]) -> list[tuple[Night, str]]:
    """Nights at which a new reference begins, and why."""
    found = []
    for before, night in itertools.pairwise(nights):
        if night.accepted:
            found.append((night, "accepted"))
        elif night.spec != before.spec and night.spec:
            found.append((night, "new spec"))
    return found


def _points(axes: Any, nights: Sequence[Night], kind: str, result: str) -> None:
    if not nights:
        return
    mark, colour = MARKS[result], COLOURS[result]
    edge = _ends(nights, kind)[0] if kind != "plain" else 0.5
    bottom = axes.get_ylim()[0]
    days = [_day(night) for night in nights]
    heights = [place(night, kind) for night in nights]
    there = [(day, height, night) for day, height, night in zip(days, heights, nights, strict=True) if height]
    for day, _, night in there:
        if kind == "fresh" and night.low and night.high:
            axes.plot([day, day], [night.low, night.high], color=colour, linewidth=1.3, alpha=0.75, zorder=2)
    style = {"linestyle": "none", "marker": mark, "color": colour, "markeredgecolor": "white", "clip_on": False}
    axes.plot([day for day, *_ in there], [height for _, height, _ in there], **style, markersize=7, zorder=4,
              label=f"{result} ({len(nights)})")  # fmt: skip
    away = [day for day, height in zip(days, heights, strict=True) if not height]
    hollow = {**style, "markeredgecolor": colour, "markerfacecolor": colour if result == "broken" else "white"}
    axes.plot(away, [bottom if kind != "plain" else edge] * len(away), **hollow, markersize=7, zorder=4)


def _words(axes: Any, nights: Sequence[Night], kind: str, title: str) -> None:
    axes.set_ylabel({"fixed": "largest difference", "fresh": "ratio of errors", "plain": ""}[kind], fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    if not nights:
        axes.text(0.5, 0.5, NONE, transform=axes.transAxes, ha="center", color=GREY)
        return
    _ticks(axes, nights, kind)
    last = nights[-1]
    axes.set_title(f"{title + ': ' if title else ''}{last.result} on {_day(last):%Y-%m-%d}", fontsize=10, loc="left",
                   color=COLOURS[last.result], fontweight="bold")  # fmt: skip
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8, frameon=False, borderaxespad=0.1,
                handletextpad=0.1, columnspacing=1)  # fmt: skip


def _ticks(axes: Any, nights: Sequence[Night], kind: str) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import NullLocator

    where = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(where)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(where))  # type: ignore[no-untyped-call]
    if len({night.at for night in nights}) == 1:
        axes.set_xticks([_day(nights[0])], [f"{_day(nights[0]):%Y-%m-%d}"])
    if kind == "plain":
        axes.set_yticks([])
    low, high = axes.get_ylim()
    marks, texts = _marks(low, high, kind)
    if marks:
        axes.set_yticks(marks, texts)
        axes.yaxis.set_minor_locator(NullLocator())


def _marks(low: float, high: float, kind: str) -> tuple[list[float], list[str]]:
    """Round values on the axis, in words where they stand for something."""
    if kind == "fixed":
        powers = [10.0**power for power in range(-9, math.ceil(math.log10(high)), 3)]
        return [SAME, *powers], [
            "equal bits",
            *(f"{each:.0e}".replace("e-0", "e-").replace("1e+00", "1") for each in powers),
        ]
    if kind != "fresh":
        return [], []
    for steps in ((1.02, 1.05), (1.05, 1.1), (1.1, 1.2), (1.25, 1.5), (1.5, 2), (2, 4), (3, 10), (10, 100)):
        if high <= steps[-1] ** 1.35 or steps[-1] == 100:
            above = [step for step in steps if step < high]
            break
    marks = sorted([1 / step for step in above] + [1.0] + above)
    return [mark for mark in marks if low <= mark <= high], [f"{mark:.3g}" for mark in marks if low <= mark <= high]
