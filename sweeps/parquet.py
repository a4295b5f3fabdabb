"""Parquet files that tell when they are damaged."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 1


class NewerError(ValueError):
    """A file of a format that this musweep does not know."""


def encode(table: pa.Table) -> bytes:
    """A table as a file, with a checksum for each page: a flipped bit may well decompress."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def stream(first: pa.Table, rest: Iterable[pa.Table]) -> Iterator[bytes]:
    """Tables of one schema as an Arrow IPC stream, in parts as they come."""
    sink = _Parts()
    with pa.ipc.new_stream(sink, first.schema) as writer:
        for table in chain([first], rest):
            writer.write_table(table)
            yield sink.taken()
    yield sink.taken()


class _Parts(io.RawIOBase):
    """Takes what is written until it is asked for."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self._parts.append(bytes(memoryview(data)))  # type: ignore[arg-type]
        return len(self._parts[-1])

    def taken(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found


def read_stream(data: bytes) -> pa.Table:
    """The table of an Arrow IPC stream."""
    return pa.ipc.open_stream(data).read_all()


def read_file(path: Path) -> pa.Table:
    """One Parquet file of a sweep as it is.

    Raises:
        Exception: whatever pyarrow raises for a damaged one.
    """
    return pq.read_table(path, use_threads=False, page_checksum_verification=True)


def read(paths: Iterable[Path], schema: pa.Schema, damaged: list[Path] | None = None) -> pa.Table:
    """All rows of some files, one after another; damaged files are passed over, and added to a list if one is given.

    Raises:
        NewerError: a file is of a newer format.
    """
    tables = [schema.empty_table()]
    for path in paths:
        try:
            table = read_file(path)
            version = int((table.schema.metadata or {}).get(b"musweep.schema_version", b"0"))
            sound = table.cast(schema) if version <= SCHEMA_VERSION else None
        except Exception:  # pyarrow raises a dozen kinds
            if damaged is not None:
                damaged.append(path)
            continue
        if sound is None:
            raise NewerError(f"{path}: rows of schema version {version}; this musweep reads up to {SCHEMA_VERSION}")
        tables.append(sound)
    return pa.concat_tables(tables)
