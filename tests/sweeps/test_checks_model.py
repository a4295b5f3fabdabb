"""What cannot go together in a spec, each in one line with what could; and the lines of forks and targets."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.spec import SpecError, parse
from trainers.config import INITS, METHODS

RULE = {"rule": "alternating", "a": 30, "b": 10}
FORK = {"name": "low", "at": 1000, "updates": 500}


def without(names: tuple[str, ...], *gone: str) -> str:
    return ", ".join(name for name in names if name not in gone)


# (task, sections, the line that they are answered with)
MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "rnn of images": (
        "digits", {"model": {"kind": "rnn"}},
        "model.kind=rnn: task digits is no sequence task; allowed: mlp, residual, or one of the tasks add, mul, xor, "
        "mem-5, mem-20, order, order-3bit, permutation; did you mean mlp?",
    ),
    "mlp of sequences": (
        "add", {"model": {"kind": "mlp"}},
        "model.kind=mlp: task add is of sequences, which only a recurrent net reads; allowed: rnn; did you mean rnn?",
    ),
    "deep rnn": (
        "add", {"model": {"depth": 2}},
        "model.depth=2: this recurrent net cannot have that depth; allowed: 1",
    ),
    "sigmoid rnn": (
        "add", {"model": {"activation": "sigmoid"}},
        "model.activation=sigmoid: a recurrent net is of tanh units (S13 section 4); allowed: tanh",
    ),
    "other units of an rnn searched": (
        "add", {"space": {"activation": ["tanh", "relu"]}},
        "space.activation=relu: a recurrent net is of tanh units (S13 section 4); allowed: tanh",
    ),
    "widths of an rnn": (
        "add", {"model": {"widths": [10, 10]}},
        "model.widths=[10, 10]: the hidden layers of a recurrent net have one width; allowed: model.width",
    ),
    "echo init of an mlp": (
        "digits", {"training": {"init": "echo"}},
        f"training.init=echo: this mlp cannot have it; allowed: {without(INITS, 'echo')}",
    ),
    "echo init searched": (
        "digits", {"space": {"init": ["he", "echo"]}},
        f"space.init=echo: this mlp cannot have it; allowed: {without(INITS, 'echo')}",
    ),
    "pre-training of a residual net": (
        "digits", {"model": {"kind": "residual"}, "training": {"init": "pretrained"}},
        f"training.init=pretrained: this residual net cannot have it; allowed: {without(INITS, 'echo', 'pretrained')}",
    ),
    "unknown precision": (
        "digits", {"training": {"precision": "fp16"}},
        "training.precision=fp16: unknown precision; allowed: float32, tf32, bf16; did you mean bf16?",
    ),
    "rounded products of an rnn": (
        "add", {"training": {"precision": "tf32"}},
        "training.precision=tf32: is of feed-forward and residual nets only; allowed: float32",
    ),
    "rounded products one trial after another": (
        "digits", {"training": {"precision": "bf16"}, "resources": {"engine": "loop"}},
        "resources.engine=loop: has float32 only, and training.precision is bf16; allowed: auto, stacked",
    ),
    "diagonal curvature of an rnn": (
        "add", {"training": {"method": "diagonal"}},
        f"training.method=diagonal: this recurrent net cannot have it; allowed: {without(METHODS, 'diagonal')}",
    ),
    "diagonal searched beside nag": (
        "add", {"space": {"method": ["nag", "diagonal"]}},
        f"space.method=diagonal: this recurrent net cannot have it; allowed: {without(METHODS, 'diagonal')}",
    ),
    "widths of a residual net": (
        "digits", {"model": {"kind": "residual", "widths": RULE}},
        'model.widths={"rule": "alternating", "a": 30, "b": 10}: the hidden layers of a residual net have one width; '
        "allowed: model.width",
    ),
    "arrangements of a residual net": (
        "digits", {"model": {"kind": "residual", "arrangements": {"x": RULE}}, "space": {"widths": ["x"]}},
        "space.widths: the hidden layers of a residual net have one width; allowed: model.width, or width in the space",
    ),
    "factors of an mlp": (
        "digits", {"model": {"eta": 0.5}},
        "model.eta: this mlp has no residual modules; allowed: model.kind: residual",
    ),
    "base of an mlp": (
        "digits", {"space": {"eta_base": [1, 0.9]}},
        "space.eta_base: this mlp has no residual modules; allowed: model.kind: residual",
    ),
    "a range of bases": (
        "digits",
        {"model": {"kind": "residual"}, "space": {"eta_base": {"type": "float", "low": 0.5, "high": 1}}},
        "space.eta_base.type=float: each eta_base makes a net of its own, so some values must be listed; "
        "allowed: choice, fixed",
    ),
    "too few factors": (
        "digits", {"model": {"kind": "residual", "depth": 4, "eta": [1, 0.5]}},
        "model.depth=4: this residual net cannot have that depth (model.eta has a factor for each hidden layer but the "
        "first); allowed: 3",
    ),
    "factors given twice": (
        "digits", {"model": {"kind": "residual", "eta": 0.5}, "space": {"eta_base": [1, 0.9]}},
        "model.eta=0.5: has no effect beside space.eta_base; allowed: one of the two",
    ),
    "negative factor": (
        "digits", {"model": {"kind": "residual", "eta": -1}},
        "model.eta=-1: not a factor of the residual modules; allowed: 1, {base: 0.9}, or a list such as [1, 0.5], "
        "all above 0",
    ),
    "unknown arrangement": (
        "digits", {"model": {"arrangements": {"zigzag": RULE}}, "space": {"widths": ["zigzga"]}},
        "space.widths=zigzga: no such arrangement; allowed: zigzag; did you mean zigzag?",
    ),
    "arrangements that nobody chooses": (
        "digits", {"model": {"arrangements": {"zigzag": RULE}}},
        "model.arrangements: has no effect: space.widths does not choose among them; allowed: space.widths: [zigzag]",
    ),
    "width beside widths": (
        "digits", {"model": {"widths": RULE}, "space": {"width": [5, 10]}},
        "space.width: has no effect beside model.widths; allowed: one of the two",
    ),
    "unknown rule": (
        "digits", {"model": {"widths": {"rule": "growin", "a": 5, "b": 9}}},
        "model.widths.rule=growin: unknown rule; allowed: constant, alternating, first-half, growing, shrinking; "
        "did you mean growing?",
    ),
    "rule without its second width": (
        "digits", {"model": {"widths": {"rule": "growing", "a": 5}}},
        'model.widths={"rule": "growing", "a": 5}: rule growing needs a width b; allowed: a whole number, 1 or more',
    ),
    "growing down": (
        "digits", {"model": {"widths": {"rule": "growing", "a": 9, "b": 5}}},
        'model.widths={"rule": "growing", "a": 9, "b": 5}: from a=9 to b=5 is not growing; '
        "allowed: a below b to grow, above to shrink",
    ),
    "widths that are none": (
        "digits", {"model": {"widths": [30, "ten"]}},
        'model.widths=[30, "ten"]: a width is a whole number, 1 or more; '
        "allowed: widths such as [400, 100], or a rule such as {rule: alternating, a: 30, b: 10}",
    ),
    "rule of an autoencoder": (
        "curves", {"model": {"widths": RULE}},
        'model.widths={"rule": "alternating", "a": 30, "b": 10}: an autoencoder is mirrored, no rule; '
        "allowed: a list of widths",
    ),
    "width in words": (
        "digits", {"model": {"width": "dept"}},
        "model.width=dept: not a width; allowed: a whole number, 1 or more, or depth; did you mean depth?",
    ),
    "code of an mlp": (
        "digits", {"model": {"code": "tanh"}},
        "model.code=tanh: this mlp has no code layer; allowed: model.kind: autoencoder",
    ),
    "softmax of an autoencoder": (
        "curves", {"model": {"loss": "softmax"}},
        "model.loss=softmax: not for task curves; allowed: logistic, squared",
    ),
    "fork between reports": (
        "digits", {"forks": [{**FORK, "at": 1010}]},
        "forks.0.at=1010: no report there: they come every 100 updates, the last at 2000; "
        "allowed: a report's update, or other training.reports; did you mean 1100?",
    ),
    "fork past the end": (
        "digits", {"forks": [{**FORK, "updates": 1001}]},
        "forks.0.updates=1001: a fork at 1000 would outlast the trial (2000 updates); allowed: 1 to 1000",
    ),
    "two forks of a name": (
        "digits", {"forks": [FORK, FORK]}, "forks.1.name=low: given twice; allowed: each name once",
    ),
    "unknown key of a fork": (
        "digits", {"forks": [{**FORK, "updatse": 1}]},
        "forks.0.updatse=1: unknown key; allowed: name, at, updates, mu; did you mean updates?",
    ),
    "state kept between reports": (
        "digits", {"training": {"keep": [50]}},
        "training.keep.0=50: no report there: they come every 100 updates, the last at 2000; "
        "allowed: a report's update, or other training.reports; did you mean 100?",
    ),
    "target that is not reported": (
        "digits", {"target": {"metric": "valid_eror", "below": 0.8}},
        "target.metric=valid_eror: task digits does not report it; "
        "allowed: train_loss, train_error, valid_loss, valid_error; did you mean valid_error?",
    ),
    "target beside rungs": (
        "digits", {"target": {"metric": "valid_error", "below": 0.8}, "early_stopping": {}},
        "target: trials that reached the target would be missing from the rungs after it; "
        "allowed: early_stopping: null, or rungs: null in it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("task", "sections", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_has_its_line(task: str, sections: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse({"task": task, **sections})
    assert [found.removeprefix("spec: ") for found in caught.value.lines] == [line]


WARNINGS: dict[str, tuple[dict[str, Any], str]] = {
    "momentum of adam": (
        {"mu_max": [0.5, 0.8], "method": "adam"}, "space.mu_max has no effect: no trial has method cm or nag",
    ),
    "decay of other methods": (
        {"weight_decay": [0.1, 0.01], "method": ["adam", "adamw"]},
        "space.weight_decay matters for method adamw only; add when: {method: adamw} to it",
    ),
    "kappa of other inits": ({"kappa": [1, 2]}, "space.kappa has no effect: no trial has init kappa"),
    "step of another schedule": (
        {"lr_step": [10, 20]}, "space.lr_step has no effect: no trial has lr_schedule step",
    ),
    "first momentum of the ramp": (
        {"mu_first": [0.5, 0.9], "mu_schedule": ["ramp", "first"]},
        "space.mu_first matters for mu_schedule first only; add when: {mu_schedule: first} to it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("space", "line"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_has_no_effect_is_said(space: dict[str, Any], line: str) -> None:
    assert parse({"task": "digits", "space": space}).warnings() == [line]


def test_recurrent_nets_are_not_judged_at_birth() -> None:
    data = {"task": "add", "space": {"lr": [0.1, 0.2]}, "early_stopping": {"rungs": None, "doomed": True}}
    assert parse(data).warnings() == ["early_stopping.doomed has no effect: recurrent nets are not judged"]


def test_a_condition_on_a_parent_speaks_for_what_hangs_on_it() -> None:
    space = {
        "method": ["nag", "adam"],
        "mu_schedule": {"type": "choice", "values": ["ramp", "first"], "when": {"method": "nag"}},
        "mu_step": {"type": "int", "low": 1, "high": 9, "when": {"mu_schedule": "ramp"}},
    }
    assert parse({"task": "digits", "space": space}).warnings() == []


def test_a_precision_on_a_cpu_is_warned_of() -> None:
    spec = {"task": {"name": "digits"}, "training": {"precision": "tf32"}, "space": {"method": ["nag", "hf"]},
            "objective": "valid_error", "budget": {"trials": 4}, "early_stopping": None}  # fmt: skip
    told = parse(spec).warnings()
    assert "training.precision: on a CPU tf32 shows what it does to errors, and is slower than float32" in told
    assert "training.precision: trials of hf compute in float32, not in tf32" in told
