import contextlib
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.choosing import Room, Rules
from cluster.dispatcher import Dispatcher, Retries, serve
from cluster.folders import UserError
from cluster.launch import Job, LaunchError, Unreachable
from cluster.queue import Claim, Entry, LostLease, Queue
from cluster.queue_lease import Leadership, leader
from tests.cluster.places import Sleepers, Told

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["cluster.dispatcher", "cluster.queue_lease", "sqlalchemy.dialects.sqlite"])


def job_of(entry: Entry) -> Job:
    return Job(entry.id, Path(entry.package), entry.folder)


class Office:
    """A queue, a place that does as it is told, a clock, and the dispatcher between them."""

    def __init__(self, url: str) -> None:
        self.queue, self.place, self.now = Queue(url, patience_s=10), Told(), 0.0
        self.said: list[str] = []
        self.lease = Leadership(self.queue, "here")
        assert self.lease.acquire()
        self.renew(Room(cpus=3))

    def renew(self, room: Room, rules: Rules | None = None, retries: Retries | None = None) -> None:
        """A dispatcher started anew, which remembers nothing."""
        self.dispatcher = Dispatcher(
            self.queue, "here", self.place, lambda: room, rules or Rules(), job_of,  # type: ignore[arg-type]
            retries=retries, say=self.said.append, clock=lambda: self.now,
        )  # fmt: skip

    @property
    def claim(self) -> Claim:
        assert self.lease.claim is not None
        return self.lease.claim

    def put(self, id_: str, **values: Any) -> None:
        self.queue.put(id_, **{"target": "here", "owner": "ann", **values})

    def tick(self) -> int:
        return self.dispatcher.tick(self.claim)

    def of(self, id_: str) -> Entry:
        entry = self.queue.get(id_)
        assert entry is not None
        return entry

    def settle(self) -> None:
        """Let what is asked to stop do so, and see it."""
        for thread in threading.enumerate():
            if thread.name.startswith("stop "):
                thread.join(10)
        self.tick()


@pytest.fixture
def office(tmp_path: Path) -> Generator[Office]:
    made = Office(f"sqlite:///{tmp_path}/queue.db")
    yield made
    made.lease.release()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db" if request.param == "sqlite" else request.getfixturevalue("database")


def test_ten_sweeps_share_room_for_three_in_order_of_priority(url: str) -> None:
    office = Office(url)
    office.renew(Room(cpus=3), Rules(owners={"bob": Room(sweeps=1)}))
    priorities = {"a": 0, "b": 5, "c": 1, "d": 5, "e": 2, "f": 9, "g": 2, "h": 0, "i": 7, "j": 1}
    for id_, priority in priorities.items():
        office.put(id_, priority=priority, owner="bob" if id_ in "bcd" else "ann")
    ended: list[str] = []
    while office.tick():
        under_way = office.queue.entries(states=("starting", "running"))
        assert len(under_way) <= 3
        assert sum(each.owner == "bob" for each in under_way) <= 1
        assert all(each.why for each in office.queue.entries(states=("queued",)))
        if under_way:  # the one that was started first ends
            first = next(each for each in office.place.submitted if each not in ended)
            office.place.becomes(first, "finished")
            ended.append(first)
    # d has a priority of 5, but bob has one sweep at a time: it starts when b ends, and then c when d ends
    assert office.place.submitted == ["f", "i", "b", "e", "g", "d", "j", "a", "c", "h"]
    assert [each.state for each in office.queue.entries()] == ["finished"] * 10
    office.lease.release()


