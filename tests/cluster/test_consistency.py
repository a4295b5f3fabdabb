"""A sweep folder that anything may have happened to: it is judged without a crash, and repaired or told lost."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster import cli, consistency, retention
from cluster import consistency_events as elsewhere
from cluster import consistency_journal as records
from cluster.doctor import BAD, OK, WARN
from sweeps import events, history, journal, lease, store
from sweeps import folder as folders
from sweeps.lease import Lease
from tests.sweeps import pretend

TRIALS = 12


def report(folder: Path) -> Path:
    store.atomic_write(folder / "report.html", b"<html></html>")
    return folder / "report.html"


class State:
    """A state as small as can be."""

    def __init__(self, update: int) -> None:
        self.update = update

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"update": np.array(self.update), "w": np.arange(50.0)}


def spec():
    return pretend.spec_with(budget={"trials": TRIALS}, mlflow={"enabled": False})


def derive(folder: Path) -> None:
    told = history.load(folder)
    store.RowWriter(folder, told).close()
    store.write_derived(folder, told)
    report(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished sweep and one whose driver died, with all that a real one has."""
    from trainers.checkpoint import pack

    root = tmp_path_factory.mktemp("made")
    found = {}
    for name, rounds in (("finished", None), ("dead", 30)):
        folder = found[name] = root / name
        folder.mkdir()
        folders.write_spec_file(folder, spec().model_dump(mode="json"))
        with Lease(folder):
            board = pretend.play(folder, spec(), 2, 3, rounds=rounds)
            if rounds is None:
                board.close("finished")
            else:
                pretend.kill(board)
        derive(folder)
        told = history.load(folder)
        for place in ("checkpoints", "models"):
            (folder / place).mkdir()
        running = {n: State(t.updates) for n, t in told.trials.items() if t.state == "running"}
        for number in range(2):
            (folder / "checkpoints" / f"group-000-{number:020d}.npz").write_bytes(pack(running or {0: State(90)}))
        for trial in told.trials.values():
            if trial.state == "complete":
                (folder / "models" / f"{trial.id}.npz").write_bytes(pack({trial.number: State(90)}))
    return found


def copy(made: dict[str, Path], name: str, to: Path) -> Path:
    return Path(shutil.copytree(made[name], to / name))


def states(folder: Path) -> dict[str, str]:
    """The worst state by what is judged."""
    order = [OK, WARN, BAD]
    found: dict[str, str] = {}
    for each in consistency.examine(folder, report):
        found[each.finding.what] = max(found.get(each.finding.what, OK), each.finding.state, key=order.index)
    return found


def bad(folder: Path) -> list[str]:
    return [what for what, state in states(folder).items() if state == BAD]


def finish(folder: Path) -> None:
    """What a resume would do: go on to the end."""
    with Lease(folder):
        pretend.play(folder, folders.read_spec(folder), 2, 3).close("finished")
    derive(folder)
    told = history.load(folder)
    assert len(told.trials) == TRIALS
    assert all(trial.state != "running" for trial in told.trials.values())
    assert told.closed == "finished"


@pytest.mark.parametrize("name", ["finished", "dead"])
def test_a_sound_folder_is_consistent(made: dict[str, Path], name: str) -> None:
    assert bad(made[name]) == []
    assert list(consistency.repair(made[name], report, salvage=True)) == []


def flip(path: Path, at: float, bit: int = 3) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1 << bit
    path.write_bytes(data)


DAMAGE: list[tuple[str, str, Callable[[Path], object]]] = [
    ("rows", "rows", lambda folder: flip(folder / "rows" / "part-00000.parquet", 0.3)),
    ("rows", "rows", lambda folder: (folder / "rows" / "part-00000.parquet").unlink()),
    ("tables", "tables", lambda folder: (folder / "trials.parquet").unlink()),
    ("tables", "tables", lambda folder: (folder / "trials.parquet").write_bytes(b"PAR1")),
    ("tables", "tables", lambda folder: flip(folder / "events.jsonl", 0.5)),
    ("report", "report", lambda folder: (folder / "report.html").write_text("<html>")),
    ("models", "models", lambda folder: flip(next((folder / "models").iterdir()), 0.5)),
    ("checkpoints", "checkpoints", lambda folder: flip(sorted((folder / "checkpoints").iterdir())[1], 0.6)),
    ("comparison", "comparison", lambda folder: (folder / "comparison.json").write_text("{")),
]


