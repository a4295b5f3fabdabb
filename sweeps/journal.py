r"""The journal: an append-only file of checksummed commits, the truth of a sweep.

A line is `CRC32 JSON\n`, the checksum over the JSON bytes in eight hex digits; the JSON is a list of records
that became true together, so a crash never leaves half a decision. A line counts only if it is whole and its
checksum fits: a torn tail loses the commit it touched and no other.
The first record of a commit carries the epoch of its writer's lease. What a writer of an older epoch wrote after
a newer one had opened the journal does not count.
Non-finite floats are written as the strings "nan", "inf" and "-inf" by `number` and read back by `float`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]
FORMAT = 1
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system says that has no locks."""


_PASSING = (
    *(errno.EIO, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
)


class JournalError(ValueError):
    """A journal that is damaged before its tail: no crash does that, so nothing is guessed."""


class PassingError(OSError):
    """A fault of a place to write to that is worth waiting out, such as a server that does not answer."""


def trouble(error: OSError) -> str:
    """What a writer waits for after this error, in words; empty if waiting is of no use."""
    if isinstance(error, PassingError):
        return f"{error}; waiting for it"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; waiting for room"
    return f"{error.strerror}; waiting for it to pass" if error.errno in _PASSING else ""


def number(value: float) -> float | str:
    """A float as strict JSON can hold it."""
    return value if math.isfinite(value) else str(value)


def encode(commit: Iterable[Record], epoch: int | None = None) -> bytes:
    """One journal line."""
    records = list(commit)
    if epoch is not None and records:
        records[0] = {**records[0], "epoch": epoch}
    text = json.dumps(records, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(line: bytes) -> list[Record] | None:
    """The commit of a line without its newline, or None if the line is damaged."""
    if len(line) < 10 or line[8:9] != b" ":
        return None
    try:
        if int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        commit: list[Record] = json.loads(line[9:])
    except ValueError:
        return None
    return commit


class Fence:
    """Tells the commits that count from those of stale writers, given all of a journal in order."""

    def __init__(self) -> None:
        self.epoch = 0
        """The newest that has opened the journal."""

    def admits(self, commit: Sequence[Record]) -> bool:
        """Whether a commit counts. Those of musweeps before epochs were written carry none and do."""
        opens = [record["epoch"] for record in commit if record.get("type") == "open" and "epoch" in record]
        if any(epoch < self.epoch for epoch in (*opens, *(r["epoch"] for r in commit[:1] if "epoch" in r))):
            return False
        self.epoch = max(self.epoch, *opens, 0)
        return True


def scan(data: bytes, source: str = "journal", fence: Fence | None = None) -> tuple[list[Record], int]:
    """The records of a journal's bytes that count, and the length of its sound part.

    Raises:
        JournalError: a damaged line is followed by a sound one, which no torn write explains.
    """
    records: list[Record] = []
    fence = fence or Fence()
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        commit = _decode(data[start:end])
        if commit is None:
            if any(_decode(line) is not None for line in data[end + 1 :].split(b"\n")):
                raise JournalError(
                    f"{source}: damaged at byte {start}, with sound records after it. "
                    "Restore the file from a copy; nothing was changed."
                )
            return records, start
        if fence.admits(commit):
            records.extend(commit)
        start = end + 1
    return records, start


def read(path: Path) -> list[Record]:
    """All sound records of a journal; a missing file has none."""
    try:
        return scan(path.read_bytes(), str(path))[0]
    except FileNotFoundError:
        return []


def tail(path: Path, offset: int, fence: Fence | None = None) -> tuple[list[Record], int]:
    """The sound records past a byte offset, and the offset after them: for readers beside the writer.

    Who follows a journal from its start hands in the same fence each time.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            records, length = scan(file.read(), str(path), fence)
    except FileNotFoundError:
        return [], offset
    return records, offset + length


class Journal:
    """The one writer of a journal file. Opening it cuts off a torn tail.

    The file is locked: a board that outlives its killed driver by a moment keeps its successor waiting. If the last
    writer did not close the journal, its successor goes on in a copy under the same name: should that writer still live
    on another host, whose locks are not seen here, it goes on in a file that has no name any more.

    Args:
        path: the file.
        patience_s: how long to wait for another process to let go of it.
        epoch: of the writer's lease, put into each commit.

    Raises:
        TimeoutError: another process still writes it after `patience_s` seconds.
    """

    def __init__(self, path: Path, patience_s: float = 60.0, epoch: int | None = None) -> None:
        self.path, self._epoch = path, epoch
        self._file = _open_locked(path, patience_s)
        try:
            there = path.read_bytes()
            data = self._sound(there)
            self.records, sound = scan(data, str(path))
            left = self.records and self.records[-1].get("type") != "close"
            if left or data[:sound] != there[:sound]:
                old, self._file = self._file, _copied(path, data[:sound])
                os.close(old)
        except BaseException:
            os.close(self._file)  # an open file would keep the lock, even against this very process
            raise
        os.ftruncate(self._file, sound)
        os.lseek(self._file, sound, os.SEEK_SET)
        os.fsync(self._file)
        _fsync_folder(path.parent)

    def _sound(self, data: bytes) -> bytes:
        """What the journal is, given what its file holds."""
        return data

    def append(self, commit: Iterable[Record]) -> None:
        """Write records that become true together; return once they are on disk.

        Raises:
            OSError: nothing of this call counts as written (disk full, say); the tail is cut back.
        """
        self._append(encode(commit, self._epoch))

    def _append(self, data: bytes) -> None:
        start = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, start)
            os.lseek(self._file, start, os.SEEK_SET)
            raise

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)


def _open_locked(path: Path, patience_s: float) -> int:
    """Open the file that has this name once it is locked, which may be another than had it before."""
    until = time.monotonic() + patience_s
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(file, path, max(0.0, until - time.monotonic()))
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _copied(path: Path, data: bytes) -> int:
    """Put a copy of a journal in its place; returns it open and locked."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _lock(file, temporary, 0.0)
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
        temporary.replace(path)
    except BaseException:
        os.close(file)
        temporary.unlink(missing_ok=True)
        raise
    return file


def _lock(file: int, path: Path, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return  # beats and epochs keep writers apart
            if not isinstance(error, BlockingIOError):
                raise
            if time.monotonic() >= until:
                raise TimeoutError(f"{path}: another process is still writing it after {patience_s:.1f} s") from None
            time.sleep(0.05)
        else:
            return


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def of_type(records: Iterable[Record], kind: str) -> Iterator[Record]:
    """The records of one type, in order."""
    return (record for record in records if record["type"] == kind)
