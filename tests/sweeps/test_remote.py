import json
import shutil
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from sweeps import folder as folders
from sweeps import history, journal, lease, places, remote
from sweeps.board import Board
from sweeps.lease import Lease
from sweeps.places import PlaceError
from sweeps.remote import Remote, RemoteError
from tests.s3 import Server, serving
from tests.sweeps import pretend


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Server]:
    monkeypatch.setenv("MUSWEEP_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    with serving(monkeypatch) as made:
        yield made


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_files_are_put_read_listed_and_removed(tmp_path: Path, server: Server, kind: str) -> None:
    store = Remote(server.url("sweeps/one") if kind == "s3" else f"file://{tmp_path}/there/one")
    assert store.names() == {}
    store.put("spec.json", b"{}")
    store.put("journal/000001-00000000.jsonl", b"x" * 1000)
    store.put("spec.json", b"{ }")
    assert store.get("spec.json") == b"{ }"
    assert store.names() == {"journal/000001-00000000.jsonl": 1000, "spec.json": 3}
    assert list(store.names("journal/")) == ["journal/000001-00000000.jsonl"]
    store.remove("journal/000001-00000000.jsonl")
    store.remove("journal/000001-00000000.jsonl")
    assert list(store.names()) == ["spec.json"]
    with pytest.raises(FileNotFoundError):
        store.get("nothing")


def test_a_small_file_is_one_request(server: Server) -> None:
    store = Remote(server.url("sweeps/one"))
    store.put("a", b"1")
    server.requests.clear()
    store.put("b", b"2")
    assert server.requests == ["PUT /bucket/sweeps/one/b"]


def test_passing_faults_are_tried_again_and_lasting_ones_told_in_a_line(server: Server) -> None:
    store = Remote(server.url("sweeps/one"), patience_s=20)
    server.failing = 3
    store.put("a", b"1")
    assert store.get("a") == b"1"
    server.failing = -1
    with pytest.raises(RemoteError, match=r"^s3://bucket/sweeps/one.*: cannot write a: .*") as told:
        Remote(server.url("sweeps/one"), patience_s=0.5).put("a", b"2")
    assert "\n" not in str(told.value)
    server.failing = 0
    server.stop()
    with pytest.raises(RemoteError, match="cannot read a"):
        Remote(server.url("sweeps/one"), patience_s=0.5).get("a")
    threading.Timer(1.0, server.start).start()
    assert store.get("a") == b"1"


def test_a_bucket_that_is_not_there_is_told_at_once(server: Server) -> None:
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"no such bucket|NO_SUCH_BUCKET"):
        Remote(server.url("x").replace("bucket/x", "nowhere/x")).put("a", b"")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "no storage of kind ftp://; a folder, or s3://"),
        ("s3://KEY:hush@bucket/x", "a secret does not belong in a URL"),
        ("s3://bucket/x?access_key=A&secret_key=hush", "a secret does not belong in a URL"),
        ("s3:///x", "no bucket"),
        ("s3://bucket/x?endpoint=h", "unknown option endpoint; endpoint_override, region, scheme"),
    ],
)
def test_urls_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(PlaceError, match=words) as told:
        Remote(url)
    assert "hush" not in str(told.value)


def test_urls_survive_being_paths() -> None:
    for url in ("s3://bucket/a/b?region=x", "file:///tmp/a", "gs://b/c"):
        assert places.url_of(Path(url)) == places.url_of(url) == url
    for folder in ("runs", "/abs/olute", "runs/a:b", "C:/x"):
        assert places.url_of(folder) is None
    assert places.under("s3://b/p?region=x", "one") == "s3://b/p/one?region=x"
    assert places.parent("s3://b/p/one?region=x") == ("s3://b/p?region=x", "one")


def table(folder: Path) -> dict[int, Any]:
    return {
        t.number: (t.params, t.state, t.reason, t.objective, t.updates, str(t.metrics), str(t.scores))
        for t in history.load(folder).trials.values()
    }


def drive(folder: Path, reports: int | None = None) -> Board:
    """Let two pretended groups train, to the end or for so many rounds; the board is not closed."""
    spec = folders.read_spec(folder)
    held = Lease(folder)
    board = Board(folder, spec, 2, 4, epoch=held.epoch, guard=lease.Guard(folder, held.epoch).check)
    workers = {group: pretend.PretendWorker(board, group) for group in (0, 1)}
    while not board.finished and reports != 0:
        for worker in workers.values():
            for group, answer in worker.report().items():
                workers[group].obey(answer)
        reports = None if reports is None else reports - 1
    if board.finished:
        board.close("finished")
    held.release()
    return board


