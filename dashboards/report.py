"""The report of a sweep: one HTML file that opens from disk, with nothing to load from anywhere."""

from __future__ import annotations

import os
from pathlib import Path

from dashboards import diagnostics, facts, flow, parallel, plots
from dashboards.page import Section, escape, page, ramp, table
from dashboards.view import View, read, utc

SHOWN = 10


def write(folder: Path) -> Path:
    """Make `report.html` in a sweep folder, finished sweep or not, and return its path.

    The file depends on the folder alone, and a reader sees the old one or the new one, never a part.

    Raises:
        FileNotFoundError: the folder holds no spec.json.
    """
    path = folder / "report.html"
    new = path.with_name(f".report.html.{os.getpid()}")
    try:
        new.write_text(render(read(folder)), encoding="utf-8")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return path


def render(view: View) -> str:
    """The report as HTML."""
    from plotly.offline import get_plotlyjs

    name = str(view.spec.get("name") or "sweep")
    return page(f"{name}: musweep report", _head(view, name), _sections(view), _foot(view), get_plotlyjs())


def _head(view: View, name: str) -> str:
    tiles = "".join(
        f'<div class="tile"><dt>{escape(label)}</dt><dd class="figure">{escape(figure)}</dd>'
        f'<dd class="note">{escape(note)}</dd></div>'
        for label, figure, note in facts.tiles(view)
    )
    found = "".join(f"<p>{escape(words)}</p>" for words in facts.findings(view))
    rests = "".join(f"<p>{escape(words)}</p>" for words in facts.conditions(view))
    return (
        f'<h1>{escape(name)}</h1>\n<p class="id">{escape(view.history.sweep_id or "not opened yet")}</p>\n'
        f'<dl class="tiles">{tiles}</dl>\n<div class="summary"><div>{found}</div>'
        f"<aside>{rests}</aside></div>"
    )


def _foot(view: View) -> str:
    last = utc(flow.last_event(view)) if view.trials else "before the first trial"
    return f"musweep report of the sweep folder as it stood after its last event: {last}. Times are UTC."


def _sections(view: View) -> list[Section]:
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.header(view))
    return [
        _trials(view),
        _curves(view),
        *([] if view.spec.get("trainer") else [_map(view)]),  # what its parameters mean is its own affair
        _importance(view),
        _figures("parallel", "Parallel coordinates", _PARALLEL, parallel.parallel(view)),
        *diagnostics.sections(view),
        _figures("rungs", "Where trials went", _rungs_caption(view), flow.rungs(view)),
        _figures("timeline", "Groups over time", _TIMELINE, flow.timeline(view)),
        Section("about", "About", "", markup=f'<dl class="about">{pairs}</dl>'),
    ]


def _figures(key: str, title: str, caption: str, drawn: list[plots.Figure] | str) -> Section:
    if isinstance(drawn, str):
        return Section(key, title, caption, nothing=drawn)
    return Section(key, title, caption, drawn)


def _trials(view: View) -> Section:
    columns, rows = facts.columns(view), facts.rows(view)
    words = {1, columns.index("state")} | {i + 3 for i, p in enumerate(view.params) if _is_words(p.values)}
    if not rows:
        return Section("trials", "Best trials", "", nothing="No trial has been asked for yet.")
    markup = f'<div class="first">{table(columns, rows[:SHOWN], 2, words)}</div>'
    if len(rows) > SHOWN:
        markup += f"<details><summary>All {len(rows):,} trials</summary>{table(columns, rows, 2, words)}</details>"
    caption = (
        "Trials trained in full come first, by objective; then stopped ones, with the objective where they stopped. "
        "Seconds are each trial's share of worker time. A click on a column's name sorts by it."
    )
    return Section("trials", "Best trials", caption, markup=markup)


def _is_words(values: tuple[object, ...]) -> bool:
    return any(isinstance(value, str) for value in values)


def _curves(view: View) -> Section:
    title = "Learning curves"
    result = plots.curves(view)
    if isinstance(result, str):
        return Section("curves", title, "", nothing=result)
    figures, scale = result
    drawn = min(len(view.ranked), plots.MOST_CURVES)
    some = f" {drawn:,} of {len(view.ranked):,} trials are drawn." if drawn < len(view.ranked) else ""
    ends = " Stopped trials end at their rung." if view.rungs else ""
    beyond = " The worst tenth of the points lies outside; a double click shows it." if scale.clipped else ""
    caption = f"{view.metric} at each report; the best trials in colour.{ends}{some}{beyond}"
    return Section("curves", title, caption, figures)


def _map(view: View) -> Section:
    title = "Momentum and learning rate"
    drawn = plots.momentum_map(view)
    if isinstance(drawn, str):
        return Section("map", title, "", nothing=drawn)
    figures, scale = drawn
    before = ramp(view.metric, scale.ticks(), scale.span, view.mode == "min") if scale else ""
    caption = (
        "Each mark is a trial, coloured by its objective: large ones trained in full, small ones stopped early with "
        "the objective they had then, crosses diverged. The ring is the best trial."
    )
    if scale and scale.clipped:
        caption += " The worst tenth share the colour of the scale's end."
    if any(figure.title.startswith("sgd,") for figure in figures):
        caption += " Plain sgd has no momentum: its marks are spread sideways only to be told apart."
    return Section("map", title, caption, figures, before=before)


def _importance(view: View) -> Section:
    drawn = plots.importance(view)
    if isinstance(drawn, str):
        return Section("importance", "Parameter importance", "", nothing=drawn)
    figures, basis = drawn
    return Section("importance", "Parameter importance", basis, figures)


_PARALLEL = (
    "A line per trial that ended, coloured by its objective, grey where the trial diverged. Stopped trials stand "
    "at the objective where they stopped. In a browser with WebGL, drag along an axis to select a range; click to undo."
)
_TIMELINE = (
    "When each trial was in a group, from being asked for to its end. Gaps are idle slots, or time without a driver."
)


def _rungs_caption(view: View) -> str:
    if (view.spec.get("early_stopping") or {}).get("rungs") is None:
        return "Early stopping was off: every trial was to be trained in full."
    within = flow.compared_within(view)
    parted = f" Trials were compared within equal {' and '.join(within)}." if within else ""
    return f"Each bar holds the trials that passed the rung before it.{parted}"
