"""Prepared data as Arrow IPC files: written once per host, memory-mapped by every process that loads them.

A file holds one record batch: `inputs` (fixed-size list of float32), for classes `classes` (int64), for other
targets `targets` (as inputs), rows in the order train, valid, test; the counts and the origin are in the schema's
metadata. It is written under a temporary name, flushed to disk and renamed, so a reader sees all of it or nothing;
a file that cannot be read back (cut short, filled with zeros, of another program) is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.tasks.options import TaskError

FORMAT = 1
_META = b"musweep"
_STALE_SECONDS = 3600


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: inputs float32 [N, I], classes int64 [N] or targets float32 [N, O], and the rows of each part.

    `counts` says how many rows are train, valid, test, in this order. Without classes and targets the inputs are the
    targets.
    """

    inputs: NDArray[np.float32]
    classes: NDArray[np.int64] | None
    counts: tuple[int, int, int]
    source: str
    look_alike: bool
    targets: NDArray[np.float32] | None = None


def cached(folder: Path, name: str, version: int, key: str, build: Callable[[], Data]) -> Data:
    """Map the data set (name, version, key) from the cache, building it first when it is not there.

    Processes that need the same data at once wait for the first one. Raises TaskError when the folder cannot
    be written to, and whatever `build` raises.
    """
    digest = hashlib.blake2b(f"{FORMAT}/{name}/{version}/{key}".encode(), digest_size=6).hexdigest()
    path = folder / "tasks" / f"{name}-v{version}-{digest}.arrow"
    found = _read(path)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_suffix(".lock")):
            found = _read(path)  # another process may have built it while this one waited
            if found is None:
                _remove_stale(path)
                _write(path, build())
                found = _read(path)
    except OSError as error:
        raise TaskError(f"cannot keep prepared data: {error}; set MUSWEEP_CACHE to a folder with room") from None
    if found is None:
        raise TaskError(f"prepared data in {path} cannot be read back; set MUSWEEP_CACHE to another folder")
    return found


def _write(path: Path, data: Data) -> None:
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for name, table in (("inputs", data.inputs), ("targets", data.targets)):
        if table is not None:
            flat = np.ascontiguousarray(table, dtype=np.float32).reshape(-1)
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat), table.shape[1])
    if data.classes is not None:
        arrays["classes"] = pa.array(data.classes, type=pa.int64())
    meta = {"counts": data.counts, "source": data.source, "look_alike": data.look_alike}
    batch = pa.record_batch(arrays).replace_schema_metadata({_META: json.dumps(meta).encode()})
    # Unique, so that two writers on a file system without locks do not write into one file.
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("wb") as file:
            with pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Data | None:
    """Map a cache file without copying; None when it is missing or not a whole cache file."""
    import pyarrow as pa

    if not path.is_file():
        return None
    try:
        with pa.memory_map(str(path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            meta = json.loads(reader.schema.metadata[_META])
            batch = reader.get_batch(0)
        names, counts = batch.schema.names, meta["counts"]
        if len(batch) != sum(counts) or len(counts) != 3:
            return None
        # to_numpy(zero_copy_only=True) is the default and gives read-only arrays that keep the mapping alive.
        tables = {
            name: batch.column(name).values.to_numpy().reshape(len(batch), batch.column(name).type.list_size)
            for name in ("inputs", "targets")
            if name in names
        }
        classes = batch.column("classes").to_numpy() if "classes" in names else None
        return Data(tables["inputs"], classes, tuple(counts), meta["source"], meta["look_alike"], tables.get("targets"))
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an advisory lock where the file system has them; where not, two builders cost time, not truth."""
    import fcntl

    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_stale(path: Path) -> None:
    """Delete what a killed writer left behind, long enough ago that it cannot be a living one's."""
    for leftover in path.parent.glob(f"{path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                leftover.unlink()
