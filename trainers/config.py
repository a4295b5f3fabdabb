"""What a trial is, as frozen dataclasses: importable in milliseconds, without torch or numpy.

Shape letters used in every file of this room: K trials of a stack, B examples of a batch,
N examples of a split, I/O input and output features of a layer, L weight layers.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

METHODS = ("sgd", "cm", "nag")
INITS = ("sparse", "standard", "normalized", "he")
ACTIVATIONS = ("sigmoid", "tanh", "relu", "softsign", "linear")
LOSSES = ("logistic", "squared", "softmax")
ENGINES = ("loop", "stacked")


@dataclass(frozen=True, slots=True)
class NetConfig:
    """The shape of a feed-forward net; trials with equal nets and batches can be stacked.

    `widths` runs from the inputs to the outputs, `hidden` names one activation for each of the
    `len(widths) - 2` hidden layers. `loss` implies the output: `logistic` is cross-entropy summed over
    logistic outputs, `squared` the sum of squares of linear outputs (no 1/2), `softmax` the negative
    log-likelihood of a class; each is averaged over the cases of a batch (SCIENCE 4.1).
    """

    widths: tuple[int, ...]
    hidden: tuple[str, ...]
    loss: str

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"widths={self.widths}: at least an input and an output, each 1 or wider")
        if len(self.hidden) != len(self.widths) - 2:
            raise ValueError(f"hidden={self.hidden}: {len(self.widths) - 2} hidden layers need as many activations")
        for name in self.hidden:
            if name not in ACTIVATIONS:
                raise ValueError(f"activation {name!r}: one of {', '.join(ACTIVATIONS)}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r}: one of {', '.join(LOSSES)}")

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(fan-in, fan-out) of each weight layer, first to last."""
        return tuple(zip(self.widths[:-1], self.widths[1:], strict=True))

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(fan_in * fan_out + fan_out for fan_in, fan_out in self.layers)

    @property
    def flops(self) -> int:
        """Multiply-adds x 2 of one example's forward and backward pass (no input gradient of layer 1)."""
        products = [fan_in * fan_out for fan_in, fan_out in self.layers]
        return 2 * (3 * sum(products) - products[0])


@dataclass(frozen=True, slots=True)
class InitConfig:
    """How weights start. `scale` multiplies them (S13 Table 3); `fan_in` is for `sparse` only (S13 3.1)."""

    kind: str = "sparse"
    scale: float = 1.0
    fan_in: int = 15

    def __post_init__(self) -> None:
        if self.kind not in INITS:
            raise ValueError(f"init {self.kind!r}: one of {', '.join(INITS)}")
        if not self.scale > 0 or self.fan_in < 1:
            raise ValueError(f"init scale={self.scale}, fan_in={self.fan_in}: both must be positive")


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """A momentum method and its schedule (S13 eq. 5), `lr` contained in the velocity as S13 writes it.

    `mu_step` is the 250 of eq. 5. In the last `tail_updates` updates mu is at most `tail_mu`.
    """

    kind: str
    lr: float
    mu_max: float = 0.0
    mu_step: int = 250
    tail_updates: int = 0
    tail_mu: float = 0.9

    def __post_init__(self) -> None:
        if self.kind not in METHODS:
            raise ValueError(f"method {self.kind!r}: one of {', '.join(METHODS)}")
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be positive")
        for name in ("mu_max", "tail_mu"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be in [0, 1)")
        if self.mu_step < 1 or self.tail_updates < 0:
            raise ValueError(f"mu_step={self.mu_step}, tail_updates={self.tail_updates}: at least 1 and 0")


@dataclass(frozen=True, slots=True)
class SeedConfig:
    """Where a trial's randomness comes from: never from place, time, slot or group."""

    sweep: int
    stage: str = "search"
    replicate: int = 0

    def stream(self, name: str) -> int:
        """A 63-bit seed for one stream (`init`, `data`), equal on every machine."""
        text = f"{self.sweep}/{self.stage}/{self.replicate}/{name}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, slots=True)
class TrialConfig:
    """One point with one seed: everything an engine needs to train it."""

    number: int
    net: NetConfig
    init: InitConfig
    method: MethodConfig
    updates: int
    batch: int
    seed: SeedConfig

    def __post_init__(self) -> None:
        if self.updates < 1 or self.batch < 1:
            raise ValueError(f"updates={self.updates}, batch={self.batch}: both must be positive")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrialConfig:
        """The inverse of `to_dict`, also after a trip through JSON."""
        net = data["net"]
        return cls(
            number=data["number"],
            net=NetConfig(tuple(net["widths"]), tuple(net["hidden"]), net["loss"]),
            init=InitConfig(**data["init"]),
            method=MethodConfig(**data["method"]),
            updates=data["updates"],
            batch=data["batch"],
            seed=SeedConfig(**data["seed"]),
        )


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What is known of a task before its data are read: enough to check a spec.

    `encoder` (autoencoders) holds the papers' widths from the input to the code. `metrics` are reported for
    the parts `train` and `valid` in search, as `train_loss`, `valid_error` and so on.
    """

    name: str
    kind: str  # autoencoder | classification
    inputs: int
    outputs: int
    loss: str
    metrics: tuple[str, ...]
    encoder: tuple[int, ...] = ()
    note: str = ""

    @property
    def objectives(self) -> tuple[str, ...]:
        """The metric names that a search may minimise or maximise."""
        return tuple(f"{part}_{metric}" for part in ("train", "valid") for metric in self.metrics)


_ERRORS = ("loss", "squared_error")
TASKS: dict[str, TaskInfo] = {
    info.name: info
    for info in (
        TaskInfo(
            "curves", "autoencoder", 784, 784, "logistic", _ERRORS, (784, 400, 200, 100, 50, 25, 6),
            "look-alike of CURVES (SCIENCE 4.3) unless the original digs3pts_1.mat is given",
        ),
        TaskInfo("mnist-ae", "autoencoder", 784, 784, "logistic", _ERRORS, (784, 1000, 500, 250, 30)),
        TaskInfo("mnist", "classification", 784, 10, "softmax", ("loss", "error")),
        TaskInfo("digits", "classification", 64, 10, "softmax", ("loss", "error")),
    )
}  # fmt: skip
