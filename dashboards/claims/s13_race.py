"""S13's question: momentum against Hessian-free optimisation, each tuned, on fresh seeds, for the same work."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dashboards.claims.s13 import ERROR
from dashboards.evidence import Evidence, number
from dashboards.verdicts import FAILS, HOLDS, NOT_RUN, OPEN, Claim, Verdict
from sweeps.compare import Outcomes, contrast
from sweeps.compare_curves import Crossing, crossing

STAGES = {"SGD": ("confirm", "sgd"), "CM": ("confirm", "cm"), "NAG": ("confirm", "nag"), "HF": ("confirm:hf", "hf")}
"""Where each arm's runs are found: (stage, method)."""


def arm(evidence: Evidence, name: str) -> Evidence:
    """The confirmed runs of an arm."""
    stage, method = STAGES[name]
    return evidence.select(stage=stage, method=method)


def hf_beats_sgd(evidence: Evidence) -> Verdict:
    """Table 1: HF ends lower than SGD; where it passes it is ours to say."""
    return _verdict(evidence, "HF", "SGD", "HF ends lower than tuned SGD for the same work", ".058 / .48 (other work)")


def nag_beats_hf(evidence: Evidence) -> Verdict:
    """Table 1: NAG ends lower than HF as Martens 2010 ran it, though not lower than HF without L2."""
    return _verdict(
        evidence,
        "NAG",
        "HF",
        "NAG ends lower than HF for the same work",
        ".074 / .11, but .058 with L2 to 0 (other work)",
    )


def cm_beats_hf(evidence: Evidence) -> Verdict:
    """Table 1: so does CM, by less."""
    return _verdict(
        evidence, "CM", "HF", "CM ends lower than HF for the same work", ".10 / .11, but .058 with L2 to 0 (other work)"
    )


def passed(evidence: Evidence, a: str, b: str) -> Crossing | None:
    """Where the medians of two arms cross, in updates."""
    return crossing(courses(arm(evidence, a)), courses(arm(evidence, b)))


def courses(evidence: Evidence) -> tuple[list[float], list[list[float | None]]]:
    """Updates of the reports, and each run's errors there; None where it has none."""
    runs = [dict(run.series.get(ERROR, ())) for run in evidence.runs]
    updates = sorted(set().union(*runs))
    return [float(u) for u in updates], [[_or_none(run.get(update, math.inf)) for update in updates] for run in runs]


def _verdict(evidence: Evidence, a: str, b: str, claim: str, published: str) -> Verdict:
    ours, theirs = (_outcomes(evidence, name) for name in (a, b))
    if not ours.errors or not theirs.errors:
        return Verdict(claim, published, "", NOT_RUN)
    found = contrast(ours, theirs)
    words = {"better": HOLDS, "worse": FAILS}
    return Verdict(claim, published, found.sentence, words.get(found.verdict, OPEN), _passing(evidence, a, b))


def _passing(evidence: Evidence, a: str, b: str) -> str:
    """Where a falls below b for good, in words."""
    there = passed(evidence, a, b)
    if there is None or there.work is None:
        return ""
    first, last = (a, b) if there.below == "a" else (b, a)
    between = "" if there.low is None or there.high is None else f" ({number(there.low)} to {number(there.high)})"
    return f"{first} is below {last} from update {number(there.work)}{between} on"


def _outcomes(evidence: Evidence, name: str) -> Outcomes:
    values: Sequence[float] = [run.value(ERROR) for run in arm(evidence, name).runs]
    return Outcomes(name.lower(), name, tuple(_or_none(value) for value in values))


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


CLAIMS: dict[str, tuple[Claim, ...]] = {"s13-hf-race": (hf_beats_sgd, nag_beats_hf, cm_beats_hf)}
