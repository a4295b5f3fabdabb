from pathlib import Path

import pytest

from cluster.cli import main

CLUSTERS = """
kube: {kind: k8s, image: registry.example/musweep, storage: /sweeps, resources: {workers: 1, cpus: 2, memory: 4Gi},
       k8s: {claim: sweeps}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSWEEP_CLUSTERS", str(tmp_path / "clusters.yaml"))
    (tmp_path / "clusters.yaml").write_text(CLUSTERS)


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 0-6,22 1 jan-mar MON", "0 0 ? * 7"])
def test_times_that_kubernetes_takes(cron: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "digits", "--to", "kube", "--cron", cron, "--zone", "Europe/Paris"]) == 0
    assert cron in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cron", "zone", "told"),
    [
        ("99 2 * * *", "Etc/UTC", '--cron "99 2 * * *": minute 99; legal: 0 to 59'),
        ("30 2 * *", "Etc/UTC", "4 fields; legal: minute, hour, day, month, day of the week"),
        ("30 2 0 * *", "Etc/UTC", "day 0; legal: 1 to 31"),
        ("30 6-2 * * *", "Etc/UTC", "hour 6-2; legal: 0 to 23"),
        ("30 2 * mon *", "Etc/UTC", "month mon; legal: 1 to 12"),
        ("30 2 * * */0", "Etc/UTC", "day of the week */0; legal"),
        ("30 2 * * *", "Europe/Pari", "--zone Europe/Pari: no such time zone; Europe/Paris is one"),
    ],
)
def test_other_times_are_refused(cron: str, zone: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "digits", "--to", "kube", "--cron", cron, "--zone", zone]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert told in said[0]
