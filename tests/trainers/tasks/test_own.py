"""The user's own data and functions: what they say is what is loaded, and each mistake is one line."""

import sys
from pathlib import Path

import numpy as np
import pytest

from trainers.config import TaskInfo
from trainers.tasks import TaskError, info, load

CLASSES = {"inputs": np.arange(40.0).reshape(20, 2), "targets": np.arange(20) % 3}


def save(folder, content, name="own.npz"):
    np.savez(folder / name, **content)
    return {"file": str(folder / name)}


def everything(task):
    return np.concatenate([part.inputs for part in (task.train, task.valid, task.test)])


def test_data_without_parts_are_split_by_the_seed_each_example_with_its_target(tmp_path):
    options = save(tmp_path, CLASSES)
    task = load("data", options, tmp_path)
    assert task.info == info("data", options) == TaskInfo("data", "classification", 2, 3, "softmax", ("loss", "error"))
    assert [len(part) for part in (task.train, task.valid, task.test)] == [17, 1, 2]
    for part in (task.train, task.valid, task.test):
        np.testing.assert_array_equal(part.targets, (part.inputs[:, 0] / 2).astype(int) % 3)
        assert (part.inputs.dtype, part.targets.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(np.sort(everything(task)[:, 0]), CLASSES["inputs"][:, 0])
    assert not np.array_equal(everything(task), CLASSES["inputs"])
    other = load("data", {**options, "seed": 1, "holdout": 5, "examples": 4}, tmp_path)
    assert [len(part) for part in (other.train, other.valid, other.test)] == [4, 5, 2]
    assert not np.array_equal(other.test.inputs, task.test.inputs)
    assert "own.npz" in task.source


@pytest.mark.parametrize("valid", [True, False])
def test_parts_of_the_file_stay_as_they_are(tmp_path, valid):
    rng = np.random.default_rng(0)
    sizes = {"train": 12, "test": 5} | ({"valid": 4} if valid else {})
    content = {f"inputs_{part}": rng.random((count, 2, 3)) for part, count in sizes.items()}
    content |= {f"targets_{part}": rng.integers(4, size=(count, 1)) for part, count in sizes.items()}
    task = load("data", save(tmp_path, content), tmp_path)
    assert (task.info.inputs, task.info.outputs) == (6, 1 + max(int(content[f"targets_{p}"].max()) for p in sizes))
    assert len(task.valid) == (4 if valid else 1)
    np.testing.assert_allclose(task.test.inputs, content["inputs_test"].reshape(5, 6), rtol=1e-6)
    brought = content["inputs_train"].reshape(12, 6).astype(np.float32), content["targets_train"].ravel()
    if valid:
        np.testing.assert_array_equal(task.train.inputs, brought[0])
    # In any order each input keeps its target, and valid is no longer the file's end.
    here = np.concatenate([task.train.inputs, *([] if valid else [task.valid.inputs])])
    targets = np.concatenate([task.train.targets, *([] if valid else [task.valid.targets])])
    rows = [int(np.flatnonzero((brought[0] == row).all(1))[0]) for row in here]
    assert sorted(rows) == list(range(12))
    np.testing.assert_array_equal(targets, brought[1][rows])


def test_a_sorted_file_gives_no_valid_part_of_one_class(tmp_path):
    content = {f"{what}_{part}": np.repeat(np.arange(4), n) for part, n in (("train", 50), ("test", 5))
               for what in ("inputs", "targets")}  # fmt: skip
    content = {
        name: values.reshape(-1, 1).astype(float if "inputs" in name else int) for name, values in content.items()
    }
    task = load("data", save(tmp_path, content), tmp_path)
    assert len(np.unique(task.valid.targets)) == 4


def test_a_column_may_name_the_parts(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = ["test", "train", "valid", "train", "test", "train"]
    pq.write_table(pa.table({"x": np.arange(6.0), "targets": np.arange(6.0), "part": parts}), tmp_path / "own.parquet")
    task = load("data", {"file": str(tmp_path / "own.parquet")}, tmp_path)
    assert task.info.kind == "regression"
    assert [part.inputs[:, 0].tolist() for part in (task.train, task.valid, task.test)] == [[1, 3, 5], [2], [0, 4]]
    np.testing.assert_array_equal(task.train.targets, [[1], [3], [5]])
    with pytest.raises(TaskError, match="holdout=1: the file brings its own valid part"):
        load("data", {"file": str(tmp_path / "own.parquet"), "holdout": 1}, tmp_path)
    with pytest.raises(TaskError, match="seed=3: the file brings its own parts"):
        load("data", {"file": str(tmp_path / "own.parquet"), "seed": 3}, tmp_path)


@pytest.mark.parametrize(
    ("content", "options", "kind", "outputs", "loss"),
    [
        ({}, {}, "autoencoder", 2, "squared"),
        ({}, {"loss": "logistic"}, "autoencoder", 2, "logistic"),
        ({"targets": np.ones((20, 3))}, {}, "regression", 3, "squared"),
        ({"targets": np.ones(20)}, {"loss": "logistic"}, "regression", 1, "logistic"),
        ({"targets": np.arange(20)}, {"loss": "squared"}, "regression", 1, "squared"),
        ({"targets": np.arange(20) % 2}, {"classes": 5}, "classification", 5, "softmax"),
        ({"targets": np.zeros(20, np.uint8)}, {"loss": "softmax"}, "classification", 2, "softmax"),
    ],
)
def test_targets_and_the_loss_say_what_kind_of_task_it_is(tmp_path, content, options, kind, outputs, loss):
    inputs = np.random.default_rng(0).random((20, 2))
    options = save(tmp_path, {"inputs": inputs} | content) | options
    found = info("data", options)
    assert (found.kind, found.inputs, found.outputs, found.loss) == (kind, 2, outputs, loss)
    task = load("data", options, tmp_path)
    assert task.info == found
    assert (task.train.targets is task.train.inputs) == (kind == "autoencoder")
    if kind == "regression":
        assert task.train.targets.shape == (len(task.train), outputs)
        assert task.train.targets.dtype == np.float32


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"x": np.ones(3)}, {}, "has no inputs or inputs_train; it has x"),
        ({"inputs": np.ones((2, 2))}, {}, "2 examples; 3 or more make three parts"),
        ({"inputs": [[np.nan if row == 7 else 1.0] for row in range(9)]}, {}, "example 7 has values"),
        ({"inputs_train": np.ones((5, 1)), "inputs_test": [[1], [np.inf]]}, {}, "inputs: example 1 of test has values"),
        ({"inputs": np.full((9, 2), 1e60)}, {}, "not finite"),
        ({"inputs": np.full((9, 2), "a")}, {}, "expected numbers, a row for each example"),
        ({"inputs": np.full((9, 2), 2.0)}, {"loss": "logistic"}, r"are 2 to 2; loss logistic needs \[0, 1\]"),
        ({"inputs": np.ones((9, 2))}, {"loss": "softmax"}, "no targets, so one of squared, logistic"),
        ({"inputs": np.ones((9, 2))}, {"classes": 3}, "classes=3: no targets have none"),
        ({"inputs": np.ones((9, 2)), "targets": np.ones(8)}, {}, "9 inputs with 8 targets"),
        ({"inputs": np.ones((9, 2)), "targets": np.ones((9, 2), int)}, {}, "expected one class"),
        ({"inputs": np.ones((9, 2)), "targets": np.arange(9) - 1}, {}, "targets are -1 to 7; expected classes 0 to 7"),
        ({"inputs": np.ones((9, 2)), "targets": np.arange(9)}, {"classes": 4}, "expected classes 0 to 3"),
        ({"inputs": np.ones((9, 2)), "targets": np.arange(9.0)}, {"loss": "logistic"}, "targets are 0 to 8; loss"),
        ({"inputs_train": np.ones((9, 2))}, {}, "has no inputs_test"),
        ({"inputs_train": np.ones((9, 2)), "inputs_test": np.ones((9, 3))}, {}, "inputs of several shapes"),
        ({"inputs_train": np.ones((9, 2)), "inputs_test": np.ones((9, 2)), "targets_train": np.ones(9)}, {},
         "has no targets_test"),
        ({"inputs": np.array([{}] * 9)}, {}, "kind O; expected numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, content, options, message):
    with pytest.raises(TaskError, match=message) as caught:
        load("data", save(tmp_path, content) | options, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_must_be_named_and_a_changed_one_is_read_again(tmp_path):
    with pytest.raises(TaskError, match="option file is missing"):
        info("data")
    options = save(tmp_path, CLASSES)
    assert info("data", options).inputs == 2
    save(tmp_path, CLASSES | {"inputs": np.ones((20, 7))})
    assert info("data", options).inputs == 7
    assert load("data", options, tmp_path).train.inputs.shape == (17, 7)


PYTHON = """
import numpy as np
from trainers.config import TaskInfo
from trainers.tasks import Split, Task

def rings(radius=1.0, count=30, **wrong):
    rng = np.random.default_rng(0)
    classes = np.arange(count) % 2
    angle = rng.uniform(0, 2 * np.pi, count)
    points = radius * (1 + classes)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    part = Split(points, classes + wrong.get("shift", 0))
    return Task(rings.info(), part, part, part, f"rings of radius {radius}", False)

def info(**options):
    return TaskInfo("rings", "classification", 2, 2, "softmax", ("loss", "error"))

rings.info = info

def slow():
    return rings()

def nothing():
    return 3

def broken():
    return 1 / 0
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module of the user's own that can be imported as `rings`."""
    (tmp_path / "rings.py").write_text(PYTHON)
    (tmp_path / "unsound.py").write_text("import absent_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("rings", "unsound"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("package")
def test_a_function_of_the_users_own_is_a_task_like_any_other(tmp_path):
    task = load("rings:rings", {"options": {"radius": 2.0}}, tmp_path)
    assert task.info == info("rings:rings", {"options": {"radius": 2.0}})
    assert (task.info.name, task.info.inputs) == ("rings:rings", 2)
    assert (task.train.inputs.dtype, task.train.targets.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(np.square(task.train.inputs).sum(1), 4 * (1 + task.train.targets) ** 2, rtol=1e-5)
    assert info("rings:slow").name == "rings:slow"


def test_the_documented_example_is_a_task(tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text()
    (tmp_path / "documented_rings.py").write_text(text.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    task = load("documented_rings:make", {"options": {"radius": 2.0}}, tmp_path)
    assert [len(part) for part in (task.train, task.valid, task.test)] == [1000, 1000, 1000]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("absent_package.tasks:make", {}, r"cannot import absent_package\.tasks: .*PYTHONPATH"),
        ("unsound:make", {}, r"cannot import unsound: ModuleNotFoundError: .*absent_module.* \(unsound\.py, line 1\)$"),
        ("rings:square", {}, "module rings has no function square"),
        ("rings:", {}, "module rings has no function"),
        ("rings:nothing", {}, r"returned a int, expected a trainers\.tasks\.Task"),
        ("rings:broken", {}, r"ZeroDivisionError: division by zero \(rings\.py, line 26\)"),
        ("rings:rings", {"shift": 1}, "rings:rings: train: targets are 1 to 2; expected classes 0 to 1"),
        ("rings:rings", {"radius": float("inf")}, "example 0 has values that are not finite"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_in_one_line(tmp_path, name, options, message):
    with pytest.raises(TaskError, match=message) as caught:
        load(name, {"options": options}, tmp_path)
    assert "\n" not in str(caught.value)
