"""The columnar form of a sweep: rows as Parquet parts, trials.parquet, events.jsonl. docs/on-disk.md has the format.

The journal holds everything that is here; whatever of this is lost or torn is built again from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv

from sweeps import events, journal
from sweeps import history as histories
from sweeps.cost import CPU, Devices
from sweeps.history import History, Trial, trial_id
from sweeps.parquet import SCHEMA_VERSION, read_file
from sweeps.parquet import encode as _parquet
from sweeps.parquet import read as _read

__all__ = ["read_file"]
ROWS_SCHEMA = pa.schema(
    [("trial_id", pa.string()), ("update", pa.int64()), ("metric", pa.string()), ("value", pa.float64())],
    metadata={"musweep.table": "rows", "musweep.schema_version": str(SCHEMA_VERSION)},
)
DIAGNOSTICS_SCHEMA = pa.schema(
    [
        ("trial_id", pa.string()),
        ("update", pa.int64()),
        ("quantity", pa.string()),
        ("layer", pa.int64()),
        ("values", pa.list_(pa.float64())),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ],
    metadata={"musweep.table": "diagnostics", "musweep.schema_version": str(SCHEMA_VERSION)},
)
FORMATS = ("parquet", "csv")

_TRIAL_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("schema_version", pa.int64()),
    ("trial_id", pa.string()),
    ("number", pa.int64()),
    ("stage", pa.string()),
    ("point_id", pa.string()),
    ("replicate", pa.int64()),
    ("state", pa.string()),
    ("reason", pa.string()),
    ("stopped_at_rung", pa.int64()),
    ("objective", pa.float64()),
    ("updates", pa.int64()),
    ("work", pa.float64()),
    ("wall_s", pa.float64()),
    ("gpu_s", pa.float64()),
    ("cpu_s", pa.float64()),
    ("engine", pa.string()),
    ("group", pa.int64()),
    ("doomed", pa.string()),
)


def atomic_write(path: Path, data: bytes) -> None:
    """Put a file in place whole or not at all, whatever dies when.

    Raises:
        OSError: the old file, if any, is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def trials_table(history: History, devices: Devices = CPU) -> pa.Table:
    """A row per trial, in order of number, with a column `param.NAME` per parameter, null where it was inactive.

    Args:
        history: what the journal says.
        devices: what a worker holds, of which each trial had its share.
    """
    trials = [history.trials[number] for number in sorted(history.trials)]
    fields, columns = [], []
    for name, kind in _TRIAL_COLUMNS:
        if name == "schema_version":
            values: list[Any] = [SCHEMA_VERSION] * len(trials)
        elif name in ("gpu_s", "cpu_s"):
            share = devices.gpus if name == "gpu_s" else devices.cpus
            values = [trial.wall_s * share for trial in trials]
        else:
            attribute = "id" if name == "trial_id" else name
            values = [getattr(trial, attribute) for trial in trials]
        fields.append(pa.field(name, kind))
        columns.append(pa.array(values, kind))
    for name in sorted({name for trial in trials for name in trial.params}):
        column = _param_column([trial.params.get(name) for trial in trials])
        fields.append(pa.field(f"param.{name}", column.type))
        columns.append(column)
    metadata = {
        "musweep.table": "trials",
        "musweep.schema_version": str(SCHEMA_VERSION),
        "musweep.sweep_id": history.sweep_id,
    }
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata))


