"""The engine of Hessian-free optimisation: one trial after another, on a clock of work.

A trial's update is as much work as a gradient of `batch` examples. An outer iteration takes many of them: after
`advance` to update u a trial stands at the theta of the last iteration that ended within u * batch, while the engine
may already hold where the next one leads. So whenever it is asked, every method is asked after the same work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trainers import metrics
from trainers.config import NetConfig, SeedConfig, TrialConfig
from trainers.config_hf import HFConfig
from trainers.curvature import Curvature, curvature
from trainers.data import Data, Part
from trainers.engine import check_fits, flush_denormals
from trainers.feedforward import FeedForward
from trainers.flat import Flat, Passes
from trainers.hf import HessianFree, OverBudget, Piece, Progress
from trainers.hf_cg_ahead import default_ahead
from trainers.module import build, rest, trained
from trainers.recurrent import RecurrentPasses
from trainers.state import Params, TrialState, initial_state, zeros

_NOTES = ("iterations", "cg_steps", "damping", "objective", "work")
_PROGRESS = tuple(field.name for field in fields(Progress))
_AHEAD = "next_"
"""What names of scalars begin with that are of the theta that comes next."""


class _Net(Protocol):
    """The curvature of a net, and its answers at vectors like those of the curvature."""

    curvature: Curvature

    def logits(self, theta: Tensor, part: Part) -> Tensor:
        """Return the logits of a whole part."""


class _PlainNet:
    """One for all trials of an engine."""

    def __init__(self, net: NetConfig, batch: int, data: Data, waits: bool) -> None:
        self.curvature = curvature(net, data, waits=waits)
        self._passes: Passes = RecurrentPasses(net, batch, data) if net.steps else FeedForward(net, batch, data)
        self._flat = Flat(net, data.train.inputs.new_empty(0))

    def logits(self, theta: Tensor, part: Part) -> Tensor:
        self._flat.vector.copy_(theta)
        return self._passes.logits(self._flat, part)


class _OwnNet:
    """A net of the user's own; one for each trial, since modules may hold more than is trained."""

    def __init__(self, config: TrialConfig, data: Data) -> None:
        self.curvature = curvature(config.net, data)
        self._module = build(config.net, config.seed, data.dtype).to(data.device).eval()
        self._entries = [tensor.detach() for tensor in (*trained(self._module), *rest(self._module))]

    @property
    def params(self) -> Params:
        """The module's own, as it was made."""
        nothing = self._entries[0].new_empty(0)
        return [(tensor.clone(), nothing) for tensor in self._entries]

    def logits(self, theta: Tensor, part: Part) -> Tensor:
        for there, (tensor, _) in zip(self._entries, self.curvature.unpack(theta), strict=True):
            there.copy_(tensor)
        logits: Tensor = self._module(*part.arguments())
        return logits


@dataclass
class _Trial:
    """A trial's own memory: theta and progress there, and the same of the iteration that comes next, if it is known.

    `solution` is CG's last. `short` is a limit of work within which the next iteration is known not to end.
    """

    config: TrialConfig
    update: int
    diverged_at: int | None
    theta: Tensor
    ahead: Tensor
    solution: Tensor
    now: Progress
    net: _Net
    next: Progress | None = None
    diverges: bool = False
    short: float = 0.0

    @property
    def hf(self) -> HFConfig:
        """What holds at the work done."""
        hf = self.config.method.hf
        assert hf is not None, "not a trial of hf"
        return hf.at(self.now.work / (self.config.updates * self.config.batch))


