"""When trials are measured and compared: reports, the momentum schedule's milestones, rungs, their cost."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from fractions import Fraction

from trainers.config import MethodConfig
from trainers.optim import momentum


def report_updates(updates: int, reports: int) -> list[int]:
    """The updates at which a trial is measured, the last of them its end."""
    step = math.ceil(updates / reports)
    return [*range(step, updates, step), updates]


def mu_reached_at(mu_max: float, mu_step: int) -> int:
    """The first update at which the schedule of S13 eq. 5 stands at mu_max.

    mu_t = 1 - 0.5 / (floor(t / mu_step) + 1) reaches mu_max where floor(t / mu_step) >= 0.5 / (1 - mu_max) - 1.
    Decimals are taken as written (0.9 as 9/10): in floats 0.5 / (1 - 0.99) exceeds 50, a whole step too late.
    """
    steps = math.ceil(Fraction(1, 2) / (1 - Fraction(repr(float(mu_max))))) - 1
    return max(0, steps) * mu_step


def mu_apart_at(schedule: str, mu_max: float, mu_step: int, mu_first_updates: int) -> int:
    """The first update at which a momentum schedule stands at mu_max, so that a larger one would differ from it."""
    if schedule == "ramp":
        return mu_reached_at(mu_max, mu_step)
    if schedule == "first":
        return mu_first_updates
    if schedule == "constant":
        return 0
    method = MethodConfig("nag", lr=1.0, mu_max=mu_max, mu_schedule="nesterov")
    # mu_t is about 1 - 3 / (t + 5) (SCIENCE 1.1), never above 1 - 1 / (t + 2)
    after = range(math.ceil(4 / (1 - mu_max)) + 8)
    return bisect.bisect_left(after, mu_max, key=lambda t: momentum(t, method, len(after) + 1))


def mu_after(updates: int, mu_step: int) -> float:
    """The largest momentum that the schedule of S13 eq. 5 uses in so many updates."""
    return 1 - 0.5 / ((max(updates, 1) - 1) // mu_step + 1)


def snap(update: int | Fraction, reports: Sequence[int]) -> int:
    """The first report at or after an update (the last one if there is none)."""
    return next((report for report in reports if report >= update), reports[-1])


def auto_rungs(reports: Sequence[int], factor: int, after: int) -> list[int]:
    """Reports nearest above updates / factor^k and past the update `after`; one rung if any report allows it."""
    updates = reports[-1]
    found: set[int] = set()
    power = factor
    while power <= updates:
        found.add(snap(Fraction(updates, power), reports))
        power *= factor
    rungs = sorted(rung for rung in found if after < rung < updates)
    return rungs or [report for report in reports if after < report < updates][:1]


def arrivals(trials: int, rungs: Sequence[int], updates: int, factor: int) -> list[tuple[int, int]]:
    """(update, trials expected to get there) for each rung and the end, if one in `factor` passes each rung."""
    counts = [math.ceil(trials / factor**k) for k in range(len(rungs) + 1)]
    return list(zip([*rungs, updates], counts, strict=True))
