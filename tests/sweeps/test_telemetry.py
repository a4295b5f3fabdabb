import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps import events, telemetry
from sweeps.lease import Lease
from tests.sweeps import told

SAID = [record for commit in told.commits() for record in commit]
SPEC = {"resources": {"cpu": 1.0, "gpu": 0.5}}


def types(folder: Path) -> list[str]:
    return [event["type"] for event in events.read(folder) if "record" not in event]


def test_a_status_has_what_the_journal_counts(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    with Lease(folder) as lease, telemetry.Watch(folder, SPEC, lease.epoch) as watch:
        watch.begin(SAID[:5])
        watch.add(SAID[5:])
        watch({"phase": "searching", "updates_per_s": 12.0, "rungs": {20: [3, 1]}})
        running = telemetry.read(folder)
        assert running["driven"]
    status = telemetry.read(folder)
    assert status["by_stage"]["search"]["complete"] == 2
    assert status["updates_done"] == 150
    assert status["worker_s"] == 6.0
    assert status["gpu_seconds"] == pytest.approx(0.5 * (3 + 2 + 2 + 3))
    assert (status["sweep_id"], status["updates_per_s"], status["rungs"]) == (told.SWEEP_ID, 12.0, {"20": [3, 1]})
    assert status["versions"] == {"torch": "2.13.0", "git": "0123abcd+changes"}
    assert (status["phase"], status["driven"]) == ("done", False)
    assert status["beat"] > running["beat"] > 0
    assert telemetry.over(folder)


def test_each_trouble_is_told_when_it_comes_and_when_it_goes(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    mlflow = {"error": None, "behind": 0}
    with telemetry.Watch(folder, SPEC, 1) as watch:
        watch.begin(SAID)
        for trouble, error in (("", None), ("full", None), ("full", "http://u:pw@h: away"), ("", "still"), ("", None)):
            watch({"phase": "searching", "trouble": trouble, "mlflow": {**mlflow, "error": error}})
    told_of = [
        (event["type"], event.get("source"), event.get("words"))
        for event in events.read(folder)
        if event["type"].startswith("trouble")
    ]
    assert told_of == [
        ("trouble", "journal", "full"),
        ("trouble", "mlflow", "http://u:***@h: away"),
        ("trouble_over", "journal", None),
        ("trouble_over", "mlflow", None),
    ]


def test_groups_are_told_of_when_their_place_changes(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    waiting = {"group": 0, "state": "waiting", "host": None, "device": None, "pid": None, "restarts": 0}
    placed = {**waiting, "state": "placed", "host": "a", "device": "cpu", "pid": 7}
    with telemetry.Watch(folder, SPEC, 1) as watch:
        watch.begin(SAID)
        watch({"phase": "searching", "groups": [waiting], "waiting": "no worker for group 0"})
        watch({"phase": "searching", "groups": [{**waiting, "trials": 3}], "waiting": "no worker for group 0"})
        watch({"phase": "searching", "groups": [placed], "waiting": ""})
        watch({"phase": "searching", "groups": [{**placed, "since_report_s": 3.0}], "waiting": ""})
    assert types(folder) == ["driver_started", "group", "waiting", "group", "waiting_over", "driver_stopped"]
    last = [event for event in events.read(folder) if event["type"] == "group"][-1]
    assert (last["state"], last["host"], last["pid"]) == ("placed", "a", 7)


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "phase"), [(Stopped(), "interrupted"), (KeyboardInterrupt(), "interrupted"), (OSError("no"), "failed")]
)
def test_a_driver_that_leaves_says_how(tmp_path: Path, error: BaseException, phase: str) -> None:
    folder = told.write(tmp_path / "told")
    with (
        pytest.raises(type(error)),
        telemetry.Watch(folder, SPEC, 1, interrupts=(Stopped, KeyboardInterrupt)),
    ):
        raise error  # before it came to the journal
    assert types(folder) == ["driver_started", "driver_stopped"]
    assert events.read(folder)[-1]["reason"] == telemetry.read(folder)["phase"] == phase


def test_a_driver_that_was_replaced_touches_nothing(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    with telemetry.Watch(folder, SPEC, 1) as watch:
        watch.begin(SAID[:5])
        (folder / "lease.json").write_text(json.dumps({"epoch": 2}))
        watch._looked = 0.0
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        watch.add(SAID[5:])
        watch({"phase": "stopping"})
        watch.tell("trouble")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_reader_never_sees_half_a_status(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "told")
    ended, seen = threading.Event(), []

    def look(read: Callable[[], str]) -> None:
        while not ended.is_set():
            seen.append(json.loads(read()))

    with telemetry.Watch(folder, SPEC, 1) as watch:
        watch.begin(SAID)
        watch({"phase": "starting"})
        reader = threading.Thread(target=look, args=((folder / telemetry.FILE).read_text,))
        reader.start()
        for n in range(300):
            watch({"phase": str(n), "filler": "x" * (n * 37 % 5000)})
        ended.set()
        reader.join(10)
    beats = [status["beat"] for status in seen]
    assert len(beats) > 1
    assert beats == sorted(beats)
    assert telemetry.read(tmp_path) == {}


def test_the_last_status_has_what_mlflow_came_to(tmp_path: Path) -> None:
    """It catches up after the last status of the board; a backlog of an ended sweep would be watched for ever."""
    folder = told.write(tmp_path / "told")
    behind = 8
    with telemetry.Watch(folder, SPEC, 1) as watch:
        watch.begin(SAID)
        watch.mlflow = lambda: {"behind": behind, "error": None}
        watch({"phase": "finishing", "mlflow": {"behind": 8, "error": None}})
        behind = 0
    assert telemetry.load(folder)["mlflow"]["behind"] == 0
