"""Submitting as a person does it: to this host, and to a real Ray cluster that asks for a token."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cluster import ray_jobs, submitted
from cluster.cli import main
from cluster.launch import JobStatus, LaunchError, Unreachable, launcher_of
from cluster.targets import Target, parse
from sweeps import history

ROOT = Path(__file__).parents[2]
FIRST_ANSWER_S = ray_jobs.CONNECT_S + ray_jobs.ANSWER_S  # before any fixture is patient
SPEC = """
name: sent
task: digits
model: {depth: 1, width: 16}
training: {updates: 100, batch: 32, reports: 2, eval_examples: 100}
space: {lr: {type: float, low: 0.001, high: 0.1, scale: log}}
search: {algorithm: random, group_size: 4}
budget: {trials: 8}
resources: {engine: loop, workers: 1}
mlflow: {enabled: false}
"""
OWN = """
name: own
trainer: "waves:train"
training: {updates: 10, reports: 10}
space: {x: {type: float, low: 0.0, high: 1.0}}
search: {algorithm: random}
budget: {trials: 12}
objective: loss
resources: {workers: 1}
mlflow: {enabled: false}
"""
WAVES = """
import time
import odd_one


def train(trial):
    for update in range(trial.start + 1, trial.updates + 1):
        if trial.number >= 4 and not odd_one.GATE.exists():
            time.sleep(0.5)  # so that the sweep is there to be stopped
        if trial.due(update):
            trial.report(update, loss=odd_one.OFFSET + trial.params["x"] / update)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an odd name, and a memory of the test's own."""
    folder = tmp_path / 'it\'s an "odd" folder'
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MUSWEEP_CLUSTERS", raising=False)
    (folder / "sent.yaml").write_text(SPEC)
    return folder


