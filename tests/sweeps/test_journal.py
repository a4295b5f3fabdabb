import errno
import fcntl
import json
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps import journal
from sweeps.journal import Journal, JournalError
from tests.sweeps import told

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
COMMITS = st.lists(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), min_size=1, max_size=3), max_size=6)


def flat(commits: list[list[journal.Record]]) -> list[journal.Record]:
    return [record for commit in commits for record in commit]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=COMMITS)
def test_what_is_appended_is_read_back(tmp_path: Path, commits: list[list[journal.Record]]) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    writer = Journal(path)
    for commit in commits:
        writer.append(commit)
    writer.close()
    assert journal.read(path) == flat(commits)
    reopened = Journal(path)
    assert reopened.records == flat(commits)
    reopened.close()


def test_a_line_is_a_crc_and_strict_json() -> None:
    line = journal.encode([{"a": 1}])
    assert line == b"%08x " % zlib.crc32(b'[{"a":1}]') + b'[{"a":1}]\n'
    with pytest.raises(ValueError, match="Out of range"):
        journal.encode([{"a": math.nan}])


@pytest.mark.parametrize("value", [0.1, math.inf, -math.inf, 5e-324])
def test_numbers_survive_json(value: float) -> None:
    assert float(json.loads(json.dumps(journal.number(value), allow_nan=False))) == value
    assert math.isnan(float(journal.number(math.nan)))


def test_a_journal_cut_at_each_of_its_last_200_bytes_loses_what_the_cut_touched(tmp_path: Path) -> None:
    """Short commits, so that 200 bytes span several of them."""
    said = [[{"type": "promote", "trial": n, "update": 20}, {"type": "x", "n": n}] for n in range(12)]
    path = told.write(tmp_path / "sweep", said) / "journal.jsonl"
    data = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
    seen = set()
    for size in range(len(data) - 200, len(data)):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        seen.add(whole)
        assert journal.read(path) == flat(said[:whole])
        opened = Journal(path)
        assert opened.records == flat(said[:whole])
        assert path.stat().st_size == ([0, *ends])[whole]  # the torn tail is gone
        opened.append([{"type": "after"}])
        opened.close()
        assert journal.read(path) == [*flat(said[:whole]), {"type": "after"}]
    assert len(seen) >= 3


def test_a_flipped_byte_in_the_middle_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    path = told.write(tmp_path / "sweep") / "journal.jsonl"
    data = path.read_bytes()
    last_line = data.rstrip(b"\n").rfind(b"\n") + 1
    for at in range(0, last_line, 97):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match="damaged at byte"):
            Journal(path)
        with pytest.raises(JournalError):
            journal.read(path)
        assert path.read_bytes() == damaged


def test_a_refused_journal_can_be_opened_after_it_was_restored(tmp_path: Path) -> None:
    path = told.write(tmp_path / "sweep") / "journal.jsonl"
    data = path.read_bytes()
    path.write_bytes(b"x" + data[1:])
    with pytest.raises(JournalError):
        Journal(path, patience_s=0)
    path.write_bytes(data)
    Journal(path, patience_s=0).close()


@pytest.mark.parametrize("room", [0, 1, 30])
def test_a_full_disk_leaves_a_sound_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """The disk takes `room` bytes of the commit and no more; once there is room, the same commit goes through."""
    path = tmp_path / "journal.jsonl"
    writer = Journal(path)
    writer.append([{"n": 0}])
    write, left = os.write, [room]

    def full(file: int, data: Any) -> int:
        taken = write(file, bytes(data)[: left[0]]) if left[0] else 0
        left[0] -= taken
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            writer.append([{"n": 1, "long": "x" * 100}])
    assert journal.read(path) == [{"n": 0}]
    writer.append([{"n": 1}])
    writer.close()
    assert journal.read(path) == [{"n": 0}, {"n": 1}]
    assert path.read_bytes() == journal.encode([{"n": 0}]) + journal.encode([{"n": 1}])


def test_a_reader_beside_the_writer_sees_whole_commits_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert journal.tail(path, 0) == ([], 0)
    said = told.commits()
    data = b"".join(map(journal.encode, said))
    seen: list[journal.Record] = []
    offset = 0
    for size in range(0, len(data) + 61, 61):
        path.write_bytes(data[:size])
        records, offset = journal.tail(path, offset)
        seen += records
    assert seen == flat(said)
    assert offset == len(data)


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    with pytest.raises(TimeoutError, match="still writing"):
        Journal(path, patience_s=0.1)
    first.close()
    Journal(path, patience_s=0.1).close()


def test_a_killed_writer_leaves_what_it_was_told_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = f"""
import sys, pathlib
from sweeps.journal import Journal
writer = Journal(pathlib.Path({str(path)!r}))
n = 0
while True:
    writer.append([{{"n": n}}])
    print(n, flush=True)
    n += 1
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        told_last = [int(child.stdout.readline()) for _ in range(50)][-1]
        child.kill()
    records = journal.read(path)
    assert [record["n"] for record in records] == list(range(len(records)))
    assert len(records) > told_last


STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["open", "work"])), max_size=24)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, cut=st.integers(0, 4000))
def test_no_line_of_a_stale_writer_counts(steps: list[tuple[int, str]], cut: int) -> None:
    """Three drivers of epochs 1 to 3 write in any order; a driver may write from its first `open` on."""
    lines, expected, newest, began = [], [], 0, set()
    for n, (writer, kind) in enumerate(steps):
        epoch = writer + 1
        if epoch not in began:
            kind = "open"
            began.add(epoch)
        record = {"type": kind, "n": n} | ({"epoch": epoch} if kind == "open" else {})
        lines.append(journal.encode([record, {"type": "more", "n": n}], epoch))
        counts = epoch >= newest
        newest = max(newest, epoch)
        if counts:
            expected += [{**record, "epoch": epoch}, {"type": "more", "n": n}]
    data = b"".join(lines)
    assert journal.scan(data) == (expected, len(data))
    fence, seen, at = journal.Fence(), [], 0  # and read in two parts, as by a follower
    for end in (cut, len(data)):
        records, length = journal.scan(data[at:end], fence=fence)
        seen += records
        at += length
    assert seen == expected


def test_journals_from_before_epochs_are_read_as_ever() -> None:
    old = [[{"type": "open", "epoch": 1}], [{"type": "a"}], [{"type": "open", "epoch": 2}], [{"type": "b"}]]
    assert journal.scan(b"".join(map(journal.encode, old)))[0] == flat(old)


def test_after_a_crash_the_successor_goes_on_in_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path, epoch=1)
    first.append([{"type": "open", "epoch": 1}])
    fcntl.flock(first._file, fcntl.LOCK_UN)  # a lock that another host does not see
    second = Journal(path, patience_s=0, epoch=2)
    second.append([{"type": "open", "epoch": 2}])
    first.append([{"type": "stale"}])
    second.append([{"type": "close", "reason": "finished"}])
    second.close()
    assert [record["type"] for record in journal.read(path)] == ["open", "open", "close"]
    before = path.stat().st_ino
    Journal(path, patience_s=0).close()  # closed cleanly: nothing to leave behind
    assert path.stat().st_ino == before
    assert [each.name for each in tmp_path.iterdir()] == ["journal.jsonl"]
