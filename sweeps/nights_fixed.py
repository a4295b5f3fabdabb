"""Fixed-seed nights: the same seeds every night, so every number is to be the reference night's, to tolerance."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps import journal
from sweeps.history import History, Trial
from sweeps.labels import label
from sweeps.night_file import Night
from sweeps.schema_night import NightRules

Measured = dict[str, dict[str, Any]]
TRAINED = ("complete", "stopped")
SAME_EVENT = 10.0
"""A night that differs from the last one by less than so many tolerances shows the same change as it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two nights differ most."""

    value: float = 0.0
    """Relative."""
    trial: str = ""
    metric: str = ""
    bits: int = 0
    """Trials whose rows differ in any bit."""
    course: str = ""
    """What took another course, in words: a trial that a rung judged otherwise, other reports; empty: nothing."""
    lost: str = ""
    """What was there and is not, in words; empty: nothing."""


def measured(history: History, space: Iterable[str]) -> Measured:
    """What each trial came to: how it ended, its objective, and of each metric its end and its mean logarithm.

    The mean of log |value| over all reports shows a change in any one report, wherever it is: one of 1e-3 changes it by
    1e-3 / reports. `rows` is a digest of all bits, so that "equal to the bit" can be said.
    """
    space = list(space)
    return {trial.id: _of(trial, space) for _, trial in sorted(history.trials.items())}


def _of(trial: Trial, space: list[str]) -> dict[str, Any]:
    told = hashlib.sha256()
    series: dict[str, list[float]] = {}
    for update, row in sorted(trial.metrics.items()):
        for name, value in sorted(row.items()):
            told.update(f"{update} {name} {value!r}\n".encode())
            series.setdefault(name, []).append(value)
    told.update(f"{trial.state} {trial.objective!r}\n".encode())
    metrics = {}
    for name, values in series.items():
        sizes = [math.log(abs(value)) for value in values if math.isfinite(value) and value]
        metrics[name] = [len(values), journal.number(values[-1]), math.fsum(sizes) / len(sizes) if sizes else 0.0]
    return {
        "label": label(trial, space),
        "state": trial.state,
        "objective": None if trial.objective is None else journal.number(trial.objective),
        "metrics": metrics,
        "rows": told.hexdigest()[:16],
    }


def between(now: Measured, before: Measured) -> Difference:
    """Where a night differs most from another."""
    worst, bits, course = Difference(), 0, ""
    for name, then in before.items():
        called, mine = f"{name} ({then['label']})", now.get(name)
        if mine is None:
            return Difference(lost=f"{called} is missing")
        if then["label"] != mine["label"]:
            course = course or f"{called} is another point now, {mine['label']}"
        if then["state"] != mine["state"]:
            if mine["state"] not in TRAINED:
                return Difference(lost=f"{called} is {mine['state']} and was {then['state']}")
            course = course or f"{called} is {mine['state']} and was {then['state']}"
        bits += mine["rows"] != then["rows"]
        for metric, value in _parts(mine, then):
            if math.isinf(value):
                course = course or f"{metric} of {called} has other reports than it had"
            elif value > worst.value:
                worst = Difference(value, name, metric)
    if more := [name for name in now if name not in before]:
        return Difference(lost=f"{more[0]} ({now[more[0]]['label']}) was not there")
    return Difference(worst.value, worst.trial, worst.metric, bits, course)


def _parts(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Relative differences of one trial, by metric; infinite where numbers are missing, or are none."""
    yield "objective", _relative(now["objective"], before["objective"])
    for name, (count, end, size) in before["metrics"].items():
        mine = now["metrics"].get(name)
        alike = mine is not None and mine[0] == count
        yield name, max(_relative(mine[1], end), abs(mine[2] - size)) if alike else math.inf


def _relative(a: float | str | None, b: float | str | None) -> float:
    """|a - b| over the larger of both; infinite where only one is a number."""
    if a == b:
        return 0.0
    if a is None or b is None:
        return math.inf
    x, y = float(a), float(b)
    if not (math.isfinite(x) and math.isfinite(y)):
        return math.inf
    return abs(x - y) / max(abs(x), abs(y))


def ratio(now: Measured, before: Measured, mode: str) -> float | None:
    """Geometric mean of the errors as a multiple of those before; None where errors have no ratio.

    Errors are the objectives, in mode max their distance to 1.
    """
    logs = []
    for name, then in before.items():
        values = (now.get(name, {}).get("objective"), then["objective"])
        x, y = (math.nan if value is None else float(value) for value in values)
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        a, b = (x, y) if mode == "min" else (1 - x, 1 - y)
        if a == b:
            logs.append(0.0)
        elif a <= 0 or b <= 0:
            return None
        else:
            logs.append(math.log(a / b))
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def judged(now: Measured, past: list[Night], rules: NightRules, mode: str) -> dict[str, Any]:
    """The fields of a fixed-seed night that depend on the others.

    Args:
        now: what the night measured.
        past: earlier sound nights of the same spec, by time, the first being the reference.
        rules: the spec's.
        mode: min or max.
    """
    reference = past[0] if past else None
    found: dict[str, Any] = {"tolerance": rules.tolerance, "trials": now}
    if reference is not None:
        found |= _against(now, reference, rules.tolerance, mode)
    known = {} if reference is not None and reference.accepted else _expected(now, rules, mode)
    if reference is None:
        first = f"The first night of this spec: {len(now)} trials, which later nights are held against"
        return found | {"result": "ok", "sentence": f"{first}{_as_known(rules)}."} | known
    return found | known if found["result"] == "ok" else found


