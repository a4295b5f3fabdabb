"""Short forms of `make chaos`: one sweep that meets a fault of each common kind, and one on four raylets."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import cases_cluster, page
from tests.chaos.bench import Bench, Outcome, run_case
from tests.chaos.cases_folder import spoil
from tests.chaos.matrix import TITLES
from tests.chaos.places import ROOT, finish, send

RESULTS = ROOT / "tests" / "chaos" / "results"


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """Tables of undisturbed sweeps, made once."""
    return {}


def test_the_page_says_what_the_stored_results_say(tmp_path: Path) -> None:
    stored = page.stored(RESULTS)
    assert stored
    assert page.write(tmp_path / "FAULTS.md", stored, TITLES).read_text() == (ROOT / "FAULTS.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sweep_meets_a_fault_of_each_kind(tmp_path: Path, tables: dict[str, Any]) -> None:
    """A worker dies at a checkpoint, one in a step, the clock jumps, the driver dies, checkpoints are damaged."""
    bench = Bench(Outcome("short", "", ""), tmp_path, 1, True, tables)
    place = bench.place(checkpoint=["half"], pace=0.05)
    place.clock(0.0)
    driver = place.start()
    assert place.wait_for(lambda: place.fired("checkpoint") == 1 and place.updates() > 3000, 120, driver), place.tail()
    killed = any(send(worker, signal.SIGKILL) for worker in random.Random(1).sample(place.workers(), 1))
    place.clock(86_400.0)
    assert place.wait_for(lambda: place.updates() > 9000, 120, driver), place.tail()
    place.kill_driver(driver)
    place.clock(-86_400.0)
    damaged = spoil(place, "flip", bench)
    driver = place.start()
    second = place.start()  # the same sweep again, while it is at work
    assert finish(place, second) == 2
    assert bench.judge(place, 3 + killed + damaged, finish(place, driver), bounded=False), bench.outcome.failures
    assert bench.outcome.injected >= 5


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_four_raylets_some_of_which_die(tmp_path: Path, tables: dict[str, Any]) -> None:
    assert cases_cluster.FOUR
    outcome = run_case("C", 1, True, tables, tmp_path)
    assert outcome.passed, json.dumps(outcome.failures, indent=1)
