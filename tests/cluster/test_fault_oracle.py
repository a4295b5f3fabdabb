"""The oracle of `make chaos` finds what it is there to find: each way to be wrong, done to a sound sweep's records."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps import folder as folders
from sweeps import history, journal, tracked
from tests.chaos import oracle
from tests.sweeps import pretend

Records = list[journal.Record]
TRIALS = 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep."""
    spec = pretend.spec_with()
    folder = folders.create(spec, tmp_path_factory.mktemp("sound") / "sweep")
    pretend.play(folder, spec, 2, 4).close("finished")
    return folder


def rewritten(sound: Path, folder: Path, change: Callable[[Records], Records]) -> Path:
    """A copy whose journal says something else."""
    shutil.copytree(sound, folder)
    (folder / "journal.jsonl").unlink()
    writer = journal.Journal(folder / "journal.jsonl")
    writer.append(change(journal.read(sound / "journal.jsonl")))
    writer.close()
    return folder


def first(records: Records, kind: str) -> int:
    return next(index for index, record in enumerate(records) if record["type"] == kind)


def without(kind: str) -> Callable[[Records], Records]:
    return lambda records: [r for index, r in enumerate(records) if index != first(records, kind)]


def repeated(kind: str) -> Callable[[Records], Records]:
    return lambda records: [*records[:-1], records[first(records, kind)], records[-1]]


def unfinished(records: Records) -> Records:
    return [*records[:-1], {**records[-1], "reason": "failed"}]


def one_trial_less(records: Records) -> Records:
    last = max(record["trial"] for record in journal.of_type(records, "ask"))
    kept = [record for record in records if record.get("trial") != last]
    return [
        {**record, "trials": [entry for entry in record["trials"] if entry["trial"] != last]}
        if record["type"] == "report"
        else record
        for record in kept
    ]


def one_bit_off(records: Records) -> Records:
    at = first(records, "report")
    entry = records[at]["trials"][0]
    metrics = {"valid_loss": entry["metrics"]["valid_loss"] * (1 + 2**-52)}
    return [*records[:at], {**records[at], "trials": [{**entry, "metrics": metrics}, *records[at]["trials"][1:]]},
            *records[at + 1:]]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("end"), "not in exactly one end state: ["),
        (without("end"), "still running: ["),
        (repeated("end"), "not in exactly one end state: ["),
        (repeated("ask"), "asked for twice: ["),
        (unfinished, "the journal ends with failed"),
        (one_trial_less, "39 trials of 40 were asked for"),
        (one_trial_less, "trials only on one side: [39]"),
        (one_bit_off, "1 trials differ: t"),
    ],
)
def test_each_way_to_be_wrong_is_found(
    sound: Path, tmp_path: Path, change: Callable[[Records], Records], told: str
) -> None:
    undisturbed = oracle.table(sound)
    assert oracle.complaints(sound, TRIALS, undisturbed, None) == []
    found = oracle.complaints(rewritten(sound, tmp_path / "sweep", change), TRIALS, undisturbed, None)
    assert any(told in words for words in found), found


def test_a_nan_is_a_nan() -> None:
    assert oracle.bits(float("nan")) == oracle.bits(float("nan"))
    assert oracle.bits(0.0) != oracle.bits(-0.0)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("delete from metrics where rowid = 1", "MLflow has other points of t"),
        ("insert into metrics select * from metrics where rowid = 1", "MLflow has other points of t"),
        ("update metrics set value = value * (1 + 1e-15) where rowid = 1", "MLflow has other values of t"),
        ("update runs set status = 'RUNNING' where rowid = 2", "1 MLflow runs are RUNNING"),
        ("insert into runs values ('more', 'FINISHED', 'active')", "MLflow has 42 runs"),
        ("update runs set lifecycle_stage = 'deleted' where rowid = 2", "MLflow has 40 runs, 39 children of 40 trials"),
    ],
)
def test_what_mlflow_has_wrong_is_found(sound: Path, tmp_path: Path, spoil: str, told: str) -> None:
    told_of, database = history.load(sound), tmp_path / "mlflow.db"
    with sqlite3.connect(database) as mlflow:
        mlflow.executescript(
            "create table runs (run_uuid, status, lifecycle_stage); create table tags (run_uuid, key, value);"
            "create table metrics (run_uuid, key, step, value, is_nan);"
        )
        uids = {"parent": None} | {t.id: tracked.trial_uid(told_of.sweep_id, t) for t in told_of.trials.values()}
        for run, uid in uids.items():
            mlflow.execute("insert into runs values (?, 'FINISHED', 'active')", (run,))
            mlflow.execute("insert into tags values (?, 'musweep.sweep_id', ?)", (run, told_of.sweep_id))
            if uid is not None:
                mlflow.execute("insert into tags values (?, ?, ?)", (run, tracked.TRIAL_UID, uid))
        mlflow.execute("insert into tags values ('more', 'musweep.sweep_id', ?)", (told_of.sweep_id,))
        for trial in told_of.trials.values():
            for update, row in trial.metrics.items():
                for key, value in row.items():
                    point = (trial.id, key, update, value if value == value else 0.0, value != value)
                    mlflow.execute("insert into metrics values (?, ?, ?, ?, ?)", point)
    assert oracle.mlflow_complaints(f"sqlite:///{database}", told_of, sound) == []
    with sqlite3.connect(database) as mlflow:
        mlflow.execute(spoil)
    found = oracle.mlflow_complaints(f"sqlite:///{database}", told_of, sound)
    assert any(told in words for words in found), found


def test_work_beyond_the_last_rung_is_counted(sound: Path, tmp_path: Path) -> None:
    """A trial that passed the rung at 10 long ago went back to 0; another one lost what it had since its rung."""
    passed = [n for n, trial in history.load(sound).trials.items() if trial.promoted][:2]
    lines = [
        [0.0, 1, {passed[0]: [0, 10], passed[1]: [0, 10]}],
        [5.0, 1, {passed[0]: [10, 20], passed[1]: [10, 20]}],
        [7.0, 1, {passed[0]: [20, 30], passed[1]: [20, 30]}],
        [9.0, 2, {passed[0]: [0, 10], passed[1]: [10, 20]}],
    ]
    (tmp_path / "trained.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    most, total, beyond = oracle.losses(tmp_path, sound)
    assert (most, total) == (30, 50)
    assert beyond == [f"t{passed[0]:05d} went back to 0 though it had passed rung 10"]
    assert oracle.losses(tmp_path, sound, rungs=False)[2] == []
    (tmp_path / "kept.jsonl").write_text("[6.0, 1, null]\n[8.0, 3, null]\n")
    assert oracle.losses(tmp_path, sound, rungs=False)[2] == [
        f"t{passed[0]:05d} went back to 0 though a checkpoint had it at 20",
        f"t{passed[1]:05d} went back to 10 though a checkpoint had it at 20",
    ]
