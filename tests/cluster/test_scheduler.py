from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster import schedule_times as times
from cluster.folders import UserError
from cluster.launch import JobStatus, LaunchError, Unreachable
from cluster.schedule import Firing, Schedule, ScheduleError, Schedules
from cluster.schedule_work import Judged
from tests.cluster.scheduled import NIGHT, START, Clock, Place, Post, made, night, nightly, states, utc


@pytest.fixture
def schedules(tmp_path: Path) -> Schedules:
    return Schedules(f"sqlite:///{tmp_path}/schedules.db", patience_s=10)


def test_the_life_of_a_night(schedules: Schedules) -> None:
    clock, place, post = Clock(), Place(), Post()
    scheduler = made(schedules, place, clock, post)
    schedules.add(nightly(notify_when="always", ping="env:PING"), START)
    assert scheduler.tick() == 0
    clock.now = utc(2026, 5, 2, 1, 0, 5)
    assert scheduler.tick() == 1
    (firing,) = schedules.firings()
    assert (firing.state, firing.sweep, firing.folder) == ("running", "nightly-20260502T0100Z", f"/runs/{firing.sweep}")
    place.end_all()
    scheduler.tick()
    assert scheduler.tick() == 0
    (firing,) = schedules.firings()
    assert (firing.state, firing.result, firing.sentence) == ("done", "ok", "as it was")
    assert post.sent == [("nightly: ok", f"as it was\nmusweep show {firing.folder}", "ok")]
    assert post.pings == ["env:PING"]


CHANGES = [  # a zone, its two changes of 2026, and the moments at which 02:30 and 01:30 of the wall are due around them
    ("Europe/London", utc(2026, 3, 28, 12), utc(2026, 10, 24, 12)),
    ("America/New_York", utc(2026, 3, 7, 12), utc(2026, 10, 31, 12)),
    ("Australia/Lord_Howe", utc(2026, 4, 4, 3), utc(2026, 10, 3, 3)),
]


@pytest.mark.parametrize(("zone", "one", "other"), CHANGES)
@pytest.mark.parametrize("cron", ["30 1 * * *", "15 2 * * *"])
def test_at_both_changes_of_the_clock_a_night_fires_once(
    schedules: Schedules, zone: str, one: float, other: float, cron: str
) -> None:
    for begin in (one, other):
        clock, place = Clock(begin), Place()
        name = f"n{begin:.0f}"  # both moments, put off or not, are at a quarter of an hour
        schedules.add(nightly(name, cron=cron, zone=zone), begin)
        scheduler = made(schedules, place, clock)
        while clock.now < begin + NIGHT:
            clock.now += 900.0
            scheduler.tick()
            place.end_all()
        assert len(place.starts) == 1
        assert list(place.starts.values()) == [1]
        (firing,) = schedules.firings(name)
        assert (firing.at, firing.state) == (next(times.due(cron, zone, begin)), "done")
        schedules.remove(name)


@pytest.mark.parametrize(("catch_up", "expected"), [("all", 3), ("latest", 1), ("none", 0)])
def test_after_three_missed_nights(schedules: Schedules, catch_up: str, expected: int) -> None:
    clock, place, post = Clock(), Place(), Post()
    schedules.add(nightly(catch_up=catch_up), START)
    scheduler = made(schedules, place, clock, post)
    clock.now += 3 * NIGHT + 3600
    for _ in range(8):  # those that are made up for come one after the other
        scheduler.tick()
        assert sum(each.state == "running" for each in place.states.values()) <= 1
        place.end_all()
    assert len(place.starts) == expected
    assert states(schedules) == ["missed"] * (3 - expected) + ["done"] * expected
    if catch_up == "all":
        assert post.sent == []
    else:
        ((title, body, result),) = post.sent  # one message for all of them
        assert (title, result) == ("nightly: missed", "missed")
        assert ("2 nights, from" if catch_up == "latest" else "3 nights, from") in body


