"""Dense curvature matrices, by automatic differentiation of the ordinary net: slow and obvious."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainers import models
from trainers.config import NetConfig
from trainers.curvature import Curvature
from trainers.data import Part


class Twin:
    """The ordinary net as a function of the same flat vectors, for automatic differentiation."""

    def __init__(self, net: NetConfig, made: Curvature) -> None:
        self.net, self.made = net, made
        self.module = models.build(net, torch.float64)
        layers = len(net.layers)
        numbers = torch.arange(1.0, made.size + 1, dtype=torch.float64)
        params = made.unpack(numbers)
        assert len(params) == layers
        # Where each parameter of the module lies in a vector.
        models.set_parameters(self.module, params)
        self.places = {name: p.detach().long() - 1 for name, p in self.module.named_parameters()}
        self.used = torch.cat([place.reshape(-1) for place in self.places.values()])

    def logits(self, theta: Tensor, part: Part) -> Tensor:
        named = {name: theta[place] for name, place in self.places.items()}
        out: Tensor = torch.func.functional_call(self.module, named, part.arguments())
        return out

    def loss(self, theta: Tensor, part: Part) -> Tensor:
        return models.loss(self.net, self.logits(theta, part), part.expected)

    def matrix(self, theta: Tensor, part: Part) -> Tensor:
        """J' H J [P, P], H the Hessian of the loss as a function of all logits."""
        z = self.logits(theta, part)
        jacobian = torch.func.jacrev(self.logits)(theta, part).reshape(z.numel(), -1)
        hessian = torch.func.hessian(lambda out: models.loss(self.net, out, part.expected))(z)
        return jacobian.T @ hessian.reshape(z.numel(), z.numel()) @ jacobian


def picked(part: Part, rows: Tensor | slice) -> Part:
    inputs = part.inputs[rows]
    targets = inputs if part.targets is part.inputs else part.targets[rows]
    classes, steps = (None if each is None else each[rows] for each in (part.classes, part.steps))
    return Part(inputs, targets, classes, steps)


def point(made: Curvature, twin: Twin, scale: float = 0.5, seed: int = 0) -> Tensor:
    theta = torch.zeros(made.size, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    theta[twin.used] = scale * torch.randn(len(twin.used), generator=generator, dtype=torch.float64)
    return theta


def got(made: Curvature, method: Callable[..., None], *arguments: object) -> Tensor:
    out = torch.full((made.size,), torch.nan, dtype=torch.float64)
    method(*arguments, out) if arguments else method(out)
    return out


def products(made: Curvature, structural: float = 0.0) -> Tensor:
    """The matrix, product by product."""
    columns = []
    for unit in torch.eye(made.size, dtype=torch.float64):
        out = torch.full_like(unit, torch.nan)
        made.product(unit, out, structural)
        columns.append(out)
    return torch.stack(columns, 1)


def close(found: Tensor, expected: Tensor, within: float) -> None:
    worst = float((found - expected).abs().max() / expected.abs().max())
    assert worst < within, f"off by {worst:.1e} of {float(expected.abs().max()):.3g}"
