"""A Ray head of the tests' own, with token authentication, as a cluster has it."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from cluster import ray_jobs

if TYPE_CHECKING:
    from tests.cluster.served import Served

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Head:
    """A running Ray cluster of one node."""

    address: str
    token: Path
    storage: Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Head]:
    """A Ray head with a dashboard, which asks for a token; ended with the file: idle it takes a tenth of a core."""
    temporary = Path(tempfile.mkdtemp(prefix="mw-", dir="/tmp"))  # short: sockets lie below it
    token = temporary / "token"
    token.write_text(secrets.token_hex(32) + "\n")
    ports = [f"--{name}={free_port()}" for name in (
        "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port",
        "metrics-export-port", "ray-client-server-port",
    )]  # fmt: skip
    address = f"http://127.0.0.1:{ports[0].partition('=')[2]}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": str(ROOT)}
    env |= {"RAY_DISABLE_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(temporary / "state")}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    command = [
        *("ray", "start", "--head", "--block", "--port=0", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *(*ports, "--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={temporary / 'r'}"),
    ]
    with (temporary / "out").open("w") as out:
        head = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        _await(address, token, temporary / "out", head)
        with pytest.MonkeyPatch.context() as patch:  # on a busy machine even a head that is there takes its time
            patch.setattr(ray_jobs, "ANSWER_S", 60.0)
            yield Head(address, token, temporary / "sweeps")
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
            head.send_signal(signal.SIGTERM)
            _, left = psutil.wait_procs(family, timeout=10)
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        head.kill()
        head.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def _await(address: str, token: Path, out: Path, head: subprocess.Popen[bytes]) -> None:
    asked = urllib.request.Request(
        f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token.read_text().strip()}"}
    )
    limit = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=5):
                return
        except OSError:
            assert head.poll() is None, out.read_text()
            assert time.monotonic() < limit, out.read_text()
            time.sleep(0.2)


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands and `ray`, pretended; returns the folder of what they know."""
    place, known = tmp_path / "bin", tmp_path / "slurm"
    place.mkdir()
    known.mkdir()
    script = f"#!{sys.executable}\n{Path(__file__).with_name('fake_slurm.py').read_text()}"
    for name in ("sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo", "ray"):
        (place / name).write_text(script)
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(known))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("cluster.launch_slurm.SlurmLauncher.poll_s", 0.1)
    return known


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's state and working folder, empty."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        patch.delenv("MUSWEEP_DATABASE", raising=False)
        patch.delenv("MUSWEEP_CLUSTERS", raising=False)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def root(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sweeps that nobody trained."""
    from tests.cluster.served import shelf_of

    return shelf_of(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def made(root: Path) -> Iterator["Served"]:
    """The service over them."""
    from tests.cluster.served import served

    with served(root) as running:
        yield running
