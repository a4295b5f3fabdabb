import csv
import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import events, history, journal, parquet, store
from sweeps.history import History, Trial
from tests.sweeps import told
from trainers.diagnostics import Series

COLUMNS = [
    "schema_version", "trial_id", "number", "stage", "point_id", "replicate", "state", "reason", "stopped_at_rung",
    "objective", "updates", "work", "wall_s", "gpu_s", "cpu_s", "engine", "group",
    "doomed",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return told.write(tmp_path / "sweep")


def made_of(trials: dict[int, dict[int, dict[str, float]]], params: list[dict[str, Any]] | None = None) -> History:
    found = History("made")
    for at, (number, metrics) in enumerate(trials.items()):
        trial = Trial(number, params[at] if params else {}, {}, "search", "p", 0, 0, 0.0)
        trial.metrics = metrics
        found.trials[number] = trial
    return found


def plain(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows as tuples, with nan as a word so that equal tables are equal."""
    rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    return [tuple("nan" if isinstance(v, float) and math.isnan(v) else v for v in row) for row in rows]


def naive(found: History) -> list[tuple[Any, ...]]:
    rows = [
        (trial.number, trial.id, update, name, "nan" if math.isnan(value) else value)
        for trial in found.trials.values()
        for update, metrics in trial.metrics.items()
        for name, value in metrics.items()
    ]
    return [row[1:] for row in sorted(rows, key=lambda row: (row[0], row[2], row[3]))]


def test_trials_table_has_the_documented_columns(folder: Path) -> None:
    table = store.trials_table(history.load(folder))
    assert table.column_names == [*COLUMNS, "param.lr", "param.method", "param.mu_max"]
    assert table.schema.metadata[b"musweep.schema_version"] == b"1"
    assert table.schema.metadata[b"musweep.sweep_id"] == told.SWEEP_ID.encode()
    rows = table.to_pylist()
    assert [row["state"] for row in rows] == ["complete", "stopped", "diverged", "failed", "complete", "skipped"]
    assert rows[0] == {
        "schema_version": 1, "trial_id": "t00000", "number": 0, "stage": "search", "point_id": "p0", "replicate": 0,
        "state": "complete", "reason": "why complete", "stopped_at_rung": None, "objective": 1 / 40 + 1,
        "updates": 40, "work": 1280.0, "wall_s": 2.0, "gpu_s": 0.0, "cpu_s": 2.0, "engine": "loop",
        "group": 0, "doomed": "", "param.lr": 0.1, "param.method": "sgd", "param.mu_max": None,
    }  # fmt: skip
    assert rows[1]["stopped_at_rung"] == 20
    assert rows[2]["objective"] is None
    assert [row["doomed"] for row in rows] == ["", "", "", "", "", "why skipped"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, 3], pa.int64(), [1, None, 3]),
        ([1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
        ([True, None, False], pa.bool_(), [True, None, False]),
        (["nag", None, "cm"], pa.string(), ["nag", None, "cm"]),
        ([[400, 30], None, "cm"], pa.string(), ["[400, 30]", None, "cm"]),
        ([True, 1, "x"], pa.string(), ["true", "1", "x"]),
    ],
)
def test_parameters_keep_their_type(values: list[Any], kind: pa.DataType, expected: list[Any]) -> None:
    params = [{} if value is None else {"p": value} for value in values]
    table = store.trials_table(made_of({n: {} for n in range(len(values))}, params))
    assert table.schema.field("param.p").type == kind
    assert table["param.p"].to_pylist() == expected


VALUES = st.floats(width=32)
TRIALS = st.dictionaries(
    st.integers(0, 200_000),
    st.dictionaries(st.integers(1, 99), st.dictionaries(st.sampled_from("bac"), VALUES, max_size=3), max_size=4),
    max_size=5,
)


@settings(deadline=None, max_examples=80)
@given(trials=TRIALS)
def test_rows_are_every_measurement_in_order(trials: dict[int, dict[int, dict[str, float]]]) -> None:
    found = made_of(trials)
    table = store.rows_table(found)
    assert table.schema.equals(store.ROWS_SCHEMA)
    assert plain(table) == naive(found)


def test_non_finite_rows_stay_what_they_are(folder: Path) -> None:
    rows = {row[:3]: row[3] for row in plain(store.rows_table(history.load(folder)))}
    assert rows["t00002", 20, "train_loss"] == "nan"
    assert rows["t00002", 20, "valid_loss"] == math.inf


def test_parts_written_along_the_way_hold_the_journal(tmp_path: Path) -> None:
    """A part after every record, so that repeated reports land in different parts."""
    folder = told.write(tmp_path / "sweep")
    writer = store.RowWriter(folder, flush_rows=1)
    for record in journal.read(folder / "journal.jsonl"):
        writer.add(record)
    writer.close()
    assert len(list((folder / "rows").iterdir())) == 6
    assert plain(store.read_rows(folder)) == plain(store.rows_table(history.load(folder)))


def test_the_last_written_row_counts(tmp_path: Path) -> None:
    writer = store.RowWriter(tmp_path)
    for value in (1.0, 2.0):
        entry = {"trial": 3, "update": 10, "metrics": {"a": value}, "score": value, "wall_s": 0.0}
        writer.add({"type": "report", "trials": [entry]})
        writer.flush()
    assert plain(store.read_rows(tmp_path)) == [("t00003", 10, "a", 2.0)]


@pytest.mark.parametrize("cut", range(len(told.commits()) + 1))
def test_a_writer_killed_anywhere_is_made_up_for_by_the_next(tmp_path: Path, cut: int) -> None:
    said = told.commits()
    folder = told.write(tmp_path / "sweep", said[:cut])
    killed = store.RowWriter(folder, history.load(folder))  # holds rows in memory when it dies
    for record in [record for commit in said[cut:] for record in commit]:
        killed.add(record)
    (folder / "rows" / ".part-00009.parquet.1.tmp").write_bytes(b"torn")
    told.write(folder, said[cut:])
    follower = store.RowWriter(folder, history.load(folder))
    follower.close()
    wanted = plain(store.rows_table(history.load(folder)))
    assert plain(store.read_rows(folder)) == wanted
    written = sum(pq.read_metadata(path).num_rows for path in (folder / "rows").iterdir())
    assert written == len(wanted)  # nothing was written twice


def test_a_value_that_a_resumed_trial_changed_is_corrected(tmp_path: Path) -> None:
    store.RowWriter(tmp_path, made_of({0: {10: {"a": 1.0, "b": math.nan}}}))
    store.RowWriter(tmp_path, made_of({0: {10: {"a": 5.0, "b": math.nan}}}))
    assert plain(store.read_rows(tmp_path)) == [("t00000", 10, "a", 5.0), ("t00000", 10, "b", "nan")]
    assert pq.read_metadata(tmp_path / "rows" / "part-00001.parquet").num_rows == 1


def test_a_full_disk_keeps_the_rows_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store.RowWriter(tmp_path, flush_rows=1)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        writer.add(told.report([0, 1], 10, 1))  # a part is due: the sweep goes on without
        with pytest.raises(OSError, match="No space left"):
            writer.close()
    assert list((tmp_path / "rows").iterdir()) == []
    writer.close()
    assert store.read_rows(tmp_path).num_rows == 4


def test_what_was_measured_before_the_first_update_is_a_row_at_0(tmp_path: Path) -> None:
    entry = {"trial": 3, "update": 10, "metrics": {"a": 1.0}, "init": {"b": "inf"}, "score": 1.0, "wall_s": 0.0}
    said = [told.ask(3, 1), {"type": "report", "group": 0, "engine": "loop", "trials": [entry]}]
    writer = store.RowWriter(tmp_path)
    writer.add(said[1])
    writer.close()
    assert plain(store.read_rows(tmp_path)) == [("t00003", 0, "b", math.inf), ("t00003", 10, "a", 1.0)]
    assert plain(store.rows_table(history.fold(said))) == plain(store.read_rows(tmp_path))


def measured(*layers: float, first: int = 1, bins: int = 0) -> Series:
    if not bins:
        return Series(first, np.array(layers)[:, None])
    return Series(first, np.tile(np.array(layers)[:, None], bins), np.array([[-layer, layer] for layer in layers]))


def test_diagnostics_come_back_as_they_were_written(tmp_path: Path) -> None:
    found = {
        (11, 0): {"length": measured(1.0, math.inf, math.nan, first=0), "counts": measured(2.0, 5.0, bins=3)},
        (2, 500): {"length": measured(1e-300)},
    }
    store.write_diagnostics(tmp_path, "group-000-1", found)
    table = store.read_diagnostics(tmp_path)
    assert table.schema.equals(store.DIAGNOSTICS_SCHEMA)
    rows = [list(row.values()) for row in table.to_pylist()]
    assert rows == [
        ["t00002", 500, "length", 1, [1e-300], None, None],
        ["t00011", 0, "counts", 1, [2.0] * 3, -2.0, 2.0],
        ["t00011", 0, "counts", 2, [5.0] * 3, -5.0, 5.0],
        ["t00011", 0, "length", 0, [1.0], None, None],
        ["t00011", 0, "length", 1, [math.inf], None, None],
        ["t00011", 0, "length", 2, [pytest.approx(math.nan, nan_ok=True)], None, None],
    ]


def test_diagnostics_measured_again_count_once_and_merge_into_one_file(tmp_path: Path) -> None:
    assert store.read_diagnostics(tmp_path).num_rows == 0
    store.merge_diagnostics(tmp_path)
    assert store.write_diagnostics(tmp_path, "none", {}) is None
    for part, value in enumerate((1.0, 2.0, 3.0)):
        found = {(0, 10): {"length": measured(value, value)}, (part, 20): {"length": measured(value)}}
        store.write_diagnostics(tmp_path, f"group-000-{part}", found)
    before = store.read_diagnostics(tmp_path)
    assert before.num_rows == 5
    assert before["values"].to_pylist()[:2] == [[3.0], [3.0]]
    store.merge_diagnostics(tmp_path)
    (merged,) = (tmp_path / "diagnostics").iterdir()
    assert merged.name.startswith("merged-")
    assert store.read_diagnostics(tmp_path).equals(before)
    store.merge_diagnostics(tmp_path)
    assert merged.exists()


def test_rows_of_a_newer_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    newer = store.ROWS_SCHEMA.empty_table().replace_schema_metadata({"musweep.schema_version": "2"})
    pq.write_table(newer, tmp_path / "rows" / "part-00000.parquet")
    with pytest.raises(ValueError, match="schema version 2; this musweep reads up to 1"):
        store.read_rows(tmp_path)


def test_derived_files_are_rebuilt_from_the_journal(folder: Path) -> None:
    found = history.load(folder)
    store.write_derived(folder, found)
    assert pq.read_table(folder / "trials.parquet").equals(store.trials_table(found))
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["type"] for event in events][:4] == ["open", "ask", "ask", "ask"]
    assert "report" not in {event["type"] for event in events}
    ends = {event["trial_id"]: event["state"] for event in events if event["type"] == "end"}
    assert ends == {trial.id: trial.state for trial in found.trials.values()}
    assert not list(folder.glob(".*.tmp"))


def test_an_empty_sweep_has_empty_tables(tmp_path: Path) -> None:
    store.write_derived(tmp_path, History())
    assert pq.read_table(tmp_path / "trials.parquet").column_names == COLUMNS
    assert store.read_rows(tmp_path).num_rows == store.rows_table(History()).num_rows == 0


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    store.atomic_write(path, b"old")

    def fail(file: int) -> None:
        raise OSError(errno.EIO, "broken disk")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="broken disk"):
            store.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_export(folder: Path, tmp_path: Path) -> None:
    found = history.load(folder)
    trials, rows = store.export(folder, "parquet", tmp_path / "out")
    assert pq.read_table(trials).equals(store.trials_table(found))
    assert pq.read_table(rows).num_rows == store.rows_table(found).num_rows
    trials, rows = store.export(folder, "csv", tmp_path / "out")
    with rows.open(newline="") as file:
        read = [
            (row["trial_id"], int(row["update"]), row["metric"], float(row["value"])) for row in csv.DictReader(file)
        ]
    assert [("nan" if math.isnan(row[3]) else row[3]) for row in read] == [row[3] for row in naive(found)]
    with pytest.raises(ValueError, match="one of parquet, csv"):
        store.export(folder, "xlsx", tmp_path)


def test_a_million_rows_take_seconds() -> None:
    """The bound is far above what it takes (about 1 s), and far below what a loop over values would."""
    metrics = {update: {"train_loss": 0.5, "valid_loss": float(update), "a": 1.0, "b": 2.0} for update in range(1, 101)}
    found = made_of(dict.fromkeys(range(2500), metrics))
    began = os.times().user
    table = store.rows_table(found)
    assert table.num_rows == 1_000_000
    assert len(store._parquet(table)) < 8_000_000
    assert os.times().user - began < 6
    assert np.isclose(sum(table["value"].to_numpy()[:4]), 0.5 + 1.0 + 1.0 + 2.0)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "other"])
def test_a_damaged_part_is_passed_over_and_its_rows_come_again_from_the_journal(tmp_path: Path, how: str) -> None:
    folder = told.write(tmp_path / "sweep")
    found = history.load(folder)
    whole = store.rows_table(found)
    for number in range(3):
        rows = whole.slice(number * 5, 5 if number < 2 else None)
        (folder / "rows").mkdir(exist_ok=True)
        store.atomic_write(folder / "rows" / f"part-{number:05d}.parquet", store._parquet(rows))
    part = folder / "rows" / "part-00001.parquet"
    data = part.read_bytes()
    spoilt = bytearray(data)
    spoilt[len(data) // 4] ^= 1
    part.write_bytes({"flipped": bytes(spoilt), "cut": data[:-9], "empty": b"", "other": b"PAR1" + bytes(99)}[how])
    damaged: list[Path] = []
    assert store.read_rows(folder, damaged).num_rows == whole.num_rows - 5
    assert damaged == [part]
    store.RowWriter(folder, found).close()
    assert str(store.read_rows(folder).to_pylist()) == str(whole.to_pylist())
    assert sorted(path.name for path in (folder / "rows").iterdir()) == [f"part-{n:05d}.parquet" for n in (0, 2, 3)]
    told_of = [event for event in events.read(folder) if event["type"] == "rows_rebuilt"]
    assert [event["files"] for event in told_of] == [["part-00001.parquet"]]


def test_any_flipped_bit_of_a_part_is_seen_or_changes_nothing(tmp_path: Path) -> None:
    """Two flips in each twentieth byte; the footer's names and counts included."""
    folder = told.write(tmp_path / "sweep")
    whole = store.rows_table(history.load(folder))
    path = tmp_path / "part-00000.parquet"
    data = store._parquet(whole)
    unseen = 0
    for at in range(0, len(data), 20):
        for bit in (0x01, 0x80):
            spoilt = bytearray(data)
            spoilt[at] ^= bit
            path.write_bytes(spoilt)
            damaged: list[Path] = []
            found = parquet.read([path], store.ROWS_SCHEMA, damaged)
            unseen += not damaged and str(found.to_pylist()) != str(whole.to_pylist())
    assert unseen == 0
