"""The words and tables of the report: header, plain-language summary, trials. Plain text; the page escapes it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from dashboards.flow import compared_within, last_event, saved
from dashboards.view import NONE, View, duration, number, text, utc
from sweeps.history import Trial

STATES = {
    "finished": "finished",
    "interrupted": "interrupted; `musweep resume` goes on with it",
    "budget": "ended at its budget",
    None: "running, or its driver was killed",
}
EDGE = 0.04
"""A best value so near an end of its range (as a share of the range) is pointed out."""


def tiles(view: View) -> list[tuple[str, str, str]]:
    """The figures of the whole sweep: (label, figure, note)."""
    spared, full = saved(view)
    counts = ", ".join(f"{count} {state}" for state, count in view.counts.items())
    more = len(view.everything) - len(view.trials)
    of = f"of the {len(view.trials):,} searching: " if more else ""
    return [
        ("trials", f"{len(view.everything):,}", f"{of}{counts}" if counts else "none asked for yet"),
        ("wall time", duration(wall(view)), f"{duration(sum(t.wall_s for t in view.everything))} of worker time"),
        ("saved by halving", *(_halving(spared, full) if _halves(view) else (NONE, "not used"))),
    ]  # fmt: skip


def _halves(view: View) -> bool:
    stopping = view.spec.get("early_stopping")
    return stopping is not None and stopping.get("rungs", "auto") is not None


def _halving(spared: int, full: int) -> tuple[str, str]:
    return (f"{spared / full:.0%}", f"{spared:,} of {full:,} updates") if full else (NONE, "no trial has ended")


def wall(view: View) -> float | None:
    """Seconds from the opening of the sweep to its last event, pauses included."""
    opened = view.history.opened_at
    return None if opened is None else max(0.0, last_event(view) - opened)


def header(view: View) -> list[tuple[str, str]]:
    """What the sweep was, as (name, value) pairs."""
    spec, opened = view.spec, view.history.opened_at
    search, training, budget = (spec.get(key) or {} for key in ("search", "training", "budget"))
    resolved, own = spec.get("resolved") or {}, spec.get("trainer")
    seeds = int(search.get("seeds") or 1)
    more = f" and {view.history.extended} more" if view.history.extended else ""
    limits = f"{budget.get('trials', NONE)} trials{more}"
    if budget.get("wall"):
        limits += f", {duration(float(budget['wall']))}" if isinstance(budget["wall"], int | float) else ""
    workers, size = resolved.get("workers"), resolved.get("group_size")
    groups = f"{workers} workers, groups of {size}" if workers and size else f"{_groups(view)} groups"
    engines = sorted({trial.engine for trial in view.trials if trial.engine})
    pairs = [
        ("State", STATES.get(view.history.closed, str(view.history.closed))),
        _what(spec),
        ("Objective", f"{view.metric}, {'lower' if view.mode == 'min' else 'higher'} is better"),
        ("Search", f"{search.get('algorithm', NONE)}, seed {search.get('seed', NONE)}, {_replicates(seeds)}"),
        ("Budget", limits),
        ("Training", f"{view.updates:,} updates" + ("" if own else f" of {training.get('batch', NONE)} examples")),
        ("Early stopping", _stopping(view)),
        ("Placement", groups + (f", {' and '.join(engines)} engine" if engines else "")),
        ("Opened", utc(opened)),
        ("Last event", utc(last_event(view) if view.trials else opened)),
    ]
    return [*pairs, *_machine({**(spec.get("versions") or {}), **view.history.versions})]


def _what(spec: dict[str, Any]) -> tuple[str, str]:
    """What was trained: a task's nets, or whatever the user's own function trains."""
    if trainer := spec.get("trainer"):
        return "Trainer", f"{trainer} on task {task_name(spec)}" if task_name(spec) else str(trainer)
    return "Task", f"{task_name(spec)}, {_model(spec.get('model'))}"


def task_name(spec: dict[str, Any]) -> str:
    """The task's name, however the spec writes it."""
    task = spec.get("task")
    return str(task.get("name")) if isinstance(task, dict) else str(task)


