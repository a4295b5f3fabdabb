"""From a task, a depth and widths to the net that is trained, and which depths a model can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainers.config import NetConfig, TaskInfo


@dataclass(frozen=True, slots=True)
class Shape:
    """The family that a sweep's nets come from; depth counts hidden layers."""

    info: TaskInfo
    kind: str
    """autoencoder or mlp."""
    widths: tuple[int, ...] | None
    """Widths given by the user: encoder without the inputs (code last), or hidden layers."""

    @property
    def encoder(self) -> tuple[int, ...]:
        """Widths of an autoencoder's deepest encoder, from after the inputs to the code."""
        return self.widths or self.info.encoder[1:]

    @property
    def depths(self) -> list[int] | None:
        """Every depth the model can have, None for any (0 included)."""
        if self.kind == "autoencoder":  # e encoder layers mirrored make 2e weight layers, so 2e-1 hidden ones
            return list(range(1, 2 * len(self.encoder), 2))
        return list(range(len(self.widths) + 1)) if self.widths else None

    @property
    def depth(self) -> int:
        """The depth where the spec names none: as deep as the widths allow; 2 for an MLP without widths."""
        return self.depths[-1] if self.depths else 2

    @property
    def activation(self) -> str:
        """The activation where the spec names none: S13's for an autoencoder, GB10's tanh otherwise."""
        return "sigmoid" if self.kind == "autoencoder" else "tanh"

    @property
    def allowed(self) -> str:
        """The depths in words."""
        if self.depths is None:
            return "a whole number, 0 or more"
        return ", ".join(map(str, self.depths))

    def net(self, depth: int, activation: str, width: int) -> NetConfig:
        """The net of a depth.

        Raises:
            ValueError: the model cannot have that depth.
        """
        if depth < 0 or (self.depths is not None and depth not in self.depths):
            raise ValueError(f"depth={depth}: this {self.kind} can have {self.allowed}")
        if self.kind == "autoencoder":
            layers = (depth + 1) // 2
            # a shallower net keeps the code and the widths nearest the inputs
            encoder = (*self.encoder[: layers - 1], self.encoder[-1])
            hidden: Sequence[int] = (*encoder, *encoder[-2::-1])
            names = tuple("linear" if i == layers - 1 else activation for i in range(depth))  # SCIENCE 4.1
        else:
            hidden = self.widths[:depth] if self.widths else (width,) * depth
            names = (activation,) * depth
        return NetConfig((self.info.inputs, *hidden, self.info.outputs), names, self.info.loss)
