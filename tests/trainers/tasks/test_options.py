"""Options of tasks: every wrong one gives one line with the task, the option, the value and what is allowed."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainers.config import TASKS
from trainers.tasks import ENTRIES, Options, TaskError, cache_folder, info, load, resolve

NOTHING = {"examples": None, "file": None, "seed": 0, "holdout": None, "size": None, "options": {}}


@pytest.mark.parametrize("name", ENTRIES)
def test_no_options_and_all_defaults_spelled_out_are_the_same(name):
    assert resolve(name, {}) == resolve(name, NOTHING) == Options()


def test_given_values_are_kept():
    assert resolve("curves", {"examples": 5, "seed": 3}) == Options(examples=5, seed=3)
    assert resolve("curves", {"file": Path("a.mat"), "holdout": 0}) == Options(file="a.mat", holdout=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("curvs", {}, f"task 'curvs': one of {', '.join(ENTRIES)}, or package.module:function; did you mean curves?"),
        ("curves", {"exmples": 5}, "task curves: option 'exmples': one of examples, file, seed, holdout, size; "
                                   "did you mean examples?"),
        ("curves", {"examples": 0}, "task curves: option examples=0: must be a whole number, 1 or more"),
        ("mnist", {"examples": 2.5}, "task mnist: option examples=2.5: must be a whole number, 1 or more"),
        ("mnist", {"examples": True}, "task mnist: option examples=True: must be a whole number, 1 or more"),
        ("digits", {"examples": "all"}, "task digits: option examples='all': must be a whole number, 1 or more"),
        ("curves", {"seed": -1}, "task curves: option seed=-1: must be a whole number, 0 or more"),
        ("curves", {"seed": False}, "task curves: option seed=False: must be a whole number, 0 or more"),
        ("mnist", {"seed": 1}, "task mnist: option seed=1: this task takes examples, file, holdout"),
        ("digits", {"file": "a"}, "task digits: option file=a: this task takes examples, seed"),
        ("digits", {"holdout": 9}, "task digits: option holdout=9: this task takes examples, seed"),
        ("curves", {"size": 7}, "task curves: option size=7: must be a whole number, 8 to 64"),
        ("curves", {"file": "a", "size": 14}, "task curves: option size=14: nothing is drawn when a file is given"),
        ("m:f", {"options": [1]},
         "task m:f: option options=[1]: must be a mapping of the function's arguments by name"),
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


@pytest.mark.parametrize("name", TASKS)
def test_without_options_a_task_is_what_the_table_says(name):
    assert info(name) == info(name, NOTHING) == TASKS[name]


def test_the_size_of_curves_changes_its_inputs_and_which_layers_of_the_encoder_stay():
    small = info("curves", {"size": 14})
    assert (small.inputs, small.outputs, small.encoder) == (196, 196, (196, 100, 50, 25, 6))
    assert info("curves", {"size": 28}) == TASKS["curves"]
    assert info("curves", {"size": 8}).encoder == (64, 50, 25, 6)


def test_checking_options_imports_no_heavy_library():
    code = (
        "import sys; from trainers.tasks import ENTRIES, info; [info(name) for name in ENTRIES if name != 'data'];"
        "print([m for m in ('numpy', 'pyarrow', 'torch', 'sklearn', 'scipy', 'pooch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_cache_folder_is_the_variables_or_in_the_home(monkeypatch):
    monkeypatch.setenv("MUSWEEP_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("MUSWEEP_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "musweep"
