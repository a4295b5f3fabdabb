"""`musweep plan` adds up."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from cluster import plan
from sweeps.resolve import Resolved
from sweeps.spec import SweepSpec, parse

SPACE = {"lr": {"type": "float", "low": 0.001, "high": 0.1, "scale": "log"}, "depth": [1, 2]}
HALVING = {"rungs": [100, 400], "factor": 4, "fork": {"updates": 30, "mu": 0.9}}


def spec(**keys: object) -> SweepSpec:
    training = {"updates": 1000, "batch": 32, "reports": 10, "eval_examples": 48}
    data = {"task": "digits", "training": training, "space": SPACE, "budget": {"trials": 64}, **keys}
    return parse(data)


def test_without_rungs_every_trial_runs_to_the_end() -> None:
    assert spec().arrivals() == [(1000, 64)]
    # 64 trials x 10 reports x 2 parts x 48 cases; an update is 32 cases, forward and backward.
    assert plan._measuring(spec()) == pytest.approx(64 * 10 * 2 * 48 / (3 * 32))


def test_measuring_counts_the_reports_of_those_that_get_there() -> None:
    halved = spec(early_stopping=HALVING)
    assert halved.arrivals() == [(100, 64), (400, 16), (1000, 4)]
    reports = 64 * 1 + 16 * 3 + 4 * 6
    assert plan._measuring(halved) == pytest.approx(reports * 2 * 48 / (3 * 32))


def test_time_is_shared_by_workers_but_never_less_than_one_trial() -> None:
    def made(workers: int) -> plan.Plan:
        resolved = Resolved(workers, 4, "cpu", {}, {}, {})
        return plan.Plan(resolved, [(1000, 64)], [], 64_000, 0, 1_000.0, 1e-3, 2e-3, 0.0)

    assert made(1).wall_s == pytest.approx(plan.START_S + 65.0)
    assert made(2).wall_s == pytest.approx(plan.START_S + 32.5)
    assert made(64).wall_s == pytest.approx(plan.START_S + 2.0)


HF = {"kind": "hf", "share": 0.25}
CONFIRM = {"top": 3, "seeds": 10}


def costs(**keys: object) -> tuple[plan.Cost, ...]:
    """The stages after the search, at 1 ms an update, 3 ms that of the slowest net."""
    return plan._later(spec(**keys), 1e-3, 3e-3)


def test_stages_add_up() -> None:
    """Of 64 trials of 1,000 updates: a quarter for HF, 3 x 10 confirmed, HF's best point as well."""
    only = {"lr": SPACE["lr"]}
    found = {cost.name: cost for cost in costs(space=only, confirm=CONFIRM, baselines=[HF])}
    assert {name: (cost.trials, cost.updates) for name, cost in found.items()} == {
        "search:hf": (16, 16_000), "confirm": (30, 30_000), "confirm:hf": (10, 10_000),
    }  # fmt: skip
    assert [cost.waits for cost in found.values()] == [False, True, False]
    # 10 reports a trial x 2 parts x 48 cases, a third of an update of 32 each
    assert found["confirm"].work_s == pytest.approx(1e-3 * (30_000 + 30 * 10 * 2 * 48 / (3 * 32)))
    assert found["search:hf"].work_s == pytest.approx(2e-3 * (16_000 + 16 * 10 * 2 * 48 / (3 * 32)))
    assert found["search:hf"].trial_s == pytest.approx(2 * 3.0)


def test_hf_waits_for_the_best_points_net() -> None:
    assert [(cost.name, cost.waits) for cost in costs(baselines=[HF])] == [("search:hf", True)]  # depth is searched
    assert costs() == ()
    assert costs(confirm=CONFIRM)[0].updates == 30_000


def test_hf_matched_by_time_takes_the_others_time() -> None:
    wall = {cost.name: cost for cost in costs(confirm=CONFIRM, baselines=[{**HF, "match": "wall"}])}
    assert wall["confirm:hf"].update_s == wall["confirm"].update_s
    assert wall["search:hf"].update_s == 2 * wall["confirm"].update_s


def test_more_points_are_measured_better() -> None:
    (cost,) = costs(confirm={**CONFIRM, "eval_examples": 480})
    assert cost.evaluations == pytest.approx(30 * 10 * 2 * 480 / (3 * 32))


