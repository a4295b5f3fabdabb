"""Reports, the momentum schedule's milestones and rungs, against SCIENCE 1.3 and by brute force."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import rungs
from trainers.config import MethodConfig
from trainers.optim import momentum


@pytest.mark.parametrize(
    ("mu_max", "update"), [(0.0, 0), (0.5, 0), (0.75, 250), (0.9, 1000), (0.99, 12250), (0.995, 24750), (0.999, 124750)]
)
def test_when_momentum_is_reached(mu_max: float, update: int) -> None:
    assert rungs.mu_reached_at(mu_max, 250) == update  # SCIENCE 1.3


@settings(deadline=None)
@given(st.integers(0, 9999), st.integers(1, 300))
def test_when_momentum_is_reached_by_walking_the_schedule(mu: int, step: int) -> None:
    # 1 - 1/(2(n+1)) >= mu/10000 in whole numbers, n the step that the schedule stands on
    n = 0
    while 10_000 * (2 * n + 1) < mu * 2 * (n + 1):
        n += 1
    assert rungs.mu_reached_at(mu / 10_000, step) == n * step


@pytest.mark.parametrize("mu_max", [0.0, 0.3, 0.9, 0.995])
def test_when_other_schedules_reach_their_momentum(mu_max: float) -> None:
    assert rungs.mu_apart_at("ramp", mu_max, 250, 7) == rungs.mu_reached_at(mu_max, 250)
    assert rungs.mu_apart_at("first", mu_max, 250, 7) == 7
    assert rungs.mu_apart_at("constant", mu_max, 250, 7) == 0
    method = MethodConfig("nag", 1.0, mu_max=0.9999, mu_schedule="nesterov")
    walked = next(t for t in range(10_000) if momentum(t, method, 10_000) >= mu_max)
    assert rungs.mu_apart_at("nesterov", mu_max, 250, 7) == walked


@pytest.mark.parametrize(
    ("updates", "step", "mu"),
    [(1, 250, 0.5), (250, 250, 0.5), (251, 250, 0.75), (501, 250, 1 - 0.5 / 3), (2501, 250, 1 - 0.5 / 11),
     (3000, 25, 1 - 0.5 / 120)],
)  # fmt: skip
def test_how_far_momentum_gets(updates: int, step: int, mu: float) -> None:
    assert rungs.mu_after(updates, step) == pytest.approx(mu, abs=1e-12)  # SCIENCE 1.3 and 4.3


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 100))
def test_reports_are_evenly_spread_and_end_at_the_end(updates: int, reports: int) -> None:
    found = rungs.report_updates(updates, reports)
    step = -(-updates // reports)
    assert found[-1] == updates
    assert len(found) <= reports
    assert found[:-1] == [step * (i + 1) for i in range(len(found) - 1)]
    assert 0 < found[-1] - (found[-2] if len(found) > 1 else 0) <= step


def test_automatic_rungs() -> None:
    reports = rungs.report_updates(2000, 20)
    assert rungs.auto_rungs(reports, 3, after=0) == [100, 300, 700]  # 2000/27, 2000/9, 2000/3
    assert rungs.auto_rungs(reports, 3, after=100) == [300, 700]
    assert rungs.auto_rungs(reports, 2, after=0) == [100, 200, 300, 500, 1000]
    assert rungs.auto_rungs(reports, 3, after=1000) == [1100]  # none of them is late enough: the first that can be
    assert rungs.auto_rungs(reports, 3, after=1900) == []
    assert rungs.auto_rungs([50], 3, after=0) == []


def test_thousandths_do_not_drift() -> None:
    # 9 reports of 2000 updates, halving by 3 from the first: ceil(2000/9) = 223
    reports = rungs.report_updates(2000, 9)
    assert reports == [223, 446, 669, 892, 1115, 1338, 1561, 1784, 2000]
    assert rungs.auto_rungs(reports, 3, after=0) == [223, 669]


def test_arrivals() -> None:
    assert rungs.arrivals(64, [100, 300, 700], 2000, 3) == [(100, 64), (300, 22), (700, 8), (2000, 3)]
    assert rungs.arrivals(64, [], 2000, 1) == [(2000, 64)]
