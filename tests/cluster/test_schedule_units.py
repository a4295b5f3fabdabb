import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster import schedule_units as units
from cluster.folders import UserError

IMAGE = "registry.example/musweep:1"


def test_the_unit_lets_sweeps_outlive_it() -> None:
    text = units.systemd(Path("/srv/100% mine"))
    service, timer = text.split("# ~/.config/systemd/user/musweep-scheduler.timer")
    read = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",))
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read_string(service)
    assert read["Service"]["KillMode"] == "process"  # else systemd ends the drivers that a look has started
    assert read["Service"]["WorkingDirectory"] == "/srv/100%% mine"
    assert read["Service"]["ExecStart"].endswith("-m cluster.cli scheduler --once")
    read.read_string(timer)
    assert read["Timer"]["OnCalendar"] == "minutely"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_itself_finds_nothing_odd_in_it(tmp_path: Path) -> None:
    cut = "# ~/.config/systemd/user/musweep-scheduler.timer"
    service, timer = units.systemd(tmp_path).split(cut)
    (tmp_path / "musweep-scheduler.service").write_text(service)
    (tmp_path / "musweep-scheduler.timer").write_text(timer)
    (tmp_path / "odd.service").write_text(service.replace("KillMode", "KillMood"))

    def said(name: str) -> str:
        command = ["systemd-analyze", "verify", "--user", str(tmp_path / name)]
        env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env).stderr

    assert said("musweep-scheduler.service") + said("musweep-scheduler.timer") == ""
    assert "KillMood" in said("odd.service")


def test_the_cronjob_looks_every_minute_one_at_a_time_and_keeps_secrets_elsewhere() -> None:
    made = yaml.safe_load(units.kubernetes(IMAGE, "musweep", "ml", "sweeps", "/shared"))
    spec = made["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("* * * * *", "Forbid")
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][-2:] == ["scheduler", "--once"]
    assert container["envFrom"] == [{"secretRef": {"name": "musweep"}}]
    assert "env" not in container
    assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "sweeps"}
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_a_volume_needs_a_place() -> None:
    with pytest.raises(UserError, match="--claim and --storage together"):
        units.kubernetes(IMAGE, "musweep", claim="sweeps")
