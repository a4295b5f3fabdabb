"""Exact curvature of nets of the user's own, against the hand-written one and against dense matrices."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.trainers import cases, test_recurrent
from tests.trainers.dense import close, got, picked, products
from trainers import models
from trainers.config import NetConfig, SeedConfig
from trainers.curvature import Curvature, curvature
from trainers.data import Data, Part
from trainers.module import build
from trainers.state import Params
from trainers.tasks.options import TaskError

CODE = '''
import torch
from torch import nn
from trainers import models
from trainers.config import NetConfig

def twin(inputs, outputs):
    return models.build(NetConfig((inputs, 11, outputs), ("tanh",), "softmax"))

class Odd(nn.Module):
    """Batch statistics, dropout, a parameter that is frozen and one that nothing uses."""

    def __init__(self, inputs, outputs):
        super().__init__()
        parts = nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, outputs)
        self.body = nn.Sequential(*parts)
        self.frozen = nn.Parameter(torch.linspace(0.5, 1.5, outputs), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, inputs):
        return self.body(inputs) * self.frozen

class Reader(nn.Module):
    def __init__(self, inputs, outputs, kind="GRU"):
        super().__init__()
        self.cell, self.out = getattr(nn, kind)(inputs, 5, batch_first=True), nn.Linear(5, outputs)

    def forward(self, inputs, steps=None):
        read = self.cell(inputs)[0]
        return self.out(read if steps is None else read[torch.arange(len(inputs)), steps])

class Cube(torch.autograd.Function):
    """As in older code: a backward pass, and no derivative forward."""

    @staticmethod
    def forward(context, z):
        context.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(context, grad):
        (z,) = context.saved_tensors
        return 3 * z**2 * grad

class Cubes(nn.Linear):
    def forward(self, inputs):
        return Cube.apply(super().forward(inputs))

class Once(Cube):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, grad):
        (z,) = context.saved_tensors
        return 3 * z**2 * grad

class OnlyOnce(nn.Linear):
    def forward(self, inputs):
        return Once.apply(super().forward(inputs))

def wide(inputs, outputs):
    return nn.Linear(inputs, outputs + 1)
'''
ROWS = torch.tensor([3, 17, 0, 9, 8, 9, 30])
FLAT = {"Odd": "softmax", "Cubes": "squared"}
SEQUENCES = {"GRU": ("softmax", False), "LSTM": ("softmax", True), "RNN": ("logistic", False)}


@pytest.fixture(autouse=True, scope="module")
def _code(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "own_curved.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def net(function: str, loss: str = "softmax") -> NetConfig:
    return NetConfig((7, 3), (), loss, module=f"own_curved:{function}")


def start(net: NetConfig, made: Curvature) -> tuple[nn.Module, Params]:
    """The module at a random point, buffers and frozen parameters too, and its state's entries."""
    module = build(net, SeedConfig(1), torch.float64).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.1)
        for tensor in (p for p in module.parameters() if p.requires_grad):
            tensor.mul_(2).sub_(1.1)
    trained = [p.detach() for p in module.parameters() if p.requires_grad]
    rest = [*(p.detach() for p in module.parameters() if not p.requires_grad), *module.buffers()]
    return module, [(tensor, torch.empty(0)) for tensor in (*trained, *rest)]


