"""The shelf: what it says of sweeps is what the journal says, read once however many ask."""

import json
import math
import os
import random
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import folders
from cluster.service.picking import BadQuery
from cluster.service.reading import NoSuchSweep, Shelf
from cluster.show import state_of
from sweeps import history, journal
from sweeps.lease import Lease
from sweeps.store import rows_table
from tests.cluster.served import shelf_of
from tests.dashboards.synthetic import Sweep, make
from tests.sweeps import told


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelf_of(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def shelf(root: Path) -> Shelf:
    return Shelf(root, fresh_s=0.0)


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(st.integers(1, 700), min_size=1, max_size=30), chunk=st.sampled_from([16, 100, 4096]))
def test_a_followed_journal_is_the_whole_read_at_every_prefix(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], chunk: int
) -> None:
    data = b"".join(journal.encode(commit) for commit in told.commits())
    folder = tmp_path_factory.mktemp("prefix")
    reader, end = history.Reader(folder, chunk), 0
    for step in [*steps, len(data)]:
        grown = min(len(data), end + step)
        changed = data[end:grown].count(b"\n") > 0
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(data[end:grown])
        end = grown
        assert reader.read() == changed
        assert repr(reader.history) == repr(history.load(folder))  # repr, since nan differs from itself
    assert not reader.read()
    assert reader.history.closed == "finished"


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(0, 3000), seed=st.integers(0, 5))
def test_a_journal_that_is_cut_back_or_replaced_is_read_anew(
    tmp_path_factory: pytest.TempPathFactory, cut: int, seed: int
) -> None:
    lines = [journal.encode(commit) for commit in told.commits()]
    folder = tmp_path_factory.mktemp("cut")
    path, reader = folder / "journal.jsonl", history.Reader(folder, 256)
    path.write_bytes(b"".join(lines))
    reader.read()
    random.Random(seed).shuffle(kept := lines[2:5])
    with path.open("r+b") as file:  # the same file, cut back to something and gone on otherwise
        file.truncate(len(lines[0]) + len(lines[1]))
        file.seek(0, os.SEEK_END)
        file.write(b"".join(sorted(kept))[:cut])
    try:
        expected = repr(history.load(folder))
    except (journal.JournalError, KeyError) as error:
        with pytest.raises(type(error)):
            reader.read()
        return
    reader.read()
    assert repr(reader.history) == expected


def test_a_copy_of_what_was_read_is_gone_on_with(tmp_path: Path) -> None:
    path = told.write(tmp_path / "s", told.commits()[:4]) / "journal.jsonl"
    reader = history.Reader(path.parent)
    reader.read()
    first = reader.history
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").replace(path)  # as the driver does that takes over from a dead one
    with path.open("ab") as file:
        file.write(journal.encode(told.commits()[4]))
    assert reader.read()
    assert reader.history is first
    assert repr(reader.history) == repr(history.load(path.parent))


def test_a_torn_tail_waits_and_damage_before_the_end_is_refused(tmp_path: Path) -> None:
    lines = [journal.encode(commit) for commit in told.commits()]
    path, reader = tmp_path / "journal.jsonl", history.Reader(tmp_path)
    path.write_bytes(lines[0] + lines[1][:-5])
    assert reader.read()
    assert reader.offset == len(lines[0])
    path.write_bytes(lines[0] + lines[1][:-5] + b"#\n" + lines[2])
    with pytest.raises(journal.JournalError, match="damaged at byte"):
        reader.read()


def test_a_summary_says_what_the_journal_says(root: Path, shelf: Shelf) -> None:
    found = {each.id: each for each in shelf.sweeps()}
    assert found.keys() == {"done", "cut", "best"}
    for name, summary in found.items():
        read = folders.read(root / name)
        states = [trial.state for trial in read.history.trials.values()]
        assert summary.counts == {state: states.count(state) for state in set(states)}
        assert summary.ended == len(states) - states.count("running")
        assert (summary.budget, summary.mode) == (read.budget, "max" if name == "best" else "min")
        assert summary.best == folders.best(read).objective
        assert summary.state == state_of(read)
        assert 0 < summary.progress <= 1
    assert found["done"].state == "finished"
    assert found["cut"].state == "cut off"


def test_a_sheet_has_the_best_trials_in_order(root: Path, shelf: Shelf) -> None:
    sheet = shelf.sweep("best")
    objectives = [row.objective for row in sheet.best]
    assert objectives == sorted(objectives, reverse=True)
    assert len(objectives) == 10
    assert [row.id for row in sheet.best] == [trial.id for trial in folders.read(root / "best").ranked()[:10]]
    assert sheet.metrics
    assert sheet.links.mlflow_command.startswith("mlflow server")


