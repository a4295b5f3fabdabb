"""Options of tasks: every wrong one gives one line with the task, the option, the value and what is allowed."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainers.config import TASKS
from trainers.tasks import Options, TaskError, cache_folder, load, resolve

NOTHING = {"examples": None, "file": None, "seed": 0, "holdout": None}


@pytest.mark.parametrize("name", TASKS)
def test_no_options_and_all_defaults_spelled_out_are_the_same(name):
    assert resolve(name, {}) == resolve(name, NOTHING) == Options()


def test_given_values_are_kept():
    assert resolve("curves", {"examples": 5, "seed": 3}) == Options(examples=5, seed=3)
    assert resolve("curves", {"file": Path("a.mat"), "holdout": 0}) == Options(file="a.mat", holdout=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("curvs", {}, "task 'curvs': one of curves, mnist-ae, mnist, digits; did you mean curves?"),
        ("curves", {"exmples": 5}, "task curves: option 'exmples': one of examples, file, seed, holdout; "
                                   "did you mean examples?"),
        ("curves", {"examples": 0}, "task curves: option examples=0: must be a whole number, 1 or more"),
        ("mnist", {"examples": 2.5}, "task mnist: option examples=2.5: must be a whole number, 1 or more"),
        ("mnist", {"examples": True}, "task mnist: option examples=True: must be a whole number, 1 or more"),
        ("digits", {"examples": "all"}, "task digits: option examples='all': must be a whole number, 1 or more"),
        ("curves", {"seed": -1}, "task curves: option seed=-1: must be a whole number, 0 or more"),
        ("curves", {"seed": False}, "task curves: option seed=False: must be a whole number, 0 or more"),
        ("mnist", {"seed": 1}, "task mnist: option seed=1: this task takes none, "
                               "its examples and their order are fixed"),
        ("digits", {"file": "a"}, "task digits: option file=a: this task takes none, its data come with scikit-learn"),
        ("digits", {"holdout": 9}, "task digits: option holdout=9: this task takes none, "
                                   "its three parts are fixed by the seed"),
        ("mnist-ae", {"file": 7}, "task mnist-ae: option file=7: must be a path"),
        ("mnist-ae", {"holdout": -1}, "task mnist-ae: option holdout=-1: must be a whole number, 0 or more"),
        ("curves", {"file": "a.mat", "seed": 1}, "task curves: option seed=1: nothing is drawn when a file is given"),
        ("curves", {"holdout": 5}, "task curves: option holdout=5: generated curves bring their own valid part"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_in_one_line(name, options, message, tmp_path):
    with pytest.raises(TaskError) as caught:
        resolve(name, options)
    assert str(caught.value) == message
    with pytest.raises(TaskError):
        load(name, options, tmp_path)


def test_checking_options_imports_no_heavy_library():
    code = (
        "import sys; from trainers.tasks import resolve; resolve('curves', {});"
        "print([m for m in ('numpy', 'pyarrow', 'torch', 'sklearn', 'scipy', 'pooch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_cache_folder_is_the_variables_or_in_the_home(monkeypatch):
    monkeypatch.setenv("MUSWEEP_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("MUSWEEP_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "musweep"
