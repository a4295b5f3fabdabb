"""The journal of a sweep on an object store: immutable segments, of which some are merged into larger ones.

`journal/EPOCH-NUMBER.jsonl` is one commit, put before it counts; `journal/EPOCH-FIRST-LAST.jsonl` are several in one.
Numbers count from 0 in each epoch. The first commit of an epoch says in `after` which commit of which epoch it follows;
from the newest epoch backwards that tells what counts: what a stale writer put later is in nobody's past.
A merged segment is put before its parts are removed, so after a crash at any place all commits are there, some twice.
The working folder has the same commits in `journal.jsonl`, for all who read.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sweeps import journal
from sweeps.journal import Journal, JournalError, Record
from sweeps.lease import StaleWriter
from sweeps.remote import Remote, of

FAN = 64
"""So many segments are merged into one, and so many of those again."""
_NAME = re.compile(r"journal/(\d+)-(\d+)(?:-(\d+))?\.jsonl$")


@dataclass(frozen=True, slots=True)
class Segment:
    """Commits `first` to `last` of an epoch."""

    epoch: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """Where it lies."""
        to = "" if self.first == self.last else f"-{self.last:08d}"
        return f"journal/{self.epoch:06d}-{self.first:08d}{to}.jsonl"


def parse(names: Iterable[str]) -> list[Segment]:
    """The segments among some files."""
    found = (_NAME.match(name) for name in names)
    return [Segment(int(m[1]), int(m[2]), int(m[3] or m[2])) for m in found if m is not None]


def cover(segments: Iterable[Segment]) -> list[Segment]:
    """Of one epoch's segments the fewest that have its commits from number 0 on, as far as there is no gap."""
    longest: dict[int, Segment] = {}
    for segment in segments:
        if segment.first not in longest or segment.last > longest[segment.first].last:
            longest[segment.first] = segment
    found, at = [], 0
    while (segment := longest.get(at)) is not None:  # type: ignore[assignment]
        found.append(segment)
        at = segment.last + 1
    return found


def stored(remote: Remote) -> tuple[bytes, tuple[int, int] | None, list[Segment]]:
    """The journal's bytes that count, the last commit's (epoch, number), and all segments that there are.

    Raises:
        JournalError: a segment is missing or damaged.
        RemoteError: the store does not answer.
    """
    for _ in range(5):  # a writer may remove what it has merged between our looking and our reading
        segments = parse(remote.names("journal/"))
        with contextlib.suppress(FileNotFoundError):
            data, last = _assemble(remote, segments)
            return data, last, segments
    raise JournalError(f"{remote.url}: journal segments vanish while they are read; is something else cleaning there?")


def _assemble(remote: Remote, segments: list[Segment]) -> tuple[bytes, tuple[int, int] | None]:
    by_epoch: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_epoch[segment.epoch].append(segment)
    if not by_epoch:
        return b"", None
    epoch, until = max(by_epoch), None
    newest, parts = None, []
    while True:
        lines = _lines(remote, epoch, by_epoch.get(epoch, []), until)
        newest = newest or (epoch, len(lines) - 1)
        parts.append(b"".join(lines))
        after = journal.scan(lines[0])[0][0].get("after")
        if after is None:
            return b"".join(reversed(parts)), newest
        epoch, until = after


def _lines(remote: Remote, epoch: int, segments: list[Segment], until: int | None) -> list[bytes]:
    """The commits of one epoch up to a number, or all of the newest one's."""
    pieces = [piece for piece in cover(segments) if until is None or piece.first <= until]
    needed = max((s.last for s in segments), default=0) if until is None else until
    if not pieces or pieces[-1].last < needed:
        lost = pieces[-1].last + 1 if pieces else 0
        raise JournalError(f"{remote.url}: commit {lost} of epoch {epoch} is missing; restore it from a copy")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda piece: remote.get(piece.name), pieces))
    lines: list[bytes] = []
    for piece, data in zip(pieces, found, strict=True):
        size = piece.last - piece.first + 1
        if data.count(b"\n") != size or journal.scan(data, piece.name, journal.Fence())[1] != len(data):
            raise JournalError(f"{remote.url}: {piece.name} is damaged; restore it from a copy, nothing was changed")
        lines += data.splitlines(keepends=True)
    return lines if until is None else lines[: until + 1]