@pytest.mark.parametrize("sort", ["number", "objective", "lr", "method", "state", "mu_max", "wall_s"])
@pytest.mark.parametrize("descending", [False, True])
def test_the_table_is_sorted_as_the_slow_way_sorts(shelf: Shelf, sort: str, descending: bool) -> None:
    page = shelf.trials("done", sort, descending, limit=1000)
    values = [getattr(row, sort, None) if hasattr(row, sort) else row.params.get(sort) for row in page.rows]
    there = [value for value in values if value is not None]
    assert there == sorted(there, reverse=descending)
    assert values[len(there) :] == [None] * (len(values) - len(there))  # what has none comes last
    assert (page.total, page.matched, len(page.rows)) == (40, 40, 40)
    assert sorted(row.number for row in page.rows) == list(range(40))
    parts = [shelf.trials("done", sort, descending, offset=first, limit=7).rows for first in range(0, 40, 7)]
    assert [row for part in parts for row in part] == page.rows


@pytest.mark.parametrize(
    ("filter", "keeps"),
    [
        ("state:complete", lambda row: row.state == "complete"),
        ("lr<0.01 method:nag", lambda row: row.params["lr"] < 0.01 and row.params["method"] == "nag"),
        ("method!=sgd", lambda row: row.params["method"] != "sgd"),
        ("mu_max>=0.9", lambda row: row.params.get("mu_max", 0) >= 0.9),
        ("t00003", lambda row: row.number == 3),
        ("id:t00003", lambda row: row.number == 3),
        ("number<=5", lambda row: row.number <= 5),
        ("", lambda row: True),
    ],
)
def test_a_filter_keeps_what_fits(shelf: Shelf, filter: str, keeps: object) -> None:
    every = shelf.trials("done", limit=1000).rows
    found = shelf.trials("done", filter=filter, limit=1000)
    assert callable(keeps)
    assert found.rows == [row for row in every if keeps(row)]
    assert found.matched == len(found.rows)


@pytest.mark.parametrize(("sort", "filter"), [("nosuch", ""), ("number", "nosuch<3"), ("number", "a " * 13)])
def test_what_cannot_be_sorted_or_filtered_names_what_can(shelf: Shelf, sort: str, filter: str) -> None:
    with pytest.raises(BadQuery, match="legal: "):
        shelf.trials("done", sort, filter=filter)


@pytest.mark.parametrize("id_", ["nope", "..", "../done", "done/..", "/etc", ".hidden", "", "done\x00", "a" * 300])
def test_only_sweeps_of_the_folder_are_there(shelf: Shelf, id_: str) -> None:
    for ask in (shelf.summary, shelf.sweep, shelf.trials, shelf.comparison, shelf.log, shelf.curves):
        with pytest.raises(NoSuchSweep):
            ask(id_)


def test_rows_in_parts_are_the_rows_of_the_whole(root: Path, shelf: Shelf) -> None:
    whole = rows_table(history.load(root / "done")).to_pylist()
    batches = [row for batch in shelf.batches("done", size=7) for row in batch.to_pylist()]
    assert [tuple(map(str, row.values())) for row in batches] == [tuple(map(str, row.values())) for row in whole]
    pages = [row for first in range(0, len(whole), 300) for row in shelf.measurements("done", first, 300).rows]
    assert [(row.trial, row.update, row.metric) for row in pages] == [tuple(row.values())[:3] for row in whole]
    assert shelf.measurements("done").total == len(whole)


def test_curves_are_of_the_best(root: Path, shelf: Shelf) -> None:
    read = folders.read(root / "done")
    found = shelf.curves("done", 5)
    assert [curve.trial for curve in found] == [trial.id for trial in read.ranked()[:5]]
    for curve in found:
        trial = read.history.trials[int(curve.trial[1:])]
        assert curve.updates == sorted(trial.metrics)
        assert curve.values[-1] == trial.metrics[curve.updates[-1]][read.objective]


def test_a_running_sweep_is_followed_and_none_is_written_to(tmp_path: Path) -> None:
    folder = make(tmp_path / "live", Sweep(trials=20, close=None))
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    shelf = Shelf(tmp_path, fresh_s=0.0)
    with Lease(folder, beat_s=None):
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert shelf.summary("live").state == "running"
        first = shelf.summary("live")
        shelf.sweep("live")
        records = [{"type": "close", "time": time.time(), "reason": "finished"}]
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(journal.encode(records))
        assert shelf.summary("live").version != first.version
    assert shelf.summary("live").state == "finished"
    assert len(lines) == 1