def test_a_driver_that_dies_is_started_again_after_growing_pauses(office: Office) -> None:
    office.put("a")
    pauses = []
    for _ in range(4):
        office.tick()
        assert office.of("a").state == "running"
        office.place.becomes("a", "failed", "exit code 137: Killed")
        office.tick()
        assert office.of("a").state == "queued"
        assert office.of("a").why.startswith("exit code 137: Killed; again after a pause of")
        began = office.now
        while office.of("a").state == "queued":
            office.now += 1
            office.tick()
        pauses.append(office.now - began)
    assert pauses == [10, 20, 40, 80]
    office.place.becomes("a", "failed", "exit code 1")
    office.tick()
    assert (office.of("a").state, office.of("a").why) == ("failed", "exit code 1; 5 times in a row")
    assert office.of("a").starts == 5
    office.queue.requeue("a")
    office.tick()
    assert office.of("a").state == "running"


def test_failures_long_ago_do_not_count(office: Office) -> None:
    office.put("a")
    office.tick()
    office.place.becomes("a", "failed", "lost node")
    office.tick()
    office.now += 11
    for _ in range(2):
        office.tick()
    office.now += 3601
    office.tick()
    assert office.of("a").failures == 0


def test_the_user_s_own_error_is_not_tried_again(office: Office) -> None:
    office.put("a")
    office.tick()
    office.place.becomes("a", "failed", "exit code 2: error: task.file: no such file")
    office.tick()
    assert office.of("a").state == "failed"
    assert office.of("a").why == ("exit code 2: error: task.file: no such file; put it right, then: musweep resume a")
    assert office.place.submitted == ["a"]


def test_a_second_driver_of_a_running_sweep_is_nobody_s_error(office: Office) -> None:
    office.put("a")
    office.tick()
    office.place.becomes("a", "failed", "exit code 2: error: runs/a: process 7 on h has been writing this sweep since")
    office.tick()
    assert office.of("a").state == "running"
    assert office.of("a").failures == 0
    assert office.place.submitted == ["a", "a"]


def test_a_restarted_head_has_every_sweep_again_that_was_running(office: Office) -> None:
    for id_ in "abc":
        office.put(id_)
    office.tick()
    office.place.states.clear()
    office.renew(Room(cpus=3))
    office.tick()
    assert office.place.submitted == ["a", "b", "c"] * 2
    assert [each.state for each in office.queue.entries()] == ["running"] * 3


def test_what_a_dispatcher_left_half_started_the_next_one_starts(office: Office) -> None:
    office.put("a")
    office.put("b")
    office.queue.move("a", ["queued"], state="starting", granted=1)
    office.queue.move("b", ["queued"], state="starting", granted=1)
    office.queue.cancel("b")
    office.place.becomes("a", "stopped")  # as it was before
    office.tick()
    assert office.place.submitted == ["a"]
    assert [each.state for each in office.queue.entries()] == ["running", "stopped"]


def test_a_place_that_does_not_answer_is_waited_for(office: Office) -> None:
    office.put("a")
    office.tick()
    office.put("b", cpus=0.5)
    office.place.error = Unreachable("target here does not answer")
    for _ in range(3):
        office.tick()
    assert office.said.count("waiting: target here does not answer") == 1
    assert [each.state for each in office.queue.entries()] == ["running", "queued"]
    office.place.error = None
    office.tick()
    assert [each.state for each in office.queue.entries()] == ["running", "running"]
    assert "the place answers again" in office.said
    office.put("c", cpus=0.5)
    office.place.refuses = Unreachable("no answer in time")  # whether it was taken, nobody knows
    office.tick()
    assert office.of("c").state == "starting"
    office.place.refuses = None
    office.tick()
    assert office.of("c").state == "running"


def test_a_job_that_a_sound_place_refuses_is_to_blame_but_not_under_a_wrong_token(office: Office) -> None:
    office.put("a")
    office.place.refuses = LaunchError("package too large")
    office.tick()
    assert office.of("a").state == "queued"
    assert office.of("a").failures == 1
    office.put("b")
    office.place.refuses, office.place.error = None, LaunchError("wrong token")
    for _ in range(9):
        office.tick()
    assert office.of("b").failures == 0
    assert office.said.count("waiting: wrong token") == 1


