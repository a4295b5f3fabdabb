"""An exported model is an ordinary state_dict of the very weights that were trained."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainers.checkpoint import DamagedStateError, pack
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TrialConfig
from trainers.export import write_state_dict
from trainers.state import TrialState, initial_state

NET = NetConfig((5, 7, 3, 2), ("tanh", "relu"), "softmax")


def state() -> TrialState:
    config = TrialConfig(4, NET, InitConfig("normalized"), MethodConfig("cm", 0.1, 0.9), 10, 4, SeedConfig(1))
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


def test_a_damaged_file_leaves_nothing_behind(tmp_path: Path) -> None:
    packed = pack({4: state()})
    for damaged, number in ((packed[:-40], 4), (packed, 5)):
        with pytest.raises(DamagedStateError):
            write_state_dict(damaged, number, NET, tmp_path / "t.pt")
    assert list(tmp_path.iterdir()) == []
