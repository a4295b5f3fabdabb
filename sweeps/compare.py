"""The verdict on two arms: pure functions of plain values, so that they can be held against simulated outcomes.

The rule, and why it is so:

* A run that is stuck or diverged has failed; the others are finishers. Failures are compared by Fisher's exact test,
  finishers by a studentised permutation test on log error. Each side of the verdict is thus about one thing: whether it
  trains at all, and how low it gets if it does. An average over both would depend on what number a failure is given.
* Two tests may each be wrong, so the smaller p is corrected for the pair (`compare_shares.together`): the chance that
  equal methods are told apart stays under 5%, whatever the share of failures. Where no run failed nothing is paid.
* A side counts if its corrected p is at most 0.05, after Holm's correction over the secondary contrasts. Finishers
  count only if the printed interval of their ratio excludes 1 as well: a verdict never contradicts the interval
  beside it.
* If one side counts and the other points the other way at p <= 0.1 (0.05 one-sided), or by 0.4 (`SHARE_MARGIN`) of
  failures, nothing is decided: "fails more often but ends lower" is no "better". This only ever withholds a verdict.
* "Equivalent" needs two one-sided tests at 5% each within the margin, on finishers, and shares of failures that surely
  differ by less than 0.4 (`SHARE_MARGIN`). Both must hold, so it is wrong in at most 5% at either margin. The two tests
  are a 90% interval within the margin, which the sentence gives too, as the 95% one may reach over it.
* A difference beyond chance is told as better or worse even if it is surely smaller than the margin; the sentence then
  says so.
* Under 6 seeds on a side there is no verdict: 5 against 5 have 252 splits, and one odd run decides. With fewer than 3
  finishers on a side finishers are not compared.

"Equal" means equal distributions; for finishers of unequal spread, equal geometric means (the test is then right in the
limit only): at 10 seeds, with one spread three times the other and strongly skewed, 9 to 11% are told apart. All rates
at 6, 10 and 20 seeds are measured by tests/bench/verdicts.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps.compare_curves import logrank
from sweeps.compare_samples import brunner_munzel, holm, interval, interval_of_mean, permutation, welch
from sweeps.compare_shares import SHARE_MARGIN, compatible, fisher, share, together
from sweeps.compare_words import Said, sentence
from sweeps.comparison import Contrast

__all__ = ["LEVEL", "Outcomes", "contrast", "contrasts", "errors", "floor", "outcomes", "share", "typical"]

LEVEL = 0.05
CONTRARY = 0.1
"""Two-sided p at which a side that points the other way stands against the one that decides."""
SEEDS = 6
FINISHERS = 3


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the runs of one arm ended."""

    name: str
    label: str
    errors: tuple[float | None, ...]
    """Positive; small is good (see `errors`). None where a run diverged or failed."""
    stuck: tuple[bool, ...] = ()
    """Which runs ended but are stuck; empty: none."""
    reached: tuple[tuple[float, bool], ...] = ()
    """(work at which the target was reached, True) or (work at the end, False), for each run; empty: not compared."""

    def __post_init__(self) -> None:
        if self.stuck and len(self.stuck) != len(self.errors):
            raise ValueError(f"{self.name}: {len(self.errors)} errors but {len(self.stuck)} runs said stuck or not")
        if any(each is not None and not (math.isfinite(each) and each > 0) for each in self.errors):
            raise ValueError(f"{self.name}: an error that is compared is positive and finite, or None")

    @property
    def finished(self) -> list[float]:
        """Log errors of the finishers, sorted."""
        stuck = self.stuck or (False,) * len(self.errors)
        left = (each for each, lost in zip(self.errors, stuck, strict=True) if not lost)
        return sorted(math.log(each) for each in left if each is not None)

    @property
    def failures(self) -> tuple[int, int]:
        """(stuck or diverged, runs)."""
        return len(self.errors) - len(self.finished), len(self.errors)


def floor(
    values: Iterable[float | None], mode: str = "min", best: float | None = None, examples: int | None = None
) -> float:
    """What an error of 0 is counted as: half of the smallest step the metric can take.

    That is half an example for a rate over so many examples. Otherwise the step is not known, and it is half of the
    smallest positive error of all arms together (so give them all); 1 if there is none.
    """
    if examples:
        return 0.5 / examples
    top = _best(mode, best)
    found = [abs(each - top) for each in values if each is not None and math.isfinite(each) and each != top]
    return min(found) / 2 if found else 1.0


