"""Nets as ordinary PyTorch modules, and the losses that every engine is held to.

A feed-forward net is `Linear, activation, Linear, ..., Linear`, its output logits: the loss applies the logistic
function or the softmax. Weights are kept as [I, O] everywhere in musweep; `torch.nn.Linear` stores [O, I].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.config import NetConfig

_MODULES: Mapping[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "softsign": nn.Softsign,
    "linear": nn.Identity,
}


class Residual(nn.Module):
    """h_1 = f_1(W_1 x + b_1), h_l = h_(l-1) + eta_l f_l(W_l h_(l-1) + b_l), logits W h_L + b (HR18 section 3.3)."""

    def __init__(self, layers: Sequence[nn.Linear], activations: Sequence[nn.Module], eta: Sequence[float]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activations = nn.ModuleList(activations)
        self.eta = tuple(eta)

    def forward(self, inputs: Tensor) -> Tensor:
        """Take inputs [N, I] to logits [N, O]."""
        first, *modules = zip(self.layers, self.activations, strict=False)
        h: Tensor = first[1](first[0](inputs))
        for (layer, activation), eta in zip(modules, self.eta, strict=True):
            h = h + eta * activation(layer(h))
        logits: Tensor = self.layers[-1](h)
        return logits

    def extra_repr(self) -> str:
        """Say what a state dict does not hold."""
        return f"eta={self.eta}"


class Recurrent(nn.Module):
    """h_t = tanh(W [x_t, h_(t-1)] + b) from h_0 = 0, logits V h_t + c (S13 section 4), one step after another."""

    def __init__(self, cell: nn.Linear, output: nn.Linear, every_step: bool) -> None:
        super().__init__()
        self.cell = cell
        self.output = output
        self.every_step = every_step

    def forward(self, inputs: Tensor, steps: Tensor | None = None) -> Tensor:
        """Take inputs [N, T, I] to logits [N, T, O] of every step, or [N, O] of step `steps` [N] of each sequence."""
        h = inputs.new_zeros(len(inputs), self.cell.out_features)
        states = []
        for x in inputs.unbind(1):
            h = torch.tanh(self.cell(torch.cat([x, h], 1)))
            states.append(h)
        every = torch.stack(states, 1)
        if not self.every_step:
            assert steps is not None, "a net with one answer is told where"
            every = every[torch.arange(len(inputs)), steps]
        logits: Tensor = self.output(every)
        return logits

    def extra_repr(self) -> str:
        """Say what a state dict does not hold."""
        return f"every_step={self.every_step}"


def build(net: NetConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Make the net from inputs to logits; its parameters are zero until `set_parameters` or a state dict."""
    linears = [_linear(rows, columns, dtype) for rows, columns in net.layers]
    if net.steps:
        return Recurrent(linears[0], linears[1], net.every_step)
    activations = [_MODULES[name]() for name in net.hidden]
    if net.eta:
        return Residual(linears, activations, net.eta)
    pairs = [[linear, activation] for linear, activation in zip(linears, activations, strict=False)]
    return nn.Sequential(*(module for pair in pairs for module in pair), linears[-1])


def set_parameters(module: nn.Module, params: Sequence[tuple[Any, Any]]) -> None:
    """Copy (weights [I, O], biases [O]) of each layer, arrays or tensors, into a net made by `build`.

    Raises ValueError when the number of layers differs, RuntimeError when a shape does.
    """
    linears = _linears(module)
    if len(linears) != len(params):
        raise ValueError(f"the net has {len(linears)} weight layers, the parameters are of {len(params)}")
    with torch.no_grad():
        for linear, (weights, biases) in zip(linears, params, strict=True):
            linear.weight.copy_(_same_shape(torch.as_tensor(weights).T, linear.weight))
            linear.bias.copy_(_same_shape(torch.as_tensor(biases), linear.bias))


def get_parameters(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Copy the (weights [I, O], biases [O]) of each layer out of a net, contiguous and detached."""
    return [
        (linear.weight.detach().T.contiguous().clone(), linear.bias.detach().clone()) for linear in _linears(module)
    ]


def to_state_dict(net: NetConfig, params: Sequence[tuple[Any, Any]]) -> dict[str, Tensor]:
    """Turn (weights [I, O], biases [O]) of each layer into what `build(net).load_state_dict` takes, on the CPU."""
    dtype = torch.as_tensor(params[0][0]).dtype
    module = build(net, dtype)
    set_parameters(module, params)
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def loss(net: NetConfig, logits: Tensor, targets: Tensor) -> Tensor:
    """Average the net's loss over cases, differentiably: logits [..., N, O] give a tensor of shape [...].

    `targets` are [N, O], or classes, int64 [N], which linear outputs are to meet one-hot (GB10 fig. 5's quadratic cost,
    on a linear output). The losses are `NetConfig`'s: sums over outputs, no 1/2.
    With an output at every step logits are [..., N, T, O] and targets classes [N, T], -1 where a step is not scored:
    the loss of a sequence is the sum over its scored steps.
    """
    return losses(net, logits, targets).mean(-1)


def losses(net: NetConfig, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each case, [..., N]; what `loss` averages."""
    if net.every_step:
        scored = targets >= 0
        each = _true_class(torch.log_softmax(logits, -1), targets.clamp_min(0)).neg()
        return torch.where(scored, each, torch.zeros_like(each)).sum(-1)
    if net.loss == "softmax":
        return _true_class(torch.log_softmax(logits, -1), targets).neg()
    if not targets.is_floating_point():
        targets = functional.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    expected = targets.expand_as(logits)
    if net.loss == "logistic":
        # with_logits is exact to rounding at any logit; softplus would switch to a line at 20.
        each = functional.binary_cross_entropy_with_logits(logits, expected, reduction="none")
    else:
        each = (logits - expected).square()
    return each.sum(-1)


def _true_class(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """[..., N, O] and classes [N] to [..., N], or with [T] after the N: the entry of each case's class."""
    classes = targets.expand(log_probabilities.shape[:-1]).unsqueeze(-1)
    return log_probabilities.gather(-1, classes).squeeze(-1)


def _linear(inputs: int, outputs: int, dtype: torch.dtype) -> nn.Linear:
    # By way of meta: torch's own initialisation would draw from the global generator for nothing.
    linear = nn.Linear(inputs, outputs, device="meta", dtype=dtype).to_empty(device="cpu")
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def _same_shape(source: Tensor, target: Tensor) -> Tensor:
    """Refuse what `copy_` would silently broadcast."""
    if source.shape != target.shape:
        raise RuntimeError(f"parameters of shape {list(source.shape)} where the net has {list(target.shape)}")
    return source