Say = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Give a command; its exit code and what it wrote, in lines."""

    def give(*words: str) -> tuple[int, list[str], list[str]]:
        capfd.readouterr()
        code = main(words)
        out, err = capfd.readouterr()
        return code, out.splitlines(), err.splitlines()

    return give


@pytest.mark.slow
def test_to_this_host_and_there_till_the_end(here: Path, say: Say) -> None:
    code, out, err = say("submit", "sent.yaml", "--to", "local")
    assert (code, err) == (0, [])
    id_ = out[0].split()[0]
    assert re.fullmatch(r"sent-[0-9a-f]{10}", id_)
    assert out[0] == f"{id_} submitted to local"
    assert out[1].startswith("sends 1 file, ")
    assert out[1].endswith(f"it lies in {here / 'runs' / id_}")
    assert len(out) == 3
    again = say("submit", "sent.yaml", "--to", "local", "--set", "storage=elsewhere")
    assert again[0] == 0
    assert again[1][0].startswith(f"{id_} is there already: ")
    code, out, _ = say("wait", id_)
    assert code == 0, out
    assert say("status", id_)[1] == [f"{id_} on local: finished; 8 of 8 trials ended, in {here / 'runs' / id_}"]
    assert f"look again:  musweep show {here / 'runs' / id_}" in say("logs", id_)[1]
    assert say("ls", "--remote", "local")[1] == [f"{id_}  finished"]
    lines = list(submitted.driver_log(id_, "local", follow=True))
    assert any(line.startswith("8 trials: 8 complete") for line in lines), lines
    assert say("submit", "sent.yaml", "--to", "local")[1][0].startswith(f"{id_} is there already: finished")
    assert (here / "runs" / id_ / "code" / "spec.json").is_file()


def test_a_dry_run_shows_files_and_job_and_does_nothing(here: Path, say: Say) -> None:
    (here / "own.yaml").write_text(OWN)
    (here / "waves.py").write_text(WAVES)
    code, out, _ = say("submit", "own.yaml", "--to", "local", "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in out[1:5]] == ["own.yaml", "sent.yaml", "waves.py", "spec.json"]
    assert any("cluster.cli drive" in line for line in out)
    assert not (here / "runs").exists()
    (here / "clusters.yaml").write_text(
        "gpu: {kind: ray, address: 'http://nowhere.invalid:1', storage: /shared, allow: ['waves:train']}\n"
    )
    code, out, _ = say("submit", "own.yaml", "--to", "gpu", "--dry-run")
    body = json.loads("\n".join(out[out.index(next(line for line in out if "would get:" in line)) + 1 :]))
    assert code == 0
    assert body["metadata"]["musweep_id"] == body["submission_id"]
    assert body["runtime_env"]["working_dir"].startswith("gcs://_ray_pkg_")


def test_what_a_user_can_put_right_is_one_line(here: Path, say: Say) -> None:
    (here / "own.yaml").write_text(OWN)
    (here / "waves.py").write_text(WAVES)
    (here / "clusters.yaml").write_text("gpu: {kind: ray, address: 'http://127.0.0.1:1', storage: /shared}\n")
    for words, told in [
        (("submit", "sent.yaml", "--to", "gpv"), "clusters.yaml: no target gpv; allowed: debug, local, gpu; did you"),
        (("submit", "own.yaml", "--to", "gpu"), "trainer=waves:train: target gpu does not run this code; allowed"),
        (("submit", "sent.yaml", "--to", "gpu"), "target gpu: http://127.0.0.1:1: nothing listens there;"),
        (("status", "sent-0123456789"), "sent-0123456789 was not submitted from here: give --to TARGET"),
        (("stop", "sent-0123456789", "--to", "local"), "target local does not know sent-0123456789: nothing of it in"),
        (("stop", "../x", "--to", "local"), "'../x' is not the id of a sweep"),
        (("resume", "sent-0123456789", "--to", "local"), "target local does not know sent-0123456789"),
        (("resume", "sent-0123456789"), "sent-0123456789: no such sweep folder"),
        (("logs", "sent-0123456789"), "sent-0123456789: no such sweep folder; of one that was submitted elsewhere"),
    ]:  # fmt: skip
        code, _, err = say(*words)
        assert code == 2, words
        assert len(err) == 1
        assert err[0].startswith(f"error: {told}")


class Answers(BaseHTTPRequestHandler):
    """Answers every request as the test has set."""

    status, body, seconds = 200, b"", 0.0
    routes: Mapping[str, bytes] = {}
    headers_seen: list[str] = []  # noqa: RUF012 - a handler is made for each request
    posted: list[bytes] = []  # noqa: RUF012

    def do_GET(self) -> None:
        type(self).headers_seen.append(self.headers.get("Authorization", ""))
        time.sleep(self.seconds)
        with contextlib.suppress(BrokenPipeError):  # whoever asked has given up
            self._answer()

    def do_POST(self) -> None:
        type(self).posted.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer()

    def _answer(self) -> None:
        body = self.routes.get(self.path, self.body)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://elsewhere/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Answers], str]]:
    handler = type("Handler", (Answers,), {"headers_seen": [], "posted": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield handler, f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


def gpu_section(address: str, **more: Any) -> dict[str, Any]:
    return {"kind": "ray", "address": address, "storage": "/shared", **more}


def gpu(address: str, **more: Any) -> Target:
    return parse({"gpu": gpu_section(address, **more)}, "clusters.yaml")["gpu"]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b'{"version": "4", "ray_version": "2.9.3"}', "runs Ray 2.9.3, this musweep needs Ray 2.6"),
        (200, b'{"version": "4"}', "answers, but is no Ray dashboard"),
        (200, b"<html>hello</html>", "answers, but is no Ray dashboard"),
        (404, b"nothing", "answers, but is no Ray dashboard (no /api/version); its port is 8265 by default"),
        (401, b"", "wants another token than that of env:MY_TOKEN; `ray get-auth-token` on its head shows it"),
        (403, b"", "refuses the token: the one of env:MY_TOKEN is not this cluster's"),
        (302, b"", "sends us on to http://elsewhere/: give that address"),
        (500, b"Traceback\n  ...\nRuntimeError: boom", "GET /api/version: 500 RuntimeError: boom"),
        (
            500,
            b"RuntimeError: Request failed with status code 500: Traceback\n  ...\nValueError: odd\n.",
            "ValueError: odd",
        ),
    ],
)
def test_what_answers_is_no_fitting_cluster(
    server: Any, status: int, body: bytes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "abc123")
    server[0].status, server[0].body = status, body
    with pytest.raises(LaunchError) as caught:
        launcher_of(gpu(server[1], token={"from_env": "MY_TOKEN"})).check()
    assert str(caught.value).startswith(f"target gpu: {server[1]}")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "abc123" not in str(caught.value)
    assert server[0].headers_seen == ["Bearer abc123"]


def test_an_old_cluster_is_refused_before_anything_is_said_to_be_sent(here: Path, say: Say, server: Any) -> None:
    server[0].routes = {"/api/version": b'{"ray_version": "2.9.3"}', "/api/jobs/": b"[]"}
    (here / "clusters.yaml").write_text(json.dumps({"old": gpu_section(server[1])}))
    code, out, err = say("submit", "sent.yaml", "--to", "old")
    assert (code, out, len(err)) == (2, [], 1)
    assert f"target old: {server[1]} runs Ray 2.9.3, this musweep needs Ray 2.6" in err[0]


def test_a_restarted_head_has_forgotten_its_jobs(here: Path, say: Say, server: Any, tmp_path: Path) -> None:
    """Whoever sees the sweep's folder is told that it can go on, and how."""
    server[0].routes = {"/api/version": json.dumps({"ray_version": version("ray")}).encode(), "/api/jobs/": b"[]"}
    storage = tmp_path / "shared"
    (here / "clusters.yaml").write_text(json.dumps({"gpu": gpu_section(server[1]) | {"storage": str(storage)}}))
    assert "does not know gone-1; where its head was restarted" in say("resume", "gone-1", "--to", "gpu")[2][0]
    assert "restarted" not in say("status", "gone-1", "--to", "gpu")[1][0]
    (storage / "gone-1").mkdir(parents=True)
    (storage / "gone-1" / "spec.json").write_text("{}")
    assert "go on with it: musweep resume gone-1 --to gpu" in say("status", "gone-1", "--to", "gpu")[1][0]
    say("resume", "gone-1", "--to", "gpu")
    body = json.loads(server[0].posted[-1])
    assert body["entrypoint"] == f"exec python -P -m cluster.cli drive --out {storage}/gone-1"
    assert "working_dir" not in body["runtime_env"]


