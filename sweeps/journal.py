r"""The journal: an append-only file of checksummed commits, the truth of a sweep.

A line is `CRC32 JSON\n`, the checksum over the JSON bytes in eight hex digits; the JSON is a list of records
that became true together, so a crash never leaves half a decision. A line counts only if it is whole and its
checksum fits: a torn tail loses the commit it touched and no other.
Non-finite floats are written as the strings "nan", "inf" and "-inf" by `number` and read back by `float`.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
FORMAT = 1


class JournalError(ValueError):
    """A journal that is damaged before its tail: no crash does that, so nothing is guessed."""


def number(value: float) -> float | str:
    """A float as strict JSON can hold it."""
    return value if math.isfinite(value) else str(value)


def encode(commit: Iterable[Record]) -> bytes:
    """One journal line."""
    text = json.dumps(list(commit), separators=(",", ":"), allow_nan=False).encode()
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


def scan(data: bytes, source: str = "journal") -> tuple[list[Record], int]:
    """The records of a journal's bytes and the length of its sound part.

    Raises:
        JournalError: a damaged line is followed by a sound one, which no torn write explains.
    """
    records: list[Record] = []
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
        records.extend(commit)
        start = end + 1
    return records, start


def read(path: Path) -> list[Record]:
    """All sound records of a journal; a missing file has none."""
    try:
        return scan(path.read_bytes(), str(path))[0]
    except FileNotFoundError:
        return []


def tail(path: Path, offset: int) -> tuple[list[Record], int]:
    """The sound records past a byte offset, and the offset after them: for readers beside the writer."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            records, length = scan(file.read(), str(path))
    except FileNotFoundError:
        return [], offset
    return records, offset + length


class Journal:
    """The one writer of a journal file. Opening it cuts off a torn tail.

    The file is locked: a board that outlives its killed driver by a moment keeps its successor waiting.

    Raises:
        TimeoutError: another process still writes it after `patience_s` seconds.
    """

    def __init__(self, path: Path, patience_s: float = 60.0) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(self._file, path, patience_s)
            self.records, sound = scan(path.read_bytes(), str(path))
        except (TimeoutError, JournalError):
            os.close(self._file)  # an open file would keep the lock, even against this very process
            raise
        os.ftruncate(self._file, sound)
        os.lseek(self._file, sound, os.SEEK_SET)
        os.fsync(self._file)
        _fsync_folder(path.parent)

    def append(self, commit: Iterable[Record]) -> None:
        """Write records that become true together; return once they are on disk.

        Raises:
            OSError: nothing of this call counts as written (disk full, say); the tail is cut back.
        """
        data = encode(commit)
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


def _lock(file: int, path: Path, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TimeoutError(f"{path}: another process is still writing it after {patience_s:g} s") from None
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
