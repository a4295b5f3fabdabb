"""What rules remove and what they never do; removing survives a crash, links and wrong names."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import cli, retention
from cluster.folders import UserError
from sweeps import history, lease, store
from sweeps.lease import Lease
from tests.sweeps import told
from tests.sweeps.mirrored import Found, mirror

DAY = retention.DAY_S
NOW = told.START + 106


@pytest.fixture(autouse=True)
def no_uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def sweep(root: Path, name: str = "one", *, commits: int | None = None) -> Path:
    """A sweep folder with something of everything."""
    folder = told.write(root / name, told.commits()[:commits])
    for place in ("checkpoints", "ray/tune", "models", "states", "rows"):
        (folder / place).mkdir(parents=True)
    for path in ("checkpoints/group-000-1.npz", "ray/tune/x.json", "states/t00000-20.npz"):
        (folder / path).write_bytes(b"x" * 10_000)
    for trial in history.load(folder).trials.values():
        if trial.state == "complete":
            (folder / "models" / f"{trial.id}.npz").write_bytes(b"x")
    told_of = history.load(folder)
    table = store.rows_table(told_of)
    for number in range(2):  # two parts of half the rows each
        half = table.slice(number * (len(table) // 2), None if number else len(table) // 2)
        store.atomic_write(folder / "rows" / f"part-{number:05d}.parquet", store._parquet(half))
    store.write_derived(folder, told_of)
    (folder / "report.html").write_text("<html></html>")
    for path in folder.rglob("*"):
        os.utime(path, (NOW, NOW))
    return folder


def kept_bytes(folder: Path) -> dict[str, bytes]:
    names = ("spec.json", "journal.jsonl", "trials.parquet", "events.jsonl", "report.html")
    return {name: (folder / name).read_bytes() for name in names}


def fact(**changes: object) -> retention.Facts:
    plain = {"folder": Path("x"), "name": "x", "state": "finished", "touched": 0.0, "keep": False, "verdict": False}
    return retention.Facts(**{**plain, **changes})  # type: ignore[arg-type]


def test_any_rule_that_keeps_a_sweep_keeps_it() -> None:
    rules = retention.Rules(days=10, sweeps=2)
    old = 11 * DAY
    assert retention.stays(fact(), rules, 2, old) == ""
    for why, changes, place, now in (
        ("a driver", {"state": "running"}, 9, old),
        ("musweep keep", {"keep": True}, 9, old),
        ("verdict", {"verdict": True}, 9, old),
        ("resumed", {"state": "unfinished"}, 9, old),
        ("damaged", {"state": "damaged"}, 9, old),
        ("younger", {}, 9, 9 * DAY),
        ("among the last 2", {}, 1, old),
    ):
        assert why in retention.stays(fact(**changes), rules, place, now)
    assert retention.stays(fact(), retention.Rules(), 99, 1e12) == "no rule removes sweeps"
    loose = retention.Rules(sweeps=0, verdicts=False, unfinished=False)
    assert retention.stays(fact(verdict=True, state="unfinished"), loose, 0, 0) == ""


def test_a_finished_sweep_is_thinned_and_loses_no_row(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "runs")
    before, rows = kept_bytes(folder), store.read_rows(folder)
    rules = retention.Rules(thin=retention.Thin(models=1, states=True))
    plan = retention.plan(tmp_path / "runs", rules, NOW + 2 * DAY)
    assert {step.what for step in plan.steps} == {"checkpoints", "ray", "states", "models", "rows"}
    assert plan.size >= 30_000
    for step in plan.steps:
        retention.carry_out(step)
    assert kept_bytes(folder) == before
    for name, column in rows.to_pydict().items():
        assert store.read_rows(folder)[name].to_pylist() == pytest.approx(column, nan_ok=True)
    assert len(list((folder / "rows").glob("*.parquet"))) == 1
    assert not (folder / "checkpoints").exists()
    assert [path.stem for path in (folder / "models").iterdir()] == ["t00000"]
    assert retention.plan(tmp_path / "runs", rules, NOW + 2 * DAY).steps == []


def test_what_could_be_resumed_keeps_its_checkpoints(tmp_path: Path) -> None:
    sweep(tmp_path / "runs", commits=6)
    assert retention.plan(tmp_path / "runs", retention.Rules(), NOW + 99 * DAY).steps == []


def test_the_last_of_each_name_stay(tmp_path: Path) -> None:
    for number in range(3):
        folder = sweep(tmp_path / "runs", f"s{number}")
        os.utime(folder / "journal.jsonl", (NOW + number, NOW + number))
    plan = retention.plan(tmp_path / "runs", retention.Rules(sweeps=1, thin=None), NOW + 99 * DAY)
    assert [step.folder.name for step in plan.steps] == ["s1", "s0"]
    assert [path.name for path in plan.kept] == ["s2"]


def test_gc_shows_first_and_does_on_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep(tmp_path / "runs")
    assert cli.main(["gc", "runs", "--days", "1"]) == 0
    said = capsys.readouterr().out
    assert "nothing was changed: --yes does it" in said
    assert folder.exists()
    assert cli.main(["keep", "one"]) == 0
    assert cli.main(["gc", "runs", "--days", "1", "--yes"]) == 0
    assert folder.exists()
    assert not (folder / "ray").exists()
    assert cli.main(["keep", "one", "--drop"]) == 0
    assert cli.main(["gc", "runs", "--days", "1", "--yes"]) == 0
    assert "freed" in capsys.readouterr().out
    assert list((tmp_path / "runs").iterdir()) == []


def test_rules_from_a_file_and_their_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "runs")
    (tmp_path / "retention.yaml").write_text("days: 30\nthin: {models: 5}\n")
    rules, source = retention.load_rules(None, tmp_path / "runs")
    assert (rules.days, rules.thin and rules.thin.models, source) == (30, 5, "retention.yaml")
    for text, said in (
        ("dais: 3", "unknown key; allowed are days"),
        ("thin: {model: 1}", "after_days"),
        ("a: [", "YAML"),
    ):
        (tmp_path / "retention.yaml").write_text(text)
        assert cli.main(["gc", "runs"]) == 2
        assert said in capsys.readouterr().err


def test_a_removal_that_was_cut_short_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path / "runs")

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(retention.shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        retention.remove(folder)
    monkeypatch.undo()
    assert not folder.exists()  # nobody takes half a sweep for a sweep
    (step,) = retention.plan(tmp_path / "runs", retention.Rules()).steps
    assert step.what == "half removed"
    retention.carry_out(step)
    assert list((tmp_path / "runs").iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    folder = sweep(tmp_path / "runs")
    shutil.rmtree(folder / "ray")
    (folder / "ray").symlink_to(outside)
    (folder / "models" / "t00099.npz").symlink_to(outside / "precious")
    (tmp_path / "runs" / "link").symlink_to(folder)
    with pytest.raises(UserError, match="is a link to"):
        retention.remove(tmp_path / "runs" / "link")
    for step in retention.plan(tmp_path / "runs", retention.Rules(), NOW + 9 * DAY).steps:
        retention.carry_out(step)
    assert (outside / "precious").exists()
    retention.remove(folder)
    assert (outside / "precious").read_text() == "x"


def test_what_was_sent_with_a_sweep_goes_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        folder = sweep(tmp_path / "runs", name)
        (folder / "code").mkdir()
        (folder / "package.zip").write_bytes(b"zip")
    (tmp_path / "runs" / "two" / "notes.txt").write_text("mine")
    assert cli.main(["gc", "--days", "0", "--yes"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("rules: --days 0\n")
    assert "kept: 1 (also holds notes.txt, which is not musweep's)" in told
    assert not (tmp_path / "runs" / "one").exists()
    assert (tmp_path / "runs" / "two" / "notes.txt").exists()


def test_what_is_no_sweep_is_not_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep(tmp_path / "runs")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt, which is not musweep's"):
        retention.remove(folder)
    other = tmp_path / "project"
    other.mkdir()
    (other / "spec.json").write_text('{"openapi": "3.1"}')
    with pytest.raises(UserError, match="neither journal nor spec"):
        retention.remove(other)
    with pytest.raises(UserError, match="not a sweep folder"):
        retention.remove(tmp_path)
    assert cli.main(["rm", "one", "nowhere", "--yes", "--force"]) == 2  # one wrong name, nothing removed
    assert folder.exists()
    assert cli.main(["rm", "one"]) == 2
    assert "give --force" in capsys.readouterr().err
    assert cli.main(["rm", "one", "--yes", "--force"]) == 0
    assert not folder.exists()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    folder = sweep(tmp_path / "runs")
    with Lease(folder):
        yield folder


def test_what_a_driver_holds_is_not_touched(held: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(lease.LeaseHeld):
        retention.remove(held)
    assert cli.main(["rm", str(held), "--yes"]) == 2
    assert "a driver is running this sweep" in capsys.readouterr().err
    assert retention.plan(held.parent, retention.Rules(days=0), NOW + 99 * DAY).steps == []
    assert (held / "checkpoints").exists()


def test_mlflow_runs_go_with_their_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, other = sweep(tmp_path / "runs"), tmp_path / "runs" / "other"
    assert mirror(folder)
    commits = json.loads(json.dumps(told.commits()).replace(told.SWEEP_ID, "other"))
    told.write(other, commits)
    assert mirror(other)
    assert cli.main(["rm", "one", "--yes", "--mlflow"]) == 0
    assert "7 MLflow runs" in capsys.readouterr().out
    found = Found(tmp_path / "runs")
    assert found.parent is not None
    assert found.parent.data.tags["musweep.sweep_id"] == "other"
    assert len(found.runs) == 6


def test_an_mlflow_that_is_away_leaves_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path / "runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert cli.main(["rm", "one", "--yes", "--mlflow"]) == 2
    assert folder.exists()
