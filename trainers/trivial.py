"""The error of a constant output: what a net scores that has learned its biases and nothing else.

Of all constants the one with the least loss, on the very examples that are measured: no constant has less loss on them.

- squared loss: the mean of the targets; its `squared_error` is the sum of their variances, as of the mean image.
- logistic loss: the same mean, as a probability of each output.
- softmax: how often each class is right; its `error` is that of always naming the most frequent class.

With an output at every step there is one such constant for each step: such a net knows where in a sequence it stands,
and nothing of what it has read. So of the memory tasks the symbols to be said are at chance, k (1 - 1/values) wrong
ones a sequence (S13 Table 5, `biases`: 2.5 and 8.0), and all blanks are right.

Where a number is wrong when it is off by more than a tolerance (add, mul), the mean is still what the loss makes a
net say, though another constant would be right more often.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers import metrics
from trainers.config import NetConfig, TaskInfo
from trainers.data import Part, part
from trainers.tasks import Split, Task

_CHUNK = 2000  # examples measured at a time
_LEAST = 1e-15  # probability of what never happened: its logit has to be finite


def trivial(task: Task, net: NetConfig, examples: int) -> dict[str, float]:
    """Return each objective of a task, such as `train_squared_error`, of the constant with the least loss.

    Each part has its own constant, on the first `examples` of its examples, as trials are measured; in float64.
    """
    return {
        f"{name}_{metric}": value
        for name, split in (("train", task.train), ("valid", task.valid))
        for metric, value in of_constant(task.info, net, _head(task.info, split, examples)).items()
    }


def of_constant(info: TaskInfo, net: NetConfig, whole: Part) -> dict[str, float]:
    """Return each metric of the task on a part, of the constant with the least loss on it."""
    logits = constant(net, whole)
    total = dict.fromkeys(info.metrics, 0.0)
    count = len(whole.targets)
    for start in range(0, count, _CHUNK):
        some = _rows(whole, slice(start, start + _CHUNK))
        each = logits.expand(len(some.targets), *logits.shape)
        for metric, value in metrics.measure(info, net, each, some).items():
            total[metric] += float(value) * len(some.targets) / count
    return total


def constant(net: NetConfig, whole: Part) -> Tensor:
    """Return the logits with the least loss on a part, [O], or [T, O] with an output at every step."""
    targets = whole.targets
    if net.every_step:
        assert whole.classes is not None
        scored = (whole.classes >= 0).sum(0).clamp_min(1).unsqueeze(-1)
        mean = targets.sum(0) / scored
    else:
        mean = targets.mean(0)
    if net.loss == "squared":
        return mean
    if net.loss == "softmax":
        return mean.clamp_min(_LEAST).log()
    return torch.logit(mean.clamp(_LEAST, 1 - _LEAST))


def _head(info: TaskInfo, split: Split, examples: int) -> Part:
    """Return the first examples of a split as float64."""
    inputs = split.inputs[:examples]
    same = split.targets is split.inputs
    steps = None if split.steps is None else split.steps[:examples]
    some = Split(inputs, inputs if same else split.targets[:examples], steps)
    return part(some, info.outputs, torch.device("cpu"), torch.float64)


def _rows(whole: Part, rows: slice) -> Part:
    """Return some examples of a part, without copying."""
    targets = whole.targets[rows]
    classes, steps = (None if each is None else each[rows] for each in (whole.classes, whole.steps))
    return Part(targets if whole.targets is whole.inputs else whole.inputs[rows], targets, classes, steps)
