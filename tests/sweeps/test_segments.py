import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps import journal, segments
from sweeps.journal import JournalError, PassingError
from sweeps.remote import Remote
from sweeps.segments import RemoteJournal, Segment, cover, parse, stored


class Killed(BaseException):
    """The process is gone."""


class Shelf(Remote):
    """A store in memory that can kill its user before or after any change, or fail."""

    def __init__(self) -> None:
        super().__init__("s3://shelf/sweep")
        self.files: dict[str, bytes] = {}
        self.changes, self.kill_at, self.after = 0, -1, False
        self.failing = False

    def _change(self, do) -> None:
        self.changes += 1
        if self.failing:
            raise PassingError("no answer")
        if self.changes == self.kill_at and not self.after:
            raise Killed
        do()
        if self.changes == self.kill_at:
            raise Killed

    def put(self, name: str, data: bytes) -> None:
        self._change(lambda: self.files.__setitem__(name, data))

    def get(self, name: str) -> bytes:
        try:
            return self.files[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def names(self, prefix: str = "") -> dict[str, int]:
        return {name: len(self.files[name]) for name in sorted(self.files) if name.startswith(prefix)}

    def remove(self, name: str) -> None:
        self._change(lambda: self.files.pop(name, None))


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The working copies here are never read after a power cut."""
    monkeypatch.setattr("os.fsync", lambda _file: None)


def opened(folder: Path, shelf: Shelf, epoch: int) -> RemoteJournal:
    folder.mkdir(exist_ok=True)
    return RemoteJournal(folder / "journal.jsonl", shelf, epoch, background=False)


def read(shelf: Shelf) -> list[journal.Record]:
    return journal.scan(stored(shelf)[0])[0]


def test_commits_are_segments_and_lines_alike(tmp_path: Path) -> None:
    shelf = Shelf()
    one = opened(tmp_path / "a", shelf, 1)
    one.append([{"type": "open", "epoch": 1}])
    one.append([{"type": "x"}, {"type": "y"}])
    one.close()
    assert list(shelf.files) == ["journal/000001-00000000.jsonl", "journal/000001-00000001.jsonl"]
    assert b"".join(shelf.files.values()) == (tmp_path / "a" / "journal.jsonl").read_bytes()
    two = opened(tmp_path / "b", shelf, 2)  # another machine
    assert [record["type"] for record in two.records] == ["open", "x", "y"]
    two.append([{"type": "open", "epoch": 2}])
    assert read(shelf)[-1] == {"type": "open", "epoch": 2, "after": [1, 1]}
    assert sorted(shelf.files) == ["journal/000001-00000000-00000001.jsonl", "journal/000002-00000000.jsonl"]
    assert (tmp_path / "b" / "journal.jsonl").read_bytes() == stored(shelf)[0]
    two.close()


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_change_leaves_all_that_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Merging by threes, so that 12 commits and a second driver go through every kind of change there is."""
    monkeypatch.setattr(segments, "FAN", 3)

    def drive(folder: Path, shelf: Shelf, epoch: int, answered: list[int]) -> None:
        writer = opened(folder, shelf, epoch)
        writer.append([{"type": "open", "epoch": epoch}])
        for n in range(11):
            writer.append([{"type": "work", "n": 100 * epoch + n}])
            answered.append(100 * epoch + n)
        writer.close()

    whole = Shelf()
    drive(tmp_path / "w1", whole, 1, [])
    first = whole.changes
    drive(tmp_path / "w2", whole, 2, [])
    for kill_at in range(1, whole.changes + 1):
        shelf, answered = Shelf(), list[int]()
        shelf.kill_at, shelf.after = kill_at, after
        drives = (drive(tmp_path / f"{kill_at}-{epoch}", shelf, epoch, answered) for epoch in (1, 2))
        with pytest.raises(Killed):
            list(drives)
        found = [record["n"] for record in read(shelf) if record["type"] == "work"]
        assert found[: len(answered)] == answered
        assert len(found) <= len(answered) + 1  # what was put and not answered may count
        drive(tmp_path / f"{kill_at}-3", shelf, 3, [])
        again = [record["n"] for record in read(shelf) if record["type"] == "work"]
        assert again == [*found, *range(300, 311)]
    assert first < whole.changes


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_what_a_stale_driver_puts_counts_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Drivers take over from each other and go on writing regardless; all see one past."""
    monkeypatch.setattr(segments, "FAN", 3)
    draw, shelf = random.Random(seed), Shelf()
    writers: list[RemoteJournal] = []
    truth: list[tuple[int, int]] = []
    for n in range(40):
        if not writers or draw.random() < 0.15:
            folder = tmp_path / f"{seed}-{n}"
            writers.append(opened(folder, shelf, len(writers) + 1))
            writers[-1].append([{"type": "open", "epoch": len(writers)}])
            truth = [(r["epoch"], r["n"]) for r in writers[-1].records if r["type"] == "work"]
        epoch = draw.randint(1, len(writers))
        writers[epoch - 1].append([{"type": "work", "n": n}])
        if epoch == len(writers):
            truth.append((epoch, n))
        assert [(r["epoch"], r["n"]) for r in read(shelf) if r["type"] == "work"] == truth
    for writer in writers:
        writer.close()


def test_a_commit_that_failed_goes_under_the_same_name(tmp_path: Path) -> None:
    shelf = Shelf()
    writer = opened(tmp_path / "a", shelf, 1)
    writer.append([{"type": "open", "epoch": 1}])
    shelf.failing = True
    with pytest.raises(PassingError):
        writer.append([{"type": "x"}])
    assert journal.read(tmp_path / "a" / "journal.jsonl") == read(shelf)
    shelf.failing = False
    writer.append([{"type": "x"}])
    assert [record["type"] for record in read(shelf)] == ["open", "x"]
    assert len(shelf.files) == 2
    writer.close()


def test_an_epoch_that_is_taken_is_refused(tmp_path: Path) -> None:
    shelf = Shelf()
    opened(tmp_path / "a", shelf, 2).append([{"type": "open", "epoch": 2}])
    for epoch in (1, 2):
        with pytest.raises(JournalError, match="another driver has taken this sweep over"):
            opened(tmp_path / "b", shelf, epoch)


def test_what_is_lost_or_damaged_is_told(tmp_path: Path) -> None:
    shelf = Shelf()
    writer = opened(tmp_path / "a", shelf, 1)
    for _ in range(4):
        writer.append([{"type": "work"}])
    writer.close()
    name = "journal/000001-00000002.jsonl"
    data = shelf.files.pop(name)
    with pytest.raises(JournalError, match="commit 2 of epoch 1 is missing"):
        stored(shelf)
    for damaged in (data[:-1], data[:-5] + b"x" + data[-4:], b"", data + data):
        shelf.files[name] = damaged
        with pytest.raises(JournalError, match=r"000001-00000002.jsonl is damaged"):
            stored(shelf)


def test_names_are_read_back_and_the_longest_segments_are_taken() -> None:
    all_ = [Segment(1, n, n) for n in range(9)] + [Segment(1, 0, 3), Segment(1, 4, 7), Segment(1, 2, 5)]
    assert parse(segment.name for segment in all_) == all_
    assert parse(["journal/other.txt", "rows/part-00000.parquet"]) == []
    assert cover(all_) == [Segment(1, 0, 3), Segment(1, 4, 7), Segment(1, 8, 8)]
    assert cover(all_[1:9]) == []


def test_thousands_of_commits_are_few_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "FAN", 8)
    shelf = Shelf()
    writer = opened(tmp_path / "a", shelf, 1)
    for n in range(1000):
        writer.append([{"type": "work", "n": n}])
    assert len(shelf.files) < 1000 / 64 + 16
    assert [record["n"] for record in read(shelf)] == list(range(1000))
    writer.close()
