"""The REST API over HTTP: what it answers is what the folder says, and nothing that is sent makes it fall over."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings

from cluster import folders, targets
from cluster.queue import Queue
from cluster.service.app import Settings, create
from sweeps import history, journal
from sweeps.history import END_STATES
from sweeps.lease import Lease
from sweeps.store import rows_table
from tests.cluster.served import Served, served, shelf_of
from tests.dashboards.synthetic import Sweep, make

SMALL = """
task: digits
training: {updates: 20, batch: 10}
space: {lr: {type: float, low: 0.01, high: 0.1}}
budget: {trials: 2}
"""


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        patch.delenv("MUSWEEP_DATABASE", raising=False)
        patch.delenv("MUSWEEP_CLUSTERS", raising=False)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelf_of(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def made(root: Path) -> Iterator[Served]:
    with served(root) as running:
        yield running


# -- reading -------------------------------------------------------------------------------------------------------


def test_the_list_and_its_filters(made: Served, root: Path) -> None:
    every = made.api("/sweeps")
    assert {each["id"] for each in every["rows"]} == {"done", "cut", "best"}
    assert (every["total"], every["matched"]) == (3, 3)
    assert [each["id"] for each in made.api("/sweeps?state=cut%20off")["rows"]] == ["cut"]
    assert [each["id"] for each in made.api("/sweeps?name=ES")["rows"]] == ["best"]
    assert [made.api(f"/sweeps?limit=1&offset={n}")["rows"][0]["id"] for n in range(3)] == [
        each["id"] for each in every["rows"]
    ]
    summary = made.api("/sweeps/done/summary")
    assert summary == next(each for each in every["rows"] if each["id"] == "done")
    assert made.api("/sweeps/done")["summary"] == summary


def test_the_table_of_trials(made: Served, root: Path) -> None:
    page = made.api("/sweeps/done/trials?sort=objective&limit=5&filter=state:complete")
    ranked = [trial.id for trial in folders.read(root / "done").ranked()]
    assert [row["id"] for row in page["rows"]] == ranked[:5]
    assert (page["matched"], page["total"]) == (len(ranked), 40)
    answer = made.get("/api/v1/sweeps/done/trials?sort=nosuch")
    assert answer.status == 422
    assert "legal: number" in answer.json["detail"]


def test_one_trial(made: Served, root: Path) -> None:
    read = folders.read(root / "done")
    best = folders.best(read)
    told = made.api(f"/sweeps/done/trials/{best.id}")
    assert (told["place"], told["row"]["objective"], told["config"]) == (1, best.objective, best.config)
    assert made.api(f"/sweeps/done/trials/{best.number}") == told
    curve = next(each for each in told["curves"] if each["metric"] == read.objective)
    assert curve["values"] == [best.metrics[update][read.objective] for update in sorted(best.metrics)]
    stopped = next(trial for trial in read.searched if trial.state == "stopped")
    assert "at the rung of update" in made.api(f"/sweeps/done/trials/{stopped.id}")["row"]["why"]
    assert made.get("/api/v1/sweeps/done/trials/999").status == 404


def test_rows_as_arrow_and_as_json_are_the_same(made: Served, root: Path) -> None:
    whole = rows_table(history.load(root / "done"))
    answer = made.get("/api/v1/sweeps/done/rows?format=arrow")
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answer.body).read_all()
    assert table.equals(whole)
    one = made.api("/sweeps/done/rows?trial=t00003&limit=100000")
    mine = [row for row in whole.to_pylist() if row["trial_id"] == "t00003"]
    assert [(row["update"], row["metric"]) for row in one["rows"]] == [(row["update"], row["metric"]) for row in mine]
    assert [float(row["value"]) for row in one["rows"]] == pytest.approx([row["value"] for row in mine], nan_ok=True)
    assert made.get("/api/v1/sweeps/nope/rows?format=arrow").status == 404


def test_curves_and_points(made: Served, root: Path) -> None:
    read = folders.read(root / "done")
    assert [each["trial"] for each in made.api("/sweeps/done/curves?n=3")] == [t.id for t in read.ranked()[:3]]
    assert [each["trial"] for each in made.api("/sweeps/done/curves?trial=5&trial=2")] == ["t00005", "t00002"]
    points = made.api("/sweeps/done/points?x=mu_max&y=lr")
    assert {each["trial"]: each["y"] for each in points} == {t.id: t.params["lr"] for t in read.searched}


def test_logs(made: Served, root: Path) -> None:
    logs = root / "cut" / "logs"
    logs.mkdir(exist_ok=True)
    (logs / "driver.log").write_text("one\x1b[31m\ntwo\n")
    log = made.api("/sweeps/cut/log?lines=1")
    assert log == {"lines": ["driver | two"], "cut": True}
    assert made.api("/sweeps/cut/log")["lines"][0] == "driver | one\ufffd[31m"
    assert made.api("/sweeps/cut/log?trial=0") == {"lines": [], "cut": False}
    assert made.get("/api/v1/sweeps/cut/log?trial=777").status == 404


def test_around(made: Served, root: Path) -> None:
    assert made.api("/health") == {"status": "ok"}
    assert made.api("/version")["role"] == "admin"
    assert [each["name"] for each in made.api("/targets")] == ["local"]  # not debug, which would run in the service
    tables = {each["name"]: each for each in made.api("/baselines")}
    assert len(tables) >= 3
    assert all(table["values"] for table in tables.values())
    text = made.get("/api/v1/metrics").text
    assert "musweep_disk_free_bytes" in text
    assert made.api("/sweeps/done/place") == {"id": "done", "target": "", "state": "finished", "why": ""}


@pytest.mark.parametrize(
    "id_",
    [
        "..",
        "../done",
        "..%2fdone",
        "%2e%2e/done",
        "%2e%2e%2fdone",
        "/etc",
        "done%00",
        ".hidden",
        "done/../cut",
        "~",
        "%",
    ],
)
@pytest.mark.parametrize("rest", ["", "/trials", "/log", "/comparison", "/rows", "/events", "/stop"])
def test_no_path_leaves_the_folder(made: Served, root: Path, id_: str, rest: str) -> None:
    (root / "secret.json").write_text("{}")
    (root / ".hidden").mkdir(exist_ok=True)
    make(root / ".hidden" / "x", Sweep(trials=2))
    (root / ".hidden" / "spec.json").write_text("{}")
    method = "POST" if rest == "/stop" else "GET"
    answer = made.ask(method, f"/api/v1/sweeps/{id_}{rest}", {} if method == "POST" else None)
    assert answer.status in (404, 405, 422), answer.body
    assert str(root.parent) not in answer.text or "no sweep" in answer.text


def test_every_refusal_has_one_shape(made: Served) -> None:
    refused = [
        made.get("/api/v1/nothing"),
        made.get("/api/v1/sweeps/nope"),
        made.get("/api/v1/sweeps/done/trials?limit=0"),
        made.ask("POST", "/api/v1/sweeps", b"{not json"),
        made.ask("DELETE", "/api/v1/sweeps"),
        made.ask("POST", "/api/v1/check", {"spec": "x: 1"}),
        made.get("/api/v1/health", Host="evil.example"),
    ]
    assert [each.status for each in refused] == [404, 404, 422, 422, 405, 422, 421]
    for each in refused:
        assert each.headers["content-type"] == "application/problem+json"
        assert each.json.keys() == {"status", "title", "detail", "problems"}
        assert each.json["status"] == each.status
        assert each.json["detail"]
    assert refused[2].json["problems"][0]["key"] == "query.limit"


# -- live ----------------------------------------------------------------------------------------------------------


def listen(url: str, path: str, until: str, events: list[tuple[str, str]], ready: threading.Event) -> None:
    """Read a stream until an event of a kind, or until it ends."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        kind = ""
        with line.makefile("r", encoding="utf-8") as file:
            for text in file:
                if text.startswith("event: "):
                    kind = text[7:].strip()
                if text.startswith("data: "):
                    events.append((kind, text[6:].strip()))
                    ready.set()
                    if kind == until:
                        return


