"""Last phases without training what came before them again (S13 Table 2: mu lowered at the end).

There are two ways, both deterministic, both going on after a kill with the same bits:

- `forks` in a spec: at a report each trial is copied, the copy trained on at low momentum and measured, as rungs do;
  the measurements are rows of the trial, which goes on at mu_max and so is the control. One sweep then answers for all
  its points and seeds at once, nothing is stored, and a resume that repeats the report repeats the fork.
- `musweep fork`: a new sweep whose trials all start from one stored state of a finished trial, whatever is varied
  (mu_max, lr, the tail, a method of the same family). The state is copied into the new sweep's folder, which then needs
  the old one no more. States are kept at the end of a complete trial and at `training.keep`; batches go on as the
  trial's would have, being a function of the sweep's seed, the replicate and the update.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import places, reading, remote, stages
from sweeps.errors import Problem, ProblemsError
from sweeps.history import Trial, trial_id
from sweeps.parameters import TUNABLE
from sweeps.schema import Start
from sweeps.space import Params
from sweeps.spec import SpecError, SweepSpec, parse
from trainers.config import METHODS, MethodConfig, TrialConfig

if TYPE_CHECKING:
    from trainers.state import TrialState

START = "start.npz"
"""The state that a sweep starts from, in its own folder."""


def model_path(folder: Path, number: int) -> Path:
    """Where the last state of a complete trial lies."""
    return folder / "models" / f"{trial_id(number)}.npz"


def state_path(folder: Path, number: int, update: int) -> Path:
    """Where a state kept on the way lies."""
    return folder / "states" / f"{trial_id(number)}-{update}.npz"


def stored_state(folder: Path, start: Start) -> bytes:
    """The packed state that a sweep is to start from.

    Raises:
        FileNotFoundError: no such state was kept.
    """
    from sweeps import history

    name, path = trial_id(start.trial), state_path(folder, start.trial, start.at)
    if remote.want(path, folder):
        return path.read_bytes()
    kept = {int(stem.rpartition("-")[2]) for stem in remote.stems(folder, "states") if stem.startswith(f"{name}-")}
    if remote.want(model_path(folder, start.trial), folder):
        last = history.load(folder).trials[start.trial].updates
        if last == start.at:
            return model_path(folder, start.trial).read_bytes()
        kept.add(last)
    there = f"there are {', '.join(map(str, sorted(kept)))}" if kept else "there is none"
    raise FileNotFoundError(
        f"{folder}: no state of {name} at update {start.at}: {there}; states are kept at the end of complete trials "
        "and at the reports that training.keep names"
    )


def read_start(folder: Path, spec: SweepSpec) -> TrialState | None:
    """The state that a sweep's trials start from, if it has one."""
    if spec.start is None:
        return None
    from trainers.checkpoint import unpack

    remote.want(folder / START, folder)
    (state,) = unpack((folder / START).read_bytes()).values()
    return state


def spec_of(
    folder: Path, data: dict[str, Any], trial: Trial, at: int, updates: int | None, overrides: Sequence[str]
) -> SweepSpec:
    """The spec of a sweep that forks a trial: all as the trial had it but for the overrides.

    A tunable's name alone stands for its place in the space: `tail_updates=[0, 200]` are two trials.

    Args:
        folder: the trial's sweep; `data` is its spec.json.
        at: the update of the stored state; `updates` more are trained, by default to where the trial ended.

    Raises:
        SpecError: overrides that make no sound spec, or nets and methods that the state does not fit.
    """
    parent = SweepSpec.model_validate({key: value for key, value in data.items() if key != "resolved"})
    if parent.trainer is None and (stage := stages.by_name(parent).get(trial.stage)) is not None:
        parent = stages.trained(stage.spec, trial.config["updates"])  # HF's method and settings are not the sweep's
    if parent.trainer is not None:
        wrong = "what it kept is its own affair: a trainer of your own cannot be forked"
        raise SpecError([Problem("trainer", wrong, parent.trainer)], f"fork of {folder}")
    plain, total = parent.model_dump(mode="json"), parent.training.updates if updates is None else at + updates
    step = -(-parent.training.updates // parent.training.reports)
    training = {**plain["training"], "updates": total, "reports": max(1, total // step), "keep": []}
    start = {
        "sweep": places.remote_of(folder) or str(folder),
        "trial": trial.number,
        "at": at,
        "replicate": trial.replicate,
    }
    data = {
        **plain,
        "name": f"{parent.name[:75]}-fork",
        "training": training,
        "space": {name: {"type": "fixed", "value": value} for name, value in trial.params.items()},
        "search": {"algorithm": "grid", "seed": parent.search.seed},
        "budget": {"trials": 1},
        "start": start,
        **dict.fromkeys(("early_stopping", "target", "diagnostics", "confirm", "night")),
        "forks": [],
        "baselines": [],
        "compare": {},
    }
    if "widths" not in trial.params:
        data["model"] = {**plain["model"], "arrangements": {}}
    source = f"fork of {folder}"
    texts = [f"space.{text}" if re.split("[.=]", text)[0].strip() in TUNABLE else text for text in overrides]
    try:
        overridden = [reading.override(data, text) for text in texts]
    except ProblemsError as error:
        raise SpecError(error.problems, source, [problem.path for problem in error.problems]) from None
    spec = parse(data, source, overridden)
    points = spec.space.grid(spec.search.grid)
    _check_fits(spec, points, TrialConfig.from_dict(trial.config), source, overridden)
    if "budget.trials" in overridden:
        return spec
    return spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": len(points)})})


def _check_fits(
    spec: SweepSpec, points: Sequence[Params], stored: TrialConfig, source: str, overridden: Sequence[str]
) -> None:
    """Refuse trials that could not go on from a state."""
    for config in (spec.trial_config(0, point) for point in points):
        if config.net != stored.net:
            wrong = "another net than the trial's, whose state could not be taken over"
            raise SpecError(
                [Problem("space", wrong, allowed="the trial's own depth, widths and task")], source, overridden
            )
        if config.method.family != stored.method.family:
            allowed = ", ".join(name for name in METHODS if MethodConfig(name, 1.0).family == stored.method.family)
            wrong = f"the state is of {stored.method.kind}, which keeps something else"
            raise SpecError([Problem("space.method", wrong, config.method.kind, allowed)], source, overridden)
