"""The spec of a sweep: read from YAML, checked, and turned into trials.

`load` reads a file a person wrote; `SweepSpec.model_validate` reads back what `model_dump(mode="json")` wrote,
to an equal spec. Importing this module costs milliseconds: it knows neither torch nor Ray.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from sweeps import (
    checks,
    checks_baselines,
    checks_hf,
    checks_model,
    checks_night,
    describe,
    faults,
    modules,
    reading,
    rungs,
    warm,
)
from sweeps.errors import Problem, ProblemsError, SpecError, nearest
from sweeps.schema import Fields
from sweeps.shapes import Shape
from sweeps.space import Params, coerce, point_id
from trainers.config import InitConfig, MethodConfig, NetConfig, SeedConfig, TaskInfo, TrialConfig
from trainers.config_hf import HFConfig, HFPhase
from trainers.tasks.options import info

__all__ = ["SpecError", "SweepSpec", "json_schema", "load", "parse", "protocols", "shipped"]

_SPECS = Path(__file__).parent / "specs"


class SweepSpec(Fields):
    """A sweep, as a person writes it; checked, with what the file leaves open filled in."""

    @model_validator(mode="before")
    @classmethod
    def _reach(cls, data: Any) -> Any:
        """Find code and data of the user's own, which tasks are asked about."""
        if isinstance(data, Mapping):
            data = dict(data)
            modules.settle_file(data, Path.cwd())
            if data.get("modules") or next(modules.named(data), None):
                modules.settle(data, Path.cwd())
                if isinstance(data.get("modules"), str):  # anything else is reported as a wrong value, later
                    modules.reach(data["modules"])
        return data

    @model_validator(mode="after")
    def _resolve(self) -> SweepSpec:
        """Check what ties keys together, then fill in what the task implies."""
        if found := list(checks.problems(self)):
            raise ProblemsError(found)
        self.protocols = {}  # `load` has chosen one
        self.search = self.search.model_copy(update={"points": [coerce(point) for point in self.search.points]})
        if self.early_stopping is not None:
            own: dict[str, Any] = {"fork": None} if self.trainer else {}
            if self.early_stopping.compare_within is None:
                apart = "depth" in self.space.searched and not self.trainer
                own["compare_within"] = ["depth"] if apart else []
            self.early_stopping = self.early_stopping.model_copy(update=own)
        if not self.trainer:
            self._resolve_nets()
        self.search = warm.settled(self)
        if found := list(checks_baselines.derived(self)):
            raise ProblemsError(found)
        return self

    def _resolve_nets(self) -> None:
        """Fill in what the task implies for the nets."""
        shape = self.shape
        if shape.own:
            return
        own: dict[str, Any] = {"kind": shape.kind, "activation": self.model.activation or shape.activation}
        if self.model.depth is None and not self._always("depth"):
            own |= {"depth": shape.depth}
        own["width"] = self.model.width or shape.width
        self.model = self.model.model_copy(update=own)
        self.training = self.training.model_copy(update={"init": checks_model.init_of(self, shape)})

    def _always(self, name: str) -> bool:
        """Whether every trial takes a name from the space."""
        return name in self.space and not self.space[name].when

    @property
    def info(self) -> TaskInfo:
        """What is known of the task without its data."""
        return info(self.task.name, self.task.settings)

    @property
    def shape(self) -> Shape:
        """The family of nets."""
        return checks_model.shape_of(self)

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
        if stopping is None or stopping.rungs is None:
            return []
        if isinstance(stopping.rungs, list):
            return sorted({rungs.snap(update, reports) for update in stopping.rungs})
        return rungs.auto_rungs(reports, stopping.factor, self.momentum_apart_at())

    def diagnosed(self) -> dict[int, tuple[str, ...]]:
        """What is measured inside nets at which update, 0 before the first."""
        return self.diagnostics.updates(self.report_updates(), self.rungs()) if self.diagnostics else {}

    def momentum_apart_at(self) -> int:
        """The update at which the smallest searched mu_max is reached: until then trials differ not in it."""
        return checks.momentum_apart_at(self)

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
        arrivals = self.arrivals()
        there = {phase.name: next(n for update, n in arrivals if update >= phase.at) for phase in self.forks}
        cost = sum(phase.updates * there[phase.name] for phase in self.forks)
        if self.early_stopping is None or self.early_stopping.fork is None:
            return cost
        return cost + self.early_stopping.fork.updates * sum(trials for _, trials in arrivals[:-1])

    def replicate(self, number: int) -> int:
        """Which replicate of its point a trial is."""
        return number % self.search.seeds if self.start is None else self.start.replicate

    def warnings(self) -> list[str]:
        """What is allowed but likely not meant, one line each."""
        return [
            *checks.warnings(self, self.rungs()),
            *checks_hf.warnings(self),
            *checks_baselines.warnings(self),
            *checks_night.warnings(self),
            *warm.warnings(self.search),
        ]

    def point_id(self, params: Mapping[str, Any]) -> str:
        """A short name of a point, equal for equal points."""
        return point_id(self.space.active(params))

    def net(self, params: Mapping[str, Any]) -> NetConfig:
        """The net of a point."""
        return self._net(self._values(params))

    def trial_config(
        self, number: int, params: Mapping[str, Any], stage: str = "search", replicate: int = 0
    ) -> TrialConfig:
        """What to train for a point; names that it leaves out, or that are not active, stand as the spec fixes them.

        Raises:
            ValueError: a value that no trial can have, such as a depth beyond the model's.
        """
        values = self._values(params)
        values["init"] = values["init"] or InitConfig().kind  # of a net of the user's own, which has its own weights
        values["mu_max"] = values["mu_max"] if values["method"] in checks.WITH_MOMENTUM else 0.0
        return TrialConfig(
            number=number,
            net=self._net(values),
            init=InitConfig(**_fields(InitConfig, values, {"kind": "init", "scale": "init_scale"})),
            method=MethodConfig(**_fields(MethodConfig, values | {"hf": self._hf(values)}, {"kind": "method"})),
            updates=self.training.updates,
            batch=values["batch"],
            seed=SeedConfig(self.search.seed, stage, replicate),
        )

    def config(self, number: int, params: Mapping[str, Any], stage: str = "search", replicate: int = 0) -> Params:
        """All that a worker needs to train a point, as plain values: a TrialConfig's, or those of `trainers.own`."""
        if self.trainer is None:
            return self.trial_config(number, params, stage, replicate).to_dict()
        seed = asdict(SeedConfig(self.search.seed, stage, replicate))
        return {
            "number": number, "trainer": self.trainer, "params": self.space.active(params),
            "updates": self.training.updates, "seed": seed, "batch": 1,
        }  # fmt: skip

    def _values(self, params: Mapping[str, Any]) -> Params:
        """Every tunable's value at a point."""
        own = {"depth": self.model.depth, "activation": self.model.activation, "width": self.model.width}
        return {**self.training.model_dump(), **own, **self.space.active(params)}

    def _hf(self, values: Params) -> HFConfig | None:
        """What HF is told at a point: `training.hf`, where the space does not search it."""
        if values["method"] != "hf":
            return None
        searched = {
            field.name: values[f"hf_{field.name}"] for field in fields(HFConfig) if f"hf_{field.name}" in values
        }
        told = {**values["hf"], **searched}
        phases = tuple(HFPhase(**phase) for phase in told.pop("phases"))
        return HFConfig(**told, phases=phases)

    def _net(self, values: Params) -> NetConfig:
        if self.shape.own:
            return self.shape.own_net(**{name: values[name] for name in ("depth", "width", "activation")})
        return self.shape.net(
            values["depth"], values["activation"], values["width"], values.get("widths"), values.get("eta_base")
        )


