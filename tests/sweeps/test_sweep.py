import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sweeps
from sweeps import history
from sweeps.sweep import Sweep
from tests.sweeps import told


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    class Spec:
        mode = "min"

    monkeypatch.setattr(Sweep, "spec", Spec())
    return Sweep(told.write(tmp_path / "sweep"))


def test_trials_and_rows_are_data_frames(sweep: Sweep) -> None:
    assert list(sweep.trials["trial_id"]) == [f"t{n:05d}" for n in range(6)]
    curve = sweep.rows.query("trial_id == 't00000' and metric == 'valid_loss'")
    assert list(curve["update"]) == [10, 20, 30, 40]
    assert list(curve["value"]) == [1 / update + 1 for update in (10, 20, 30, 40)]


def test_the_best_are_complete_and_in_order(sweep: Sweep) -> None:
    assert list(sweep.best(5)["number"]) == [0, 4]  # 1/40 + 1 and 5/40 + 1
    assert list(sweep.best()["number"]) == [0]
    sweep.spec.mode = "max"  # type: ignore[misc]
    assert list(sweep.best(5)["number"]) == [4, 0]


def test_a_running_sweep_is_read_afresh(tmp_path: Path) -> None:
    said = told.commits()
    sweep = Sweep(told.write(tmp_path / "sweep", said[:3]))
    assert len(sweep.trials) == 3
    told.write(sweep.folder, said[3:])
    assert len(sweep.trials) == 6
    assert sweep.history.closed == "finished"


def test_the_spec_of_a_folder_is_the_spec_that_ran(tmp_path: Path) -> None:
    from sweeps import folder
    from sweeps.spec import SweepSpec

    ran = SweepSpec.model_validate({
        "name": "small", "task": "digits", "model": {"depth": 2, "width": 8}, "training": {"updates": 40},
        "space": {"lr": {"type": "float", "low": 0.001, "high": 0.5, "scale": "log"}}, "budget": {"trials": 3},
    })  # fmt: skip
    path = folder.create(ran, tmp_path / "sweep")
    data = folder.read_spec_file(path)
    folder.write_spec_file(path, {**data, "resolved": {"group_size": 4}})
    assert Sweep(path).spec == ran


@pytest.mark.parametrize(("call", "place"), [("resume", "resume"), ("extend", "extend")])
def test_going_on_is_the_drivers_work(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, call: str, place: str) -> None:

    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(importlib.import_module("sweeps.run"), place, lambda *given: asked.append(given))
    given = (12,) if call == "extend" else ()
    assert getattr(sweep, call)(*given) is sweep
    assert asked == [(sweep.folder, *given)]


def test_a_folder_without_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no sweep here"):
        sweeps.open(tmp_path)


def test_the_names_of_the_package() -> None:
    assert sweeps.open is Sweep
    assert sweeps.Sweep is Sweep
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sweeps.nothing
    assert history is sys.modules["sweeps.history"]


def test_importing_sweeps_imports_nothing_heavy() -> None:
    code = (
        "import sys, sweeps; print([m for m in ('numpy', 'pyarrow', 'pydantic', 'ray', 'mlflow') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
