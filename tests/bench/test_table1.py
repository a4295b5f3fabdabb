"""The program that measures S13 Table 1: its protocol, what it chooses, and that pieces make one run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sweeps import published
from tests.bench import table1
from tests.trainers.tasks.test_mnist import write_small
from trainers import tasks
from trainers.checkpoint import unpack
from trainers.data import Data
from trainers.optim import momentum
from trainers.serial import SerialTrial

SMALL = ["--device", "cpu", "--encoder", "12", "4", "--examples", "200"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 230 images in MNIST's format."""
    folder = tmp_path / "images"
    folder.mkdir()
    write_small(folder, 230)
    return folder


def piece(folder: Path, images: Path, *words: str) -> int:
    return table1.main([*SMALL, "--folder", str(folder), "--data", str(images), *words])


def found(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "table.json").read_text())
    return content


def test_trials_are_those_of_the_spec_that_ships() -> None:
    plan = table1.Plan("mnist", table1.UPDATES, "float32", (784, 1000, 500, 250, 30), None, 1)
    trials = plan.trials()
    spec = yaml.safe_load((Path(table1.__file__).parents[2] / "sweeps/specs/s13-table1-mnist.yaml").read_text())
    training, space = spec["training"], spec["space"]
    assert len(trials) == spec["budget"]["trials"] == 54
    assert {(t.updates, t.batch, t.init.kind) for t in trials} == {
        (training["updates"], training["batch"], training["init"])
    }
    assert {t.method.lr for t in trials} == set(space["lr"])
    assert {t.method.mu_max for t in trials if t.method.kind != "sgd"} == set(space["mu_max"]["values"])
    assert {t.net.widths for t in trials} == {(784, 1000, 500, 250, 30, 250, 500, 1000, 784)}
    assert {t.net.hidden for t in trials} == {("sigmoid",) * 3 + ("linear",) + ("sigmoid",) * 3}
    assert len({(t.method.kind, t.method.mu_max, t.method.lr) for t in trials}) == 54


def test_momentum_is_that_of_eq_5_with_its_last_phase() -> None:
    plan = table1.Plan("mnist", table1.UPDATES, "float32", (784, 30), None, 1)
    method = plan.trials()[4 * len(table1.RATES)].method  # .999N
    mus = [momentum(t, method, plan.updates) for t in (0, 250, 500, 1000, 2500, 124_750, 748_999, 749_000, 749_999)]
    assert mus == pytest.approx([0.5, 0.75, 1 - 0.5 / 3, 0.9, 1 - 0.5 / 11, 0.999, 0.999, 0.9, 0.9])
    short = table1.Plan("mnist", 7_500, "float32", (784, 30), None, 1).trials()[-1].method
    assert (short.mu_step, short.tail_updates) == (2, 10)


def test_published_values_are_those_of_the_stored_table() -> None:
    stored = {(value.row.lower(), value.column): value.value for value in published.values("s13-table1")}
    for row, values in table1.PUBLISHED.items():
        for column, value in zip(table1.COLUMNS, values, strict=True):
            assert stored[row, column] == value


