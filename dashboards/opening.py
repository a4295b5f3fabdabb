"""The words of the report's first screen: who won, by how much and how sure, or why nobody can say."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field

from dashboards.arms import SHORT, amount, looks, spoken, unit
from dashboards.facts import task_name
from dashboards.view import View, number
from sweeps.comparison import Arm, Comparison, Contrast
from sweeps.stages import is_confirm

CONFIRM = "confirm: {top: 3, seeds: 10}"
BASELINES = "baselines: [{kind: hf}]"
LEAST_FINISHERS = 3
FACTOR = 2.0
"""A ratio is told as a factor from here on, else as a share."""
LEAST_SEEDS = 6
TONES = {"better": "won", "worse": "lost", "equivalent": "equal", "not distinguishable": "open", "no verdict": "none"}


@dataclass(frozen=True, slots=True)
class Opening:
    """A badge with its tone, the verdict in one sentence, its reading, and smaller print."""

    badge: str
    tone: str
    headline: str
    reading: list[str] = field(default_factory=list)
    fine: list[str] = field(default_factory=list)
    add: list[tuple[str, str]] = field(default_factory=list)
    """What leads to a verdict: words, and what to type or to put into the sweep file."""


def opening(view: View) -> Opening:
    """The first screen's words for any sweep, finished or not."""
    comparison = view.comparison
    if comparison is None or not comparison.arms:
        return _unconfirmed(view, comparison)
    contrast = comparison.primary
    if contrast is None:
        return _undecided(view, comparison)
    return _decided(comparison, contrast)


# -- a verdict ---------------------------------------------------------------------------------------------------


def _decided(comparison: Comparison, contrast: Contrast) -> Opening:
    a, b = comparison.arm(contrast.a), comparison.arm(contrast.b)
    first, second = _called(comparison, a, b)
    reading = [contrast.sentence, *_sure(comparison, contrast, second)]
    ends, *notes = [_ends(comparison, a, b, first, second), *_notes(comparison)]
    fine = [f"{ends} {_failures(a, b, first, second)}", *notes]
    return Opening(
        contrast.verdict, TONES[contrast.verdict], headline(comparison, contrast, first, second), reading, fine
    )


def _called(comparison: Comparison, a: Arm, b: Arm) -> tuple[str, str]:
    """What two arms are called on the first screen: by their methods where these differ."""
    if a.kind != "sweep" and b.kind != "sweep" and a.method != b.method:
        return SHORT.get(a.method, a.method), SHORT.get(b.method, b.method)
    names = looks(comparison)
    return names[a.name].name, names[b.name].name


def headline(comparison: Comparison, contrast: Contrast, a: str, b: str) -> str:
    """The verdict as a person would say it."""
    if contrast.verdict == "no verdict":
        return f"No verdict on {a} against {b}: {_few(contrast)}."
    if contrast.verdict == "not distinguishable":
        return f"{a} and {b} cannot be told apart here."
    if contrast.verdict == "equivalent":
        return f"{a} and {b} end equally well, within {contrast.margin:.0%}."
    won = contrast.verdict == "better"
    verb = "beats" if won else "loses to"
    if contrast.decided_by == "failures" or contrast.ratio is None:
        return f"{a} {verb} {b}: {'fewer' if won else 'more'} of its runs got stuck or diverged."
    also = "" if contrast.decided_by != "both" else f", and {'fewer' if won else 'more'} stuck runs"
    return f"{a} {verb} {b}: {change(contrast.ratio)} {_error(comparison)}{also}."


def _few(contrast: Contrast) -> str:
    if min(contrast.seeds) < LEAST_SEEDS:
        return f"{min(contrast.seeds)} seeds are too few, it takes {LEAST_SEEDS}"
    if min(contrast.finishers) < LEAST_FINISHERS:
        return "too few of the runs finished"
    return "the runs do not decide it"


def _error(comparison: Comparison) -> str:
    """What the ratio is of: the error, or how far a score that should be large falls short."""
    return spoken(comparison.metric) if comparison.mode == "min" else "error"


def change(ratio: float, times: bool = True) -> str:
    """A ratio of errors in words: `23% smaller`, `8.1% larger`; with `times` also `3.2 times larger`."""
    word = "smaller" if ratio < 1 else "larger"
    factor = _factor(ratio)
    if times and factor >= FACTOR:
        return f"{number(float(f'{factor:.2g}'), keep_zeros=False)} times {word}"
    share = abs(1 - ratio)
    return f"{share:.0%} {word}" if share >= 0.0995 else f"{share:.1%} {word}"


def _factor(ratio: float) -> float:
    """How many times the larger of two errors is the smaller."""
    return max(ratio, 1 / ratio) if ratio else math.inf


def _sure(comparison: Comparison, contrast: Contrast, baseline: str) -> list[str]:
    """What the interval of the ratio allows and what it does not."""
    ratio, low, high = contrast.ratio, contrast.low, contrast.high
    if ratio is None or low is None or high is None or contrast.verdict == "no verdict":
        return []
    error = _error(comparison)
    if low < 1 < high:
        return [f"How sure: anything from {change(low)} to {change(high)} {error} than {baseline}'s fits these seeds."]
    near, far = (high, low) if high <= 1 else (low, high)
    times = _factor(near) >= FACTOR  # both ends in the same words
    return [f"How sure: at least {change(near, times)} and at most {change(far, times)}, with 95% confidence."]


