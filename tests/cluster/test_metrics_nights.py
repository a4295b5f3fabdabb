import json
import time
from pathlib import Path

import pytest

from cluster import metrics, metrics_nights
from cluster.schedule import Message, Schedule, Schedules

HOUR = 3600.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's state folder, empty."""
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "musweep"


def values(root: Path) -> dict[str, float]:
    lines = [line for line in metrics.text(root).splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_who_has_no_schedules_gets_no_metrics_and_no_database(home: Path, tmp_path: Path) -> None:
    assert not [name for name in values(tmp_path) if "night" in name or "schedule" in name]
    assert not home.exists()


def test_the_last_nights_numbers(home: Path, tmp_path: Path) -> None:
    store = Schedules.open()
    now = time.time()
    store.add(Schedule("nightly", "0 1 * * *", "UTC", "digits", "local", "/"), now - 60)
    first = store.run_now("nightly", now - 48 * HOUR)
    last = store.run_now("nightly", now - 24 * HOUR) if store.change(first, lambda _: {"state": "skipped"}) else first
    night = {"effect": 1.25, "low": 1.1, "high": 1.4, "could_find": 1.15, "difference": None}
    to = {"state": "done", "result": "worse", "started": 100.0, "ended": 160.0, "night": json.dumps(night)}
    store.change(last, lambda _: to, [Message("nightly", "worse-1", now, "worse", "a", "b")])
    found = values(tmp_path)
    assert found['musweep_night_result{result="worse",schedule="nightly"}'] == 1
    assert sum(value for name, value in found.items() if name.startswith("musweep_night_result")) == 1
    assert found['musweep_night_ratio{schedule="nightly"}'] == 1.25
    assert found['musweep_night_could_find_ratio{schedule="nightly"}'] == 1.15
    assert found['musweep_night_duration_seconds{schedule="nightly"}'] == 60
    assert found['musweep_night_time_seconds{schedule="nightly"}'] == last.at
    assert found['musweep_messages{state="queued"}'] == 1
    assert found["musweep_schedules_up"] == 1
    assert 0 < found['musweep_schedule_next_time_seconds{schedule="nightly"}'] - now <= 24 * HOUR
    assert not [name for name in found if name.startswith("musweep_night_difference")]  # there is none to tell


def test_a_next_night_in_the_past_says_that_no_scheduler_runs(home: Path, tmp_path: Path) -> None:
    now = time.time()
    Schedules.open().add(Schedule("nightly", "0 1 * * *", "UTC", "digits", "local", "/"), now - 72 * HOUR)
    found = values(tmp_path)
    assert 48 * HOUR <= now - found['musweep_schedule_next_time_seconds{schedule="nightly"}'] <= 72 * HOUR
    assert found['musweep_night_result{result="missed",schedule="nightly"}'] == 1


def test_a_database_that_is_none_takes_only_its_own_numbers_with_it(home: Path, tmp_path: Path) -> None:
    home.mkdir(parents=True)
    (home / "schedules.db").write_text("no database at all, however long it is looked at")
    found = values(tmp_path)
    assert found["musweep_schedules_up"] == 0
    assert found["musweep_disk_free_bytes"] > 0
    assert metrics_nights.RESULTS == ("ok", "better", "worse", "broken", "missed")
