"""The lease of a sweep that lies on an object store: a row in a database, timed by the database's clock.

`MUSWEEP_DATABASE` names the database by an SQLAlchemy URL; PostgreSQL between hosts, SQLite on one. Whoever finds the
row released or expired takes it by one conditional statement, so of any number at once exactly one does.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sweeps import places
from sweeps.journal import PassingError
from sweeps.lease import TTL_S, Clock, LeaseHeld, StaleWriter

VARIABLE = "MUSWEEP_DATABASE"
_TABLE = """
CREATE TABLE IF NOT EXISTS musweep_leases (
  sweep_id VARCHAR(400) PRIMARY KEY, epoch BIGINT NOT NULL, holder VARCHAR(40) NOT NULL, who VARCHAR(400) NOT NULL,
  beat BIGINT NOT NULL, expires DOUBLE PRECISION NOT NULL, released INTEGER NOT NULL)
"""
_TAKE = """
INSERT INTO musweep_leases (sweep_id, epoch, holder, who, beat, expires, released)
VALUES (:sweep, :epoch, :holder, :who, 0, {now} + :ttl, 0)
ON CONFLICT (sweep_id) DO UPDATE SET epoch = excluded.epoch, holder = excluded.holder, who = excluded.who, beat = 0,
  expires = excluded.expires, released = 0
WHERE musweep_leases.epoch < excluded.epoch AND
  (musweep_leases.released = 1 OR musweep_leases.expires < {now} OR musweep_leases.epoch <= :gone)
