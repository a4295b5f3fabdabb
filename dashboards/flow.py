"""The plots about the run: what happened at each rung, and when each group trained which trial."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dashboards.plots import STATE_COLOURS, Figure, safe
from dashboards.view import View, duration, number, text
from sweeps.history import Trial

MOST_CLASSES = 6
STEPS = ("passed", "complete", "stopped", "diverged", "failed", "skipped", "running")
STEP_COLOURS = STATE_COLOURS | {"passed": "#009E73", "running": "#999999"}
STEP_NAMES = {"passed": "passed the rung", "complete": "trained in full", "stopped": "stopped at the rung",
              "diverged": "diverged on the way", "running": "still on the way"}  # fmt: skip
LANE_HEIGHT = 9


def fates(view: View, trials: Iterable[Trial]) -> list[tuple[int | None, dict[str, int]]]:
    """Where trials went: for each rung, then for the full length (None), how many met which fate there.

    The trials of a rung are those that passed the one before, so each row adds up to the `passed` of the row above.
    """
    rest = list(trials)
    rows: list[tuple[int | None, dict[str, int]]] = []
    for rung in view.rungs:
        beyond = [trial for trial in rest if _passed(trial, rung)]
        found = dict.fromkeys(STEPS, 0) | {"passed": len(beyond)}
        for trial in rest:
            if not _passed(trial, rung):
                found[trial.state] += 1
        rows.append((rung, found))
        rest = beyond
    found = dict.fromkeys(STEPS, 0)
    for trial in rest:
        found[trial.state] += 1
    rows.append((None, found))
    return rows


def _passed(trial: Trial, rung: int) -> bool:
    """Whether a trial went on past a rung, by the journal or because it came further."""
    return rung in trial.promoted or trial.updates > rung


def rungs(view: View) -> list[Figure] | str:
    """Bars of fates per rung, split by class where trials were compared within classes."""
    if not view.trials:
        return "No trial has been asked for yet."
    names = compared_within(view)
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(view.trials, key=lambda trial: [str(trial.params.get(name)).zfill(12) for name in names]):
        key = ", ".join(f"{name} {text(name, trial.params.get(name))}" for name in names)
        groups.setdefault(key, []).append(trial)
    if len(groups) > MOST_CLASSES:
        groups = {"": view.trials}
    table = [(rung, name, found) for name, trials in groups.items() for rung, found in fates(view, trials)]
    order = [*view.rungs, None]
    table.sort(key=lambda row: order.index(row[0]))  # stable: rung first, then class
    table.reverse()  # plotly draws categories upwards
    labels = [_step_name(view, rung) for rung, _, _ in table]
    y: Any = [[safe(label) for label in labels], [safe(name) for _, name, _ in table]] if len(groups) > 1 else labels
    data = []
    for step in STEPS:
        x = [found[step] for _, _, found in table]
        if any(x):
            data.append(_bars(step, x, y))
    longest = max(sum(found.values()) for _, _, found in table)
    layout = {
        "barmode": "stack", "bargap": 0.28,
        "xaxis": {"title": {"text": "trials"}, "rangemode": "tozero", "tickformat": ",d"}
        | ({"dtick": 1} if longest < 8 else {}),
        "yaxis": {"type": "multicategory" if len(groups) > 1 else "category", "ticklabelstandoff": 6},
        "legend": {"traceorder": "normal"},
    }  # fmt: skip
    return [Figure(data, layout, 110 + 30 * len(table))]


def _bars(step: str, x: list[int], y: Any) -> dict[str, Any]:
    name = STEP_NAMES.get(step, step)
    return {
        "type": "bar", "orientation": "h", "name": name, "x": x, "y": y, "marker": {"color": STEP_COLOURS[step]},
        "text": [str(count) if count else "" for count in x], "textposition": "inside", "insidetextanchor": "middle",
        "textangle": 0, "hovertemplate": f"%{{x}} {name}<extra></extra>", "constraintext": "none",
    }  # fmt: skip


def _step_name(view: View, rung: int | None) -> str:
    return f"to rung {rung:,}" if rung is not None else f"to {view.updates:,}"


def compared_within(view: View) -> list[str]:
    """Parameters whose values part the classes of trials compared at rungs."""
    stopping = view.spec.get("early_stopping")
    if not stopping:
        return []
    given = stopping.get("compare_within")
    given = ["depth"] if given is None else given
    return [name for name in given if view.param(name)]


def saved(view: View) -> tuple[int, int]:
    """Updates that stopped trials did not train, and the updates of all ended trials had they run in full."""
    ended = [trial for trial in view.trials if trial.ended_at is not None and trial.state != "skipped"]
    spared = sum(_length(view, trial) - trial.updates for trial in ended if trial.state == "stopped")
    return spared, sum(_length(view, trial) for trial in ended)


def _length(view: View, trial: Trial) -> int:
    return max(int(trial.config.get("updates") or view.updates), trial.updates)


def lanes(trials: list[Trial], now: float) -> list[list[Trial]]:
    """Trials of a group in as few lanes as hold them without overlap, in order of their start."""
    ends: list[float] = []
    found: list[list[Trial]] = []
    for trial in sorted(trials, key=lambda trial: (trial.asked_at, trial.number)):
        free = next((i for i, end in enumerate(ends) if end <= trial.asked_at), len(ends))
        if free == len(ends):
            ends.append(0.0)
            found.append([])
        ends[free] = max(trial.ended_at or now, trial.asked_at)
        found[free].append(trial)
    return found


def timeline(view: View) -> list[Figure] | str:
    """When each trial was in its group, one band per group, a lane per trial at a time."""
    trials = [trial for trial in view.everything if trial.state != "skipped"]
    if not trials:
        return "No trial has been asked for yet."
    now = last_event(view)
    bars: dict[str, list[tuple[float, float, float, str]]] = {}
    marks, lines, row = [], [], 0.0
    for group in sorted({trial.group for trial in trials}):
        packed = lanes([trial for trial in trials if trial.group == group], now)
        marks.append((row + (len(packed) - 1) / 2, f"group {group}"))
        for offset, lane in enumerate(packed):
            for trial in lane:
                end = trial.ended_at or now
                bars.setdefault(trial.state, []).append((row + offset, trial.asked_at, end, _bar_hover(view, trial)))
        row += len(packed)
        lines.append(row)
        row += 1
    data = [_spans(state, bars[state]) for state in STATE_COLOURS if state in bars]
    layout = {
        "barmode": "overlay", "bargap": 0.12,
        "xaxis": {"type": "date", "title": {"text": "time (UTC)"}},
        "yaxis": {
            "tickvals": [place for place, _ in marks], "ticktext": [name for _, name in marks],
            "range": [row - 1, -1], "showgrid": False, "zeroline": False,
        },
        "shapes": [_divider(line) for line in lines[:-1]], "hovermode": "closest",
    }  # fmt: skip
    return [Figure(data, layout, int(min(110 + max(row * LANE_HEIGHT, 60), 900)))]


def _spans(state: str, rows: list[tuple[float, float, float, str]]) -> dict[str, Any]:
    """Bars from start to end, times as milliseconds since 1970."""
    return {
        "type": "bar", "orientation": "h", "name": state, "y": [row[0] for row in rows], "width": 0.85,
        "base": [round(row[1] * 1000) for row in rows],
        "x": [max(round((row[2] - row[1]) * 1000), 1) for row in rows], "text": [row[3] for row in rows],
        "textposition": "none", "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": STATE_COLOURS[state], "line": {"width": 0}},
    }  # fmt: skip


def _divider(y: float) -> dict[str, Any]:
    line = {"width": 1, "color": "#8c8c8c", "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def _bar_hover(view: View, trial: Trial) -> str:
    length = duration(trial.ended_at - trial.asked_at) if trial.ended_at is not None else "still running"
    value = view.value(trial)
    result = f", {safe(view.metric)} {number(value)}" if value is not None else ""
    return f"{trial.id}: {trial.state} at update {trial.updates:,}{result}<br>{length} in group {trial.group}"


def last_event(view: View) -> float:
    """The latest time that the history tells of."""
    times = [time for trial in view.everything for time in (trial.asked_at, trial.ended_at) if time is not None]
    return max(times, default=view.history.opened_at or 0.0)
