import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cluster import queue as queues
from cluster.queue import Claim, Entry, LostLease, Queue, QueueBusy, QueueError, login
from cluster.queue_lease import Leadership, leader
from cluster.queue_tables import QUEUE

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["cluster.dispatcher", "cluster.queue_lease", "sqlalchemy.dialects.sqlite"])


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    return f"sqlite:///{tmp_path}/queue.db" if request.param == "sqlite" else request.getfixturevalue("database")


@pytest.fixture
def queue(url: str) -> Queue:
    return Queue(url, patience_s=10)


def put(queue: Queue, id_: str = "a", **values: Any) -> Entry:
    return queue.put(id_, **{"target": "here", **values})


def test_putting_twice_is_putting_once(queue: Queue) -> None:
    first = put(queue, priority=3, gpus=2, workers=4, least=2, owner="ann")
    assert (first.state, first.priority, first.gpus, first.workers, first.least) == ("queued", 3, 2, 4, 2)
    assert first.why
    assert put(queue, priority=9) == first
    assert [each.id for each in queue.entries()] == ["a"]
    assert put(queue, "b").owner == login()
    assert put(queue, "b").seq > first.seq
    with pytest.raises(QueueError, match="a is queued for target here already"):
        put(queue, target="there")
    with pytest.raises(QueueError, match="begins with 5 of 4 workers; legal: 1 to 4"):
        put(queue, "c", workers=4, least=5)
    with pytest.raises(QueueError, match="asks for nan CPUs"):
        put(queue, "c", cpus=float("nan"))


def test_a_move_is_made_once_and_from_the_expected_state_only(queue: Queue) -> None:
    put(queue)
    assert queue.move("a", ["queued"], state="starting")
    assert not queue.move("a", ["queued"], state="starting")
    assert queue.move("a", ["starting"], state="running", why="x")
    entry = queue.get("a")
    assert entry is not None
    assert (entry.state, entry.why) == ("running", "x")
    with pytest.raises(QueueError, match="no entry b"):
        queue.move("b", ["queued"], state="held")


def _race(url: str, gate: Any, won: Any) -> None:
    queue = Queue(url)
    queue.entries()
    gate.wait()
    for n in range(20):
        if queue.move(f"s{n}", ["queued"], state="starting"):
            won.put(n)
    won.put(None)


def test_of_several_processes_one_makes_a_move(url: str, queue: Queue) -> None:
    for n in range(20):
        put(queue, f"s{n}")
    gate, won = SERVER.Barrier(3), SERVER.Queue()
    racers = [SERVER.Process(target=_race, args=(url, gate, won)) for _ in range(3)]
    for racer in racers:
        racer.start()
    told = [won.get(timeout=60) for _ in range(23)]
    for racer in racers:
        racer.join(60)
    assert sorted(n for n in told if n is not None) == list(range(20))


def test_overtaken_ones_are_counted_with_the_move(queue: Queue) -> None:
    for id_ in "abc":
        put(queue, id_)
    assert queue.move("c", ["queued"], passing=["a", "b"], state="starting")
    assert not queue.move("c", ["queued"], passing=["a", "b"], state="starting")
    assert [each.passed for each in queue.entries()] == [1, 1, 0]


def test_hold_release_cancel_and_requeue_keep_the_place(queue: Queue) -> None:
    place = put(queue).seq
    put(queue, "b")
    assert queue.hold("a", "ann").why == "held by ann; release it with: musweep queue release a"
    assert queue.hold("a").state == "held"
    assert queue.release("a").state == "queued"
    assert queue.priority("a", 7).priority == 7
    cancelled = queue.cancel("a", "ann")
    assert (cancelled.state, cancelled.why) == ("stopped", "cancelled by ann")
    assert cancelled.ended is not None
    assert queue.cancel("a") == cancelled
    for refused in (queue.hold, queue.release):
        with pytest.raises(QueueError, match="a is stopped and cannot be"):
            refused("a")
    again = queue.requeue("a")
    assert (again.state, again.seq, again.ended) == ("queued", place, None)
    queue.move("a", ["queued"], state="finished")
    with pytest.raises(QueueError, match="a is finished and cannot be queued again"):
        queue.requeue("a")


def test_one_under_way_is_only_asked_to_leave(queue: Queue) -> None:
    put(queue)
    queue.move("a", ["queued"], state="running")
    assert (queue.release("a").wanted, queue.requeue("a").wanted) == ("", "")  # it runs: nothing to do
    for ask, wanted in ((queue.hold, "held"), (queue.cancel, "stopped"), (queue.requeue, "queued")):
        entry = ask("a")
        assert (entry.state, entry.wanted) == ("running", wanted)
    queue.hold("a")
    assert queue.release("a").wanted == "queued"


def test_an_entry_is_found_by_how_its_id_begins(queue: Queue) -> None:
    for id_ in ("curves-1", "curves-12", "faces-3"):
        put(queue, id_)
    assert queue.find("fa").id == "faces-3"
    assert queue.find("curves-1").id == "curves-1"
    with pytest.raises(QueueError, match=r"2 entries begin with 'curves'; legal: curves-1, curves-12"):
        queue.find("curves")
    with pytest.raises(QueueError, match="no entries begin with 'x'"):
        queue.find("x")


def test_a_void_claim_moves_nothing(queue: Queue) -> None:
    put(queue)
    lease = Leadership(queue, "here")
    assert lease.acquire()
    assert lease.claim is not None
    old = Claim("here", lease.claim.epoch - 1)
    for act in (
        lambda: queue.move("a", ["queued"], claim=old, state="starting"),
        lambda: queue.explain({"a": "no"}, old),
        lambda: queue.confirm(old),
    ):
        with pytest.raises(LostLease, match="another dispatcher took over"):
            act()
    entry = queue.get("a")
    assert entry is not None
    assert (entry.state, entry.why) == ("queued", put(queue).why)
    lease.release()


