import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps import lease_sql
from sweeps.journal import PassingError
from sweeps.lease import Clock, LeaseHeld, StaleWriter
from sweeps.lease_sql import SqlLease, Table
from sweeps.places import PlaceError

SWEEP = "s3://bucket/sweeps/one"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/leases.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("sqlite" if request.param == "sqlite" else "database"))


def test_epochs_grow_and_a_release_lets_the_next_one_in(url: str) -> None:
    for epoch in (1, 2, 3):
        held = SqlLease(url, SWEEP)
        assert held.epoch == epoch
        held.renew()
        held.check()
        assert lease_sql.held(url, SWEEP)
        held.release()
        assert not lease_sql.held(url, SWEEP)
    assert lease_sql.newest_epoch(url, SWEEP) == 3
    assert lease_sql.newest_epoch(url, "another") == 0


def test_a_living_holder_refuses_and_a_silent_one_is_taken_over(url: str) -> None:
    holder = SqlLease(url, SWEEP, patience_s=0.6)
    left = threading.Event()

    def beat() -> None:
        while not left.wait(0.1):
            holder.renew()

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(LeaseHeld, match=r"^one: process \d+ on .* since 20.* is writing this sweep"):
        SqlLease(url, SWEEP, patience_s=0.6)
    left.set()
    beating.join()
    told: list[str] = []
    began = time.monotonic()
    second = SqlLease(url, SWEEP, patience_s=0.6, waiting=told.append)
    assert time.monotonic() - began > 0.4
    assert second.epoch == 2
    assert len(told) == 1
    for stale in (holder.renew, holder.check):
        with pytest.raises(StaleWriter, match="the lease has epoch 2, this process holds 1"):
            stale()
    holder.release()  # takes nothing from the second
    second.check()
    second.release()


def test_one_that_expired_unnoticed_is_renewed(url: str) -> None:
    holder = SqlLease(url, SWEEP, patience_s=0.05)
    time.sleep(0.1)
    assert not lease_sql.held(url, SWEEP)
    holder.renew()
    holder.check()
    holder.release()


def test_of_many_at_once_exactly_one_wins_a_hundred_times(url: str) -> None:
    tables = [Table(url) for _ in range(2)]
    for table in tables:
        table.read(SWEEP)  # it is there; how it is made is tested below
    gate = threading.Barrier(2)

    def contend(n: int, wins: list[list[int]]) -> None:
        for race in range(100):
            gate.wait(30)
            row = tables[n].run(
                lease_sql._TAKE, sweep=f"race-{race}", epoch=1, holder=str(n), who="w", ttl=30.0, gone=0
            )
            wins[race] += [n] if row is not None else []

    wins: list[list[int]] = [[] for _ in range(100)]
    threads = [threading.Thread(target=contend, args=(n, wins)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(each) == 1 for each in wins)
    for table in tables:
        table.dispose()


def test_who_comes_first_to_an_empty_database_finds_it_made(url: str) -> None:
    outcomes: list[Any] = []

    def take(n: int) -> None:
        try:
            held = SqlLease(url, f"sweep-{n}")
            outcomes.append(held.epoch)
            held.release()
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [1] * 4


def test_holders_known_to_be_dead_are_not_waited_for(url: str) -> None:
    dead = SqlLease(url, SWEEP)
    began = time.monotonic()
    alive = SqlLease(url, SWEEP, epoch=2, gone=1)
    assert alive.epoch == 2
    assert time.monotonic() - began < 5
    for each in (dead, alive):
        each.release()


def test_a_database_locked_by_another_process_is_waited_for(tmp_path: Path, sqlite: str) -> None:
    Table(sqlite).read(SWEEP)
    code = """
import sqlite3, sys, time
with sqlite3.connect(sys.argv[1], isolation_level=None) as db:
    db.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    sys.stdin.readline()
    db.execute("COMMIT")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "leases.db")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "locked\n"
        told: list[str] = []

        def waiting(words: str) -> None:
            told.append(words)
            assert other.stdin is not None
            other.stdin.write("go\n")
            other.stdin.flush()

        assert SqlLease(sqlite, SWEEP, waiting=waiting).epoch == 1
    assert "database is locked" in told[0]


def test_a_database_that_stays_away_is_given_up_after_the_time_to_live(tmp_path: Path) -> None:
    at = [0.0]

    def sleep(seconds: float) -> None:
        at[0] += seconds

    clock = Clock(now=lambda: at[0], sleep=sleep)
    with pytest.raises(PassingError, match="unable to open database file"):
        SqlLease(f"sqlite:///{tmp_path}/none/leases.db", SWEEP, clock=clock)
    assert 30 <= at[0] < 40


def test_passwords_are_in_no_message(require: Callable[[object, str], None]) -> None:
    clock = Clock(now=iter(range(0, 1000, 100)).__next__, sleep=lambda _seconds: None)
    with pytest.raises(PassingError) as told:
        SqlLease("postgresql://someone:hush@127.0.0.1:1/x", SWEEP, clock=clock)
    assert "hush" not in str(told.value)
    with pytest.raises(PlaceError, match="PostgreSQL or SQLite are needed") as other:
        Table("mysql://someone:hush@127.0.0.1/x")
    assert "hush" not in str(other.value)


def test_the_table_is_plain(tmp_path: Path, sqlite: str) -> None:
    SqlLease(sqlite, SWEEP).release()
    with sqlite3.connect(tmp_path / "leases.db") as database:
        rows = database.execute("SELECT sweep_id, epoch, beat, released FROM musweep_leases").fetchall()
    database.close()
    assert rows == [(SWEEP, 1, 0, 1)]