RETURNING epoch
"""
_RENEW = """
UPDATE musweep_leases SET beat = beat + 1, expires = {now} + :ttl
WHERE sweep_id = :sweep AND epoch = :epoch AND holder = :holder RETURNING epoch
"""
_RELEASE = "UPDATE musweep_leases SET released = 1 WHERE sweep_id = :sweep AND epoch = :epoch AND holder = :holder"
_READ = (
    "SELECT epoch, holder, who, beat, released, expires - {now} AS left_s FROM musweep_leases WHERE sweep_id = :sweep"
)
_NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "CAST(extract(epoch from clock_timestamp()) AS DOUBLE PRECISION)",
}
_LOOK_S = 0.5


def database() -> str | None:
    """The database that the environment names."""
    return os.environ.get(VARIABLE) or None


class Table:
    """The leases of one database.

    Raises:
        PlaceError: a URL of no database that is known here.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
            kind = parsed.get_backend_name()
            if kind == "postgresql" and parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            if kind not in _NOW:
                raise ValueError(f"{kind}: PostgreSQL or SQLite are needed")
            timeout = {"connect_timeout": 5} if kind == "postgresql" else {"timeout": 5.0}
            self._engine = sa.create_engine(
                parsed, pool_pre_ping=True, pool_size=1, max_overflow=2, pool_timeout=10, connect_args=timeout
            )
        except (sa.exc.ArgumentError, ImportError, ValueError) as error:
            raise places.PlaceError(f"{VARIABLE}={places.shown(url)}: no such database: {error}") from None
        self._now, self._made, self._name = _NOW[kind], False, parsed.render_as_string(hide_password=True)

    def run(self, text: str, **values: Any) -> Mapping[str, Any] | None:
        """Run a statement for good; the first row of what it returns.

        Raises:
            PassingError: the database is not there, or is locked.
        """
        try:
            with self._engine.begin() as connection:
                if not self._made:
                    connection.execute(sa.text(_TABLE))
                found = connection.execute(sa.text(text.format(now=self._now)), values)
                row = found.mappings().first() if found.returns_rows else None
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            told = getattr(error, "orig", None) or error
            words = places.shown(" ".join(str(told).split()))
            raise PassingError(f"{self._name}: {words}") from None
        self._made = True
        return None if row is None else dict(row)

    def read(self, sweep: str) -> Mapping[str, Any]:
        """The row of a sweep: epoch, holder, who, beat, released, left_s; empty if there is none."""
        return self.run(_READ, sweep=sweep) or {}

    def dispose(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()


class SqlLease:
    """Holds a row; see `sweeps.lease.Lease`.

    Args:
        sweep: the URL of the sweep.
        epoch: a number that nobody has had; None: one more than the row has.
        gone: up to this epoch all holders are known to be dead.

    Raises:
        LeaseHeld: a living process has the row.
        PassingError: the database did not answer for as long as one waits for a holder.
    """

    def __init__(
        self,
        url: str,
        sweep: str,
        patience_s: float = TTL_S,
        clock: Clock | None = None,
        waiting: Callable[[str], object] = lambda _words: None,
        epoch: int | None = None,
        gone: int = 0,
    ) -> None:
        self._gone = gone
        self._table, self._sweep, self._ttl_s = Table(url), sweep, patience_s
        self._clock, self._holder = clock or Clock(), secrets.token_hex(8)
        try:
            self.epoch = self._take(waiting, epoch)
        except BaseException:
            self._table.dispose()
            raise

    def _take(self, waiting: Callable[[str], object], wanted: int | None) -> int:
        until = self._clock.now() + self._ttl_s + 2 * _LOOK_S
        who = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        first: Mapping[str, Any] | None = None
        told, pause = False, 0.1
        while True:
            fault: PassingError | None = None
            try:
                found = self._table.read(self._sweep)
                if first is None:
                    first = found
                elif found and first and _mark(found) != _mark(first) and not found["released"]:
                    raise LeaseHeld(_held(self._sweep, found))
                if not found or found["released"] or found["left_s"] < 0 or found["epoch"] <= self._gone:
                    epoch = found.get("epoch", 0) + 1 if wanted is None else wanted
                    row = self._table.run(
                        _TAKE,
                        sweep=self._sweep,
                        epoch=epoch,
                        holder=self._holder,
                        who=who,
                        ttl=self._ttl_s,
                        gone=self._gone,
                    )
                    if row is None:
                        raise LeaseHeld(_held(self._sweep, self._table.read(self._sweep)))
                    return epoch
            except PassingError as error:
                fault = error
            if self._clock.now() >= until:
                raise fault or LeaseHeld(_held(self._sweep, first or {}))
            if not told:
                told = True
                waiting(str(fault) if fault else f"{_held(self._sweep, first or {})}; taking over if it stays silent")
            self._clock.sleep(pause if fault else _LOOK_S)
            pause = min(2 * pause, 2.0)

    def renew(self) -> None:
        """See `Backend.renew`; one that has expired and was not taken is renewed as well."""
        told = {"sweep": self._sweep, "epoch": self.epoch, "holder": self._holder}
        if self._table.run(_RENEW, ttl=self._ttl_s, **told) is None:
            self.check()

    def check(self) -> None:
        """See `Backend.check`."""
        look(self._table, self._sweep, self.epoch, self._holder)

    def release(self) -> None:
        """See `Backend.release`."""
        try:
            self._table.run(_RELEASE, sweep=self._sweep, epoch=self.epoch, holder=self._holder)
        except PassingError:
            pass  # it expires
        finally:
            self._table.dispose()


def look(table: Table, sweep: str, epoch: int, holder: str | None = None) -> None:
    """Find out whether the epoch is still the newest.

    Raises:
        StaleWriter: it is not.
        PassingError: the database does not say.
    """
    found = table.read(sweep)
    if found.get("epoch") != epoch or found["holder"] != (holder or found["holder"]):
        raise StaleWriter(
            f"{sweep}: the lease has epoch {found.get('epoch')}, this process holds {epoch}; it must stop"
        )


def looker(url: str, sweep: str, epoch: int, every_s: float = 1.0) -> Callable[[], None]:
    """A function that looks, at most once in so many seconds."""
    table, seen = Table(url), [-every_s]

    def check() -> None:
        now = time.monotonic()
        if now - seen[0] >= every_s:
            look(table, sweep, epoch)
            seen[0] = now

    return check


def held(url: str, sweep: str) -> bool:
    """Whether a living process seems to hold the row.

    Raises:
        PassingError: the database does not say.
    """
    table = Table(url)
    try:
        found = table.read(sweep)
    finally:
        table.dispose()
    return bool(found) and not found["released"] and found["left_s"] > 0


def newest_epoch(url: str, sweep: str) -> int:
    """The last holder's epoch, 0 if there was none.

    Raises:
        PassingError: the database does not say.
    """
    table = Table(url)
    try:
        return int(table.read(sweep).get("epoch", 0))
    finally:
        table.dispose()


def _mark(found: Mapping[str, Any]) -> tuple[Any, ...]:
    return found["epoch"], found["holder"], found["beat"]


def _held(sweep: str, found: Mapping[str, Any]) -> str:
    who = found.get("who", "another process")
    return f"{Path(sweep).name}: {who} is writing this sweep ({places.shown(sweep)})"
