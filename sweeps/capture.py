"""What a worker prints, C libraries and children included, kept as a file in the sweep folder.

Standard output and error of the process are the file itself, not a pipe: nothing printed before a crash is lost, and
nobody has to be alive to read. Python's own prints also go where they went before.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 10 * 2**20
MARK = "[musweep] "
_TRIAL = re.compile(r"t\d{5,}")


class Capture:
    """Sends this process's standard output and error to a file, from construction to `close`.

    The file is cut at a size and the part before kept as `NAME.1`. What goes on past the size between two prints from
    Python or two marks, as by a chatty C library, is in the file all the same.

    Args:
        path: the file; its folder is made.
        limit: bytes after which a new file is begun.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path, self._limit = path, limit
        self._lock = threading.RLock()
        self._held: set[str] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        _flush()
        self._before = {number: os.dup(number) for number in (1, 2)}
        self._open()
        self._streams = sys.stdout, sys.stderr
        sys.stdout = _stream(self, 1)
        sys.stderr = _stream(self, 2)

    def mark(self, verb: str, trials: Iterable[str] = (), words: str = "") -> None:
        """Write a line of ours: that the worker `began`, or that trials were `seated` or `ended`."""
        with self._lock:
            named = sorted(trials)
            if verb == "began":
                self._held.clear()
            (self._held.difference_update if verb == "ended" else self._held.update)(named)
            _flush()
            self._rotate()
            self._line(" ".join(filter(None, (verb, *named, words))))

    def _line(self, words: str) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError):
            os.write(1, f"{MARK}{at} {words}\n".encode())

    def close(self) -> None:
        """Give the process its output back."""
        _flush()
        sys.stdout, sys.stderr = self._streams
        for number, before in self._before.items():
            os.dup2(before, number)
            os.close(before)

    def write(self, number: int, data: bytes) -> None:
        """Take what Python printed; a full disk or a closed terminal is no error of who prints."""
        with self._lock:
            self._rotate()
            for file in (number, self._before[number]):
                with contextlib.suppress(OSError):
                    os.write(file, data)

    def _open(self) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        for number in (1, 2):
            os.dup2(file, number)
        os.close(file)

    def _rotate(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if os.fstat(1).st_size >= self._limit:
                self.path.replace(earlier(self.path))
                self._open()
                if self._held:  # a reader who has lost the part before the last must know whose lines follow
                    self._line(" ".join(("seated", *sorted(self._held))))


class _Raw(io.RawIOBase):
    """A stream's bytes on their way into the capture."""

    def __init__(self, capture: Capture, number: int) -> None:
        self._capture, self._number = capture, number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def write(self, data: object) -> int:
        plain = bytes(data)  # type: ignore[call-overload]
        self._capture.write(self._number, plain)
        return len(plain)


def _stream(capture: Capture, number: int) -> io.TextIOWrapper:
    # Without a buffered layer, whose lock a print from within a print would meet.
    raw: Any = _Raw(capture, number)
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


# -- reading -------------------------------------------------------------------------------------------------------


def earlier(path: Path) -> Path:
    """Where the part before a log's present one is."""
    return path.with_name(f"{path.name}.1")


def log_path(folder: Path, group: int) -> Path:
    """A group's log in a sweep folder."""
    return folder / "logs" / f"group-{group:03d}.log"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a group's log, and the trials that the group held when it was written."""

    text: str
    trials: frozenset[str]
    ours: bool


class Reader:
    """Follows one group's log through its rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trials: frozenset[str] = frozenset()
        self._inode, self._offset = -1, 0
        self._rest = b""

    def read(self) -> Iterator[Line]:
        """The lines since the last call."""
        parts = [(path, _inode(path)) for path in (earlier(self._path), self._path)]
        parts = [(path, inode) for path, inode in parts if inode >= 0]
        known = [inode for _, inode in parts]
        if self._inode in known:  # what was read to its end before needs no second look
            parts = parts[known.index(self._inode) :]
        for path, inode in parts:
            if inode != self._inode:
                self._inode, self._offset = inode, 0
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:  # another file under a number that was free again
                    self._offset = 0
                file.seek(self._offset)
                data = file.read()
                self._offset += len(data)
                yield from self._lines(data)

    def _lines(self, data: bytes) -> Iterator[Line]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            text = line.decode(errors="replace").rstrip("\r")
            if not text.startswith(MARK):
                yield Line(text, self._trials, False)
                continue
            words = text.removeprefix(MARK).split()[1:]
            named = frozenset(word for word in words[1:] if _TRIAL.fullmatch(word))
            before = self._trials
            match words[:1]:
                case ["began"]:
                    self._trials = frozenset()
                case ["seated"]:
                    self._trials |= named
                case ["ended"]:
                    self._trials -= named
            yield Line(text, before | self._trials, True)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1
