import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps import checkpoints, folder, places, remote
from sweeps.checkpoints import Checkpoints
from sweeps.journal import PassingError
from sweeps.remote import Remote
from tests.sweeps import pretend


class State:
    """As much of a state as storing it takes."""

    def __init__(self, update: int) -> None:
        self.update = update


@pytest.fixture(autouse=True)
def packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """States as small arrays; the real ones are tested in tests/trainers/test_checkpoint.py."""

    def pack(states: dict[int, State]) -> bytes:
        return np.array([(n, s.update) for n, s in states.items()], np.int64).reshape(-1, 2).tobytes() + b"whole"

    monkeypatch.setattr("trainers.checkpoint.pack", pack)


def unpack(data: bytes, wanted: set[int]) -> dict[int, Any]:
    from trainers.checkpoint import DamagedStateError

    if data[-5:] != b"whole":
        raise DamagedStateError("damaged")
    return {int(n): State(int(u)) for n, u in np.frombuffer(data[:-5], np.int64).reshape(-1, 2) if int(n) in wanted}


def updates(found: dict[int, Any]) -> dict[int, int]:
    return {number: state.update for number, state in found.items()}


def test_two_are_kept_and_a_damaged_one_leaves_the_older(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, 0, unpack)
    for update in (10, 20, 30):
        store.write({4: State(update), 5: State(update + 1)})
    paths = sorted((tmp_path / "checkpoints").iterdir())
    assert len(paths) == 2
    assert updates(store.read({4: 99, 5: 99})) == {4: 30, 5: 31}
    assert updates(store.read({4: 29, 5: 25})) == {4: 20, 5: 21}
    data = paths[-1].read_bytes()
    for damaged in (b"", data[:-1], data[:7]):
        paths[-1].write_bytes(damaged)
        assert updates(store.read({4: 99})) == {4: 20}


def test_without_room_the_older_ones_have_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Checkpoints(tmp_path, 0, unpack)
    store.write({4: State(10)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "atomic_write", full)
        store.write({4: State(20)})
    assert "is not stored: No space left on device; waiting for room" in capsys.readouterr().err
    assert updates(store.read({4: 99})) == {4: 10}


def test_the_last_state_of_a_trial_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = checkpoints.atomic_write, [2]

    def full(path: Path, data: bytes) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        write(path, data)

    monkeypatch.setattr(checkpoints, "atomic_write", full)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    Checkpoints(tmp_path, 0, unpack).keep_model(3, State(90))
    assert (tmp_path / "models" / "t00003.npz").exists()


def test_a_group_on_another_machine_finds_what_the_store_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSWEEP_SCRATCH", str(tmp_path / "a"))
    driver = folder.create(pretend.spec_with(storage=f"file://{tmp_path}/store"))
    url = places.remote_of(driver)
    assert url is not None
    one = Checkpoints(driver, 0, unpack)
    for update in (10, 20, 30):
        one.write({4: State(update)})
    one.keep_model(7, State(90))
    shutil.rmtree(tmp_path / "a")
    monkeypatch.setenv("MUSWEEP_SCRATCH", str(tmp_path / "b"))
    there = remote.here(driver, url)
    assert there == places.working(url)
    assert there != driver
    other = Checkpoints(there, 1, unpack)
    assert updates(other.read({4: 99})) == {4: 30}
    assert len(Remote(url).names("checkpoints/")) == 2
    assert remote.want(there / "models" / "t00007.npz", there)
    assert remote.here(driver, None) == driver


def test_a_store_that_is_away_costs_a_checkpoint_not_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUSWEEP_SCRATCH", str(tmp_path / "a"))
    store = Checkpoints(folder.create(pretend.spec_with(storage=f"file://{tmp_path}/store")), 0, unpack)
    store.write({4: State(10)})

    def away(*_: object) -> None:
        raise PassingError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "put", away)
        store.write({4: State(20)})
    assert "no answer" in capsys.readouterr().err
    assert updates(store.read({4: 99})) == {4: 10}