class HFEngine:
    """See `trainers.engine.Engine`. A trial's bits depend on nothing but itself."""

    name = "hf"

    def __init__(self, net: NetConfig, batch: int, data: Data, family: str = "hf", ahead: int | None = None) -> None:
        """`ahead` is as in `trainers.hf.HessianFree`, None: as the data's device has it."""
        self._ahead = default_ahead(data.device) if ahead is None else ahead
        self.net, self.batch, self.data, self.family = net, batch, data, family
        self._trials: dict[int, _Trial] = {}
        self._net = None if net.module else _PlainNet(net, batch, data, self._ahead > 0)
        self._optimiser: HessianFree | None = None
        self._cuts: dict[tuple[int, int], list[Piece]] = {}

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:  # noqa: D102 - on the protocol
        check_fits(config, self.net, self.batch, self._trials, self.family)
        hf = config.method.hf
        assert hf is not None, "not a trial of hf"
        most, examples = max(hf.chunks, *(phase.chunks or 1 for phase in hf.phases), 1), len(self.data.train.inputs)
        if most > examples:
            raise ValueError(f"trial {config.number}: hf chunks={most}: more than the {examples} training examples")
        net: _Net
        if self._net is None:
            net = _OwnNet(config, self.data)
            state = TrialState(0, net.params, zeros(net.params)) if state is None else state
        else:
            net = self._net
            state = initial_state(config, self.data.dtype, self.data.device, self.data) if state is None else state
        trial = self._trial(config, state, net)
        if self._optimiser is None:
            self._optimiser = HessianFree(self.net, trial.theta, self._ahead)
        self._trials[config.number] = trial

    def remove(self, number: int) -> None:  # noqa: D102
        del self._trials[number]

    def numbers(self) -> list[int]:  # noqa: D102
        return list(self._trials)

    def update(self, number: int) -> int:  # noqa: D102
        return self._trials[number].update

    def diverged_at(self, number: int) -> int | None:  # noqa: D102
        return self._trials[number].diverged_at

    def notes(self, number: int) -> dict[str, float]:
        """Return how far a trial is, at the theta it stands at."""
        progress = self._trials[number].now.to_dict()
        return {f"hf_{name}": progress[name] for name in _NOTES}

    def state(self, number: int) -> TrialState:  # noqa: D102
        trial = self._trials[number]
        scalars = trial.now.to_dict() | {"short": trial.short}
        if trial.next is not None:
            scalars |= {_AHEAD + name: value for name, value in trial.next.to_dict().items()}
            scalars["diverges"] = float(trial.diverges)
        unpack = trial.net.curvature.unpack
        params, velocity, second = (unpack(vector) for vector in (trial.theta, trial.solution, trial.ahead))
        return TrialState(trial.update, params, velocity, trial.diverged_at, second, scalars)

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:  # noqa: D102
        flush_denormals()
        seconds = {}
        with torch.no_grad():
            for number, update in until.items():
                start = time.perf_counter()
                self._advance(self._trials[number], update)
                if self.net.module:
                    self._trials[number].net.curvature.forget()  # each has its own
                seconds[number] = time.perf_counter() - start
        return seconds

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:  # noqa: D102
        flush_denormals()
        with torch.inference_mode():
            each = []
            for number in numbers:
                trial = self._trials[number]
                each.append(metrics.measure(self.data.info, self.net, trial.net.logits(trial.theta, part), part))
            return {name: torch.stack([measured[name] for measured in each]) for name in each[0]} if each else {}

    def _trial(self, config: TrialConfig, state: TrialState, net: _Net) -> _Trial:
        pack, scalars, hf = net.curvature.pack, state.scalars, config.method.hf
        assert hf is not None, "not a trial of hf"
        theta = pack(state.params)
        if not scalars:  # at its first update, or where another method has led
            start = Progress(damping=hf.damping, work=float(state.update * self.batch))
            still = torch.zeros_like(theta)
            return _Trial(config, state.update, state.diverged_at, theta, theta, still, start, net)
        assert state.second is not None, "a state of another family"
        trial = _Trial(
            config,
            state.update,
            state.diverged_at,
            theta,
            pack(state.second),
            pack(state.velocity),
            Progress(**{name: scalars[name] for name in _PROGRESS}),
            net,
            short=scalars["short"],
        )
        if _AHEAD + "work" in scalars:
            trial.next = Progress(**{name: scalars[_AHEAD + name] for name in _PROGRESS})
            trial.diverges = bool(scalars["diverges"])
        return trial

    def _advance(self, trial: _Trial, until: int) -> None:
        limit = until * self.batch
        while trial.diverged_at is None:
            if trial.next is None and not self._iterate(trial, max(until, trial.config.updates) * self.batch):
                break
            if trial.next is None or trial.next.work > limit:
                break
            if trial.diverges:
                trial.diverged_at = math.ceil(trial.next.work / self.batch)
            else:
                trial.theta, trial.now = trial.ahead, trial.next
            trial.ahead, trial.next, trial.diverges = trial.theta, None, False
        trial.update = max(trial.update, until)

    def _iterate(self, trial: _Trial, most: float) -> bool:
        """Find where the next iteration leads; returns whether it ends within so much work (none is lost if not)."""
        if trial.short >= most:
            return False
        hf = trial.hf
        pieces, target = self._pieces(trial, hf)
        assert self._optimiser is not None, "no trial was ever added"
        at = (trial.net.curvature, trial.theta, trial.solution, trial.now)
        try:
            found = self._optimiser.iterate(*at, hf, pieces, target, most)
        except OverBudget:
            trial.short = float(most)
            return False
        if found.lost:
            trial.diverged_at = math.ceil(trial.now.work / self.batch)
            return False
        if math.isnan(trial.now.objective):
            trial.now = replace(trial.now, objective=found.objective)
        trial.ahead, trial.solution, trial.next = found.theta, found.solution, found.progress
        trial.diverges = found.diverged
        return True

    def _pieces(self, trial: _Trial, hf: HFConfig) -> tuple[list[Piece], int]:
        """Return the examples of the next iteration: all pieces, or the one in turn; and which is its target."""
        turn = int(trial.now.iterations)
        target = turn % hf.chunks
        if hf.gradient == "full":
            return self._cut(trial.config.seed, hf.chunks), target
        examples = len(self.data.train.inputs)
        pool = self.data.pool(trial.config.seed, turn // hf.chunks, examples)
        if pool.part is self.data.train:
            return [self._cut(trial.config.seed, hf.chunks)[target]], 0
        start, end = examples * target // hf.chunks, examples * (target + 1) // hf.chunks
        return [Piece(pool.part, slice(start, end), end - start)], 0

    def _cut(self, seed: SeedConfig, chunks: int) -> list[Piece]:
        """Cut the training set into equal parts at random, a function of the seed: the same in every iteration."""
        stream, train = seed.stream("data"), self.data.train
        if (stream, chunks) not in self._cuts:
            if chunks == 1:
                return [Piece(train, slice(None), len(train.inputs))]
            order = np.random.default_rng([stream, chunks]).permutation(len(train.inputs))
            parts = [torch.from_numpy(np.sort(part)).to(self.data.device) for part in np.array_split(order, chunks)]
            self._cuts[stream, chunks] = [Piece(train, rows, len(rows)) for rows in parts]
        return self._cuts[stream, chunks]