def errors(
    values: Iterable[float | None], mode: str = "min", best: float | None = None, zero: float | None = None
) -> tuple[float | None, ...]:
    """A metric's values as positive errors, whose ratios mean something: the distance to the best possible value.

    Args:
        values: of the metric; None or not finite where a run diverged.
        mode: "min", or "max" as for an accuracy.
        best: the best possible value; 0 for "min", 1 for "max".
        zero: what an error of 0 is counted as, from `floor`. Never left out, as that would hide the best runs.

    Raises:
        ValueError: a value is beyond the best possible one; or one equals it and `zero` is not given.
    """
    top = _best(mode, best)
    found: list[float | None] = []
    for value in values:
        if value is None or not math.isfinite(value):
            found.append(None)
            continue
        error = value - top if mode == "min" else top - value
        if error < 0:
            raise ValueError(f"{value:g} is beyond {top:g}, the best value of the metric: errors have no ratio")
        if error == 0 and zero is None:
            raise ValueError(f"a value of {value:g} is an error of 0, which has no logarithm; say what it counts as")
        found.append(error or zero)
    return tuple(found)


def _best(mode: str, best: float | None) -> float:
    return best if best is not None else {"min": 0.0, "max": 1.0}[mode]


def outcomes(
    name: str, label: str, values: Sequence[float | None], *, mode: str = "min", best: float | None = None,
    zero: float | None = None, stuck_above: float | None = None, reached: Sequence[tuple[float, bool]] = (),
) -> Outcomes:  # fmt: skip
    """An arm's outcomes from its metric's values.

    Args:
        name: of the arm.
        label: for people.
        values: of the metric, one for each run; None where it diverged or failed.
        mode: "min" or "max".
        best: see `errors`.
        zero: see `errors`.
        stuck_above: on the metric's scale; a run that ended on the bad side of it is stuck. None: none is.
        reached: see `Outcomes`.

    Raises:
        ValueError: see `errors`.
    """
    bad = 1 if mode == "min" else -1
    limit = math.inf if stuck_above is None else bad * stuck_above
    stuck = tuple(each is not None and bad * each > limit for each in values)
    return Outcomes(name, label, errors(values, mode, best, zero), stuck, tuple(reached))