def _model(model: Any) -> str:
    """The model's settings in words."""
    if not isinstance(model, dict):
        return "default model"
    kind = str(model.get("kind") or "model")
    rest = [f"{name} {_plain(value)}" for name, value in model.items() if name != "kind" and value not in (None, {})]
    return ", ".join([kind, *rest])


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else text("", value)


def _replicates(seeds: int) -> str:
    return "1 replicate per point" if seeds == 1 else f"{seeds} replicates per point"


def _stopping(view: View) -> str:
    stopping = view.spec.get("early_stopping")
    if not stopping:
        return "off"
    words = []
    if _halves(view):
        rungs = ", ".join(f"{rung:,}" for rung in view.rungs) or "none reached yet"
        words += [f"rungs at {rungs}", f"1 in {stopping.get('factor', NONE)} goes on"]
        if within := compared_within(view):
            words.append(f"compared within equal {' and '.join(within)}")
        if fork := stopping.get("fork"):
            words.append(f"scored after a fork of {fork.get('updates')} updates at µ {fork.get('mu')}")
    if doomed := stopping.get("doomed"):
        words.append(f"nets that cannot start {'noted' if doomed.get('act') == 'record' else 'skipped'}")
    return ", ".join(words) or "off"


def _groups(view: View) -> int:
    return len({trial.group for trial in view.trials})


def _machine(versions: dict[str, str]) -> list[tuple[str, str]]:
    """Machine and software; whatever else was recorded follows the known names."""
    rest = {name: str(value) for name, value in versions.items() if value and value != "not installed"}
    cores, cpu, system = (rest.pop(name, "") for name in ("cores", "cpu", "platform"))
    machine = ", ".join(part for part in (cpu, f"{cores} cores" if cores else "", system) if part)
    commit = rest.pop("git", "")
    pairs = [("Machine", machine)] if machine else []
    if rest:
        pairs.append(("Versions", ", ".join(f"{name} {value}" for name, value in rest.items())))
    return pairs + ([("Code", commit)] if commit else [])


def findings(view: View) -> list[str]:
    """The result in plain sentences, a paragraph each: what was found, and what became of the trials."""
    return [paragraph for paragraph in (_finding(view), _course(view), _doomed(view)) if paragraph]


def conditions(view: View) -> list[str]:
    """What the result rests on, a paragraph each."""
    paragraphs = [_condition(view)]
    if task_name(view.spec) == "curves" and not (isinstance(view.spec["task"], dict) and view.spec["task"].get("file")):
        paragraphs.append(
            "The data are a generated look-alike of CURVES: errors here must not be set beside published ones for the "
            "original data."
        )
    return paragraphs


def _finding(view: View) -> str:
    best = view.best
    if best is None:
        lost = view.counts.get("diverged", 0)
        return f"No result: all {lost} trials that ended diverged." if lost else "No result yet: no trial has reported."
    words = f"Best {view.metric} {number(view.value(best))} by trial {best.id}"
    if described := view.described(best):
        words += f": {described}"
    if best.state == "complete":
        words += "."
    else:
        words += f". It was not trained in full: {best.state} at update {best.updates:,} of {view.updates:,}."
    return words + _runners_up(view) + _edges(view, best)


def _runners_up(view: View) -> str:
    """How close the next ones came."""
    complete = [t for t in view.ranked if t.state == "complete" and view.value(t) is not None]
    if len(complete) < 3:
        return ""
    last = min(5, len(complete))
    return f" Places 2 to {last} have {number(view.value(complete[1]))} to {number(view.value(complete[last - 1]))}."


def _edges(view: View, best: Trial) -> str:
    """Which of the best values lie at an end of what was searched."""
    near = []
    for param in view.params:
        place = param.place(best.params.get(param.name)) if param.kind != "choice" else None
        if place is None:
            continue
        low, high = param.span()
        share = (place - low) / (high - low)
        if not EDGE < share < 1 - EDGE:
            near.append(f"{param.name} lies near the {'lower' if share < 0.5 else 'upper'} end of its range")
    return f" Its {', '.join(near)}: a wider range may do better." if near else ""


