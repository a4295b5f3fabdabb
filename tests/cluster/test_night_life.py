"""A night from the clock to the message, with the processes that a user would have."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from cluster.schedule import Schedules
from sweeps import night_file, nights, nights_fresh
from sweeps.nights import Night
from tests.cluster.hook import Hook

SPEC = """
name: tiny
task: digits
model: {width: 16, activation: tanh, depth: 1}
training: {updates: 200, batch: 32, reports: 2, init: normalized, mu_max: 0.9, mu_step: 20, lr: 0.03}
space: {method: [nag, sgd]}
search: {algorithm: grid, seed: 1}
budget: {trials: 2}
confirm: {top: 1, seeds: 6}
baselines: [{kind: hf, space: {hf_damping: 1.0, hf_cg_max: 8, hf_cg_decay: 0.9}, training: {init: normalized}}]
compare: {against: hf}
resources: {engine: loop, workers: 1}
mlflow: {enabled: false}
objective: valid_loss
night: {kind: fresh, reference: 10}
"""
NIGHT = 86400.0
REPOSITORY = Path(__file__).parents[2]


def until(true: Callable[[], Any], what: str, seconds: float = 250.0) -> Any:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not after {seconds} s")


@pytest.fixture
def hook() -> Generator[Hook]:
    made = Hook()
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_night_end_to_end(tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    environment = os.environ | {"CHAT": f"json://{hook.address}/hook", "PYTHONPATH": str(REPOSITORY)}
    (tmp_path / "tiny.yaml").write_text(SPEC)
    store = Schedules.open()
    port = _free()
    with ExitStack() as stack:
        scheduler = _running(stack, ["scheduler", "--poll", "0.3"], tmp_path, environment)
        when = ["--cron", "0 1 * * *", "--overlap", "queue", "--notify", "env:CHAT"]
        _said(["schedule", "add", "nightly", "tiny.yaml", *when], tmp_path, environment)
        _said(["schedule", "run-now", "nightly"], tmp_path, environment)
        firing = until(lambda: next(iter(store.firings("nightly", states=["running"])), None), "a scheduler begins it")
        scheduler.send_signal(signal.SIGTERM)  # what it has begun goes on, and the next scheduler goes on with it
        assert scheduler.wait(30) == 0
        _running(stack, ["serve", "runs", "--port", str(port)], tmp_path, environment)
        folder = Path(firing.folder)
        exit_code = folder / "logs" / "driver.exit"
        until(exit_code.exists, "the sweep's end")
        assert exit_code.read_text().strip() == "0", (folder / "logs" / "driver.log").read_text()[-2000:]
        _seed(store, firing.at, folder, factor=0.5)
        _running(stack, ["scheduler", "--poll", "0.3"], tmp_path, environment)
        done = until(
            lambda: next((each for each in store.firings("nightly", 1) if each.result), None), "its result", 180
        )
        until(lambda: hook.got, "the message", 180)
        assert (done.sweep, done.result) == (firing.sweep, "worse")
        night = Night.from_dict(json.loads(done.night))
        assert night == nights.read(folder)
        assert night.effect is not None
        assert 1.5 < night.effect < 2.7  # the nights before were twice as good
        assert "HF" in done.sentence
        (message,) = hook.got
        assert message["title"] == "nightly: worse"
        assert message["message"] == f"{done.sentence}\nmusweep show {folder}"
        assert message["attachments"][0]["mimetype"] == "image/png"
        page = requests.get(f"http://127.0.0.1:{port}/schedules/nightly", timeout=20)
        assert page.status_code == 200
        assert "worse" in page.text
        assert done.sweep in page.text
        first = requests.get(f"http://127.0.0.1:{port}/", timeout=20)
        assert "nightly" in first.text
        assert "worse" in first.text
        said = _said(["schedule", "check"], tmp_path, environment, code=3)
        assert said.startswith("nightly: worse: ")


def _said(words: list[str], folder: Path, environment: dict[str, str], code: int = 0) -> str:
    """What a command prints."""
    command = [sys.executable, "-P", "-m", "cluster.cli", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def _running(
    stack: ExitStack, words: list[str], folder: Path, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":  # fmt: skip
    """A command in the background, ended with the test."""
    log = stack.enter_context((folder / f"{words[0]}.log").open("wb"))
    made = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.cli", *words], cwd=folder, env=environment, stdout=log, stderr=log
    )

    def end() -> None:
        if made.poll() is None:
            made.kill()
            made.wait()

    stack.callback(end)
    return made


def _seed(store: Schedules, at: float, folder: Path, factor: float) -> None:
    """Twelve nights before this one, whose errors were so much of tonight's."""
    drawn = random.Random(3)
    arms = nights_fresh.measured(folder)
    spec = night_file.digest(json.loads((folder / "spec.json").read_text()), seed=False)
    for n in range(12, 0, -1):
        past = {
            name: arm | {"errors": [factor * each * drawn.lognormvariate(0.0, 0.1) for each in arm["errors"]]}
            for name, arm in arms.items()
        }
        night = Night(
            at=at - n * NIGHT, sweep=f"past-{n}", kind="fresh", result="ok", sentence="", spec=spec, arms=past
        )
        to = {"state": "done", "result": "ok", "sentence": "as before", "night": json.dumps(night.to_dict())}
        store.change(store.run_now("nightly", night.at), lambda _, to=to: to)  # type: ignore[misc]


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
