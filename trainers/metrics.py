"""What is reported of a net's answers: every metric a task can name, on logits of one trial or of many.

A net that answers anything that is not a finite number scores NaN in every metric: comparisons with NaN are false,
and some infinite logits would even count as perfect answers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainers import models
from trainers.config import NetConfig, TaskInfo
from trainers.data import Part

_TOLERANCE = 0.04  # of add and mul: S13 section 4


def measure(info: TaskInfo, net: NetConfig, logits: Tensor, part: Part) -> dict[str, Tensor]:
    """Measure logits [..., N, O], or [..., N, T, O], on a part: each metric of the task, [...], without gradients.

    - `loss`: `models.loss`.
    - `squared_error`: the sum over outputs of (y - target)^2, averaged over cases, no 1/2 (SCIENCE 4.1).
    - `error`: the share of wrong answers. Of classes, the largest logit is another's (with an output at every step,
      at the last); of one logistic output, it is on the wrong side of 1/2; of a sequence answered by a number, it is
      off by more than .04 (S13 section 4).
    - `recall_errors`: wrong symbols a sequence among its last `info.recall` steps, the last class, the blank, not
      being an answer. `errors`: wrong symbols a sequence over all scored steps, the blank an answer like any other.

    Raises ValueError for a metric that is none of these.
    """
    with torch.no_grad():
        finite = logits.flatten(logits.ndim - (3 if net.every_step else 2)).isfinite().all(-1)
        found = {}
        for name in info.metrics:
            if name not in _METRICS:
                raise ValueError(f"task {info.name}: metric {name!r}: one of {', '.join(_METRICS)}")
            value = _METRICS[name](info, net, logits, part)
            found[name] = torch.where(finite, value, torch.full_like(value, torch.nan))
    return found


def _loss(_: TaskInfo, net: NetConfig, logits: Tensor, part: Part) -> Tensor:
    return models.loss(net, logits, part.expected)


def _squared_error(_: TaskInfo, net: NetConfig, logits: Tensor, part: Part) -> Tensor:
    outputs = torch.sigmoid(logits) if net.loss == "logistic" else logits
    return (outputs - part.targets).square().sum(-1).mean(-1)


def _error(info: TaskInfo, net: NetConfig, logits: Tensor, part: Part) -> Tensor:
    if net.every_step:
        logits, expected = logits[..., -1, :], part.expected[:, -1]
    else:
        expected = part.expected
    if part.classes is not None:
        wrong = logits.argmax(-1) != expected
    elif net.loss == "logistic":
        wrong = ((logits > 0) != (expected > 0.5)).any(-1)
    else:
        assert info.steps, f"task {info.name}: an error of squared loss is of sequences"
        wrong = ((logits - expected).abs() > _TOLERANCE).any(-1)
    return wrong.to(logits.dtype).mean(-1)


def _recall_errors(info: TaskInfo, _: NetConfig, logits: Tensor, part: Part) -> Tensor:
    assert info.recall, f"task {info.name}: no step is said to be recall"
    symbols = logits[..., -info.recall :, :-1].argmax(-1)
    return (symbols != part.expected[:, -info.recall :]).to(logits.dtype).sum(-1).mean(-1)


def _errors(_: TaskInfo, __: NetConfig, logits: Tensor, part: Part) -> Tensor:
    wrong = (logits.argmax(-1) != part.expected) & (part.expected >= 0)
    return wrong.to(logits.dtype).sum(-1).mean(-1)


_METRICS: dict[str, Callable[[TaskInfo, NetConfig, Tensor, Part], Tensor]] = {
    "loss": _loss,
    "squared_error": _squared_error,
    "error": _error,
    "recall_errors": _recall_errors,
    "errors": _errors,
}