def test_many_who_ask_at_once_cause_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "one", Sweep(trials=30))
    shelf, reads, turn = Shelf(tmp_path, fresh_s=60.0), [], threading.Lock()
    real = history.Reader.read

    def slow(self: history.Reader) -> bool:
        with turn:
            reads.append(threading.get_ident())
        time.sleep(0.1)
        return real(self)

    monkeypatch.setattr(history.Reader, "read", slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(shelf.sweep("one").summary.ended)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert found == [found[0]] * 50


def test_what_is_kept_in_memory_is_bounded(tmp_path: Path) -> None:
    for n in range(6):
        make(tmp_path / f"s{n}", Sweep(trials=30, name=f"s{n}"))
    one = (tmp_path / "s0" / "journal.jsonl").stat().st_size * 3.0
    shelf = Shelf(tmp_path, fresh_s=0.0, memory=2.5 * one)
    for n in [0, 1, 2, 3, 4, 5, 0, 5]:
        assert len(shelf.sweep(f"s{n}").best) == 5  # complete ones
        assert sum(kept.weight for kept in shelf._kept.values()) <= 2.5 * one
        assert shelf._kept[f"s{n}"].weight > 0  # what was just asked for stays
    assert [each.ended for each in shelf.sweeps()] == [30] * 6


def test_a_damaged_sweep_hides_no_other(tmp_path: Path) -> None:
    make(tmp_path / "good", Sweep(trials=10))
    for name, text in (("torn", "{"), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text(text)
    folder = make(tmp_path / "bad", Sweep(trials=10))
    data = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(b"x" + data + data)
    found = {each.id: each for each in Shelf(tmp_path, fresh_s=0.0).sweeps()}
    assert {name: each.state for name, each in found.items() if name != "good"} == dict.fromkeys(
        ("torn", "list", "bad"), "unreadable"
    )
    assert "damaged" in found["bad"].error
    assert found["good"].state == "finished"


def test_a_long_journal_of_a_told_sweep_is_not_read_for_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "long", Sweep(trials=10))
    status = {
        "schema_version": 1,
        "trials": {"complete": 7, "running": 2, "budget": 10},
        "best": {"trial": 3, "objective": 0.5},
    }
    (folder / "status.json").write_text(json.dumps(status))
    monkeypatch.setattr("cluster.service.reading._LARGE", 100)
    shelf = Shelf(tmp_path, fresh_s=0.0)
    found = shelf.sweeps()[0]
    assert (found.ended, found.best, found.best_trial, found.budget, found.state) == (7, 0.5, "t00003", 10, "finished")
    assert shelf._kept["long"].reader is None
    assert shelf.sweep("long").summary.ended == 10  # asked for itself it is read


def test_numbers_that_are_not_finite_get_through_json(tmp_path: Path) -> None:
    shelf = Shelf(told.write(tmp_path / "told", told.commits()).parent, fresh_s=0.0)
    sheet = shelf.trial("told", 2)
    again = type(sheet).model_validate_json(sheet.model_dump_json())
    values = {curve.metric: curve.values for curve in again.curves}
    assert math.isnan(values["train_loss"][-1])
    assert values["valid_loss"][-1] == math.inf


def test_a_sweep_and_its_trials_lead_to_their_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = make(tmp_path / "one", Sweep(trials=6))
    shelf = Shelf(tmp_path, fresh_s=0.0)
    local = shelf.sweep("one").links
    assert local.mlflow == ""
    assert local.mlflow_command == f"mlflow server --backend-store-uri sqlite:///{tmp_path / 'mlflow.db'} --port 5000"
    spec = json.loads((folder / "spec.json").read_text())
    spec["mlflow"] = {"enabled": True, "uri": "http://ann:secret@mlflow.example:5000/"}
    (folder / "spec.json").write_text(json.dumps(spec))
    assert shelf.sweep("one").links.mlflow == "http://mlflow.example:5000"  # nothing has come there yet
    runs = {"uri": "x", "experiment_id": "7", "parent": "p1", "children": {"t00002": "c2"}}
    (folder / "mlflow.json").write_text(json.dumps(runs))
    place = "http://mlflow.example:5000/#/experiments/7/runs"
    assert shelf.sweep("one").links.mlflow == f"{place}/p1"
    assert shelf.trial("one", 2).links.mlflow == f"{place}/c2"
    spec["mlflow"] = {"enabled": False}
    (folder / "spec.json").write_text(json.dumps(spec))
    off = shelf.sweep("one").links
    assert (off.mlflow, off.mlflow_command) == ("", "")


def test_optuna_dashboard_opens_on_the_exported_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    folder = make(tmp_path / "one", Sweep(trials=6))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna_dashboard" else real(name))
    assert Shelf(tmp_path).sweep("one").links.optuna == ""
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: real("json") if name == "optuna_dashboard" else real(name)
    )
    study = f"optuna-dashboard sqlite:///{folder / 'study.db'}"
    assert Shelf(tmp_path).sweep("one").links.optuna == f"musweep export {folder} --study file && {study}"
    (folder / "study.db").touch()
    assert Shelf(tmp_path).sweep("one").links.optuna == study
