"""The REST API over HTTP: what it answers is what the folder says, and nothing that is sent makes it fall over."""

import json
import socket
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from cluster import folders
from sweeps import history, journal
from sweeps.store import rows_table
from tests.cluster.served import Served, served
from tests.dashboards.synthetic import Sweep, make

pytestmark = pytest.mark.usefixtures("state")


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
