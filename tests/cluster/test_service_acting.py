"""The REST API starts, stops and orders sweeps over HTTP, and runs no code that it was sent."""

import json
import time
from pathlib import Path

import pytest
import yaml

from cluster import targets
from cluster.queue import Queue
from sweeps.lease import Lease
from tests.cluster.served import Served, served
from tests.dashboards.synthetic import Sweep, make

SMALL = """
task: digits
training: {updates: 20, batch: 10}
space: {lr: {type: float, low: 0.01, high: 0.1}}
budget: {trials: 2}
"""


pytestmark = pytest.mark.usefixtures("state")


def test_a_wrong_spec_is_refused_with_every_mistake(made: Served) -> None:
    sent = {"spec": "task: nope\ntrainng: {}\nbudget: {trials: -1}\n", "target": "local"}
    for path in ("/api/v1/check", "/api/v1/sweeps"):
        answer = made.ask("POST", path, sent)
        assert answer.status == 422
        told = {each["key"]: each for each in answer.json["problems"]}
        assert told["task.name"]["value"] == "nope"
        assert "curves" in told["task.name"]["legal"]
        assert "did you mean training?" in told["trainng"]["problem"]
        assert "budget.trials" in told
    answer = made.ask("POST", "/api/v1/sweeps", {"spec": SMALL, "target": "nowhere"})
    assert (answer.status, answer.json["problems"][0]["key"]) == (422, "target")
    assert answer.json["problems"][0]["legal"] == "local"
    answer = made.ask("POST", "/api/v1/check", {"spec": SMALL, "set": ["training.updates=x"]})
    assert answer.json["problems"][0]["key"] == "training.updates"


def test_a_spec_is_text_or_data_or_the_name_of_a_shipped_one(made: Served) -> None:
    as_text = made.ask("POST", "/api/v1/check", {"spec": SMALL})
    as_data = made.ask("POST", "/api/v1/check", {"spec": yaml.safe_load(SMALL)})
    assert as_text.status == as_data.status == 200, as_text.body
    assert as_text.json == as_data.json
    assert "2 trials" in as_text.json["summary"]
    from sweeps.spec import shipped

    name = next(name for name in sorted(shipped()) if "/" not in name)
    assert made.ask("POST", "/api/v1/check", {"spec": name}).status == 200


