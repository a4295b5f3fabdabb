"""From clusters.yaml to the queue, and the queue's commands as a person gives them."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from cluster import submitted
from cluster.choosing import Room
from cluster.cli import main
from cluster.folders import UserError
from cluster.launch import LaunchError, Unreachable
from cluster.queue import QueueError
from cluster.sharing import _of_ray, capacity_of, jobs_of, queue_of, rules_of, verify
from cluster.targets import parse, target
from sweeps import spec
from tests.cluster.conftest import Head

TEAM = """
team:
  kind: local
  storage: {place}/runs
  queue: true
  room: {{cpus: 2, gpus: 0, sweeps: 2}}
  quota: {{sweeps: 1}}
  quotas: {{ann: {{cpus: 2}}}}
  backfill: 7
  preempt: true
"""
SPEC = """
name: small
task: digits
model: {depth: 1, width: 16}
training: {updates: 50, batch: 32, reports: 2, eval_examples: 100}
space: {lr: {type: float, low: 0.001, high: 0.1, scale: log}}
search: {algorithm: random, group_size: 2}
budget: {trials: 2}
resources: {engine: loop, workers: 1}
mlflow: {enabled: false}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a spec and a clusters.yaml whose target has a queue."""
    (tmp_path / "clusters.yaml").write_text(TEAM.format(place=tmp_path))
    (tmp_path / "small.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSWEEP_CLUSTERS", str(tmp_path / "clusters.yaml"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.delenv("MUSWEEP_DATABASE", raising=False)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(list(words))
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_a_target_says_how_it_is_shared(place: Path) -> None:
    rules = rules_of(target("team"))
    assert (rules.target, rules.anyone) == (Room(cpus=2, gpus=0, sweeps=2), Room(sweeps=1))
    assert (rules.owners, rules.backfill, rules.preempt) == ({"ann": Room(cpus=2)}, 7, True)
    assert capacity_of(target("team"))() == Room()  # what room says is enough
    bare = parse({"bare": {"kind": "local"}}, "x")["bare"]
    assert capacity_of(bare)().cpus >= 1
    assert rules_of(bare).target == Room()
    assert queue_of(target("team")).database.url.database == str(place / "runs" / "queue.db")
    store = {"kind": "ray", "address": "http://h:8265", "storage": "s3://bucket/x"}
    with pytest.raises(QueueError, match="cannot hold a queue: give the target a `database`"):
        queue_of(parse({"far": store}, "x")["far"])


def test_ray_s_living_nodes_are_counted() -> None:
    nodes = [
        {"state": "ALIVE", "resources_total": {"CPU": 16.0, "GPU": 2.0, "memory": 1e9}},
        {"state": "ALIVE", "resources_total": {"CPU": 4.0}},
        {"state": "DEAD", "resources_total": {"CPU": 99.0}},
    ]
    assert _of_ray({"data": {"result": {"result": nodes}}}) == Room(20, 2)
    with pytest.raises(Unreachable, match="no node yet"):
        _of_ray({"data": {"result": {"result": nodes[2:]}}})
    with pytest.raises(LaunchError, match="say room"):
        _of_ray({"data": {}})


def test_what_was_changed_after_submission_does_not_run(place: Path) -> None:
    made = submitted.submit(spec.load(place / "small.yaml", []), "team")
    entry = queue_of(target("team")).find(made.id)
    package = Path(entry.package)
    team = target("team")
    assert jobs_of(team)(entry).package == package
    verify(package, entry.spec_hash, team)
    with zipfile.ZipFile(package, "a") as packed:
        packed.writestr("more.py", "import os")
    with pytest.raises(UserError, match="is not what was submitted"):
        jobs_of(team)(entry)
    package.write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="cannot be read"):
        jobs_of(team)(entry)
    package.unlink()
    with pytest.raises(UserError, match="No such file or directory"):
        jobs_of(team)(entry)


def test_code_that_is_no_longer_allowed_does_not_run(place: Path) -> None:
    package = place / "x.zip"
    with zipfile.ZipFile(package, "w") as packed:
        packed.writestr("spec.json", json.dumps({"trainer": "waves:train"}))
    with pytest.raises(LaunchError, match="team does not run this code"):
        verify(package, "", target("team"))


def test_commands_change_the_queue_and_say_how_it_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "queue") == (
        0, "team: 0 under way, 0 waiting; nobody dispatches it: musweep queue run --to team\n",
    )  # fmt: skip
    code, text = told(capsys, "submit", "small.yaml", "--to", "team", "--priority", "3")
    assert code == 0
    assert "queued for team" in text
    assert told(capsys, "submit", "small.yaml", "--to", "team")[0] == 0  # twice is once
    entry = queue_of(target("team")).find("small")
    assert (entry.owner, entry.priority, entry.cpus) == ("ann", 3, 1.0)
    assert told(capsys, "queue", "priority", "small", "-2")[1].startswith(f"{entry.id}: queued, priority -2: ")
    assert "held by ann" in told(capsys, "queue", "hold", "small")[1]
    assert "‖ held" in told(capsys, "queue", "--to", "team")[1]
    assert ": queued" in told(capsys, "queue", "release", "small")[1]
    assert json.loads(told(capsys, "queue", "--json")[1])[0]["id"] == entry.id
    assert submitted.status(entry.id).state == "pending"
    assert "cancelled by ann" in told(capsys, "queue", "cancel", "small")[1]
    assert submitted.status(entry.id).state == "stopped"
    assert "cancelled" not in told(capsys, "queue")[1]
    assert "cancelled by ann" in told(capsys, "queue", "--all")[1]
    assert told(capsys, "queue", "hold", "none")[0] == 2
    submitted.resume(entry.id)
    assert submitted.status(entry.id).state == "pending"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("queue", "run", "--to", "debug"), "target debug runs sweeps in the process that submits them"),
        (("queue", "--to", "nowhere"), "no target nowhere"),
        (("queue", "--to", "local"), "target local has no queue: set local.queue: true in clusters.yaml"),
        (("queue", "hold", "x"), "no entries begin with 'x'; legal: none"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    code, text = told(capsys, *words)
    assert code == 2
    assert says in text
    assert text.count("\n") == 1


@pytest.mark.slow
def test_a_ray_cluster_says_what_it_has(ray_head: Head) -> None:
    given = {"kind": "ray", "address": ray_head.address, "storage": str(ray_head.storage)}
    far = parse({"far": {**given, "token": {"from_file": str(ray_head.token)}, "room": {"gpus": 3}}}, "x")["far"]
    until, there = time.monotonic() + 90, None
    while there is None and time.monotonic() < until:
        try:
            there = capacity_of(far)()
        except Unreachable:  # its dashboard answers before its first node is there
            time.sleep(1)
    assert there == Room(cpus=2, gpus=3)  # what room names is not asked
    with pytest.raises(LaunchError, match="wants a token"):
        capacity_of(parse({"far": given}, "x")["far"])()


@pytest.mark.slow
def test_a_queued_sweep_runs_on_this_host(place: Path) -> None:
    made = submitted.submit(spec.load(place / "small.yaml", []), "team")
    words = [sys.executable, "-m", "cluster.cli", "queue", "run", "--to", "team", "--poll", "0.2", "--until-empty"]
    root = str(Path(__file__).parents[2])
    began = time.monotonic()
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{made.id}: starting (priority 0, ann)" in done.stdout
    assert f"{made.id}: finished" in done.stdout
    assert submitted.status(made.id).state == "finished"
    entry = queue_of(target("team")).find(made.id)
    assert (entry.state, entry.starts) == ("finished", 1)
    assert time.monotonic() - began < 240