def typical(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Geometric mean of positive errors with its 95% interval (Student's, on logs); no interval of one value.

    Raises:
        ValueError: there is no value, or one is not positive.
    """
    logs = [math.log(each) for each in values]
    if not logs:
        raise ValueError("no typical value of no runs")
    middle = math.exp(math.fsum(logs) / len(logs))
    if len(logs) == 1:
        return middle, None, None
    low, high = interval_of_mean(logs)
    return middle, math.exp(low), math.exp(high)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """All that is computed of a pair before corrections over contrasts; differences are of log errors, a - b."""

    a: Outcomes
    b: Outcomes
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_outside: float | None = None
    narrow: tuple[float, float] | None = None
    """Welch's 90% interval, the one of two one-sided tests at 5%."""
    p_failures: float | None = None
    p_ranks: float | None = None
    p_time: float | None = None

    @property
    def judged(self) -> bool:
        """Whether there are seeds enough."""
        return min(len(self.a.errors), len(self.b.errors)) >= SEEDS

    def corrected(self, p: float | None) -> float:
        """A side's p, corrected for there being two sides."""
        return 1.0 if p is None else together(p, self.a.failures, self.b.failures)

    @property
    def p_pair(self) -> float:
        """The contrast's p."""
        return min(self.corrected(self.p), self.corrected(self.p_failures))


def _evidence(a: Outcomes, b: Outcomes, margin: float) -> _Evidence:
    x, y = a.finished, b.finished
    failed, other = a.failures, b.failures
    value = low = high = p = p_outside = narrow = None
    if min(len(x), len(y)) >= 2:
        found = welch(x, y)
        value, (low, high) = found.value, interval(x, y)
        if min(len(x), len(y)) >= FINISHERS:
            p, p_outside, narrow = permutation(x, y), found.outside(math.log1p(margin)), found.interval(0.90)
    elif x and y:
        value = sum(x) / len(x) - sum(y) / len(y)
    last = [x + [math.inf] * failed[0], y + [math.inf] * other[0]]
    enough = min(failed[1], other[1]) >= SEEDS
    return _Evidence(
        a, b, value, low, high, p if enough else None, p_outside if enough else None, narrow,
        fisher(failed, other) if enough else None, brunner_munzel(*last) if enough else None,
        logrank(a.reached, b.reached) if enough else None,
    )  # fmt: skip


def contrast(a: Outcomes, b: Outcomes, *, margin: float = 0.1, primary: bool = True) -> Contrast:
    """The verdict on `a` against `b` taken alone: a primary contrast, or the only secondary one.

    Raises:
        ValueError: the margin is not positive.
    """
    return contrasts([(a, b)], margin=margin, primary=0 if primary else None)[0]


def contrasts(
    pairs: Sequence[tuple[Outcomes, Outcomes]], *, margin: float = 0.1, primary: int | None = 0
) -> tuple[Contrast, ...]:
    """Verdicts on pairs of arms, in the order given; all but the primary one share one error rate by Holm's correction.

    Tests of equivalence are corrected among themselves: of one pair only one of the two errors can be made. Pairs with
    too few seeds take no part.

    Args:
        pairs: (a, b), to be read as a against b.
        margin: errors are equivalent within 1 / (1 + margin) and 1 + margin.
        primary: which of them was named beforehand; None if none.

    Raises:
        ValueError: the margin is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin:g}: must be positive")
    found = [_evidence(a, b, margin) for a, b in pairs]
    family = [index for index, each in enumerate(found) if index != primary and each.judged]
    adjusted = {index: each.p_pair for index, each in enumerate(found)}
    outside = {index: 1.0 if each.p_outside is None else each.p_outside for index, each in enumerate(found)}
    adjusted |= dict(zip(family, holm([adjusted[index] for index in family]), strict=True))
    outside |= dict(zip(family, holm([outside[index] for index in family]), strict=True))
    return tuple(
        _judged(each, margin, index == primary, adjusted[index], outside[index], len(family) if index in family else 1)
        for index, each in enumerate(found)
    )


def _judged(
    found: _Evidence, margin: float, primary: bool, adjusted: float, outside: float, family: int
) -> Contrast:  # fmt: skip
    verdict, by, why = _verdict(found, adjusted, outside)
    exp = [None if each is None else math.exp(each) for each in (found.value, found.low, found.high)]
    a, b = found.a, found.b
    said = Said(
        a=a.label, b=b.label, failures_a=a.failures, failures_b=b.failures, ratio=exp[0], low=exp[1], high=exp[2],
        margin=margin, p_failures=found.p_failures, verdict=verdict, decided_by=by, why=why,
        narrow=tuple(map(math.exp, found.narrow or ())), trivial=outside <= LEVEL, family=family,
        uncorrected=found.p_pair <= LEVEL,
    )  # fmt: skip
    return Contrast(
        a=a.name, b=b.name, primary=primary, verdict=verdict, sentence=sentence(said), decided_by=by,
        seeds=(len(a.errors), len(b.errors)), finishers=(len(a.finished), len(b.finished)),
        ratio=exp[0], low=exp[1], high=exp[2], margin=margin, p=found.p, p_failures=found.p_failures,
        p_adjusted=adjusted if found.judged else None, p_ranks=found.p_ranks, p_time=found.p_time,
    )  # fmt: skip


def _verdict(found: _Evidence, adjusted: float, outside: float) -> tuple[str, str, str]:
    """(verdict, what decided it, why there is no better one)."""
    if not found.judged:
        return "no verdict", "", "seeds"
    by = _deciding(found, adjusted)
    if by == "conflict":
        return "not distinguishable", "", by
    if by:
        worse = (_more_failures(found) if by == "failures" else found.value or 0.0) > 0
        return ("worse" if worse else "better"), by, ""
    if found.p is None:
        return "not distinguishable", "", "finishers"
    if outside <= LEVEL:
        if compatible(found.a.failures, found.b.failures):
            return "equivalent", "finishers", ""
        return "not distinguishable", "", "failures"
    return "not distinguishable", "", ""


def _deciding(found: _Evidence, adjusted: float) -> str:
    """failures, finishers or both, if they tell the arms apart; conflict; or nothing."""
    if adjusted > LEVEL:
        return ""
    limit = LEVEL * found.p_pair / adjusted  # less by what Holm's correction multiplied by, so that p_pair is within it
    apart = found.low is not None and found.high is not None and (found.low > 0 or found.high < 0)
    ends = apart and found.corrected(found.p) <= limit
    fails = found.corrected(found.p_failures) <= limit
    if _more_failures(found) * (found.value or 0.0) < 0:
        against_ends = (found.p_failures or 0) <= CONTRARY or abs(_more_failures(found)) >= SHARE_MARGIN - 1e-9
        if (ends and against_ends) or (fails and (found.p or 1) <= CONTRARY):
            return "conflict"
    return {(True, True): "both", (True, False): "failures", (False, True): "finishers"}.get((fails, ends), "")


def _more_failures(found: _Evidence) -> float:
    """By how much a's share of failures is above b's."""
    (mine, runs), (theirs, others) = found.a.failures, found.b.failures
    return mine / runs - theirs / others
