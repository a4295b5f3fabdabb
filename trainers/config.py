"""What a trial is, as frozen dataclasses: importable in milliseconds, without torch or numpy.

Shape letters used in every file of this room: K trials of a stack, B examples of a batch,
N examples of a split, I/O input and output features of a layer, L weight layers, T steps of a sequence,
H hidden units of a recurrent net.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from trainers.config_hf import HFConfig, HFPhase

MOMENTUM_METHODS = ("sgd", "cm", "nag")
METHODS = (*MOMENTUM_METHODS, "adam", "adamw", "diagonal", "hf")
MU_SCHEDULES = ("ramp", "constant", "first", "nesterov")
LR_SCHEDULES = ("constant", "step", "cosine")
INITS = (
    "sparse", "sparse-distinct", "standard", "normalized", "normalized-normal", "lecun", "he", "he-uniform",
    "he-truncated", "he-truncated-corrected", "kappa", "orthogonal", "echo", "pretrained",
)  # fmt: skip
ACTIVATIONS = ("sigmoid", "tanh", "relu", "softsign", "linear")
LOSSES = ("logistic", "squared", "softmax")
ENGINES = ("loop", "stacked")
PRECISIONS = ("float32", "tf32", "bf16")
DIAGNOSTICS = ("activations", "gradients", "lengths", "jacobian", "histograms")


@dataclass(frozen=True, slots=True)
class NetConfig:
    """The shape of a net; trials with equal nets and batches can be stacked.

    `widths` runs from the inputs to the outputs, `hidden` names one activation for each of the
    `len(widths) - 2` hidden layers. `loss` implies the output: `logistic` is cross-entropy summed over
    logistic outputs, `squared` the sum of squares of linear outputs (no 1/2), `softmax` the negative
    log-likelihood of a class; each is averaged over the cases of a batch (SCIENCE 4.1).

    With `eta` the net is residual: h_1 = f(W_1 x + b_1), then h_l = h_(l-1) + eta_l f(W_l h_(l-1) + b_l) for
    each further hidden layer (HR18 section 3.3), all as wide as the first; eta holds one factor for each but the first.

    With `steps` it is a recurrent tanh net of one hidden layer, read for so many steps from h_0 = 0:
    h_t = tanh(W [x_t, h_(t-1)] + b) (S13 section 4). `every_step` says whether there is an output, and a loss, at
    every step (summed over the scored steps) or at one step of each sequence.

    With `module` it is whatever that function of the user's own makes of its inputs and outputs, all that `widths`
    holds, and of `options`, arguments by name as JSON (`trainers/module.py`).
    """

    widths: tuple[int, ...]
    hidden: tuple[str, ...]
    loss: str
    eta: tuple[float, ...] = ()
    steps: int = 0
    every_step: bool = False
    module: str = ""
    options: str = ""

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
        if self.eta and (len(self.eta) != len(self.hidden) - 1 or len(set(self.widths[1:-1])) > 1):
            raise ValueError(
                f"eta of {len(self.eta)} modules, hidden widths {self.widths[1:-1]}: a residual net has hidden layers "
                "of one width and a factor for each but the first"
            )
        if self.steps and not self.module and (self.hidden != ("tanh",) or self.eta):
            raise ValueError(f"hidden={self.hidden}: a recurrent net has one hidden layer, tanh")
        if self.every_step and self.loss != "softmax":
            raise ValueError(f"loss {self.loss!r}: a net with an output at every step has softmax")
        if self.steps < 0 or (self.every_step and not self.steps):
            raise ValueError(f"steps={self.steps}: 1 or more for a recurrent net, 0 for a feed-forward one")

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each weight matrix, first to last: fan-in and fan-out of a layer.

        A recurrent net has two: [x_t, h_(t-1)] to h_t, the inputs' rows first, and h_t to the outputs. Those of a net
        of the user's own are not known.
        """
        if self.module:
            return ()
        if self.steps:
            inputs, hidden, outputs = self.widths
            return ((inputs + hidden, hidden), (hidden, outputs))
        return tuple(zip(self.widths[:-1], self.widths[1:], strict=True))

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(rows * columns + columns for rows, columns in self.layers)

    @property
    def flops(self) -> int:
        """Multiply-adds x 2 of one example's forward and backward pass (no gradient with respect to the inputs).

        Not known of a net of the user's own: 1.
        """
        if self.module:
            return 1
        if self.steps:
            inputs, hidden, outputs = self.widths
            answers = self.steps if self.every_step else 1
            return 2 * (self.steps * (2 * inputs * hidden + 3 * hidden * hidden) + answers * 3 * hidden * outputs)
        products = [fan_in * fan_out for fan_in, fan_out in self.layers]
        return 2 * (3 * sum(products) - products[0])

    @property
    def product_cost(self) -> float:
        """Arithmetic of one example's Gauss-Newton product over that of its gradient, activations being kept.

        A forward pass of derivatives takes two products a layer, the way back as many; at the first layer one and
        one, its input having no derivative. Of a net of the user's own, 2: it has to be run forward again.
        """
        if self.module:
            return 2.0
        if self.steps:
            inputs, hidden, outputs = self.widths
            answers = self.steps if self.every_step else 1
            product = self.steps * (2 * inputs * hidden + 4 * hidden * hidden) + answers * 4 * hidden * outputs
            return 2 * product / self.flops
        products = [fan_in * fan_out for fan_in, fan_out in self.layers]
        return 2 * (4 * sum(products) - 2 * products[0]) / self.flops

    @property
    def forward_cost(self) -> float:
        """Arithmetic of one example's forward pass over that of its gradient; 1/3 of a net of the user's own."""
        if self.module:
            return 1 / 3
        if self.steps:
            inputs, hidden, outputs = self.widths
            answers = self.steps if self.every_step else 1
            return 2 * (self.steps * (inputs + hidden) * hidden + answers * hidden * outputs) / self.flops
        return 2 * sum(fan_in * fan_out for fan_in, fan_out in self.layers) / self.flops


