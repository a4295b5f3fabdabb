"""One writer per sweep: a lease with an epoch, renewed while its holder lives, taken over when it no longer does.

Where the sweep lies in a folder the lease is `lease.json` there (`sweeps.lease_file`). No decision compares wall
clocks: a holder counts beats, and who waits for it to fall silent measures that by a clock of its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

TTL_S = 30.0
"""How long a holder may be silent before another host may take its sweep over."""
BEAT_S = 5.0
"""How often a holder renews its lease."""


class LeaseHeld(RuntimeError):
    """Another process writes this sweep."""


class StaleWriter(RuntimeError):
    """The sweep was taken over since this process took it: nothing it does may count."""


def _awake() -> float:
    """Seconds that also pass while the machine sleeps, which is when others may have taken over."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class Clock:
    """What leases measure time with."""

    awake: Callable[[], float] = _awake
    """The holder's: counts sleep, so that it gives up rather too early."""
    now: Callable[[], float] = time.monotonic
    """The contender's: counts no sleep, so that it waits rather too long."""
    sleep: Callable[[float], None] = time.sleep


class Backend(Protocol):
    """Where a lease is kept."""

    epoch: int

    def renew(self) -> None:
        """Tell all others that the holder lives.

        Raises:
            StaleWriter: another one has taken over.
            OSError: it could not be told.
        """

    def check(self) -> None:
        """Look whether another one has taken over. Raises as `renew` does."""

    def release(self) -> None:
        """Tell all others that they need not wait."""


class Lease:
    """The right to write a sweep, from construction to `release` or the end of the process.

    `epoch` is higher than that of every earlier holder. A thread renews the lease.

    Args:
        folder: the sweep folder.
        patience_s: how long a holder on another host must have been silent to be taken for dead.
        beat_s: seconds between renewals; None: the caller renews.
        waiting: told in words why taking the lease takes long.
        options: of `sweeps.lease_file.FileLease`, for tests.

    Raises:
        LeaseHeld: a living process holds it; the message names it.
    """

    def __init__(
        self,
        folder: Path,
        patience_s: float = TTL_S,
        *,
        beat_s: float | None = BEAT_S,
        clock: Clock | None = None,
        waiting: Callable[[str], object] = lambda _words: None,
        **options: Any,
    ) -> None:
        self.folder, self._clock, self._ttl_s = folder, clock or Clock(), patience_s
        self._backend = _taken(folder, patience_s, self._clock, waiting, options)
        self.epoch = self._backend.epoch
        self._renewed = self._clock.awake()
        self._stale = ""
        self._turn = threading.Lock()
        self._left = threading.Event()
        self._released = False
        if beat_s is not None:
            threading.Thread(target=self._beat, args=(beat_s,), name="musweep-lease", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether this process is known to hold the lease no more."""
        return bool(self._stale)

    def check(self) -> None:
        """Refuse to go on as a stale writer.

        Raises:
            StaleWriter: another process has taken over, or might have: this one could not renew for too long.
        """
        if not self._stale and self._silent_s() > self._ttl_s:
            self.renew()
        try:
            if not self._stale:
                self._backend.check()
        except StaleWriter as error:
            self._stale = str(error)
        except OSError:
            pass  # while it is renewed in time nobody else takes it
        if self._stale:
            raise StaleWriter(self._stale)

    def renew(self) -> None:
        """Tell all others that this process lives, or find that it came too late; never raises."""
        if not self._turn.acquire(timeout=BEAT_S):  # another renewal hangs
            self._failed("it hangs")
            return
        try:
            if self._released or self._stale:
                return
            asked = self._clock.awake()
            self._backend.renew()
            self._renewed = asked
        except StaleWriter as error:
            self._stale = str(error)
        except OSError as error:
            self._failed(str(error))
        finally:
            self._turn.release()

    def _failed(self, words: str) -> None:
        if self._silent_s() > self._ttl_s:
            self._stale = f"{self.folder}: the lease could not be renewed for {self._silent_s():.0f} s: {words}"

    def release(self) -> None:
        """Give the sweep free; a second call does nothing."""
        self._left.set()
        if not self._turn.acquire(timeout=BEAT_S):
            return  # what hangs will not be told either; it expires
        try:
            if not self._released:
                self._released = True
                self._backend.release()
        finally:
            self._turn.release()

    def _silent_s(self) -> float:
        return self._clock.awake() - self._renewed

    def _beat(self, beat_s: float) -> None:
        while not self._left.wait(beat_s) and not self._stale:
            self.renew()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Guard:
    """Looks on behalf of another process of the holder's, its board, whether the lease still has the holder's epoch."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self._look = _looker(folder, epoch)

    def check(self) -> None:
        """Called before each write.

        Raises:
            StaleWriter: another driver has taken the sweep over.
            OSError: it cannot be known now; a passing fault.
        """
        self._look()


class _Remote:
    """The lease of a sweep on a store: a row in a database, and the working folder on this machine."""

    def __init__(self, row: Backend, local: Backend) -> None:
        self.epoch, self._parts = row.epoch, (row, local)

    def renew(self) -> None:
        for part in self._parts:
            part.renew()

    def check(self) -> None:
        for part in self._parts:
            part.check()

    def release(self) -> None:
        for part in self._parts:
            part.release()


def _taken(
    folder: Path, patience_s: float, clock: Clock, waiting: Callable[[str], object], options: dict[str, Any]
) -> Backend:
    from sweeps import places
    from sweeps.lease_file import FileLease

    url = places.remote_of(folder)
    if url is None:
        return FileLease(folder, patience_s, clock, waiting, **options)
    from sweeps import lease_sql, segments
    from sweeps.remote import Remote

    database = lease_sql.database()
    newest = segments.newest_epoch(Remote(url).names("journal/"))
    if database is not None:
        newest = max(newest, lease_sql.newest_epoch(database, url))
    local = FileLease(folder, patience_s, clock, waiting, newest=newest, **options)
    if database is None:
        return local
    try:
        row = lease_sql.SqlLease(database, url, patience_s, clock, waiting, local.epoch, local.gone)
    except BaseException:
        local.release()
        raise
    return _Remote(row, local)


def _looker(folder: Path, epoch: int) -> Callable[[], None]:
    from sweeps import places
    from sweeps.lease_file import look

    url = places.remote_of(folder)
    if url is None:
        return lambda: look(folder, epoch)
    from sweeps import lease_sql, segments

    database = lease_sql.database()
    row = segments.looker(url, epoch) if database is None else lease_sql.looker(database, url, epoch)

    def check() -> None:
        look(folder, epoch)
        row()

    return check


def read(folder: Path) -> dict[str, Any]:
    """What the last holder wrote: epoch, pid, host, started, ...; empty if nothing readable is there."""
    from sweeps import lease_file

    with contextlib.suppress(OSError):
        return lease_file.read(folder)
    return {}


def held(folder: Path) -> bool:
    """Whether a process seems to hold the sweep now: to be shown, not to be relied on."""
    from sweeps import lease_file, places

    if (url := places.remote_of(folder)) is not None:
        from sweeps import lease_sql

        with contextlib.suppress(OSError):
            if (database := lease_sql.database()) is not None:
                return lease_sql.held(database, url)
    return lease_file.held(folder)
