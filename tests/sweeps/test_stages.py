"""Which stages a sweep has, what their trials are trained by, and which points are confirmed."""

from typing import Any

import pytest

from sweeps import stages
from sweeps.history import History, Trial
from sweeps.spec import SpecError, SweepSpec, parse

SPEC: dict[str, Any] = {
    "task": "digits",
    "training": {"updates": 100, "reports": 10, "batch": 20, "keep": [50], "hf": {"chunks": 2, "cg_max": 30}},
    "space": {
        "lr": {"type": "float", "low": 0.01, "high": 1.0},
        "method": ["cm", "nag"],
        "mu_max": [0.9, 0.99],
    },
    "search": {"algorithm": "random", "seed": 5, "seeds": 2},
    "budget": {"trials": 24},
    "early_stopping": {"rungs": [40]},
    "confirm": {"top": 2, "seeds": 7, "eval_examples": 300},
    "baselines": [{"kind": "hf"}, {"kind": "hf", "name": "plain", "share": 0.1, "match": "wall"}],
    "objective": "valid_loss",
}


def spec_with(**changes: Any) -> SweepSpec:
    return parse({**SPEC, **changes})


def trial(number: int, objective: float | None, state: str = "complete", **said: Any) -> Trial:
    """A trial as a journal might tell it; its point is told by `point`."""
    told = {"stage": "search", "point": f"p{number}", "replicate": 0, "wall_s": 1.0, "net": 1, "updates": 100, **said}
    config = {"net": told["net"], "batch": 20, "updates": told.get("length", 100)}
    return Trial(
        number, told.get("params", {}), config, told["stage"], told["point"], told["replicate"], 0, 0.0,
        state=state, objective=objective, updates=told["updates"], wall_s=told["wall_s"],
    )  # fmt: skip


def told(*trials: Trial) -> History:
    return History(trials={each.number: each for each in trials})


def test_the_stages_of_a_sweep_and_their_trials() -> None:
    found = [(stage.name, stage.trials, stage.confirms, stage.taken) for stage in stages.of(spec_with())]
    assert found == [
        ("search", 24, False, ()),
        ("search:hf", 6, False, ()),
        ("search:plain", 2, False, ()),
        ("confirm", 14, True, ()),
        ("confirm:hf", 7, True, ()),
        ("confirm:plain", 7, True, ()),
    ]
    assert stages.at_once(spec_with()) == 32
    assert [stage.name for stage in stages.of(spec_with(confirm=None, baselines=[]))] == ["search"]
    each = spec_with(confirm={"top": 1, "seeds": 6, "each": ["method", "mu_max"]}, baselines=[])
    assert stages.by_name(each)["confirm"].trials == 4 * 6
    mu = {"type": "choice", "values": [0.9, 0.99], "when": {"method": ["nag"]}}
    other = each.model_copy(update={"space": parse({**SPEC, "space": {**SPEC["space"], "mu_max": mu}}).space})
    assert stages.by_name(other)["confirm"].trials == 3 * 6  # cm, and nag with either momentum


def test_what_hf_is_trained_by_is_the_sweeps_own_but_for_method_and_space() -> None:
    spec = spec_with(baselines=[{"kind": "hf", "training": {"hf": {"cg_max": 50}, "init_scale": 0.5}}])
    hf = stages.by_name(spec)["search:hf"].spec
    assert list(hf.space) == ["hf_damping", "hf_cg_max", "hf_cg_decay", "init_scale"]
    assert hf.search.algorithm == "tpe"
    assert (hf.search.seed, hf.search.seeds, hf.budget.trials) == (5, 2, 6)
    assert hf.early_stopping is None
    assert (hf.training.method, hf.training.keep, hf.training.init_scale) == ("hf", [], 0.5)
    assert (hf.training.hf.cg_max, hf.training.hf.chunks) == (50, 2)  # merged, not replaced
    assert (hf.report_updates(), hf.training.batch) == (spec.report_updates(), 20)
    config = hf.config(3, {"hf_damping": 7.0, "hf_cg_max": 99, "hf_cg_decay": 0.9, "init_scale": 1.5})
    assert config["method"]["kind"] == "hf"
    assert (config["method"]["hf"]["damping"], config["method"]["hf"]["chunks"]) == (7.0, 2)
    assert config["net"] == spec.config(0, {"lr": 0.1, "method": "nag", "mu_max": 0.9})["net"]


def test_confirmed_trials_end_by_nothing_but_divergence_and_are_measured_on_more() -> None:
    spec = spec_with(target={"metric": "valid_error", "below": 0.1}, early_stopping=None, diagnostics=True)
    found = stages.by_name(spec)
    for name in ("confirm", "confirm:hf"):
        assert found[name].spec.rungs() == []
        assert found[name].spec.early_stopping is None
        assert found[name].spec.training.eval_examples == 300
        assert found[name].spec.diagnostics == spec.diagnostics
        assert found[name].spec.target == spec.target
    assert found["search"].spec is spec
    assert found["search:hf"].spec.training.eval_examples == 500
    assert stages.by_name(spec_with())["confirm"].spec.rungs() == []


def test_a_recurrent_net_searches_structural_damping_and_a_net_of_the_users_own_no_init_scale() -> None:
    rnn = {"task": {"name": "add", "length": 30}, "training": {"updates": 100, "batch": 20}, "objective": "valid_loss"}
    hf = stages.of(parse({**rnn, "baselines": [{"kind": "hf"}]}))[1].spec
    assert "hf_structural" in hf.space
    assert "init_scale" in hf.space


