"""The spec of a sweep: read from YAML, checked, and turned into trials.

`load` reads a file a person wrote; `SweepSpec.model_validate` reads back what `model_dump(mode="json")` wrote,
to an equal spec. Importing this module costs milliseconds: it knows neither torch nor Ray.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from sweeps import checks, describe, faults, reading, rungs
from sweeps.errors import Problem, ProblemsError, SpecError, nearest
from sweeps.schema import Fields
from sweeps.shapes import Shape
from sweeps.space import Params, coerce, point_id
from trainers.config import TASKS, InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo, TrialConfig

__all__ = ["SpecError", "SweepSpec", "json_schema", "load", "parse", "shipped"]

_SPECS = Path(__file__).parent / "specs"


class SweepSpec(Fields):
    """A sweep, as a person writes it; checked, with what the file leaves open filled in."""

    @model_validator(mode="after")
    def _resolve(self) -> SweepSpec:
        """Check what ties keys together, then fill in what the task implies."""
        if found := list(checks.problems(self)):
            raise ProblemsError(found)
        shape = self.shape
        own: dict[str, Any] = {"kind": shape.kind, "activation": self.model.activation or shape.activation}
        if self.model.depth is None and not self._always("depth"):
            own |= {"depth": shape.depth}
        self.model = self.model.model_copy(update=own)
        self.search = self.search.model_copy(update={"points": [coerce(point) for point in self.search.points]})
        if self.early_stopping and self.early_stopping.compare_within is None:
            within = ["depth"] if "depth" in self.space.searched else []
            self.early_stopping = self.early_stopping.model_copy(update={"compare_within": within})
        return self

    def _always(self, name: str) -> bool:
        """Whether every trial takes a name from the space."""
        return name in self.space and not self.space[name].when

    @property
    def info(self) -> TaskInfo:
        """What is known of the task without its data."""
        return TASKS[self.task.name]

    @property
    def shape(self) -> Shape:
        """The family of nets."""
        return checks.shape_of(self)

    @property
    def compare_within(self) -> list[str]:
        """Names in which trials must be alike to be compared at a rung."""
        return list((self.early_stopping and self.early_stopping.compare_within) or [])

    def report_updates(self) -> list[int]:
        """The updates at which every trial is measured, ascending; the last is its end."""
        return rungs.report_updates(self.training.updates, self.training.reports)

    def rungs(self) -> list[int]:
        """The reports at which trials are compared, ascending, each before the end; none without early stopping."""
        stopping, reports = self.early_stopping, self.report_updates()
        if stopping is None:
            return []
        if isinstance(stopping.rungs, list):
            return sorted({rungs.snap(update, reports) for update in stopping.rungs})
        return rungs.auto_rungs(reports, stopping.factor, self.momentum_apart_at())

    def momentum_apart_at(self) -> int:
        """The update at which the smallest searched mu_max is reached: until then trials differ not in it."""
        searched = self.space.get("mu_max")
        if searched is None or "mu_max" not in self.space.searched:
            return 0
        low = min(map(float, searched.values)) if searched.type == "choice" else float(getattr(searched, "low", 0.0))
        return rungs.mu_reached_at(low, checks.smallest(self, "mu_step"))

    def arrivals(self) -> list[tuple[int, int]]:
        """(update, trials expected there) for each rung and for the end."""
        factor = self.early_stopping.factor if self.early_stopping else 1
        return rungs.arrivals(self.budget.trials, self.rungs(), self.training.updates, factor)

    def expected_updates(self) -> int:
        """Updates of all trials together, forks left out, if each rung stops as many as it should."""
        before, total = 0, 0
        for update, trials in self.arrivals():
            total += trials * (update - before)
            before = update
        return total

    def cost_of_forks(self) -> int:
        """Updates spent on forks by all trials together, on top of `expected_updates`."""
        if self.early_stopping is None or self.early_stopping.fork is None:
            return 0
        return self.early_stopping.fork.updates * sum(trials for _, trials in self.arrivals()[:-1])

    def warnings(self) -> list[str]:
        """What is allowed but likely not meant, one line each."""
        return list(checks.warnings(self, self.rungs()))

    def point_id(self, params: Mapping[str, Any]) -> str:
        """A short name of a point, equal for equal points."""
        return point_id(self.space.active(params))

    def net(self, params: Mapping[str, Any]) -> NetConfig:
        """The net of a point."""
        values = self._values(params)
        return self.shape.net(values["depth"], values["activation"], values["width"])

    def trial_config(
        self, number: int, params: Mapping[str, Any], stage: str = "search", replicate: int = 0
    ) -> TrialConfig:
        """What to train for a point; names that it leaves out, or that are not active, stand as the spec fixes them.

        Raises:
            ValueError: a value that no trial can have, such as a depth beyond the model's.
        """
        values = self._values(params)
        method = values["method"]
        return TrialConfig(
            number=number,
            net=self.shape.net(values["depth"], values["activation"], values["width"]),
            init=InitConfig(values["init"], values["init_scale"], values["fan_in"]),
            method=MethodConfig(
                kind=method,
                lr=values["lr"],
                mu_max=0.0 if method == "sgd" else values["mu_max"],
                mu_step=values["mu_step"],
                tail_updates=values["tail_updates"],
                tail_mu=values["tail_mu"],
            ),
            updates=self.training.updates,
            batch=values["batch"],
            seed=SeedConfig(self.search.seed, stage, replicate),
        )

    def _values(self, params: Mapping[str, Any]) -> Params:
        """Every tunable's value at a point."""
        own = {"depth": self.model.depth, "activation": self.model.activation, "width": self.model.width}
        return {**self.training.model_dump(), **own, **self.space.active(params)}


