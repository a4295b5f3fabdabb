"""MLflow on PostgreSQL, where a team would have it; MUSWEEP_TEST_POSTGRES names another server."""

from pathlib import Path

import pytest

from sweeps import history, tracking
from tests.sweeps import told

pytestmark = pytest.mark.postgres


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