def test_a_sweep_on_s3_goes_on_from_another_machine(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both machines die in turn, scratch folders and all; the table is that of a sweep in a folder left alone."""
    spec = pretend.spec_with(storage=server.url("sweeps"))
    plain = folders.create(spec, tmp_path / "plain")
    drive(plain)
    folder = folders.create(spec)
    url = places.remote_of(folder)
    assert url is not None
    for reports in (0, 3, 8, None):
        drive(folder, reports)
        told = table(folder)
        shutil.rmtree(tmp_path / "scratch")
        folder = remote.working_folder(url)
        assert table(folder) == told
    assert table(folder) == table(plain)
    assert history.load(folder).closed == "finished"
    opened = [r["epoch"] for r in journal.of_type(journal.read(folder / "journal.jsonl"), "open")]
    assert opened == [1, 2, 3, 4]


def test_the_board_waits_while_the_store_is_gone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders.create(pretend.spec_with(storage=server.url("sweeps")))
    monkeypatch.setattr("sweeps.remote.PATIENCE_S", 0.5)
    server.stop()
    seen: list[str] = []
    spec, done = folders.read_spec(folder), threading.Event()
    server.start()
    held = Lease(folder, beat_s=None)
    board = Board(folder, spec, 1, 4, epoch=held.epoch)
    worker = pretend.PretendWorker(board, 0)
    server.stop()

    def watch() -> None:
        while not (board_trouble := trouble(board)):
            time.sleep(0.05)
        seen.append(board_trouble)
        server.start()
        done.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    worker.obey(worker.report()[0])
    watcher.join()
    assert done.is_set()
    assert "cannot write journal/000001-" in seen[0]
    assert not trouble(board)
    board.close("interrupted")
    held.release()


def trouble(board: Board) -> str:
    return str(board.trouble)


def test_two_drivers_of_one_sweep_on_a_store_are_told_apart(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a database: the store itself shows the first one that it is not wanted any more."""
    folder = folders.create(pretend.spec_with(storage=server.url("sweeps")))
    url = places.remote_of(folder)
    assert url is not None
    with Lease(folder) as first:
        board = Board(folder, folders.read_spec(folder), 1, 4, epoch=first.epoch)
        guard = lease.Guard(folder, first.epoch)
        guard.check()
        monkeypatch.setenv("MUSWEEP_SCRATCH", str(tmp_path / "other"))
        there = remote.working_folder(url)
        assert there != folder
        with Lease(there) as second:  # without a database nothing holds it back
            assert second.epoch == 2
            Board(there, folders.read_spec(there), 1, 4, epoch=2).close("interrupted")
            stale = lease.Guard(folder, first.epoch)
            with pytest.raises(lease.StaleWriter, match="another driver has taken this sweep over"):
                stale.check()
        board.close("failed")  # what it says is in nobody's past
    assert [
        r["epoch"] for r in journal.of_type(journal.read(remote.working_folder(url) / "journal.jsonl"), "open")
    ] == [1, 2]


def test_with_a_database_the_second_driver_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSWEEP_DATABASE", f"sqlite:///{tmp_path}/leases.db")
    folder = folders.create(pretend.spec_with(storage=server.url("sweeps")))
    url = places.remote_of(folder)
    assert url is not None
    with Lease(folder, beat_s=0.2) as first:
        assert lease.held(folder)
        monkeypatch.setenv("MUSWEEP_SCRATCH", str(tmp_path / "other"))
        there = remote.working_folder(url)
        with pytest.raises(lease.LeaseHeld, match=r"process \d+ on .* is writing this sweep"):
            Lease(there)
        first.check()
    assert not lease.held(there)
    with Lease(there) as second:
        assert second.epoch > 1


def test_what_is_derived_is_published_and_fetched(server: Server, tmp_path: Path) -> None:
    folder = folders.create(pretend.spec_with(storage=server.url("sweeps")))
    url = places.remote_of(folder)
    assert url is not None
    with remote.publishing(folder):
        for name in ("report.html", "rows/part-00000.parquet", "ray/x", ".hidden", "models/t00000.npz"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"1")
    names = set(Remote(url).names())
    assert names == {"spec.json", "report.html", "rows/part-00000.parquet"}
    shutil.rmtree(folder)
    again = remote.working_folder(url)
    assert (again / "rows" / "part-00000.parquet").read_bytes() == b"1"
    Remote(url).put("models/t00001.npz", b"2")
    assert remote.want(again / "models" / "t00001.npz", again)
    assert not remote.want(again / "models" / "t00002.npz", again)
    assert [path.name for path in remote.sweeps_under(server.url("sweeps"))] == [folder.name]
    with pytest.raises(FileNotFoundError, match="no sweep there"):
        remote.working_folder(server.url("sweeps/none"))


def test_a_spec_names_where_its_sweeps_lie() -> None:
    from sweeps.spec import SpecError, parse

    with pytest.raises(SpecError, match="storage") as told:
        parse(json.loads(json.dumps({**pretend.SPEC, "storage": "s4://bucket/x"})), "spec")
    assert "no storage of kind s4://" in str(told.value)
