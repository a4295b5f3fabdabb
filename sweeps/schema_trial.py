"""The keys of a sweep file that say what a trial is: task, model, training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sweeps.errors import nearest
from sweeps.schema_values import Count, OneOf, OneOfOrOwn, Section, Seed, TaskName, Tunable, refuse, whole
from sweeps.shapes import KINDS, RULES, WidthRule
from trainers.config import ACTIVATIONS, LOSSES, PRECISIONS
from trainers.config_hf import HF_GRADIENTS
from trainers.tasks.options import CENTRES, ENTRIES


class Task(Section):
    """What is learned: data, loss and metrics, and how much of the data is used."""

    name: Annotated[str, TaskName("task", tuple(ENTRIES))] = ""
    """The task; package.module:function for one of your own; empty only beside a trainer that needs none."""
    examples: Count | None = None
    """Train on the first so many examples only; null for all."""
    file: str | None = None
    """Data of your own, a file or a folder (for curves: digs3pts_1.mat); null for the built-in or downloaded data."""
    seed: Seed = 0
    """Seed of generated data and of the split; trials of all sweeps share it."""
    holdout: Seed | None = None
    """Training examples held out as valid where the data bring none (mnist, mnist-ae); 0 trains on all, as S13 did."""
    size: Count | None = None
    """Side of drawn images in pixels; null: the papers'."""
    length: Count | None = None
    """T of a sequence task, in the papers' sense (docs/tasks.md); null: the paper's."""
    centre: Annotated[str, OneOf("centring", CENTRES["mul"])] | None = None
    """From what of add, mul or xor the mean is subtracted (S13 section 4); null: from all that can be centred."""
    classes: Count | None = None
    """How many classes your own data have."""
    loss: Annotated[str, OneOf("loss", LOSSES)] | None = None
    """What is trained on your own data."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of your own task's function, by name."""

    @property
    def settings(self) -> dict[str, Any]:
        """What `trainers.tasks.load` takes beside the name: all that is set."""
        return {key: value for key, value in self.model_dump(exclude={"name"}).items() if value not in (None, {})}


def _rule(value: Any) -> Any:
    """A rule of widths, every mistake in it told here: pydantic would scatter them over the members of a union."""
    allowed = "a rule, as in {rule: alternating, a: 30, b: 10}"
    if not isinstance(value, Mapping) or "rule" not in value:
        refuse("not a rule of widths", allowed)
    if value["rule"] not in RULES:
        refuse("unknown rule", ", ".join(RULES), nearest(value["rule"], RULES), below="rule")
    wanted = ("a",) if value["rule"] == "constant" else ("a", "b")
    if extra := [key for key in value if key not in ("rule", *wanted) and value[key] is not None]:
        refuse(f"rule {value['rule']} has no such key", f"rule, {', '.join(wanted)}", below=str(extra[0]))
    found: dict[str, Any] = {"rule": value["rule"]}
    for key in wanted:
        found[key] = whole(value.get(key))
        if isinstance(found[key], bool) or not isinstance(found[key], int) or found[key] < 1:
            refuse(f"rule {value['rule']} needs a width {key}", "a whole number, 1 or more")
    a, b = found["a"], found.get("b", 0)
    if (value["rule"] == "growing" and a >= b) or (value["rule"] == "shrinking" and a <= b):
        refuse(f"from a={a} to b={b} is not {value['rule']}", "a below b to grow, above to shrink")
    return found


def _widths(value: Any) -> Any:
    if value is None or isinstance(value, Mapping):
        return value if value is None else _rule(value)
    allowed = "widths such as [400, 100], or a rule such as {rule: alternating, a: 30, b: 10}"
    if not isinstance(value, list) or not value:
        refuse("not widths", allowed)
    found = [whole(width) for width in value]
    if any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in found):
        refuse("a width is a whole number, 1 or more", allowed)
    return found


def _width(value: Any) -> Any:
    value = whole(value)
    if value not in (None, "depth") and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        refuse("not a width", "a whole number, 1 or more, or depth", nearest(value, ["depth"]))
    return value


