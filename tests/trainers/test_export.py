"""An exported model is an ordinary state_dict of the very weights that were trained."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainers.checkpoint import DamagedStateError, pack
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.export import write_own_state, write_state_dict
from trainers.models import build, get_parameters
from trainers.own import OwnState
from trainers.state import TrialState, initial_state

NET = NetConfig((5, 7, 3, 2), ("tanh", "relu"), "softmax")


def state(net: NetConfig = NET) -> TrialState:
    config = TrialConfig(4, net, InitConfig("normalized"), MethodConfig("cm", 0.1, 0.9), 10, 4, SeedConfig(1))
    return initial_state(config)


def test_it_loads_into_plain_modules_and_computes_the_same(tmp_path: Path) -> None:
    trained = state()
    modules = write_state_dict(pack({4: trained}), 4, NET, tmp_path / "t.pt")
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.ReLU(), nn.Linear(3, 2))
    assert modules == str(net)
    net.load_state_dict(torch.load(tmp_path / "t.pt", weights_only=True))
    x_BI = torch.linspace(-1, 1, 20).reshape(4, 5)
    (w0, b0), (w1, b1), (w2, b2) = trained.params
    by_hand = torch.relu(torch.tanh(x_BI @ w0 + b0) @ w1 + b1) @ w2 + b2
    torch.testing.assert_close(net(x_BI), by_hand)


def test_a_recurrent_net_s_file_holds_what_torch_s_own_needs(tmp_path: Path) -> None:
    net = NetConfig((3, 6, 2), ("tanh",), "softmax", steps=5, every_step=True)
    modules = write_state_dict(pack({4: state(net)}), 4, net, tmp_path / "t.pt")
    assert "every_step=True" in modules
    stored = torch.load(tmp_path / "t.pt", weights_only=True)
    twin = nn.RNN(3, 6, batch_first=True)
    weights, biases = stored["cell.weight"], stored["cell.bias"]
    with torch.no_grad():
        for to, value in zip(twin.parameters(), (weights[:, :3], weights[:, 3:], biases, 0 * biases), strict=True):
            to.copy_(value)
    module = build(net)
    module.load_state_dict(stored)
    x = torch.linspace(-1, 1, 60).reshape(4, 5, 3)
    expected = twin(x)[0] @ stored["output.weight"].T + stored["output.bias"]
    torch.testing.assert_close(module(x), expected)


def test_a_residual_net_s_file_loads(tmp_path: Path) -> None:
    net = NetConfig((3, 4, 4, 2), ("tanh", "relu"), "softmax", eta=(0.25,))
    trained = state(net)
    assert "eta=(0.25,)" in write_state_dict(pack({4: trained}), 4, net, tmp_path / "t.pt")
    module = build(net)
    module.load_state_dict(torch.load(tmp_path / "t.pt", weights_only=True))
    for (w, b), (same_w, same_b) in zip(trained.params, get_parameters(module), strict=True):
        assert torch.equal(w, same_w)
        assert torch.equal(b, same_b)


def test_a_damaged_file_leaves_nothing_behind(tmp_path: Path) -> None:
    packed = pack({4: state()})
    for damaged, number in ((packed[:-40], 4), (packed, 5)):
        with pytest.raises(DamagedStateError):
            write_state_dict(damaged, number, NET, tmp_path / "t.pt")
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_the_users_own_trainer_is_written_as_it_was_given(tmp_path: Path) -> None:
    packed = pack({4: OwnState.of(9, {"net": {"w": torch.arange(3.0)}, "best": 0.5})})
    write_own_state(packed, 4, tmp_path / "own.pt")
    found = torch.load(tmp_path / "own.pt", weights_only=True)
    assert found["best"] == 0.5
    assert found["net"]["w"].tolist() == [0, 1, 2]
    with pytest.raises(DamagedStateError, match="no trial 5"):
        write_own_state(packed, 5, tmp_path / "other.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["own.pt"]
