"""`musweep doctor` looks at everything and never falls over."""

import http.server
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import doctor


@pytest.fixture
def server() -> Iterator[str]:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_check_that_fails_is_a_finding() -> None:
    def odd() -> list[doctor.Finding]:
        raise RuntimeError("no such thing")

    (found,) = doctor._guarded(odd)
    assert (found.what, found.state) == ("odd", doctor.WARN)
    assert "no such thing" in found.says


def test_python_packages_and_machine_are_sound_here() -> None:
    for finding in [*doctor._python(), *doctor._packages()]:
        assert finding.state == doctor.OK, finding
    assert [finding.what for finding in doctor._machine()] == ["cores", "memory"]


def test_a_missing_package_is_bad_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: ["no-such-thing>=2", "numpy>=999", "typer"])
    (found,) = doctor._packages()
    assert found.state == doctor.BAD
    assert "no-such-thing is missing" in found.says
    assert "needed >=999" in found.says
    assert "make install" in found.step


def test_mlflow_that_answers(server: str) -> None:
    assert doctor.mlflow(server).state == doctor.OK


def test_mlflow_that_is_away_is_only_a_warning() -> None:
    found = doctor.mlflow("http://127.0.0.1:9")
    assert found.state == doctor.WARN
    assert "musweep sync" in found.step
    assert doctor.mlflow("postgresql://nobody@127.0.0.1:9/mlflow").state == doctor.WARN


def test_mlflow_with_a_password_is_asked_and_shown_without_it(server: str) -> None:
    found = doctor.mlflow(server.replace("://", "://me:hunter2@"))
    assert found.state == doctor.OK
    assert "hunter2" not in found.says
    away = doctor.mlflow("http://me:hunter2@127.0.0.1:9")
    assert away.state == doctor.WARN
    assert away.says.startswith("http://me:***@127.0.0.1:9: ")


def test_mlflow_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    uri = f"sqlite:///{path}"
    assert "will be made" in doctor.mlflow(uri).says
    with sqlite3.connect(path) as database:
        database.execute("create table runs (name text)")
        database.execute("insert into runs values ('one')")
    database.close()
    assert doctor.mlflow(uri).says.endswith(": 1 run")
    path.write_bytes(b"not a database, but long enough to be taken for one" * 40)
    assert doctor.mlflow(uri).state == doctor.WARN


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.disk("disk", tmp_path / "runs" / "deep")
    assert str(tmp_path) in found.says
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert doctor.disk("disk", tmp_path).state == doctor.BAD


def test_mnist_given_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MUSWEEP_DATA", str(tmp_path / "nowhere"))
    assert doctor._data()[-1].state == doctor.WARN
    monkeypatch.setenv("MUSWEEP_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").touch()
    assert doctor._data()[-1].state == doctor.OK


def test_a_probe_tells_the_last_line_of_what_went_wrong() -> None:
    assert doctor._probe("print('a'); print('b')") == (True, "b")
    assert doctor._probe("raise ValueError('bad luck')") == (False, "ValueError: bad luck")