def _factor(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        refuse("not a factor of the residual modules", "1, {base: 0.9}, or a list such as [1, 0.5], all above 0")
    return float(value)


def _eta(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping) and list(value) == ["base"]:
        return {"base": _factor(value["base"])}
    if isinstance(value, list) and value:
        return [_factor(each) for each in value]
    return _factor(value)


_RULE = Annotated[WidthRule, BeforeValidator(_rule)]
_Width = int | Literal["depth"] | None
_Eta = float | dict[Literal["base"], float] | list[float] | None
_LIST_OR_RULE = list[Count] | WidthRule | None


class Model(Section):
    """The family of nets; null means what suits the task, and is filled in."""

    kind: Annotated[str, OneOfOrOwn("kind of model", KINDS)] | None = None
    """autoencoder (mirrored), mlp, residual (hidden layers of one width), rnn (one tanh layer), or a function of your
    own, package.module:function (docs/own-model.md); default: the task's."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of your own model's function, by name."""
    depth: Annotated[int, Tunable("depth")] | None = None
    """Hidden layers, where the space does not search them; default: as deep as widths allow, else 2; 1 of an rnn."""
    activation: Annotated[str, OneOf("activation", ACTIVATIONS)] | None = None
    """Of all hidden layers but the code; default: sigmoid for an autoencoder, tanh otherwise."""
    code: Annotated[str, OneOf("activation", ACTIVATIONS)] | None = None
    """Activation of an autoencoder's code layer; default: linear."""
    width: Annotated[_Width, BeforeValidator(_width, json_schema_input_type=_Width)] = None
    """Units of each hidden layer but an autoencoder's; depth: as wide as deep (HR18). Default: 64, of an rnn 100."""
    widths: Annotated[_LIST_OR_RULE, BeforeValidator(_widths, json_schema_input_type=_LIST_OR_RULE)] = None
    """Widths of your own: an autoencoder's encoder after the inputs, code last; an mlp's hidden layers, or a rule."""
    arrangements: dict[str, _RULE] = Field(default_factory=dict)
    """Rules of widths by name, for the parameter `widths` of the space to choose from."""
    eta: Annotated[_Eta, BeforeValidator(_eta, json_schema_input_type=_Eta)] = None
    """Factors of a residual net's modules: one number for all, {base: b} for b, b^2, ..., or a list. Default: 1."""
    loss: Annotated[str, OneOf("loss", LOSSES)] | None = None
    """Loss, and with it the output: logistic, squared (linear outputs) or softmax; default: the task's."""


class HFTrainingPhase(Section):
    """A part of an HF run; what is null is as for the rest."""

    until: Annotated[float, Field(gt=0, le=1)]
    """Share of the trial's work at which it ends."""
    adapt: bool | None = None
    """As in hf."""
    gradient: Annotated[str, OneOf("hf gradient", HF_GRADIENTS)] | None = None
    """As in hf."""
    chunks: Count | None = None
    """As in hf."""
    cg_max: Count | None = None
    """As in hf."""
    cg_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """As in hf."""
    l2: Annotated[float, Field(ge=0)] | None = None
    """As in hf."""
    line_search: bool | None = None
    """As in hf."""
    step: Annotated[float, Field(gt=0)] | None = None
    """As in hf."""
    step_decay: Annotated[float, Field(ge=0)] | None = None
    """As in hf."""
    step_from: Seed | None = None
    """As in hf."""


class HFTraining(Section):
    """Hessian-free optimisation, where the method is hf; S13 A.6's momentum-like variant is `phases` of it."""

    damping: Annotated[float, Tunable("hf_damping")] = 45.0
    """Damping at the start, on the curvature's mean over examples."""
    adapt: bool = True
    """Whether the damping follows the Levenberg-Marquardt rule; false: it stays."""
    cg_max: Annotated[int, Tunable("hf_cg_max")] = 250
    """CG steps of an outer iteration at most."""
    cg_decay: Annotated[float, Tunable("hf_cg_decay")] = 0.95
    """What the last solution is multiplied by where CG starts; it plays the role of mu (S13 section 5)."""
    cg_tolerance: Annotated[float, Field(gt=0)] = 0.0005
    """CG stops when its progress per step falls below this share of the model's decrease."""
    preconditioner: Annotated[float, Field(ge=0)] = 0.75
    """Power of the diagonal preconditioner; 0 for none."""
    l2: Annotated[float, Tunable("hf_l2")] = 2e-5
    """Weight decay, part of HF's objective, on biases too; measured errors leave it out."""
    chunks: Annotated[int, Tunable("hf_chunks")] = 4
    """Equal parts of the training set whose curvature is used, one in turn."""
    gradient: Annotated[str, OneOf("hf gradient", HF_GRADIENTS)] = "full"
    """full: of the whole training set; chunk: of the part whose curvature is used (S13 A.6)."""
    line_search: bool = True
    """Back-tracking over CG's iterates, then Armijo's line search; false: a step of fixed size (S13 A.6)."""
    step: Annotated[float, Field(gt=0)] = 1.0
    """Size of a step without line search."""
    step_decay: Annotated[float, Field(ge=0)] = 0.0
    """Above 0 the step without line search is step_decay / (t - step_from) of outer iteration t."""
    step_from: Seed = 0
    """See step_decay."""
    structural: Annotated[float, Tunable("hf_structural")] = 0.0
    """Structural damping of recurrent nets, as a multiple of the damping."""
    phases: list[HFTrainingPhase] = Field(default_factory=list)
    """Parts of the run with values of their own, each up to a share of its work; after the last as above."""


class Training(Section):
    """How every trial is trained where the space does not say otherwise."""

    updates: Count = 2000
    """Updates of a trial that is not stopped early."""
    batch: Annotated[int, Tunable("batch")] = 100
    """Examples per update."""
    reports: Count = 20
    """Measurements of a trial, evenly spread; the last one at its end."""
    keep: list[Count] = Field(default_factory=list)
    """Reports at which the state of each trial is kept in the sweep's folder, for `musweep fork`."""
    method: Annotated[str, Tunable("method")] = "nag"
    """sgd, cm (classical momentum), nag (Nesterov's), adam, adamw, or diagonal (steps over the diagonal curvature)."""
    lr: Annotated[float, Tunable("lr")] = 0.01
    """Learning rate."""
    lr_schedule: Annotated[str, Tunable("lr_schedule")] = "constant"
    """constant, step (times lr_factor every lr_step updates), or cosine (half a cosine down to 0 at the end)."""
    lr_warmup: Annotated[int, Tunable("lr_warmup")] = 0
    """Updates over which the learning rate rises to what its schedule says; 0 for none."""
    lr_step: Annotated[int, Tunable("lr_step")] = 1000
    """Updates per step of the step schedule."""
    lr_factor: Annotated[float, Tunable("lr_factor")] = 0.1
    """What each step of the step schedule multiplies the learning rate by."""
    mu_max: Annotated[float, Tunable("mu_max")] = 0.9
    """Where the momentum schedule of cm and nag ends."""
    mu_schedule: Annotated[str, Tunable("mu_schedule")] = "ramp"
    """ramp (S13 eq. 5), constant, first (mu_first, then mu_max: S13 section 4), or nesterov (his original sequence)."""
    mu_step: Annotated[int, Tunable("mu_step")] = 250
    """Updates per step of the ramp (S13 eq. 5); scale it with `updates` in short runs."""
    mu_first: Annotated[float, Tunable("mu_first")] = 0.9
    """Momentum of the first updates under schedule first."""
    mu_first_updates: Annotated[int, Tunable("mu_first_updates")] = 1000
    """How many updates that is."""
    tail_updates: Annotated[int, Tunable("tail_updates")] = 0
    """Last updates, trained with momentum of at most `tail_mu`; 0 for none."""
    tail_mu: Annotated[float, Tunable("tail_mu")] = 0.9
    """Momentum of the last updates."""
    beta1: Annotated[float, Tunable("beta1")] = 0.9
    """Decay of adam's mean of gradients."""
    beta2: Annotated[float, Tunable("beta2")] = 0.999
    """Decay of adam's mean of squared gradients, or of diagonal's mean curvature."""
    epsilon: Annotated[float, Tunable("epsilon")] = 1e-8
    """What adam adds to the root it divides by."""
    weight_decay: Annotated[float, Tunable("weight_decay")] = 0.01
    """Share of the weights, times the learning rate, that adamw takes off in each update."""
    damping: Annotated[float, Tunable("damping")] = 0.1
    """What diagonal adds to the curvature it divides by."""
    precision: Annotated[str, OneOf("precision", PRECISIONS)] = "float32"
    """Of the factors of products of matrices: float32, tf32 (11 bits), bf16 (8); all else is float32 (docs/gpu.md)."""
    hf: HFTraining = Field(default_factory=HFTraining)
    """Hessian-free optimisation, where the method is hf."""
    init: Annotated[str, Tunable("init")] | None = None
    """How weights start; default: sparse, echo for sequence tasks."""
    init_scale: Annotated[float, Tunable("init_scale")] = 1.0
    """Factor on the initial weights."""
    fan_in: Annotated[int, Tunable("fan_in")] = 15
    """Incoming weights of a unit under init sparse, sparse-distinct and echo."""
    kappa: Annotated[float, Tunable("kappa")] = 2.0
    """Variance of the weights times the fan-in under init kappa (HR18)."""
    spectral_radius: Annotated[float, Tunable("spectral_radius")] = 1.1
    """Of the recurrent weights under init echo (S13 Table 4)."""
    input_scale: Annotated[float, Tunable("input_scale")] = 0.1
    """Standard deviation of the input weights under init echo (S13 Table 4: .001 for add and mul)."""
    pretrain_updates: Annotated[int, Tunable("pretrain_updates")] = 1000
    """Updates of each layer's denoising autoencoder under init pretrained."""
    pretrain_lr: Annotated[float, Tunable("pretrain_lr")] = 0.01
    """Their learning rate."""
    corruption: Annotated[float, Tunable("corruption")] = 0.25
    """Share of a layer's inputs set to 0 while its autoencoder learns to restore them."""
    eval_examples: Count = 500
    """Examples of train and of valid on which trials are measured."""