def test_overlaps(schedules: Schedules) -> None:
    clock, place = Clock(), Place()
    for overlap in ("skip", "queue", "replace"):
        schedules.add(nightly(overlap, overlap=overlap), START)
    scheduler = made(schedules, place, clock)
    clock.now += NIGHT
    scheduler.tick()
    clock.now += NIGHT
    for _ in range(3):
        scheduler.tick()
    found = {name: [each.state for each in schedules.firings(name)][::-1] for name in ("skip", "queue", "replace")}
    assert found == {"skip": ["running", "skipped"], "queue": ["running", "due"], "replace": ["done", "running"]}
    assert place.stopped == ["replace-20260502T0100Z"]
    first = schedules.firings("replace")[1]
    assert (first.result, first.sentence) == (
        "broken",
        f"{first.sweep}: stopped to make room for replace-20260503T0100Z",
    )
    place.end_all()
    for _ in range(3):
        scheduler.tick()
    assert [each.state for each in schedules.firings("queue")] == ["running", "done"]


def test_a_deadline_stops_a_night_that_is_not_over(schedules: Schedules) -> None:
    clock, place, post = Clock(), Place(), Post()
    schedules.add(nightly(deadline_s=7 * 3600.0), START)
    scheduler = made(schedules, place, clock, post)
    clock.now = utc(2026, 5, 2, 1)
    scheduler.tick()
    clock.now += 7 * 3600
    scheduler.tick()
    assert states(schedules) == ["running"]
    clock.now += 1
    scheduler.tick()
    scheduler.tick()
    (firing,) = schedules.firings()
    assert place.stopped == [firing.sweep]
    assert (firing.result, post.titles) == ("broken", ["nightly: broken"])
    assert "stopped 7 h after its time, its deadline" in firing.sentence


def test_a_place_out_of_reach_is_waited_for_and_then_told_of(schedules: Schedules) -> None:
    clock, place, post = Clock(), Place(), Post()
    schedules.add(nightly(deadline_s=4 * 3600.0), START)
    scheduler = made(schedules, place, clock, post)
    clock.now = utc(2026, 5, 2, 1)
    place.trouble = Unreachable("https://me:hunter2secret@head:8265 does not answer")
    scheduler.tick()
    assert (states(schedules), post.sent) == (["due"], [])
    clock.now += 1801
    for _ in range(3):
        scheduler.tick()
    assert post.titles == ["nightly: late"]
    assert "hunter2secret" not in post.sent[0][1] + schedules.firings()[0].why
    place.trouble = None
    scheduler.tick()
    assert (states(schedules), schedules.firings()[0].tries) == (["running"], 1)
    place.trouble = Unreachable("away again")
    scheduler.tick()
    assert states(schedules) == ["running"]  # out of reach is no end


def test_what_cannot_be_started_is_a_broken_night(schedules: Schedules) -> None:
    clock, place, post = Clock(), Place(), Post()
    schedules.add(nightly(), START)
    scheduler = made(schedules, place, clock, post)
    place.trouble = LaunchError("target local does not allow my.module:train")
    clock.now += NIGHT
    for _ in range(2):
        scheduler.tick()
    (firing,) = schedules.firings()
    assert (firing.state, firing.result) == ("done", "broken")
    assert firing.sentence.endswith("could not be started: target local does not allow my.module:train")
    assert post.titles == ["nightly: broken"]


@pytest.mark.parametrize(
    ("known", "starts"),
    [
        (JobStatus("", "failed", "its driver was killed"), 3),
        (JobStatus("", "unknown", "the head was restarted"), 3),
        (JobStatus("", "failed", "exit code 2: spec.yaml: lr: must be positive"), 1),
        (JobStatus("", "stopped", ""), 1),
    ],
)
def test_a_driver_that_dies_is_started_again_unless_a_user_must_act(
    schedules: Schedules, known: JobStatus, starts: int
) -> None:
    clock, place = Clock(), Place()
    schedules.add(nightly(), START)
    scheduler = made(schedules, place, clock)
    clock.now += NIGHT
    for _ in range(10):
        scheduler.tick()
        for id_, there in place.states.items():
            if there.state == "running":
                place.states[id_] = known
    (firing,) = schedules.firings()
    assert (firing.result, list(place.starts.values())) == ("broken", [starts])