class RemoteJournal(Journal):
    """A journal whose commits are segments on a store, and lines of a working copy.

    Args:
        background: whether merging has a thread of its own.

    Raises:
        JournalError: damaged, or another driver has this epoch or a newer one.
        RemoteError: the store does not answer.
    """

    def __init__(
        self, path: Path, remote: Remote, epoch: int, patience_s: float = 60.0, *, background: bool = True
    ) -> None:
        self._remote, self._number = remote, 0
        self._levels: list[list[tuple[Segment, int, int]]] = [[], []]
        """What is to be merged next, and where its bytes are in the working copy."""
        self._pool = ThreadPoolExecutor(1, "musweep-segments") if background else None
        self._stored = b""
        self._after: tuple[int, int] | None = None
        self._there: list[Segment] = []
        self._own = epoch
        super().__init__(path, patience_s, epoch)

    def _sound(self, data: bytes) -> bytes:  # noqa: ARG002 - the store knows better
        self._stored, self._after, self._there = stored(self._remote)
        if self._after is not None and max(segment.epoch for segment in self._there) >= self._own:
            raise JournalError(f"{self._remote.url}: another driver has taken this sweep over; it must stop")
        return self._stored

    def append(self, commit: Iterable[Record]) -> None:
        """Put a commit to the store, then into the working copy; return once both have it.

        Raises:
            OSError: try again with the same commit, which is stored under the same name.
        """
        records = list(commit)
        if not self._number and self._after is not None:
            records[0] = {**records[0], "after": list(self._after)}
        data = journal.encode(records, self._own)
        segment = Segment(self._own, self._number, self._number)
        self._remote.put(segment.name, data)
        self._append(data)
        self._number += 1
        if not segment.first:
            self._later(self._merge_past())
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        self._levels[0].append((segment, end - len(data), end))
        for level, full in enumerate(self._levels):
            if len(full) == FAN:
                self._levels[level] = []
                merged, start = Segment(self._own, full[0][0].first, segment.last), full[0][1]
                if level + 1 < len(self._levels):
                    self._levels[level + 1].append((merged, start, end))
                self._later(self._merge_range(merged, start, end, [part for part, _, _ in full]))

    def close(self) -> None:
        """Finish merging and release the file."""
        if self._pool is not None:
            self._pool.shutdown()
        super().close()

    def _later(self, steps: Iterator[None]) -> None:
        def work() -> None:
            with contextlib.suppress(OSError):  # what is not merged is read as well
                for _ in steps:
                    pass

        work() if self._pool is None else self._pool.submit(work)

    def _merge(self, merged: Segment, text: bytes, parts: Iterable[Segment]) -> Iterator[None]:
        self._remote.put(merged.name, text)
        for part in parts:
            if part != merged:
                self._remote.remove(part.name)
                yield

    def _merge_range(self, merged: Segment, start: int, end: int, parts: Iterable[Segment]) -> Iterator[None]:
        yield from self._merge(merged, os.pread(self._file, end - start, start), parts)

    def _merge_past(self) -> Iterator[None]:
        """Make one segment of each earlier epoch that counts; a restart then has few to read."""
        after, lines = self._after, self._stored.splitlines(keepends=True)
        while after is not None and lines:
            epoch, last = after
            mine, lines = lines[-(last + 1) :], lines[: -(last + 1)]
            after = journal.scan(mine[0])[0][0].get("after")
            whole = Segment(epoch, 0, last)
            parts = [segment for segment in self._there if segment.epoch == epoch and segment != whole]
            if parts and len(mine) == last + 1:
                yield from self._merge(whole, b"".join(mine), parts)
        self._stored = b""


def open_journal(folder: Path, epoch: int) -> Journal:
    """Open the journal of a sweep folder for writing, the working copy of another place's included.

    Raises:
        TimeoutError: another process still writes it.
        JournalError: it is damaged.
        RemoteError: the store does not answer.
    """
    remote = of(folder)
    if remote is None:
        return Journal(folder / "journal.jsonl", epoch=epoch)
    return RemoteJournal(folder / "journal.jsonl", remote, epoch)


def newest_epoch(names: Mapping[str, int]) -> int:
    """The newest epoch that any driver wrote with, 0 if none did."""
    return max((segment.epoch for segment in parse(names)), default=0)


def looker(url: str, epoch: int, every_s: float = 5.0) -> Callable[[], None]:
    """A function that looks for commits of newer epochs, at most once in so many seconds, where no database knows."""
    remote, seen = Remote(url, patience_s=1.0), [-every_s]

    def check() -> None:
        now = time.monotonic()
        if now - seen[0] >= every_s:
            if newest_epoch(remote.names("journal/")) > epoch:
                raise StaleWriter(f"{url}: another driver has taken this sweep over; this one must stop")
            seen[0] = now

    return check
