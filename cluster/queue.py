"""The queue of sweeps that share a cluster: entries in SQLite or PostgreSQL, moved from state to state one by one.

Every move names the states it starts from, and is one transaction: of any number of processes that try the same
move, one makes it. Order is by sequence number; times are for people only.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cluster.database import PATIENCE_S, Database, silent
from cluster.queue_tables import QUEUE, QueueBusy, QueueError
from cluster.queue_tables import entries as _entries
from cluster.queue_tables import leases as _leases

__all__ = ["ENDED", "STATES", "Claim", "Entry", "LostLease", "Queue", "QueueBusy", "QueueError", "login"]

STATES = ("queued", "starting", "running", "finished", "failed", "stopped", "held")
WAITING, UNDER_WAY, ENDED = ("queued", "held"), ("starting", "running"), ("finished", "failed", "stopped")
_FILE = "queue.db"

Values = dict[str, Any]
_AGAIN: Values = {
    "state": "queued",
    "why": "no dispatcher has looked at it since it was queued again",
    "failures": 0,
    "ended": None,
}
_BACK: Values = {"wanted": "queued", "why": "being stopped; it starts again after that"}


class LostLease(Exception):
    """Another dispatcher has taken over: this one may not move anything."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A dispatcher's right to move a target's entries: void once a later one has a higher epoch."""

    target: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A sweep in the queue."""

    seq: int
    """Place in the order of submission, kept for life."""
    id: str
    name: str
    target: str
    owner: str
    priority: int
    """Higher goes first."""
    cpus: float
    gpus: float
    """What all its workers hold together, as are the CPUs."""
    workers: int
    least: int
    """The fewest workers that it can begin with."""
    granted: int
    """The workers that it was started with; 0 while it waits."""
    state: str
    wanted: str
    """Where it goes when its driver has left, if it is being stopped: `stopped`, `held` or `queued`; else empty."""
    why: str
    starts: int
    failures: int
    """In a row, that were not the user's."""
    passed: int
    """How often one behind it of its own priority was started before it."""
    package: str
    folder: str
    spec_hash: str
    epoch: int
    """Of the dispatcher that started it last."""
    submitted: float
    started: float | None
    ended: float | None


Decide = Callable[[Entry], Values | None]
_COLUMNS = [_entries.c[each.name] for each in fields(Entry)]


