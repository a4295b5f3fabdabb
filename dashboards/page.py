"""The report's page: its markup, around style and script. Everything given to it is escaped here."""

from __future__ import annotations

import base64
import html
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dashboards.plots import VIRIDIS, Figure
from dashboards.script import JS
from dashboards.style import CSS

# Nothing may be loaded from anywhere, whatever plotly.js or a name in a spec would like. Plotly's WebGL plots compile
# their drawing commands, hence unsafe-eval.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)


@dataclass(slots=True)
class Section:
    """A part of the page: its figures, or the reason why there are none; `before` is markup above the figures."""

    key: str
    title: str
    caption: str
    figures: list[Figure] = field(default_factory=list)
    nothing: str = ""
    before: str = ""
    markup: str = ""
    stacked: bool = False
    """Whether figures stand below each other however wide the page is."""


def page(
    title: str, head: str, sections: Sequence[Section], foot: str, plotly: str, first: Figure | None = None,
    under: str = "",
) -> str:  # fmt: skip
    """The whole HTML file; `head`, `under` and `foot` are markup. `first` is drawn in the head, over `under`."""
    figures = {f"{s.key}-{i}": _parts(figure) for s in sections for i, figure in enumerate(s.figures)}
    figures |= {} if first is None else {"first": _parts(first)}
    hero = "" if first is None else f'<div class="hero">{_plot("first", first)}</div>'
    links = "".join(f'<a href="#{s.key}">{escape(s.title)}</a>' for s in sections)
    body = "\n".join(map(_section, sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<header><div>
{head}{hero}{under}
<nav aria-label="Sections">{links}</nav>
</div></header>
<main>
{body}
</main>
<footer>{foot}</footer>
<script type="application/json" id="figures">{embed({"figures": figures, "ramp": VIRIDIS})}</script>
<script type="application/octet-stream" id="plotly">{packed(plotly)}</script>
<script>{JS}</script>
</body>
</html>
"""


def _parts(figure: Figure) -> dict[str, Any]:
    """What the script needs of a figure."""
    if figure.forms:
        return {"forms": [_parts(form) for form in figure.forms.values()]}
    parts: dict[str, Any] = {"data": figure.data, "layout": figure.layout}
    return parts | ({"fallback": _parts(figure.fallback)} if figure.fallback else {})


def packed(script: str) -> str:
    """A script as deflated bytes in base64; the same bytes for the same script."""
    return base64.b64encode(zlib.compress(script.encode(), 9)).decode()


def escape(words: Any) -> str:
    """Text for HTML, in content and in double-quoted attributes."""
    return html.escape(str(words), quote=True)


def embed(value: Any) -> str:
    """JSON that cannot end the script element it stands in; numbers that are not finite become null."""
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        # 9 digits are beyond what a plot can show, and half the bytes
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _section(section: Section) -> str:
    parts = [f'<section id="{section.key}"><h2>{escape(section.title)}</h2>']
    if section.caption and not section.nothing:
        parts.append(f'<p class="caption">{escape(section.caption)}</p>')
    parts.append(section.before)
    if section.nothing:
        parts.append(f'<p class="nothing">{escape(section.nothing)}</p>')
    plots = [_plot(f"{section.key}-{i}", figure) for i, figure in enumerate(section.figures)]
    parts.append(
        f'<div class="facets">{"".join(plots)}</div>' if len(plots) > 1 and not section.stacked else "".join(plots)
    )
    return "\n".join([*parts, section.markup, "</section>"])


def _plot(key: str, figure: Figure) -> str:
    least = f"min-width:{figure.least_width}px;" if figure.least_width else ""
    place = f'<div class="plot" id="{key}" style="{least}height:{figure.height}px"></div>'
    place = f'<div class="scroll">{place}</div>' if least else place
    head = f"<h3>{escape(figure.title)}</h3>" if figure.title else ""
    if figure.forms:
        buttons = "".join(
            f'<button type="button" aria-pressed="{"false" if i else "true"}">{escape(name)}</button>'
            for i, name in enumerate(figure.forms)
        )
        switch = f'<div class="switch" role="group" aria-label="what is shown" data-plot="{key}">{buttons}</div>'
        head = f'<div class="plothead">{head or "<span></span>"}{switch}</div>'
    return f"<div>{head}{place}</div>" if head else place


def ramp(label: str, ticks: tuple[list[float], list[str]], span: tuple[float, float], dark_low: bool) -> str:
    """A colour legend: a bar of viridis with ticks at positions of the span."""
    colours = VIRIDIS if dark_low else VIRIDIS[::-1]
    low, high = span
    marks = "".join(
        f'<span style="left:{100 * (place - low) / (high - low):.1f}%">{escape(words)}</span>'
        for place, words in zip(*ticks, strict=True)
    )
    bar = f'<i style="background:linear-gradient(to right,{",".join(colours)})"></i>'
    return f'<div class="scale"><span>{escape(label)}</span><div class="ramp">{bar}{marks}</div></div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[tuple[str, Any]]], main: int, words: set[int]) -> str:
    """A sortable table; `main` is the column that matters, `words` the left-aligned ones."""

    def kind(column: int) -> str:
        return ' class="words"' if column in words else ' class="main"' if column == main else ""

    def cell(column: int, shown: str, key: Any) -> str:
        order = "" if key is None else f' data-key="{escape(key)}"'
        return f"<td{kind(column)}{order}>{escape(shown)}</td>"

    heads = "".join(
        f'<th scope="col"{kind(i) if i in words else ""}><button type="button">{escape(name)}</button></th>'
        for i, name in enumerate(columns)
    )
    lines = ("".join(cell(i, *entry) for i, entry in enumerate(row)) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    head = f'<table class="sortable"><thead><tr>{heads}</tr></thead>'
    return f'<div class="scroll">{head}<tbody>{body}</tbody></table></div>'
