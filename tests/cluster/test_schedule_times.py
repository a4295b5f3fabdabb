from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import schedule_times as times
from cluster.folders import UserError

ZONES = [
    "Europe/London",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "America/Santiago",
    "Asia/Kolkata",
    "UTC",
]
YEAR = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


def walls(zone: str, moments: list[float]) -> list[str]:
    return [datetime.fromtimestamp(each, ZoneInfo(zone)).strftime("%m-%d %H:%M %z") for each in moments]


# The skipped and the repeated hour of three zones: two that change by an hour, one by half an hour.
CHANGES = [
    ("Europe/London", "30 1 * * *", utc(2026, 3, 28), ["03-28 01:30 +0000", "03-29 02:00 +0100", "03-30 01:30 +0100"]),
    (
        "Europe/London",
        "30 1 * * *",
        utc(2026, 10, 24),
        ["10-24 01:30 +0100", "10-25 01:30 +0100", "10-26 01:30 +0000"],
    ),
    (
        "America/New_York",
        "15 2 * * *",
        utc(2026, 3, 7, 6),
        ["03-07 02:15 -0500", "03-08 03:00 -0400", "03-09 02:15 -0400"],
    ),
    (
        "America/New_York",
        "15 1 * * *",
        utc(2026, 10, 31),
        ["10-31 01:15 -0400", "11-01 01:15 -0400", "11-02 01:15 -0500"],
    ),
    (
        "Australia/Lord_Howe",
        "10 2 * * *",
        utc(2026, 10, 2, 12),
        ["10-03 02:10 +1030", "10-04 02:30 +1100", "10-05 02:10 +1100"],
    ),
    (
        "Australia/Lord_Howe",
        "45 1 * * *",
        utc(2026, 4, 3, 12),
        ["04-04 01:45 +1100", "04-05 01:45 +1100", "04-06 01:45 +1030"],
    ),
]


@pytest.mark.parametrize(("zone", "cron", "after", "expected"), CHANGES)
def test_a_named_time_is_due_once_a_day_where_clocks_change(
    zone: str, cron: str, after: float, expected: list[str]
) -> None:
    assert walls(zone, list(islice(times.due(cron, zone, after), 3))) == expected


def test_a_star_goes_by_the_wall_where_clocks_change() -> None:
    spring = list(times.between("*/30 * * * *", "Europe/London", utc(2026, 3, 29), utc(2026, 3, 29, 2)))
    assert walls("Europe/London", spring) == [
        "03-29 00:30 +0000", "03-29 02:00 +0100", "03-29 02:30 +0100", "03-29 03:00 +0100"
    ]  # fmt: skip
    autumn = list(times.between("*/30 1 * * *", "Europe/London", utc(2026, 10, 24, 23), utc(2026, 10, 25, 3)))
    assert walls("Europe/London", autumn) == [
        "10-25 01:00 +0100", "10-25 01:30 +0100", "10-25 01:00 +0000", "10-25 01:30 +0000"
    ]  # fmt: skip


def test_two_times_of_a_skipped_hour_are_due_once() -> None:
    found = list(times.between("0,30 1,2 * * *", "Europe/London", utc(2026, 3, 29), utc(2026, 3, 29, 12)))
    assert walls("Europe/London", found) == ["03-29 02:00 +0100", "03-29 02:30 +0100"]


def test_a_day_that_a_zone_left_out_is_made_up_for_on_the_next() -> None:
    found = list(islice(times.due("0 1 * * *", "Pacific/Apia", utc(2011, 12, 29, 10)), 3))
    assert walls("Pacific/Apia", found) == ["12-29 01:00 -1000", "12-31 00:00 +1400", "12-31 01:00 +1400"]