def parse(data: Any, source: str = "spec", overridden: Iterable[str] = ()) -> SweepSpec:
    """The spec that plain data mean.

    Raises:
        SpecError: with everything found wrong, each in a line.
    """
    overridden = list(overridden)
    if not isinstance(data, Mapping):
        wrong = "empty" if data is None else "not a spec"
        raise SpecError([Problem("", wrong, allowed="keys such as task, training, space, budget")], source)
    try:
        return SweepSpec.model_validate({str(key): value for key, value in data.items()})
    except ValidationError as error:
        raise SpecError(faults.problems_of(error), source, overridden) from None


def load(path: str | Path, overrides: Iterable[str] = ()) -> SweepSpec:
    """The spec of a YAML file, with `key.path=value` overrides; a shipped spec by its name alone.

    A sweep's own `spec.json` is read too, without what was resolved when it ran.

    Raises:
        SpecError: with everything found wrong, each in a line.
    """
    path = Path(path)
    if not path.exists() and str(path) in shipped():
        path = shipped()[str(path)]
    source = str(path)
    try:
        data = reading.parse(path.read_text(encoding="utf-8"))
    except ProblemsError as error:
        raise SpecError(error.problems, source) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([_unreadable(path, error)], source) from None
    overridden: list[str] = []
    if isinstance(data, dict):
        if path.suffix == ".json":
            data.pop("resolved", None)
        data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:80] or "sweep")
        try:
            overridden = [reading.override(data, text) for text in overrides]
        except ProblemsError as error:
            raise SpecError(error.problems, source, [problem.path for problem in error.problems]) from None
    return parse(data, source, overridden)


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> Problem:
    """Why a file cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return Problem("", "not text in UTF-8")
    names = shipped()
    hint = nearest(path.stem, names)
    wrong = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
    return Problem("", wrong, allowed=f"a YAML file, or a shipped spec: {', '.join(names)}", hint=hint)


def shipped() -> dict[str, Path]:
    """The specs that come with musweep, by name."""
    return {path.stem: path for path in sorted(_SPECS.glob("*.yaml"))}


def json_schema() -> dict[str, Any]:
    """JSON Schema of a sweep file, for editors: every key with its meaning, short forms included."""
    return describe.json_schema(SweepSpec)
