"""The cache: one mapping for all, nothing half-written, nothing built twice."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from trainers.tasks.cache import Data, cached
from trainers.tasks.options import TaskError


def small(classes: bool = True) -> Data:
    inputs = np.arange(7 * 5, dtype=np.float32).reshape(7, 5)
    return Data(inputs, np.arange(7) if classes else None, (4, 2, 1), "made up", True)


class Builder:
    def __init__(self, data: Data) -> None:
        self.data, self.calls = data, 0

    def __call__(self) -> Data:
        self.calls += 1
        return self.data


def the_file(folder: Path) -> Path:
    (path,) = (folder / "tasks").glob("*.arrow")
    return path


@pytest.mark.parametrize("classes", [True, False])
def test_data_come_back_as_they_were_built_and_are_built_once(tmp_path, classes):
    build = Builder(small(classes))
    for _ in range(3):
        found = cached(tmp_path, "made", 1, "key", build)
        np.testing.assert_array_equal(found.inputs, build.data.inputs)
        assert found.inputs.dtype == np.float32
        if classes:
            np.testing.assert_array_equal(found.classes, build.data.classes)
            assert found.classes is not None
            assert found.classes.dtype == np.int64
        else:
            assert found.classes is None
        assert (found.counts, found.source, found.look_alike) == ((4, 2, 1), "made up", True)
    assert build.calls == 1


def test_name_version_and_key_each_make_another_data_set(tmp_path):
    build = Builder(small())
    for name, version, key in [("a", 1, "k"), ("b", 1, "k"), ("a", 2, "k"), ("a", 1, "l"), ("a", 1, "k")]:
        cached(tmp_path, name, version, key, build)
    assert build.calls == 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_arrays_are_read_only_views_of_one_shared_file(tmp_path):
    import pyarrow as pa

    cached(tmp_path, "made", 1, "key", small)
    before = pa.total_allocated_bytes()
    loads = [cached(tmp_path, "made", 1, "key", small) for _ in range(2)]
    assert pa.total_allocated_bytes() == before  # nothing was copied to the heap
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    for found in loads:
        for array in (found.inputs, found.classes):
            assert array is not None
            assert not array.flags.writeable
            address = array.ctypes.data
            (line,) = [m for m in maps if int(m[0].split("-")[0], 16) <= address < int(m[0].split("-")[1], 16)]
            assert line[5] == str(the_file(tmp_path))
            assert line[1].startswith("r--")
            assert int(line[4]) == the_file(tmp_path).stat().st_ino


def test_a_damaged_file_is_built_again(tmp_path):
    build = Builder(small())
    cached(tmp_path, "made", 1, "key", build)
    whole = the_file(tmp_path).read_bytes()
    damages = [whole[:cut] for cut in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1)]
    damages += [bytes(len(whole)), b"something else", whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)]
    for calls, damage in enumerate(damages, start=2):
        the_file(tmp_path).write_bytes(damage)
        found = cached(tmp_path, "made", 1, "key", build)
        np.testing.assert_array_equal(found.inputs, build.data.inputs)
        assert build.calls == calls
        assert the_file(tmp_path).read_bytes() == whole


def test_a_mapping_outlives_the_replacement_of_its_file(tmp_path):
    found = cached(tmp_path, "made", 1, "key", small)
    the_file(tmp_path).unlink()
    cached(tmp_path, "made", 1, "key", small)
    np.testing.assert_array_equal(found.inputs, small().inputs)


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    def fail() -> Data:
        raise TaskError("no data today")

    with pytest.raises(TaskError, match="no data today"):
        cached(tmp_path, "made", 1, "key", fail)
    assert not list((tmp_path / "tasks").glob("*.arrow*"))


def test_leftovers_of_a_killed_writer_are_removed_but_not_those_of_a_living_one(tmp_path):
    cached(tmp_path, "made", 1, "key", small)
    path = the_file(tmp_path)
    path.unlink()
    old, young = path.with_name(f"{path.name}.1-a.tmp"), path.with_name(f"{path.name}.2-b.tmp")
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    cached(tmp_path, "made", 1, "key", small)
    assert not old.exists()
    assert young.exists()


def test_a_cache_that_cannot_be_written_says_which_variable_to_set(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(TaskError, match="MUSWEEP_CACHE"):
        cached(blocked, "made", 1, "key", small)


RACER = """
import contextlib, sys, time
from pathlib import Path
import numpy as np
from trainers.tasks import cache
folder, locks = Path(sys.argv[1]), sys.argv[2] == "locks"
if not locks:  # as on a file system without them
    cache._lock = lambda path: contextlib.nullcontext()
def build():
    with (folder / "log").open("a") as log:
        log.write("built\\n")
    time.sleep(0.5)
    return cache.Data(np.full((2000, 50), 3, np.float32), None, (1000, 500, 500), "race", False)
(folder / f"ready{sys.argv[3]}").touch()
while not (folder / "go").exists():
    time.sleep(0.002)
found = cache.cached(folder, "race", 1, "key", build)
assert found.inputs.shape == (2000, 50) and (found.inputs == 3).all()
"""


@pytest.mark.parametrize("locks", ["locks", "none"])
def test_processes_that_build_at_once_all_get_whole_data(tmp_path, locks):
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), locks, str(n)]) for n in range(3)]
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert [racer.wait(60) for racer in racers] == [0, 0, 0]
    builds = (tmp_path / "log").read_text().count("built")
    assert builds == 1 if locks == "locks" else 1 <= builds <= 3
    assert not list(tmp_path.glob("tasks/*.tmp"))
