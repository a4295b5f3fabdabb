"""events.jsonl: what happens to a sweep as lines of JSON, while it happens.

A line with `record` is a record of the journal (its number there) and can be made again; the others tell what only a
driver saw: that it came or went, trouble, a group's place. Lines are whole: a torn one is cut off by the next writer.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeps import journal
from sweeps.history import trial_id
from sweeps.tracked import redact

FILE = "events.jsonl"
SCHEMA_VERSION = 1
POLL_S = 0.5
_KEY = re.compile(
    r"(?i)((?:^|[?&;,\s])[\w-]*(?:token|password|passwd|secret|signature|api_?key)[\w-]*[=:] *)[^&;,\s\"']+"
)
_HEADER = re.compile(r"(?i)(authorization: *(?:bearer|basic)) +\S+")


def scrub(text: str) -> str:
    """A text without what opens doors: passwords of URIs, values of keys such as `token=`, headers."""
    return _KEY.sub(r"\1***", _HEADER.sub(r"\1 ***", redact(text)))


def encode(event: Mapping[str, Any]) -> bytes:
    """One line."""
    return json.dumps(_clean(event), separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _clean(value: Any) -> Any:
    """Plain values without passwords, non-finite numbers as the journal writes them."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, float):
        return journal.number(value)
    if isinstance(value, Mapping):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value


class Maker:
    """Turns journal records into lines, in order; measurements and configs are left to the journal."""

    def __init__(self) -> None:
        self.sweep_id = ""
        self._number = 0

    def lines(self, records: Iterable[journal.Record]) -> Iterator[bytes]:
        """The lines of the next records."""
        for record in records:
            number, self._number = self._number, self._number + 1
            if record["type"] == "report":
                continue
            self.sweep_id = self.sweep_id or record.get("sweep_id", "")
            yield encode(_event(record, number, self.sweep_id))


def _event(record: journal.Record, number: int, sweep_id: str) -> dict[str, Any]:
    event = {"schema_version": SCHEMA_VERSION, "time": record["time"], "type": record["type"], "sweep_id": sweep_id}
    if "trial" in record:
        event["trial_id"] = trial_id(record["trial"])
    hidden = {"trial", "config", *event}
    event |= {key: value for key, value in record.items() if key not in hidden}
    return {**event, "record": number}


def read(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a sweep's events; none where there is no file."""
    try:
        return [event for _, event in _split((folder / FILE).read_bytes())]
    except FileNotFoundError:
        return []


def _split(data: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Whole lines that hold an object, with what they hold."""
    for line in data.split(b"\n")[:-1]:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield line + b"\n", event


def rebuild(folder: Path, records: Iterable[journal.Record] | None = None) -> None:
    """Make the file agree with the journal; what drivers told stays, in order of time.

    Raises:
        OSError: it could not be written; the old file, if any, is still there.
    """
    from sweeps.store import atomic_write

    records = journal.read(folder / "journal.jsonl") if records is None else records
    made = list(Maker().lines(records))
    if [line for line, event in _present(folder) if "record" in event] != made or not made:
        atomic_write(folder / FILE, b"".join(_merged(folder, made)))


def _merged(folder: Path, made: list[bytes]) -> list[bytes]:
    """Lines of the journal with what drivers told between them, each before the first that is later."""
    told = sorted((event["time"], line) for line, event in _present(folder) if "record" not in event)
    found: list[bytes] = []
    for line in made:
        at = json.loads(line)["time"] if told else 0.0
        while told and told[0][0] < at:
            found.append(told.pop(0)[1])
        found.append(line)
    return found + [line for _, line in told]


def _present(folder: Path) -> list[tuple[bytes, dict[str, Any]]]:
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return []
    return [pair for pair in _split(data) if isinstance(pair[1].get("time"), int | float) and "type" in pair[1]]


class Live:
    """The one writer of a running sweep's events. What cannot be written, on a full disk, waits in memory.

    Args:
        folder: the sweep folder.
        records: what its journal holds so far.
    """

    def __init__(self, folder: Path, records: Iterable[journal.Record]) -> None:
        self._path = folder / FILE
        self._maker = Maker()
        self._pending: list[bytes] = []
        self._lock = threading.Lock()
        self._file = -1
        made = list(self._maker.lines(records))
        present = [line for line, event in _present(folder) if "record" in event]
        if present == made[: len(present)]:
            self._pending = made[len(present) :]
        else:
            with contextlib.suppress(OSError):
                from sweeps.store import atomic_write

                atomic_write(self._path, b"".join(_merged(folder, made)))
        self._flush()

    @property
    def sweep_id(self) -> str:
        """The sweep's id for life; before its first record its folder's name."""
        return self._maker.sweep_id or self._path.parent.name

    def add(self, records: Iterable[journal.Record]) -> None:
        """Take in what the journal has gained."""
        with self._lock:
            self._pending += self._maker.lines(records)
            self._flush()

    def tell(self, kind: str, **fields: Any) -> None:
        """Write an event that is in no journal."""
        head = {"schema_version": SCHEMA_VERSION, "time": time.time(), "type": kind, "sweep_id": self.sweep_id}
        with self._lock:
            self._pending.append(encode({**head, **fields}))
            self._flush()

    def close(self) -> None:
        """Write the rest, if it can be written, and release the file."""
        with self._lock:
            self._flush()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _open(self) -> None:
        """Hold the file that is there now: it may have been made anew, or deleted, since the last line."""
        if self._file >= 0:
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(self._file).st_ino:
                    return
            os.close(self._file)
            self._file = -1
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        _cut_torn(self._file)

    def _flush(self) -> None:
        """Append what is pending, all of it or nothing."""
        if not self._pending:
            return
        data = b"".join(self._pending)
        try:
            self._open()
            start = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, data)
            except OSError:
                written = 0
            if written == len(data):
                self._pending.clear()
            else:
                os.ftruncate(self._file, start)
        except OSError:
            return  # it stays pending


def _cut_torn(file: int) -> None:
    """Cut off what follows the last newline."""
    size = end = os.fstat(file).st_size
    while end:
        start = max(0, end - 65536)
        cut = os.pread(file, end - start, start).rfind(b"\n")
        if cut >= 0:
            end = start + cut + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)


def append(folder: Path, kind: str, **fields: Any) -> None:
    """Write one event from beside the driver, such as a preflight's; a folder that takes none is let be."""
    known = next((event["sweep_id"] for event in read(folder) if event.get("sweep_id")), folder.name)
    head = {"schema_version": SCHEMA_VERSION, "time": time.time(), "type": kind, "sweep_id": known}
    with contextlib.suppress(OSError):
        file = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, encode({**head, **fields}))
        finally:
            os.close(file)


def follow(folder: Path, over: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """All events and then those to come, each once, until `over` says that none will."""
    offset, inode = 0, 0
    last_record, last_told = -1, 0.0
    while True:
        ending = over()
        with contextlib.suppress(FileNotFoundError), (folder / FILE).open("rb") as file:
            found = os.fstat(file.fileno())
            again = found.st_ino != inode or found.st_size < offset  # it was built anew: pass by what was seen
            offset, inode = 0 if again else offset, found.st_ino
            file.seek(offset)
            data = file.read()
            offset += data.rfind(b"\n") + 1
            for _, event in _split(data):
                number, at = event.get("record", -1), event.get("time", 0.0)
                if again and (number <= last_record if number >= 0 else at <= last_told):
                    continue
                last_record, last_told = (number, last_told) if number >= 0 else (last_record, at)
                yield event
        if ending:
            return
        time.sleep(POLL_S)
