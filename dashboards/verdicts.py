"""What a claim came to: one row of REPRODUCTION.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dashboards.evidence import ALPHA, Evidence, Values, middle, smaller, spread

HOLDS, FAILS, OPEN, NOT_RUN = "holds", "does not hold", "not distinguishable", "not run"


@dataclass(frozen=True)
class Verdict:
    """A claim with what was published, what was measured, and whether it holds."""

    claim: str
    published: str
    measured: str
    verdict: str
    note: str = ""


Claim = Callable[[Evidence], Verdict]


def below(claim: str, published: str, a: tuple[str, Values], b: tuple[str, Values], note: str = "") -> Verdict:
    """Judge that a is smaller than b: the paired test decides, the direction of the medians tells the rest apart."""
    if not a[1] or not b[1]:
        return Verdict(claim, published, f"{a[0]} {spread(a[1])}, {b[0]} {spread(b[1])}", NOT_RUN, note)
    p, opposite = smaller(a[1], b[1]), smaller(b[1], a[1])
    measured = f"{a[0]} {spread(a[1])}, {b[0]} {spread(b[1])}; p = {p:.2g}"
    if p <= ALPHA and middle(a[1]) <= middle(b[1]):
        return Verdict(claim, published, measured, HOLDS, note)
    return Verdict(claim, published, measured, FAILS if opposite <= ALPHA else OPEN, note)


def judged(
    claim: str, published: str, measured: str, holds: bool, note: str = "", of: Sequence[Values] = ()
) -> Verdict:
    """Judge by a plain yes or no, if every one of the cells `of` which it speaks was run."""
    return Verdict(claim, published, measured, (HOLDS if holds else FAILS) if all(of) else NOT_RUN, note)
