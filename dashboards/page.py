"""The report's page: markup, style and the script that draws. Everything given to it is escaped here."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dashboards.plots import VIRIDIS, Figure

# Nothing may be loaded from anywhere, whatever plotly.js or a name in a spec would like. Plotly's WebGL plots compile
# their drawing commands, hence unsafe-eval.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)

CSS = """
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #1c1f23; --soft: #5c646d; --line: #e2e3df; --card: #ffffff;
  --accent: #0072b2; --grid: #ebebe7; --tint: #eef5fa; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8ea; --soft: #9aa3ac; --line: #2d333a;
  --card: #1b1f24; --accent: #6bb7e6; --grid: #2a3037; --tint: #1d2a35; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header > div, footer { max-width: 1160px; margin: 0 auto; padding: 0 28px; }
header { border-top: 5px solid var(--accent); padding-top: 34px; }
h1 { font-size: 2.1rem; line-height: 1.15; margin: 0; letter-spacing: -.02em; overflow-wrap: anywhere; }
.id { color: var(--soft); font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; margin: 6px 0 0;
  overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 22px 0 0; padding: 10px 0; font-size: 14px;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
nav a { color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px; margin: 26px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px 13px; }
.tile dt { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.tile .figure { font-size: 1.75rem; font-weight: 650; letter-spacing: -.02em; margin: 0; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile .note { color: var(--soft); font-size: 13px; margin: 2px 0 0; line-height: 1.4; }
.summary { display: grid; grid-template-columns: 3fr 2fr; gap: 12px 40px; }
.summary p { margin: 0 0 .8em; }
.summary div p:first-child { font-size: 1.15rem; line-height: 1.5; }
.summary aside { color: var(--soft); font-size: 14.5px; border-left: 3px solid var(--line); padding-left: 18px; }
.summary aside p:last-child { margin-bottom: 0; }
section { margin: 44px 0 0; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 0 0 4px; }
h3 { font-size: 14px; font-weight: 600; margin: 0 0 2px; }
.caption { color: var(--soft); font-size: 14.5px; max-width: 82ch; margin: 0 0 12px; }
.nothing { color: var(--soft); background: var(--card); border: 1px dashed var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 8px 0 0; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
.facets { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 14px 18px; }
.plot { width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); padding: 0; }
.wrapped td { white-space: normal; }
th button { all: unset; cursor: pointer; padding: 6px 12px; display: block; width: 100%; box-sizing: border-box; }
th button:hover, th button:focus-visible { color: var(--accent); }
th[aria-sort] { color: var(--ink); }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
th.words, td.words { text-align: left; }
td.main { font-weight: 650; }
tbody tr:hover { background: var(--tint); }
.first tbody tr:first-child { background: var(--tint); }
details { margin: 14px 0 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14.5px; padding: 4px 0; }
dl.about { display: grid; grid-template-columns: max-content 1fr; gap: 5px 24px; font-size: 14.5px; margin: 12px 0 0; }
dl.about dt { color: var(--soft); }
dl.about dd { margin: 0; overflow-wrap: anywhere; }
.scale { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 12px; font-size: 13px; color: var(--soft);
  margin: 0 0 14px; font-variant-numeric: tabular-nums; }
.ramp { position: relative; width: min(340px, 100%); height: 32px; }
.ramp i { position: absolute; inset: 0 0 20px; border-radius: 3px; }
@media (prefers-color-scheme: dark) { .ramp i { transform: scaleX(-1); } }
.ramp span { position: absolute; bottom: 0; transform: translateX(-50%); line-height: 18px; }
footer { color: var(--soft); font-size: 13px; margin-top: 56px; padding-top: 16px; padding-bottom: 40px; }
@media (max-width: 640px) { main, header > div, footer { padding-left: 16px; padding-right: 16px; }
  header { padding-top: 22px; } h1 { font-size: 1.6rem; } .tiles { grid-template-columns: 1fr 1fr; gap: 10px; }
  .tile { padding: 11px 13px; } .tile .figure { font-size: 1.35rem; } dl.about { grid-template-columns: 1fr; gap: 0; }
  dl.about dd { margin: 0 0 9px; } th button, td { padding-left: 8px; padding-right: 8px; } section { margin-top: 34px;
  } .summary { grid-template-columns: 1fr; } }
@media print { nav, details { display: none; } section { break-inside: avoid; } }
"""

JS = """
"use strict";
const { figures, ramp } = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function themed(layout, width) {
  const narrow = width < 560, ink = colour("--ink"), soft = colour("--soft"), grid = colour("--grid");
  const size = narrow ? 11 : 13;
  const axis = given => ({ automargin: true, gridcolor: grid, linecolor: colour("--line"), zeroline: false,
    tickcolor: colour("--line"), ticks: "outside", ticklen: 4, dividercolor: colour("--line"), ...given,
    title: { standoff: 10, font: { size, color: soft }, ...given.title }, fixedrange: narrow });
  const legend = { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom",
    font: { size: narrow ? 11 : 12 } };
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, ...layout,
    font: { family: getComputedStyle(document.body).fontFamily, size, color: ink },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: ink, size: 13 },
      align: "left", namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
    margin: layout.margin || { l: 10, r: narrow ? 10 : 24, t: 10, b: 10 }, legend: { ...legend, ...layout.legend },
    annotations: (layout.annotations || []).map(note => ({ bgcolor: colour("--paper") + "b0", borderpad: 0, ...note,
      font: { color: soft, ...note.font } })),
    xaxis: axis(layout.xaxis || {}), yaxis: axis(layout.yaxis || {}) };
}

// On a dark page the colour scale is turned round, so that the best are always the most visible.
function turned(data) {
  const other = Object.fromEntries(ramp.map((shade, i) => [shade, ramp[ramp.length - 1 - i]]));
  return JSON.parse(JSON.stringify(data).replace(/#[0-9a-f]{6}/g, shade => other[shade] ?? shade));
}

function painted(data) {
  const ink = colour("--ink"), halo = Array(4).fill("0 0 2px " + colour("--paper")).join();
  const fonts = { labelfont: { color: ink, size: 13 },
    tickfont: { color: ink, size: 11, shadow: halo },
    rangefont: { color: "rgba(0,0,0,0)", size: 1 } };
  return (dark.matches ? turned(data) : data).map(trace => trace.type === "parcoords" ? { ...trace, ...fonts } : trace);
}

function webgl() {
  try { return !!document.createElement("canvas").getContext("webgl"); } catch { return false; }
}

function draw() {
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false };
  for (const [name, figure] of Object.entries(figures)) {
    const place = document.getElementById(name), form = figure.fallback && !webgl() ? figure.fallback : figure;
    Plotly.react(place, painted(form.data), themed(form.layout, place.clientWidth), config)
      .then(() => { place.dataset.drawn = "yes"; }, error => { place.textContent = "This plot failed: " + error; });
  }
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.key;
    const compare = (a, b) => {
      const p = key(a), q = key(b);
      if (p === undefined || q === undefined) return (p === undefined) - (q === undefined);  // no value: last
      const order = p !== "" && q !== "" && !isNaN(p) && !isNaN(q) ? p - q : p.localeCompare(q);
      return up ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  }));
}