@pytest.mark.parametrize(
    ("code", "words", "again"),
    [(2, "error: no data", "put it right, then: musweep"), (-9, "[00:24] searching", "go on with it: musweep")],
)
def test_what_failed_says_what_to_do(here: Path, say: Say, server: Any, code: int, words: str, again: str) -> None:
    job = {
        "submission_id": "x-1", "status": "FAILED", "driver_exit_code": code, "message": f"log:\n{words}",
        "metadata": {"musweep_id": "x-1", "musweep_attempt": "1"},
    }  # fmt: skip
    server[0].routes = {"/api/jobs/": json.dumps([job]).encode()}
    (here / "clusters.yaml").write_text(json.dumps({"gpu": gpu_section(server[1])}))
    told = f"x-1 on gpu: failed; exit code {code}: {words}; {again} resume x-1 --to gpu"
    assert say("status", "x-1", "--to", "gpu")[1] == [told]


def test_a_sweep_that_was_sent_through_another_target_is_said_to_lie_there(here: Path, say: Say, server: Any) -> None:
    job = {
        "submission_id": "x-1", "status": "SUCCEEDED",
        "metadata": {"musweep_id": "x-1", "musweep_attempt": "1", "musweep_folder": "/elsewhere/x-1"},
    }  # fmt: skip
    server[0].routes = {"/api/jobs/": json.dumps([job]).encode()}
    (here / "clusters.yaml").write_text(json.dumps({"gpu": gpu_section(server[1])}))
    told = "x-1 on gpu: finished; it lies in /elsewhere/x-1, not in the storage of target gpu"
    assert say("status", "x-1", "--to", "gpu")[1] == [told]


