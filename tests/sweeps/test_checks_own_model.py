"""Specs with a model of the user's own, the documented one: the nets they come to, and what is refused."""

import json
import re
import sys
from pathlib import Path

import pytest

from sweeps.spec import SpecError, SweepSpec, load
from trainers.config import TrialConfig

TEXT = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mixed", raising=False)
    for language, name in (("python", "mixed.py"), ("yaml", "mixed.yaml")):
        (block,) = re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
        (tmp_path / name).write_text(block)
    return tmp_path / "mixed.yaml"


def test_options_and_what_is_searched_reach_the_function(file: Path) -> None:
    spec = load(file, ["space.depth=[1, 2]", "model.width=9"])
    assert spec.warnings() == []
    config = spec.trial_config(0, {"lr": 0.1, "method": "nag", "activation": "relu", "depth": 2})
    assert (config.net.widths, config.net.loss, config.net.module) == ((64, 10), "softmax", "mixed:make")
    assert json.loads(config.net.options) == {"hidden": 24, "activation": "relu", "depth": 2, "width": 9}
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert SweepSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_of_a_sequence_task_the_steps_are_known(file: Path) -> None:
    net = load(file, ["task={name: mem-5, length: 20}"]).net({"activation": "tanh"})
    assert (net.widths, net.steps, net.every_step) == ((4, 3), 30, True)


def test_the_documented_model_is_calibrated_trained_and_exported(file: Path, tmp_path: Path) -> None:
    import torch

    from sweeps.resolve import choose
    from trainers.checkpoint import pack
    from trainers.export import write_state_dict
    from trainers.group import Group
    from trainers.tasks import load as load_task

    spec = load(file)
    chosen = choose(spec)
    assert set(chosen.engines.values()) == {"module"}
    assert len(chosen.engines) == 2
    group = Group(load_task("digits"), chosen.engines)
    for number, method in enumerate(("cm", "nag", "adam")):
        group.add(spec.trial_config(number, {"lr": 0.03, "method": method, "activation": "tanh"}))
    before = group.evaluate([0, 1, 2])
    group.advance(dict.fromkeys(range(3), 100))
    for number, found in group.evaluate([0, 1, 2]).items():
        assert found["valid_loss"] < before[number]["valid_loss"] / 2
    net = spec.net({"activation": "tanh"})
    assert "LayerNorm" in write_state_dict(pack({1: group.state(1)}), 1, net, tmp_path / "net.pt")
    assert torch.load(tmp_path / "net.pt", weights_only=True)["0.weight"].shape == (24, 64)


OWN = "a model of your own"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model.kind=nowhere:make", "model.kind=nowhere:make: no module nowhere in "),
        ("model.kind=mixd", "model.kind=mixd: unknown kind of model; allowed: autoencoder, mlp, residual, rnn"),
        ("model.widths=[5]", f"model.widths: {OWN} has nothing to do with it; allowed: model.options"),
        (
            "training.init=he",
            f"training.init=he: the weights of {OWN} are as its function makes them; allowed: model.op",
        ),
        ("space.kappa=[1, 2]", f"space.kappa: the weights of {OWN} are as its function makes them"),
        ("space.method=[nag, diagonal]", f"space.method=diagonal: the curvature of {OWN} is not known; allowed: sgd"),
        ("diagnostics=true", f"diagnostics: the layers of {OWN} are not known; allowed: null"),
        ("resources.engine=loop", f"resources.engine=loop: {OWN} has an engine of its own; allowed: auto"),
        ("model.loss=logistic", "model.loss=logistic: not for task digits; allowed: softmax, squared"),
        (
            "model={kind: mlp, options: {a: 1}}",
            "model.options: this mlp takes no options; allowed: model.kind: package",
        ),
    ],
)
def test_what_such_a_model_cannot_have_is_refused_in_one_line(file: Path, override: str, line: str) -> None:
    with pytest.raises(SpecError) as refused:
        load(file, [override])
    assert [found for found in refused.value.lines if line in found], refused.value.lines
    assert len(refused.value.lines) == 1