def _against(now: Measured, reference: Night, tolerance: float, mode: str) -> dict[str, Any]:
    worst = between(now, reference.trials)
    then = day(reference.at)
    if worst.lost:
        sentence = f"Broken: {worst.lost}, held against {then}."
        return {"result": "broken", "sentence": sentence, "about": worst.lost.split(" ")[0]}
    found: dict[str, Any] = {
        "difference": worst.value or (None if worst.course else 0.0), "effect": ratio(now, reference.trials, mode),
        "about": worst.trial,
    }  # fmt: skip
    if worst.value <= tolerance and not worst.course:
        if not worst.bits:
            words = f"all {len(now)} trials are equal to the bit to those of {then}"
        elif not worst.value:
            words = f"all {len(now)} trials end as on {then}; {worst.bits} differ in what was measured besides"
        else:
            words = (
                f"{len(now)} trials are those of {then} within {tolerance:g}; the largest relative difference is "
                f"{worst.value:.1e}, of {worst.trial}"
            )
        return found | {"result": "ok", "sentence": f"As before: {words}."}
    better = _ended(now) > _ended(reference.trials) or (found["effect"] is not None and found["effect"] < 1)
    said = [worst.course] if worst.course else []
    if worst.value:
        name = f"{worst.trial} ({now[worst.trial]['label']})"
        said.append(f"{worst.metric} of {name} differs by {worst.value:.2g}, relatively, from {then}")
    if found["effect"] is not None:
        said.append(f"errors of all trials are {_times(found['effect'])} those of {then}")
    sentence = f"{'Better' if better else 'Worse'}: {'; '.join(said)}."
    return found | {"result": "better" if better else "worse", "sentence": sentence}


def _ended(measured: Measured) -> int:
    """How many trials trained to their end."""
    return sum(trial["state"] in TRAINED for trial in measured.values())


def _times(ratio: float) -> str:
    digits = 4 if abs(ratio - 1) >= 1e-3 else 3 - math.floor(math.log10(abs(ratio - 1))) if ratio != 1 else 0
    return f"{ratio:.{min(digits, 12)}f} times"


def _expected(now: Measured, rules: NightRules, mode: str) -> dict[str, Any]:
    """What is not as the spec says that it is known to be; empty: nothing."""
    expect = rules.expect
    if expect is None:
        return {}
    by = f" ({expect.source})" if expect.source else ""
    worst, name = 0.0, ""
    for trial, value in expect.trials.items():
        mine = now.get(trial, {}).get("objective")
        if mine is None:
            sentence = f"Broken: {trial} has no objective, and {value:g} is known{by}."
            return {"result": "broken", "sentence": sentence, "about": trial}
        if (away := _relative(mine, value)) > worst:
            worst, name = away, trial
    if worst > expect.within:
        mine, value = float(now[name]["objective"]), expect.trials[name]
        word = "worse" if (mine > value) == (mode == "min") else "better"
        sentence = (
            f"{word.capitalize()} than is known: {name} ({now[name]['label']}) ends at {mine:.6g} and not within "
            f"{expect.within:g} of {value:.6g}{by}."
        )
        return {"result": word, "sentence": sentence, "about": name}
    values = [float(trial["objective"]) for trial in now.values() if trial["objective"] is not None]
    finite = [value for value in values if math.isfinite(value)]
    if expect.best is None:
        return {}
    if not finite:
        return {"result": "broken", "sentence": f"Broken: no trial has an objective{by}."}
    best = min(finite) if mode == "min" else max(finite)
    low, high = expect.best
    if low <= best <= high:
        return {}
    word = "worse" if (best > high) == (mode == "min") else "better"
    sentence = f"{word.capitalize()} than is known: the best objective is {best:.6g}, not {low:g} to {high:g}{by}."
    return {"result": word, "sentence": sentence}


def _as_known(rules: NightRules) -> str:
    return "" if rules.expect is None else f"; they are as known ({rules.expect.source or 'night.expect'})"


def same_event(now: Measured, last: Night) -> bool:
    """Whether a night shows the same change as the night before it."""
    if last.tolerance is None:
        return False
    found = between(now, last.trials)
    return not (found.lost or found.course) and found.value <= SAME_EVENT * last.tolerance


def day(at: float) -> str:
    """A date for people, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))