def test_a_place_that_does_not_answer(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FIRST_ANSWER_S <= 10
    monkeypatch.setattr(ray_jobs, "ANSWER_S", 0.2)
    server[0].seconds = 0.6
    with pytest.raises(Unreachable, match="gives no answer in"):
        launcher_of(gpu(server[1])).check()
    with pytest.raises(Unreachable, match="no such host; check the target's address"):
        launcher_of(gpu("http://no-such-host.invalid:8265")).check()


def test_a_password_of_netrc_is_not_sent(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(LaunchError):
        launcher_of(gpu(server[1])).check()
    assert server[0].headers_seen == [""]


def test_waiting_outlasts_a_break_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        JobStatus("x", "pending", "why"),
        Unreachable("down"),
        JobStatus("x", "running"),
        JobStatus("x", "finished"),
    ]

    def asked(*words: object) -> JobStatus:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        known: JobStatus = answer
        return known

    monkeypatch.setattr(submitted, "status", asked)
    seen: list[str] = []
    ended = submitted.wait("x", gpu("http://h:1"), on_status=lambda known: seen.append(known.state), poll_s=0.0)
    assert (ended.state, seen) == ("finished", ["pending", "running", "finished"])
    monkeypatch.setattr(submitted, "status", lambda *words: JobStatus("x", "running"))
    with pytest.raises(TimeoutError, match=r"x is still running after 0\.01 s"):
        submitted.wait("x", gpu("http://h:1"), timeout_s=0.01, poll_s=0.02)


@pytest.mark.slow
def test_a_real_cluster_from_an_odd_folder(
    here: Path, say: Say, ray_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own code, odd names and a 200 MB file; submit, status, logs, stop, resume, wait; a wrong token."""
    (here / "own.yaml").write_text(OWN)
    (here / "waves.py").write_text(WAVES)
    gate = tmp_path / "go"
    (here / "odd_one.py").write_text(f"from pathlib import Path\nOFFSET, GATE = 3.0, Path({str(gate)!r})\n")
    for name in ("-rf", "new\nline.py", "a b'c.txt", "übung.txt"):
        (here / name).write_text("x")
    with (here / "weights.bin").open("wb") as file:
        file.truncate(200_000_000)
    section = {"kind": "ray", "address": ray_head.address, "storage": str(ray_head.storage), "allow": ["waves:*"]}
    told = {
        "big": {**section, "token": {"from_file": str(ray_head.token)}},
        "bad": {**section, "token": {"from_env": "BAD"}},
    }
    (here / "clusters.yaml").write_text(json.dumps({**told, "bare": section}))
    monkeypatch.setenv("BAD", "0" * 64)

    code, _, err = say("submit", "own.yaml", "--to", "big")
    assert (code, len(err)) == (2, 1)
    assert "200.0 MB to send, the limit is 50 MB" in err[0]
    assert '"weights.bin" 200.0 MB' in err[0]
    (here / ".musweepignore").write_text("*.bin\n")
    assert "refuses the token: the one of env:BAD" in say("submit", "own.yaml", "--to", "bad")[2][0]
    assert "wants a token: bare.token in clusters.yaml names it" in say("submit", "own.yaml", "--to", "bare")[2][0]

    code, out, err = say("submit", "own.yaml", "--to", "big")
    assert (code, err) == (0, [])
    assert "sends 11 files, " in out[1]
    id_ = out[0].split()[0]
    assert "is there already: " in say("submit", "own.yaml", "--to", "big")[1][0]
    folder = ray_head.storage / id_
    _until(lambda: sum(trial.state == "complete" for trial in _trials(folder)) >= 3)
    assert say("status", id_)[1][0].startswith(f"{id_} on big: running; ")
    code, out, _ = say("stop", id_)
    assert out[0].startswith(f"{id_} on big: stopped; ")
    assert history.load(folder).closed == "interrupted"  # it had the time to leave cleanly
    before = {trial.number: trial.ended_at for trial in _trials(folder) if trial.state == "complete"}
    assert 3 <= len(before) < 12

    (here / "odd_one.py").write_text("OFFSET = 4.0\n")  # what was sent is what goes on
    gate.touch()
    assert say("resume", id_)[1][0].startswith(f"{id_} on big: ")
    code, lines, _ = say("logs", "-f", id_)
    assert any(line == f"going on with {folder}" for line in lines)
    assert any(line.startswith("12 trials: 12 complete") for line in lines), lines
    assert say("wait", id_)[0] == 0
    assert say("logs", id_, "t00003")[1][-1].endswith(" t00003 complete after 10 updates")
    assert say("show", id_)[0] == 0
    for trial in _trials(folder):
        assert trial.objective == pytest.approx(3.0 + trial.params["x"] / 10)
        assert trial.number not in before or trial.ended_at == before[trial.number]
    assert (folder / "code" / "new\nline.py").read_text() == "x"
    code, out, err = say("submit", "own.yaml", "--to", "big")
    assert out[0].startswith(f"{id_} is there already: finished")
    assert err == ["note: it was sent with other files than there are now; --again starts a new sweep with these"]
    assert any(line.startswith(f"{id_} ") and "finished" in line for line in say("ls", "--remote", "big")[1])


def test_a_queued_sweep_is_there_already(here: Path, say: Say, server: Any, tmp_path: Path) -> None:
    server[0].routes = {"/api/version": json.dumps({"ray_version": version("ray")}).encode(), "/api/jobs/": b"[]"}
    section = gpu_section(server[1], storage=str(tmp_path / "shared"), queue=True)
    (here / "clusters.yaml").write_text(json.dumps({"team": section}))
    code, out, _ = say("submit", "sent.yaml", "--to", "team")
    assert (code, out[0]) == (0, f"{(id_ := out[0].split()[0])} queued for team")
    code, out, err = say("submit", "sent.yaml", "--to", "team", "--priority", "7")
    assert out[0].startswith(f"{id_} is there already: pending on team (no dispatcher has looked at it yet)")
    assert err == [f"note: its priority stays as it was: musweep queue priority {id_} 7"]
    assert say("submit", "sent.yaml", "--to", "team", "--again")[1][0] == f"{id_}-again1 queued for team"


def _trials(folder: Path) -> list[Any]:
    return list(history.load(folder).trials.values()) if (folder / "journal.jsonl").exists() else []


def _until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 90
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_help_is_light() -> None:
    heavy = "print(*(n for n in ('ray', 'torch', 'requests', 'pathspec', 'sqlalchemy') if n in sys.modules))"
    code = f"import sys, cluster.cli, cluster.submitted; {heavy}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split() == []