@pytest.mark.parametrize(
    "spec",
    [
        "trainer: os:system\n",
        "task: subprocess:run\n",
        "task: {name: 'antigravity:x'}\n",
        "task: digits\nmodel: {kind: 'os:abort'}\n",
        "task: digits\nmodules: /tmp\n",
        "task: digits\nmodules: .\ntrainer: evil:run\n",
    ],
)
def test_code_comes_over_the_line_only_if_clusters_yaml_allows_it(made: Served, spec: str, tmp_path: Path) -> None:
    (Path.cwd() / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for path in ("/api/v1/check", "/api/v1/sweeps"):
        answer = made.ask("POST", path, {"spec": spec, "target": "local"})
        assert answer.status == 422, answer.body
        assert "code" in answer.json["detail"] or "modules" in answer.json["detail"]
    answer = made.ask("POST", "/api/v1/sweeps", {"spec": SMALL, "set": ["trainer=evil:run"]})
    assert answer.status == 422
    assert not (tmp_path / "ran").exists()


def test_yaml_makes_no_objects(made: Served, tmp_path: Path) -> None:
    spec = f"task: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'ran'}]\n"
    assert made.ask("POST", "/api/v1/check", {"spec": spec}).status == 422
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("half", ["\ud800", "x\udfff"])
def test_half_a_character_is_refused_and_told_of(made: Served, half: str) -> None:
    for sent in ({"spec": half}, {"spec": {half: 1}}, {"spec": {"name": half}}, {"spec": {"name": {half: [half]}}}):
        answer = made.ask("POST", "/api/v1/check", sent)
        assert (answer.status, answer.json["status"]) == (422, 422)


def test_nothing_stops_what_does_not_run(made: Served) -> None:
    answer = made.ask("POST", "/api/v1/sweeps/done/stop", {})
    assert (answer.status, answer.json["detail"]) == (409, "done is not running")
    assert made.ask("POST", "/api/v1/sweeps/nope/stop", {}).status == 404


def test_a_driver_on_another_host_is_stopped_there(tmp_path: Path) -> None:
    folder = make(tmp_path / "far", Sweep(trials=4, close=None))
    said = {"epoch": 1, "pid": 1234, "host": "far-away", "boot": "x", "beat": 3, "holder": "h", "started": time.time()}
    (folder / "lease.json").write_text(json.dumps(said))
    with served(tmp_path) as running:
        assert running.api("/sweeps/far/summary")["state"] == "running"
        answer = running.ask("POST", "/api/v1/sweeps/far/stop", {})
        assert answer.status == 409
        assert "is on far-away: stop it there" in answer.json["detail"]
        assert running.ask("POST", "/api/v1/sweeps/far/resume", {}).status == 409
    with Lease(make(tmp_path / "mine", Sweep(trials=4, close=None)), beat_s=None), served(tmp_path) as running:
        answer = running.ask("POST", "/api/v1/sweeps/mine/stop", {})
        assert answer.json["detail"] == "mine is driven by the service itself"


def test_the_queue_is_ordered_over_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clusters.yaml").write_text(f"shared: {{kind: local, storage: {tmp_path / 'sweeps'}, queue: true}}\n")
    monkeypatch.setenv("MUSWEEP_CLUSTERS", str(tmp_path / "clusters.yaml"))
    (tmp_path / "sweeps").mkdir()
    queue = Queue.open(tmp_path / "sweeps")
    for name in ("a-1", "b-2"):
        queue.put(name, target="shared", owner="ann")
    with served(tmp_path / "sweeps") as running:
        assert {each["name"]: each["queue"] for each in running.api("/targets")} == {"local": False, "shared": True}
        (listed,) = running.api("/queue")
        assert [each["id"] for each in listed["entries"]] == ["a-1", "b-2"]
        assert "nobody dispatches it" in listed["summary"]
        raised = running.ask("POST", "/api/v1/queue/b-2/priority", {"priority": 5})
        assert (raised.status, raised.json["priority"]) == (200, 5)
        assert [each["id"] for each in running.api("/queue")[0]["entries"]] == ["b-2", "a-1"]
        assert running.ask("POST", "/api/v1/queue/a-1/hold", {}).json["state"] == "held"
        assert queue.get("a-1").why.startswith("held by loopback")  # type: ignore[union-attr]
        assert running.ask("POST", "/api/v1/queue/a-1/release", {}).json["state"] == "queued"
        assert running.ask("POST", "/api/v1/queue/a-1/cancel", {}).json["state"] == "stopped"
        assert [each["id"] for each in running.api("/queue")[0]["entries"]] == ["b-2"]
        assert len(running.api("/queue?ended=true")[0]["entries"]) == 2
        assert running.ask("POST", "/api/v1/queue/a-1/priority", {"priority": 1}).status == 409
        assert running.ask("POST", "/api/v1/queue/zzz/hold", {}).status == 404
        made = running.ask("POST", "/api/v1/sweeps", {"spec": SMALL, "target": "shared", "priority": 3})
        assert (made.status, made.json["state"], made.json["new"]) == (200, "queued", True), made.body
        again = running.ask("POST", "/api/v1/sweeps", {"spec": SMALL, "target": "shared"})
        assert (again.json["id"], again.json["new"]) == (made.json["id"], False)
        assert queue.get(made.json["id"]).priority == 3  # type: ignore[union-attr]
        assert running.api(f"/sweeps/{made.json['id']}/place")["state"] == "pending"
        assert running.ask("POST", f"/api/v1/sweeps/{made.json['id']}/stop", {}).json["state"] == "stopped"
        assert running.ask("POST", f"/api/v1/sweeps/{made.json['id']}/resume", {}).json["state"] == "pending"


def test_schedules_over_the_line(made: Served) -> None:
    sent = {"name": "nightly", "cron": "0 2 * * *", "zone": "Europe/London", "spec": SMALL, "set": ["budget.trials=3"]}
    added = made.ask("POST", "/api/v1/schedules", sent)
    assert added.status == 200, added.body
    assert len(added.json["next"]) == 3
    assert added.json["spec"].startswith("nightly-")  # kept here; its path is nobody's business
    assert made.api("/schedules") == [made.api("/schedules/nightly")]
    assert made.ask("POST", "/api/v1/schedules", sent).status == 409
    assert made.ask("POST", "/api/v1/schedules/nightly/pause", {}).json["paused"]
    assert made.api("/schedules/nightly")["next"] == []
    assert not made.ask("POST", "/api/v1/schedules/nightly/resume", {}).json["paused"]
    fired = made.ask("POST", "/api/v1/schedules/nightly/run", {})
    assert (fired.json["manual"], fired.json["state"]) == (True, "due")
    assert [each["sweep"] for each in made.api("/schedules/nightly/firings")] == [fired.json["sweep"]]
    assert made.api("/firings?limit=1")[0]["schedule"] == "nightly"
    for wrong, key in (
        ({"cron": "61 * * * *"}, ""),
        ({"zone": "Mars/Olympus"}, ""),
        ({"spec": "task: nope"}, "task.name"),
        ({"notify": ["https://hook.example/secret"]}, "body.notify.0"),
        ({"name": "../x"}, "body.name"),
    ):
        answer = made.ask("POST", "/api/v1/schedules", {**sent, "name": "other", **wrong})
        assert answer.status in (409, 422), answer.body
        if key:
            assert answer.json["problems"][0]["key"] == key
    assert made.ask("DELETE", "/api/v1/schedules/nightly").status == 204
    assert made.get("/api/v1/schedules/nightly").status == 404


def test_targets_hold_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "far: {kind: ray, address: 'http://head:8265', storage: /shared, token: {from_env: RAY_TOKEN},\n"
    (tmp_path / "c.yaml").write_text(text + "  env: {WHO: ann, KEY_FILE: {from_file: /x/y}}}\n")
    monkeypatch.setenv("MUSWEEP_CLUSTERS", str(tmp_path / "c.yaml"))
    assert "far" in targets.load()
    with served(tmp_path) as running:
        text = json.dumps(running.api("/targets"))
    assert "far" in text
    assert not any(word in text for word in ("RAY_TOKEN", "KEY_FILE", "head:8265"))
