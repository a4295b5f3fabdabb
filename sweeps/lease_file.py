"""The lease of a sweep in a folder: `lease.json`, an OS lock on it, and a count of beats for hosts without that lock.

On one host the OS lock (flock) says it all: a dead process cannot keep it. Between hosts it may hold or not, as the
file system has it, so a free lock of another host's is not enough: its holder must have been silent, too. Two that
find it silent at once are told apart by a file that only one of them can create, `.lease-EPOCH`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps import journal
from sweeps.lease import TTL_S, Clock, LeaseHeld, StaleWriter

_FILE = "lease.json"
_CLAIM = ".lease-"
_SIZE = 512
_LOOK_S = 0.5


def _boot() -> str:
    """What tells this start of the machine from others; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs, so far as it matters to whether its death would be seen."""

    host: str = field(default_factory=socket.gethostname)
    boot: str = field(default_factory=_boot)
    locks: bool = True
    """Whether to use the file system's locks."""

    def same(self, said: dict[str, Any]) -> bool:
        """Whether what another process said of its own place means this one."""
        return (said.get("host"), said.get("boot")) == (self.host, self.boot)


class FileLease:
    """Holds `lease.json`; see `sweeps.lease.Lease`."""

    def __init__(
        self,
        folder: Path,
        patience_s: float,
        clock: Clock,
        waiting: Callable[[str], object],
        place: Place | None = None,
        newest: int = 0,
    ) -> None:
        self.gone = 0
        """Up to this epoch all holders are known to be dead: they ran on this host, and their lock is free."""
        self._newest, self._folder, self._clock, self._place = newest, folder, clock, place or Place()
        self._file = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self.epoch = self._take(patience_s, waiting)
            self._said: dict[str, Any] = {
                "epoch": self.epoch,
                "pid": os.getpid(),
                "host": self._place.host,
                "started": time.time(),  # for people
                "boot": self._place.boot,
                "holder": secrets.token_hex(8),
                "beat": 0,
            }
            self._write()
        except BaseException:
            os.close(self._file)
            raise

    def renew(self) -> None:
        """See `Backend.renew`."""
        self.check()
        self._said["beat"] += 1
        self._write()

    def check(self) -> None:
        """See `Backend.check`."""
        look(self._folder, self.epoch, self._said["holder"])

    def release(self) -> None:
        """See `Backend.release`."""
        with contextlib.suppress(OSError, StaleWriter):
            self.check()
            self._said["released"] = True
            self._write()
        os.close(self._file)

    def _take(self, patience_s: float, waiting: Callable[[str], object]) -> int:
        """Raise the epoch, as soon as no living process can hold the present one."""
        locked = self._lock()
        last, claims = read(self._folder), _claims(self._folder)
        newest = max(claims, default=0)
        epoch = max(_last_epoch(self._folder, last), newest, self._newest)
        if locked and self._place.same(last):
            self.gone = last.get("epoch", 0)
        gone = last.get("released") or (locked and self._place.same(last)) or "beat" not in last
        if newest > last.get("epoch", newest):  # its maker died before it could say more, or is about to
            gone = locked and self._place.same(claims[newest])
        if not gone:
            waiting(f"{_who(self._folder, last)}; taking over if nothing is heard of it for {patience_s:g} s")
            self._watch(last, patience_s)
        self._claim(epoch + 1)
        return epoch + 1

    def _lock(self) -> bool:
        """Take the OS lock if there is such a thing here."""
        if not self._place.locks:
            return False
        for attempt in range(3):  # `held` takes the lock for a moment, too
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02 * (attempt + 1))
            except OSError as error:
                if error.errno not in journal.NO_LOCKS:
                    raise
                return False
            else:
                return True
        raise LeaseHeld(_who(self._folder, read(self._folder)))

    def _watch(self, last: dict[str, Any], patience_s: float) -> None:
        """Wait until the holder has left or been silent for long enough."""
        until = self._clock.now() + patience_s
        while (left := until - self._clock.now()) > 0:
            self._clock.sleep(min(left, _LOOK_S))
            found = read(self._folder)
            if found.get("released") and found != last:
                return
            if found != last:
                raise LeaseHeld(_who(self._folder, found))

    def _claim(self, epoch: int) -> None:
        """Be the only one to take this epoch: creating a file is atomic where locks are not."""
        path = self._folder / f"{_CLAIM}{epoch:08d}"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise LeaseHeld(f"{self._folder}: another process is just taking this sweep over") from None
        os.write(file, json.dumps({"host": self._place.host, "boot": self._place.boot}).encode())
        os.close(file)
        for old in _claims(self._folder):
            if old < epoch:
                (self._folder / f"{_CLAIM}{old:08d}").unlink(missing_ok=True)

    def _write(self) -> None:
        # Written in place, since the lock is on this very file; the padding keeps a shorter text from leaving a tail.
        os.pwrite(self._file, json.dumps(self._said).encode().ljust(_SIZE - 1) + b"\n", 0)
        os.fsync(self._file)


def look(folder: Path, epoch: int, holder: str | None = None) -> None:
    """Find out whether the epoch is still the newest.

    Raises:
        StaleWriter: the file was replaced, removed or carries a newer epoch.
        OSError: it cannot be read now.
    """
    found = read(folder)
    newest = found.get("epoch")
    if (
        isinstance(newest, int)
        and newest <= epoch
        and (newest < epoch or holder in (None, found.get("holder", holder)))
    ):
        return  # a lower one: a stale holder woke up in the very moment of a beat; the next beat repairs it
    raise StaleWriter(f"{folder / _FILE}: epoch {newest} is in the file, this process holds {epoch}; it must stop")


def read(folder: Path) -> dict[str, Any]:
    """What the last holder wrote; empty if nothing readable is there.

    Raises:
        OSError: there is something, but it cannot be read now.
    """
    for attempt in range(3):  # a beat is written in place, so one may be met half written
        try:
            holder = json.loads((folder / _FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError:
            time.sleep(0.01 * (attempt + 1))
        else:
            return holder if isinstance(holder, dict) else {}
    return {}


def held(folder: Path) -> bool:
    """Whether a living process seems to hold the folder now; of another host's by the age of its last beat."""
    try:
        file = os.open(folder / _FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        beaten = os.fstat(file).st_mtime
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    last = read(folder)
    if last.get("released") or "beat" not in last or Place().same(last):
        return False
    return time.time() - beaten < TTL_S


def _claims(folder: Path) -> dict[int, dict[str, Any]]:
    """The epochs that were claimed, and from where."""
    found: dict[int, dict[str, Any]] = {}
    for path in folder.glob(f"{_CLAIM}*"):
        with contextlib.suppress(ValueError, OSError):
            epoch = int(path.name.removeprefix(_CLAIM))
            found[epoch] = {}
            found[epoch] = json.loads(path.read_bytes())
    return found


def _who(folder: Path, holder: dict[str, Any]) -> str:
    if not {"started", "pid", "host"} <= holder.keys():
        return f"{folder}: another process is writing this sweep"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["started"]))
    return f"{folder}: process {holder['pid']} on {holder['host']} has been writing this sweep since {since}"


def _last_epoch(folder: Path, last: dict[str, Any]) -> int:
    """The highest epoch that any holder had; the journal knows it too, should the lease file be torn or lost."""
    epoch = last.get("epoch")
    if isinstance(epoch, int):
        return epoch
    opened = journal.of_type(journal.read(folder / "journal.jsonl"), "open")
    return max((record["epoch"] for record in opened), default=0)
