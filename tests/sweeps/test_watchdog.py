"""Silent and stuck workers are found, and busy, waiting and late ones are left alone; by a clock of the test's own."""

from collections.abc import Callable

import pytest

from sweeps.round import Place
from sweeps.watchdog import LATE, Suspect, Watchdog

PLACE = Place("host-a", "node", 4711, 1.0)


class Clock:
    """A watchdog that looks every second, and what workers do at each."""

    def __init__(self, patience_s: float = 300.0) -> None:
        self.now = 1000.0
        self.dog = Watchdog(lambda: self.now, patience_s)
        self.found: list[Suspect] = []

    def run(self, seconds: int, each: Callable[[int], None] = lambda second: None) -> list[Suspect]:
        """The suspects of so many seconds; those of before are forgotten."""
        self.found = []
        for second in range(seconds):
            self.now += 1.0
            each(second)
            self.found += self.dog.look()
        return self.found


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.dog.entered(0, PLACE)
    clock.dog.answered(0)
    return clock


def test_a_worker_without_beats_is_found_and_then_watched_no_longer(clock: Clock) -> None:
    clock.dog.entered(1, PLACE)
    (found,) = clock.run(60, lambda second: clock.dog.beat(1, float(second)))
    assert (found.group, found.cause, found.since, found.place) == (0, "infrastructure", 1000.0, PLACE)
    assert found.words == "no sign of life for 21 s (process 4711 on host-a)"


def test_one_that_beats_and_neither_reports_nor_computes_is_stuck(clock: Clock) -> None:
    (found,) = clock.run(400, lambda second: clock.dog.beat(0, 5.0))
    assert (found.group, found.cause) == (0, "hung")
    assert found.words.startswith("no report for 302 s and no computing for 301 s")


def test_one_that_computes_for_hours_is_not(clock: Clock) -> None:
    assert clock.run(7200, lambda second: clock.dog.beat(0, 0.06 * second)) == []


def test_beating_itself_is_no_computing(clock: Clock) -> None:
    (found,) = clock.run(400, lambda second: clock.dog.beat(0, 0.003 * second))
    assert found.cause == "hung"


def test_one_that_computes_for_ever_is_found_by_its_own_pace(clock: Clock) -> None:
    """Reports took 30 s so far; one may take 600 s."""
    assert clock.run(30, lambda second: clock.dog.beat(0, float(second))) == []
    clock.dog.reported(0)
    clock.dog.answered(0)
    (found,) = clock.run(700, lambda second: clock.dog.beat(0, 30.0 + second))
    assert found.cause == "hung"
    assert found.words.startswith(f"no report for {30 * LATE + 1:.0f} s; the longest took 30.0 s")


def test_one_that_waits_for_others_is_not_stuck_and_is_again_when_it_was_answered(clock: Clock) -> None:
    clock.dog.reported(0)
    assert clock.run(5000, lambda second: clock.dog.beat(0, 1.0)) == []
    clock.dog.answered(0)
    assert [one.cause for one in clock.run(400, lambda second: clock.dog.beat(0, 1.0))] == ["hung"]


def test_a_worker_that_starts_may_hang_as_well() -> None:
    clock = Clock(patience_s=10.0)
    clock.dog.entered(3, PLACE)
    assert [one.group for one in clock.run(20, lambda second: clock.dog.beat(3, 1.0))] == [3]


def test_when_the_watchdog_was_held_up_nobody_is_blamed(clock: Clock) -> None:
    """As by a full disk: the board waits for room, beats wait for the board."""
    clock.run(5, lambda second: clock.dog.beat(0, float(second)))
    clock.now += 600.0
    assert clock.dog.look() == []
    assert clock.run(15, lambda second: clock.dog.beat(0, float(second))) == []
    assert [one.cause for one in clock.run(40)] == ["infrastructure"]


def test_those_that_are_gone_are_not_watched(clock: Clock) -> None:
    clock.dog.gone(0)
    for call in (clock.dog.reported, clock.dog.answered, clock.dog.gone):
        call(0)
    clock.dog.beat(0, 1.0)
    assert clock.run(1000) == []
