import shutil
from pathlib import Path

import pytest

from sweeps import tracking


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables: once is enough."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    tracking.connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def storage(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sweeps with an empty MLflow database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path
