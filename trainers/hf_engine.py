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
from trainers.recurrent import RecurrentPasses
from trainers.state import TrialState, initial_state

_NOTES = ("iterations", "cg_steps", "damping", "objective", "work")
_AHEAD = "next_"
"""What names of scalars begin with that are of the theta that comes next."""


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

    def __init__(self, net: NetConfig, batch: int, data: Data, family: str = "hf") -> None:
        self.net, self.batch, self.data, self.family = net, batch, data, family
        self._trials: dict[int, _Trial] = {}
        self._curvature: Curvature = curvature(net, data)
        self._like = torch.empty(self._curvature.size, device=data.device, dtype=data.dtype)
        self._optimiser = HessianFree(net, self._curvature, self._like)
        self._passes: Passes = RecurrentPasses(net, batch, data) if net.steps else FeedForward(net, batch, data)
        self._flat = Flat(net, self._like)
        self._cuts: dict[tuple[int, int], list[Piece]] = {}

    def add(self, config: TrialConfig, state: TrialState | None = None) -> None:  # noqa: D102 - on the protocol
        check_fits(config, self.net, self.batch, self._trials, self.family)
        hf = config.method.hf
        assert hf is not None, "not a trial of hf"
        most, examples = max(hf.chunks, *(phase.chunks or 1 for phase in hf.phases), 1), len(self.data.train.inputs)
        if most > examples:
            raise ValueError(f"trial {config.number}: hf chunks={most}: more than the {examples} training examples")
        state = initial_state(config, self.data.dtype, self.data.device, self.data) if state is None else state
        self._trials[config.number] = self._trial(config, state)

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
        params, velocity, second = (self._curvature.unpack(v) for v in (trial.theta, trial.solution, trial.ahead))
        return TrialState(trial.update, params, velocity, trial.diverged_at, second, scalars)

    def advance(self, until: Mapping[int, int]) -> dict[int, float]:  # noqa: D102
        flush_denormals()
        seconds = {}
        with torch.no_grad():
            for number, update in until.items():
                start = time.perf_counter()
                self._advance(self._trials[number], update)
                seconds[number] = time.perf_counter() - start
        return seconds

    def evaluate(self, numbers: list[int], part: Part) -> dict[str, Tensor]:  # noqa: D102
        flush_denormals()
        with torch.inference_mode():
            each = []
            for number in numbers:
                self._flat.vector.copy_(self._trials[number].theta)
                each.append(metrics.measure(self.data.info, self.net, self._passes.logits(self._flat, part), part))
            return {name: torch.stack([measured[name] for measured in each]) for name in each[0]} if each else {}

    def _trial(self, config: TrialConfig, state: TrialState) -> _Trial:
        theta, scalars = self._curvature.pack(state.params), state.scalars
        hf = config.method.hf
        assert hf is not None, "not a trial of hf"
        if not scalars:  # at its first update, or where another method has led
            start = Progress(damping=hf.damping, work=float(state.update * self.batch))
            return _Trial(config, state.update, state.diverged_at, theta, theta, torch.zeros_like(theta), start)
        assert state.second is not None, "a state of another family"
        names = [field.name for field in fields(Progress)]
        ahead = Progress(**{name: scalars[_AHEAD + name] for name in names}) if _AHEAD + "work" in scalars else None
        return _Trial(
            config,
            state.update,
            state.diverged_at,
            theta,
            self._curvature.pack(state.second),
            self._curvature.pack(state.velocity),
            Progress(**{name: scalars[name] for name in names}),
            ahead,
            bool(scalars.get("diverges", 0.0)),
            scalars["short"],
        )

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
        try:
            found = self._optimiser.iterate(trial.theta, trial.solution, trial.now, hf, pieces, target, most)
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
