"""Arrays by name in the user's .npz, Parquet and Arrow files: shapes and types from headers, values when asked for.

A table gives `inputs`, a number or a list of numbers of one length a row, or, where there is no such column, all its
columns but `targets` and `part`, in their order; `targets`, as inputs; and `part`, whose words are train, valid, test.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.tasks import files
from trainers.tasks.options import TaskError

SUFFIXES = (".npz", ".parquet", ".arrow")


@dataclass(frozen=True, eq=False)
class Arrays:
    """What a file holds: of each array its shape and the kind of its numbers (numpy's `dtype.kind`), and all of it."""

    shapes: dict[str, tuple[tuple[int, ...], str]]
    read: Callable[[str], NDArray[Any]]


def headers(task: str, file: Path) -> Arrays:
    """Look at a file without reading its values. Raises TaskError for one that is missing, unknown or damaged."""
    if file.suffix not in SUFFIXES:
        raise TaskError(f"task {task}: option file={file}: must end in {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise TaskError(f"task {task}: option file={file}: no such file")
    return _npz(task, file) if file.suffix == ".npz" else _table(task, file)


def _npz(task: str, file: Path) -> Arrays:
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
                    shape, _, dtype = read(stream)
                    shapes[name.removesuffix(".npy")] = shape, dtype.kind
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise TaskError(f"task {task}: option file={file}: no .npz file ({' '.join(str(error).split())})") from None
    return Arrays(shapes, lambda name: np.asarray(files.npz(task, file, [name])[name]))


def _table(task: str, file: Path) -> Arrays:
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = f"task {task}: option file={file}"

    @contextlib.contextmanager
    def sound() -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise TaskError(f"{where}: no {file.suffix} file ({' '.join(str(error).split())})") from None

    with sound():
        if file.suffix == ".parquet":
            opened = pq.ParquetFile(file, memory_map=True)
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
        else:
            with pa.memory_map(str(file)) as mapped:  # reading all of it copies nothing
                opened = pa.ipc.open_file(mapped).read_all()
            schema, rows = opened.schema, len(opened)

    def column(name: str, count: int | None = None) -> NDArray[Any]:
        with sound():
            if file.suffix == ".parquet" and count is not None:
                found = next(opened.iter_batches(batch_size=count, columns=[name])).column(0)
            else:
                table = opened.read([name]) if file.suffix == ".parquet" else opened.select([name]).slice(0, count)
                found = table.column(0).combine_chunks()
        return _numbers(f"{where}: column {name}", found)

    features = ["inputs"] if "inputs" in schema.names else [n for n in schema.names if n not in ("targets", "part")]
    columns = {"inputs": features} | {name: [name] for name in ("targets", "part") if name in schema.names}
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    if rows and features:
        for name, some in columns.items():
            first = [column(each, 1) for each in some]
            shape = first[0].shape if len(some) == 1 else (1, len(some))
            shapes[name] = (rows, *shape[1:]), np.result_type(*first).kind
            if len(some) > 1 and any(each.ndim > 1 for each in first):
                raise TaskError(f"{where}: columns of lists need one named inputs")

    def read(name: str) -> NDArray[Any]:
        some = [column(each) for each in columns[name]]
        return some[0] if len(some) == 1 else np.column_stack(some)

    return Arrays(shapes, read)


def _numbers(where: str, column: Any) -> NDArray[Any]:
    """Make an array of an Arrow column of numbers, words, or lists of numbers of one length."""
    import pyarrow as pa

    if column.null_count:
        raise TaskError(f"{where} has {column.null_count} empty rows")
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        values, rows = column.flatten(), len(column)
        if values.null_count or len(values) % rows or len(set(column.value_lengths().to_pylist())) > 1:
            raise TaskError(f"{where} has lists with empty places or of several lengths")
        return _numbers(where, values).reshape(rows, -1)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    array = np.asarray(column.to_numpy(zero_copy_only=False))
    if array.dtype.kind not in "biuf":
        if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
            raise TaskError(f"{where} is {column.type}, expected numbers")
        array = array.astype(str)
    return array
