"""Where the user's own code is found: nothing of it is imported."""

import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps import modules
from sweeps.spec import SpecError, parse


@pytest.fixture(autouse=True)
def _python_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)


def package(folder: Path) -> Path:
    """A package whose import would fail."""
    (folder / "pack" / "age").mkdir(parents=True)
    for name in ("pack/__init__.py", "pack/age/__init__.py", "pack/age/deep.py", "flat.py"):
        (folder / name).write_text("raise RuntimeError('imported')")
    return folder


@pytest.mark.parametrize("name", ["flat:train", "pack.age.deep:train", "pack:Class.method"])
def test_code_beside_the_spec_is_found_and_its_folder_kept(tmp_path: Path, name: str) -> None:
    folder = package(tmp_path / "project")
    data = {"trainer": name}
    assert modules.settle(data, folder) == []
    assert data["modules"] == str(folder)


def test_code_in_the_working_directory_is_found(tmp_path: Path) -> None:
    package(tmp_path)
    data = {"task": {"name": "flat:task"}, "trainer": "flat:train"}
    assert modules.settle(data, tmp_path / "elsewhere") == []
    assert data["modules"] == str(tmp_path)


def test_modules_is_relative_to_the_spec(tmp_path: Path) -> None:
    package(tmp_path / "project" / "code")
    data = {"trainer": "flat:train", "modules": "code"}
    assert modules.settle(data, tmp_path / "project") == []
    assert data["modules"] == str(tmp_path / "project" / "code")


def test_installed_code_needs_no_folder(tmp_path: Path) -> None:
    data = {"trainer": "email.mime.text:MIMEText"}
    assert modules.settle(data, tmp_path) == []
    assert "modules" not in data


def test_what_is_nowhere_is_told_with_the_places(tmp_path: Path) -> None:
    data = {"trainer": "pack.nope:train", "task": "nope:task"}
    lines = [str(problem) for problem in modules.settle(data, package(tmp_path / "project"))]
    assert lines == [
        f"trainer=pack.nope:train: no module pack.nope in project/ or {tmp_path} or on Python's path",
        f"task=nope:task: no module nope in project/ or {tmp_path} or on Python's path",
    ]


def test_a_reached_folder_comes_first(tmp_path: Path) -> None:
    modules.reach(None)
    modules.reach(str(tmp_path))
    modules.reach(str(tmp_path))
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_data_are_found_beside_the_spec_then_in_the_working_directory_and_kept_whole(tmp_path: Path) -> None:
    for place in ("project/both.npz", "both.npz", "here.npz"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    written = {"name": "data", "file": "both.npz"}
    data: dict[str, Any] = {"task": written}
    assert modules.settle_file(data, Path("project")) == []
    assert data["task"] == {"name": "data", "file": str(tmp_path / "project" / "both.npz")}
    assert modules.settle_file(data, tmp_path) == []  # as a worker does, elsewhere
    assert data["task"]["file"] == str(tmp_path / "project" / "both.npz")
    assert written["file"] == "both.npz"
    data = {"task": {"file": "here.npz"}}
    assert modules.settle_file(data, Path("project")) == []
    assert data["task"]["file"] == str(tmp_path / "here.npz")


def test_data_that_are_nowhere_are_told_with_the_places(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    found = [modules.settle_file({"task": {"file": file}}, tmp_path / "project") for file in ("a.npz", "/nope/a.npz")]
    assert [str(problem) for [problem] in found] == [
        f"task.file=a.npz: no such file in project/ or {tmp_path}",
        "task.file=/nope/a.npz: no such file",
    ]
    assert modules.settle_file({"task": "digits"}, tmp_path) == []


@pytest.mark.parametrize("folder", [{}, {"a": 1}, 5, ["code"]])
def test_a_folder_that_is_no_text_stays_off_pythons_path(folder: object) -> None:
    before = list(sys.path)
    with pytest.raises(SpecError, match="modules"):
        parse({"task": "digits", "trainer": "flat:train", "modules": folder})
    assert sys.path == before