def _ends(comparison: Comparison, a: Arm, b: Arm, first: str, second: str) -> str:
    """Where both ended, on how many seeds, after how much work."""
    ends = " against ".join(f"{name} {_end(arm)}" for name, arm in ((first, a), (second, b)))
    work = {f"{number(amount(comparison, arm.work), keep_zeros=False)}" for arm in (a, b)}
    spent = f"{' and '.join(sorted(work))} {unit(comparison)} each" if len(work) == 1 else _unequal(comparison, a, b)
    mean = "geometric mean" if comparison.mode == "min" else "mean"
    mean += " of fresh seeds that finished, 95% interval"
    return f"{ends} ({mean}), after {spent}; {number(a.seconds)} against {number(b.seconds)} s of training."


def _unequal(comparison: Comparison, a: Arm, b: Arm) -> str:
    spent = " and ".join(number(amount(comparison, arm.work), keep_zeros=False) for arm in (a, b))
    return f"{spent} {unit(comparison)}"


def _end(arm: Arm) -> str:
    ended = arm.stuck.of - arm.stuck.count
    if not ended:
        return "never finished"
    if arm.typical is None:
        return f"values that have no mean of errors ({ended} seeds)"
    seeds = f"{ended} of {arm.stuck.of} seeds" if arm.stuck.count else f"{ended} seeds"
    return f"{number(arm.typical)} ({number(arm.low)} to {number(arm.high)}, {seeds})"


def _failures(a: Arm, b: Arm, first: str, second: str) -> str:
    return f"Stuck or diverged: {a.stuck.count} of {a.stuck.of} {first}, {b.stuck.count} of {b.stuck.of} {second}."


def _notes(comparison: Comparison) -> list[str]:
    """What is to be said of the data, and what was refused."""
    note = [f"{comparison.note[:1].upper()}{comparison.note[1:].rstrip('.')}."] if comparison.note else []
    return [*note, *(_sentence(f"Not compared: {why}") for why in comparison.refusals)]


# -- none --------------------------------------------------------------------------------------------------------


def _undecided(view: View, comparison: Comparison) -> Opening:
    """Confirmed, and not compared with anything."""
    arms = [arm for arm in comparison.arms if arm.kind == "point" and arm.stuck.count < arm.stuck.of]
    best = arms[0] if arms else None  # as the search ranked them: the best of the confirmed ones would be lucky
    found = f"{looks(comparison)[best.name].name} ended at {_end(best)}: {best.label}." if best else ""
    if comparison.refusals:
        reading = [_sentence(comparison.refusals[0]), *([found] if found else [])]
        rest = [_sentence(f"Not compared: {why}") for why in comparison.refusals[1:]]
        return Opening("no verdict", "none", "No verdict: what was asked for cannot be compared.", reading, rest)
    headline = found or "Every confirmed run got stuck or diverged."
    reading = ["No verdict: it was confirmed on fresh seeds, but there is nothing to hold it against."]
    return Opening("confirmed, not compared", "none", headline, reading, _notes(comparison), _missing(view))


def _sentence(words: str) -> str:
    return words.rstrip(".") + "."


def _unconfirmed(view: View, comparison: Comparison | None) -> Opening:
    """The search alone: its best is the luckiest of many."""
    asked = view.spec.get("confirm")
    refused = comparison.refusals if comparison else ()
    fine = [_sentence(f"Not compared: {why}") for why in refused]
    best = view.best
    if best is None:
        lost = view.counts.get("diverged", 0)
        headline = f"No result: all {lost} trials that ended diverged." if lost else "No result yet."
        why = "A wider range of learning rates may help." if lost else "No trial has reported."
        return Opening("no result", "none", headline, [why], fine)
    ended = sum(view.value(trial) is not None for trial in view.ranked)
    of = f"the best of {ended:,} noisy trials" if ended > 1 else "one trial"
    where = f"{spoken(view.metric)} {number(view.value(best))}, {of}"
    seeds = int((view.spec.get("search") or {}).get("seeds") or 1)
    each = "one seed each" if seeds == 1 else f"{seeds} seeds each"
    lucky = f"Trials had {each}, so the best of them is a lucky one: on other seeds expect worse."
    reading = [f"{best.id}: {view.described(best)}." if view.described(best) else f"{best.id}.", lucky]
    if asked:
        waiting = [trial for trial in view.everything if is_confirm(trial.stage)]
        state = f"{sum(t.ended_at is not None for t in waiting)} of its {len(waiting)} confirmed trials have ended"
        reading.append(f"No verdict yet: {state if waiting else 'the fresh seeds of `confirm` come after the search'}.")
        return Opening("no verdict yet", "none", f"So far: {where}.", reading, fine)
    reading.append("No verdict: nothing was trained on fresh seeds, and there is no baseline to hold it against.")
    return Opening("search only, no verdict", "none", f"{where[:1].upper()}{where[1:]}.", reading, fine, _missing(view))


def _missing(view: View) -> list[tuple[str, str]]:
    """What leads to a verdict: a command that adds it to this sweep, or keys for the next one."""
    own = bool(view.spec.get("trainer"))
    baseline = "baselines: [{kind: sweep, id: ...}]" if own else BASELINES
    measured = [b for b in view.spec.get("baselines") or () if isinstance(b, dict) and b.get("kind") != "published"]
    keys = [*([] if view.spec.get("confirm") else [CONFIRM]), *([] if measured else [baseline])]
    folder = shlex.quote(view.folder.name) if view.folder is not None else "DIR"
    here = f"musweep confirm {folder} --top 3 --seeds 10{'' if own or measured else ' --hf'}"
    if view.spec.get("confirm"):
        return [("In the sweep file:", "\n".join(keys))]
    return [("To get one for this sweep:", here), ("Or in the next sweep file:", "\n".join(keys))]


def task_words(view: View) -> str:
    """The sweep's task and metric, for the line above the verdict."""
    return f"{task_name(view.spec)}, {spoken(view.metric)}" if view.spec.get("task") else spoken(view.metric)
