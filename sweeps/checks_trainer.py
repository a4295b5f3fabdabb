"""What a spec may say beside `trainer`: a function of the user's own trains, so musweep's methods have no keys."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sweeps.errors import Problem
from sweeps.schema import Fields
from sweeps.schema_trial import Model, Training
from trainers.tasks.options import TaskError, info

OWN = "a trainer of your own"
_TRAINING = ("updates", "reports")
_NAME = re.compile(r"[^\W\d][\w-]*")


def problems(spec: Fields) -> Iterator[Problem]:
    """Keys that a function of the user's own would never see, and names that it could not be given."""
    if spec.task.name:
        try:
            info(spec.task.name, spec.task.settings)
        except TaskError as error:
            yield Problem("task", str(error))
    elif "task" in spec.model_fields_set and "name" not in spec.task.model_fields_set:
        yield Problem("task.name", "missing")
    for name in spec.space:
        if not _NAME.fullmatch(name):
            yield Problem(f"space.{name}", "not a name", allowed="letters, digits and _, a letter first")
    yield from spec.space.problems(any_name=True)
    if not spec.objective.metric:
        yield Problem("objective", "missing", allowed=f"the name of a metric that {OWN} reports")
    yield from _nothing_for_it(spec)


def _nothing_for_it(spec: Fields) -> Iterator[Problem]:
    """Keys that are about musweep's own nets and methods."""
    wrong = f"{OWN} has nothing to do with it"
    model, training = Model(), Training()
    for key in Model.model_fields:
        if getattr(spec.model, key) != getattr(model, key):
            yield Problem(f"model.{key}", wrong, getattr(spec.model, key), f"space.{key}, which trial.params holds")
    for key in Training.model_fields:
        if key not in _TRAINING and getattr(spec.training, key) != getattr(training, key):
            value = getattr(spec.training, key)
            yield Problem(f"training.{key}", wrong, value, f"space.{key}, which trial.params holds")
    for place, there in (
        ("diagnostics", spec.diagnostics), ("forks", spec.forks), ("start", spec.start),
        ("early_stopping.doomed", spec.early_stopping and spec.early_stopping.doomed),
    ):  # fmt: skip
        if there:
            yield Problem(place, "needs nets of musweep's own", allowed="nothing here, or no trainer")
    stopping = spec.early_stopping
    if stopping is not None and stopping.fork is not None and "fork" in stopping.model_fields_set:
        yield Problem("early_stopping.fork", f"{OWN} cannot be forked", allowed="null")
    if spec.search.group_size not in ("auto", 1):
        wrong = f"{OWN} trains one trial at a time in a worker"
        yield Problem("search.group_size", wrong, spec.search.group_size, "auto, and more resources.workers")
    if spec.resources.engine != "auto":
        yield Problem("resources.engine", f"{OWN} is none", spec.resources.engine, "auto")


def warnings(spec: Fields) -> Iterator[str]:
    """What is allowed but likely not meant."""
    if spec.objective.metric.startswith("test"):
        yield (
            f"objective={spec.objective.metric}: a search that chooses by the test part leaves nothing to judge its "
            "choice by; report one on validation data"
        )
