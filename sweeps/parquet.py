"""Parquet files that tell when they are damaged."""

from __future__ import annotations

from collections.abc import Iterable
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
