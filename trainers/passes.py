"""Hand-written passes, element by element: activations with their derivatives, and the gradient at the output.

All write into buffers that exist. Letters as in config.py; nothing here mixes rows or trials.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Call = Callable[[], object]

# torch's tanh is 3x to 6x slower than its sigmoid, so tanh(z) is 2*sigmoid(2z) - 1 and the product before it
# is asked for 2z (GEMM's alpha costs nothing). The difference is one rounding.
_TWICE = {"tanh": 2.0}
_OPS = torch.ops.aten


def scale_before(activation: str) -> float:
    """Return the factor by which `activate` wants its argument multiplied."""
    return _TWICE.get(activation, 1.0)


def activate_calls(activation: str, z: Tensor, out: Tensor) -> list[Call]:
    """Return the calls that make out = f(z).

    z holds `scale_before` times the argument and may be overwritten; out may be z.
    """
    if activation == "tanh":
        return [partial(torch.sigmoid, z, out=z), partial(torch.add, _minus_one(z), z, alpha=2.0, out=out)]
    if activation == "sigmoid":
        return [partial(torch.sigmoid, z, out=out)]
    if activation == "relu":
        return [partial(torch.clamp_min, z, 0.0, out=out)]
    if activation == "softsign":
        return [lambda: torch.div(z, z.abs().add_(1.0), out=out)]
    return [] if out is z else [partial(out.copy_, z)]


def backpropagate_calls(activation: str, grad: Tensor, h: Tensor, out: Tensor | None = None) -> list[Call]:
    """Return the calls that make out = grad * f'(z), given h = f(z); without `out`, grad itself."""
    out = grad if out is None else out
    if activation == "tanh":
        return [partial(_OPS.tanh_backward.grad_input, grad, h, grad_input=out)]
    if activation == "sigmoid":
        return [partial(_OPS.sigmoid_backward.grad_input, grad, h, grad_input=out)]
    if activation == "relu":
        return [partial(_OPS.threshold_backward.grad_input, grad, h, 0.0, grad_input=out)]
    if activation == "softsign":
        return [partial(_softsign_backward, grad, h, out)]
    return [] if out is grad else [partial(out.copy_, grad)]


def activate(activation: str, z: Tensor, out: Tensor) -> None:
    """Make the calls of `activate_calls`."""
    for call in activate_calls(activation, z, out):
        call()


def backpropagate(activation: str, grad: Tensor, h: Tensor) -> None:
    """Make the calls of `backpropagate_calls`."""
    for call in backpropagate_calls(activation, grad, h):
        call()


def _softsign_backward(grad: Tensor, h: Tensor, out: Tensor) -> None:
    slope = h.abs().neg_().add_(1.0)
    torch.mul(grad, slope, out=out).mul_(slope)  # f' = (1 - |h|)^2


def output_delta(loss: str, z: Tensor, target: Tensor, out: Tensor, outputs: int = -1) -> None:
    """Write to `out` the loss's gradient with respect to one case's logits, over `delta_factor`.

    `outputs` is the dimension of the logits z that runs over output units. `out` may be z but for `softmax`.
    """
    if loss == "logistic":
        torch.sigmoid(z, out=out).sub_(target)
    elif loss == "softmax":
        torch.softmax(z, outputs, out=out).sub_(target)
    else:
        torch.sub(z, target, out=out)


def delta_factor(loss: str) -> float:
    """Return what `output_delta` leaves out: 2 for the sum of squares without 1/2."""
    return 2.0 if loss == "squared" else 1.0


def output_curvature(loss: str, z: Tensor, out: Tensor, outputs: int = -1) -> None:
    """Write to `out` the diagonal of the loss's second derivative with respect to one case's logits z.

    `outputs` is as in `output_delta`; `out` may not be z.
    """
    if loss == "squared":
        out.fill_(2.0)
        return
    if loss == "logistic":
        torch.sigmoid(z, out=out)
    else:
        torch.softmax(z, outputs, out=out)
    out.mul_(1 - out)


def predict(loss: str, z: Tensor, out: Tensor, outputs: int = -1) -> None:
    """Write to `out`, which may be z, what logits z predict: probabilities, or of `squared` themselves.

    `outputs` is as in `output_delta`, whose gradient is this less the target.
    """
    if loss == "logistic":
        torch.sigmoid(z, out=out)
    elif loss == "softmax":
        out.copy_(torch.softmax(z, outputs))
    elif out is not z:
        out.copy_(z)


def output_product(loss: str, predicted: Tensor, v: Tensor, outputs: int = -1) -> None:
    """Multiply v by the loss's second derivative with respect to one case's logits, over `delta_factor`.

    `predicted` and `outputs` are those of `predict`.
    """
    if loss == "logistic":
        backpropagate("sigmoid", v, predicted)  # p (1 - p) v
    elif loss == "softmax":
        v.mul_(predicted)
        v.sub_(predicted * v.sum(outputs, keepdim=True))  # p v - p (p'v)


_MINUS_ONES: dict[tuple[torch.dtype, torch.device], Tensor] = {}


def _minus_one(like: Tensor) -> Tensor:
    key = (like.dtype, like.device)
    if key not in _MINUS_ONES:
        _MINUS_ONES[key] = torch.tensor(-1.0, dtype=like.dtype, device=like.device)
    return _MINUS_ONES[key]