def _fields(config: type[InitConfig] | type[MethodConfig], values: Params, named: Mapping[str, str]) -> dict[str, Any]:
    """The values of a config's fields, each from the tunable of its name but for those in `named`."""
    return {field.name: values[named.get(field.name, field.name)] for field in fields(config)}


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


def load(path: str | Path, overrides: Iterable[str] = (), protocol: str | None = None) -> SweepSpec:
    """The spec of a YAML file, in one of its protocols, with `key.path=value` overrides; a shipped one by its name.

    A sweep's own `spec.json` is read too, without what was resolved when it ran.

    Raises:
        SpecError: with everything found wrong, each in a line.
    """
    path, data = _read(path)
    source = str(path)
    overridden: list[str] = []
    if isinstance(data, dict):
        if path.suffix == ".json":
            data.pop("resolved", None)
        data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:80] or "sweep")
        try:
            reading.protocol_of(data, protocol)
            source = f"{path} --protocol {protocol}" if protocol not in (None, "full") else source
            overridden = [reading.override(data, text) for text in overrides]
            if "protocol" in overridden:
                raise ProblemsError([Problem("protocol", "changes no values", allowed="--protocol NAME to choose one")])
        except ProblemsError as error:
            own = [problem.path for problem in error.problems if not problem.path.startswith("protocol")]
            raise SpecError(error.problems, source, own) from None
    missing: list[Problem] = []
    if isinstance(data, dict):
        missing = [*modules.settle(data, path.parent), *modules.settle_file(data, path.parent)]
    try:
        spec = parse(data, source, overridden)
    except SpecError as error:
        more = [problem for problem in error.errors if problem.path != "task" or "task" not in str(missing)]
        raise SpecError([*missing, *more], source, overridden) from None
    if missing:
        raise SpecError(missing, source, overridden)
    if path.suffix != ".json" and (away := list(checks_baselines.nowhere(spec))):
        raise SpecError(away, source, overridden)
    return spec


def protocols(path: str | Path) -> list[str]:
    """The names of a file's protocols, `full` first; none where there are none.

    Raises:
        SpecError: a file that cannot be read.
    """
    _, data = _read(path)
    found = data.get("protocols") if isinstance(data, dict) else None
    return ["full", *map(str, found)] if isinstance(found, dict) and found else []


def _read(path: str | Path) -> tuple[Path, Any]:
    """Where a spec lies, and its data as written."""
    path = Path(path)
    if not path.exists() and str(path) in shipped():
        path = shipped()[str(path)]
    try:
        return path, reading.parse(path.read_text(encoding="utf-8"))
    except ProblemsError as error:
        raise SpecError(error.problems, str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([_unreadable(path, error)], str(path)) from None


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> Problem:
    """Why a file cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return Problem("", "not text in UTF-8")
    names = shipped()
    hint = nearest(path.stem, names)
    wrong = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
    return Problem("", wrong, allowed=f"a YAML file, or a shipped spec: {', '.join(names)}", hint=hint)


def shipped() -> dict[str, Path]:
    """The specs that come with musweep, by name, as in digits and nightly/inits."""
    found = [*sorted(_SPECS.glob("*.yaml")), *sorted(_SPECS.glob("*/*.yaml"))]
    return {path.relative_to(_SPECS).with_suffix("").as_posix(): path for path in found}


def json_schema() -> dict[str, Any]:
    """JSON Schema of a sweep file, for editors: every key with its meaning, short forms included."""
    return describe.json_schema(SweepSpec)
