from pathlib import Path

import pytest

from cluster.launch import LaunchError
from cluster.launched import _look_at_mlflow, drive
from sweeps.spec import SweepSpec


def spec(**mlflow: object) -> SweepSpec:
    space = {"lr": {"type": "float", "low": 0.001, "high": 0.1}}
    return SweepSpec.model_validate({"name": "sent", "task": "digits", "space": space, "mlflow": mlflow})


def test_mlflow_out_of_the_drivers_reach_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _look_at_mlflow(spec(uri="http://127.0.0.1:9"), tmp_path / "sweep")
    assert capsys.readouterr().out.startswith("warning: MLflow: http://127.0.0.1:9: ")
    _look_at_mlflow(spec(uri="http://127.0.0.1:9", enabled=False), tmp_path / "sweep")
    _look_at_mlflow(spec(), tmp_path / "sweep")
    assert capsys.readouterr().out == ""


def test_a_secret_that_is_not_there_is_said_with_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.launched.socket.gethostname", lambda: "head-7")
    with pytest.raises(LaunchError, match="on head-7: KEY: the environment variable NOT_THERE is not set here"):
        drive(None, str(tmp_path / "sweep"), ["KEY=env:NOT_THERE"])
