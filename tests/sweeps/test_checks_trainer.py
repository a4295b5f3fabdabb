"""Specs with a trainer of the user's own: what they may say, and what is made of them."""

import sys
from pathlib import Path

import pytest

from sweeps.spec import SpecError, SweepSpec, load

TEXT = """
trainer: own_checked:train
objective: valid_accuracy
mode: max
training: {updates: 30, reports: 10}
space:
  rate: {type: float, low: 0.001, high: 1, scale: log}
  width: {type: float, low: 0.5, high: 2}
  init: [mine, yours]
  lr: 1
  depth: {type: int, low: 2, high: 9, when: {init: mine}}
search: {points: [{init: yours}]}
early_stopping: {}
budget: {trials: 6}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_checked.py").write_text("raise RuntimeError('checks import nothing')")
    path = tmp_path / "own.yaml"
    path.write_text(TEXT)
    return path


def test_any_names_and_a_metric_of_ones_own(file: Path) -> None:
    spec = load(file)
    assert spec.modules == str(file.parent)
    assert spec.warnings() == []
    assert spec.rungs() == [3, 6, 12]
    assert spec.early_stopping is not None
    assert spec.early_stopping.fork is None
    assert spec.compare_within == []
    assert spec.config(4, {"rate": 0.1, "width": 1.0, "init": "yours", "depth": 3}, replicate=1) == {
        "number": 4, "trainer": "own_checked:train", "params": {"rate": 0.1, "width": 1.0, "init": "yours", "lr": 1.0},
        "updates": 30, "seed": {"sweep": 0, "stage": "search", "replicate": 1}, "batch": 1,
    }  # fmt: skip
    assert SweepSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_results_are_read_where_the_module_is_no_more(file: Path) -> None:
    plain = load(file).model_dump(mode="json")
    (file.parent / "own_checked.py").unlink()
    assert SweepSpec.model_validate(plain).trainer == "own_checked:train"


ALONE = "a trainer of your own"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer=nowhere:train", "trainer=nowhere:train: no module nowhere in "),
        ("trainer=own_checked", "trainer=own_checked: not the name of a function; allowed: package.module:function"),
        (
            "training.lr=0.3",
            f"training.lr=0.3: {ALONE} has nothing to do with it; allowed: space.lr, which trial.param",
        ),
        ("training.keep=[3]", f"training.keep=[3]: {ALONE} has nothing to do with it"),
        (
            "model.depth=4",
            f"model.depth=4: {ALONE} has nothing to do with it; allowed: space.depth, which trial.params",
        ),
        ("search.group_size=4", f"search.group_size=4: {ALONE} trains one trial at a time in a worker; allowed: auto"),
        ("resources.engine=loop", f"resources.engine=loop: {ALONE} is none; allowed: auto"),
        ("early_stopping.fork={}", f"early_stopping.fork: {ALONE} cannot be forked; allowed: null"),
        ("early_stopping.doomed=true", "early_stopping.doomed: needs nets of musweep's own"),
        ("diagnostics=true", "diagnostics: needs nets of musweep's own; allowed: nothing here, or no trainer"),
        ("task={examples: 5}", "task.name: missing"),
        ("task={name: digits, holdout: 5}", "task: task digits: option holdout=5: this task takes examples, seed"),
        ("space.1st=3", "space.1st: not a name; allowed: letters, digits and _, a letter first"),
        ("space.width.low=2", "space.width.low=2.0: empty range: not below high=2"),
        ("search.points=[{init: ours}]", "search.points.0.init=ours: not in space.init; allowed: mine, yours"),
        ("space.depth.when.init=ours", "space.depth.when.init=ours: init never has this value"),
    ],
)
def test_what_means_nothing_to_a_trainer_is_refused_in_one_line(file: Path, override: str, line: str) -> None:
    with pytest.raises(SpecError) as refused:
        load(file, [override])
    assert [found for found in refused.value.lines if line in found], refused.value.lines
    assert len(refused.value.lines) == 1


def test_the_objective_must_be_named(file: Path) -> None:
    file.write_text(TEXT.replace("objective: valid_accuracy", ""))
    with pytest.raises(SpecError, match=f"objective: missing; allowed: the name of a metric that {ALONE} reports"):
        load(file)


def test_a_test_metric_as_objective_is_warned_of(file: Path) -> None:
    assert [line for line in load(file, ["objective=test_loss"]).warnings() if "nothing to judge its choice" in line]


def test_a_task_may_be_named_for_its_data(file: Path) -> None:
    assert load(file, ["task=digits"]).info.name == "digits"
