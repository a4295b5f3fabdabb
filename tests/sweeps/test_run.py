"""Whole sweeps through Ray: the same results whatever the group size and the number of workers."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
import ray

from dashboards.report import write
from sweeps import history, store
from sweeps.run import Interrupted, extend, resume, run
from sweeps.spec import SpecError, SweepSpec

pytestmark = pytest.mark.slow

SPEC = {
    "name": "whole",
    "task": "digits",
    "training": {"updates": 180, "reports": 9, "batch": 16, "mu_step": 5},
    "model": {"width": 16},
    "space": {
        "lr": {"type": "float", "low": 1e-3, "high": 30.0, "scale": "log"},
        "mu_max": {"type": "float", "low": 0.5, "high": 0.99, "scale": "one_minus_log"},
        "method": ["sgd", "cm", "nag"],
        "init": ["standard", "normalized", "sparse", "he"],
        "depth": [1, 2, 3],
    },
    "budget": {"trials": 24},
    "early_stopping": {"rungs": [20, 60], "factor": 3, "fork": {"updates": 5, "mu": 0.5}},
    "mlflow": {"enabled": False},
    "objective": "valid_loss",
}


HF = {
    "kind": "hf", "share": 0.125, "training": {"hf": {"chunks": 8}},
    "space": {"hf_damping": {"type": "float", "low": 1.0, "high": 300.0, "scale": "log"}, "hf_cg_max": [3, 5]},
}  # fmt: skip
"""So few steps on so few examples that the 2880 gradients of a trial are enough for an iteration."""
STAGED = {"confirm": {"top": 2, "seeds": 2, "eval_examples": 300}, "baselines": [HF]}


def spec_with(engine: str, workers: int, group_size: int, stages: dict | None = None, **search) -> SweepSpec:
    resources = {"engine": engine, "workers": workers}
    search = {"seed": 11, "group_size": group_size, **search}
    return SweepSpec.model_validate({**SPEC, **(stages or {}), "resources": resources, "search": search})


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One small Ray for all sweeps of this file; musweep uses a Ray that is already there."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def results(folder: Path) -> dict:
    return {
        t.number: (t.params, t.state, t.reason, t.objective, t.updates, str(t.metrics), t.scores, t.stage, t.replicate)
        for t in history.load(folder).trials.values()
    }


@pytest.mark.parametrize("algorithm", ["random", "qmc", "grid"])
def test_the_same_results_whatever_the_groups(tmp_path: Path, algorithm: str) -> None:
    search = {"algorithm": algorithm}
    if algorithm == "grid":
        search["grid"] = {"lr": 3, "mu_max": 2}
    tables = []
    layouts = [(1, 24), (2, 5), (2, 1)] if algorithm == "random" else [(1, 24), (2, 5)]
    for workers, group_size in layouts:
        folder = tmp_path / f"{workers}x{group_size}"
        stages = STAGED if algorithm == "random" else {}
        run(spec_with("loop", workers, group_size, stages, **search), folder)
        tables.append(results(folder))
    counts = Counter(row[7] for row in tables[0].values())
    assert counts == {"search": 24} | ({"search:hf": 3, "confirm": 4, "confirm:hf": 2} if algorithm == "random" else {})
    if algorithm == "random":
        last = history.load(tmp_path / "1x24").trials[24].metrics[180]
        assert last["hf_iterations"] >= 1
        assert last["hf_work"] <= 180 * 16
    states = {state for _, state, *_ in tables[0].values()}
    assert {"complete", "stopped"} <= states
    assert all(table == tables[0] for table in tables)


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_tpe_repeats_itself_on_equal_groups(tmp_path: Path, engine: str) -> None:
    for name in ("first", "second"):
        run(spec_with(engine, 2, 3, algorithm="tpe"), tmp_path / name)
    assert results(tmp_path / "first") == results(tmp_path / "second")


def test_an_interrupted_sweep_resumes_to_the_same_end(tmp_path: Path) -> None:
    base = spec_with("loop", 2, 3, algorithm="tpe")
    training = base.training.model_copy(update={"updates": 7200, "reports": 360})
    spec = base.model_copy(update={"training": training})
    run(spec, tmp_path / "whole")
    sent: list[int] = []

    def interrupt(state: dict) -> None:
        if state.get("updates", 0) > 300 and not sent:
            sent.append(state["updates"])
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as stopped:
        run(spec, tmp_path / "broken", on_status=interrupt)
    assert stopped.value.folder == tmp_path / "broken"
    told = history.load(tmp_path / "broken")
    assert told.closed == "interrupted"
    assert any(trial.state == "running" for trial in told.trials.values())
    resume(tmp_path / "broken")
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_a_finished_sweep_is_extended(tmp_path: Path) -> None:
    folder = run(spec_with("loop", 1, 8, algorithm="qmc"), tmp_path / "sweep")
    before = results(folder)
    once = history.load(folder).busy.until_asked(1, 8)
    extend(folder, 6, report=write)
    after = results(folder)
    assert sorted(after) == list(range(30))
    assert {n: after[n] for n in before} == before
    assert store.read_rows(folder).num_rows == sum(
        len(m) for t in history.load(folder).trials.values() for m in t.metrics.values()
    )
    busy = history.load(folder).busy.until_asked(1, 8)
    assert once is not None
    assert busy is not None
    assert once.seconds <= busy.seconds
    assert busy.training > 0
    assert busy.forking > 0
    assert busy.waiting < 0.01, "one group waits for no other"
    assert sum(busy.rest.values()) == pytest.approx(1 - busy.busy)
    said = (
        f"Slots were {busy.busy:.0%} busy training, {busy.forking:.0%} by training forks, until the search's last trial"
    )
    assert said in unescape((folder / "report.html").read_text())


def test_a_batch_larger_than_the_data_is_the_specs_fault(tmp_path: Path) -> None:
    space = {**SPEC["space"], "batch": [16, 100_000]}
    spec = SweepSpec.model_validate({**SPEC, "space": space})
    with pytest.raises(SpecError, match=r"training\.batch=100000: more than the 1097 training examples of digits"):
        run(spec, tmp_path / "sweep")


def test_two_drivers_cannot_write_one_sweep(tmp_path: Path) -> None:
    from sweeps.lease import LeaseHeld

    spec = spec_with("loop", 1, 8, algorithm="random")
    first = threading.Thread(target=run, args=(spec, tmp_path / "sweep"))
    first.start()
    while not (tmp_path / "sweep" / "lease.json").exists():
        time.sleep(0.05)
    with pytest.raises(LeaseHeld, match=str(os.getpid())):
        resume(tmp_path / "sweep")
    first.join()
    assert len(results(tmp_path / "sweep")) == 24
