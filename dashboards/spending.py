"""Where the budget went: by stage, what its trials came to and what they cost."""

from __future__ import annotations

from collections.abc import Callable

from dashboards.arms import SHORT
from dashboards.confirmed import LEFT, is_stuck
from dashboards.flow import STEP_COLOURS
from dashboards.page import escape
from dashboards.plots import ORANGE, Figure, safe
from dashboards.view import View, duration, number
from sweeps.busy import sentence
from sweeps.cost import CPU, Devices, bill
from sweeps.history import Trial

FATES = ("complete", "stuck", "stopped", "diverged", "failed", "skipped", "running")
NAMES = {"complete": "trained in full", "stuck": "stuck", "stopped": "stopped at a rung", "skipped": "skipped at birth",
         "running": "not ended"}  # fmt: skip
_COLOURS = STEP_COLOURS | {"stuck": ORANGE}
WORDS = {"search": "search", "confirm": "confirmed points"}


def stage_words(stage: str) -> str:
    """A stage's name for people: `search`, `confirmed points`, `search of HF`, `confirmed HF`."""
    kind, _, baseline = stage.partition(":")
    name = SHORT.get(baseline, baseline)
    return WORDS.get(stage) or (f"confirmed {name}" if kind == "confirm" else f"{kind} of {name}")


def fate(view: View, trial: Trial) -> str:
    """A trial's state, or stuck where it ended in full and no better than a constant output does."""
    comparison, value = view.comparison, view.value(trial)
    if comparison is None or comparison.metric != view.metric or trial.state != "complete" or value is None:
        return trial.state
    return "stuck" if is_stuck(comparison, value) else "complete"


def work(trial: Trial) -> float:
    """A trial's work so far, in gradients of one example; for a trainer of the user's own in updates."""
    return trial.work or float(trial.updates * int(trial.config.get("batch") or 1))


def passes(view: View, amount: float) -> tuple[float, str]:
    """Work as people count it, with the unit."""
    examples = view.comparison.train_examples if view.comparison else _train_examples(view)
    if examples:
        return amount / examples, "passes"
    return amount, "updates" if view.spec.get("trainer") else "examples"


def _train_examples(view: View) -> int:
    data = (view.spec.get("resolved") or {}).get("data") or {}
    return int(data.get("train_examples") or 0)


def table(view: View) -> str:
    """A row for each stage, and their sum."""
    if not view.everything:
        return ""
    stages = {stage_words(stage): trials for stage, trials in view.stages.items()}
    if len(stages) > 1:
        stages["all"] = view.everything
    seen = {fate(view, trial) for trial in view.everything}
    fates = [name for name in FATES if name in seen]
    unit = passes(view, 0.0)[1]
    devices = Devices.of(view.spec)
    shown = [f"{devices.kind}-seconds"] if devices != CPU else []  # one core: seconds of it are seconds
    heads = ["stage", "trials", *(NAMES.get(name, name) for name in fates), unit, "seconds", *shown, "share of seconds"]
    whole = sum(trial.wall_s for trial in view.everything) or 1.0
    rows = ""
    for name, trials in stages.items():
        counts = [sum(fate(view, trial) == each for trial in trials) for each in fates]
        spent = passes(view, sum(work(trial) for trial in trials))[0]
        seconds = sum(trial.wall_s for trial in trials)
        cells = [f"{len(trials):,}", *(f"{count:,}" for count in counts), number(spent, keep_zeros=False),
                 number(seconds), *(number(devices.seconds(seconds)) for _ in shown),
                 f"{seconds / whole:.0%}"]  # fmt: skip
        strong = ' class="main"' if name == "all" else ""
        rows += f'<tr><td class="words">{escape(name)}</td>' + "".join(f"<td{strong}>{c}</td>" for c in cells) + "</tr>"
    top = "".join(f'<th scope="col"{"" if i else LEFT}>{escape(head)}</th>' for i, head in enumerate(heads))
    return f'<div class="scroll"><table class="tight"><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'


def bars(view: View) -> list[Figure] | str:
    """A bar for each stage by what its trials came to, in work, seconds and trials."""
    if not view.everything:
        return "No trial has been asked for yet."
    unit = passes(view, 0.0)[1]
    forms = {
        unit: _bars(view, lambda trial: passes(view, work(trial))[0], unit, ",.3~s"),
        "seconds": _bars(view, lambda trial: trial.wall_s, "seconds of worker time", ",.3~s"),
        "trials": _bars(view, lambda _: 1.0, "trials", ",d"),
    }
    devices = Devices.of(view.spec)
    if devices.gpus:
        forms["GPU-seconds"] = _bars(view, lambda trial: devices.seconds(trial.wall_s), "GPU-seconds", ",.3~s")
    return [Figure(height=120 + 44 * len(view.stages), forms=forms)]


def _bars(view: View, cost: Callable[[Trial], float], title: str, tick: str) -> Figure:
    stages = list(view.stages.items())[::-1]
    labels = [safe(stage_words(stage)) for stage, _ in stages]
    data = []
    for name in FATES:
        x = [sum(cost(trial) for trial in trials if fate(view, trial) == name) for _, trials in stages]
        if any(x):
            words = NAMES.get(name, name)
            data.append({
                "type": "bar", "orientation": "h", "name": words, "x": x, "y": labels,
                "marker": {"color": _COLOURS[name]}, "hovertemplate": f"%{{x:{tick}}} {words}<extra></extra>",
            })  # fmt: skip
    layout = {
        "barmode": "stack", "bargap": 0.3, "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
        "yaxis": {"type": "category", "ticklabelstandoff": 6}, "legend": {"traceorder": "normal"},
    }  # fmt: skip
    return Figure(data, layout)


def caption(view: View) -> str:
    """The whole cost in one sentence, and how busy slots were in another."""
    seconds = sum(trial.wall_s for trial in view.everything)
    spent, unit = passes(view, sum(work(trial) for trial in view.everything))
    whole = {"passes": "passes over the training set", "examples": "examples", "updates": "updates"}[unit]
    words = f"{len(view.everything):,} trials, {number(spent, keep_zeros=False)} {whole}, {duration(seconds)} of "
    clock = " HF's work is counted as gradients of one example, like everybody's." if _has_hf(view) else ""
    cost = bill(view.spec, view.history.held, seconds)
    held = f" Workers held their places for {number(cost.held, keep_zeros=False)} {cost.kind}-seconds"
    share = f"{cost.training / (cost.held or 1.0):.0%} of them training."
    return f"{words}worker time.{held}, {share}{clock} {sentence(view.spec, view.history.busy)}".rstrip()


def _has_hf(view: View) -> bool:
    return any((trial.config.get("method") or {}).get("kind") == "hf" for trial in view.everything)