def test_the_time_of_all_stages() -> None:
    """Those that train together share the workers; those that wait come on top."""
    resolved = Resolved(2, 4, "cpu", {}, {}, {})
    later = (
        plan.Cost("search:hf", 4, 4_000, 0.0, 2e-3, 2.0, False),
        plan.Cost("confirm", 10, 10_000, 0.0, 1e-3, 1.0, True),
        plan.Cost("confirm:hf", 1, 1_000, 0.0, 7e-3, 9.0, False),
    )
    made = plan.Plan(resolved, [(1000, 64)], [], 64_000, 0, 0.0, 1e-3, 1e-3, 0.0, later)
    assert made.spans_s == pytest.approx([(64 + 8) / 2, 9.0])
    assert made.wall_s == pytest.approx(plan.START_S + 36 + 9)
    assert made.work_s == pytest.approx(64 + 8 + 10 + 7)


def test_a_spec_in_one_line() -> None:
    said = plan.summary(
        spec(confirm={**CONFIRM, "each": ["depth"]}, baselines=[{"kind": "published", "table": "gb10-jacobian"}])
    )
    assert said.endswith("; the best 3 of each depth confirmed on 10 seeds; baselines gb10-jacobian")
    assert plan.summary(spec()).endswith("no early stopping")


def test_a_shape_that_was_not_measured_is_scaled_by_arithmetic() -> None:
    from trainers.calibrate import shape_key

    one, two = (spec().trial_config(0, {"depth": depth}) for depth in (1, 2))
    resolved = Resolved(1, 4, "cpu", {}, {shape_key(one.net, one.batch): 1e-4}, {})
    assert plan._seconds(one, resolved, spec()) == 1e-4
    assert plan._seconds(two, resolved, spec()) == pytest.approx(1e-4 * two.net.flops / one.net.flops)


def test_memory_grows_with_slots_and_workers() -> None:
    configs = [spec().trial_config(0, {"depth": 2})]

    def memory(workers: int, slots: int) -> float:
        return plan._memory(configs, Resolved(workers, slots, "cpu", {}, {}, {}))

    weights = configs[0].net.parameters * 4 * plan.FLOATS
    assert memory(1, 11) - memory(1, 1) > 10 * weights
    assert memory(3, 4) - memory(2, 4) == pytest.approx(memory(2, 4) - memory(1, 4))


def test_a_plan_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSWEEP_CACHE", str(tmp_path))
    halved = spec(early_stopping=HALVING, budget={"trials": 64, "wall": "1s"}, search={"algorithm": "random"})
    made = plan.make(halved)
    assert made.updates == halved.expected_updates() + 30 * (64 + 16)
    assert 0 < made.update_s <= made.slowest_s < 0.1
    out = Console(file=io.StringIO(), width=160)
    plan.show(halved, made, out)
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert "64 trials of digits by random over lr, depth" in said
    assert "t00000" in said
    assert "the budget of 1.0s ends it before" in said
    for number in ("1920", "480"):  # fork updates at each rung
        assert number in said


def test_a_plan_shows_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSWEEP_CACHE", str(tmp_path))
    told = spec(space={"lr": SPACE["lr"]}, confirm=CONFIRM, baselines=[HF], search={"algorithm": "random"})
    out = Console(file=io.StringIO(), width=160)
    plan.show(told, plan.make(told), out)
    said = out.file.getvalue()  # type: ignore[attr-defined]
    for row in (r"search +64 +64.0k", r"search:hf +16 +16.0k", r"confirm +30 +30.0k", r"confirm:hf +10 +10.0k"):
        assert re.search(row, said), (row, said)
    assert "120.0k trial-updates" in said
    assert ", then " in said
    assert "taken to last 2 times as long" in said


def test_a_trainer_of_the_users_own_has_a_plan_without_times() -> None:
    own = spec(task={"name": ""}, trainer="email.message:Message", objective="loss", early_stopping={"rungs": [100]},
               training={"updates": 1000, "reports": 10})  # fmt: skip
    made = plan.make(own)
    assert made.arrivals == [(100, 64), (1000, 22)]
    assert made.updates == 64 * 100 + 22 * 900
    assert made.resolved.group_size == 1
    out = io.StringIO()
    plan.show(own, made, Console(file=out, width=160))
    assert "not known: email.message:Message is not tried here" in out.getvalue()


def test_a_plan_for_a_gpu_where_there_is_none_is_without_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.memory.broken", lambda _: "PyTorch 2.13.0 there sees no GPU")
    asked = spec(resources={"gpu": 0.5}, early_stopping=HALVING)
    made = plan.make(asked)
    out = io.StringIO()
    plan.show(asked, made, Console(file=out, width=140))
    said = " ".join(out.getvalue().split())
    assert "up to 16 trials each, on cuda" in said
    assert "not known: PyTorch 2.13.0 here sees no GPU;" in said
    assert "a sweep measures its GPU when it starts" in said
    assert made.updates == asked.expected_updates() + asked.cost_of_forks()
