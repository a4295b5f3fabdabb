"""From a task, a depth and widths to the net that is trained, and which depths a model can have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from trainers.config import NetConfig, TaskInfo

KINDS = ("autoencoder", "mlp", "residual", "rnn")
RULES = ("constant", "alternating", "first-half", "growing", "shrinking")


@dataclass(frozen=True, slots=True)
class WidthRule:
    """Widths of hidden layers at any depth, by rule (HR18 Fig. 3; GB10 section 4)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    rule: Literal["constant", "alternating", "first-half", "growing", "shrinking"]
    """constant: a; alternating: a, b, a, ...; first-half: a, then b; growing, shrinking: evenly from a to b."""
    a: int
    """The first width."""
    b: int | None = None
    """The other width, or the last; constant has none."""

    def of(self, depth: int) -> tuple[int, ...]:
        """The widths of so many hidden layers; of an odd number of them the middle one is of the first half."""
        a, b = self.a, self.a if self.b is None else self.b
        if self.rule == "alternating":
            return tuple(b if layer % 2 else a for layer in range(depth))
        if self.rule == "first-half":
            return tuple(a if 2 * layer < depth else b for layer in range(depth))
        last = max(1, depth - 1)
        return tuple(round(a + (b - a) * layer / last) for layer in range(depth))


@dataclass(frozen=True, slots=True)
class Shape:
    """The family that a sweep's nets come from; depth counts hidden layers."""

    info: TaskInfo
    kind: str
    """One of KINDS, or package.module:function."""
    widths: tuple[int, ...] | WidthRule | None = None
    """Widths given by the user: encoder without the inputs (code last), or hidden layers."""
    arrangements: Mapping[str, WidthRule] = field(default_factory=dict)
    """Rules that the parameter `widths` names."""
    eta: float | Mapping[Literal["base"], float] | Sequence[float] = 1.0
    """Factors of residual modules: one for all, powers of a base, or each."""
    code: str = "linear"
    """Activation of an autoencoder's code layer."""
    loss: str = ""
    """The task's where empty."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the user's own function."""

    @property
    def own(self) -> bool:
        """Whether a function of the user's own makes the net."""
        return ":" in self.kind

    @property
    def noun(self) -> str:
        """The kind as texts name it."""
        return {"residual": "residual net", "rnn": "recurrent net"}.get(self.kind, self.kind)

    @property
    def encoder(self) -> tuple[int, ...]:
        """Widths of an autoencoder's deepest encoder, from after the inputs to the code."""
        return self.widths if isinstance(self.widths, tuple) else self.info.encoder[1:]

    @property
    def depths(self) -> list[int] | None:
        """Every depth the model can have, None for any (0 included)."""
        if self.kind == "autoencoder":  # e encoder layers mirrored make 2e weight layers, so 2e-1 hidden ones
            return list(range(1, 2 * len(self.encoder), 2))
        if self.kind == "rnn":
            return [1]
        if self.kind == "residual" and isinstance(self.eta, Sequence):
            return [len(self.eta) + 1]
        return list(range(len(self.widths) + 1)) if isinstance(self.widths, tuple) else None

    @property
    def depth(self) -> int:
        """The depth where the spec names none: as deep as the widths allow; 2 for an MLP without widths."""
        return self.depths[-1] if self.depths else 2

    @property
    def width(self) -> int:
        """The width where the spec names none: S13's 100 for a recurrent net."""
        return 100 if self.kind == "rnn" else 64

    @property
    def activation(self) -> str:
        """The activation where the spec names none: S13's for an autoencoder, GB10's and S13's tanh otherwise."""
        return "sigmoid" if self.kind == "autoencoder" else "tanh"

    @property
    def allowed(self) -> str:
        """The depths in words."""
        if self.depths is None:
            return "a whole number, 0 or more"
        return ", ".join(map(str, self.depths))

    def own_net(self, **searched: Any) -> NetConfig:
        """The net of the user's own function, which gets of `searched` what is not None beside its options."""
        options = {**self.options, **{name: value for name, value in searched.items() if value is not None}}
        return NetConfig(
            (self.info.inputs, self.info.outputs),
            (),
            self.loss or self.info.loss,
            steps=self.info.steps,
            every_step=self.info.every_step,
            module=self.kind,
            options=json.dumps(options, sort_keys=True),
        )

    def net(
        self,
        depth: int,
        activation: str,
        width: int | Literal["depth"],
        arrangement: str | None = None,
        eta_base: float | None = None,
    ) -> NetConfig:
        """The net of a depth; `arrangement` and `eta_base` take the place of the spec's own widths and factors.

        Raises:
            ValueError: the model cannot have that depth.
        """
        if depth < 0 or (self.depths is not None and depth not in self.depths):
            raise ValueError(f"depth={depth}: this {self.noun} can have {self.allowed}")
        names: Sequence[str] = (activation,) * depth
        if self.kind == "autoencoder":
            layers = (depth + 1) // 2
            # a shallower net keeps the code and the widths nearest the inputs
            encoder = (*self.encoder[: layers - 1], self.encoder[-1])
            hidden: Sequence[int] = (*encoder, *encoder[-2::-1])
            names = tuple(self.code if i == layers - 1 else activation for i in range(depth))  # SCIENCE 4.1
        else:
            hidden = self._hidden(depth, width, arrangement)
        return NetConfig(
            (self.info.inputs, *hidden, self.info.outputs),
            tuple(names),
            self.loss or self.info.loss,
            eta=self._eta(depth - 1, eta_base) if self.kind == "residual" else (),
            steps=self.info.steps if self.kind == "rnn" else 0,
            every_step=self.kind == "rnn" and self.info.every_step,
        )

    def _hidden(self, depth: int, width: int | Literal["depth"], arrangement: str | None) -> tuple[int, ...]:
        """Widths of the hidden layers of a net that is no autoencoder."""
        widths = self.widths if arrangement is None else self.arrangements[arrangement]
        if isinstance(widths, WidthRule):
            return widths.of(depth)
        if widths is not None:
            return widths[:depth]
        return (depth if width == "depth" else width,) * depth  # HR18 Fig. 1: as wide as deep

    def _eta(self, modules: int, base: float | None) -> tuple[float, ...]:
        """The factor of each residual module, eta_l = b^l from l = 1 on for a base (HR18 section 3.3)."""
        if base is None and isinstance(self.eta, Mapping):
            base = self.eta["base"]
        if base is not None:
            return tuple(base**module for module in range(1, modules + 1))
        return tuple(self.eta) if isinstance(self.eta, Sequence) else (self.eta,) * modules  # type: ignore[return-value]
