"""Nets of the user's own against the serial twin: the same net as a module of theirs trains to the same numbers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainers import cases
from trainers import models
from trainers.checkpoint import pack, unpack
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.export import write_state_dict
from trainers.group import Group, make_engine
from trainers.module import ModuleEngine, build
from trainers.serial import SerialTrial
from trainers.state import initial_state
from trainers.tasks.options import TaskError

TWIN = NetConfig((7, 11, 3), ("tanh",), "softmax")
CODE = '''
import torch
from torch import nn
from trainers import models
from trainers.config import InitConfig, NetConfig, SeedConfig
from trainers.inits import initial

def twin(inputs, outputs, width=11):
    net = NetConfig((inputs, width, outputs), ("tanh",), "softmax")
    module = models.build(net, torch.float64)
    models.set_parameters(module, initial(net, InitConfig("normalized"), SeedConfig(5)))
    return module

class Odd(nn.Module):
    """Batch statistics, dropout, a parameter that is frozen and one that nothing uses."""

    def __init__(self, inputs, outputs):
        super().__init__()
        parts = nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, outputs)
        self.body = nn.Sequential(*parts)
        self.frozen = nn.Parameter(torch.ones(outputs), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, inputs):
        return self.body(inputs) * self.frozen

class Reader(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.gru, self.out = nn.GRU(inputs, 5, batch_first=True), nn.Linear(5, outputs)

    def forward(self, inputs, steps):
        return self.out(self.gru(inputs)[0][torch.arange(len(inputs)), steps])

def wide(inputs, outputs):
    return nn.Linear(inputs, outputs + 1)

def number(inputs, outputs):
    return 3

def bare(inputs, outputs):
    return nn.ReLU()
'''


@pytest.fixture(autouse=True, scope="module")
def _code(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "own_nets.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def net(function: str, **options: object) -> NetConfig:
    return NetConfig((7, 3), (), "softmax", module=f"own_nets:{function}", options=json.dumps(options))


def config(net: NetConfig, kind: str, number: int = 0, **method: object) -> TrialConfig:
    values = {"mu_max": 0.95, "mu_step": 3, "lr_warmup": 3, "tail_updates": 4, **method}
    return TrialConfig(number, net, InitConfig("normalized"), MethodConfig(kind, 0.05, **values), 12, 8, SeedConfig(5))


@pytest.mark.parametrize("kind", ["sgd", "cm", "nag", "adam", "adamw"])
def test_it_trains_as_the_serial_twin_does(kind: str) -> None:
    data = cases.data(TWIN)
    trial = config(net("twin"), kind)
    engine = make_engine("module", trial.net, 8, data, trial.method.family)
    engine.add(trial)
    twin = SerialTrial(replace(trial, net=TWIN), data)
    for update in range(1, 13):
        engine.advance({0: update})
        twin.advance(1)
        state = engine.state(0)
        for layer, (weights, biases) in enumerate(twin.theta):
            torch.testing.assert_close(state.params[2 * layer][0].T, weights, rtol=0, atol=1e-12)
            torch.testing.assert_close(state.params[2 * layer + 1][0], biases, rtol=0, atol=1e-12)
    measured = engine.evaluate([0], data.valid)
    for name, value in twin.evaluate(data.valid).items():
        assert float(measured[name]) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("kind", ["nag", "adam"])
def test_a_resume_changes_no_bit_whatever_the_module_holds(kind: str) -> None:
    data = cases.data(TWIN, "float32")
    trials = [config(net("Odd"), kind, number, lr_warmup=4 * number) for number in range(2)]
    whole = ModuleEngine(trials[0].net, 8, data, trials[0].method.family)
    for trial in trials:
        whole.add(trial)
    whole.advance({0: 12, 1: 12})
    first = ModuleEngine(trials[0].net, 8, data, trials[0].method.family)
    first.add(trials[1])
    first.advance({1: 5})
    first.evaluate([1], data.valid)  # measuring is no training
    stored = unpack(pack({1: first.state(1)}))[1]
    torch.rand(3)
    second = ModuleEngine(trials[0].net, 8, data, trials[0].method.family)
    second.add(trials[1], stored)
    second.advance({1: 12})
    one, other = whole.state(1), second.state(1)
    assert other.update == 12
    for a, b in zip([*one.params, *one.velocity], [*other.params, *other.velocity], strict=True):
        assert torch.equal(a[0], b[0])
    assert not torch.equal(one.params[1][0], whole.state(0).params[1][0])


def test_a_sequence_task_hands_over_the_step_that_answers() -> None:
    from trainers.tasks import load

    task = load("add", {"length": 10, "examples": 40, "holdout": 20})
    known = task.info
    reader = NetConfig((2, 1), (), "squared", steps=known.steps, module="own_nets:Reader")
    group = Group(task, "module")
    group.add(replace(config(reader, "adam"), updates=120))
    before = group.evaluate([0])[0]["train_loss"]
    group.advance({0: 120})
    assert group.diverged_at(0) is None
    assert group.evaluate([0])[0]["train_loss"] < before / 2


def test_an_update_that_is_not_finite_is_a_divergence() -> None:
    data = cases.data(TWIN, "float32")
    trial = config(net("twin"), "sgd", lr_warmup=0)
    engine = ModuleEngine(trial.net, 8, data)
    engine.add(replace(trial, method=replace(trial.method, lr=1e38)))
    engine.advance({0: 12})
    assert engine.diverged_at(0) is not None
    assert all(bool(value.isnan()) for value in engine.evaluate([0], data.valid).values())


def test_the_state_dict_is_the_modules(tmp_path: Path) -> None:
    data = cases.data(TWIN, "float32")
    trial = config(net("Odd"), "cm")
    engine = ModuleEngine(trial.net, 8, data)
    engine.add(trial)
    engine.advance({0: 12})
    words = write_state_dict(pack({0: engine.state(0)}), 0, trial.net, tmp_path / "odd.pt")
    module = build(trial.net, SeedConfig(1))
    assert words == str(module)
    module.load_state_dict(torch.load(tmp_path / "odd.pt", weights_only=True))
    module.eval()
    part = data.valid
    loss = models.loss(trial.net, module(part.inputs), part.expected).detach()
    assert float(loss) == pytest.approx(float(engine.evaluate([0], part)["loss"]), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wide", {}, r"model own_nets:wide: of inputs \(2, 7\) it makes \(2, 4\), expected logits \(2, 3\)"),
        ("number", {}, "model own_nets:number: returned a int, expected a torch.nn.Module"),
        ("bare", {}, "model own_nets:bare: has no parameters to train"),
        ("twin", {"depth": 3}, r"model own_nets:twin: TypeError: twin\(\) got an unexpected keyword argument 'depth'"),
        ("absent", {}, "model own_nets:absent: module own_nets has no function absent"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(name: str, options: dict, message: str) -> None:
    engine = ModuleEngine(net(name, **options), 8, cases.data(TWIN, "float64"))
    with pytest.raises(TaskError, match=message):
        engine.add(config(net(name, **options), "cm"))


def test_engines_and_nets_must_fit() -> None:
    data = cases.data(TWIN)
    for name, wanted in (("loop", net("twin")), ("module", TWIN)):
        with pytest.raises(ValueError, match="is trained by another"):
            make_engine(name, wanted, 8, data)
    with pytest.raises(ValueError, match="method diagonal"):
        make_engine("module", net("twin"), 8, data, "diagonal")
    with pytest.raises(ValueError, match="of another module"):
        ModuleEngine(net("twin"), 8, data).add(config(net("twin"), "cm"), initial_state(config(TWIN, "cm")))