def by_hand(cron: str, zone: str, after: float, until: float) -> list[float]:
    """The slow obvious twin: every minute of the wall is looked at."""
    minute, hour, day, month, weekday = cron.split()
    clock, found = ZoneInfo(zone), []

    def fits(field: str, value: int, first: int = 0) -> bool:
        if field == "*":
            return True
        if field.startswith("*/"):
            return (value - first) % int(field[2:]) == 0
        return str(value) in field.split(",")

    def is_due(wall: datetime) -> bool:
        days = fits(day, wall.day, 1) and fits(weekday, (wall.weekday() + 1) % 7) and fits(month, wall.month, 1)
        return days and fits(hour, wall.hour) and fits(minute, wall.minute)

    if minute.startswith("*") or hour.startswith("*"):
        moment = (after // 60 + 1) * 60
        while moment <= until:
            if is_due(datetime.fromtimestamp(moment, clock)):
                found.append(moment)
            moment += 60
        return found
    wall = datetime.fromtimestamp(after, clock).replace(tzinfo=None, second=0, microsecond=0) - timedelta(days=2)
    end = datetime.fromtimestamp(until, clock).replace(tzinfo=None) + timedelta(days=1)
    while wall <= end:
        if is_due(wall):
            real = wall.replace(tzinfo=clock)
            while datetime.fromtimestamp(real.timestamp(), clock).replace(tzinfo=None) != real.replace(tzinfo=None):
                real = (real.replace(tzinfo=None) + timedelta(minutes=1)).replace(tzinfo=clock)
            found.append(real.timestamp())
        wall += timedelta(minutes=1)
    return sorted({each for each in found if after < each <= until})


CRONS = st.builds(
    " ".join,
    st.tuples(
        st.sampled_from(["0", "30", "15,45", "*/20", "*", "59"]),
        st.sampled_from(["0", "1", "2", "1,2,3", "*", "*/6", "23"]),
        st.sampled_from(["*", "1,15,29", "*/2"]),
        st.sampled_from(["*", "3,10", "4,11"]),
        st.sampled_from(["*", "0", "1,5"]),
    ),
)
CHANGING = [utc(2026, 3, 8), utc(2026, 3, 29), utc(2026, 4, 5), utc(2026, 9, 6), utc(2026, 10, 4), utc(2026, 10, 25)]
MOMENTS = st.one_of(
    st.integers(0, 365 * 86400).map(lambda each: YEAR + each),
    st.builds(lambda day, off: day + off, st.sampled_from(CHANGING), st.integers(-86400, 86400)),
)


@settings(max_examples=150, deadline=None)
@given(CRONS, st.sampled_from(ZONES), MOMENTS, st.integers(0, 3 * 86400))
def test_the_twin_that_looks_at_every_minute_agrees(cron: str, zone: str, after: float, span: int) -> None:
    if cron.split()[2] != "*" and cron.split()[4] != "*" and not cron.split()[2].startswith("*"):
        return  # cron's "or" of two kinds of days is not in the twin
    assert list(times.between(cron, zone, after, after + span)) == by_hand(cron, zone, after, after + span)


@settings(max_examples=150, deadline=None)
@given(CRONS, st.sampled_from(ZONES), MOMENTS, st.integers(0, 3 * 86400), st.floats(0, 1))
def test_a_span_cut_in_two_has_the_same_moments(cron: str, zone: str, after: float, span: int, cut: float) -> None:
    until = after + span
    middle = after + int(cut * span)
    whole = list(times.between(cron, zone, after, until))
    parts = [*times.between(cron, zone, after, middle), *times.between(cron, zone, middle, until)]
    assert whole == parts
    assert whole == sorted(set(whole))


@given(st.text(), st.floats(0, 4e9), st.floats(0, 1e5))
def test_a_delay_stays_within_its_jitter_and_is_the_same_for_all(name: str, moment: float, jitter: float) -> None:
    assert 0 <= times.delay(name, moment, jitter) <= jitter
    assert times.delay(name, moment, jitter) == times.delay(name, moment, jitter)


def test_delays_are_spread_over_the_jitter() -> None:
    drawn = sorted(times.delay("nightly", 86400.0 * day, 1.0) for day in range(1000))
    assert max(abs(each - (n + 0.5) / 1000) for n, each in enumerate(drawn)) < 0.06  # Kolmogorov at 0.001


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [
        ("0 1 * *", "UTC", "4 fields; legal: minute, hour, day, month, day of the week"),
        ("0 0 1 * * *", "UTC", "6 fields"),
        ("61 1 * * *", "UTC", "minute is not legal"),
        ("0 1 * FOO *", "UTC", "month is not legal"),
        ("0 1 31 2 *", "UTC", "day-of-month is not legal"),
        ("0 1 * * *", "Europe/Londn", r"no such zone; legal: .* as Europe/London"),
    ],
)
def test_what_is_no_time_is_one_line(cron: str, zone: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        times.check(cron, zone)


def test_times_are_told_by_the_zones_clock() -> None:
    assert times.shown(utc(2026, 7, 1, 0, 30), "Europe/London") == "Wed 2026-07-01 01:30 BST"
    assert times.words("30 2 * * *") == "At 02:30 every day"
