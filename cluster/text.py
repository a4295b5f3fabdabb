"""Numbers, spans and curves as short text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"
# Bit of each dot of a braille cell, by row and column (Unicode 16, block 2800).
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def span(seconds: float | None) -> str:
    """A duration: `0.4s`, `12s`, `3m20s`, `2h05m`, `3d04h`; a dash for None."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def count(value: float) -> str:
    """A large count: `950`, `12.3k`, `4.5M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.1f}{unit}"
    return f"{value:.0f}"


def size(octets: float) -> str:
    """Bytes in binary units: `512 B`, `3.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} TiB"


def value(item: Any) -> str:
    """A parameter or metric: four significant digits; close to 1 the distance to 1 keeps three (0.99847)."""
    if item is None:
        return "-"
    if isinstance(item, bool) or not isinstance(item, float):
        return str(item)
    if 0.9 < item < 1:
        return f"{item:.{2 - math.floor(math.log10(1 - item))}f}".rstrip("0")
    return f"{item:.4g}"


def params(items: Mapping[str, Any]) -> str:
    """Parameters on one line: `lr=0.01 method=nag`."""
    return " ".join(f"{name}={value(item)}" for name, item in items.items())


def plain(words: str) -> str:
    """Words from a folder as rich prints them: no markup, and nothing that a terminal would act on."""
    from rich.markup import escape

    return escape("".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in words))


def one_line(words: str) -> str:
    """Words on one line, with nothing that a terminal would act on."""
    return "".join(each if each.isprintable() else "\ufffd" for each in " ".join(words.split()))


def plural(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _scaled(values: Sequence[float]) -> tuple[list[float | None], bool]:
    """Values mapped to [0, 1], None where not finite; on a log axis when they span a factor of ten."""
    finite = [item for item in values if math.isfinite(item)]
    if not finite:
        return [None] * len(values), False
    low, high = min(finite), max(finite)
    log = low > 0 and high / low >= 10
    start, width = (math.log(low), math.log(high / low)) if log else (low, high - low)
    if width == 0:
        return [0.5 if math.isfinite(item) else None for item in values], log
    return [
        ((math.log(item) if log else item) - start) / width if math.isfinite(item) else None for item in values
    ], log


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """A curve in one line of blocks, `×` where it is not finite."""
    if len(values) > width:
        values = [values[(index * (len(values) - 1)) // (width - 1)] for index in range(width)]
    return "".join("×" if item is None else _BARS[min(7, int(item * 8))] for item in _scaled(values)[0])


def plot(xs: Sequence[float], ys: Sequence[float], width: int = 60, height: int = 10) -> list[str]:
    """A curve drawn in braille dots, with the y range at the left and the x range below.

    Points that are not finite are left out; the line joins the others. A y range that spans a factor
    of ten is drawn on a log axis, and the last line says so.
    """
    heights, log = _scaled(ys)
    points = [(x, y) for x, y in zip(xs, heights, strict=True) if y is not None]
    if not points:
        return ["(no finite values)"]
    left, right = min(xs), max(xs)
    columns, rows = 2 * width - 1, 4 * height - 1
    dots = [(round((x - left) / (right - left or 1) * columns), round((1 - y) * rows)) for x, y in points]
    cells = [[0] * width for _ in range(height)]
    for (x0, y0), (x1, y1) in zip(dots, dots[1:] or dots, strict=False):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            x, y = round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    finite = [item for item in ys if math.isfinite(item)]
    labels = [""] * height
    labels[0], labels[-1] = value(float(max(finite))), value(float(min(finite)))
    margin = max(map(len, labels))
    lines = [
        f"{label:>{margin}} │{''.join(chr(0x2800 + cell) for cell in row)}"
        for label, row in zip(labels, cells, strict=True)
    ]
    lines.append(" " * margin + " └" + "─" * width)
    note = "update, log scale" if log else "update"
    foot = f"{count(left)}{note:^{max(0, width - len(count(left)) - len(count(right)))}}{count(right)}"
    return [*lines, " " * (margin + 2) + foot]
