"""Which of a target's dispatchers leads: a row in the queue's database with a holder, an epoch and a beat.

No clocks are compared. On PostgreSQL the row expires by the server's own clock; on SQLite a contender takes over only
once it has seen, by its own count of seconds, that no beat came for the time to live.
"""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from cluster import process
from cluster.queue import Claim, LostLease, Queue, QueueError, check
from cluster.queue_tables import leases as _leases

TTL_S = 20.0
"""How long a dispatcher that is gone keeps the others waiting."""
STALLED_S = 900.0
"""A leader whose work has not moved for so long no longer beats, so that another may try."""


class Leadership:
    """The right to dispatch for a target, held by at most one process: asked for, kept by beats, given up."""

    def __init__(self, queue: Queue, target: str, ttl_s: float = TTL_S) -> None:
        self.queue, self.target, self.ttl_s = queue, target, ttl_s
        self.holder = process.holder()
        self.claim: Claim | None = None
        self.leader = ""
        """Who leads, as last seen."""
        self._seen, self._since = (-1, -1), 0.0
        self._worked, self._left = time.monotonic(), threading.Event()

    def acquire(self) -> bool:
        """Lead, if nobody does; return whether this one leads now. To be tried again and again."""
        epoch = self.queue.database.run(self._take)
        if epoch is None:
            return False
        self.claim, self._left = Claim(self.target, epoch), threading.Event()
        self.worked()
        threading.Thread(target=self._beats, args=(self.claim, self._left), daemon=True, name="beats").start()
        return True

    def _take(self, connection: sa.Connection) -> int | None:
        asked = sa.select(_leases).where(_leases.c.target == self.target).with_for_update()
        row = connection.execute(asked).one_or_none()
        if row is None:
            made = _leases.insert().values(target=self.target, holder=self.holder, epoch=1, beat=0, **self._now())
            connection.execute(made)
            return 1
        if row.holder == self.holder:  # a commit whose answer was lost
            return int(row.epoch)
        self.leader = row.holder
        if row.holder and not self._expired(connection, row):
            return None
        self._set(connection, row.epoch, {"holder": self.holder, "epoch": row.epoch + 1, "beat": 0, **self._now()})
        return int(row.epoch) + 1

    def _expired(self, connection: sa.Connection, row: Any) -> bool:
        if not self.queue.database.is_sqlite:
            now = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
            return bool(row.expires < now)
        if (row.epoch, row.beat) != self._seen:
            self._seen, self._since = (row.epoch, row.beat), time.monotonic()
        return time.monotonic() - self._since > self.ttl_s

    def _now(self) -> dict[str, Any]:
        """What a beat sets: when it expires by the server's clock, and when it was, for people."""
        lasts = None if self.queue.database.is_sqlite else sa.func.clock_timestamp() + timedelta(seconds=self.ttl_s)
        return {"expires": lasts, "seen": time.time()}

    def _set(self, connection: sa.Connection, epoch: int, values: dict[str, Any]) -> None:
        chosen = _leases.c.target == self.target, _leases.c.epoch == epoch
        connection.execute(_leases.update().where(*chosen).values(values))

    def beat(self, claim: Claim) -> None:
        """Show that this one lives.

        Raises:
            LostLease: another leads.
        """

        def work(connection: sa.Connection) -> None:
            check(connection, claim)
            self._set(connection, claim.epoch, {"beat": _leases.c.beat + 1, **self._now()})

        self.queue.database.run(work)

    def worked(self) -> None:
        """Say that the work has moved."""
        self._worked = time.monotonic()

    def _beats(self, claim: Claim, left: threading.Event) -> None:
        while not left.wait(self.ttl_s / 4) and time.monotonic() - self._worked < STALLED_S:
            try:
                self.beat(claim)
            except LostLease:
                return
            except QueueError:  # locked or away: the next beat may get through
                continue

    def drop(self) -> None:
        """Know that another leads."""
        self._left.set()
        self.claim = None

    def release(self) -> None:
        """Let another lead at once."""
        claim, self.claim = self.claim, None
        self._left.set()
        if claim is None:
            return

        def work(connection: sa.Connection) -> None:
            check(connection, claim)
            self._set(connection, claim.epoch, {"holder": "", "beat": _leases.c.beat + 1})

        with contextlib.suppress(LostLease, QueueError):
            self.queue.database.run(work)


def leader(queue: Queue, target: str) -> tuple[str, float] | None:
    """Who leads a target, as `host:pid`, and the time of the last beat by that host's clock; None if nobody does."""
    asked = sa.select(_leases.c.holder, _leases.c.seen).where(_leases.c.target == target)
    row = queue.database.run(lambda connection: connection.execute(asked).one_or_none(), write=False)
    return None if row is None or not row.holder else (row.holder.rpartition(":")[0], row.seen)
