"""`musweep serve` as a process: how it begins, how it ends, how nice it is, and when it does not begin."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster import cli
from cluster.service.serving import listening
from tests.cluster.test_service_api import listen
from tests.dashboards.synthetic import Sweep, make

ROOT = Path(__file__).parents[2]


def environment(state: Path) -> dict[str, str]:
    left = {name: value for name, value in os.environ.items() if not name.startswith("MUSWEEP_")}
    return {**left, "XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@contextmanager
def started(tmp_path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and where it says that it is."""
    command = [sys.executable, "-m", "cluster.cli", "serve", str(tmp_path / "runs"), "--port", "0", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path), cwd=tmp_path
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving "), process.stderr.read() if process.stderr else ""
            yield process, line.split(" at ")[1].split("/ ")[0]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_at_once_though_pages_are_live(tmp_path: Path, number: int) -> None:
    make(tmp_path / "runs" / "one", Sweep(trials=4))
    with started(tmp_path) as (process, url):
        events: list[tuple[str, str]] = []
        ready = threading.Event()
        live = threading.Thread(target=listen, args=(url, "/api/v1/events", "bye", events, ready))
        live.start()
        assert ready.wait(20)
        process.send_signal(number)
        assert process.wait(20) == 0
        live.join(10)
        assert events[-1][0] == "bye"
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_is_nice_and_writes_nothing_into_the_folder(tmp_path: Path) -> None:
    make(tmp_path / "runs" / "one", Sweep(trials=4))
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "runs").rglob("*"))
    with started(tmp_path, "--nice", "7") as (process, url):
        assert psutil.Process(process.pid).nice() == min(19, psutil.Process().nice() + 7)
        for path in ("/api/v1/sweeps", "/api/v1/sweeps/one", "/api/v1/sweeps/one/trials", "/sweeps/one", "/"):
            host, _, port = url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port)), timeout=30) as line:
                line.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                assert line.makefile("rb").readline().split()[1] == b"200"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "runs").rglob("*")) == before


def test_it_does_not_begin_where_it_would_be_open_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        return cli.main(["serve", *words]), capsys.readouterr().err

    for words in (
        ["--host", "0.0.0.0"],
        ["--allowed-host", "lab.example"],
        ["--proxy", "127.0.0.1"],
        ["--require-token"],
    ):
        code, said = run("--port", "0", *words)
        assert (code, len(said.splitlines())) == (2, 1)
        assert said.startswith("error: serve: ")
        assert "musweep token add NAME --role admin" in said
    with listening("127.0.0.1", 0) as taken:
        code, said = run("--port", str(taken.getsockname()[1]))
        assert (code, len(said.splitlines())) == (2, 1)
        assert "--port 0 takes any that is free" in said


def test_help_needs_nothing_that_the_service_needs(tmp_path: Path) -> None:
    heavy = "[name in sys.modules for name in ('fastapi', 'sqlalchemy', 'numpy', 'requests')]"
    code = f"import sys; from cluster import cli; cli.main(['serve', '--help']); print({heavy})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT, timeout=60)
    assert done.stdout.strip().endswith("[False, False, False, False]")