def dense(net: NetConfig, module: nn.Module, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Newton matrix, gradient and mean squares, row by row with plain autograd."""
    parameters = [p for p in module.parameters() if p.requires_grad]

    def flat(scalar: Tensor) -> Tensor:
        pulled = torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([g.reshape(-1) for g in pulled])

    z = module(*part.arguments())
    jacobian = torch.stack([flat(one) for one in z.reshape(-1)])
    hessian = torch.func.hessian(lambda z: models.loss(net, z, part.expected))(z.detach())
    each = models.losses(net, z, part.expected)
    squares = torch.stack([flat(one) for one in each]).square().mean(0)
    return jacobian.T @ hessian.reshape(z.numel(), z.numel()) @ jacobian, flat(each.mean()), squares


def check(net: NetConfig, data: Data) -> None:
    for piece in (1 << 20, 1):
        made = curvature(net, data, piece=piece, kept=1 if piece == 1 else 1 << 20)
        module, entries = start(net, made)
        theta, part = made.pack(entries), picked(data.train, ROWS)
        matrix, gradient, squares = dense(net, module, part)
        with torch.inference_mode():
            found = float(made.at(theta, data.train, ROWS))
        loss = models.loss(net, module(*part.arguments()), part.expected)
        assert found == pytest.approx(float(loss.detach()), rel=1e-12)
        if piece > 1:
            close(products(made), matrix, 1e-12)
        close(got(made, made.gradient), gradient, 1e-12)
        close(got(made, made.squares), squares, 1e-12)
        product = torch.empty_like(gradient)
        made.product(gradient, product)
        close(product, matrix @ gradient, 1e-12)
        assert float(made.loss(theta, data.train, ROWS)) == pytest.approx(found, rel=1e-14)


@pytest.mark.parametrize("function", FLAT)
def test_modules_of_all_kinds(function: str) -> None:
    own = net(function, FLAT[function])
    check(own, Data(cases.task(own), "cpu", "float64"))


@pytest.mark.parametrize("kind", SEQUENCES)
def test_readers_of_sequences(kind: str) -> None:
    plain = test_recurrent.recurrent_net(*SEQUENCES[kind])
    own = NetConfig(
        (2, 3), (), plain.loss, steps=plain.steps, every_step=plain.every_step,
        module="own_curved:Reader", options=f'{{"kind": "{kind}"}}',
    )  # fmt: skip
    check(own, Data(test_recurrent.task(plain), "cpu", "float64"))


def test_a_twin_has_the_hand_written_nets_curvature() -> None:
    ours, theirs = NetConfig((7, 11, 3), ("tanh",), "softmax"), net("twin")
    data = cases.data(ours)
    by_hand, own = curvature(ours, data), curvature(theirs, data)
    generator = torch.Generator().manual_seed(0)
    params = [
        tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((i, o), (o,)))
        for i, o in ours.layers
    ]
    nothing = torch.empty(0)
    theta = own.pack([(tensor, nothing) for w, b in params for tensor in (w.t(), b)])
    assert float(own.at(theta, data.train, ROWS)) == pytest.approx(
        float(by_hand.at(by_hand.pack(params), data.train, ROWS))
    )
    v, expected = torch.empty_like(theta), torch.empty(by_hand.size, dtype=torch.float64)
    own.product(theta, v)
    by_hand.product(by_hand.pack(params), expected)
    found = own.unpack(v)
    for layer, (w, b) in enumerate(by_hand.unpack(expected)):
        close(found[2 * layer][0], w.t(), 1e-12)
        close(found[2 * layer + 1][0], b, 1e-12)


def test_states_survive_the_way_in_and_out() -> None:
    data = cases.data(NetConfig((7, 11, 3), ("tanh",), "softmax"), "float32")
    made = curvature(net("Odd"), data)
    _, entries = start(net("Odd"), made)
    back = made.unpack(made.pack([(tensor.float(), empty) for tensor, empty in entries]))
    assert len(back) == len(entries)
    for (found, _), (tensor, _) in zip(back, entries, strict=True):
        assert torch.equal(found, tensor.to(found.dtype))
    nothing = [(tensor if i < 7 else torch.empty(0), empty) for i, (tensor, empty) in enumerate(entries)]
    made.pack(nothing)  # a velocity has nothing for what is not trained


def test_what_has_no_curvature_is_told_in_one_line(tmp_path: Path) -> None:
    data = cases.data(NetConfig((7, 11, 3), ("tanh",), "softmax"))
    with pytest.raises(TaskError, match=r"expected logits \(2, 3\)"):
        curvature(net("wide"), data)
    made = curvature(net("OnlyOnce"), data)
    theta = torch.zeros(made.size, dtype=torch.float64)
    made.at(theta, data.train, ROWS)
    with pytest.raises(TaskError, match="own_curved:OnlyOnce: has no second derivatives, for hf"):
        made.product(theta, theta.clone())