def test_what_may_not_run_there_fails_at_once(office: Office) -> None:
    def refuse(entry: Entry) -> Job:
        raise UserError("a.zip is not what was submitted")

    office.dispatcher.job = refuse
    office.put("a")
    office.tick()
    assert (office.of("a").state, office.of("a").why) == ("failed", "a.zip is not what was submitted")
    assert office.place.submitted == []


@pytest.mark.parametrize(("ask", "state"), [("cancel", "stopped"), ("hold", "held")])
def test_one_under_way_is_stopped_cleanly_when_asked(office: Office, ask: str, state: str) -> None:
    office.put("a")
    office.tick()
    getattr(office.queue, ask)("a")
    office.tick()
    office.settle()
    assert office.place.stopped == ["a"]
    assert office.of("a").state == state
    assert office.of("a").why
    assert office.of("a").granted == 0
    if ask == "hold":
        office.queue.release("a")
        office.tick()
        assert office.place.submitted == ["a", "a"]


def test_one_that_the_place_stopped_goes_on(office: Office) -> None:
    office.put("a")
    office.tick()
    office.place.becomes("a", "stopped", "node drained")
    office.tick()
    assert office.of("a").why == "the place stopped it: node drained; it goes on"
    office.now += 11
    office.tick()
    assert office.of("a").state == "running"
    assert office.of("a").failures == 0


def test_a_higher_priority_preempts_where_the_target_says_so(office: Office) -> None:
    office.renew(Room(cpus=3), Rules(preempt=True))
    for id_ in "abc":
        office.put(id_)
    office.tick()
    office.put("urgent", priority=5)
    office.tick()
    assert office.of("c").why == "stopped to make room for urgent; it goes on after that"
    office.tick()
    office.settle()
    assert office.place.stopped == ["c"]
    assert [each.state for each in office.queue.entries()] == ["running", "running", "queued", "running"]
    office.place.becomes("a", "finished")
    office.tick()
    assert office.of("c").state == "running"
    assert office.of("c").starts == 2


def test_a_dispatcher_that_lost_the_lease_starts_nothing(office: Office) -> None:
    """As when it is stopped for long in the worst place, between its decision and the act."""
    office.put("a")

    def stopped_for_long(entry: Entry) -> Job:
        office.queue.database.run(lambda connection: other._set(connection, office.claim.epoch, {"holder": ""}))
        assert other.acquire()
        return job_of(entry)

    other = Leadership(office.queue, "here")
    office.dispatcher.job = stopped_for_long
    with pytest.raises(LostLease):
        office.tick()
    assert office.place.submitted == []
    with pytest.raises(LostLease):
        office.tick()
    assert office.of("a").state == "starting"  # the new leader goes on from there
    office.renew(Room(cpus=3))
    assert other.claim is not None
    office.dispatcher.tick(other.claim)
    assert office.place.submitted == ["a"]
    other.release()


def dispatch(url: str, folder: Path, lasts_s: float, ttl_s: float, until_empty: bool) -> None:
    """A dispatcher in a process of its own, for a place with room for three."""
    leave = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leave.set())
    queue = Queue(url, patience_s=20)
    place: Any = Sleepers(folder, lasts_s)
    dispatcher = Dispatcher(queue, "here", place, lambda: Room(cpus=3), Rules(), job_of, say=lambda _: None)
    serve(dispatcher, Leadership(queue, "here", ttl_s), leave, poll_s=0.03, until_empty=until_empty)


def begin(*arguments: Any) -> multiprocessing.context.ForkServerProcess:
    process = SERVER.Process(target=dispatch, args=arguments)
    process.start()
    return process


def checked(log: list[str], ids: list[str], most: int) -> None:
    """Each sweep started once and ended once, never more than so many at once."""
    assert not [line for line in log if line.startswith("twice")]
    assert sorted(line.split()[1] for line in log if line.startswith("start")) == sorted(ids)
    assert sorted(line.split()[1] for line in log if line.startswith("end")) == sorted(ids)
    under_way = 0
    for line in log:
        under_way += 1 if line.startswith("start") else -1
        assert under_way <= most


