"""What a spec may say of a model of the user's own: its function makes the net, so nothing here is known of it."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.errors import Problem
from sweeps.schema import Fields
from sweeps.schema_trial import Model, Training

_OWN = "a model of your own"
_WEIGHTS = (
    "init", "init_scale", "fan_in", "kappa", "spectral_radius", "input_scale", "pretrain_updates", "pretrain_lr",
    "corruption",
)  # fmt: skip


def problems(spec: Fields) -> Iterator[Problem]:
    """Keys about nets of musweep's own kinds, and methods that need to know the net."""
    model, training = Model(), Training()
    options = "model.options, arguments of its function"
    for key in ("widths", "arrangements", "eta", "code"):
        if getattr(spec.model, key) != getattr(model, key):
            yield Problem(f"model.{key}", f"{_OWN} has nothing to do with it", allowed=options)
    for key in ("widths", "eta_base"):
        if key in spec.space:
            yield Problem(f"space.{key}", f"{_OWN} has nothing to do with it", allowed="depth, width, activation")
    wrong = f"the weights of {_OWN} are as its function makes them"
    for key in _WEIGHTS:
        if getattr(spec.training, key) != getattr(training, key):
            yield Problem(f"training.{key}", wrong, getattr(spec.training, key), options)
        if key in spec.space:
            yield Problem(f"space.{key}", wrong, allowed=options)
    wrong = f"the curvature of {_OWN} is not known"
    methods = spec.space["method"].values or [] if "method" in spec.space else []
    for place, there in (("training", spec.training.method == "diagonal"), ("space", "diagonal" in methods)):
        if there:
            yield Problem(f"{place}.method", wrong, "diagonal", "sgd, cm, nag, adam, adamw")
    for place, there in (
        ("diagnostics", spec.diagnostics is not None),
        ("early_stopping.doomed", spec.early_stopping is not None and spec.early_stopping.doomed is not None),
    ):
        if there:
            yield Problem(place, f"the layers of {_OWN} are not known", allowed="null")
    if spec.resources.engine != "auto":
        yield Problem("resources.engine", f"{_OWN} has an engine of its own", spec.resources.engine, "auto")
