import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import lease
from sweeps.lease import Lease, LeaseHeld, StaleWriter
from tests.sweeps import told

HOLD = """
import pathlib, sys, time
from sweeps.lease import Lease
lease = Lease(pathlib.Path(sys.argv[1]))
print(lease.epoch, flush=True)
time.sleep(60)
"""


def hold(folder: Path) -> "subprocess.Popen[str]":
    """Another process that holds the folder."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )


def test_the_epoch_grows_with_each_holder(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        with Lease(tmp_path) as held:
            assert held.epoch == epoch
            held.check()
            assert lease.held(tmp_path)
        assert not lease.held(tmp_path)
    found = json.loads((tmp_path / "lease.json").read_bytes())
    assert (found["epoch"], found["pid"], found["host"]) == (3, os.getpid(), socket.gethostname())


def test_a_second_taker_hears_who_holds_it_and_a_kill_frees_it(tmp_path: Path) -> None:
    with hold(tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(LeaseHeld, match=rf"process {other.pid} on {socket.gethostname()} .* since 20\d\d-"):
            Lease(tmp_path)
        assert lease.read(tmp_path)["epoch"] == 1  # a refused taker changes nothing
        other.kill()
        other.wait()
        with Lease(tmp_path) as mine:
            assert mine.epoch == 2


def test_one_process_cannot_take_it_twice(tmp_path: Path) -> None:
    with Lease(tmp_path), pytest.raises(LeaseHeld, match=str(os.getpid())):
        Lease(tmp_path)


@pytest.mark.parametrize("how", ["newer", "removed", "replaced"])
def test_a_stale_writer_is_refused(tmp_path: Path, how: str) -> None:
    with Lease(tmp_path) as old:
        if how == "newer":  # a file system without locks, or a host that was cut off
            (tmp_path / "lease.json").write_text(json.dumps({**lease.read(tmp_path), "epoch": 2}))
        else:
            (tmp_path / "lease.json").unlink()
            if how == "replaced":
                Lease(tmp_path).release()
                Lease(tmp_path).release()
        with pytest.raises(StaleWriter, match="must stop"):
            old.check()


@pytest.mark.parametrize("content", [b"", b'{"epoch": 1', b"[]"])
def test_a_torn_lease_file_takes_its_epoch_from_the_journal(tmp_path: Path, content: bytes) -> None:
    folder = told.write(tmp_path / "sweep")  # its last driver had epoch 2
    (folder / "lease.json").write_bytes(content)
    with Lease(folder) as held:
        assert held.epoch == 3


def test_release_twice_does_no_harm(tmp_path: Path) -> None:
    held = Lease(tmp_path)
    held.release()
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_WRONLY)  # likely the same descriptor number
    held.release()
    os.write(other, b"still open")
    os.close(other)
