"""A short form of `make chaos`: a sweep on three raylets that meets a fault of each common kind."""

import json
from pathlib import Path

import pytest
import yaml

from sweeps.spec import parse
from tests.chaos import oracle, page
from tests.chaos.bench import Bench, Outcome
from tests.chaos.cases_cluster import FOUR, SPREAD, Life
from tests.chaos.cases_folder import spoil
from tests.chaos.matrix import TITLES
from tests.chaos.places import ROOT, SPEC, finish
from tests.chaos.raylets import Cluster
from tests.sweeps.alone import run_alone

RESULTS = ROOT / "tests" / "chaos" / "results"
SHORT = {"budget": {"trials": 18}}
THREE = {name: FOUR[name] for name in ("head", "a", "b")}
TWO_WORKERS = {**SPREAD, **SHORT, "resources": {**SPREAD["resources"], "workers": 2}}


def test_the_page_says_what_the_stored_results_say(tmp_path: Path) -> None:
    stored = page.stored(RESULTS)
    assert stored
    assert page.write(tmp_path / "FAULTS.md", stored, TITLES).read_text() == (ROOT / "FAULTS.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_sweep_on_three_raylets_meets_a_fault_of_each_kind(tmp_path: Path) -> None:
    """A worker dies writing a checkpoint, one in a step, a node, the driver; clocks jump, checkpoints are damaged."""
    spec = parse(yaml.safe_load(yaml.safe_dump({**SPEC, **SHORT})))  # the space in the order that a file has
    undisturbed = oracle.table(run_alone(spec, tmp_path / "undisturbed"))
    bench = Bench(Outcome("short", "", ""), tmp_path, 1, True, {json.dumps(SHORT): undisturbed})
    place = bench.place(TWO_WORKERS, checkpoint=["half"], pace=0.15)
    place.clock(0.0)
    life = Life(place, Cluster(place, THREE), bench.random)
    try:
        assert place.wait_for(lambda: place.fired("checkpoint") == 1, 180, life.driver), place.tail()
        assert life.strike("node")
        assert life.trains(1000, 120), place.tail()
        place.clock(86_400.0)
        assert life.strike("worker")
        assert life.trains(1000, 120), place.tail()
        stored = (place.folder / "checkpoints").glob
        assert place.wait_for(lambda: any(stored("group-*.npz")), 90, life.driver), place.tail()
        life.driver.kill()
        life.driver.wait()
        place.clock(-86_400.0)
        damaged = spoil(place, "flip", bench)
        life.driver = place.start()
        assert life.trains(500, 120), place.tail()
        assert finish(place, place.start()) == 2  # the same sweep again, while it is at work
        code = life.end()
    finally:
        life.cluster.stop()
    bench.judge(place, 6 + damaged, code, spec=SHORT, bounded=False, failures=life.told)
    assert bench.outcome.passed, bench.outcome.failures
    assert damaged