document.querySelectorAll("table").forEach(sortable);
draw();
dark.addEventListener("change", draw);
"""


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


def page(title: str, head: str, sections: Sequence[Section], foot: str, plotly: str) -> str:
    """The whole HTML file; `head` and `foot` are markup."""
    figures = {f"{s.key}-{i}": _parts(figure) for s in sections for i, figure in enumerate(s.figures)}
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
{head}
<nav aria-label="Sections">{links}</nav>
</div></header>
<main>
{body}
</main>
<footer>{foot}</footer>
<script type="application/json" id="figures">{embed({"figures": figures, "ramp": VIRIDIS})}</script>
<script>{plotly}</script>
<script>{JS}</script>
</body>
</html>
"""


def _parts(figure: Figure) -> dict[str, Any]:
    """What the script needs of a figure."""
    parts: dict[str, Any] = {"data": figure.data, "layout": figure.layout}
    return parts | ({"fallback": _parts(figure.fallback)} if figure.fallback else {})


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
    parts.append(f'<div class="facets">{"".join(plots)}</div>' if len(plots) > 1 else "".join(plots))
    return "\n".join([*parts, section.markup, "</section>"])


def _plot(key: str, figure: Figure) -> str:
    least = f"min-width:{figure.least_width}px;" if figure.least_width else ""
    place = f'<div class="plot" id="{key}" style="{least}height:{figure.height}px"></div>'
    place = f'<div class="scroll">{place}</div>' if least else place
    return f"<div><h3>{escape(figure.title)}</h3>{place}</div>" if figure.title else place


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
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
