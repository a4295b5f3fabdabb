"""A verdict in one sentence, with its interval and margin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """What a sentence is made of."""

    a: str
    b: str
    failures_a: tuple[int, int]
    """(stuck or diverged, runs)."""
    failures_b: tuple[int, int]
    ratio: float | None
    low: float | None
    high: float | None
    margin: float
    p_failures: float | None
    verdict: str
    decided_by: str
    why: str
    """What stands in the way of a verdict: seeds, finishers, failures, conflict; empty."""
    narrow: tuple[float, ...]
    """The 90% interval that is within the margin if they are equivalent."""
    trivial: bool
    """Whether finishers surely differ by less than the margin."""
    family: int
    """How many contrasts were corrected for together."""
    uncorrected: bool
    """Whether it would have been told apart if it were the only one."""


def sentence(said: Said) -> str:
    """As in: NAG ends at 0.84 times HF's error (95% 0.76 to 0.93; 10 seeds each; margin 10%): better."""
    text = "; ".join(part for part in (_failures(said), _ends(said)) if part)
    return f"{text}: {_conclusion(said)}."


def _ends(said: Said) -> str:
    if said.ratio is None:
        return f"{said.a} against {said.b} ({_seeds(said)}; margin {said.margin:.0%})"
    ratio, *bounds = numbers(said.ratio, said.low, said.high)
    within = f"95% {bounds[0]} to {bounds[1]}; " if bounds else ""
    whose = f"{said.b}'s error" if "," not in said.b else f"the error of {said.b}"
    some = any(count for count, _ in (said.failures_a, said.failures_b))
    runs = f"apart from those, {said.a} ends" if some else f"{said.a} ends"
    return f"{runs} at {ratio} times {whose} ({within}{_seeds(said)}; margin {said.margin:.0%})"


def _failures(said: Said) -> str:
    (mine, runs), (theirs, others) = said.failures_a, said.failures_b
    if not (mine or theirs):
        return ""
    p = "" if said.p_failures is None else f" ({p_value(said.p_failures)})"
    return f"{said.a} gets stuck or diverges in {mine} of {runs} runs, {said.b} in {theirs} of {others}{p}"


def _seeds(said: Said) -> str:
    mine, theirs = said.failures_a[1], said.failures_b[1]
    return f"{mine} seeds each" if mine == theirs else f"{mine} and {theirs} seeds"


def _conclusion(said: Said) -> str:
    reasons = {
        "seeds": "fewer than 6 seeds on a side",
        "finishers": "too few other runs are left to compare errors",
        "failures": "errors are equivalent, but the shares of stuck or diverged runs may differ by 0.4 or more",
        "conflict": "stuck or diverged runs and the errors of the others point in opposite directions",
    }
    if said.verdict == "equivalent":
        return f"equivalent within {said.margin:.0%} (90% {' to '.join(numbers(*said.narrow))})"
    if said.verdict in ("better", "worse"):
        small = said.trivial and said.decided_by == "finishers"
        return f"{said.verdict}, by less than the margin" if small else said.verdict
    if said.why:
        return f"{said.verdict}, as {reasons[said.why]}"
    if said.uncorrected and said.family > 1:
        return f"{said.verdict} once corrected for {said.family} contrasts"
    return said.verdict


def numbers(*values: float | None) -> list[str]:
    """Ratios for people: two decimals, more where one would else read as 1, two figures where they are far from it."""
    known = [each for each in values if each is not None]
    digits = 2
    while digits < 5 and any(each != 1 and float(f"{each:.{digits}f}") == 1 for each in known):
        digits += 1
    return [
        f"{each:.{digits}f}" if 0.1 <= each < 10 else f"{each:.2g}" if each < 0.1 else f"{each:.0f}" for each in known
    ]


def p_value(p: float) -> str:
    """As in p = 0.03, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
