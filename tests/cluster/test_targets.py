from pathlib import Path
from typing import Any

import pytest

from cluster import targets
from cluster.launch import LaunchError, job_of
from cluster.targets import Secret, load, parse, refuse_code, target
from sweeps.errors import SpecError
from sweeps.spec import parse as parse_spec

RAY = {"kind": "ray", "address": "http://head:8265", "storage": "/shared"}


def lines(data: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(data, "clusters.yaml")
    return caught.value.lines


def test_this_machine_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MUSWEEP_CLUSTERS", raising=False)
    assert sorted(load()) == ["debug", "local"]
    assert target("local").folder("a-1") == str(tmp_path / "runs" / "a-1")


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSWEEP_CLUSTERS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "musweep").mkdir(parents=True)
    (tmp_path / "config" / "musweep" / "clusters.yaml").write_text("home: {kind: local}\n")
    assert target("home").name == "home"
    (tmp_path / "clusters.yaml").write_text("here: {kind: local}\n")
    assert "home" not in load()
    (tmp_path / "named.yaml").write_text("named: {kind: local}\n")
    monkeypatch.setenv("MUSWEEP_CLUSTERS", str(tmp_path / "named.yaml"))
    assert sorted(load()) == ["debug", "local", "named"]
    monkeypatch.setenv("MUSWEEP_CLUSTERS", str(tmp_path / "gone.yaml"))
    with pytest.raises(SpecError, match=r"gone\.yaml: no such file"):
        load()


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({**RAY, "kind": "rey"}, "gpu.kind=rey: unknown kind; allowed: debug, local, ray, slurm, k8s, hosts; did"),
        ({"address": "x"}, "clusters.yaml: gpu.kind: missing; allowed: debug, local, ray, slurm, k8s, hosts"),
        ({**RAY, "adress": "x"}, "did you mean address?"),
        ({**RAY, "resources": {"cpu": 3}}, "gpu.resources.cpu=3: unknown key; allowed: cpus, gpus, memory, workers"),
        ({"kind": "ray", "storage": "/s"}, "gpu.address: missing; allowed: the dashboard's address, as in http://head:8265"),
        ({**RAY, "address": "ray://head:10001"}, "gpu.address=ray://head:10001: the address of Ray Client, not"),
        ({**RAY, "address": "http://head:port"}, "gpu.address=http://head:port: not the address of a Ray cluster"),
        ({"kind": "ray", "address": "h"}, "gpu.storage: missing; allowed: a folder that every machine there sees"),
        ({**RAY, "storage": "runs"}, "gpu.storage=runs: relative to nothing that another machine knows"),
        ({**RAY, "limit_mb": 0}, "gpu.limit_mb=0: "),
        ({**RAY, "resources": {"memory": "lots"}}, "gpu.resources.memory=lots: not a size"),
        ({**RAY, "env": {"A": 1}}, "gpu.env.A=1: not text"),
        ({**RAY, "env": {"A-B": "1"}}, "gpu.env.A-B=1: not the name of an environment variable"),
        ({**RAY, "token": {"from_envv": "A"}}, "unknown key; allowed: from_env, from_file; did you mean from_env?"),
        ({**RAY, "token": {"from_file": "token"}}, "not a whole path"),
        ({**RAY, "name": "x"}, "gpu.name: a target has the name it stands under"),
        ("ray", "clusters.yaml: gpu: not a target"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(section: Any, line: str) -> None:
    found = lines({"gpu": section})
    assert len(found) == 1
    assert line in found[0]
    assert "\n" not in found[0]


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "section",
    [
        {**RAY, "token": SECRET},
        {**RAY, "token": {"from_env": SECRET + "-"}},
        {**RAY, "address": f"http://me:{SECRET}@head:8265"},
        {**RAY, "mlflow": f"http://me:{SECRET}@ml:5000"},
        {**RAY, "database": f"postgresql://me:{SECRET}@db/x"},
        {**RAY, "storage": f"s3://me:{SECRET}@host/x"},
        {**RAY, "env": {"AWS_SECRET_ACCESS_KEY": SECRET}},
        {**RAY, "env": {"TRACKER": f"https://me:{SECRET}@x"}},
        {**RAY, "password": SECRET},
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(section: Any) -> None:
    found = lines({"gpu": section})
    assert len(found) == 1
    assert SECRET not in found[0]
    if "token" not in section or isinstance(section["token"], str):
        assert "from_env: NAME" in found[0] or "unknown key" in found[0]


def test_a_secret_is_read_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("abc\n")
    monkeypatch.setenv("T", "def")
    assert Secret(from_file=str(tmp_path / "token")).read("token") == "abc"
    assert Secret(from_env="T").read("token") == "def"
    with pytest.raises(LaunchError, match=r"^token: the environment variable GONE is not set here$"):
        Secret(from_env="GONE").read("token")
    with pytest.raises(LaunchError, match=r"^token: cannot read .*gone: No such file or directory$"):
        Secret(from_file=str(tmp_path / "gone")).read("token")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(LaunchError, match=r"is empty$"):
        Secret(from_file=str(tmp_path / "empty")).read("token")


def test_secrets_go_to_a_job_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URI", f"http://me:{SECRET}@ml")
    section = {**RAY, "mlflow": {"from_env": "URI"}, "env": {"A": "1", "B": {"from_file": "/run/b"}}}
    job = job_of(parse({"gpu": section}, "c")["gpu"], "x-1", Path("x.zip"))
    assert dict(job.env) == {"A": "1"}
    assert dict(job.secrets) == {"MLFLOW_TRACKING_URI": "env:URI", "B": "file:/run/b"}
    assert job.folder == "/shared/x-1"
    assert SECRET not in repr(job)


@pytest.mark.parametrize(
    ("allow", "fine"),
    [([], False), (["my_training:train"], True), (["my_training:*"], True), (["*"], True), (["other:train"], False)],
)
def test_code_of_ones_own_must_be_allowed(
    allow: list[str], fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_training.py").write_text("def train(trial): ...\n")
    spec = parse_spec({"trainer": "my_training:train", "space": {"x": [1, 2]}, "objective": "loss"})
    place = parse({"gpu": {**RAY, "allow": allow}}, "clusters.yaml")["gpu"]
    if fine:
        refuse_code(spec, place)
    else:
        with pytest.raises(
            LaunchError, match=r"^trainer=my_training:train: target gpu does not run this code; allowed there: "
        ):
            refuse_code(spec, place)


def test_a_spec_without_code_is_always_allowed() -> None:
    refuse_code(parse_spec({"task": "digits", "space": {"lr": [0.1, 0.2]}}), parse({"gpu": RAY}, "c")["gpu"])


def test_the_nearest_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("cluster: {kind: local}\n")
    with pytest.raises(
        SpecError, match=r"c\.yaml: no target clustr; allowed: debug, local, cluster; did you mean cluster\?"
    ):
        target("clustr", tmp_path / "c.yaml")


def test_yaml_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: [\n")
    with pytest.raises(SpecError, match="not YAML"):
        load(tmp_path / "c.yaml")
    assert lines([1]) == ["clusters.yaml: not targets; allowed: names, each with a section that has a kind"]
    assert targets.parse(None, "c")["debug"].kind == "debug"


def test_the_example_of_the_documentation_is_sound(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
    (tmp_path / "c.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    place = target("gpu", tmp_path / "c.yaml")
    assert place.folder("x-1") == "/shared/sweeps/x-1"
    assert job_of(place, "x-1", Path("x.zip")).secrets == {"AWS_SESSION_TOKEN": "env:AWS_SESSION_TOKEN"}
