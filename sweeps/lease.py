"""One writer per sweep folder: an OS lock that a dead process cannot keep, and an epoch that outs a stale one."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from sweeps import journal

_FILE = "lease.json"


class LeaseHeld(RuntimeError):
    """Another process writes this sweep."""


class StaleWriter(RuntimeError):
    """The sweep was taken over since this process took it: nothing it does may count."""


class Lease:
    """The right to write a sweep folder, from construction to `release` or the end of the process.

    `epoch` is higher than that of every earlier holder. The file keeps the last holder's words after release.

    Raises:
        LeaseHeld: a living process holds it; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FILE
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise LeaseHeld(_held(folder, read(folder))) from None
        self.epoch = _last_epoch(folder) + 1
        holder = {"epoch": self.epoch, "pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
        # Written in place, since the lock is on this very file; the padding keeps a shorter text from leaving a tail.
        os.pwrite(self._file, json.dumps(holder).encode().ljust(255) + b"\n", 0)
        os.fsync(self._file)

    def check(self) -> None:
        """Refuse to go on as a stale writer.

        Raises:
            StaleWriter: the file was replaced, removed or carries a newer epoch.
        """
        epoch = read(self.path.parent).get("epoch")
        if epoch != self.epoch:
            raise StaleWriter(
                f"{self.path}: epoch {epoch} is in the file, this process holds {self.epoch}; it must stop"
            )

    def release(self) -> None:
        """Give the folder free; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def read(folder: Path) -> dict[str, Any]:
    """What the last holder wrote: epoch, pid, host, started; empty if nothing readable is there."""
    try:
        holder = json.loads((folder / _FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def held(folder: Path) -> bool:
    """Whether a living process holds the folder now."""
    try:
        file = os.open(folder / _FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _held(folder: Path, holder: dict[str, Any]) -> str:
    if not holder:
        return f"{folder}: another process is writing this sweep"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["started"]))
    return f"{folder}: process {holder['pid']} on {holder['host']} has been writing this sweep since {since}"


def _last_epoch(folder: Path) -> int:
    """The highest epoch that any holder had; the journal knows it too, should the lease file be torn or lost."""
    epoch = read(folder).get("epoch")
    if isinstance(epoch, int):
        return epoch
    opened = journal.of_type(journal.read(folder / "journal.jsonl"), "open")
    return max((record["epoch"] for record in opened), default=0)
