"""What Slurm, Kubernetes and plain hosts are given: golden files, their own rules, and Slurm's commands pretended."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cluster import hosts, k8s, slurm
from cluster.launch import ACTIVE, Job, JobStatus, LaunchError, job_of, launcher_of
from cluster.launch_k8s import _told
from cluster.package import Package
from cluster.targets import Target, megabytes, parse
from sweeps.errors import SpecError

GOLDEN = Path(__file__).with_name("golden")
TARGETS = {
    "batch": {
        "kind": "slurm", "storage": "/shared/my sweeps", "python": "/opt/musweep/bin/python",
        "mlflow": "http://mlflow:5000", "env": {"MUSWEEP_DATA": "/shared/the data", "KEY_ID": {"from_env": "OURS"}},
        "resources": {"cpus": 32, "gpus": 8, "memory": "256G"},
        "slurm": {"nodes": 2, "partition": "gpu", "account": "lab", "time": "12:00:00",
                  "options": ["--constraint=h200"], "setup": ["module load python/3.11"]},
    },
    "kube": {
        "kind": "k8s", "image": "registry.example/musweep:0.2", "storage": "/sweeps",
        "env": {"MUSWEEP_DATA": "/sweeps/data"}, "resources": {"cpus": 6, "gpus": 4, "memory": "64Gi", "workers": 4},
        "k8s": {"namespace": "research", "claim": "sweeps", "secret": "musweep", "kueue": "team", "autoscale": True,
                "service_account": "sweeper"},
    },
    "bare": {
        "kind": "hosts", "storage": "/shared/sweeps", "image": "registry.example/musweep:0.2",
        "hosts": {"head": "head.example", "workers": ["a.example", "b.example"], "user": "ann",
                  "key": "~/.ssh/id_ed25519", "setup": ["source ~/musweep/bin/activate"]},
    },
}  # fmt: skip


def target(name: str, **changes: object) -> Target:
    return parse({name: {**TARGETS[name], **changes}}, "clusters.yaml")[name]


def job(name: str, folder: Path, id_: str = "curves-0123456789") -> Job:
    zipped = folder / f"{id_}.zip"
    zipped.write_bytes(b"what is sent")
    return job_of(target(name), id_, zipped)


def rendered(folder: Path) -> dict[str, str]:
    sent = job("kube", folder)
    nightly = Job(sent.id, sent.package, "/sweeps", sent.env)
    return {
        "slurm.sh": slurm.render(job("batch", folder), target("batch")),
        "rayjob.yaml": k8s.text(k8s.rayjob(sent, target("kube"))),
        "cronjob.yaml": k8s.text(k8s.cronjob(nightly, target("kube"), "30 2 * * *", "Europe/Paris")),
        "ray_up.yaml": hosts.render(target("bare")),
    }


@pytest.mark.parametrize("name", ["slurm.sh", "rayjob.yaml", "cronjob.yaml", "ray_up.yaml"])
def test_what_is_rendered(tmp_path: Path, name: str) -> None:
    """MUSWEEP_GOLDEN=1 writes the files anew; look at the difference before you commit it."""
    text = rendered(tmp_path)[name]
    if os.environ.get("MUSWEEP_GOLDEN") == "1":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_a_batch_script_is_sound_shell_whatever_the_names(tmp_path: Path) -> None:
    odd = target("batch", env={"A": 'it\'s $HOME `x` "q"', "B": "two\nlines"})
    text = slurm.render(job_of(odd, "x-0123456789", tmp_path / "x.zip"), odd)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    exports = [line for line in text.splitlines() if line.startswith("export A=")]
    said = subprocess.run(["bash", "-c", f"{exports[0]}; printenv A"], capture_output=True, text=True, check=True)
    assert said.stdout == 'it\'s $HOME `x` "q"\n'


@pytest.mark.parametrize(
    ("size", "parts", "expected"), [("256G", 2, 128_000), ("1Gi", 1, 1074), ("1.5T", 3, 500_000), ("900", 1, 1)]
)
def test_megabytes(size: str, parts: int, expected: int) -> None:
    assert megabytes(size, parts) == expected


@pytest.mark.parametrize(
    ("id_", "name"),
    [
        ("curves-0123456789", "curves-0123456789"),
        ("My_Sweep.v2-0123456789", "my-sweep-v2-0123456789"),
        ("a" * 80 + "-0123456789", "a" * 36 + "-0123456789"),
        ("...-0123456789", "sweep-0123456789"),
    ],
)
def test_names_that_kubernetes_takes(id_: str, name: str) -> None:
    assert k8s.name_of(id_) == name
    assert len(name) <= k8s.MOST_NAME


def test_manifests_keep_the_rules_that_kubernetes_has_for_them(tmp_path: Path) -> None:
    sent, rayjob = k8s.rayjob(job("kube", tmp_path), target("kube"))
    spec, cluster = rayjob["spec"], rayjob["spec"]["rayClusterSpec"]
    assert rayjob["metadata"]["name"] == sent["metadata"]["name"]
    assert spec["shutdownAfterJobFinishes"] is True  # Kueue takes no other
    assert cluster["authOptions"] == {"mode": "token"}
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    pods.append(
        k8s.cronjob(job("kube", tmp_path), target("kube"), "0 2 * * *")[1]["spec"]["jobTemplate"]["spec"]["template"]
    )
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["spec"]["volumes"]}
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pods[1]["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "1500m", "memory": "17180M", "nvidia.com/gpu": "1",
    }  # fmt: skip


def test_secrets_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "very-secret")
    assert not any("very-secret" in text for text in rendered(tmp_path).values())
    assert "--secret=KEY_ID=env:OURS" in rendered(tmp_path)["slurm.sh"]


def test_what_is_too_large_for_a_config_map(tmp_path: Path) -> None:
    large = job("kube", tmp_path)
    large.package.write_bytes(bytes(k8s.MOST_SENT + 1))
    with pytest.raises(
        LaunchError, match=r"the package has 0.70 MB, a ConfigMap takes 0.7: have your code in the image"
    ):
        k8s.rayjob(large, target("kube"))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("batch", {"slurm": {"time": "soon"}}, "batch.slurm.time=soon: "),
        ("batch", {"slurm": {"nodez": 2}}, "batch.slurm.nodez=2: unknown key; allowed: nodes, "),
        ("kube", {"k8s": {"namespace": "Not_So"}}, "kube.k8s.namespace=Not_So: "),
        ("bare", {"hosts": {"user": "ann"}}, "bare.hosts.head: missing"),
    ],
)
def test_mistakes_in_a_section(name: str, changes: dict, words: str) -> None:
    with pytest.raises(SpecError) as refused:
        target(name, **changes)
    assert words in refused.value.lines[0]


@pytest.mark.parametrize(
    ("status", "suspend", "state", "why"),
    [
        ({}, False, "pending", "KubeRay is about to look at it"),
        (
            {"jobDeploymentStatus": "Initializing", "message": "0/3 nodes: no GPU"},
            False,
            "pending",
            "0/3 nodes: no GPU",
        ),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, False, "running", ""),
        ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, False, "pending", "KubeRay is retrying"),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, False, "failed", "DeadlineExceeded"),
        ({"jobDeploymentStatus": "Suspended"}, True, "stopped", "go on with it: musweep resume x --to kube"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, False, "finished", ""),
    ],
)
def test_what_kuberay_says_in_our_words(status: dict, suspend: bool, state: str, why: str) -> None:
    assert _told("x", {"spec": {"suspend": suspend}, "status": status}, "kube") == JobStatus("x", state, why)


def test_kubectl_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="target kube: no kubectl here"):
        launcher_of(target("kube")).status("x-0123456789")
    with pytest.raises(LaunchError, match="target batch: no sinfo here; submit from a login node"):
        launcher_of(target("batch")).check()


@pytest.fixture
def batch(tmp_path: Path, fake_slurm: Path) -> Target:
    """A target whose Slurm is pretended and whose driver does as it is told."""
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{Path(__file__).with_name('fake_driver.py').read_text()}")
    fake.chmod(0o755)
    changes = {"storage": str(tmp_path / "sweeps"), "python": str(fake), "env": {"GREETING": "hello there"}}
    return target("batch", **changes, slurm={"nodes": 1})


def submitted(to: Target, folder: Path, id_: str, spec: bytes = b'{"name": "waiting"}') -> Job:
    zipped = folder / f"{id_}.zip"
    return job_of(to, id_, zipped, digest=Package(id_, None, {}, spec).write(zipped))


def until(to: Target, id_: str, *states: str) -> JobStatus:
    limit = time.monotonic() + 30
    while (known := launcher_of(to).status(id_)).state not in states:
        assert known.state in ACTIVE, known
        assert time.monotonic() < limit, known
        time.sleep(0.1)
    return known


def test_a_job_near_its_time_limit_leaves_and_is_queued_again(batch: Target, tmp_path: Path) -> None:
    launcher, sent = launcher_of(batch), submitted(batch, tmp_path, "waiting-0123456789")
    launcher.submit(sent)
    begun = Path(sent.folder) / "journal.jsonl"
    limit = time.monotonic() + 20
    while not begun.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(json.loads((tmp_path / "slurm" / "1.json").read_text())["pid"], signal.SIGTERM)
    while begun.read_text().count("hello there") < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    assert begun.read_text().count("hello there") == 2  # it went on
    assert until(batch, sent.id, "running").why == "Slurm's job 1"
    (Path(sent.folder) / "go").touch()
    assert until(batch, sent.id, "finished").why == ""
    assert oct((Path(sent.folder) / "logs" / "ray-token").stat().st_mode & 0o777) == "0o600"


def test_a_waiting_job_says_why_and_can_be_cancelled(batch: Target, tmp_path: Path) -> None:
    (tmp_path / "slurm" / "hold").touch()
    launcher, sent = launcher_of(batch), submitted(batch, tmp_path, "waiting-0123456789")
    launcher.submit(sent)
    assert launcher.status(sent.id) == JobStatus(sent.id, "pending", "Slurm's job 1 waits: nodes required down")
    launcher.stop(sent.id)
    assert launcher.status(sent.id).state == "stopped"


def test_what_slurm_refuses_is_one_line(batch: Target, tmp_path: Path) -> None:
    wrong = batch.model_copy(update={"slurm": target("batch", slurm={"partition": "no-such-partition"}).slurm})
    with pytest.raises(LaunchError, match=r"^target batch: sbatch: sbatch: error: invalid partition specified"):
        launcher_of(wrong).submit(submitted(wrong, tmp_path, "waiting-0123456789"))


def test_rendered_yaml_is_read_back(tmp_path: Path) -> None:
    for name, text in rendered(tmp_path).items():
        if name.endswith(".yaml"):
            assert all(isinstance(document, dict) for document in yaml.safe_load_all(text))
