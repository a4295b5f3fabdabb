import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sweeps import history, store
from sweeps.cost import Devices, Held, Ledger
from tests.sweeps import told

SAID = [record for commit in told.commits() for record in commit]


def record(kind: str, at: float, group: int | None = None, **more) -> dict:
    return {"type": kind, "time": at} | ({} if group is None else {"group": group}) | more


def test_a_worker_holds_its_place_from_its_attaching_to_its_last_word() -> None:
    held = Held()
    for said in (
        record("open", 0.0),
        record("ask", 1.0, 0),  # the group waits for a place: nothing is held
        record("attach", 11.0, 0),
        record("attach", 12.0, 1),
        record("report", 20.0, 0),
        record("report", 22.0, 1),
        record("fault", 30.0, 1, cause="preempted"),
        record("attach", 50.0, 1),
        record("report", 55.0, 1),
        record("close", 100.0),
    ):
        held.apply(said)
    assert held.seconds == (20 - 11) + (30 - 12) + (55 - 50)


def test_a_crash_ends_what_was_held_and_clocks_set_back_take_nothing_away() -> None:
    held = Held()
    for said in (record("open", 0), record("attach", 1, 0), record("report", 5, 0), record("report", 3, 0)):
        held.apply(said)
    assert held.seconds == 4
    held.apply(record("open", 1000))
    held.apply(record("attach", 1010, 0))
    assert held.seconds == 4
    held.apply(record("report", 1011, 0))
    assert held.seconds == 5


def test_the_told_sweep_costs_what_its_journal_says() -> None:
    found = history.fold(SAID)
    # Without attachments: group 0 from 1 to 4 and from 101 to 103, group 1 from 1 to 3 and from 102 to 105.
    assert found.held.seconds == pytest.approx((4 - 1) + (103 - 101) + (3 - 1) + (105 - 102))
    ledger = Ledger()
    for said in SAID:
        ledger.add(said)
    plain = ledger.plain()
    assert plain["by_stage"] == {
        "search": {"running": 0, "stopped": 1, "diverged": 1, "complete": 2, "failed": 1, "skipped": 1}
    }
    assert plain["updates_done"] == 40 + 20 + 20 + 30 + 40
    assert plain["worker_s"] == 0.5 * (3 + 3 + 2 + 2 + 1 + 1)  # what was trained again was paid for again
    assert plain["held_s"] == pytest.approx(found.held.seconds)


def test_lost_work_and_restarts_by_cause() -> None:
    ledger = Ledger()
    for said in (
        record("attach", 0, 0), record("attach", 0, 1),
        record("fault", 7.5, 0, cause="hung", words="", moved=[]),
        record("attach", 9, 0), record("fault", 10, 0, cause="hung", words="", moved=[]),
        record("fault", 12, 1, cause="infrastructure", words="", moved=[]),
        record("fault", 42, 1, cause="infrastructure", words="no worker for too long", moved=[3]),
    ):  # fmt: skip
        ledger.add(said)
    assert ledger.faults == {"hung": 2, "infrastructure": 1}
    assert ledger.lost_s == 7.5 + 1 + 12


@pytest.mark.parametrize(
    ("resources", "kind", "gpu", "cpu"),
    [({}, "CPU", 0.0, 1.0), ({"cpu": 2, "gpu": 0.25}, "GPU", 0.25, 2.0), ({"cpu": 4, "gpu": 0}, "CPU", 0.0, 4.0)],
)
def test_a_trials_share_in_the_table(tmp_path: Path, resources: dict, kind: str, gpu: float, cpu: float) -> None:
    folder = told.write(tmp_path / "told")
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**spec, "resources": resources}))
    found = history.load(folder)
    store.write_derived(folder, found)
    table = pq.read_table(folder / "trials.parquet").to_pydict()
    walls = [trial.wall_s for trial in found.trials.values()]
    assert table["gpu_s"] == [wall * gpu for wall in walls]
    assert table["cpu_s"] == [wall * cpu for wall in walls]
    devices = Devices.of({"resources": resources})
    assert devices.kind == kind
    assert devices.seconds(sum(walls)) <= devices.seconds(found.held.seconds)