class Queue:
    """The entries of one database. Arguments as `Database` has them."""

    def __init__(self, url: str, patience_s: float = PATIENCE_S, notify: Callable[[str], None] = silent) -> None:
        self.database = Database(url, QUEUE, patience_s, notify)

    @classmethod
    def open(cls, place: str | Path, patience_s: float = PATIENCE_S) -> Queue:
        """The queue at a database's URL or, in `queue.db`, in a storage folder; $MUSWEEP_DATABASE goes before a folder.

        Raises:
            QueueError: the place is an object store, which cannot hold a queue.
        """
        text = str(place)
        if text.startswith(("postgres", "sqlite:")) and ":" in text:
            return cls(text, patience_s)
        if named := os.environ.get("MUSWEEP_DATABASE"):
            return cls(named, patience_s)
        if "://" in text and not text.startswith("file://"):
            raise QueueError(
                f"storage {text} cannot hold a queue: give the target a `database`, postgresql://HOST/NAME"
            )
        return cls(f"sqlite:///{Path(text.removeprefix('file://')).expanduser().resolve() / _FILE}", patience_s)

    def put(
        self,
        id_: str,
        *,
        target: str,
        name: str = "",
        owner: str = "",
        priority: int = 0,
        cpus: float = 1.0,
        gpus: float = 0.0,
        workers: int = 1,
        least: int | None = None,
        package: str | Path = "",
        folder: str = "",
        spec_hash: str = "",
    ) -> Entry:
        """Queue a sweep, or return the entry that it has already.

        `least` below `workers` is for places whose drivers take as many as were granted; those of musweep take all.

        Raises:
            QueueError: it is queued for another target, or asks for what cannot be.
        """
        least = workers if least is None else least
        if not 1 <= least <= workers:
            raise QueueError(f"{id_}: begins with {least} of {workers} workers; legal: 1 to {workers}")
        if not (0 <= cpus < float("inf") and 0 <= gpus < float("inf")):
            raise QueueError(f"{id_}: asks for {cpus:g} CPUs and {gpus:g} GPUs; legal: 0 or more")
        values = {
            "id": id_, "name": name or id_, "target": target, "owner": owner or login(), "priority": priority,
            "cpus": cpus, "gpus": gpus, "workers": workers, "least": least, "granted": 0,
            "state": "queued", "wanted": "", "why": "no dispatcher has looked at it yet",
            "starts": 0, "failures": 0, "passed": 0, "epoch": 0,
            "package": str(package), "folder": folder, "spec_hash": spec_hash, "submitted": time.time(),
        }  # fmt: skip

        def work(connection: sa.Connection) -> Entry:
            found = _get(connection, id_)
            if found is None:
                connection.execute(_entries.insert().values(values))
                found = _get(connection, id_)
                assert found is not None
            return found

        entry = self.database.run(work)
        if entry.target != target:
            raise QueueError(f"{id_} is queued for target {entry.target} already: cancel it there or submit it there")
        return entry

    def get(self, id_: str) -> Entry | None:
        """The entry of a sweep, None if it was never queued."""
        return self.database.run(lambda connection: _get(connection, id_), write=False)

    def find(self, typed: str, target: str | None = None) -> Entry:
        """The entry whose id a person typed, or began to type.

        Raises:
            QueueError: none or several begin so.
        """
        ids = [each.id for each in self.entries(target)]
        found = [typed] if typed in ids else [each for each in ids if each.startswith(typed)]
        if len(found) != 1:
            known = ", ".join((found or ids)[-5:]) or "none"
            raise QueueError(f"queue: {len(found) or 'no'} entries begin with {typed!r}; legal: {known}")
        entry = self.get(found[0])
        assert entry is not None
        return entry

    def entries(self, target: str | None = None, states: Collection[str] = STATES) -> list[Entry]:
        """The entries of a target, or of all, in the order of submission."""
        wanted = sa.select(*_COLUMNS).where(_entries.c.state.in_(list(states))).order_by(_entries.c.seq)
        if target is not None:
            wanted = wanted.where(_entries.c.target == target)
        found = self.database.run(lambda connection: connection.execute(wanted).all(), write=False)
        return [Entry(*row) for row in found]

    def change(
        self, id_: str, decide: Decide, claim: Claim | None = None, passing: Collection[str] = ()
    ) -> Entry | None:
        """Change an entry as is decided by what it is now, in one transaction; return it as it is then.

        Args:
            id_: of the entry.
            decide: the columns to set, empty for none, by the entry as it is; None refuses, and so does `change`.
            claim: of a dispatcher, checked in the same transaction.
            passing: entries that this one overtakes, counted on them if it is changed.

        Raises:
            LostLease: the claim is void.
            QueueError: there is no such entry.
        """

        def work(connection: sa.Connection) -> Entry | None:
            if claim is not None:
                check(connection, claim)
            entry = _get(connection, id_, lock=True)
            if entry is None:
                raise QueueError(f"queue: no entry {id_}; `musweep queue --all` lists them")
            values = decide(entry)
            if values is None:
                return None
            if values:
                connection.execute(_entries.update().where(_entries.c.id == id_).values(values))
            if values and passing:
                overtaken = _entries.c.id.in_(list(passing))
                connection.execute(_entries.update().where(overtaken).values(passed=_entries.c.passed + 1))
            return _get(connection, id_)

        return self.database.run(work)

    def move(
        self,
        id_: str,
        expected: Collection[str],
        *,
        claim: Claim | None = None,
        passing: Collection[str] = (),
        **to: Any,
    ) -> bool:
        """Set columns of an entry if its state is one of those expected; return whether it was. See `change`."""
        made = self.change(id_, lambda entry: to if entry.state in expected else None, claim, passing)
        return made is not None

    def confirm(self, claim: Claim) -> None:
        """Make sure that a dispatcher still leads.

        Raises:
            LostLease: it does not.
        """
        self.database.run(lambda connection: check(connection, claim), write=False)

    def explain(self, whys: dict[str, str], claim: Claim) -> None:
        """Say of queued entries why they wait."""

        def work(connection: sa.Connection) -> None:
            check(connection, claim)
            for id_, why in whys.items():
                chosen = _entries.c.id == id_, _entries.c.state == "queued"
                connection.execute(_entries.update().where(*chosen).values(why=why))

        if whys:
            self.database.run(work)

    def priority(self, id_: str, priority: int) -> Entry:
        """Give an entry that has not ended another priority."""
        return self._told(id_, "be moved", lambda entry: None if entry.state in ENDED else {"priority": priority})

    def hold(self, id_: str, by: str = "") -> Entry:
        """Keep an entry from being started; one that is under way is stopped first, and can go on later."""
        why = f"held by {by or login()}; release it with: musweep queue release {id_}"

        def decide(entry: Entry) -> Values | None:
            if entry.state in UNDER_WAY:
                return {"wanted": "held", "why": why}
            return {"queued": {"state": "held", "why": why}, "held": {}}.get(entry.state)

        return self._told(id_, "be held", decide)

    def release(self, id_: str) -> Entry:
        """Let a held entry be started again, at its old place."""

        def decide(entry: Entry) -> Values | None:
            if entry.state in UNDER_WAY:
                return _BACK if entry.wanted == "held" else {}
            return {"held": _AGAIN, "queued": {}}.get(entry.state)

        return self._told(id_, "be released", decide)

    def cancel(self, id_: str, by: str = "") -> Entry:
        """Take an entry out; one that is under way is stopped cleanly first. Of one that has ended nothing changes."""
        why = f"cancelled by {by or login()}"

        def decide(entry: Entry) -> Values:
            if entry.state in UNDER_WAY:
                return {"wanted": "stopped", "why": why}
            return {"state": "stopped", "why": why, "ended": time.time()} if entry.state in WAITING else {}

        return self._told(id_, "be cancelled", decide)

    def requeue(self, id_: str, **to: Any) -> Entry:
        """Queue a failed, stopped or held entry again, at its old place; one that waits or is under way goes on.

        Args:
            id_: of the entry.
            to: columns to set on one that is queued again, such as its package.
        """
        to = {name: str(value) for name, value in to.items()}

        def decide(entry: Entry) -> Values | None:
            if entry.state in UNDER_WAY:
                return _BACK if entry.wanted else {}
            return {} if entry.state == "queued" else None if entry.state == "finished" else _AGAIN | to

        return self._told(id_, "be queued again", decide)

    def _told(self, id_: str, verb: str, decide: Decide) -> Entry:
        """Change an entry as a person wants it.

        Raises:
            QueueError: there is no such entry, or it is past that.
        """
        entry = self.change(id_, decide)
        if entry is None:
            now = self.get(id_)
            raise QueueError(f"{id_} is {now.state if now else 'gone'} and cannot {verb}")
        return entry


def check(connection: sa.Connection, claim: Claim) -> None:
    """Refuse to go on for a dispatcher that was replaced, and keep it from being replaced before the transaction ends.

    Raises:
        LostLease: a later one holds the lease.
    """
    asked = sa.select(_leases.c.epoch).where(_leases.c.target == claim.target).with_for_update(read=True)
    epoch = connection.execute(asked).scalar()
    if epoch != claim.epoch:
        raise LostLease(
            f"target {claim.target}: another dispatcher took over (epoch {epoch}, this one had {claim.epoch})"
        )


def _get(connection: sa.Connection, id_: str, lock: bool = False) -> Entry | None:
    asked = sa.select(*_COLUMNS).where(_entries.c.id == id_)
    row = connection.execute(asked.with_for_update() if lock else asked).one_or_none()
    return None if row is None else Entry(*row)


def login() -> str:
    """The name of whoever is at the keyboard."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid{os.getuid()}"