def test_nets_are_those_of_the_best_point() -> None:
    space = {**SPEC["space"], "depth": [1, 2, 3], "width": {"type": "int", "low": 4, "high": 9}, "batch": [10, 20]}
    stage = stages.by_name(spec_with(space=space))["search:hf"]
    assert stage.taken == ("depth", "width", "batch")
    spec = stages.on_net_of(stage, {"lr": 0.1, "depth": 3, "width": 5, "batch": 10})
    assert spec.space.searched == ("hf_damping", "hf_cg_max", "hf_cg_decay", "init_scale")
    params = spec.space.from_unit(dict.fromkeys(spec.space.searched, 0.5))
    assert (params["depth"], params["width"], params["batch"]) == (3, 5, 10)
    config = stage.spec.config(0, params)
    assert config["net"]["widths"] == [64, 5, 5, 5, 10] or config["net"]["widths"] == (64, 5, 5, 5, 10)
    assert config["batch"] == 10


@pytest.mark.parametrize(
    ("baseline", "line"),
    [
        ({"space": {"hf_damping": {"type": "float", "low": -1, "high": 2}}}, "space.hf_damping.low=-1"),
        ({"space": {"hf_dampin": 3.0}}, "space.hf_dampin"),
        ({"space": {"depth": [1, 2]}}, "space.depth"),
        ({"training": {"updates": 50}}, "training.updates=50"),
        ({"training": {"hf": {"chunk": 2}}}, "training.hf.chunk=2"),
        ({"training": {"method": "nag"}}, "training.method=nag"),
    ],
)
def test_a_baseline_that_makes_no_sound_spec(baseline: dict[str, Any], line: str) -> None:
    alone = spec_with().model_copy(update={"baselines": []})
    from sweeps.faults import problems_in
    from sweeps.schema_baselines import HFBaseline

    spec = alone.model_copy(update={"baselines": [HFBaseline(kind="hf", **baseline)]})
    with pytest.raises(ValueError) as found:  # noqa: PT011 - what it is, is asked next
        stages.of(spec)
    assert next(str(problem) for problem in problems_in(found.value)).startswith(line)
    with pytest.raises(SpecError, match=r"baselines\.0\.|hf"):
        spec_with(baselines=[{"kind": "hf", **baseline}])


def test_the_best_points_are_distinct_and_ranked_by_the_mean_of_their_replicates() -> None:
    trials = [
        trial(0, 3.0, point="a"), trial(1, 1.0, point="a"),  # mean 2
        trial(2, 1.5, point="b"), trial(3, None, "stopped", point="b"),
        trial(4, 0.1, point="c"), trial(5, None, "diverged", point="c"),  # lucky once
        trial(6, 2.0, point="d"), trial(7, 0.0, "stopped", point="e"),
    ]  # fmt: skip
    spec = spec_with()
    assert [(p.point_id, p.objective, p.trials) for p in stages.best_points(spec, trials, 9)] == [
        ("b", 1.5, (2,)), ("a", 2.0, (0, 1)), ("d", 2.0, (6,)), ("c", 0.1, (4,)),
    ]  # fmt: skip
    largest = spec.model_copy(update={"mode": "max"})
    assert [p.point_id for p in stages.best_points(largest, trials, 2)] == ["a", "d"]


def test_the_best_of_each_combination() -> None:
    methods = [("cm", 0.9), ("nag", 0.9), ("nag", 0.99), ("sgd", None), ("nag", 0.9), ("cm", 0.9)]
    trials = [
        trial(n, float(10 - n), params={"method": method, **({"mu_max": mu} if mu else {})})
        for n, (method, mu) in enumerate(methods)
    ]
    found = stages.best_points(spec_with(), trials, 1, ["method", "mu_max"])
    assert [point.trials[0] for point in found] == [5, 4, 3, 2]


def test_hf_gets_as_many_seconds_as_the_best_points_net_took() -> None:
    """The best point's net took 2 s per 100 updates; of HF's trials on it 4, 5 and 9: 40 of 100 updates."""
    spec = spec_with()
    searched = [trial(0, 1.0, wall_s=2.0), trial(1, 5.0, "stopped", wall_s=0.6, updates=40, net=2)]
    theirs = [trial(2 + n, 3.0, wall_s=s, stage="search:plain") for n, s in enumerate((5.0, 4.0, 9.0))]
    same = [trial(5, 2.0, stage="search:hf")]
    history = told(*searched, *theirs, *same)
    found = stages.chosen(spec, stages.by_name(spec), history)
    assert [(arm.stage, arm.point.trials[0], arm.updates) for arm in found] == [
        ("confirm", 0, 100), ("confirm:hf", 5, 100), ("confirm:plain", 2, 40),
    ]  # fmt: skip
    # Once begun an arm keeps its length, whatever is measured later.
    history.trials[6] = trial(6, None, "running", stage="confirm:plain", point="p2", length=37)
    assert stages.chosen(spec, stages.by_name(spec), history)[-1].updates == 37


def test_what_is_missing_is_said() -> None:
    spec = spec_with()
    arms = stages.chosen(spec, stages.by_name(spec), told(trial(0, None, "diverged"), trial(1, 2.0, stage="search:hf")))
    assert [arm.stage for arm in arms] == ["confirm:hf"]
    assert stages.missing(spec, arms) == (
        "nothing to confirm of search: no trial of it is complete; "
        "nothing to confirm of search:plain: no trial of it is complete"
    )
    assert stages.missing(spec_with(confirm=None, baselines=[]), []) == ""


def test_a_trial_with_updates_of_its_own_reports_as_often() -> None:
    confirm = stages.by_name(spec_with())["confirm"].spec
    assert stages.trained(confirm, 37).report_updates() == [4, 8, 12, 16, 20, 24, 28, 32, 36, 37]
    assert stages.trained(confirm, 100) is confirm
