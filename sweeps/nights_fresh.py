"""Fresh-seed nights: new replicates every night, pooled over windows of nights and held against the first ones.

The rule, and why false alarms are rare:

* The first `night.reference` nights are the reference, once and for all: a slow change cannot creep into it.
* Each later night the last 1, 2, 4, ... 64 nights after it are pooled, and each window is held against the reference by
  the tests of `sweeps.compare`: Fisher's on runs that failed, the studentised permutation test on log errors of the
  others, corrected for being two (`together`). Both are exact where nothing has changed, whatever the errors' law.
* A window counts if its p is at most `LEVEL` over (windows x arms). By the union bound a night of an unchanged history
  gives a false alarm with a chance of 2% at most, so 100 nights give two at most in the mean. To look every night is
  thus paid for, and so is waiting: a window is longer tomorrow.
* When a change is over, which the same tests tell (the newest nights against those of the change), windows begin anew
  there. That only ever takes windows away, so it adds no alarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps import nights_words
from sweeps.night_file import Night
from sweeps.nights_words import Runs, Shift, is_baseline, pooled
from sweeps.schema_night import NightRules

LEVEL = 0.02
"""Chance of a false alarm in one night, all arms and windows together."""
WINDOWS = (1, 2, 4, 8, 16, 32, 64)
POWER = 0.8
HOPELESS = 0.2
"""Welch's p above which the permutation test is not made: it could not come out a hundred times smaller."""
AGAIN = 8
"""A change that shows again after so many nights or fewer is the same event: a small one is found now and then."""


def measured(folder: Path) -> dict[str, dict[str, Any]]:
    """Each confirmed point's label, errors and stuck flags, by `STAGE/POINT`.

    Raises:
        ValueError: the metric's values are no positive errors, or the journal is damaged.
    """
    from sweeps import arms
    from sweeps.labels import label

    study = arms.read(folder)
    every = arms.confirmed(study)
    on = arms.scale(study, every.values())
    found = {}
    for runs in every.values():
        if not runs.trials:
            continue
        found[f"{runs.stage}/{runs.point_id}"] = {
            "label": label(runs.trials[0], study.spec.get("space") or ()),
            "errors": list(on.errors(runs.values[trial.number] for trial in runs.trials)),
            "stuck": [trial.number in runs.stuck for trial in runs.trials],
        }
    return found


def judged(
    tonight: Night, past: list[Night], rules: NightRules, *, mode: str = "min", margin: float = 0.1
) -> dict[str, Any]:
    """The fields of a fresh-seed night that depend on the others.

    Args:
        tonight: what is known of the night before it is judged: `at`, `sweep`, `arms`.
        past: earlier sound nights of the same spec, by time, from the one that begins the reference on.
        rules: the spec's.
        mode: min or max.
        margin: `compare.margin`.
    """
    now, nights = tonight.arms, [*past, tonight]
    reference = nights[: rules.reference]
    found: dict[str, Any] = {"collected": len(reference), "wanted": rules.reference}
    against = nights_words.against_baselines(nights, margin)
    if len(nights) <= rules.reference:
        known = _collecting(now, nights, rules, mode)
        return found | known | {"sentence": known["sentence"] + against}
    begun = max((night.restart for night in nights if night.restart is not None), default=-math.inf)
    after = [night for night in nights[rules.reference :] if night.at >= begun]
    shifts = shifts_of(reference, after)
    alarm = _alarm(shifts)
    if alarm is not None and (restart := _over(alarm, after, past)) is not None:
        after = [night for night in after if night.at >= restart]
        found["restart"] = restart
        shifts = shifts_of(reference, after)
        alarm = _alarm(shifts)
    found |= _size(reference, after, shifts)
    found["reference"] = reference[-1].sweep
    shown = alarm or _shown(shifts)
    if shown is None:
        return found | {"result": "ok", "sentence": f"Nothing to compare: too few runs of any point finished.{against}"}
    found |= {"about": now[shown.arm]["label"], "effect": shown.ratio, "low": shown.low, "high": shown.high}
    found |= {"nights": shown.nights, "result": "ok" if alarm is None else "worse" if alarm.worse else "better"}
    over = " An earlier change is over." if found.get("restart") is not None else ""
    return found | {"sentence": nights_words.sentence(shown, found, now, margin) + over + against}


def shifts_of(reference: Sequence[Night], after: Sequence[Night]) -> list[Shift]:
    """Every window of every arm of the last night against the reference, windows growing."""
    windows = [nights for nights in WINDOWS if nights <= len(after)]
    found = []
    for arm in sorted(after[-1].arms):
        base = pooled(reference, arm)
        if not base[0]:
            continue
        found += [_tested(arm, nights, pooled(after[-nights:], arm), base) for nights in windows]
    return found


def _tested(arm: str, nights: int, runs: Runs, base: Runs) -> Shift:
    from sweeps.compare import FINISHERS, Outcomes
    from sweeps.compare_samples import permutation, welch
    from sweeps.compare_shares import fisher, together

    a, b = (Outcomes(arm, arm, tuple(errors), tuple(stuck)) for errors, stuck in (runs, base))
    x, y, failed, other = a.finished, b.finished, a.failures, b.failures
    ratio = low = high = None
    p = 1.0
    if min(len(x), len(y)) >= 2:
        gap = welch(x, y)
        ratio, (low, high) = math.exp(gap.value), (math.exp(each) for each in gap.interval())
        if min(len(x), len(y)) >= FINISHERS and _hopeful(*gap.interval(1 - HOPELESS)):
            p = permutation(x, y)
    p_failures = fisher(failed, other)
    by = "failures" if p_failures < p else "finishers"
    more = failed[0] / failed[1] > other[0] / other[1] if by == "failures" else (ratio or 1.0) > 1
    both = together(min(p, p_failures), failed, other)
    return Shift(arm, nights, both, by, more, ratio, low, high, (failed[0], other[0]), (failed[1], other[1]))


