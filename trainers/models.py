"""Nets as ordinary PyTorch modules, and the losses and metrics that every engine is held to.

A net is `Linear, activation, Linear, ..., Linear`: its output is logits, and the loss applies the logistic
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


def build(net: NetConfig, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Make the net from inputs to logits; its parameters are zero until `set_parameters` or a state dict."""
    modules: list[nn.Module] = []
    for layer, (inputs, outputs) in enumerate(net.layers):
        # By way of meta: torch's own initialisation would draw from the global generator for nothing.
        linear = nn.Linear(inputs, outputs, device="meta", dtype=dtype).to_empty(device="cpu")
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        modules.append(linear)
        if layer < len(net.hidden):
            modules.append(_MODULES[net.hidden[layer]]())
    return nn.Sequential(*modules)


def set_parameters(module: nn.Sequential, params: Sequence[tuple[Any, Any]]) -> None:
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


def get_parameters(module: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
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

    `targets` are [N, O], or int64 [N] for `softmax`. The losses are `NetConfig`'s: sums over outputs, no 1/2.
    """
    if net.loss == "softmax":
        return _true_class(torch.log_softmax(logits, -1), targets).neg().mean(-1)
    expected = targets.expand_as(logits)
    if net.loss == "logistic":
        # with_logits is exact to rounding at any logit; softplus would switch to a line at 20.
        each = functional.binary_cross_entropy_with_logits(logits, expected, reduction="none")
    else:
        each = (logits - expected).square()
    return each.sum(-1).mean(-1)


def metric_tensors(net: NetConfig, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Measure logits [..., N, O]: each metric of the task as a tensor of shape [...], without gradients.

    `loss` is `loss()`. `squared_error` (reconstructions) is the sum over outputs of (y - target)^2, averaged
    over cases, no 1/2 (SCIENCE 4.1). `error` (classes) is the share of cases whose largest logit is not the
    target's, NaN where a logit is not finite: comparisons with NaN would otherwise count as answers.
    """
    with torch.no_grad():
        result = {"loss": loss(net, logits, targets)}
        if net.loss == "softmax":
            wrong = (logits.argmax(-1) != targets).to(logits.dtype).mean(-1)
            finite = logits.isfinite().all(-1).all(-1)
            result["error"] = torch.where(finite, wrong, torch.full_like(wrong, torch.nan))
        else:
            outputs = torch.sigmoid(logits) if net.loss == "logistic" else logits
            result["squared_error"] = (outputs - targets).square().sum(-1).mean(-1)
    return result


def metrics(net: NetConfig, logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Measure one net's logits [N, O] by `metric_tensors`, as floats."""
    return {name: float(value) for name, value in metric_tensors(net, logits, targets).items()}


def _true_class(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """[..., N, O] and classes [N] to [..., N]: the entry of each case's class."""
    classes = targets.expand(log_probabilities.shape[:-1]).unsqueeze(-1)
    return log_probabilities.gather(-1, classes).squeeze(-1)


def _linears(module: nn.Sequential) -> list[nn.Linear]:
    return [part for part in module if isinstance(part, nn.Linear)]


def _same_shape(source: Tensor, target: Tensor) -> Tensor:
    """Refuse what `copy_` would silently broadcast."""
    if source.shape != target.shape:
        raise RuntimeError(f"parameters of shape {list(source.shape)} where the net has {list(target.shape)}")
    return source
