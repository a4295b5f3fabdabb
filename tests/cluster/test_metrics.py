import json
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster import metrics
from cluster.folders import UserError
from sweeps import history, telemetry
from tests.sweeps import told

SAID = [record for commit in told.commits() for record in commit]
SPEC = {"resources": {"cpu": 2.0, "gpu": 0.5}}
USED = {"host": "node1", "pid": 7, "device": "cuda", "rss_bytes": 2e9, "cpu_s": 12.5, "gpu": "GPU-1", "gpu_bytes": 5e9,
        "gpu_used_bytes": 6e9, "gpu_total_bytes": 8e10, "gpu_busy": 0.97}  # fmt: skip
STATUS = {
    "phase": "searching", "stages": {"search": [6, 7]}, "updates_per_s": 12.5, "eta_s": 60.0, "lag_s": 0.004,
    "best": {"trial": 0, "objective": 1.025, "params": {"lr": 0.1}}, "mlflow": {"behind": 3, "error": None},
    "groups": [{"group": 0, "state": "placed"}, {"group": 1, "state": "waiting"}], "usage": {0: USED},
}  # fmt: skip


def sweep(root: Path, name: str = "told", **status: object) -> Path:
    """A sweep of the told journal with a driver that is still there."""
    folder = told.write(root / name)
    watch = telemetry.Watch(folder, SPEC, 1)
    watch.begin(SAID)
    watch({**STATUS, **status})
    return folder


def scraped(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and label values, labels in order of their names, the sweep's left out."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = tuple(value for key, value in sorted(sample.labels.items()) if key != "sweep")
            assert (sample.name, *labels) not in found
            found[sample.name, *labels] = sample.value
    return found


def test_what_is_served_is_what_the_journal_counts(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    found = scraped(metrics.text(tmp_path))
    known = history.load(folder)
    for state in ("running", *history.END_STATES):
        counted = sum(trial.state == state for trial in known.trials.values())
        assert found["musweep_trials", "search", state] == counted
    assert found["musweep_updates_total",] == 150
    assert found["musweep_training_seconds_total",] == 12 * 0.5  # as its reports say
    assert found["musweep_gpu_seconds_total",] == pytest.approx(0.5 * known.held.seconds)
    assert found["musweep_cpu_seconds_total",] == pytest.approx(2.0 * known.held.seconds)


def test_every_number_of_a_status_is_served(tmp_path: Path) -> None:
    sweep(tmp_path)
    found = scraped(metrics.text(tmp_path))
    group = ("GPU-1", "0", "node1")
    wanted = {
        ("musweep_trials_planned", "search"): 7, ("musweep_sweep_phase", "searching"): 1,
        ("musweep_groups", "placed"): 1, ("musweep_groups", "waiting"): 1, ("musweep_groups", "lost"): 0,
        ("musweep_updates_per_second",): 12.5, ("musweep_best_objective",): 1.025, ("musweep_eta_seconds",): 60,
        ("musweep_driver_lag_seconds",): 0.004, ("musweep_mlflow_backlog_trials",): 3, ("musweep_mlflow_up",): 1,
        ("musweep_restarts_total", "hung"): 0, ("musweep_lost_seconds_total",): 0, ("musweep_driver_up",): 1,
        ("musweep_worker_memory_bytes", *group): 2e9, ("musweep_worker_cpu_seconds_total", *group): 12.5,
        ("musweep_worker_gpu_memory_bytes", *group): 5e9, ("musweep_device_memory_used_bytes", *group): 6e9,
        ("musweep_device_memory_bytes", *group): 8e10, ("musweep_device_busy_ratio", *group): 0.97,
    }  # fmt: skip
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["musweep_disk_free_bytes",] > 0
    assert found["musweep_driver_beat_age_seconds",] < 30


def test_an_ended_sweep_has_no_rate_no_groups_and_no_driver(tmp_path: Path) -> None:
    folder = sweep(tmp_path, phase="done")
    found = scraped(metrics.text(tmp_path))
    assert found["musweep_updates_per_second",] == found["musweep_groups", "placed"] == found["musweep_driver_up",] == 0
    assert not {name for name, *_ in found} & {"musweep_worker_memory_bytes", "musweep_eta_seconds"}
    old = json.loads((folder / "status.json").read_text()) | {"time": time.time() - metrics.FORGET_S - 1}
    (folder / "status.json").write_text(json.dumps(old))
    assert ("musweep_trials", "search", "complete") not in scraped(metrics.text(tmp_path))


def test_a_driver_is_up_while_its_beat_rises_whatever_its_clock_says(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    now = [1000.0]
    collector = metrics.Sweeps(tmp_path, timer=lambda: now[0])

    def up() -> float:
        (family,) = [family for family in collector.collect() if family.name == "musweep_driver_up"]
        return float(family.samples[0].value)

    def beat(number: int) -> None:
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps({**status, "beat": number, "time": 5.0}))  # a clock in 1970

    assert up() == 1
    beat(100)
    now[0] += 25
    assert up() == 1
    now[0] += 31
    assert up() == 0  # no new beat
    beat(101)
    assert up() == 1


def test_a_damaged_status_spoils_no_other(tmp_path: Path) -> None:
    sweep(tmp_path, "good")
    for name, text in (("torn", '{"schema_version": 1, "ph'), ("list", "[]"), ("newer", '{"schema_version": 99}'),
                       ("odd", '{"schema_version": 1, "beat": 1, "time": 0, "stages": {"search": 5}}')):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(text)
    found = metrics.text(tmp_path)
    assert 'musweep_updates_total{sweep="good"} 150.0' in found
    assert 'musweep_trials_planned{stage="search",sweep="good"} 7.0' in found
    assert metrics.text(tmp_path / "nothing")


def test_a_hundred_sweeps_are_scraped_at_once(tmp_path: Path) -> None:
    status = (sweep(tmp_path, "s000") / "status.json").read_text()
    for n in range(1, 100):
        (tmp_path / f"s{n:03d}").mkdir()
        (tmp_path / f"s{n:03d}" / "status.json").write_text(status)
    metrics.text(tmp_path)
    took = min(_timed(tmp_path) for _ in range(3))
    assert took < 0.3, f"{took:.3f} s"


def _timed(root: Path) -> float:
    began = time.thread_time()
    metrics.text(root)
    return time.thread_time() - began


def test_the_exporter_answers_over_http_on_loopback(tmp_path: Path) -> None:
    sweep(tmp_path)
    server, thread = metrics.serve(tmp_path, 0)
    try:
        assert server.server_address[0] == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert scraped(answer.read().decode())["musweep_updates_total",] == 150
        with pytest.raises(UserError, match="0 takes any that is free"):
            metrics.serve(tmp_path, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_the_queue_is_counted_by_state_and_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    sweep(tmp_path)
    assert "musweep_queue" not in metrics.text(tmp_path)
    from cluster.queue import Queue

    queue = Queue.open(tmp_path)
    for n, priority in enumerate((0, 5, 5)):
        queue.put(f"id{n}", name="n", target="t", priority=priority, cpus=1, gpus=0, workers=1, folder=str(tmp_path))
    found = scraped(metrics.text(tmp_path))
    assert found["musweep_queue_up",] == 1
    assert (found["musweep_queue_sweeps", "5", "queued"], found["musweep_queue_sweeps", "0", "queued"]) == (2, 1)
    monkeypatch.setenv("MUSWEEP_DATABASE", "postgresql://me:pw@127.0.0.1:1/none")
    found = metrics.text(tmp_path)
    assert "musweep_queue_up 0.0" in found
    assert 'musweep_updates_total{sweep="told"} 150.0' in found