def test_a_change_is_told_to_all_who_watch_and_to_no_other(tmp_path: Path) -> None:
    folder = make(tmp_path / "live", Sweep(trials=10, close=None))
    make(tmp_path / "other", Sweep(trials=10))
    with served(tmp_path) as running:
        running.service.hub._every_s = 0.05
        heard: dict[str, list[tuple[str, str]]] = {}
        threads = []
        for n, path in enumerate(["/api/v1/events", "/api/v1/sweeps/live/events", "/api/v1/sweeps/other/events"]):
            ready = threading.Event()
            heard[path] = []
            threads.append(threading.Thread(target=listen, args=(running.url, path, "bye", heard[path], ready)))
            threads[-1].start()
            assert ready.wait(10), n
        assert running.service.hub.watchers == 3
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(journal.encode([{"type": "close", "time": time.time(), "reason": "finished"}]))
        until = time.monotonic() + 10
        while time.monotonic() < until and not any(
            "finished" in data for _, data in heard["/api/v1/sweeps/live/events"]
        ):
            time.sleep(0.02)
    for thread in threads:  # the service has ended, and so have the streams
        thread.join(10)
        assert not thread.is_alive()
    states = {
        path: [
            json.loads(data)["state"] for kind, data in events if kind == "sweep" and json.loads(data)["id"] == "live"
        ]
        for path, events in heard.items()
    }
    assert states["/api/v1/sweeps/live/events"] == ["cut off", "finished"]
    assert states["/api/v1/events"] == ["cut off", "finished"]
    assert states["/api/v1/sweeps/other/events"] == []
    assert all(events[-1][0] == "bye" for events in heard.values())