def _hopeful(low: float, high: float) -> bool:
    """Whether Welch's p is below `HOPELESS`, that is, whether this interval excludes no difference."""
    return not low <= 0 <= high


def _level(shifts: Sequence[Shift]) -> float:
    """The p at which one window of one arm counts: LEVEL for all of them together."""
    return LEVEL / max(1, len(shifts))


def _alarm(shifts: Sequence[Shift]) -> Shift | None:
    """The clearest of those that count."""
    clearest = min(shifts, key=lambda shift: shift.p, default=None)
    return clearest if clearest is not None and clearest.p <= _level(shifts) else None


def _shown(shifts: Sequence[Shift]) -> Shift | None:
    """This night alone, of the sweep's own first point, where nothing counts."""
    return next((shift for shift in shifts if shift.ratio is not None), None)


def _over(alarm: Shift, after: Sequence[Night], past: Sequence[Night]) -> float | None:
    """Since when an earlier change that the windows still reach into is over; None: it is not, or it is no earlier one.

    The newest nights are held against those of the change, likewise over windows.
    """
    last = past[-1] if past else None
    if last is None or last.result != ("worse" if alarm.worse else "better"):
        return None
    first = next((i for i, night in enumerate(after) if night.event == last.event), None)
    if first is None:
        return None
    start = max(0, first - after[first].nights + 1)
    windows = [nights for nights in WINDOWS if nights < len(after) - first]
    found = [
        _tested(alarm.arm, nights, pooled(after[-nights:], alarm.arm), pooled(after[start:-nights], alarm.arm))
        for nights in windows
    ]
    back = [shift for shift in found if shift.p <= _level(found) and shift.worse != alarm.worse]
    return after[-min(back, key=lambda shift: shift.p).nights].at if back else None


def _size(reference: Sequence[Night], after: Sequence[Night], shifts: Sequence[Shift]) -> dict[str, float | None]:
    """The smallest change of the first point that would be found with `POWER`, from the finishers' spread."""
    if not shifts:
        return {}
    arm, level = shifts[0].arm, _level(shifts)
    base, nights = finished(pooled(reference, arm)), [finished(pooled([night], arm)) for night in after]
    windows = [shift.nights for shift in shifts if shift.arm == arm]
    sizes = [could_find(base, [each for night in nights[-w:] for each in night], level) for w in windows]
    known = [size for size in sizes if size is not None]
    return {"could_find": min(known, default=None), "could_find_tonight": sizes[0]}


def finished(runs: Runs) -> list[float]:
    """Log errors of the runs that neither diverged nor are stuck."""
    return [math.log(error) for error, lost in zip(*runs, strict=True) if error is not None and not lost]


def could_find(base: Sequence[float], new: Sequence[float], level: float) -> float | None:
    """The factor between two samples of log errors that a two-sided test at this level finds with `POWER`.

    Student's approximation, the spread being that within the two samples; None with under 3 values on a side.
    """
    from scipy.special import stdtrit

    if min(len(base), len(new)) < 3:
        return None
    squares = sum(math.fsum((x - math.fsum(each) / len(each)) ** 2 for x in each) for each in (base, new))
    freedom = len(base) + len(new) - 2
    error = math.sqrt(squares / freedom * (1 / len(base) + 1 / len(new)))
    return math.exp(error * float(stdtrit(freedom, 1 - level / 2) + stdtrit(freedom, POWER)))


def _collecting(now: Mapping[str, Any], nights: Sequence[Night], rules: NightRules, mode: str) -> dict[str, Any]:
    """A night of the reference itself: only what the spec expects can be held against it."""
    collecting = f"Collecting the reference, {len(nights)} of {rules.reference} nights"
    expect = rules.expect
    own = sorted(arm for arm in now if not is_baseline(arm)) or sorted(now)
    if expect is None or expect.best is None or not own:
        return {"result": "ok", "sentence": f"{collecting}."}
    low, high = expect.best if mode == "min" else (1 - expect.best[1], 1 - expect.best[0])
    by = f" ({expect.source})" if expect.source else ""
    from sweeps.compare_samples import interval_of_mean

    logs = {arm: finished(pooled(nights, arm)) for arm in own}
    arms = {arm: values for arm, values in logs.items() if len(values) >= 2}
    if not arms:
        return {"result": "ok", "sentence": f"{collecting}; too few runs have finished to hold them against {by}."}
    best = min(arms, key=lambda arm: math.fsum(arms[arm]) / len(arms[arm]))
    ends = [math.exp(each) for each in interval_of_mean(arms[best], 1 - LEVEL / len(own))]
    found = {"about": now[best]["label"], "effect": None}
    said = f"{now[best]['label']} ends at errors of {ends[0]:.3g} to {ends[1]:.3g}"
    if ends[0] > high or ends[1] < low:
        word = "worse" if ends[0] > high else "better"
        sentence = f"{word.capitalize()} than is known: {said}, not {low:g} to {high:g}{by}. {collecting}."
        return found | {"result": word, "sentence": sentence}
    return found | {"result": "ok", "sentence": f"{collecting}; {said}, as known{by}."}