def test_one_leads_and_the_next_takes_over_when_it_gives_up(queue: Queue) -> None:
    one, two = Leadership(queue, "here", 5), Leadership(queue, "here", 5)
    assert leader(queue, "here") is None
    assert one.acquire()
    assert not two.acquire()
    assert two.leader == one.holder
    assert leader(queue, "here")[0] == one.holder.rpartition(":")[0]  # type: ignore[index]
    assert Leadership(queue, "there", 5).acquire()  # each target has its own
    first = one.claim
    one.release()
    assert two.acquire()
    assert two.claim is not None
    assert first is not None
    assert two.claim.epoch == first.epoch + 1
    two.release()


def test_a_lease_without_beats_is_taken_over_and_its_beats_then_fail(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Leadership(queue, "here", 0.6), Leadership(queue, "here", 0.6)
    assert one.acquire()
    claim = one.claim
    assert claim is not None
    until = time.monotonic() + 1.5
    while time.monotonic() < until:  # it beats
        assert not two.acquire()
        time.sleep(0.05)
    one._left.set()  # as if it were stopped or dead
    began = time.monotonic()
    while not two.acquire():
        time.sleep(0.02)
        assert time.monotonic() - began < 10
    assert time.monotonic() - began > 0.3
    with pytest.raises(LostLease):
        one.beat(claim)
    two.release()


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    told: list[str] = []
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", patience_s=20, notify=told.append)
    put(queue)
    other = sqlite3.connect(tmp_path / "queue.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(3.0, lambda: other.execute("COMMIT")).start()
    began = time.monotonic()
    assert queue.move("a", ["queued"], state="held")
    assert time.monotonic() - began > 2.5
    assert told == [f"waiting for the queue sqlite:///{tmp_path}/queue.db: database is locked"]
    other.execute("BEGIN EXCLUSIVE")
    queue.database.patience_s = 0.1
    with pytest.raises(QueueBusy, match=r"no answer for 0\.1 s: database is locked"):
        put(queue, "b")
    other.execute("COMMIT")
    other.close()


@pytest.mark.postgres
def test_a_connection_that_the_server_cuts_is_made_again(database: str) -> None:
    queue = Queue(database)
    put(queue)
    cut = [True]

    def decide(entry: Entry) -> dict[str, Any]:
        if cut.pop() if cut else False:
            admin = sa.create_engine(database, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
            with admin.connect() as connection:
                kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                connection.execute(sa.text(f"{kill} AND pid <> pg_backend_pid()"))
        return {"priority": entry.priority + 1}

    entry = queue.change("a", decide)
    assert entry is not None
    assert entry.priority == 1  # the cut transaction left nothing


def _colour(connection: sa.Connection) -> Any:
    return connection.execute(sa.text("SELECT colour FROM musweep_queue")).scalar()


def test_newer_tables_are_refused_and_older_ones_brought_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Queue(url))

    def second(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE musweep_queue ADD COLUMN colour TEXT DEFAULT 'red'"))

    with monkeypatch.context() as newer:
        newer.setattr(queues, "QUEUE", replace(QUEUE, migrations=(*QUEUE.migrations, second)))
        for _ in range(2):  # the second finds it done
            queue = Queue(url)
            assert [each.id for each in queue.entries()] == ["a"]
            assert queue.database.run(_colour) == "red"
    with pytest.raises(QueueError, match="version 2, this musweep knows 1: upgrade"):
        Queue(url).entries()


def _first(url: str, gate: Any, done: Any) -> None:
    gate.wait()
    done.put(put(Queue(url), "same").seq)


def test_processes_that_open_an_empty_database_at_once_agree(url: str) -> None:
    gate, done = SERVER.Barrier(3), SERVER.Queue()
    made = [SERVER.Process(target=_first, args=(url, gate, done)) for _ in range(3)]
    for each in made:
        each.start()
    assert {done.get(timeout=60) for _ in made} == {1} or len(Queue(url).entries()) == 1
    for each in made:
        each.join(60)
        assert each.exitcode == 0


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: Queue("mysql://me:hush@h/d"), r"'mysql://me:\*\*\*@h/d': mysql is not known here; legal: sqlite"),
        (lambda: Queue("what"), "'what' is no database URL"),
        (lambda: Queue.open("s3://bucket/sweeps"), "storage s3://bucket/sweeps cannot hold a queue"),
        (
            lambda: Queue("postgresql://me:hush@127.0.0.1:1/d", patience_s=0.1).entries(),
            r"me:\*\*\*@127.0.0.1:1/d: no answer for 0.1 s",
        ),
    ],
)
def test_mistakes_are_one_line_without_passwords(
    act: Callable[[], Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    with pytest.raises(QueueError, match=words) as caught:
        act()
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_queue_lies_in_the_storage_folder_unless_a_database_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    put(Queue.open(tmp_path / "runs"))
    assert (tmp_path / "runs" / "queue.db").is_file()
    monkeypatch.setenv("MUSWEEP_DATABASE", f"sqlite:///{tmp_path}/named.db")
    put(Queue.open(tmp_path / "runs"), "b")
    assert [each.id for each in Queue(f"sqlite:///{tmp_path}/named.db").entries()] == ["b"]
    broken = tmp_path / "broken.db"
    broken.write_text("this is no database" * 100)
    with pytest.raises(QueueError, match="not a database"):
        Queue(f"sqlite:///{broken}").entries()
