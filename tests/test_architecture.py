"""The rules of CONTRIBUTING.md that a program can check, read from the source."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("trainers", "sweeps", "dashboards", "cluster")  # each imports only rooms to its left
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

OWNERS = {
    "torch": ("trainers/*",),
    "pydantic": ("sweeps/spec.py", "sweeps/schema*.py", "sweeps/faults.py", "cluster/*"),
    "yaml": ("sweeps/reading.py", "cluster/*"),
    "optuna": ("sweeps/search.py", "sweeps/learnt.py", "sweeps/study_view.py"),
    "ray": tuple(
        f"sweeps/{name}.py"
        for name in ("board_actor", "callback", "connect", "placement", "seats", "tuning", "watching", "worker")
    ),
    "mlflow": ("sweeps/tracking.py",),
    "pyarrow": ("sweeps/store.py", "sweeps/parquet.py", "sweeps/remote.py", "trainers/tasks/*"),
    "sklearn": ("trainers/tasks/*", "trainers/figures/kernel.py"),
    "pooch": ("trainers/tasks/*",),
    "PIL": ("trainers/tasks/*",),
    "plotly": ("dashboards/*",),
    "typer": ("cluster/*",),
    "rich": ("cluster/*",),
    "sqlalchemy": (
        "sweeps/study_view.py",
        "sweeps/lease_sql.py",
        "cluster/database.py",
        "cluster/queue*.py",
        "cluster/schedule*.py",
        "cluster/service/tokens.py",
    ),
    "prometheus_client": ("cluster/metrics*.py",),
    "pynvml": ("sweeps/usage.py",),
    "requests": ("cluster/ray_jobs.py", "cluster/client.py", "cluster/notify.py"),
    "pathspec": ("cluster/ignored.py",),
    "cronsim": ("cluster/schedule_times.py",),
    "apprise": ("cluster/notify.py",),
    "fastapi": ("cluster/service/*",),
    "starlette": ("cluster/service/*",),
    "uvicorn": ("cluster/service/*",),
    "jinja2": ("cluster/service/*",),
    "matplotlib": ("dashboards/strip.py",),
}
"""Which files may import a library."""

TRAINERS_MAY = {"torch", "numpy"}
TASKS_MAY = TRAINERS_MAY | {"pyarrow", "pooch", "sklearn", "scipy", "PIL"}
HEAVY = (
    "torch",
    "ray",
    "optuna",
    "mlflow",
    "pandas",
    "plotly",
    "numpy",
    "scipy",
    "sklearn",
    "pyarrow",
    "sqlalchemy",
    "fastapi",
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Top-level names of all modules a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(name_of(path).split("/")[0] if node.level else (node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_rooms_import_only_to_the_left(path: Path) -> None:
    room = ROOMS.index(name_of(path).split("/")[0])
    assert not imports(path) & set(ROOMS[room + 1 :])
    assert "tests" not in imports(path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_libraries_stay_with_their_owners(path: Path) -> None:
    for library in imports(path) & OWNERS.keys():
        assert any(fnmatch(name_of(path), owner) for owner in OWNERS[library]), (
            f"{library} belongs to {OWNERS[library]}"
        )


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path).startswith("trainers/")], ids=name_of)
def test_trainers_need_only_torch_and_numpy(path: Path) -> None:
    tasks = name_of(path).startswith("trainers/tasks/") or name_of(path) == "trainers/figures/kernel.py"
    allowed = TASKS_MAY if tasks else TRAINERS_MAY
    if name_of(path).startswith("trainers/config"):
        allowed = set()
    if name_of(path) == "trainers/stack_triton.py":  # imported where Triton is installed only
        allowed = allowed | {"triton"}
    assert imports(path) - allowed - {"trainers"} <= sys.stdlib_module_names


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, f"{node.name} at line {node.lineno}"


def test_no_file_is_named_for_nothing() -> None:
    assert not [name_of(path) for path in SOURCES if path.stem in {"utils", "util", "common", "helpers", "misc"}]


def test_tests_are_no_packages() -> None:
    # A mirrored tests/trainers/__init__.py would hide the real `trainers`.
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("module", ["trainers.config", "sweeps.history", "sweeps.spec", "cluster.cli"])
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