def test_who_leaves_is_forgotten(tmp_path: Path) -> None:
    make(tmp_path / "one", Sweep(trials=4))
    with served(tmp_path) as running:
        events: list[tuple[str, str]] = []
        listen(running.url, "/api/v1/events", "sweep", events, threading.Event())
        until = time.monotonic() + 10
        running.service.hub._every_s = 0.05
        while running.service.hub.watchers and time.monotonic() < until:
            time.sleep(0.02)
        assert running.service.hub.watchers == 0


# -- acting --------------------------------------------------------------------------------------------------------


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


# -- whatever is sent ------------------------------------------------------------------------------------------------


OPERATIONS = [
    (method.upper(), path)
    for path, item in create(Path("nowhere")).openapi()["paths"].items()
    for method in item
    if not path.endswith("events")  # streams do not end
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.schemas.BaseSchema:
    app = create(
        shelf_of(tmp_path_factory.mktemp("fuzzed")), Settings(hosts=frozenset({"testserver"}), rate=1e9, failures=1e9)
    )
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda part: part.removeprefix("/api/v1"))
def test_nothing_that_is_sent_is_a_fault_of_ours(
    fuzzed: schemathesis.schemas.BaseSchema, method: str, path: str
) -> None:
    tried = set()

    @settings(
        max_examples=25, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=fuzzed[path][method].as_strategy())
    def send(case: schemathesis.Case) -> None:
        given_id = (case.path_parameters or {}).get("id_")
        if (
            method == "GET" and given_id is not None and len(str(given_id)) % 3
        ):  # else there is hardly ever such a sweep
            case.path_parameters["id_"] = ("done", "cut", "best")[len(str(given_id)) % 3]
        answer = case.call()
        tried.add(answer.status_code)
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)
        if answer.status_code >= 400:
            assert answer.json()["status"] == answer.status_code
        CASES[0] += 1

    send()
    print(f"{method} {path}: {sorted(tried)}; {CASES[0]} cases so far")


CASES = [0]


def test_the_document_is_whole(root: Path) -> None:
    document = create(root).openapi()
    assert document["components"]["securitySchemes"].keys() == {"token", "session"}
    for path, item in document["paths"].items():
        for method, told in item.items():
            assert told.get("description") or told.get("summary"), (method, path)
            if path != "/api/v1/health":
                assert {"401", "403", "404", "409", "422", "429"} <= told["responses"].keys(), (method, path)
            for code, answer in told["responses"].items():
                if code.startswith("4"):
                    assert "application/problem+json" in answer["content"], (method, path, code)
    text = json.dumps(document)
    assert set(END_STATES) <= set(document["components"]["schemas"]["TrialRow"]["properties"]["state"]["enum"])
    assert quote(str(root)) not in text
