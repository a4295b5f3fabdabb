"""Schedulers that race, and that are killed at any moment."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cluster import schedule_times as times
from cluster.launch import JobStatus
from cluster.schedule import CLAIM_S, Firing, Schedule, Schedules
from cluster.scheduler import Scheduler, serve
from tests.cluster.scheduled import NIGHT, START, Clock, Killed, Place, Post, made, night, nightly, states

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["cluster.scheduler", "cluster.queue_lease", "sqlalchemy.dialects.sqlite"])


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    return f"sqlite:///{tmp_path}/schedules.db" if request.param == "sqlite" else request.getfixturevalue("database")


@pytest.fixture
def schedules(tmp_path: Path) -> Schedules:
    return Schedules(f"sqlite:///{tmp_path}/schedules.db", patience_s=10)


def test_two_schedulers_race_two_hundred_times(url: str) -> None:
    place, clock = Place(), Clock()
    mine = [Schedules(url, patience_s=30) for _ in range(2)]
    mine[0].add(nightly(notify_when="always"), START)
    posts = Post()
    racing = [made(each, place, clock, posts) for each in mine]
    gate = threading.Barrier(2)
    rounds = 200 if url.startswith("sqlite") else 40

    def race(scheduler: Scheduler) -> None:
        for n in range(rounds):
            gate.wait()
            if scheduler is racing[0]:
                clock.now = START + (n + 1) * NIGHT
            gate.wait()
            scheduler.tick()
            gate.wait()
            if scheduler is racing[0]:
                place.end_all()
            gate.wait()
            for _ in range(2):
                scheduler.tick()

    threads = [threading.Thread(target=race, args=(each,)) for each in racing]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    racing[0].tick()
    assert len(place.submits) == rounds
    assert set(place.submits.values()) == {1}  # not even submitted twice
    assert set(place.starts.values()) == {1}
    assert Counter(each.state for each in mine[0].firings(limit=1000)) == {"done": rounds}
    assert len(posts.sent) == rounds


@pytest.mark.parametrize("where", ["before", "after", "judging"])
def test_a_scheduler_that_is_killed_between_two_steps_leaves_one_sweep(schedules: Schedules, where: str) -> None:
    clock, place, post = Clock(), Place(), Post()
    schedules.add(nightly(notify_when="always"), START)
    clock.now += NIGHT
    place.kill = where
    killed = False
    while not killed:
        try:
            made(schedules, place, clock, post).tick()
        except Killed:
            killed = True
        place.end_all()
    place.kill = ""
    other = made(schedules, place, clock, post)
    other.tick()
    assert states(schedules) != ["done"]  # the claim of the one that was killed is young
    clock.now += CLAIM_S + 1
    for _ in range(4):
        other.tick()
        place.end_all()
    assert states(schedules) == ["done"]
    assert list(place.starts.values()) == [1]
    assert len(post.sent) == 1


def test_a_message_that_was_being_sent_when_its_scheduler_died_is_sent_again(schedules: Schedules) -> None:
    clock, place, post = Clock(), Place(), Post()
    scheduler = made(schedules, place, clock, post)
    schedules.add(nightly(notify_when="always"), START)
    post.kill = True
    with pytest.raises(Killed):
        night(scheduler, place, clock)
    post.kill = False
    other = made(schedules, place, clock, post)
    other.tick()
    assert len(post.sent) == 1
    clock.now += CLAIM_S + 1
    other.tick()
    other.tick()
    assert len(post.sent) == 2  # nobody can know whether the first one arrived


class Files(Place):
    """A pretended target that other processes share: a sweep is started by making a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def submit(self, schedule: Schedule, firing: Firing) -> str:
        try:
            os.close(os.open(self.folder / firing.sweep, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            with (self.folder / "again").open("a") as file:
                file.write(firing.sweep + "\n")
        time.sleep(0.001)
        return str(self.folder)

    def status(self, schedule: Schedule, firing: Firing) -> JobStatus:
        return JobStatus(firing.sweep, "finished")


def _schedule_fast(url: str, folder: str, ready: Any) -> None:
    """A scheduler by whose clock a night passes in a fifth of a second."""
    epoch = float(Path(folder, "epoch").read_text())

    def clock() -> float:
        return START + (time.time() - epoch) / 0.2 * NIGHT

    store = Schedules(url)
    store.all()  # all that is slow the first time
    scheduler = Scheduler(store, Files(Path(folder)), say=lambda words: None, clock=clock)
    ready.set()
    serve(scheduler, threading.Event(), 0.001)


def test_a_scheduler_killed_at_random_moments_fires_each_night_once(url: str, tmp_path: Path) -> None:
    drawn, folder = random.Random(7), tmp_path / "runs"
    schedules = Schedules(url)
    schedules.add(nightly(catch_up="all", overlap="queue"), START)
    folder.mkdir()
    (folder / "epoch").write_text(str(time.time()))
    for _ in range(8):
        ready = SERVER.Event()
        running = SERVER.Process(target=_schedule_fast, args=(url, str(folder), ready))
        running.start()
        assert ready.wait(60)
        time.sleep(drawn.uniform(0.0, 0.5))
        assert running.pid is not None
        os.kill(running.pid, signal.SIGKILL)
        running.join()
    schedules.pause("nightly")
    clock = Clock(max(max(each.claimed, each.at) for each in schedules.firings(limit=1000)) + 2 * CLAIM_S)
    last = Scheduler(schedules, Files(folder), say=lambda words: None, clock=clock)
    while last.tick():
        pass
    found = schedules.firings(limit=10_000)
    nights = sorted(each.at for each in found)
    assert len(nights) > 3
    assert nights == list(times.between("0 1 * * *", "UTC", START, nights[-1]))  # none was lost
    assert {each.state for each in found} == {"done"}
    started = {path.name for path in folder.iterdir()} - {"epoch", "again"}
    assert started == {each.sweep for each in found}  # each was started, and by O_EXCL once