@pytest.mark.parametrize("case", range(len(DAMAGE)))
def test_damage_is_found_and_repaired(made: dict[str, Path], tmp_path: Path, case: int) -> None:
    _, what, harm = DAMAGE[case]
    folder = copy(made, "finished", tmp_path)
    before = (folder / "journal.jsonl").read_bytes()
    harm(folder)
    assert bad(folder) == [what]
    assert any(line.startswith(what) for line in consistency.repair(folder, report, salvage=False))
    assert bad(folder) == []
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_torn_tail_is_no_fault_and_a_damaged_one_is(made: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(made, "dead", tmp_path)
    whole = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(whole[:-9])
    assert states(folder)["journal"] == WARN
    (folder / "journal.jsonl").write_bytes(whole[:-9] + b"x" + whole[-8:])
    assert states(folder)["journal"] == BAD
    (line,) = [line for line in consistency.repair(folder, report, salvage=False) if line.startswith("journal")]
    assert "cut off" in line
    assert states(folder)["journal"] == OK
    assert next(folder.glob("journal.jsonl.damaged-*")).read_bytes() == whole[:-9] + b"x" + whole[-8:]
    finish(folder)


@pytest.mark.parametrize("name", ["finished", "dead"])
def test_each_damaged_line_is_named_and_salvaged(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    whole = (made[name] / "journal.jsonl").read_bytes()
    true = history.load(made[name])
    starts = [0, *(at + 1 for at, byte in enumerate(whole) if byte == 10)][:-1]
    for number, start in enumerate(starts[:-1]):
        data = bytearray(whole)
        data[start + 30] ^= 1
        told = elsewhere.records_of(events.read(made[name]), spec())
        bare = records.audit(bytes(data), told[:1])
        assert bare.damage == [(start, starts[number + 1])]
        assert records.audit(bare.saved).sound, (number, records.audit(bare.saved).wrong)
        found = records.audit(bytes(data), told)
        assert found.lost == set()
        again = records.audit(found.saved)
        assert again.sound, (number, again.wrong)
        told = history.fold(journal.scan(found.saved)[0])
        assert sorted(told.trials) == list(range(len(told.trials)))
        assert told.sweep_id == true.sweep_id
        for trial in true.trials.values():  # measurements apart, nothing is lost that events tell
            mine = told.trials[trial.number]
            assert (mine.params, mine.config, mine.state) == (trial.params, trial.config, trial.state)
            assert (mine.objective, mine.stage, mine.promoted) == (trial.objective, trial.stage, trial.promoted)


@pytest.mark.parametrize("at", [0.0, 0.05, 0.3, 0.6, 0.97])
def test_a_salvaged_sweep_goes_on_to_its_end(made: dict[str, Path], tmp_path: Path, at: float) -> None:
    folder = copy(made, "finished", tmp_path)
    identity = history.load(folder)
    flip(folder / "journal.jsonl", at)
    assert bad(folder)[0] == "journal"
    list(consistency.repair(folder, report, salvage=False))
    assert "journal" in bad(folder)  # what loses something is done only if asked for
    (line,) = [line for line in consistency.repair(folder, report, salvage=True) if line.startswith("journal")]
    assert "salvaged, lost" in line
    assert bad(folder) == []
    told = history.load(folder)
    assert (told.sweep_id, told.opened_at) == (identity.sweep_id, identity.opened_at)  # known elsewhere as before
    finish(folder)


def test_contradictions_are_named(made: dict[str, Path]) -> None:
    whole = (made["finished"] / "journal.jsonl").read_bytes()
    told = journal.scan(whole)[0]
    ends = [record for record in told if record["type"] == "end"]
    asks = [record for record in told if record["type"] == "ask"]
    for extra, said in (
        (ends[0], "ends a second time"),
        ({**ends[0], "trial": 99}, "never asked for"),
        ({**asks[0], "trial": 99}, "asked for where t00012 is due"),
        ({"type": "report", "time": 0, "group": 0, "engine": "loop", "trials": [{"trial": 0}]}, "not running then"),
        ({"type": "ask", "trial": TRIALS}, "lacks what it needs"),
    ):
        found = records.audit(whole + journal.encode([extra]))
        assert said in found.wrong[0]
        assert found.saved == whole
    assert "unknown type" in records.audit(whole + journal.encode([{"type": "dream"}])).newer
    assert records.audit(whole + journal.encode([{"type": "dream", "optional": True}])).sound
    newer = {**told[0], "format": 99, "epoch": 99}
    assert "format is 99" in records.audit(whole + journal.encode([newer])).newer


def test_a_spec_that_was_changed_is_noticed(made: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(made, "dead", tmp_path)
    data = json.loads((folder / "spec.json").read_text())
    data["training"]["batch"] = 11
    (folder / "spec.json").write_text(json.dumps(data))
    assert bad(folder) == ["spec and journal"]
    (folder / "spec.json").write_text("{")
    assert bad(folder) == ["spec"]


def test_what_a_driver_holds_is_not_repaired(made: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(made, "dead", tmp_path)
    with Lease(folder):
        assert states(folder)["lease"] == OK
        with pytest.raises(lease.LeaseHeld):
            list(consistency.repair(folder, report, salvage=True))


def test_leftovers_of_the_dead_are_cleared_and_of_the_living_left(made: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(made, "dead", tmp_path)
    for pid in (1, 2**22 + 1):
        (folder / "rows" / f".part-00009.parquet.{pid}.tmp").write_bytes(b"x")
    assert states(folder)["leftovers"] == WARN
    list(consistency.repair(folder, report, salvage=False))
    assert [path.name for path in (folder / "rows").glob(".*.tmp")] == [".part-00009.parquet.1.tmp"]


def test_the_command_says_what_to_do(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.driving.write_report", report)
    folder = copy(made, "finished", tmp_path)
    assert cli.main(["doctor", str(folder)]) == 0
    assert f"{folder}: consistent" in capsys.readouterr().out
    (folder / "trials.parquet").unlink()
    assert cli.main(["doctor", str(folder)]) == 2
    assert "trials.parquet is missing" in capsys.readouterr().out
    assert cli.main(["doctor", str(folder), "--repair"]) == 0
    assert cli.main(["doctor", str(folder), "--salvage"]) == 2
    assert cli.main(["doctor", "--repair"]) == 2
    assert cli.main(["doctor", str(tmp_path)]) == 2


def harm(folder: Path, order: random.Random) -> str:
    """Do something to some file of a folder."""
    path = order.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    data = bytearray(path.read_bytes())
    kind = order.choice(["flip", "flips", "cut", "empty", "remove", "zeros", "twice"])
    if kind in ("flip", "flips") and data:
        for _ in range(1 if kind == "flip" else 20):
            data[order.randrange(len(data))] ^= 1 << order.randrange(8)
    elif kind == "cut":
        data = data[: order.randrange(len(data) + 1)]
    elif kind == "zeros" and data:
        start = order.randrange(len(data))
        data[start : start + 100] = bytes(len(data[start : start + 100]))
    elif kind == "twice":
        data += bytes(data)
    if kind == "remove":
        path.unlink()
    else:
        path.write_bytes(b"" if kind == "empty" else bytes(data))
    return f"{kind} {path.relative_to(folder)}"


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_to_a_folder(made: dict[str, Path], tmp_path: Path, seed: int) -> None:
    order = random.Random(seed)
    folder = copy(made, order.choice(["finished", "dead"]), tmp_path)
    done = [harm(folder, order) for _ in range(order.choice([1, 1, 2, 5]))]
    print(done)
    if not ((folder / "spec.json").exists() or (folder / "journal.jsonl").exists()):
        return
    list(consistency.repair(folder, report, salvage=True))
    left = consistency.examine(folder, report)
    told = [each.finding for each in left if each.finding.state == BAD]
    assert not any("could not be checked" in finding.says for finding in told), told
    if told:  # nothing but a copy helps, and that is said; without a spec what is derived cannot be made either
        roots = [finding for finding in told if finding.what in ("spec", "journal", "spec and journal")]
        assert roots, (done, told)
        assert all("copy" in finding.step for finding in roots)
        assert len(roots) == len(told) or "spec" in {finding.what for finding in roots}, (done, told)
    else:
        finish(folder)


def test_names_of_all_files_are_known_to_the_retention(made: dict[str, Path]) -> None:
    assert retention.foreign(made["finished"]) == []
