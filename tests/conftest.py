"""What all tests share: in CI, a test that is skipped because something is missing has failed."""

import os
import secrets
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

POSTGRES = os.environ.get("MUSWEEP_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


@pytest.fixture(scope="session")
def require() -> Callable[[object, str], None]:
    """`require(condition, reason)` skips a test that lacks what it needs; in CI the skip is a failure."""

    def check(condition: object, reason: str) -> None:
        if not condition:
            pytest.skip(reason)

    return check


@pytest.fixture(scope="session")
def data_folder(require: Callable[[object, str], None]) -> Path:
    """The folder of real data that MUSWEEP_DATA names."""
    name = os.environ.get("MUSWEEP_DATA", "")
    require(name and Path(name).is_dir(), f"MUSWEEP_DATA={name!r} names no folder with real data")
    return Path(name)


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """Tests prepare data in a folder of their own, children included, and leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        if "MUSWEEP_TEST_CACHE" in os.environ:  # kept between runs on a developer's machine
            folder = Path(os.environ["MUSWEEP_TEST_CACHE"])
        else:
            folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MUSWEEP_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def denormals() -> Generator[None]:
    """Engines flush denormal numbers on the thread they run on; other tests get theirs back."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def database(require: Callable[[object, str], None]) -> Generator[str]:
    """A PostgreSQL database of the test's own, dropped at its end; MUSWEEP_TEST_POSTGRES names another server."""
    import sqlalchemy

    pytest.importorskip("psycopg", reason="psycopg is not installed")
    name = f"musweep_test_{secrets.token_hex(4)}"
    admin = sqlalchemy.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    try:
        with admin.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    except sqlalchemy.exc.OperationalError as error:
        require(False, f"no PostgreSQL at {POSTGRES}: {str(error.orig).splitlines()[0]}")
    yield POSTGRES.rpartition("/")[0] + f"/{name}"
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables: once is enough."""
    from sweeps import tracking

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    tracking.connect(f"sqlite:///{path}")
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes, files that take long begin first: one begun last is waited for by all others.

    How long is told by marks: the longest limit that a file's tests have, then whether any is slow.
    """
    if not hasattr(config, "workerinput"):
        return
    longest: dict[Path, float] = {}
    for item in items:
        for mark in item.iter_markers():
            takes = float(mark.args[0] if mark.name == "timeout" else mark.name in ("slow", "browser"))
            longest[item.path] = max(longest.get(item.path, 0.0), takes)
    items.sort(key=lambda item: -longest.get(item.path, 0.0))


def _refuse(report: Any, gpu: bool = False) -> None:
    """Turn a skip into a failure when MUSWEEP_REQUIRE_ALL is set; tests that need CUDA may still be skipped."""
    if os.environ.get("MUSWEEP_REQUIRE_ALL") != "1" or gpu or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: {reason} (MUSWEEP_REQUIRE_ALL=1 does not allow skips)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    _refuse(report, gpu=item.get_closest_marker("gpu") is not None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _refuse(report)
    return report
