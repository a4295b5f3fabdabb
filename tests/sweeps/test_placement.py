"""Where workers can be: counts and words for clusters as Ray describes them, and a real one of several nodes."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from sweeps import connect, history, placement
from sweeps.connect import Unplaceable
from sweeps.folder import create, read_spec_file
from sweeps.run import run
from sweeps.spec import SweepSpec
from tests.sweeps.alone import run_alone

BIG = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
SMALL = {"Alive": True, "Resources": {"CPU": 2.0}}
DEAD = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
SPEC = {
    "name": "placed",
    "task": "digits",
    "training": {"updates": 120, "reports": 4, "batch": 16, "mu_step": 5},
    "model": {"width": 16},
    "space": {"lr": {"type": "float", "low": 1e-3, "high": 1.0, "scale": "log"}, "method": ["cm", "nag"]},
    "search": {"algorithm": "random", "seed": 5, "group_size": 4},
    "budget": {"trials": 12},
    "resources": {"engine": "loop"},
    "mlflow": {"enabled": False},
    "objective": "valid_loss",
}


@pytest.mark.parametrize(
    ("need", "nodes", "free", "count"),
    [
        ({"CPU": 1.0}, [BIG, SMALL, DEAD], {"CPU": 10.0}, 10),
        ({"CPU": 1.0}, [BIG, SMALL], {"CPU": 3.0}, 3),  # others hold the rest
        ({"CPU": 3.0}, [BIG, SMALL], {"CPU": 10.0}, 2),  # none fits the small node, though together there is room for 3
        ({"CPU": 1.0, "GPU": 0.5}, [BIG, SMALL], {"CPU": 10.0, "GPU": 2.0}, 4),
        ({"CPU": 1.0, "GPU": 1 / 3}, [BIG], {"CPU": 8.0, "GPU": 1.0}, 3),
        ({"CPU": 1.0, "GPU": 1.0}, [SMALL, DEAD], {"CPU": 2.0}, 0),
    ],
)
def test_how_many_workers_fit(need: dict, nodes: list, free: dict, count: int) -> None:
    assert placement.room(need, nodes, free) == count


def test_why_a_worker_waits() -> None:
    need = {"CPU": 1.0, "GPU": 1.0}
    assert placement.waiting(need, [BIG, SMALL], {"CPU": 7.0}) == (
        "a worker needs 1 CPU and 1 GPU; free on the cluster: 7 of 10 CPUs, 0 of 2 GPUs"
    )
    assert placement.waiting(need, [SMALL, DEAD], {"CPU": 2.0}) == (
        "a worker needs 1 CPU and 1 GPU, no node has that (the most is 2 CPUs, 0 GPUs): add a node, or ask for less"
    )


def test_nodes_that_do_not_share_the_folder_are_named() -> None:
    from sweeps.versions import versions

    fine = {"host": "a", "wrong": "", "versions": versions()}
    with pytest.raises(
        Unplaceable, match=r"storage /data/x is not shared by the cluster: b does not see it; set storage"
    ):
        placement._judge(Path("/data/x"), [fine, {**fine, "host": "b", "wrong": "does not see it"}])
    older = {**fine, "host": "c", "versions": {**versions(), "torch": "2.12.0"}}
    (told,) = placement._judge(Path("/data/x"), [fine, older])
    assert told.startswith("node c has torch 2.12.0 (here 2.13.0")


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, not listening: nothing answers there
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        with (
            pytest.raises(Unplaceable, match=r"^RAY_ADDRESS=127\.0\.0\.1:\d+: nothing answers there"),
            connect.cluster(),
        ):
            pass


@pytest.fixture
def head() -> Iterator[Cluster]:
    """A head with a CPU for drivers; the test adds nodes."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_sweep_waits_for_nodes_and_spreads_over_them(
    tmp_path: Path, head: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    spec = SweepSpec.model_validate({**SPEC, "resources": {"engine": "loop", "gpu": 1, "device": "cpu", "workers": 2}})
    notes: list[str] = []
    told = threading.Event()

    def note(status: dict) -> None:
        notes.append(status.get("note", ""))
        if "no node has that" in notes[-1]:
            told.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, spec, tmp_path / "spread", note)
        assert told.wait(60)  # as an autoscaler would see it, and the user does
        for _ in range(2):
            head.add_node(num_cpus=1, num_gpus=1)
        folder = running.result(timeout=120)
    assert not list(folder.glob(".preflight*"))
    resolved = read_spec_file(folder)["resolved"]
    assert resolved["memory"]["process"] > 50 * 2**20
    alone = run_alone(SweepSpec.model_validate(SPEC), tmp_path / "alone")
    tables = [
        {t.number: (t.params, t.state, t.objective, t.metrics) for t in history.load(place).trials.values()}
        for place in (folder, alone)
    ]
    assert tables[0] == tables[1]
    assert len({t.group for t in history.load(folder).trials.values()}) == 2


def test_a_folder_for_preflight_is_left_as_it_was(tmp_path: Path) -> None:
    folder = create(SweepSpec.model_validate(SPEC), tmp_path / "x")
    (folder / ".preflight-abc").write_text("abc")
    before = sorted(folder.iterdir())
    assert placement._look(str(folder), "abc", None)["wrong"] == ""
    assert placement._look(str(folder), "xyz", None)["wrong"] == "does not see it"
    (folder / ".preflight-abc").write_text("other")
    assert placement._look(str(folder), "abc", None)["wrong"] == "reads something else there"
    assert sorted(folder.iterdir()) == before
