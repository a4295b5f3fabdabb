"""What Hessian-free optimisation is told, as frozen dataclasses: importable in milliseconds, like `config`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

HF_GRADIENTS = ("full", "chunk")


@dataclass(frozen=True, slots=True)
class HFPhase:
    """A part of an HF run that differs from the rest (S13 A.6); None leaves a value as `HFConfig` has it."""

    until: float
    """Share of the trial's work at which the phase ends, in (0, 1]."""
    adapt: bool | None = None
    gradient: str | None = None
    chunks: int | None = None
    cg_max: int | None = None
    cg_decay: float | None = None
    l2: float | None = None
    line_search: bool | None = None
    step: float | None = None
    step_decay: float | None = None
    step_from: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise ValueError(f"hf phase until={self.until}: a share of the trial's work, above 0 and at most 1")
        HFConfig(**self.changes)

    @property
    def changes(self) -> dict[str, Any]:
        """The values that the phase sets."""
        return {key: value for key, value in asdict(self).items() if key != "until" and value is not None}


@dataclass(frozen=True, slots=True)
class HFConfig:
    """Hessian-free optimisation as Martens 2010 has it; SCIENCE 2 has the source of each constant.

    An outer iteration minimises the model g'd + d'(G + L2 + damping)d / 2 by at most `cg_max` steps of preconditioned
    CG from `cg_decay` times the last solution. The curvature is of one of `chunks` equal parts of the training set,
    taken in turn; the gradient of all of it (`full`) or of the same part (`chunk`). With `line_search` CG's iterates
    are back-tracked and the step found by Armijo's rule; without it the last iterate is taken by `step`, or, where
    step_decay is above 0, by step_decay / (t - step_from) of outer iteration t = 1, 2, ..., at most `step` (S13 A.6).
    With `adapt` the damping follows how well the model foretold the change along the whole iterate. `structural` times
    the damping weighs the change of hidden states of recurrent nets (Martens, Sutskever 2011). `phases` follow each
    other; what comes after the last is as the config says.
    """

    damping: float = 45.0
    adapt: bool = True
    cg_max: int = 250
    cg_decay: float = 0.95
    cg_tolerance: float = 0.0005
    preconditioner: float = 0.75
    l2: float = 2e-5
    chunks: int = 4
    gradient: str = "full"
    line_search: bool = True
    step: float = 1.0
    step_decay: float = 0.0
    step_from: int = 0
    structural: float = 0.0
    phases: tuple[HFPhase, ...] = ()

    def __post_init__(self) -> None:
        if self.gradient not in HF_GRADIENTS:
            raise ValueError(f"hf gradient {self.gradient!r}: one of {', '.join(HF_GRADIENTS)}")
        for name in ("damping", "cg_tolerance", "step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"hf {name}={getattr(self, name)}: must be positive")
        for name in ("preconditioner", "l2", "step_decay", "structural"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"hf {name}={getattr(self, name)}: 0 or more")
        if self.cg_max < 1 or self.chunks < 1:
            raise ValueError(f"hf cg_max={self.cg_max}, chunks={self.chunks}: at least 1")
        if not 0 <= self.cg_decay <= 1:
            raise ValueError(f"hf cg_decay={self.cg_decay}: must be in [0, 1]")
        ends = [phase.until for phase in self.phases]
        if ends != sorted(set(ends)):
            raise ValueError(f"hf phases end at {ends}: each after the one before")

    def at(self, share: float) -> HFConfig:
        """What holds when a share of the trial's work is done: the phase that is on, without further phases."""
        for phase in self.phases:
            if share < phase.until:
                return replace(self, phases=(), **phase.changes)
        return replace(self, phases=())