def _param_column(values: list[Any]) -> pa.Array:
    """Bool, int64 or float64 if all values are; else strings, lists and mixtures as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int}:
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(texts, pa.string())


def rows_table(history: History) -> pa.Table:
    """Every measurement, long form, sorted and unique on (trial, update, metric); non-finite values as they are."""
    return rows_of({number: history.trials[number] for number in sorted(history.trials)})


def rows_of(trials: Mapping[int, Trial]) -> pa.Table:
    """The measurements of some trials, given by number in order, as `rows_table` has them."""
    return _long(
        (number, update, trial.metrics[update]) for number, trial in trials.items() for update in sorted(trial.metrics)
    )


def _long(reports: Iterable[tuple[int, int, Mapping[str, float]]]) -> pa.Table:
    """Rows of (trial number, update, metrics), in that order, metrics by name.

    Python touches each report once and no single value: reports of one task have the same few sets of names, so
    names are gathered per set and repeated by numpy.
    """
    shapes: dict[tuple[str, ...], tuple[int, Any]] = {}
    numbers, updates, shape_of, values = [], [], [], []
    for number, update, metrics in reports:
        names = tuple(metrics)
        if names not in shapes:
            ordered = sorted(names)
            # itemgetter of a single name gives the value itself, not a tuple
            get = itemgetter(*ordered) if len(ordered) > 1 else lambda found: tuple(found.values())
            shapes[names] = len(shapes), get
        shape, get = shapes[names]
        numbers.append(number)
        updates.append(update)
        shape_of.append(shape)
        values.append(get(metrics))
    lexicon = sorted({name for names in shapes for name in names})
    codes = [np.array([lexicon.index(name) for name in sorted(names)], np.int32) for names in shapes]
    lengths = (
        np.array([len(code) for code in codes], np.int64)[np.array(shape_of, np.int64)] if shapes else np.zeros(0, int)
    )
    unique, inverse = np.unique(np.array(numbers, np.int64), return_inverse=True)
    metric = (
        np.concatenate([codes[shape] for shape in shape_of])
        if len(codes) > 1
        else np.tile(codes[0] if codes else [], len(numbers))
    )
    flat = np.fromiter(map(float, chain.from_iterable(values)), np.float64, count=int(lengths.sum()))
    return pa.Table.from_arrays(
        [
            _strings(np.repeat(inverse, lengths), [trial_id(number) for number in unique]),
            pa.array(np.repeat(np.array(updates, np.int64), lengths)),
            _strings(metric, lexicon),
            pa.array(flat),
        ],
        schema=ROWS_SCHEMA,
    )


def _strings(codes: Any, words: list[str]) -> pa.Array:
    dictionary = pa.array(words, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), dictionary).cast(pa.string())


def _numbers(ids: pa.ChunkedArray) -> Any:
    """Trial numbers of trial ids, as an int64 array."""
    encoded = ids.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    words = np.array([int(word[1:]) for word in encoded.dictionary.to_pylist()], np.int64)
    return words[encoded.indices.to_numpy()] if len(words) else np.zeros(0, np.int64)


def _parts(folder: Path) -> list[Path]:
    return sorted((folder / "rows").glob("part-*.parquet"))


def read_rows(folder: Path, damaged: list[Path] | None = None) -> pa.Table:
    """The rows of a sweep folder's parts, sorted and unique on (trial, update, metric): the last written counts.

    Damaged parts are passed over, and added to a list if one is given.

    Raises:
        ValueError: a part is of a newer format.
    """
    return _deduplicated(_read(_parts(folder), ROWS_SCHEMA, damaged), "metric")


def _deduplicated(table: pa.Table, name: str, *rest: str) -> pa.Table:
    """Sorted and unique on trial, update, a column of names and further whole numbers: the last row counts."""
    if not table.num_rows:
        return table
    trial = _numbers(table["trial_id"])
    encoded = table[name].combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    rank = np.argsort(np.argsort(words))[encoded.indices.to_numpy()]
    key = np.stack([trial, table["update"].to_numpy(), rank, *(table[column].to_numpy() for column in rest)])
    order = np.lexsort((np.arange(len(trial)), *key[::-1]))
    key = key[:, order]
    last = np.append((key[:, 1:] != key[:, :-1]).any(axis=0), True)
    return table.take(pa.array(order[last])).combine_chunks()


class Measured(Protocol):
    """One quantity of one net by layer, as `trainers.diagnostics.Series` has it."""

    @property
    def first(self) -> int:
        """The first layer."""

    @property
    def values(self) -> Any:
        """[layers, n]."""

    @property
    def ends(self) -> Any:
        """Of histograms the outer edges, [layers, 2]; else None."""


def write_diagnostics(folder: Path, part: str, found: Mapping[tuple[int, int], Mapping[str, Measured]]) -> Path | None:
    """Write what was measured inside nets, by (trial number, update) and quantity, as one file of a name of its own.

    Raises:
        OSError: it could not be written; nothing of it is there.
    """
    table = _diagnostics_table(found)
    if not table.num_rows:
        return None
    parts = folder / "diagnostics"
    parts.mkdir(exist_ok=True)
    path = parts / f"{part}.parquet"
    atomic_write(path, _parquet(table))
    return path


def _diagnostics_table(found: Mapping[tuple[int, int], Mapping[str, Measured]]) -> pa.Table:
    ids, updates, names, layers, lengths, values, ends = ([] for _ in range(7))  # type: ignore[var-annotated]
    for (number, update), quantities in sorted(found.items()):
        for name, series in sorted(quantities.items()):
            rows, width = series.values.shape
            ids += [trial_id(number)] * rows
            updates += [update] * rows
            names += [name] * rows
            layers += range(series.first, series.first + rows)
            lengths += [width] * rows
            values.append(series.values.ravel())
            ends += [(None, None)] * rows if series.ends is None else series.ends.tolist()
    offsets = pa.array(np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int32))
    flat = pa.array(np.concatenate(values) if values else np.zeros(0))
    lows, highs = ([end[side] for end in ends] for side in (0, 1))
    columns = [ids, updates, names, layers, pa.ListArray.from_arrays(offsets, flat), lows, highs]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, DIAGNOSTICS_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=DIAGNOSTICS_SCHEMA)


def read_diagnostics(folder: Path, damaged: list[Path] | None = None) -> pa.Table:
    """What a sweep folder holds of its nets' insides, sorted and unique on trial, update, quantity and layer.

    Damaged parts are passed over, and added to a list if one is given.

    Raises:
        ValueError: a file is of a newer format.
    """
    parts = sorted((folder / "diagnostics").glob("*.parquet"))
    return _deduplicated(_read(parts, DIAGNOSTICS_SCHEMA, damaged), "quantity", "layer")


def merge_diagnostics(folder: Path) -> None:
    """Replace the many small files of a sweep that no one writes to by one."""
    parts = sorted((folder / "diagnostics").glob("*.parquet"))
    if len(parts) < 2:
        return
    merged = parts[-1].with_name(f"merged-{time.time_ns():020d}.parquet")
    damaged: list[Path] = []
    atomic_write(merged, _parquet(read_diagnostics(folder, damaged)))
    for part in set(parts) - set(damaged):  # nothing can make those again: perhaps someone has a copy
        part.unlink(missing_ok=True)


class RowWriter:
    """Follows the report records of a running sweep and writes them as Parquet parts, now and then.

    Parts left by an earlier writer are kept if sound; given the history, what they lack is written at once. A row that
    is lost between two flushes is in the journal, so the next writer finds it missing and adds it.
    """

    def __init__(
        self, folder: Path, history: History | None = None, *, flush_rows: int = 200_000, flush_s: float = 30.0
    ) -> None:
        self.folder = folder
        self._flush_rows, self._flush_s = flush_rows, flush_s
        self._pending: dict[tuple[int, int], Mapping[str, float]] = {}
        self._rows = 0
        self._flushed = time.monotonic()
        rows = folder / "rows"
        rows.mkdir(exist_ok=True)
        for stale in rows.glob(".part-*.tmp"):
            stale.unlink(missing_ok=True)
        parts = _parts(folder)
        self._next = int(parts[-1].stem.split("-")[1]) + 1 if parts else 0
        if history is not None:
            wanted, damaged = rows_table(history), list[Path]()
            self._write(_missing(wanted, read_rows(folder, damaged)) if parts else wanted)
            for part in damaged:
                part.unlink()
            if damaged:
                events.append(folder, "rows_rebuilt", files=[part.name for part in damaged])

    def add(self, record: journal.Record) -> None:
        """Take in a journal record; only reports carry rows. May write a part; if it cannot, the rows wait."""
        if record["type"] != "report":
            return
        for entry in record["trials"]:
            for update, metrics in ((entry["update"], entry["metrics"]), (0, entry.get("init", {}))):
                if metrics:
                    self._pending[entry["trial"], update] = metrics
                    self._rows += len(metrics)
        if self._rows >= self._flush_rows or time.monotonic() - self._flushed >= self._flush_s:
            with contextlib.suppress(OSError):  # a full disk: `close` tells, should it still be full then
                self.flush()

    def flush(self) -> None:
        """Write what is pending as one part.

        Raises:
            OSError: it could not be written; the rows are kept for the next attempt.
        """
        self._flushed = time.monotonic()
        self._write(_long((*key, self._pending[key]) for key in sorted(self._pending)))
        self._pending.clear()
        self._rows = 0

    def close(self) -> None:
        """Write the rest."""
        self.flush()

    def _write(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        atomic_write(self.folder / "rows" / f"part-{self._next:05d}.parquet", _parquet(table))
        self._next += 1


def _missing(wanted: pa.Table, present: pa.Table) -> pa.Table:
    """The rows of `wanted` that `present` lacks or has with another value."""
    # Joined on the bits of the value, since NaN equals nothing.
    bits = [
        table.append_column("bits", pa.array(table["value"].to_numpy().view(np.int64))) for table in (wanted, present)
    ]
    keys = ["trial_id", "update", "metric", "bits"]
    lacking = bits[0].join(bits[1].select(keys), keys=keys, join_type="left anti", use_threads=False)
    return _deduplicated(lacking.select(ROWS_SCHEMA.names).cast(ROWS_SCHEMA), "metric")


def write_derived(folder: Path, history: History) -> None:
    """Write trials.parquet and events.jsonl, each whole or not at all."""
    atomic_write(folder / "trials.parquet", _parquet(trials_table(history, _devices(folder))))
    events.rebuild(folder)


def _devices(folder: Path) -> Devices:
    """What a worker of a folder's sweep holds; a CPU where there is no spec to say so."""
    try:
        return Devices.of(json.loads((folder / "spec.json").read_bytes()))
    except FileNotFoundError:
        return Devices()


def export(folder: Path, format: str, out: Path) -> list[Path]:
    """Write `trials` and `rows`, read from a sweep's journal, into a folder `out`, and say where.

    Raises:
        ValueError: an unknown format.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: one of {', '.join(FORMATS)}")
    history = histories.load(folder)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in (("trials", trials_table(history, _devices(folder))), ("rows", rows_table(history))):
        if format == "parquet":
            data = _parquet(table)
        else:
            sink = pa.BufferOutputStream()
            pyarrow.csv.write_csv(table, sink)
            data = bytes(sink.getvalue())
        path = out / f"{name}.{format}"
        atomic_write(path, data)
        written.append(path)
    return written