def test_pieces_cut_anywhere_are_one_run_to_the_last_bit(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials that diverge are dropped in between."""
    monkeypatch.setattr(table1, "RATES", (1e30, 0.05))
    monkeypatch.setattr(table1, "REPORTS", 2)  # pieces of 4 updates, or fewer to a report
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert piece(whole, images, "--updates", "100") == 0
    pieces = 1
    while piece(cut, images, "--updates", "100", "--minutes", "0"):
        pieces += 1
    one, other = found(whole), found(cut)
    assert len(other["pieces"]) == pieces == 26
    assert [each["to"] for each in other["pieces"][11:14]] == [48, 50, 54]
    assert [each["from"] for each in other["pieces"]] == [0, *(each["to"] for each in other["pieces"][:-1])]
    assert {k: v for k, v in one.items() if k != "pieces"} == {k: v for k, v in other.items() if k != "pieces"}
    assert set(one["diverged"]) == {str(number) for number in range(0, 18, 2)}
    ours, theirs = (unpack((folder / "state.npz").read_bytes()) for folder in (whole, cut))
    assert ours.keys() == theirs.keys() == set(range(1, 18, 2))
    for number, state in ours.items():
        arrays = theirs[number].to_arrays()
        assert state.update == 100
        assert all(np.array_equal(array, arrays[name]) for name, array in state.to_arrays().items())


def test_measured_is_the_least_error_of_the_serial_trainer_over_rates(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table1, "RATES", (1e30, 0.05, 0.001))
    assert piece(tmp_path / "run", images, "--updates", "12") == 0
    table = found(tmp_path / "run")["table"]
    plan = table1.Plan("mnist", 12, "float32", (784, 12, 4), 200, 1)
    data = Data(table1.data_of(plan, images), "cpu", "float64")
    trials = [SerialTrial(config, data) for config in plan.trials()]
    for place, cell in enumerate(table.values()):
        errors = []
        for trial in trials[3 * place + 1 : 3 * place + 3]:
            trial.advance(12)
            errors.append(trial.evaluate(data.train)["squared_error"])
        assert cell["measured"] == pytest.approx(min(errors), rel=1e-4)
        assert cell["at_lr"] == (0.05, 0.001)[errors.index(min(errors))]
        assert cell["measured_after_updates"] == 12
        assert list(cell["diverged"]) == ["1e+30"]
    shown = capsys.readouterr().out
    assert "after 12 updates, NOT the 750,000 of the paper" in shown
    assert "not comparable" in shown
    assert shown.rstrip().endswith("complete")


def test_a_curve_ends_where_its_last_trial_does(tmp_path: Path) -> None:
    plan = table1.Plan("mnist", 750_000, "float32", (784, 30), None, 1)
    folder = table1.Folder(tmp_path, plan)
    rates = len(table1.RATES)
    first, second = ([9.0 + number for number in range(9 * rates)] for _ in range(2))
    second[2] = 0.5
    lost: list[float | None] = [None] * rates + second[rates:]
    folder.errors = [(5_000, [*first]), (10_000, [*second]), (15_000, lost)]
    assert folder.curves()["0 (SGD)"] == [(5_000, 9.0), (10_000, 0.5)]
    assert folder.curves()[".9N"] == [(5_000, 15.0), (10_000, 15.0), (15_000, 15.0)]
    assert folder.table()["0 (SGD)"]["measured"] is None
    assert folder.table()[".9N"]["at_lr"] == 0.05


def test_a_run_in_which_all_diverge_ends(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table1, "RATES", (1e30,))
    for _ in range(2):
        assert piece(tmp_path / "run", images, "--updates", "50") == 0
    assert len(found(tmp_path / "run")["diverged"]) == 9


def test_a_folder_of_another_run_is_refused_and_stays(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table1, "RATES", (0.05,))
    piece(tmp_path / "run", images, "--updates", "4")
    before = (tmp_path / "run" / "state.npz").read_bytes()
    with pytest.raises(SystemExit):
        piece(tmp_path / "run", images, "--updates", "5")
    assert "holds a run with {'updates': 4}: give the same, or another --folder" in capsys.readouterr().err
    assert (tmp_path / "run" / "state.npz").read_bytes() == before


def test_images_are_those_of_the_task(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = table1.Plan("mnist", 10, "float32", (784, 30), None, 1)
    task = tasks.load("mnist-ae", {"file": str(images), "holdout": 0}, tmp_path / "cache")
    ours = table1.data_of(plan, images)
    assert np.array_equal(ours.train.inputs, task.train.inputs)
    assert ours.look_alike
    assert str(tmp_path) not in ours.source
    monkeypatch.delenv("MUSWEEP_DATA", raising=False)
    with pytest.raises(SystemExit):
        table1.main(["--device", "cpu", "--folder", str(tmp_path / "run")])
    assert "--data" in capsys.readouterr().err.splitlines()[-1]
