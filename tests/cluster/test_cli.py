"""The command line: answers, exit codes, one-line errors, and what it must not import."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import cli
from sweeps.lease import Lease
from sweeps.run import Interrupted
from sweeps.spec import SweepSpec, load
from sweeps.tuning import SweepFailed
from tests.dashboards.synthetic import Sweep, make

ROOT = Path(__file__).parents[2]
CURVES = ROOT / "sweeps" / "specs" / "curves.yaml"
HEAVY = ("torch", "ray", "optuna", "mlflow", "pandas", "plotly", "numpy", "scipy", "sklearn", "pyarrow")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    make(tmp_path / "runs" / "one", Sweep(trials=16))
    return tmp_path / "runs"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("task: digits\nspace:\n  lr: {type: float, low: 0.001, high: 0.1, scale: log}\n")
    return path


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["check", str(CURVES)], ["schema"], ["ls"], ["show", "runs/one"], ["run", "-h"]],
)
def test_light_commands_import_nothing_heavy(runs: Path, words: list[str]) -> None:
    code = (
        "import sys; from cluster.cli import main; code = main(sys.argv[1:]); "
        f"print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split()) == (0, [])
    assert done.stdout


def test_the_installed_command_answers(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("musweep")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "musweep")


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    for command in (
        "check",
        "schema",
        "plan",
        "run",
        "resume",
        "fork",
        "ls",
        "show",
        "export",
        "report",
        "sync",
        "doctor",
    ):
        assert f" {command} " in said


def test_check_says_ok_in_one_line(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(spec)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"ok: {spec}: 48 trials of digits by tpe over lr")
    assert said.out.count("\n") == 1


def test_protocols_are_all_checked_and_one_can_be_chosen(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(spec.read_text() + "protocols:\n  small: {budget: {trials: 5}}\n")
    assert cli.main(["check", str(spec)]) == 0
    full, small = capsys.readouterr().out.splitlines()
    assert full.startswith(f"ok: {spec} --protocol full: 48 trials")
    assert small.startswith(f"ok: {spec} --protocol small: 5 trials")
    assert cli.main(["check", str(spec), "--protocol", "small", "--set", "budget.trials=6"]) == 0
    assert capsys.readouterr().out.startswith(f"ok: {spec} --protocol small: 6 trials")
    for command in ("check", "plan", "run"):
        assert cli.main([command, str(spec), "--protocol", "smal"]) == 2
        wrong = "protocol=smal: no such protocol; allowed: full, small; did you mean small?"
        assert capsys.readouterr().err == f"error: {spec}: {wrong}\n"
    assert cli.main(["check", str(spec), "--set", "protocol=small"]) == 2
    assert "--protocol NAME to choose one" in capsys.readouterr().err
    spec.write_text(spec.read_text().replace("{trials: 5}", "{trials: 0}"))
    assert cli.main(["check", str(spec)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {spec} --protocol small: budget.trials=0:")


def test_overrides_reach_the_spec(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(spec), "--set", "budget.trials=5", "--set", "search.algorithm=random"]) == 0
    assert "5 trials of digits by random" in capsys.readouterr().out


def test_schema_is_json_and_knows_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(SweepSpec.model_fields)


BAD = {
    "lr: {type: float, low: 0.1, high: 0.001}": "space.lr",
    "lr: {type: float, low: 0, high: 1, scale: log}": "space.lr",
    "init: [spares]": "did you mean sparse?",
    "momentum: {type: float, low: 0, high: 0.9}": "did you mean mu_max?",
    "depth: [1.5]": "space.depth",
}


@pytest.mark.parametrize(("line", "expected"), BAD.items(), ids=list(BAD.values()))
def test_a_bad_spec_is_one_line_and_code_2(
    line: str, expected: str, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(f"task: digits\nspace:\n  {line}\n")
    for command in (["check"], ["plan"], ["run"]):
        assert cli.main([*command, str(spec)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        (error,) = said.err.splitlines()
        assert error.startswith(f"error: {spec}: ")
        assert expected in error


def test_each_mistake_has_its_line(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text("task: digits\nbudgets: 3\ntraining: {update: 7}\nsearch: {algorithm: tqe}\n")
    assert cli.main(["check", str(spec)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for key in ("budgets", "training.update", "search.algorithm"):
        assert any(key in line for line in lines)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["check", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["show", "nowhere"], "nowhere: no such sweep folder"),
        (["show", "runs/one", "99"], "no trial 99"),
        (["show", "runs/one", "bset"], "such as 12 or t00012"),
        (["resume", "nowhere"], "nowhere: no such sweep folder"),
        (["report", "runs"], "not a sweep folder"),
        (["sync", "nowhere"], "nowhere: no such sweep folder"),
        (["export", "runs/one"], "--format parquet, --format csv, --model TRIAL or --study URL"),
        (["export", "runs/one", "--format", "xls"], "one of parquet, csv"),
        (["export", "runs/one", "--model", "0"], "weights are kept of complete trials only"),
        (["run", "runs/one", "--set", "name=x"], "--set, --protocol and --out cannot be used"),
        (["run", str(CURVES), "--more", "5"], "--more extends a sweep"),
        (["run", "runs/one", "--more", "-5"], "greater than or equal to 0"),
        (["frobnicate"], "frobnicate"),
        (["show"], "DIR"),
    ],
)  # fmt: skip
def test_what_the_user_can_put_right_is_one_line_and_code_2(
    runs: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    said = capsys.readouterr()
    (error,) = said.err.splitlines()
    assert error.startswith("error: ")
    assert expected in error


def test_a_sweep_that_another_process_writes_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "one" / "spec.json"
    path.write_text(json.dumps(load(CURVES).model_dump(mode="json")))
    with Lease(runs / "one"):
        done = subprocess.run(
            [sys.executable, "-m", "cluster.cli", "resume", "runs/one"],
            capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "has been writing this sweep since" in done.stderr.splitlines()[-1]


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("cluster.show.listing", broken)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["ls"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.show.listing", interrupted)
    assert cli.main(["ls"]) == 130


def test_a_full_disk_is_the_users_to_clear(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x")

    monkeypatch.setattr("cluster.show.listing", full)
    assert cli.main(["ls"]) == 2
    assert "make room" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(Path("runs/one"))], ids=["at the start", "amid"])
def test_an_interrupted_sweep_says_how_to_go_on(
    error: BaseException, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def resume(folder: Path, on_status: Callable[[dict[str, Any]], None], **_: object) -> None:
        on_status({"sweep_id": "one", "folder": str(folder), "phase": "starting"})
        raise error

    monkeypatch.setattr("sweeps.run.resume", resume)
    assert cli.main(["resume", "runs/one"]) == 130
    assert capsys.readouterr().err == "interrupted; resume with: musweep resume runs/one\n"


def test_a_sweep_without_workers_left_is_a_fault_in_one_line(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def resume(folder: Path, **_: object) -> None:
        raise SweepFailed("group 0: out of memory")

    monkeypatch.setattr("sweeps.run.resume", resume)
    assert cli.main(["resume", "runs/one"]) == 1
    assert capsys.readouterr().err == "error: the sweep failed: group 0: out of memory\n"


def test_ls_and_show_answer(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ls"]) == 0
    assert "16/16" in capsys.readouterr().out
    assert cli.main(["show", "latest"]) == 0
    assert "16 of 16 trials ended" in capsys.readouterr().out
    assert cli.main(["show", "one", "t00003"]) == 0
    assert capsys.readouterr().out.startswith("t00003")


def test_tables_are_exported_where_asked(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "runs/one", "--format", "csv", "--out", str(tmp_path / "tables")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(path.name for path in paths) == ["rows.csv", "trials.csv"]
    assert len((tmp_path / "tables" / "trials.csv").read_text().splitlines()) == 17
