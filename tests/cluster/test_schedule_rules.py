from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import schedule_rules as rules
from cluster import schedule_times as times
from cluster.schedule_rules import Firing, Schedule, firing, step, tick

NIGHT = 86400.0


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


def schedule(**values: object) -> Schedule:
    given = {"cron": "0 1 * * *", "zone": "UTC", "cursor": utc(2026, 5, 1, 12)} | values
    return Schedule(name="nightly", spec="digits", target="local", folder="/", **given)  # type: ignore[arg-type]


def told(found: list[Firing]) -> list[tuple[str, str, bool]]:
    return [(datetime.fromtimestamp(each.at, UTC).strftime("%d %H:%M"), each.state, each.late) for each in found]


def test_an_ordinary_minute_is_due_from_its_second_on_and_once() -> None:
    made = schedule(cron="30 14 * * *")
    assert tick(made, utc(2026, 5, 1, 14, 30) - 0.001) == []
    found = tick(made, utc(2026, 5, 1, 14, 30))
    assert told(found) == [("01 14:30", "due", False)]
    assert found[0].sweep == "nightly-20260501T1430Z"
    assert tick(replace(made, cursor=utc(2026, 5, 1, 14, 30)), utc(2026, 5, 1, 14, 31)) == []


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("all", ["due", "due", "due"]),
        ("latest", ["missed", "missed", "due"]),
        ("none", ["missed", "missed", "missed"]),
    ],
)
def test_three_missed_nights_under_each_policy(catch_up: str, expected: list[str]) -> None:
    found = tick(schedule(catch_up=catch_up), utc(2026, 5, 4, 9))
    assert [(each[0], each[1]) for each in told(found)] == list(
        zip(["02 01:00", "03 01:00", "04 01:00"], expected, strict=True)
    )
    assert [each.late for each in found] == [state == "due" for state in expected]
    assert all("catch_up is" in each.why for each in found if each.state == "missed")


@pytest.mark.parametrize(("catch_up", "late"), [("all", "due"), ("latest", "missed"), ("none", "missed")])
def test_a_night_that_is_on_time_is_due_under_each_policy(catch_up: str, late: str) -> None:
    found = tick(schedule(catch_up=catch_up), utc(2026, 5, 4, 1, 2))
    assert told(found) == [
        ("02 01:00", late, late == "due"), ("03 01:00", late, late == "due"), ("04 01:00", "due", False)
    ]  # fmt: skip


def test_a_paused_schedule_is_not_due() -> None:
    assert tick(schedule(paused=True), utc(2026, 5, 4)) == []


def test_of_a_long_downtime_only_the_last_firings_are_noted() -> None:
    found = tick(schedule(cron="* * * * *", catch_up="all"), utc(2026, 5, 3))
    assert len(found) == rules.MOST_AT_ONCE
    assert found[-1].at == utc(2026, 5, 3)


CLOCKS = st.lists(
    st.one_of(st.floats(0, 600), st.floats(-4000, 4000), st.floats(0, 4 * NIGHT)), min_size=1, max_size=25
)


@settings(max_examples=200, deadline=None)
@given(
    CLOCKS,
    st.sampled_from(["0 1 * * *", "30 2 * * 1,4", "15 */7 * * *"]),
    st.sampled_from(["Europe/London", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    st.sampled_from(rules.CATCH_UPS),
    st.sampled_from([utc(2026, 3, 28), utc(2026, 10, 24), utc(2026, 10, 31)]),
)
def test_by_any_clock_each_moment_is_noted_once(
    clock: list[float], cron: str, zone: str, catch_up: str, start: float
) -> None:
    made = schedule(cron=cron, zone=zone, catch_up=catch_up, cursor=start)
    now, noted = start, []
    for jump in clock:  # also backwards
        now += jump
        found = tick(made, now)
        assert sum(each.late for each in found) <= {"all": 1000, "latest": 1, "none": 0}[catch_up]
        assert all(each.late == (now - each.at > rules.LATE_S) for each in found if each.state == "due")
        assert all(each.state == "due" for each in found if now - each.at <= rules.LATE_S or catch_up == "all")
        noted += [each.at for each in found]
        made = replace(made, cursor=max(made.cursor, now))
    assert noted == list(times.between(cron, zone, start, made.cursor))


def test_jitter_puts_off_the_beginning_and_not_the_key() -> None:
    made = schedule(jitter_s=3600.0)
    one, other = tick(made, utc(2026, 5, 3, 2))
    assert one.begins != one.at
    assert all(each.at <= each.begins <= each.at + 3600 for each in (one, other))
    assert one.begins - one.at != other.begins - other.at
    assert firing(made, one.at) == firing(made, one.at)
    assert firing(made, one.at, manual=True).begins == one.at


NOW = utc(2026, 5, 3, 2)


def at(days: int, **values: object) -> Firing:
    return replace(firing(schedule(), utc(2026, 5, 3 + days, 1)), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overlap", "others", "expected"),
    [
        ("skip", [], "begin"),
        ("skip", [at(-1, state="done")], "begin"),
        ("skip", [at(-1, state="running")], "skip"),
        ("skip", [at(-1, state="ended")], "skip"),
        ("skip", [at(-1, state="due")], "wait"),
        ("skip", [at(1, state="due")], "begin"),
        ("queue", [at(-1, state="running")], "wait"),
        ("queue", [at(-1, state="done"), at(-2, state="missed")], "begin"),
        ("replace", [at(-1, state="running")], "replace"),
        ("replace", [at(-1, state="skipped")], "begin"),
    ],
)
def test_what_is_done_about_a_firing_by_the_others(overlap: str, others: list[Firing], expected: str) -> None:
    assert step(schedule(overlap=overlap), at(0), others, NOW).do == expected


def test_what_was_missed_waits_for_what_is_active_whatever_the_overlap() -> None:
    for overlap in rules.OVERLAPS:
        assert step(schedule(overlap=overlap), at(0, late=True), [at(-1, state="running")], NOW).do == "wait"


def test_nothing_begins_before_its_time_or_after_its_deadline() -> None:
    assert step(schedule(), at(0, begins=NOW + 1), [], NOW).do == "wait"
    assert step(schedule(deadline_s=7200), at(0), [], utc(2026, 5, 3, 3)).do == "begin"
    missed = step(schedule(deadline_s=7200), at(0, why="no answer"), [], utc(2026, 5, 3, 3) + 1)
    assert missed == rules.Step("miss", "its deadline passed before it could begin: no answer")


def test_a_night_that_could_not_begin_gives_way_to_the_next_one() -> None:
    next_day = utc(2026, 5, 4, 2)
    assert step(schedule(), at(0, why="no answer"), [at(1)], next_day).do == "miss"
    assert step(schedule(overlap="queue"), at(0, why="no answer"), [at(1)], next_day).do == "begin"
    assert step(schedule(), at(1), [at(0, why="no answer")], next_day).do == "wait"


@given(
    st.sampled_from(rules.OVERLAPS),
    st.lists(st.tuples(st.integers(-2, 3), st.sampled_from(rules.STATES), st.booleans()), max_size=5),
    st.booleans(),
)
def test_nothing_begins_beside_another(overlap: str, drawn: list[tuple[int, str, bool]], late: bool) -> None:
    others = [at(day, state=state, late=other) for day, state, other in drawn if day != 0]
    done = step(schedule(overlap=overlap), at(0, late=late), others, NOW).do
    if any(each.state in rules.ACTIVE for each in others):
        assert done != "begin"
    elif not any(each.state == "due" for each in others):
        assert done == "begin"
