"""Mistakes in confirm, baselines, compare and training.hf: each is answered with one line; and what is warned of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sweeps import checks_hf, published
from sweeps.parameters import TUNABLE
from sweeps.schema_baselines import HFBaseline
from sweeps.schema_trial import HFTraining, HFTrainingPhase
from sweeps.spec import SpecError, SweepSpec, load, parse
from trainers.config import INITS
from trainers.config_hf import HFConfig, HFPhase

LR = {"type": "float", "low": 1e-3, "high": 0.1, "scale": "log"}
CG = {"type": "int", "low": 10, "high": 30}
GOOD: dict[str, Any] = {
    "task": "curves",
    "space": {"lr": LR, "method": ["cm", "nag"], "fan_in": [10, 15]},
    "budget": {"trials": 20},
    "confirm": {"top": 3, "seeds": 10},
}
PUBLISHED = ", ".join(published.names())
HF_KEYS = ", ".join(HFTraining.model_fields)
METRICS = "train_loss, train_squared_error, valid_loss, valid_squared_error"
STRUCTURAL = "structural damping weighs the hidden states of recurrent nets (Martens, Sutskever 2011)"

# (what is said beside GOOD, the line that it is answered with)
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "more confirmed than searched": (
        {"confirm": {"top": 21}},
        "confirm.top=21: the best 21 are more than the 20 points that the search tries; allowed: 1 to 20",
    ),
    "more confirmed than searched, replicates": (
        {"confirm": {"top": 11}, "search": {"seeds": 2}},
        "confirm.top=11: the best 11 are more than the 10 points that the search tries; allowed: 1 to 10",
    ),
    "more of each than searched": (
        {"confirm": {"top": 6, "each": ["method", "fan_in"]}},
        "confirm.top=6: the best 6 of 4 combinations of method, fan_in are more than the 20 points that the search "
        "tries; allowed: 1 to 5",
    ),
    "no seeds": ({"confirm": {"seeds": 0}}, "confirm.seeds=0: out of range; allowed: a number, 1 or more"),
    "each of what is not searched": (
        {"confirm": {"each": ["metod"]}},
        "confirm.each.0=metod: is not searched; allowed: method, fan_in; did you mean method?",
    ),
    "each of a range": (
        {"confirm": {"each": ["method", "lr"]}},
        "confirm.each.1=lr: a range of numbers: no two points are alike in it; allowed: method, fan_in",
    ),
    "each twice": (
        {"confirm": {"each": ["method", "method"]}},
        "confirm.each.1=method: given twice; allowed: each name once",
    ),
    "confirmed from a stored state": (
        {"start": {"sweep": "x", "trial": 0, "at": 5}},
        "confirm: trials that start from a stored state have no fresh seeds; allowed: null",
    ),
    "unknown key of confirm": (
        {"confirm": {"sedes": 3}},
        "confirm.sedes=3: unknown key; allowed: top, seeds, each, eval_examples; did you mean seeds?",
    ),
    "baseline without a kind": (
        {"baselines": [{"share": 0.5}]},
        "baselines.0.kind: a baseline needs a kind; allowed: hf, published, sweep",
    ),
    "unknown kind of baseline": (
        {"baselines": [{"kind": "publishd", "table": "s13-table1"}]},
        "baselines.0.kind=publishd: unknown kind of baseline; allowed: hf, published, sweep; did you mean published?",
    ),
    "a name where a baseline belongs": (
        {"baselines": ["hf"]},
        "baselines.0=hf: not a section; allowed: keys with values, as in {kind: hf}",
    ),
    "unknown key of a baseline": (
        {"baselines": [{"kind": "hf", "shar": 0.5}]},
        f"baselines.0.shar=0.5: unknown key; allowed: {', '.join(HFBaseline.model_fields)}; did you mean share?",
    ),
    "missing key of a baseline": ({"baselines": [{"kind": "published"}]}, "baselines.0.table: missing"),
    "all and more for hf": (
        {"baselines": [{"kind": "hf", "share": 1.5}]},
        "baselines.0.share=1.5: out of range; allowed: a number, 1 or less",
    ),
    "unknown match": (
        {"baselines": [{"kind": "hf", "match": "time"}]},
        "baselines.0.match=time: not one of the choices; allowed: work, wall; did you mean wall?",
    ),
    "one name for two": (
        {"baselines": [{"kind": "hf"}, {"kind": "published", "table": "s13-table1"}, {"kind": "hf"}]},
        "baselines.2.name=hf: given twice; allowed: each name once",
    ),
    "unknown table": (
        {"baselines": [{"kind": "published", "table": "s13-tabel1"}]},
        f"baselines.0.table=s13-tabel1: no such published table; allowed: {PUBLISHED}; did you mean s13-table1?",
    ),
    "table of other tasks": (
        {"baselines": [{"kind": "published", "table": "gb10-table1"}]},
        "baselines.0.table=gb10-table1: has no row of task curves, but of shapeset, mnist, cifar10, small-imagenet; "
        "allowed: s13-table1, s13-table2, s13-table3, s13-a6, martens10-table2, hs06-autoencoders",
    ),
    "unknown parameter of hf": (
        {"baselines": [{"kind": "hf", "space": {"hf_dampning": [1, 2]}}]},
        f"baselines.0.space.hf_dampning: unknown parameter; allowed: {', '.join(TUNABLE)}; "
        "did you mean hf_damping?",
    ),
    "a range of hf the wrong way": (
        {"baselines": [{"kind": "published", "table": "s13-a6"},
                       {"kind": "hf", "space": {"hf_cg_max": {**CG, "low": 50}}}]},
        "baselines.1.space.hf_cg_max.low=50: empty range: not below high=30",
    ),
    "a decay of hf above 1": (
        {"baselines": [{"kind": "hf", "space": {"hf_cg_decay": [0.9, 1.1]}}]},
        "baselines.0.space.hf_cg_decay=1.1: out of range; allowed: a number from 0, at most 1",
    ),
    "a net of hf's own": (
        {"baselines": [{"kind": "hf", "space": {"depth": [1, 3]}}]},
        "baselines.0.space.depth: HF trains the nets of the best point; allowed: hf_*, init and what belongs to it",
    ),
    "updates of hf's own": (
        {"baselines": [{"kind": "hf", "training": {"updates": 500}}]},
        "baselines.0.training.updates=500: HF gets the work of the sweep's own trials; for as many seconds: "
        "match: wall; allowed: leave it out",
    ),
    "unknown key of training for hf": (
        {"baselines": [{"kind": "hf", "training": {"hf": {"dampin": 3}}}]},
        f"baselines.0.training.hf.dampin=3: unknown key; allowed: {HF_KEYS}; did you mean damping?",
    ),
    "init of an rnn for hf": (
        {"baselines": [{"kind": "hf", "training": {"init": "echo"}}]},
        "baselines.0.training.init=echo: this autoencoder cannot have it; allowed: "
        + ", ".join(name for name in INITS if name != "echo"),
    ),
    "against nothing": (
        {"compare": {"against": "hf"}},
        "compare.against=hf: no such baseline; allowed: null: baselines has none that is measured",
    ),
    "against what is not there": (
        {"baselines": [{"kind": "hf", "name": "newton"}], "compare": {"against": "hf"}},
        "compare.against=hf: no such baseline; allowed: newton",
    ),
    "against what is printed": (
        {"baselines": [{"kind": "hf"}, {"kind": "published", "table": "s13-table1"}],
         "compare": {"against": "s13-table1"}},
        "compare.against=s13-table1: a published table is shown beside, not tested against; allowed: hf",
    ),
    "comparing what is not reported": (
        {"compare": {"metric": "squared_error"}},
        f"compare.metric=squared_error: task curves does not report it; allowed: {METRICS}; "
        "did you mean valid_squared_error?",
    ),
    "comparing by the test part": (
        {"compare": {"metric": "test_loss"}},
        f"compare.metric=test_loss: task curves does not report it; allowed: {METRICS}; did you mean train_loss?",
    ),
    "a margin of all": ({"compare": {"margin": 1}}, "compare.margin=1: out of range; allowed: a number below 1"),
    "unknown key of hf": (
        {"training": {"method": "hf", "hf": {"cg_steps": 5}}},
        f"training.hf.cg_steps=5: unknown key; allowed: {HF_KEYS}; did you mean step?",
    ),
    "phases out of order": (
        {"training": {"hf": {"phases": [{"until": 0.5}, {"until": 0.4}]}}},
        "training.hf.phases.1.until=0.4: does not come after the phase before it, which ends at 0.5; "
        "allowed: above 0.5, at most 1",
    ),
    "a phase after the end": (
        {"training": {"hf": {"phases": [{"until": 1.5}]}}},
        "training.hf.phases.0.until=1.5: out of range; allowed: a number, 1 or less",
    ),
    "unknown gradient": (
        {"training": {"hf": {"gradient": "ful"}}},
        "training.hf.gradient=ful: unknown hf gradient; allowed: full, chunk; did you mean full?",
    ),
    "structural damping of images": (
        {"training": {"hf": {"structural": 0.1}}}, f"training.hf.structural=0.1: {STRUCTURAL}; allowed: 0",
    ),
    "structural damping searched": (
        {"space": {"lr": LR, "hf_structural": [0.1, 0.2]}},
        f"space.hf_structural: {STRUCTURAL}; allowed: a space without it",
    ),
}  # fmt: skip


def lines_of(data: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(data)
    return [line.removeprefix("spec: ") for line in caught.value.lines]


@pytest.mark.parametrize(("said", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_has_its_line(said: dict[str, Any], line: str) -> None:
    assert lines_of({**GOOD, **said}) == [line]


OWN = {"trainer": "email.message:Message", "objective": "loss", "space": {"x": [1, 2]}, "confirm": {"top": 1}}


def test_beside_a_trainer_of_ones_own_there_is_no_hf() -> None:
    assert lines_of({**OWN, "baselines": [{"kind": "hf"}]}) == [
        "baselines.0: hf trains nets of musweep's; a trainer of your own has a net that only it knows; allowed: no "
        "trainer (task and model may be yours), or baselines published, sweep"
    ]
    assert lines_of({**OWN, "confirm": {"top": 1, "eval_examples": 5}}) == [
        "confirm.eval_examples=5: a trainer of your own measures as it likes; allowed: null"
    ]
    assert parse({**OWN, "compare": {"metric": "whatever"}}).compare.metric == "whatever"


def test_a_sweep_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "curves-1").mkdir(parents=True)
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**GOOD, "baselines": [{"kind": "sweep", "id": "curves-11"}]}))
    (tmp_path / "runs" / "curves-1" / "spec.json").write_text("{}")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert caught.value.lines == [
        f"{path}: baselines.0.id=curves-11: no sweep there or in runs; allowed: a sweep's folder, or its name in "
        "storage; did you mean curves-1?"
    ]
    for name in ("curves-1", "runs/curves-1", str(tmp_path / "runs" / "curves-1")):
        spec = load(path, [f"baselines.0.id={name}", "compare.against=curves-1"])
        assert spec.compare.against == "curves-1"  # whatever the way to it
    stored = tmp_path / "spec.json"  # a sweep's own spec is read back wherever its baseline has gone
    gone = parse({**GOOD, "baselines": [{"kind": "sweep", "id": "gone"}]})
    stored.write_text(json.dumps(gone.model_dump(mode="json")))
    assert load(stored).baselines[0].kind == "sweep"


BIG = {"training": {"updates": 40_000, "batch": 200}}
ENOUGH = {**GOOD, "budget": {"trials": 48}}
"""Enough trials for a baseline's search as well."""
WARNINGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "enough": ({**BIG, "baselines": [{"kind": "hf"}]}, []),
    "few seeds": (
        {"confirm": {"seeds": 5}}, ["confirm.seeds: 5 of each arm allow no verdict; 6 do, 10 are better"],
    ),
    "nothing confirmed": (
        {**BIG, "confirm": None, "baselines": [{"kind": "hf"}, {"kind": "published", "table": "s13-table1"}]},
        ["baselines: nothing is confirmed, so nothing is held against hf; add confirm: {top: 3, seeds: 10}"],
    ),
    "only shown": ({"confirm": None, "baselines": [{"kind": "published", "table": "s13-table1"}]}, []),
    "hf's own lr": (
        {**BIG, "baselines": [{"kind": "hf", "space": {"lr": LR, "hf_cg_max": CG}}]},
        ["baselines.0.space.lr has no effect: no trial has method sgd or cm or nag or adam or adamw or diagonal"],
    ),
    "keys of hf without hf": (
        {"training": {"hf": {"damping": 1.0}}},
        ["training.hf has no effect: no trial has method hf, and no baseline is hf"],
    ),
    "keys of hf for a baseline": (
        {"training": {**BIG["training"], "hf": {"damping": 1}}, "baselines": [{"kind": "hf"}]}, [],
    ),
    "searched for hf without hf": (
        {"space": {"lr": LR, "hf_damping": [1, 10]}}, ["space.hf_damping has no effect: no trial has method hf"],
    ),
    "hf hardly searched": (
        {**BIG, "baselines": [{"kind": "hf", "share": 0.2}]},
        ["baselines.0.share: its search is of 10 points for 4 parameters, so a tuned method would be held against one "
         "that is less so; raise share or budget.trials"],
    ),
    "hf on parts of the data": (
        {"training": {**BIG["training"], "method": "hf", "hf": {"adapt": False, "phases": [
            {"until": 0.3, "gradient": "chunk"}, {"until": 0.5, "adapt": True, "gradient": "chunk"},
            {"until": 1, "adapt": True}]}}, "space": {"hf_damping": [1, 10]}},
        ["training.hf.phases.1: with gradient: chunk the damping is judged on the examples that the step was made for, "
         "falls to nothing, and the run is lost; set adapt: false and search hf_damping"],
    ),
    "hf beside nag": (
        {**BIG, "space": {"lr": LR, "method": ["nag", "hf"], "hf_cg_max": CG}},
        ["space.lr matters for method nag only; add when: {method: nag} to it",
         "space.hf_cg_max matters for method hf only; add when: {method: hf} to it"],
    ),
    "hf beside nag, each with its own": (
        {**BIG, "space": {"lr": {**LR, "when": {"method": "nag"}}, "method": ["nag", "hf"],
                          "hf_cg_max": {**CG, "when": {"method": "hf"}}}}, [],
    ),
    "hf in forks": (
        {"training": {**BIG["training"], "method": "hf"}, "space": {"hf_damping": [1, 10]}, "early_stopping": {}},
        ["early_stopping.fork: hf has no momentum to lower, so its trials just go on for 50 updates; set fork: null, "
         "or leave hf to baselines"],
    ),
    "a step that line search finds": (
        {"training": {**BIG["training"], "method": "hf", "hf": {"step": 0.5, "phases": [
            {"until": 0.3, "line_search": False, "step_decay": 3}, {"until": 0.6, "step_decay": 3}]}},
         "space": {"hf_damping": [1, 10]}},
        ["training.hf.step has no effect: line_search finds the step; set line_search: false",
         "training.hf.phases.1.step_decay has no effect: line_search finds the step; set line_search: false"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("said", "lines"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_leads_nowhere_is_said(said: dict[str, Any], lines: list[str]) -> None:
    assert parse({**ENOUGH, **said}).warnings() == lines


def test_a_budget_too_small_for_hf_is_said_with_the_numbers() -> None:
    # 200 updates of 100 against, for 20 products: 2,000 + 20 x 500 x product_cost, here of one hidden layer of 6
    training = {"updates": 200, "method": "hf", "hf": {"cg_max": 20}}
    spec = parse({"task": {"name": "curves", "examples": 2000}, "model": {"depth": 1}, "training": training,
                  "budget": {"trials": 1}})  # fmt: skip
    cost = 6 / 5  # 784-6-784, in units of 784 x 6: gradient 2 + 3, inputs needing none; product 2 + 4
    net = spec.net({})
    assert net.product_cost == pytest.approx(cost)
    assert checks_hf.iteration(spec, net) == pytest.approx((2000, 20, 500, 2000 + 20 * 500 * cost))
    assert spec.warnings() == [
        "training.updates: 200 updates of 100 are the work of 1.4 outer iterations of hf (a gradient of 2000 examples, "
        "up to 20 products on 500, each 1.2 gradients), and it needs 5; train 700 updates, or lower hf.cg_max"
    ]
    updates = {**spec.model_dump(mode="json"), "training": {**spec.training.model_dump(mode="json"), "updates": 700}}
    assert SweepSpec.model_validate(updates).warnings() == []
    hf = {"gradient": "chunk", "adapt": False, "chunks": 20, "cg_max": 20}
    chunk = {**updates, "training": {**updates["training"], "updates": 200, "hf": hf}}
    assert SweepSpec.model_validate(chunk).warnings() == []


def test_a_baseline_without_work_for_hf_is_said() -> None:
    (line,) = parse({**ENOUGH, "baselines": [{"kind": "hf"}]}).warnings()
    assert line.startswith("baselines.0.training.updates: 2000 updates of 100 are the work of ")


def test_training_sets_are_as_large_as_is_said() -> None:
    def examples(task: dict[str, Any] | str) -> int | None:
        return checks_hf.train_examples(parse({"task": task}))

    assert examples("curves") == 20_000  # S13 Table 6
    assert examples({"name": "mnist-ae", "holdout": 0}) == 60_000
    assert examples("mnist-ae") == 55_000
    assert examples({"name": "mnist", "holdout": 0, "examples": 1000}) == 1000
    assert examples({"name": "curves", "examples": 50_000}) == 20_000
    assert examples("add") is None
    assert examples({"name": "add", "examples": 77}) == 77


def test_digits_has_so_many_examples() -> None:
    from trainers.tasks import load as load_task

    assert len(load_task("digits").train) == checks_hf.TRAIN["digits"]


def test_what_hf_is_told_reaches_its_config() -> None:
    """Every key of training.hf and of its phases is one of the config, with its default; the space goes before."""
    assert set(HFTraining.model_fields) == set(HFConfig.__dataclass_fields__)
    assert set(HFTrainingPhase.model_fields) == set(HFPhase.__dataclass_fields__)
    assert HFTraining().model_dump() == {**asdict(HFConfig()), "phases": []}
    told = {"damping": 3, "cg_max": 7, "phases": [{"until": 0.5, "l2": 0}]}
    spec = parse({**GOOD, "training": {"method": "hf", "hf": told},
                  "space": {"hf_cg_max": [9, 11], "init_scale": [1, 2]}})  # fmt: skip
    hf = spec.trial_config(0, {"hf_cg_max": 9}).method.hf
    assert hf == HFConfig(damping=3.0, cg_max=9, phases=(HFPhase(until=0.5, l2=0.0),))


def test_baselines_are_read_back_as_they_were() -> None:
    said = {"baselines": [{"kind": "hf", "space": {"hf_cg_max": CG}}, {"kind": "published", "table": "s13-table1"}],
            "compare": {"against": "hf", "metric": "train_squared_error"}}  # fmt: skip
    spec = parse({**GOOD, **BIG, **said})
    again = SweepSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"))))
    assert again == spec