def test_a_dispatcher_killed_twenty_times_starts_every_sweep_once(url: str, tmp_path: Path) -> None:
    queue, chance, place = Queue(url), random.Random(4), tmp_path / "place"
    sleepers = Sleepers(place, 0.2)
    ids = [f"s{n:02d}" for n in range(24)]
    for n, id_ in enumerate(ids):
        queue.put(id_, target="here", priority=n * 7 % 5, owner="ann")
    killed = 0
    for _ in range(20):
        process = begin(url, place, 0.2, 0.15, False)
        time.sleep(0.1 + chance.random() * 0.35)
        killed += len(queue.entries(states=("finished",))) < len(ids)
        process.kill()
        process.join(20)
    last = begin(url, place, 0.2, 0.15, True)
    last.join(60)
    assert last.exitcode == 0
    assert [each.state for each in queue.entries()] == ["finished"] * len(ids)
    assert killed >= 10
    checked(sleepers.log(), ids, most=3)
    by_id = {each.id: each.priority for each in queue.entries()}
    order = [by_id[line.split()[1]] for line in sleepers.log() if line.startswith("start")]
    assert order == sorted(order, reverse=True)


def stop_between_writes(pid: int, url: str) -> None:
    """SIGSTOP a process when it does not hold SQLite's lock: nobody can take over a file that is locked for ever."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        if not url.startswith("sqlite"):
            return
        time.sleep(0.1)
        try:
            with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.5)) as database:
                database.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.05)


def test_a_stopped_dispatcher_is_replaced_and_does_nothing_when_it_wakes(url: str, tmp_path: Path) -> None:
    queue, place = Queue(url), tmp_path / "place"
    sleepers = Sleepers(place, 0.3)
    first = begin(url, place, 0.3, 3.0, False)
    queue.put("a", target="here")
    until = time.monotonic() + 90
    while not sleepers.log() and time.monotonic() < until:
        time.sleep(0.02)
    assert first.pid is not None
    second = begin(url, place, 0.3, 3.0, False)
    stop_between_writes(first.pid, url)
    try:
        while (found := leader(queue, "here")) is None or str(first.pid) in found[0]:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    for n in range(6):
        queue.put(f"b{n}", target="here")
    while len(queue.entries(states=("finished",))) < 7:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert {line.split()[2] for line in sleepers.log() if " b" in line} == {str(second.pid)}
    checked(sleepers.log(), ["a", *(f"b{n}" for n in range(6))], most=3)
    assert first.is_alive()
    second.terminate()  # it gives the lease up, so the other leads at once
    second.join(20)
    assert second.exitcode == 0
    queue.put("c", target="here")
    while len(queue.entries(states=("finished",))) < 8:
        assert time.monotonic() < until
        time.sleep(0.05)
    first.terminate()
    first.join(20)
    assert first.exitcode == 0


def test_sweeps_run_on_when_the_dispatcher_leaves(tmp_path: Path) -> None:
    url, place = f"sqlite:///{tmp_path}/queue.db", tmp_path / "place"
    queue, sleepers = Queue(url), Sleepers(place, 1.0)
    queue.put("a", target="here")
    first = begin(url, place, 1.0, 5, False)
    until = time.monotonic() + 30
    while not sleepers.log() and time.monotonic() < until:
        time.sleep(0.02)
    first.terminate()
    first.join(20)
    assert first.exitcode == 0
    assert queue.entries()[0].state in ("starting", "running")
    assert leader(queue, "here") is None
    second = begin(url, place, 1.0, 5, True)
    second.join(30)
    assert second.exitcode == 0
    assert [line.split()[0] for line in sleepers.log()] == ["start", "end"]
    assert [replace(each, started=None, ended=None).state for each in queue.entries()] == ["finished"]
