"""Which experiments a name means, and what is stored of one."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from cluster import reproduce
from cluster.folders import UserError
from dashboards.claims import CLAIMS
from dashboards.evidence import Evidence, Run, load
from dashboards.reproduction_plots import plots
from dashboards.verdicts import NOT_RUN
from sweeps import stages
from sweeps.experiments import EXPERIMENTS, PROTOCOLS
from sweeps.history import Trial
from sweeps.space import Params
from sweeps.spec import SweepSpec, protocols, shipped
from sweeps.spec import load as load_spec
from tests.sweeps import told
from trainers.checkpoint import pack
from trainers.evaluate import evaluate
from trainers.state import initial_state
from trainers.tasks import load as load_task


def test_names_are_exact_or_beginnings() -> None:
    assert [e.name for e in reproduce.chosen(["hr18-fig1"])] == ["hr18-fig1"]
    assert {e.name for e in reproduce.chosen(["hr18-fig"])} == {n for n in EXPERIMENTS if n.startswith("hr18-fig")}
    assert len(reproduce.chosen([])) == len(EXPERIMENTS)
    with pytest.raises(UserError, match=r"s13-tabel3.*did you mean s13-table3"):
        reproduce.chosen(["s13-tabel3"])
    with pytest.raises(UserError, match="--protocol=quick: one of full, reduced"):
        reproduce.result_path(Path(), EXPERIMENTS["s13-table3"], "quick")


def test_every_sweep_ships_with_both_protocols_and_a_grid_that_its_budget_pays_for() -> None:
    for experiment in EXPERIMENTS.values():
        if experiment.compute:
            assert set(experiment.options) <= set(PROTOCOLS)
            continue
        assert experiment.name in shipped()
        assert protocols(experiment.name) == list(PROTOCOLS)
        for protocol in PROTOCOLS:
            spec = load_spec(experiment.name, protocol=protocol)
            assert len(spec.space.grid(spec.search.grid)) * spec.search.seeds == spec.budget.trials, experiment.name
            known = {*spec.info.objectives, *(f"test_{metric}" for metric in spec.info.metrics)}
            known |= {f"fork/{phase.name}/{metric}" for phase in spec.forks for metric in spec.info.objectives}
            assert set(experiment.metrics) <= known


def points_of(stage: stages.Stage, spec: SweepSpec) -> list[Params]:
    """A search's whole grid; of what is confirmed one point of each method; of HF the middle of its space."""
    grid = spec.space.grid(spec.search.grid) if not stages.baseline_of(stage.name) else []
    if stage.confirms:
        grid = list({point["method"]: point for point in grid}.values())
    space = stage.spec.space
    return grid or [space.from_unit(dict.fromkeys(space.searched, 0.5))]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", [e.name for e in EXPERIMENTS.values() if not e.compute])
def test_claims_and_plots_take_in_every_trial_of_the_grid(name: str, protocol: str) -> None:
    """Made-up measurements of a whole sweep: all claims can be judged, and no two trials stand for one."""
    spec, chance = load_spec(name, protocol=protocol), random.Random(0)
    runs = []
    for stage in stages.of(spec):
        seeds = spec.confirm.seeds if stage.confirms and spec.confirm else spec.search.seeds
        for point in points_of(stage, spec):
            trial = Trial(0, point, stage.spec.trial_config(0, point).to_dict(), stage.name, "", 0, 0, 0.0)
            params = {**point, **reproduce._derived(trial)}
            for seed in range(seeds):
                series = {metric: [(u, chance.random()) for u in (50, 100)] for metric in EXPERIMENTS[name].metrics}
                runs.append(Run(params, seed, "complete", 100, series))
    evidence = Evidence(name, protocol, runs=tuple(runs))
    assert all(claim(evidence).verdict != NOT_RUN for claim in CLAIMS.get(name, ()))
    shown = [trace for figure in plots(evidence) for trace in figure.data]
    if name.startswith(("s13-table5", "gb10-monitoring")):
        assert len(shown) == len({tuple(v for k, v in run.params.items() if k != "lr") for run in runs})


def test_a_computed_figure_is_stored_and_read_back(tmp_path: Path) -> None:
    def refuse(*_: object) -> Path:
        raise AssertionError("a figure runs no sweep")

    path = reproduce.run(EXPERIMENTS["s13-fig2"], "reduced", tmp_path, refuse)
    found = load(path)
    assert (found.experiment, found.protocol, found.runs) == ("s13-fig2", "reduced", ())
    assert found.values["swing"]["cm"] > found.values["swing"]["nag"]


def test_of_a_sweep_points_seeds_and_measurements_are_stored_and_test_is_measured_once(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "sweep")
    spec = load_spec("digits", ["mlflow.enabled=false"])
    state = initial_state(told.config(0))
    (folder / "models").mkdir()
    (folder / "models" / "t00000.npz").write_bytes(pack({0: state}))
    made, seconds = reproduce.collect(folder, spec, ("valid_loss", "test_error"))
    by_number = dict(enumerate(made["runs"]))
    assert seconds > 0
    first = by_number[0]
    assert first["params"] == {
        "lr": 0.1, "method": "sgd", "init": "sparse", "depth": 1, "activation": "tanh", "sum_1_n": 0.125
    }  # fmt: skip
    assert first["series"]["valid_loss"][0] == (10, told.value(0, 10, "valid_loss"))
    assert first["doomed"] == ""  # one hidden tanh layer
    assert by_number[2]["state"] == "diverged"
    assert by_number[2]["series"]["valid_loss"][-1][1] is None  # JSON has no infinity
    task = load_task("digits")
    error = evaluate(task, told.config(0).net, state.params, task.test)["error"]
    assert first["series"]["test_error"] == [(first["updates"], pytest.approx(error, rel=1e-4))]
    assert "test_error" not in by_number[1]["series"]
    assert made["values"] == {"test_examples": len(task.test)}
    assert made["data"] == ""  # the digits are what they are called
    assert np.isfinite(error)
    json.dumps(made, allow_nan=False)
