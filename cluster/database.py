"""A database of ours, and one way to touch it: a transaction that waits out what passes and is then whole or nothing.

SQLite or PostgreSQL. No connection outlives its transaction, so a restarted server is met afresh and a stopped process
holds nothing. Each kind of data (queue, schedules, access) has its own tables with a version of their own; all may lie
in one database.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from cluster.folders import UserError
from sweeps.tracked import redact

T = TypeVar("T")

PATIENCE_S = 30.0
_SILENT_S = 1.5
_LAST_WORD = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied",
    "unable to open database file",
    "readonly database",
    "not a database",
    "malformed",
)
"""What waiting does not mend, in the words of SQLite and PostgreSQL."""


def place(file: str) -> str:
    """The URL of what a user keeps: $MUSWEEP_DATABASE, else a file where musweep keeps its state."""
    from cluster.submitted import state_folder

    return os.environ.get("MUSWEEP_DATABASE") or f"sqlite:///{state_folder().resolve() / file}"


class DatabaseError(UserError):
    """Something about a database of ours that a person can put right, in one line."""


class DatabaseBusy(DatabaseError):
    """The database did not answer in time; it may a while later."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of data and its tables."""

    name: str
    """For errors and for the table that holds the version, `musweep_NAME_schema`."""
    migrations: tuple[Callable[[sa.Connection], None], ...]
    """What brings the tables from version n to n + 1; the newest version is how many there are."""
    error: type[DatabaseError] = DatabaseError
    busy: type[DatabaseBusy] = DatabaseBusy


def silent(words: str) -> None:
    """Let words pass."""


class Database:
    """A database with the tables of one kind, at their newest version from the first transaction on.

    Args:
        url: of SQLAlchemy, `sqlite:///...` or `postgresql://...`.
        kind: of the data.
        patience_s: how long a transaction waits for a locked, restarting or full database.
        notify: told once, in words, when a transaction begins to wait.
    """

    def __init__(
        self, url: str, kind: Kind, patience_s: float = PATIENCE_S, notify: Callable[[str], None] = silent
    ) -> None:
        self.kind = kind
        self.url = _parsed(url, kind)
        self.patience_s, self.notify = patience_s, notify
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine, self._ready = _engine(self.url, self.is_sqlite, kind), False

    def __str__(self) -> str:
        return redact(self.url.render_as_string(hide_password=True))

    def run(self, work: Callable[[sa.Connection], T], write: bool = True) -> T:
        """Do work in one transaction and return what it returns; it may be done anew, so it must start from the tables.

        Raises:
            DatabaseBusy: the database did not answer for `patience_s`.
            DatabaseError: it refuses, and waiting would not help.
        """
        if not self._ready:
            self._patiently(self._migrate, True)
            self._ready = True
        return self._patiently(work, write)

    def _patiently(self, work: Callable[[sa.Connection], T], write: bool) -> T:
        began, pause, told, name = time.monotonic(), 0.02, False, self.kind.name
        while True:
            try:
                connecting = self._engine.connect().execution_options(write=write)
                with connecting as connection, connection.begin():
                    return work(connection)
            except sa.exc.DBAPIError as error:
                words = redact(str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else repr(error.orig))
                if any(each in str(error.orig) for each in _LAST_WORD) or not _passes(error):
                    raise self.kind.error(f"{name} {self}: {words}") from None
                waited = time.monotonic() - began
                if waited >= self.patience_s:
                    raise self.kind.busy(f"{name} {self}: no answer for {self.patience_s:g} s: {words}") from None
                if not told and waited > _SILENT_S:
                    self.notify(f"waiting for the {name} {self}: {words}")
                    told = True
            time.sleep(pause * random.uniform(0.5, 1.0))  # waiters that woke together would collide again
            pause = min(2.0, 1.6 * pause)

    def _migrate(self, connection: sa.Connection) -> None:
        """Bring the tables to the newest version.

        Raises:
            DatabaseError: they are newer than this musweep.
        """
        if connection.dialect.name == "postgresql":  # creating what another creates at the same time is an error there
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7304118)"))
        steps = self.kind.migrations
        version = sa.Table(
            f"musweep_{self.kind.name}_schema", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False)
        )
        version.create(connection, checkfirst=True)
        at = connection.execute(sa.select(version.c.version)).scalar()
        if at is None:
            connection.execute(version.insert().values(version=0))
            at = 0
        if at > len(steps):
            raise self.kind.error(
                f"{self.kind.name} {self}: its tables have version {at}, this musweep knows {len(steps)}: upgrade"
            )
        for step in steps[at:]:
            step(connection)
        if at < len(steps):
            connection.execute(version.update().values(version=len(steps)))


def _passes(error: sa.exc.DBAPIError) -> bool:
    """Whether an error may be gone a moment later; so is a key that another took, since work looks before it adds."""
    if isinstance(error, sa.exc.IntegrityError):
        return "unique" in str(error.orig).lower()
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) or error.connection_invalidated


def _parsed(url: str, kind: Kind) -> sa.URL:
    if url.startswith("postgres://"):
        url = "postgresql" + url.removeprefix("postgres")
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise kind.error(f"{kind.name}: {redact(url)!r} is no database URL: give postgresql://HOST/NAME") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise kind.error(f"{kind.name}: {redact(url)!r}: {backend} is not known here; legal: sqlite, postgresql")
    return parsed.set(drivername="postgresql+psycopg") if backend == "postgresql" else parsed


def _engine(url: sa.URL, is_sqlite: bool, kind: Kind) -> sa.Engine:
    if is_sqlite:
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": 1.0})
        sa.event.listen(engine, "connect", _sqlite_connected)
        sa.event.listen(engine, "begin", _sqlite_begin)
        return engine
    patience = {"connect_timeout": 5, "keepalives_idle": 10, "tcp_user_timeout": 20_000}
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=patience)
    except ModuleNotFoundError:
        raise kind.error(f"{kind.name} on PostgreSQL needs psycopg: pip install 'musweep[postgres]'") from None
    sa.event.listen(engine, "begin", _postgres_begin)
    return engine


def _sqlite_connected(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # else Python begins transactions itself, and later than we do


def _sqlite_begin(connection: sa.Connection) -> None:
    # A writer locks before it reads: two that read first would each wait for the other.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")


def _postgres_begin(connection: sa.Connection) -> None:
    # A process that was stopped inside a transaction must not keep the others out.
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '10s'")
    connection.exec_driver_sql("SET LOCAL lock_timeout = '15s'")