def test_one_message_for_each_event_and_one_when_it_is_over(schedules: Schedules) -> None:
    clock, place, post = Clock(), Place(), Post()
    scheduler = made(schedules, place, clock, post)
    schedules.add(nightly(), START)
    worse = Judged("worse", "1.2 times the error", "worse-1", "")
    for result in (
        None,
        worse,
        worse,
        None,
        None,
        Judged("broken", "no trials"),
        Judged("broken", "none"),
        None,
        worse,
    ):
        night(scheduler, place, clock, result)
    assert post.titles == [
        "nightly: worse", "nightly: ok again", "nightly: broken", "nightly: ok again"
    ]  # fmt: skip
    another = Judged("worse", "1.3 times the error", "worse-9", "")
    night(scheduler, place, clock, another)
    assert post.titles[4:] == ["nightly: worse"]


def test_a_channel_that_is_away_gets_its_message_later(schedules: Schedules) -> None:
    clock, place, post = Clock(), Place(), Post()
    scheduler = made(schedules, place, clock, post)
    schedules.add(nightly(notify_when="always"), START)
    post.away = True
    night(scheduler, place, clock)
    (message,) = schedules.messages()
    assert (message.state, message.tries, message.why) == ("queued", 1, "notify env:CHAT: no answer")
    post.away = False
    scheduler.tick()
    assert post.sent == []  # not before its pause is over
    clock.now += 61
    scheduler.tick()
    assert len(post.sent) == 1
    post.away = True
    night(scheduler, place, clock)
    for _ in range(20):
        clock.now += 3600
        scheduler.tick()
    assert [each.state for each in schedules.messages()] == ["failed", "sent"]


def test_a_night_that_cannot_be_judged_is_broken(schedules: Schedules) -> None:
    class Odd(Place):
        def judge(self, schedule: Schedule, firing: Firing, past: Sequence[Firing]) -> Judged:
            raise RuntimeError("rows of another shape")

    clock, place = Clock(), Odd()
    scheduler = made(schedules, place, clock)
    schedules.add(nightly(), START)
    firing = night(scheduler, place, clock)
    assert (firing.result, firing.sentence) == ("broken", f"{firing.sweep} cannot be judged: rows of another shape")


def test_run_now_pause_resume_and_removal(schedules: Schedules) -> None:
    clock, place = Clock(), Place()
    scheduler = made(schedules, place, clock)
    schedules.add(nightly(), START)
    schedules.pause("nightly")
    clock.now += 2 * NIGHT
    scheduler.tick()
    assert states(schedules) == []
    by_hand = schedules.run_now("nightly", clock.now)  # also while it is paused
    with pytest.raises(ScheduleError, match="is due and overlap is skip"):
        schedules.run_now("nightly", clock.now + 5)
    scheduler.tick()
    with pytest.raises(ScheduleError, match="is running: wait for it"):
        schedules.remove("nightly")
    place.end_all()
    for _ in range(2):
        scheduler.tick()
    assert [(each.sweep, each.state) for each in schedules.firings()] == [(by_hand.sweep, "done")]
    schedules.resume("nightly", clock.now)
    clock.now += NIGHT
    scheduler.tick()
    assert len(schedules.firings()) == 2  # what passed while it was paused is not made up for
    place.end_all()
    for _ in range(2):
        scheduler.tick()
    schedules.remove("nightly")
    assert (schedules.all(), schedules.firings(), schedules.messages()) == ([], [], [])
    with pytest.raises(ScheduleError, match="no schedule 'nightly'"):
        schedules.get("nightly")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "no/slash"}, "not a name; legal: letters"),
        ({"overlap": "skp"}, "legal: skip, queue, replace; did you mean skip"),
        ({"catch_up": "some"}, "legal: latest, all, none"),
        ({"notify": ("slack://A/B/C",)}, "legal: env:NAME or file:PATH"),
        ({"cron": "0 25 * * *"}, "hour is not legal"),
    ],
)
def test_a_schedule_that_is_none_is_refused_in_one_line(
    schedules: Schedules, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        schedules.add(nightly(**values), START)
    assert "A/B/C" not in str(error.value)
    assert schedules.all() == []