@dataclass(frozen=True, slots=True)
class InitConfig:
    """How weights start; what each kind means is in `inits.py`. `scale` multiplies the weights of any (S13 Table 3).

    Of some kinds only: `fan_in` incoming weights (`sparse`, `sparse-distinct`, `echo`; S13 3.1); `kappa`, the
    variance kappa / fan-in (`kappa`; HR18); `spectral_radius` of the recurrent weights and `input_scale`, the
    standard deviation of the input weights (`echo`; S13 Table 4); and of `pretrained` the denoising autoencoders'
    `pretrain_updates` a layer, `pretrain_lr` and share of inputs set to 0, `corruption`.
    """

    kind: str = "sparse"
    scale: float = 1.0
    fan_in: int = 15
    kappa: float = 2.0
    spectral_radius: float = 1.1
    input_scale: float = 0.1
    pretrain_updates: int = 1000
    pretrain_lr: float = 0.01
    corruption: float = 0.25

    def __post_init__(self) -> None:
        if self.kind not in INITS:
            raise ValueError(f"init {self.kind!r}: one of {', '.join(INITS)}")
        if not self.scale > 0 or self.fan_in < 1:
            raise ValueError(f"init scale={self.scale}, fan_in={self.fan_in}: both must be positive")
        for name in ("kappa", "spectral_radius", "input_scale", "pretrain_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"init {name}={getattr(self, name)}: must be positive")
        if self.pretrain_updates < 0 or not 0 <= self.corruption < 1:
            raise ValueError(
                f"init pretrain_updates={self.pretrain_updates}, corruption={self.corruption}: "
                "must be 0 or more, and in [0, 1)"
            )


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """How a trial is trained: the method, the schedule of its momentum and of its learning rate (`optim.py`).

    sgd, cm and nag contain `lr` in the velocity, as S13 writes them. Their momentum follows `mu_schedule`: `ramp`
    is S13 eq. 5 with `mu_step` for its 250; `constant` is mu_max throughout; `first` is `mu_first` for
    `mu_first_updates` updates, then mu_max (S13 section 4); `nesterov` is (a_t - 1) / a_(t+1), at most mu_max (S13
    section 2). In the last `tail_updates` updates mu is at most `tail_mu`.

    adam and adamw know `beta1`, `beta2`, `epsilon`, adamw also `weight_decay`. diagonal divides each parameter's step
    by `damping` plus a running mean (`beta2`) of its diagonal curvature (GB10 section 5).

    hf is Hessian-free optimisation, as `hf` says; it knows no lr. Its updates count work: after `updates` of them it
    has done at most what as many gradients of `batch` examples cost, and stands where its last whole outer iteration
    within that ended.

    The learning rate of any other method rises over the first `lr_warmup` updates, and stays, falls by `lr_factor`
    every `lr_step` updates (`step`) or as half a cosine to 0 at the end (`cosine`).
    """

    kind: str
    lr: float
    mu_max: float = 0.0
    mu_step: int = 250
    tail_updates: int = 0
    tail_mu: float = 0.9
    mu_schedule: str = "ramp"
    mu_first: float = 0.9
    mu_first_updates: int = 1000
    lr_schedule: str = "constant"
    lr_warmup: int = 0
    lr_step: int = 1000
    lr_factor: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    damping: float = 0.1
    hf: HFConfig | None = None

    def __post_init__(self) -> None:
        if (self.hf is not None) != (self.kind == "hf"):
            object.__setattr__(self, "hf", HFConfig() if self.kind == "hf" else None)
        for name, names in (("kind", METHODS), ("mu_schedule", MU_SCHEDULES), ("lr_schedule", LR_SCHEDULES)):
            if getattr(self, name) not in names:
                word = "method" if name == "kind" else name
                raise ValueError(f"{word} {getattr(self, name)!r}: one of {', '.join(names)}")
        for name in ("lr", "epsilon", "damping"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")
        for name in ("mu_max", "tail_mu", "mu_first", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be in [0, 1)")
        if self.mu_step < 1 or self.lr_step < 1:
            raise ValueError(f"mu_step={self.mu_step}, lr_step={self.lr_step}: at least 1")
        for name in ("tail_updates", "mu_first_updates", "lr_warmup", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: 0 or more")
        if not 0 < self.lr_factor <= 1:
            raise ValueError(f"lr_factor={self.lr_factor}: must be in (0, 1]")

    @property
    def family(self) -> str:
        """Methods of one family can share an engine: momentum, adam, diagonal or hf."""
        if self.kind in MOMENTUM_METHODS:
            return "momentum"
        return self.kind if self.kind in ("diagonal", "hf") else "adam"


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
        net: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data["net"].items()
        }
        method = dict(data["method"])
        if method.get("hf") is not None:
            phases = tuple(HFPhase(**phase) for phase in method["hf"].get("phases", ()))
            method["hf"] = HFConfig(**{**method["hf"], "phases": phases})
        return cls(
            number=data["number"],
            net=NetConfig(**net),
            init=InitConfig(**data["init"]),
            method=MethodConfig(**method),
            updates=data["updates"],
            batch=data["batch"],
            seed=SeedConfig(**data["seed"]),
        )


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What is known of a task before its data are read: enough to check a spec.

    `inputs` and `outputs` are those of one example, of one step for sequences of up to `steps` steps; `every_step`
    says that each step has a target, and the last `recall` steps are the answer. `encoder` (autoencoders) holds the
    papers' widths from the input to the code. `metrics` are reported for the parts `train` and `valid` in search, as
    `train_loss`, `valid_error` and so on.
    """

    name: str
    kind: str  # autoencoder | classification | regression | sequence
    inputs: int
    outputs: int
    loss: str
    metrics: tuple[str, ...]
    encoder: tuple[int, ...] = ()
    note: str = ""
    steps: int = 0
    every_step: bool = False
    recall: int = 0

    @property
    def objectives(self) -> tuple[str, ...]:
        """The metric names that a search may minimise or maximise."""
        return tuple(f"{part}_{metric}" for part in ("train", "valid") for metric in self.metrics)


_ERRORS = ("loss", "squared_error")
_CLASSES = ("loss", "error")
_SYMBOLS = ("loss", "recall_errors", "errors")
TASKS: dict[str, TaskInfo] = {
    info.name: info
    for info in (
        TaskInfo(
            "curves", "autoencoder", 784, 784, "logistic", _ERRORS, (784, 400, 200, 100, 50, 25, 6),
            "look-alike of CURVES (SCIENCE 4.3) unless the original digs3pts_1.mat is given",
        ),
        TaskInfo("mnist-ae", "autoencoder", 784, 784, "logistic", _ERRORS, (784, 1000, 500, 250, 30)),
        TaskInfo("mnist", "classification", 784, 10, "softmax", _CLASSES),
        TaskInfo("digits", "classification", 64, 10, "softmax", _CLASSES),
        TaskInfo(
            "faces", "autoencoder", 625, 625, "squared", _ERRORS, (625, 2000, 1000, 500, 30),
            "look-alike of FACES (SCIENCE 4.2) unless the original newfaces_rot_single.mat is given",
        ),
        TaskInfo("cifar10", "classification", 3072, 10, "softmax", _CLASSES),
        TaskInfo("small-imagenet", "classification", 37 * 37, 10, "softmax", _CLASSES),
        TaskInfo(
            "shapeset", "classification", 32 * 32, 9, "softmax", _CLASSES, (),
            "look-alike of Shapeset-3x2 (SCIENCE 10), drawn online",
        ),
        TaskInfo("add", "sequence", 2, 1, "squared", _CLASSES, steps=88),
        TaskInfo("mul", "sequence", 2, 1, "squared", _CLASSES, steps=88),
        TaskInfo("xor", "sequence", 2, 1, "logistic", _CLASSES, steps=88),
        TaskInfo("mem-5", "sequence", 4, 3, "softmax", _SYMBOLS, steps=210, every_step=True, recall=5),
        TaskInfo("mem-20", "sequence", 7, 6, "softmax", _SYMBOLS, steps=100, every_step=True, recall=10),
        TaskInfo("order", "sequence", 6, 4, "softmax", _CLASSES, steps=80),
        TaskInfo("order-3bit", "sequence", 6, 8, "softmax", _CLASSES, steps=80),
        TaskInfo("permutation", "sequence", 100, 100, "softmax", _CLASSES, steps=79, every_step=True),
    )
}  # fmt: skip
"""Each task with its default options; `tasks.options.info` knows what options change."""
