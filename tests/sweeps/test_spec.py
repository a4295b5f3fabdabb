"""Specs: what ships parses, what is resolved is read back equal, and points become trials as the papers say."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import reading
from sweeps.schema_values import duration
from sweeps.spec import SpecError, SweepSpec, json_schema, load, parse, protocols, shipped
from trainers.config import TrialConfig

SHIPPED = sorted(shipped())
CURVES = {"task": "curves", "space": {"lr": {"type": "float", "low": 1e-3, "high": 0.1, "scale": "log"}}}


def spec_of(**sections: Any) -> SweepSpec:
    return parse({**CURVES, **sections})


def test_the_shipped_specs_are_there() -> None:
    assert {"curves", "digits", "mnist-autoencoder"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_specs_run_as_they_are(name: str) -> None:
    assert shipped()[name].read_text().startswith("# ")
    for protocol in protocols(name) or [None]:
        check_shipped(load(name, protocol=protocol))


def check_shipped(spec: SweepSpec) -> None:
    assert spec.name.removesuffix(f"-{spec.protocol}") in {name.replace("/", "-") for name in SHIPPED}
    assert spec.warnings() == []
    assert (spec.early_stopping is None) != bool(spec.rungs())
    middle = spec.space.from_unit(dict.fromkeys(spec.space.searched, 0.5))
    config = spec.trial_config(3, middle)
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", SHIPPED)
def test_the_resolved_spec_is_read_back_equal(name: str, tmp_path: Path) -> None:
    spec = load(name)
    data = json.loads(json.dumps(spec.model_dump(mode="json"), allow_nan=False))
    again = SweepSpec.model_validate(data)
    assert again == spec
    assert again.model_dump(mode="json") == data
    assert again.space.internal() == spec.space.internal()
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    path = tmp_path / "spec.json"  # as a sweep folder holds it
    path.write_text(json.dumps({**data, "resolved": {"workers": 2}}))
    assert load(path) == spec


@pytest.mark.parametrize("name", [name for name in SHIPPED if re.search(r"\d+ points", shipped()[name].read_text())])
def test_headers_count_the_points_that_there_are(name: str) -> None:
    spec = load(name)
    said = re.search(r"(\d+) points x (\d+) seeds", shipped()[name].read_text())
    assert said is not None
    assert (len(spec.space.grid(spec.search.grid)), spec.search.seeds) == tuple(map(int, said.groups()))


@pytest.mark.parametrize("protocol", protocols("gb10-monitoring"))
def test_every_monitored_net_has_the_depth_of_the_figures(protocol: str) -> None:
    """GB10 Fig. 2: sigmoid nets of depth 4 and 5; the others five hidden layers deep, not as deep as an MLP is left."""
    spec = load("gb10-monitoring", protocol=protocol)
    nets = [spec.trial_config(0, point).net for point in spec.space.grid(spec.search.grid)]
    depths = sorted((net.hidden[0], len(net.hidden)) for net in nets)
    assert depths == [("sigmoid", 4), ("sigmoid", 5), ("softsign", 5), ("tanh", 5), ("tanh", 5)]


def test_the_main_job_is_what_the_readme_promises() -> None:
    spec = load("curves")
    assert spec.budget.trials >= 48
    assert spec.training.updates == 2000
    assert {"mu_max", "lr", "method", "init", "depth"} <= set(spec.space.searched)
    assert spec.task.name == "curves"
    assert spec.compare_within == ["depth"]


def test_shipped_specs_fit_the_json_schema() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name in SHIPPED:
        assert list(validator.iter_errors(written := reading.parse(shipped()[name].read_text()))) == []
        assert list(validator.iter_errors(load(name).model_dump(mode="json"))) == []
    for wrong in ({"trials": 3}, {"training": {"lr": 0}}, {"space": {"lr": {"low": 1, "high": 2}}}, {"mode": "avg"},
                  {"training": {"init": "sparce"}}, {"budget": {"trials": 0}}, {"model": {"widths": {"rule": "x"}}},
                  {"training": {"lr_factor": 2}}, {"task": {"name": "curvse"}}):  # fmt: skip
        assert list(validator.iter_errors({**written, **wrong})), wrong


def test_every_key_is_described() -> None:
    schema = json_schema()
    for section in [schema, *schema["$defs"].values()]:
        assert section.get("additionalProperties") is False
        for key, described in section["properties"].items():
            assert described.get("description"), key


def test_reading_a_spec_is_quick_and_light() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import sweeps.spec; s = time.perf_counter() - t;"
        "sweeps.spec.load('curves'); sweeps.spec.json_schema(); print(s, *sys.modules)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds, *modules = min(runs, key=lambda run: float(run.stdout.split()[0])).stdout.split()
    heavy = {"torch", "ray", "optuna", "mlflow", "numpy", "pandas", "scipy", "sklearn", "plotly", "pyarrow"}
    assert not heavy & set(modules)
    assert (
        float(seconds) < 2.0
    )  # a quarter of a second where nothing else runs; the modules above are what makes it slow


@pytest.mark.parametrize(
    ("depth", "widths", "linear"),
    [
        (1, (784, 6, 784), 0),
        (3, (784, 400, 6, 400, 784), 1),
        (5, (784, 400, 200, 6, 200, 400, 784), 2),
        (11, (784, 400, 200, 100, 50, 25, 6, 25, 50, 100, 200, 400, 784), 5),  # S13 Table 6
    ],
)
def test_autoencoders_mirror_the_papers_encoder(depth: int, widths: tuple[int, ...], linear: int) -> None:
    net = spec_of(model={"depth": depth}).net({})
    assert net.widths == widths
    assert net.loss == "logistic"
    assert [i for i, name in enumerate(net.hidden) if name == "linear"] == [linear]  # SCIENCE 4.1: the code
    assert set(net.hidden) - {"linear"} <= {"sigmoid"}


def test_the_full_depth_is_the_papers() -> None:
    assert len(spec_of().net({}).hidden) == 11  # SCIENCE 1.3
    assert len(spec_of(task="mnist-ae").net({}).hidden) == 7
    assert spec_of().model.depth == 11


def test_widths_of_your_own() -> None:
    own = spec_of(model={"widths": [200, 50, 6]}, space={"depth": [1, 3, 5]})
    assert own.net({"depth": 5}).widths == (784, 200, 50, 6, 50, 200, 784)
    assert own.net({"depth": 3}).widths == (784, 200, 6, 200, 784)
    digits = parse({"task": "digits", "model": {"widths": [32, 16]}, "space": {"depth": [0, 2]}})
    assert digits.net({"depth": 2}).widths == (64, 32, 16, 10)
    assert digits.net({"depth": 0}).widths == (64, 10)
    with pytest.raises(SpecError, match=r"model\.depth=3: this mlp cannot have that depth; allowed: 0, 1, 2"):
        parse({"task": "digits", "model": {"widths": [32, 16], "depth": 3}})


def test_mlps() -> None:
    spec = parse({"task": "digits", "space": {"depth": {"type": "int", "low": 1, "high": 4}, "width": [32, 64]}})
    net = spec.net({"depth": 3, "width": 32})
    assert net.widths == (64, 32, 32, 32, 10)
    assert net.hidden == ("tanh",) * 3
    assert net.loss == "softmax"
    assert spec.objective.metric == "valid_loss"
    assert spec_of().objective.metric == "valid_squared_error"


def test_points_override_training_values_and_nothing_else() -> None:
    spec = spec_of(
        training={"lr": 0.5, "mu_max": 0.95, "batch": 25, "fan_in": 12, "mu_step": 10, "tail_updates": 7,
                  "tail_mu": 0.8},
        space={"lr": [0.1, 1], "init": ["sparse", "he"], "init_scale": [0.5, 2], "batch": 50},
        search={"seed": 11},
    )  # fmt: skip
    config = spec.trial_config(4, {"lr": 1, "init": "he", "init_scale": 2}, stage="confirm", replicate=2)
    assert (config.method.lr, config.method.mu_max, config.method.kind) == (1.0, 0.95, "nag")
    assert (config.method.mu_step, config.method.tail_updates, config.method.tail_mu) == (10, 7, 0.8)
    assert (config.init.kind, config.init.scale, config.init.fan_in) == ("he", 2.0, 12)
    assert (config.number, config.batch, config.updates) == (4, 50, 2000)
    assert (config.seed.sweep, config.seed.stage, config.seed.replicate) == (11, "confirm", 2)
    assert spec.trial_config(4, {}).method.lr == 0.5
    assert spec.trial_config(9, {"lr": 0.1}).seed == spec.trial_config(4, {"lr": 0.1}).seed  # common random numbers


def test_sgd_has_no_momentum() -> None:
    spec = spec_of(training={"mu_max": 0.9}, space={"method": ["sgd", "cm"]})
    assert spec.trial_config(0, {"method": "sgd"}).method.mu_max == 0
    assert spec.trial_config(0, {"method": "cm"}).method.mu_max == 0.9


def test_what_is_not_active_falls_back_on_training() -> None:
    when = {"type": "float", "low": 0.5, "high": 0.99, "when": {"method": "nag"}}
    spec = spec_of(training={"mu_max": 0.7}, space={"method": ["cm", "nag"], "mu_max": when})
    assert spec.trial_config(0, {"method": "cm", "mu_max": 0.99}).method.mu_max == 0.7
    assert spec.trial_config(0, {"method": "nag", "mu_max": 0.99}).method.mu_max == 0.99
    assert spec.point_id({"method": "cm", "mu_max": 0.99}) == spec.point_id({"method": "cm"})


def test_short_forms_mean_the_long_ones() -> None:
    short = spec_of(space={"method": ["cm", "nag"], "lr": 0.1, "fan_in": {"type": "int", "low": 5, "high": 9,
                    "when": {"init": "sparse"}}, "init": ["sparse"]}, objective="train_loss")  # fmt: skip
    long = spec_of(
        task={"name": "curves"},
        space={
            "method": {"type": "choice", "values": ["cm", "nag"]},
            "lr": {"type": "fixed", "value": 0.1},
            "fan_in": {"type": "int", "low": 5, "high": 9, "when": {"init": ["sparse"]}},
            "init": {"type": "choice", "values": ["sparse"]},
        },
        objective={"metric": "train_loss", "at": "last"},
    )
    assert short == long


def test_rungs_come_after_momenta_differ() -> None:
    mu = {"type": "float", "low": 0.9, "high": 0.99, "scale": "one_minus_log"}
    halving: dict[str, Any] = {"early_stopping": {}}
    # the smallest mu_max, .9, is reached at 1000 updates of S13's schedule: a rung before it would compare equals
    spec = spec_of(space={"mu_max": mu}, **halving)
    assert spec.momentum_apart_at() == 1000
    assert spec.rungs() == [1100]
    assert spec_of(space={"mu_max": mu}, training={"mu_step": 25}, **halving).rungs() == [300, 700]
    assert spec_of(space={"mu_max": mu, "mu_step": [25, 250]}, **halving).momentum_apart_at() == 100
    assert spec_of(space={"mu_max": [0, 0.9]}, **halving).rungs() == [100, 300, 700]
    assert spec_of(**halving).rungs() == [100, 300, 700]
    assert spec_of().rungs() == []
    assert spec_of(early_stopping={"rungs": [150, 190, 900]}).rungs() == [200, 900]


def test_what_a_sweep_costs() -> None:
    spec = spec_of(budget={"trials": 27}, early_stopping={"rungs": [100, 300], "fork": {"updates": 50}})
    assert spec.arrivals() == [(100, 27), (300, 9), (2000, 3)]
    assert spec.expected_updates() == 27 * 100 + 9 * 200 + 3 * 1700
    assert spec.cost_of_forks() == 50 * (27 + 9)
    assert spec_of(early_stopping={"fork": None}).cost_of_forks() == 0
    phases = [{"name": "early", "at": 200, "updates": 30}, {"name": "end", "at": 2000 - 100, "updates": 10}]
    spec = spec_of(budget={"trials": 27}, early_stopping={"rungs": [100, 300], "fork": None}, forks=phases)
    assert spec.cost_of_forks() == 9 * 30 + 3 * 10
    assert spec_of(budget={"trials": 5}).expected_updates() == 10_000
    assert spec_of().cost_of_forks() == 0


def test_depths_are_compared_apart_unless_asked_otherwise() -> None:
    space = {"depth": [3, 7], "lr": {"type": "float", "low": 0.1, "high": 1}}
    assert spec_of(space=space, early_stopping={}).compare_within == ["depth"]
    assert spec_of(space=space, early_stopping={"compare_within": []}).compare_within == []
    assert spec_of(early_stopping={}).compare_within == []
    assert spec_of(space={"depth": 3}, early_stopping={}).compare_within == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("8h", 28800), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400), (" 1h 5s ", 3605),
     (12, 12), (0.5, 0.5), (None, None)],
)  # fmt: skip
def test_durations(text: Any, seconds: float | None) -> None:
    assert duration(text) == seconds
    assert spec_of(budget={"wall": text}).budget.wall == seconds


def test_numbers_as_yaml_1_1_would_not_read_them(tmp_path: Path) -> None:
    path = tmp_path / "my first sweep!.yaml"
    path.write_text("task: curves\ntraining: {updates: 2e3, lr: 1e-3}\nspace: {lr: [1e-3, 1]}\nbudget: {wall: 1e2}")
    spec = load(path)
    assert spec.name == "my-first-sweep"
    assert (spec.training.updates, spec.training.lr, spec.budget.wall) == (2000, 0.001, 100)
    assert spec.space["lr"].values == [0.001, 1.0]


def test_overrides() -> None:
    spec = load("curves", ["space.lr.high=0.5", "task.examples=100", "budget.wall=5m", "space.depth=3", "name=mine",
                           "early_stopping=null", "space.init=null", "objective=train_loss"])  # fmt: skip
    assert spec.space["lr"].high == 0.5  # type: ignore[union-attr]
    assert (spec.task.examples, spec.budget.wall, spec.name) == (100, 300, "mine")
    assert spec.space["depth"].values == [3]
    assert "init" not in spec.space
    assert spec.rungs() == []
    assert spec.objective.metric == "train_loss"


MU = {"type": "float", "low": 0.8, "high": 0.99, "scale": "one_minus_log"}
WARNINGS: dict[str, tuple[dict[str, Any], str]] = {
    "gp and halving": (
        {"search": {"algorithm": "gp"}, "early_stopping": {}},
        "search.algorithm=gp learns from finished trials only, and early stopping leaves few; tpe learns from stopped "
        "ones too",
    ),
    "cmaes and choices": (
        {"search": {"algorithm": "cmaes"}, "space": {"init": ["sparse", "he"], **CURVES["space"]}},  # type: ignore[dict-item]
        "search.algorithm=cmaes models numbers only: choices are sampled independently of them",
    ),
    "sgd with momentum": (
        {"space": {"mu_max": MU, "method": ["sgd", "cm", "nag"]}, "training": {"mu_step": 10}},
        "space.mu_max matters for method cm and nag only; add when: {method: [cm, nag]} to it",
    ),
    "sgd only": (
        {"space": {"mu_max": MU}, "training": {"mu_step": 10, "method": "sgd"}},
        "space.mu_max has no effect: no trial has method cm or nag",
    ),
    "momenta that cannot be told apart": (  # SCIENCE 4.3: 3,000 updates in steps of 25 never pass .9959
        {"space": {"mu_max": {**MU, "high": 0.998}}, "training": {"updates": 3000, "mu_step": 25}},
        "space.mu_max: 3000 updates in steps of 25 never pass momentum 0.9958, so values from there to 0.998 cannot "
        "be told apart; lower training.mu_step to 12, or stop at 0.9958",
    ),
    "two choices of momentum out of reach": (
        {"space": {"mu_max": [0.9, 0.995, 0.999]}, "training": {"updates": 10_000, "mu_step": 250}},
        "space.mu_max: 10000 updates in steps of 250 never pass momentum 0.9875, so values from there to 0.999 cannot "
        "be told apart; lower training.mu_step to 20, or stop at 0.9875",
    ),
    "momentum too slow for the budget": (
        {"space": {"mu_max": {**MU, "high": 0.999}}, "training": {"updates": 3000, "mu_step": 5}},
        "space.mu_max: momentum 0.999 averages over 1000 updates, too many to show its worth in 3000; train longer, or "
        "stop at 0.998",
    ),
    "rung before momenta differ": (
        {"space": {"mu_max": {**MU, "low": 0.9}}, "training": {"mu_step": 25}, "early_stopping": {"rungs": [50, 400]}},
        "early_stopping.rungs: at 100 updates momentum has not passed 0.9, the smallest mu_max (reached at 100), so "
        "trials do not yet differ in it",
    ),
    "fan-in where it does nothing": (
        {"space": {"fan_in": [5, 15], "init": ["sparse", "he"]}},
        "space.fan_in matters for init sparse only; add when: {init: sparse} to it",
    ),
    "fan-in of another init": (
        {"space": {"fan_in": [5, 15]}, "training": {"init": "he"}},
        "space.fan_in has no effect: no trial has init sparse or sparse-distinct or echo",
    ),
    "tail momentum without a tail": (
        {"space": {"tail_mu": [0.5, 0.9]}},
        "space.tail_mu has no effect: training.tail_updates is 0",
    ),
    "largest error": (
        {"mode": "max"},
        "mode: max looks for the largest error; every metric of the tasks is better when small",
    ),
    "GPU-hours without a GPU": (
        {"budget": {"gpu_hours": 2}},
        "budget.gpu_hours has no effect: resources.gpu is 0",
    ),
    "nothing searched": (
        {"space": {"lr": 0.1}},
        "space: nothing is searched, so all 48 points are the same",
    ),
    "grid larger than the budget": (
        {"search": {"algorithm": "grid", "grid": {"lr": 50}}},
        "search.grid: the grid has 50 points, the budget pays for 48; the rest is not tried",
    ),
    "grid smaller than the budget": (
        {"search": {"algorithm": "grid", "grid": {"lr": 5}, "seeds": 2}},
        "search.grid: the grid has 5 points, the budget pays for 24; the search ends when they are done",
    ),
    "grid of another algorithm": (
        {"search": {"grid": {"lr": 5}}},
        "search.grid has no effect with search.algorithm=tpe",
    ),
    "no place for a rung": (
        {"training": {"reports": 1}, "early_stopping": {}},
        "early_stopping: no report falls where a rung could be; raise training.reports or updates",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sections", "line"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_is_likely_not_meant_is_said(sections: dict[str, Any], line: str) -> None:
    assert spec_of(**sections).warnings() == [line]


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
_keys = st.sampled_from(["type", "low", "high", "values", "when", "lr", "depth", "rungs", "x"])
_junk = st.recursive(
    _scalars | st.sampled_from(["auto", "nag", "curves", "float"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.sampled_from([*SweepSpec.model_fields]), st.sampled_from(["", "lr", "depth", "points", "rungs", "x"]), _junk)
def test_any_nonsense_is_answered_in_lines(section: str, key: str, junk: Any) -> None:
    lines: list[str] = []
    try:
        spec = parse({**CURVES, section: {key: junk} if key else junk})
    except SpecError as error:
        lines = [*error.lines, str(error)]
    else:
        spec.warnings()
        assert SweepSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"), allow_nan=False))) == spec
    assert all("\n" not in line and line.startswith("spec: ") for line in lines)
