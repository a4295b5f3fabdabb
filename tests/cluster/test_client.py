"""The client and `musweep --server`: what they say of a service's folder is what the folder says."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import cli, folders
from cluster.client import Client, ServiceError
from cluster.commands_remote import _overlap
from cluster.service.app import Settings
from cluster.service.tokens import Tokens
from sweeps import history, journal
from sweeps.store import rows_table
from tests.cluster.served import Served, served, shelf_of
from tests.dashboards.synthetic import Sweep, make

SMALL = """
name: small
task: {name: curves, examples: 200}
model: {depth: 3, width: 8}
training: {updates: 20, batch: 10, reports: 2, method: sgd, lr: 0.01}
space: {lr: {type: float, low: 0.001, high: 0.01}}
search: {algorithm: random, seed: 1}
budget: {trials: 2}
early_stopping: null
resources: {workers: 1}
mlflow: {enabled: false}
"""


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(folder))
        for name in ("MUSWEEP_DATABASE", "MUSWEEP_CLUSTERS", "MUSWEEP_SERVER", "MUSWEEP_TOKEN", "MUSWEEP_INSECURE"):
            patch.delenv(name, raising=False)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelf_of(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def made(root: Path) -> Iterator[Served]:
    with served(root) as running:
        yield running


@pytest.fixture(scope="module")
def client(made: Served) -> Client:
    return Client(made.url)


def test_what_it_reads_is_what_the_folder_says(client: Client, root: Path) -> None:
    assert client.version().role == "admin"
    assert {each.id for each in client.sweeps()} == {"done", "cut", "best"}
    assert [each.id for each in client.sweeps(state="finished", name="do")] == ["done"]
    read = folders.read(root / "done")
    assert client.sweep("done").summary == client.summary("done")
    trials = client.trials("done")
    assert [(row.number, row.objective, row.params) for row in trials] == [
        (trial.number, trial.objective, trial.params) for trial in read.history.trials.values()
    ]
    assert client.trials("done", sort="objective", filter="state:complete", limit=3) == [
        row for name in [t.id for t in read.ranked()[:3]] for row in trials if row.id == name
    ]
    best = folders.best(read)
    assert client.trial("done", best.number).place == 1
    assert [curve.trial for curve in client.curves("done", 2)] == [trial.id for trial in read.ranked()[:2]]
    assert [curve.trial for curve in client.curves("done", trials=[4, 1])] == ["t00004", "t00001"]
    assert len(client.points("done")) == 40
    assert client.log("done").lines == []
    assert len(client.baselines()) >= 3


def test_rows_come_as_a_table_and_as_a_frame(client: Client, root: Path) -> None:
    whole = rows_table(history.load(root / "done"))
    assert client.rows("done").equals(whole)
    assert client.frame("done").shape == (whole.num_rows, 4)
    mine = client.measurements("done", 3)
    assert len(mine) == sum(row["trial_id"] == "t00003" for row in whole.to_pylist())


def test_pages_are_put_together(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = client.trials("done", sort="lr")
    monkeypatch.setattr("cluster.client._PAGE", 7)
    assert client.trials("done", sort="lr") == whole
    assert client.trials("done", sort="lr", limit=10) == whole[:10]


def test_refusals_are_one_line_with_what_is_wrong(client: Client) -> None:
    with pytest.raises(ServiceError, match=r"no sweep 'don' in .*did you mean done") as refused:
        client.summary("don")
    assert refused.value.status == 404
    with pytest.raises(ServiceError) as refused:
        client.submit({"task": "nope", "foo": 1})
    assert {each.key for each in refused.value.problems} >= {"task.name", "foo"}
    assert len(refused.value.lines) == len(refused.value.problems)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x", "http://", "http://user:secret@host"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ServiceError, match="legal: http"):
        Client(url)


def test_a_token_is_not_shown_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match="for all to read: use https"):
        Client("http://sweeps.example.org", "msw_x")
    Client("https://sweeps.example.org", "msw_x")
    Client("http://sweeps.example.org")
    Client("http://127.0.0.1:1", "msw_x")
    monkeypatch.setenv("MUSWEEP_INSECURE", "1")
    Client("http://sweeps.example.org", "msw_x")


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(ServiceError, match=r"nothing listens there.*musweep serve") as refused:
        Client("http://127.0.0.1:1").sweeps()
    assert refused.value.status == 0


def test_it_gets_in_with_a_token(root: Path, tmp_path: Path) -> None:
    tokens = Tokens(f"sqlite:///{tmp_path / 'access.db'}", kept_s=0.0)
    _, secret = tokens.add("ann", "reader")
    with served(root, Settings(open=False, rate=10_000), tokens) as running:
        assert Client(running.url, secret).version().who == "ann"
        with pytest.raises(ServiceError, match="set MUSWEEP_TOKEN"):
            Client(running.url).sweeps()
        with pytest.raises(ServiceError, match="ann is reader; this needs operator"):
            Client(running.url, secret).stop("done")


def test_events_tell_of_changes(tmp_path: Path) -> None:
    folder = make(tmp_path / "live", Sweep(trials=6, close=None))
    with served(tmp_path) as running:
        running.service.hub._every_s = 0.05
        told = Client(running.url).events("live")
        assert next(told).state == "cut off"
        with (folder / "journal.jsonl").open("ab") as file:
            file.write(journal.encode([{"type": "close", "time": time.time(), "reason": "finished"}]))
        assert next(told).state == "finished"
        told.close()


def test_waiting_ends_with_the_sweep(client: Client) -> None:
    assert client.wait("done").state == "finished"
    assert client.wait("cut").state == "failed"  # its driver is gone


# -- the command line ------------------------------------------------------------------------------------------------


def say(made: Served, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["--server", made.url, *words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_same_words_are_done_by_the_service(
    made: Served, root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = say(made, capsys, "ls")
    assert code == 0
    assert all(name in out for name in ("done", "cut", "best"))
    read = folders.read(root / "done")
    best = folders.best(read)
    assert best.id in say(made, capsys, "show", "done")[1]
    assert best.id in say(made, capsys, "show", "done", "best")[1]
    assert say(made, capsys, "status", "done")[1].startswith("done: finished; 40 of 40 trials ended")
    assert say(made, capsys, "wait", "done")[0] == 0
    assert say(made, capsys, "wait", "cut")[0] == 1
    assert say(made, capsys, "clusters")[1].startswith("local  local")
    assert say(made, capsys, "logs", "done")[0] == 0
    assert say(made, capsys, "queue")[:2] == (0, "")
    (tmp_path / "small.yaml").write_text(SMALL)
    code, out, _ = say(made, capsys, "check", str(tmp_path / "small.yaml"), "--set", "budget.trials=3")
    assert (code, "3 trials" in out) == (0, True)


def test_what_it_cannot_do_there_is_one_line(
    made: Served, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = say(made, capsys, "plan", "x")
    assert code == 2
    assert err.startswith("error: plan is done on this machine only: leave out --server")
    assert "No such command 'nope'" in say(made, capsys, "nope")[2]
    assert say(made, capsys, "stop", "done")[2].endswith("done is not running\n")
    assert "no such file, and no shipped spec" in say(made, capsys, "submit", "nothere.yaml")[2]
    (tmp_path / "bad.yaml").write_text("task: nope\nfoo: 1\n")
    code, _, err = say(made, capsys, "check", str(tmp_path / "bad.yaml"))
    assert (code, len(err.splitlines())) == (2, 2)  # a line for each mistake
    monkeypatch.setenv("MUSWEEP_SERVER", made.url)
    assert cli.main(["ls"]) == 0
    assert "done" in capsys.readouterr().out


def test_schedules_through_the_service(made: Served, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    code, out, err = say(made, capsys, "schedule", "add", "night", str(tmp_path / "small.yaml"), "--cron", "0 2 * * *")
    assert code == 0, err
    assert out.startswith("night  0 2 * * * UTC")
    assert "night" in say(made, capsys, "schedule", "ls")[1]
    assert "paused" in say(made, capsys, "schedule", "pause", "night")[1]
    assert "next: 2" in say(made, capsys, "schedule", "resume", "night")[1]
    sweep = say(made, capsys, "schedule", "run-now", "night")[1].split()[0]
    assert sweep in say(made, capsys, "schedule", "show", "night")[1]
    assert sweep in say(made, capsys, "schedule", "history")[1]
    assert say(made, capsys, "schedule", "rm", "night")[0] == 0
    assert "no schedule" in say(made, capsys, "schedule", "show", "night")[2]


@pytest.mark.parametrize(
    ("before", "now", "old"),
    [
        ([], ["a"], 0),
        (["a"], ["a", "b"], 1),
        (["a", "b"], ["b", "c"], 1),
        (["a"], ["x"], 0),
        (["a", "a"], ["a", "a"], 2),
    ],
)
def test_a_log_that_is_followed_shows_each_line_once(before: list[str], now: list[str], old: int) -> None:
    assert _overlap(before, now) == old


def test_tokens_on_the_command_line(capsys: pytest.CaptureFixture[str], state: Path) -> None:
    assert cli.main(["token", "ls"]) == 0
    assert "no tokens yet" in capsys.readouterr().out
    assert cli.main(["token", "add", "ann", "--role", "operator", "--days", "7"]) == 0
    out, err = capsys.readouterr()
    secret = out.strip()
    assert secret.startswith("msw_")
    assert "not shown again" in err
    token = Tokens().check(secret)
    assert token is not None
    assert (token.name, token.role) == ("ann", "operator")
    assert token.expires is not None
    assert token.expires - token.made == 7 * 86_400
    assert cli.main(["token", "ls"]) == 0
    listed = capsys.readouterr().out
    assert token.id in listed
    assert secret.partition("_")[2] not in listed
    assert cli.main(["token", "revoke", "ann"]) == 0
    assert Tokens().check(secret) is None
    assert cli.main(["token", "revoke", "bob"]) == 2
    capsys.readouterr()
    assert cli.main(["token", "audit", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["what"] for each in told if each["what"].startswith("token")] == ["token add", "token revoke"]
    assert secret.partition("_")[2] not in json.dumps(told)


# -- a sweep, from its spec to its rows --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_is_submitted_awaited_and_read(tmp_path: Path) -> None:
    with served(tmp_path / "runs") as running:
        client = Client(running.url)
        made = client.submit(SMALL, "local")
        assert (made.new, made.state, made.target) == (True, "submitted", "local")
        assert Path(made.folder).parent == tmp_path / "runs"
        ended = client.wait(made.id, timeout_s=240, poll_s=0.5)
        assert ended.state == "finished", client.log(made.id).lines
        summary = client.summary(made.id)
        assert (summary.state, summary.counts, summary.budget) == ("finished", {"complete": 2}, 2)
        assert client.rows(made.id).equals(rows_table(history.load(Path(made.folder))))
        again = client.submit(SMALL, "local")
        assert (again.id, again.new, again.state) == (made.id, False, "finished")
        assert any("driver |" in line for line in client.log(made.id).lines)
        assert client.stop(made.id).state == "finished"
