"""The report of a sweep: one HTML file that opens from disk, with nothing to load from anywhere."""

from __future__ import annotations

import os
from pathlib import Path

from dashboards import confirmed, diagnostics, facts, flow, parallel, plots, race, rerun, spending, table1
from dashboards.opening import Opening, opening, task_words
from dashboards.page import Section, escape, page, ramp, table
from dashboards.view import View, number, read, utc

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
    found = opening(view)
    title = f"{name}: musweep report"
    fine = "".join(f'<p class="fine">{escape(words)}</p>' for words in found.fine)
    head, sections, foot = _head(view, name, found), _sections(view), _foot(view)
    return page(title, head, sections, foot, get_plotlyjs(), _picture(view), fine)


def _picture(view: View) -> plots.Figure | None:
    """The first screen's picture: arms against work, or without any the search's best trials."""
    raced = race.race(view.comparison) if view.comparison else None
    return raced or race.leaders(view)


def _head(view: View, name: str, found: Opening) -> str:
    sweep = view.history.sweep_id or "not opened yet"
    reading = "".join(f"<p>{escape(words)}</p>" for words in found.reading)
    for words, lines in found.add:
        reading += f"<p>{escape(words)} {' '.join(f'<code>{escape(line)}</code>' for line in lines.splitlines())}</p>"
    return (
        f'<p class="name"><b>{escape(name)}</b> · {escape(task_words(view))} · <code>{escape(sweep)}</code></p>\n'
        f'<div class="verdict"><span class="badge {found.tone}">{escape(found.badge)}</span>'
        f'<h1>{escape(found.headline)}</h1>\n<div class="reading">{reading}</div></div>'
    )


def _foot(view: View) -> str:
    last = utc(flow.last_event(view)) if view.everything else "before the first trial"
    return f"musweep report of the sweep folder as it stood after its last event: {last}. Times are UTC."


def _sections(view: View) -> list[Section]:
    own = bool(view.spec.get("trainer"))  # what its parameters mean is its own affair
    return [
        *([] if own else _table1(view)),
        *_confirmed(view),
        _curves(view),
        *([] if own else [_map(view)]),
        _importance(view),
        _figures("parallel", "Parallel coordinates", _PARALLEL, parallel.parallel(view)),
        _spending(view),
        _figures("rungs", "Rungs of the search", _rungs_caption(view), flow.rungs(view)),
        _figures("timeline", "Groups over time", _TIMELINE, flow.timeline(view)),
        *diagnostics.sections(view),
        _trials(view),
        _rerun(view),
    ]


def _table1(view: View) -> list[Section]:
    drawn = table1.markup(view)
    return [Section("table", "Methods, µ_max and HF", table1.caption(view), markup=drawn)] if drawn else []


def _confirmed(view: View) -> list[Section]:
    comparison = view.comparison
    if comparison is None or not comparison.arms:
        return []
    refused = "".join(f'<p class="nothing">Not compared: {escape(why)}</p>' for why in comparison.refusals)
    dots = Section("confirmed", "Confirmed on fresh seeds", confirmed.caption(comparison), [confirmed.dots(comparison)],
                   markup=confirmed.verdicts(comparison) + refused)  # fmt: skip
    steps = race.arrivals(comparison)
    if isinstance(steps, str):
        return [dots]
    caption = (
        f"The share of runs whose {comparison.metric} had come to {number(comparison.target)}, against work (Kaplan "
        "and Meier). Crosses: runs that ended without it; one that diverged counts to the end of its budget."
    )
    return [dots, Section("target", "Time to target", caption, [steps])]


def _spending(view: View) -> Section:
    drawn = spending.bars(view)
    title = "Where the budget went"
    if isinstance(drawn, str):
        return Section("budget", title, "", nothing=drawn)
    tiles = "".join(
        f'<div class="tile"><dt>{escape(label)}</dt><dd class="figure">{escape(figure)}</dd>'
        f'<dd class="note">{escape(note)}</dd></div>'
        for label, figure, note in facts.tiles(view)
    )
    before = f'<dl class="tiles">{tiles}</dl>'
    return Section("budget", title, spending.caption(view), drawn, before=before, markup=spending.table(view))


def _rerun(view: View) -> Section:
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.header(view))
    markup = f'{rerun.markup(view)}<dl class="about">{pairs}</dl>'
    return Section("rerun", "How to run it again", rerun.CAPTION, markup=markup)


def _figures(key: str, title: str, caption: str, drawn: list[plots.Figure] | str) -> Section:
    if isinstance(drawn, str):
        return Section(key, title, caption, nothing=drawn)
    return Section(key, title, caption, drawn)


def _trials(view: View) -> Section:
    columns, rows = facts.columns(view), facts.rows(view)
    words = {1, columns.index("state")} | {i + 3 for i, p in enumerate(view.params) if _is_words(p.values)}
    title = "The search's trials"
    if not rows:
        return Section("trials", title, "", nothing="No trial has been asked for yet.")
    found = "".join(f"<p>{escape(said)}</p>" for said in facts.findings(view))
    rests = "".join(f"<p>{escape(said)}</p>" for said in facts.conditions(view))
    before = f'<div class="summary"><div>{found}</div><aside>{rests}</aside></div>'
    markup = f'<div class="first">{table(columns, rows[:SHOWN], 2, words)}</div>'
    if len(rows) > SHOWN:
        markup += f"<details><summary>All {len(rows):,} trials</summary>{table(columns, rows, 2, words)}</details>"
    caption = (
        "Trials trained in full come first, by objective; then stopped ones, with the objective where they stopped. "
        "Seconds are each trial's share of worker time. A click on a column's name sorts by it."
    )
    return Section("trials", title, "", before=before, markup=f'<p class="caption">{caption}</p>{markup}')


def _is_words(values: tuple[object, ...]) -> bool:
    return any(isinstance(value, str) for value in values)


def _curves(view: View) -> Section:
    title, sure = "Learning curves", []
    if view.comparison is not None and view.comparison.arms:
        seeds = race.seeds(view, view.comparison)
        sure = [] if isinstance(seeds, str) else [seeds]
    result = plots.curves(view)
    if isinstance(result, str):
        return Section("curves", title, "", sure, nothing="" if sure else result)
    figures, scale = result
    figures[0].title = "The search" if sure else ""
    drawn = min(len(view.ranked), plots.MOST_CURVES)
    some = f" {drawn:,} of {len(view.ranked):,} trials are drawn." if drawn < len(view.ranked) else ""
    ends = " Stopped trials end at their rung." if view.rungs else ""
    beyond = " The worst tenth of the points lies outside; a double click shows it." if scale.clipped else ""
    caption = f"{view.metric} at each report; the search's best trials in colour.{ends}{some}{beyond}"
    return Section("curves", title, caption, [*sure, *figures], stacked=True)


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
