"""What every launcher promises, held against each of them with a driver that does as it is told."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.launch import (
    Job,
    JobStatus,
    Launcher,
    LaunchError,
    driver_command,
    job_of,
    last_words,
    launcher_of,
    plain,
)
from cluster.package import Package
from cluster.targets import Target, parse
from sweeps.errors import SpecError

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_driver.py")
KINDS = ["debug", "local", "slurm", pytest.param("ray", marks=pytest.mark.slow)]


class Place:
    """A launcher, and how a test submits through it without being held up by a driver in the foreground."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.launcher: Launcher = launcher_of(target)
        self.started: list[subprocess.Popen[bytes]] = []

    def job(self, id_: str, spec: bytes = b'{"name": "waiting"}') -> Job:
        zipped = self.folder / f"{id_}.zip"
        return job_of(self.target, id_, zipped, digest=Package(id_, None, {}, spec).write(zipped))

    def submit(self, job: Job) -> None:
        self._start("submit", job)

    def resume(self, id_: str) -> None:
        self._start("resume", id_)

    def _start(self, verb: str, what: Job | str) -> None:
        if self.target.kind != "debug":
            with ThreadPoolExecutor(2) as both:  # two people at once start one driver
                list(
                    both.map(lambda launcher: getattr(launcher, verb)(what), [self.launcher, launcher_of(self.target)])
                )
            return
        given = repr(what.id) if isinstance(what, Job) else repr(what)
        code = f"""
import sys; sys.path[:0] = [{str(FAKE.parent)!r}, {str(ROOT)!r}]
import fake_driver, cluster.cli
from pathlib import Path
from cluster.launch import job_of, launcher_of
from cluster.targets import Target
cluster.cli.main = fake_driver.main
target = Target.model_validate({{**{self.target.model_dump()!r}, "name": "debug"}})
launcher = launcher_of(target)
if {verb!r} == "resume": launcher.resume({given})
else: launcher.submit(job_of(target, {given}, Path({str(self.folder)!r}) / ({given} + ".zip")))
"""
        self.started.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL))
        time.sleep(0.5)

    def until(self, id_: str, *states: str) -> JobStatus:
        limit = time.monotonic() + 60
        while (known := self.launcher.status(id_)).state not in states:
            assert known.state != "pending" or known.why
            assert time.monotonic() < limit, known
            time.sleep(0.1)
        return known

    def greetings(self, id_: str, drivers: int) -> list[str]:
        """What the drivers have written, once there were so many."""
        journal, limit = Path(self.target.folder(id_)) / "journal.jsonl", time.monotonic() + 60
        while not journal.exists() or journal.read_text().count("\n") < drivers:
            assert time.monotonic() < limit
            time.sleep(0.1)
        return journal.read_text().split("\n")[:-1]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind: str = request.param
    section: dict[str, Any] = {"kind": kind, "storage": str(tmp_path / "sweeps"), "env": {"GREETING": "hello there"}}
    if kind == "ray":
        head = request.getfixturevalue("ray_head")
        section |= {"address": head.address, "token": {"from_file": str(head.token)}}
    if kind == "slurm":
        request.getfixturevalue("fake_slurm")
        section["slurm"] = {"nodes": 1}
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{FAKE.read_text()}")
    fake.chmod(0o755)
    made = Place(parse({kind: {**section, "python": str(fake)}}, "clusters.yaml")[kind], tmp_path)
    yield made
    for process in made.started:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:  # of a test that has failed
            process.kill()
            process.wait()


def test_a_job_lives_as_the_contract_says(place: Place) -> None:
    launcher, job = place.launcher, place.job("waiting-0123456789")
    assert launcher.status(job.id).state == "unknown"
    place.submit(job)
    place.until(job.id, "running")
    assert place.greetings(job.id, 1) == ["hello there"]
    place.submit(job)  # again: it is there
    time.sleep(0.5)
    assert place.greetings(job.id, 1) == ["hello there"]
    assert [(known.id, known.state) for known in launcher.list()] == [(job.id, "running")]
    assert "starting" in list(launcher.logs(job.id))

    launcher.stop(job.id)
    stopped = launcher.status(job.id)
    assert stopped.state == "stopped"
    assert f"musweep resume {job.id} --to {place.target.name}" in stopped.why
    assert list(launcher.logs(job.id))[-1] == "interrupted"
    launcher.stop(job.id)  # it has left already

    place.resume(job.id)
    place.greetings(job.id, 2)
    place.until(job.id, "running")
    lines: list[str] = []
    follower = threading.Thread(target=lambda: lines.extend(launcher.logs(job.id, follow=True)))
    follower.start()
    (Path(place.target.folder(job.id)) / "go").touch()
    follower.join(30)
    assert lines[-1] == "done"
    assert place.until(job.id, "finished").why == ""
    place.submit(job)
    time.sleep(0.3)
    assert launcher.status(job.id).state == "finished"
    assert place.greetings(job.id, 2) == ["hello there"] * 2  # one driver for each start, and no third


def test_a_driver_that_fails_says_why(place: Place) -> None:
    job = place.job("failing-0123456789", b'{"name": "failing"}')
    place.submit(job)
    assert place.until(job.id, "failed").why == "exit code 2: error: boom"


def test_what_no_place_knows(place: Place) -> None:
    id_ = "never-0123456789"
    assert place.launcher.status(id_).state == "unknown"
    for act in (place.launcher.stop, place.launcher.resume, lambda id_: list(place.launcher.logs(id_))):
        with pytest.raises(LaunchError, match=f"target {place.target.name} does not know {id_}"):
            act(id_)


def test_a_rendered_job_names_secrets_and_has_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "very-secret-value")
    section = {**place.target.model_dump(exclude_none=True), "env": {"API_KEY": {"from_env": "MY_KEY"}, "A": "1"}}
    target = parse({place.target.name: section}, "clusters.yaml")[place.target.name]
    text = launcher_of(target).render(job_of(target, "x-0123456789", Path("x.zip"), digest="ab" * 32))
    assert "--secret=API_KEY=env:MY_KEY" in text
    assert "very-secret-value" not in text


def test_the_command_of_a_driver() -> None:
    job = Job("a-1", Path("a.zip"), "/s/a-1", secrets={"B": "env:C", "A": "file:/k"})
    assert driver_command(job, "a.zip")[1:] == [
        *("-P", "-m", "cluster.cli", "drive", "a.zip", "--out", "/s/a-1", "--secret=A=file:/k", "--secret=B=env:C")
    ]
    assert driver_command(job, "")[5:7] == ["--out", "/s/a-1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("a\nb\n\n", "b"),
        ("x\n\x1b[31merror: y\x1b[0m\n", "error: y"),
        ("20%\r40%\r60%\n", "60%"),
        ("z" * 999, "z" * 297 + "..."),
    ],
)
def test_last_words(text: str, words: str) -> None:
    assert last_words(text) == words


def test_plain_lines() -> None:
    assert plain("\x1b]0;title\x07a\x1b[2Kb") == "ab"


def test_a_kind_that_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster import launch

    monkeypatch.delitem(launch.LAUNCHERS, "local")
    with pytest.raises(LaunchError, match="nothing here starts kind local; legal: "):
        launcher_of(parse({}, "clusters.yaml")["local"])
    with pytest.raises(SpecError):
        parse({"x": {"kind": "moon"}}, "clusters.yaml")