def _course(view: View) -> str:
    counts = view.counts
    if not counts:
        return ""
    parts = {
        "complete": "trained in full", "stopped": "stopped at a rung", "diverged": "diverged", "failed": "failed",
        "skipped": "skipped before their first update", "running": "not ended yet",
    }  # fmt: skip
    fates = ", ".join(f"{counts[state]:,} {fate}" for state, fate in parts.items() if state in counts)
    words = f"Of {len(view.trials):,} trial{'s' * (len(view.trials) != 1)}, {fates}"
    spared, full = saved(view)
    if spared:
        words += f". Stopping early saved {spared:,} of {full:,} updates ({spared / full:.0%})"
    return words + "."


def _doomed(view: View) -> str:
    """What was judged unable to start, and what skipping it saved, or would have."""
    doomed = [trial for trial in view.trials if trial.doomed]
    if not doomed:
        return ""
    reasons = Counter(re.sub(r"layer \d+", "a layer", trial.doomed.partition(":")[0]) for trial in doomed)
    why = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
    words = f"The nets of {len(doomed):,} trials cannot start, by what was measured before their first update: {why}."
    trained = [trial for trial in doomed if trial.state not in ("skipped", "running")]
    if not trained:
        return f"{words} Not training them saved up to {len(doomed) * view.updates:,} updates."
    spent, whole = (sum(trial.updates for trial in some) for some in (trained, view.trials))
    places = [place for place, trial in enumerate(view.ranked, 1) if trial.doomed and view.value(trial) is not None]
    best = (
        f"the best of them has place {places[0]:,} of {len(view.ranked):,}" if places else "none of them had a result"
    )
    return (
        f"{words} They were trained all the same, to see: {best}, and without them {spent:,} of {whole:,} updates "
        f"({spent / max(1, whole):.0%}) would have been saved."
    )


def _condition(view: View) -> str:
    """What the search was conditional on."""
    search = view.spec.get("search") or {}
    seeds = int(search.get("seeds") or 1)
    seed = search.get("seed", NONE)
    if view.spec.get("trainer"):
        ground = "one replicate: all trials were given one seed" if seeds == 1 else f"{seeds} replicates per point"
        ground += f", of sweep seed {seed}"
    elif seeds == 1:
        ground = f"one replicate: all trials share the initial weights' seed and the batches of sweep seed {seed}"
    else:
        ground = f"{seeds} replicates per point of sweep seed {seed}, shared by all points"
    return (
        f"These figures are conditional on {ground}. The best of many is also flattered by having been chosen. "
        "Small differences between trials may not hold with other seeds; no test of significance was made "
        "among them."
    )


def columns(view: View) -> list[str]:
    """Heads of the trial tables."""
    return ["rank", "trial", view.metric, *(param.name for param in view.params), "state", "updates", "seconds"]


def rows(view: View) -> list[list[tuple[str, Any]]]:
    """All trials, best first and those without a result last: per cell its text and what it sorts by."""
    rest = [trial for trial in view.trials if trial.state in ("failed", "skipped")]
    return [_row(view, place, trial) for place, trial in enumerate([*view.ranked, *rest], 1)]


def _row(view: View, place: int, trial: Trial) -> list[tuple[str, Any]]:
    value = view.value(trial)
    cells: list[tuple[str, Any]] = [(str(place), place), (trial.id, trial.number), (number(value), value)]
    for param in view.params:
        own = trial.params.get(param.name)
        cells.append((text(param.name, own, keep_zeros=True), own))
    state = trial.state + (f" ({trial.reason})" if trial.state in ("failed", "skipped") and trial.reason else "")
    return [*cells, (state, trial.state), (f"{trial.updates:,}", trial.updates), (number(trial.wall_s), trial.wall_s)]
