"""What fresh-seed nights are told as: pooled runs, a shift of an arm, and both in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.compare_words import numbers
from sweeps.night_file import Night

NIGHTS = 8
"""Nights that are pooled for the verdict against a baseline."""

Runs = tuple[list[float | None], list[bool]]
"""Errors of an arm's runs, None where one diverged; and whether each is stuck."""


@dataclass(frozen=True, slots=True)
class Shift:
    """One arm's last nights against its reference."""

    arm: str
    nights: int
    p: float
    """Corrected for there being two tests; not for windows and arms."""
    by: str
    """failures or finishers."""
    worse: bool
    ratio: float | None
    """Of the finishers' geometric means."""
    low: float | None
    high: float | None
    """Its 95% interval (Welch's)."""
    failed: tuple[int, int]
    """Runs that are stuck or diverged, of the last nights and of the reference."""
    of: tuple[int, int]
    """All runs of both."""


def is_baseline(arm: str) -> bool:
    """Whether an arm is a baseline's, such as HF's."""
    return ":" in arm.partition("/")[0]


def pooled(nights: Sequence[Night], arm: str) -> Runs:
    """All runs of an arm in some nights."""
    errors: list[float | None] = []
    stuck: list[bool] = []
    for night in nights:
        if (mine := night.arms.get(arm)) is not None:
            errors += mine["errors"]
            stuck += mine["stuck"]
    return errors, stuck


def sentence(shift: Shift, found: Mapping[str, Any], arms: Mapping[str, Any], margin: float) -> str:
    """One or two sentences on a judged night."""
    label, result = arms[shift.arm]["label"], found["result"]
    when = "tonight" if shift.nights == 1 else f"over {shift.nights} nights"
    size = f"{shift.of[0]} runs against {shift.of[1]}"
    low_high = "" if shift.low is None else f" (95% {' to '.join(numbers(shift.low, shift.high))})"
    ratio = "" if shift.ratio is None else f"errors are {numbers(shift.ratio)[0]} times the reference's{low_high}"
    if result == "ok":
        return f"As before: {when} {ratio} for {label}, {size}. {_could(found)}"
    failures = (
        f"{shift.failed[0]} of {shift.of[0]} runs failed {when}, in the reference {shift.failed[1]} of {shift.of[1]}"
    )
    if shift.by == "failures":
        return f"{result.capitalize()}: {label}: {failures}." + (f" Of the others {ratio}." if ratio else "")
    inside = shift.low is not None and shift.high is not None and _within(shift.low, shift.high, margin)
    small = f" That is less than the margin of {margin:.0%}." if inside else ""
    return f"{result.capitalize()}: {label}: {ratio} {when}, {size}.{small}"


def _within(low: float, high: float, margin: float) -> bool:
    return low > 1 / (1 + margin) and high < 1 + margin


def _could(found: Mapping[str, Any]) -> str:
    """What size of change would have been found."""
    now, later = found.get("could_find_tonight"), found.get("could_find")
    if later is None:
        return "What could have been found is not known: too few runs finished."
    if now is None or now - later < 0.005:
        return f"A change of {later - 1:.0%} could have been found."
    return f"A change of {now - 1:.0%} tonight, or of {later - 1:.0%} that has lasted, could have been found."


def against_baselines(nights: Sequence[Night], margin: float) -> str:
    """The verdict of the last nights, pooled, against each baseline that was measured; empty without one."""
    from sweeps.compare import SEEDS, Outcomes, contrast
    from sweeps.labels import short

    last = nights[-NIGHTS:]
    arms = last[-1].arms
    own = sorted(arm for arm in arms if not is_baseline(arm))
    words = []
    when = "Tonight" if len(last) == 1 else f"The last {len(last)} nights"
    for rival in sorted(arm for arm in arms if is_baseline(arm)) if own else ():
        sides = []
        for arm in (own[0], rival):
            errors, stuck = pooled(last, arm)
            name = arm.partition("/")[0].partition(":")[2]
            kind = "hf" if is_baseline(arm) else "point"
            sides.append(Outcomes(arm, short(arms[arm]["label"], kind, name), tuple(errors), tuple(stuck)))
        if min(len(side.errors) for side in sides) >= SEEDS:
            words.append(f" {when}: {contrast(*sides, margin=margin).sentence}")
    return "".join(words)
