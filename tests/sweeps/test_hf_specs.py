"""The shipped specs of HF are the papers' runs, and docs/hf.md says what the keys are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sweeps import checks_hf, published, stages
from sweeps.parameters import TUNABLE
from sweeps.schema_trial import HFTraining
from sweeps.spec import SweepSpec, load, parse
from trainers.config_hf import HFConfig

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "hf.md").read_text()


def iterations(spec: SweepSpec) -> list[int]:
    """Outer iterations of each phase of a run without line search, if CG takes all its steps.

    One costs a gradient, the squared gradients, a product more than CG has steps (it starts from the last solution),
    and the objective where it leads.
    """
    config = spec.trial_config(0, {})
    hf, net, examples = config.method.hf, config.net, checks_hf.train_examples(spec)
    assert hf is not None
    assert examples is not None
    whole, found, begin = spec.training.updates * spec.training.batch, [], 0.0
    for end in [*(phase.until for phase in hf.phases), 1.0]:
        told = hf.at(begin)
        part = examples / told.chunks
        gradient = examples if told.gradient == "full" else part
        work = gradient + part * (1 + (told.cg_max + 1) * net.product_cost + net.forward_cost)
        found.append(round((end - begin) * whole / work))
        begin = end
    return found


@pytest.mark.parametrize(
    ("name", "protocol", "expected"),
    [
        # 250,000 CG steps of 50, 100,000 of 200, 500,000 of 200 (SCIENCE 1.6); t - 4000 says where stage 2 begins
        ("s13-hf-curves", "full", [4000, 1000, 500, 2500]),
        ("s13-hf-curves", "reduced", [320, 80, 5, 10]),
        # 25,000, 225,000 and 125,000 CG steps of 50
        ("s13-hf-mnist", "full", [500, 4500, 2500]),
        ("s13-hf-mnist", "reduced", [25, 225, 125]),
    ],
)
def test_phases_are_the_papers_numbers_of_cg_steps(name: str, protocol: str, expected: list[int]) -> None:
    assert iterations(load(name, protocol=protocol)) == pytest.approx(expected, rel=2e-3)


def test_stages_of_the_papers_run_on_curves() -> None:
    config = load("s13-hf-curves", protocol="full").trial_config(0, {})
    hf = config.method.hf
    assert hf is not None
    told = [hf.at(share) for share in (0, 0.025, 0.1, 0.5)]
    assert [each.cg_decay for each in told] == [0.95, 0.999, 0.995, 0.995]
    assert [(each.chunks, each.gradient, each.cg_max) for each in told] == [(16, "chunk", 50)] * 2 + [
        (1, "full", 200)
    ] * 2
    assert [each.l2 for each in told] == [2e-5, 2e-5, 2e-5, 0]
    assert [(each.step_decay, each.step_from) for each in told] == [(0, 0), (500, 4000), (0, 0), (0, 0)]
    assert not any(each.line_search for each in told)
    assert [each.adapt for each in told] == [False, False, True, True]


def test_stages_of_the_papers_run_on_mnist() -> None:
    config = load("s13-hf-mnist", protocol="full").trial_config(0, {})
    hf = config.method.hf
    assert hf is not None
    told = [hf.at(share) for share in (0, 0.3, 0.9)]
    assert [(each.cg_decay, each.gradient, each.step_decay) for each in told] == [
        (0.95, "chunk", 0), (0.995, "chunk", 250), (0.995, "full", 0),
    ]  # fmt: skip
    assert {(each.chunks, each.cg_max, each.l2) for each in told} == {(20, 50, 1e-5)}


def test_the_race_is_fair_and_long_enough() -> None:
    """Each method has its search and as many seeds, and everybody's work is well past where HF crosses SGD."""
    spec = load("s13-hf-race", protocol="reduced")
    planned = {stage.name: stage for stage in stages.of(spec)}
    assert list(planned) == ["search", "search:hf", "confirm", "confirm:hf"]
    assert planned["confirm"].trials == 3 * planned["confirm:hf"].trials == 3 * 8
    assert spec.training.updates * spec.training.batch / (spec.task.examples or 1) >= 2500
    assert {stage.spec.training.updates for stage in planned.values()} == {spec.training.updates}
    assert planned["search"].trials == len(spec.space.grid()) == 5 + 2 * 3 * 5
    assert spec.net({}).widths == (196, 100, 50, 25, 6, 25, 50, 100, 196)  # SCIENCE 11
    assert planned["search:hf"].spec.training.hf.l2 == 0
    full = load("s13-hf-race")
    assert full.net({}) == load("s13-table1-curves").net({})
    assert full.space == load("s13-table1-curves").space
    assert len(full.space.grid()) == full.budget.trials == 6 + 2 * 4 * 6


def test_the_documented_keys_are_all_there_with_their_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", DOCS, flags=re.MULTILINE))
    assert set(rows) == set(HFTraining.model_fields)
    config = HFConfig()
    for key, told in rows.items():
        value = getattr(config, key)
        shown = {True: "true", False: "false", (): "none"}.get(value) if isinstance(value, bool | tuple) else value
        assert told.strip() == str(shown) or float(told) == value, key
    searched = set(re.findall(r"^\| `\w+` .* \| `(hf_\w+)` \|", DOCS, flags=re.MULTILINE))
    assert searched == {name for name in TUNABLE if name.startswith("hf_")}


def test_the_documented_costs_are_the_nets() -> None:
    """A product is 1 to 1.35 gradients, a forward pass about 1/3 to 1/2."""
    for name in ("digits", "curves", "mnist-ae", "mnist", "cifar10", "faces", "add", "mem-5"):
        net = parse({"task": name}).net({})
        assert 1 <= net.product_cost <= 1.35, name
        assert 1 / 3 <= net.forward_cost <= 1 / 2, name


@pytest.mark.parametrize("name", ["hf", "specs"])
def test_what_is_shown_of_specs_is_sound(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text()
    base = {"task": "curves", "space": {"lr": [0.1, 0.2, 0.3]}, "budget": {"trials": 12}}
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]
    about = [block for block in blocks if {"confirm", "baselines"} & set(block) or "hf" in block.get("training", {})]
    assert about
    for block in about:
        assert parse({**base, **block}, name)


def test_documents_name_every_published_table() -> None:
    text = (ROOT / "docs" / "specs.md").read_text()
    assert set(re.findall(r"`((?:s13|gb10|martens10|hs06)-[\w.-]+)`", text)) == set(published.names())
