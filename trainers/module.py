"""The engine for nets of the user's own: `model: {kind: "package.module:function"}`, one trial after another.

The function gets the task's inputs and outputs, and options by name, and returns a `torch.nn.Module` with weights as
they are to start; its answers are logits. Autograd gives the gradient; methods and schedules are those of all engines.

In a `TrialState` each trained parameter, then each parameter that is not trained and each buffer, is an entry
(tensor, nothing), in the module's order; the latter have no velocity, so theirs is (nothing, nothing).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn

from trainers import metrics, models
from trainers.config import NetConfig, SeedConfig, TrialConfig
from trainers.data import Data, Part
from trainers.engine import check_fits, flush_denormals
from trainers.optim import learning_rate, momentum
from trainers.state import Params, TrialState, zeros
from trainers.tasks.options import TaskError

_SEEDS = 2**63


def build(net: NetConfig, seed: SeedConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Call the user's function, torch's generator seeded by the trial's init stream.

    Raises TaskError when there is no such function, it fails, or returns what cannot be trained.
    """
    from trainers.tasks.own import function

    made, where = function(net.module, "model"), f"model {net.module}"
    torch.manual_seed(seed.stream("init"))
    try:
        module = made(net.widths[0], net.widths[-1], **json.loads(net.options or "{}"))
    except Exception as error:
        raise TaskError(" ".join(f"{where}: {type(error).__name__}: {error}".split())) from error
    if not isinstance(module, nn.Module):
        raise TaskError(f"{where}: returned a {type(module).__name__}, expected a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TaskError(f"{where}: has no parameters to train")
    return module.to(dtype)


def to_state_dict(net: NetConfig, seed: SeedConfig, params: Params) -> dict[str, Tensor]:
    """What the function's module takes as its state_dict, on the CPU."""
    module = build(net, seed, params[0][0].dtype)
    for there, (tensor, _) in zip(_entries(module), params, strict=True):
        there.copy_(tensor)
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def trained(module: nn.Module) -> list[nn.Parameter]:
    """What an optimiser changes."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def rest(module: nn.Module) -> list[Tensor]:
    """What a state holds beside the trained parameters."""
    return [*(p for p in module.parameters() if not p.requires_grad), *module.buffers()]


def _entries(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*trained(module), *rest(module))]


def _pairs(tensors: Sequence[Tensor], more: int = 0) -> Params:
    """Entries of a state, `more` of them of nothing."""
    nothing = tensors[0].new_empty(0)
    return [*((tensor.clone(), nothing) for tensor in tensors), *([(nothing, nothing)] * more)]


def check_answers(net: NetConfig, part: Part, answers: Callable[[Part], Tensor]) -> None:
    """Raise TaskError unless a module makes logits of some examples, [N, O], or [N, T, O] with one at every step."""
    outputs = (net.steps,) * net.every_step + (net.widths[-1],)
    expected = (len(part.inputs), *outputs)
    try:
        found = tuple(answers(part).shape)
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise TaskError(f"model {net.module}: of inputs {tuple(part.inputs.shape)}: {words}") from error
    if found != expected:
        wrong = f"of inputs {tuple(part.inputs.shape)} it makes {found}, expected logits {expected}"
        raise TaskError(f"model {net.module}: {wrong}")


class _Slot:
    """A trial: its module, whose parameters hold the point at which the gradient is taken, and theta beside it."""

    def __init__(self, config: TrialConfig, module: nn.Module, state: TrialState | None) -> None:
        self.config, self.module = config, module
        self.at, self.rest = trained(module), [tensor.detach() for tensor in rest(module)]
        if state is None:
            still = zeros(_pairs(self.at, len(self.rest)))
            state = TrialState(0, _pairs(_entries(module)), still, second=still)
        if [tensor.shape for tensor, _ in state.params] != [tensor.shape for tensor in _entries(module)]:
            raise ValueError(f"trial {config.number}: its state is of another module than {config.net.module} makes")
        moved = [tensor.to(there, copy=True) for (tensor, _), there in zip(state.params, _entries(module), strict=True)]
        self.theta = moved[: len(self.at)]
        for there, tensor in zip(self.rest, moved[len(self.at) :], strict=True):
            there.copy_(tensor)
        self.velocity = [tensor.to(p, copy=True) for (tensor, _), p in zip(state.velocity, self.at, strict=False)]
        self.second = [tensor.to(p, copy=True) for (tensor, _), p in zip(state.second or [], self.at, strict=False)]
        self.update, self.diverged_at = state.update, state.diverged_at

    def state(self) -> TrialState:
        more = len(self.rest)
        second = _pairs(self.second, more) if self.config.method.family != "momentum" else None
        params = _pairs([*self.theta, *self.rest])
        return TrialState(self.update, params, _pairs(self.velocity, more), self.diverged_at, second)


class ModuleEngine:
    """See `trainers.engine.Engine`; sgd, cm, nag, adam and adamw."""

    name = "module"

    def __init__(self, net: NetConfig, batch: int, data: Data, family: str = "momentum") -> None:
        if family == "diagonal":
            raise ValueError(f"method diagonal: not for {net.module}: the curvature of a net of your own is not known")
        self._net, self._batch, self._data, self._family = net, batch, data, family
        self._slots: dict[int, _Slot] = {}

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:  # noqa: D102 - on the protocol
        check_fits(config, self._net, self._batch, self._slots, self._family)
        module = build(config.net, config.seed, self._data.dtype).to(self._data.device)
        slot = _Slot(config, module, state)
        check_answers(self._net, self._data.train.head(2), partial(self._answers, slot))
        self._slots[config.number] = slot

    def remove(self, number: int) -> None:  # noqa: D102
        del self._slots[number]

    def numbers(self) -> list[int]:  # noqa: D102
        return list(self._slots)

    def state(self, number: int) -> TrialState:  # noqa: D102
        return self._slots[number].state()

    def update(self, number: int) -> int:  # noqa: D102
        return self._slots[number].update

    def diverged_at(self, number: int) -> int | None:  # noqa: D102
        return self._slots[number].diverged_at

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:  # noqa: D102
        flush_denormals()
        seconds = {}
        for number, update in until.items():
            slot, start = self._slots[number], perf_counter()
            while slot.update < update and slot.diverged_at is None:
                self._step(slot)
            if slot.diverged_at is None and not all(bool(theta.isfinite().all()) for theta in slot.theta):
                slot.diverged_at = slot.update
            seconds[number] = perf_counter() - start
        return seconds

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:  # noqa: D102
        measured = [
            metrics.measure(self._data.info, self._net, self._answers(self._slots[number], part), part)
            for number in numbers
        ]
        return {name: torch.stack([each[name] for each in measured]) for name in self._data.info.metrics}

    def _answers(self, slot: _Slot, part: Part) -> Tensor:
        """Logits at theta, the module as it is when not trained."""
        slot.module.eval()
        with torch.no_grad():
            for there, theta in zip(slot.at, slot.theta, strict=True):
                there.copy_(theta)
            logits: Tensor = slot.module(*part.arguments())
        return logits

    def _step(self, slot: _Slot) -> None:
        config, method, t = slot.config, slot.config.method, slot.update
        mu, lr = momentum(t, method, config.updates), learning_rate(t, method, config.updates)
        with torch.no_grad():
            for there, theta, velocity in zip(slot.at, slot.theta, slot.velocity, strict=True):
                if method.kind == "nag":
                    torch.add(theta, velocity, alpha=mu, out=there)  # look ahead, S13 eq. 3
                else:
                    there.copy_(theta)
        self._gradient(slot)
        with torch.no_grad():
            for i, (there, theta, velocity) in enumerate(zip(slot.at, slot.theta, slot.velocity, strict=True)):
                g = torch.zeros_like(theta) if there.grad is None else there.grad
                if method.family == "momentum":
                    velocity.mul_(mu).sub_(g, alpha=lr)  # S13 eq. 1, 3
                    theta.add_(velocity)  # S13 eq. 2, 4
                    continue
                if method.kind == "adamw":
                    theta.mul_(1 - lr * method.weight_decay)
                second = slot.second[i]
                velocity.mul_(method.beta1).add_(g, alpha=1 - method.beta1)
                second.mul_(method.beta2).addcmul_(g, g, value=1 - method.beta2)
                root = (second / (1 - method.beta2 ** (t + 1))).sqrt_().add_(method.epsilon)
                theta.addcdiv_(velocity, root, value=-lr / (1 - method.beta1 ** (t + 1)))
        slot.update += 1

    def _gradient(self, slot: _Slot) -> None:
        """Leave the gradient of the batch's loss in the module's parameters; note a delta that is not finite."""
        config = slot.config
        pool = self._data.pool(config.seed, slot.update, config.batch)
        rows = pool.rows([(config.seed, slot.update)], 1)[0].to(self._data.device)
        slot.module.train()
        slot.module.zero_grad()
        # What the module draws (dropout) is a function of the trial and the update, whatever ran before.
        torch.manual_seed((config.seed.stream("module") + slot.update) % _SEEDS)
        logits = slot.module(*pool.part.arguments(rows))
        logits.retain_grad()
        loss = models.loss(self._net, logits, pool.part.expected[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        # A finite loss has finite logits, hence a finite delta: the exact question is asked of the others only.
        if not math.isfinite(loss.item()) and logits.grad is not None and not bool(logits.grad.sum().isfinite()):
            slot.diverged_at = slot.update
