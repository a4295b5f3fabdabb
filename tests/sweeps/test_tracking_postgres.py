"""MLflow on PostgreSQL, where a team would have it; MUSWEEP_TEST_POSTGRES names another server."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy

from sweeps import history, tracking
from tests.sweeps import told

pytestmark = pytest.mark.postgres
SERVER = os.environ.get("MUSWEEP_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


@pytest.fixture
def database(require: Callable[[object, str], None]) -> Iterator[str]:
    """A database of the test's own, dropped at its end."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    name = f"musweep_test_{secrets.token_hex(4)}"
    admin = sqlalchemy.create_engine(SERVER, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    try:
        with admin.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    except sqlalchemy.exc.OperationalError as error:
        require(False, f"no PostgreSQL at {SERVER}: {str(error.orig).splitlines()[0]}")
    yield SERVER.rpartition("/")[0] + f"/{name}"
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.mark.filterwarnings("default")  # what MLflow's and SQLAlchemy's own code warns of is not ours
def test_a_sweep_is_mirrored_to_postgresql_once(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    folder = told.write(tmp_path / "sweep")
    for _ in range(2):  # the second one finds all done
        mirror = tracking.Mirror(folder)
        mirror.start()
        assert mirror.drain(120), mirror.status()
        mirror.stop()
    client = tracking.connect(database)
    experiment = client.get_experiment_by_name("told")
    assert experiment.artifact_location == (tmp_path / "mlartifacts" / "told").as_uri()
    runs = client.search_runs([experiment.experiment_id])
    children = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    trials = history.load(folder).trials
    assert sorted(children) == sorted(trial.id for trial in trials.values())
    assert len(runs) == len(children) + 1
    for trial in trials.values():
        run = children[trial.id]
        assert run.info.status == ("FAILED" if trial.state == "failed" else "FINISHED")
        if trial.objective is not None:
            assert run.data.metrics["objective"] == pytest.approx(trial.objective, rel=1e-12)
