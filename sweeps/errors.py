"""What is wrong with a spec, in one line each: where, the value, why, what is allowed, the nearest name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


class _Absent:
    """The value of a key that is not there; None is a value of its own (YAML null)."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()
_SHOWN = 60

_SYNONYMS = {
    "learning_rate": "lr",
    "eta": "lr",
    "eps": "lr",
    "momentum": "mu_max",
    "mu": "mu_max",
    "optimizer": "method",
    "optimiser": "method",
    "nesterov": "nag",
    "gd": "sgd",
    "classical": "cm",
    "initialization": "init",
    "initialisation": "init",
    "glorot": "normalized",
    "xavier": "normalized",
    "kaiming": "he",
    "layers": "depth",
    "hidden_layers": "depth",
    "hidden": "width",
    "nonlinearity": "activation",
    "steps": "updates",
    "iterations": "updates",
    "epochs": "updates",
    "max_trials": "trials",
    "n_trials": "trials",
    "time": "wall",
    "timeout": "wall",
    "asha": "early_stopping",
    "halving": "early_stopping",
    "pruner": "early_stopping",
    "sampler": "algorithm",
    "dataset": "task",
    "data": "task",
    "metric": "objective",
    "minimize": "min",
    "maximize": "max",
    "categorical": "choice",
    "uniform": "float",
    "loguniform": "log",
}
"""What users of other tools write, and our word for it."""


def nearest(name: object, names: Iterable[str]) -> str:
    """The known name that a mistyped or foreign one most likely means, or an empty string."""
    known = {known.lower(): known for known in names}
    wanted = str(name).lower()
    synonym = _SYNONYMS.get(wanted)
    if synonym in known:
        return known[synonym]
    close = difflib.get_close_matches(wanted, list(known), n=1, cutoff=0.6)
    return known[close[0]] if close else ""


def show(value: object) -> str:
    """A value as YAML would have it on one line, cut where it gets long."""
    if isinstance(value, str) and value.isprintable() and value.strip() == value and value:
        text = value
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec.

    `path` is the key path as `--set` takes it, `wrong` a clause about `value`, `allowed` what would do
    instead (a clause beginning with a noun), `hint` the nearest name.
    """

    path: str
    wrong: str
    value: Any = ABSENT
    allowed: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = self.path if self.value is ABSENT else f"{self.path}={show(self.value)}"
        text = f"{place}: {self.wrong}" if place else self.wrong
        text += f"; allowed: {self.allowed}" if self.allowed else ""
        text += f"; did you mean {self.hint}?" if self.hint else ""
        return " ".join(text.split())


class ProblemsError(ValueError):
    """Carries the problems of a check through pydantic to the one place that words them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(list(problems))
        self.problems = list(problems)


class SpecError(ValueError):
    """A spec that cannot be run. `lines` holds one line for each problem; `str` is the first of them."""

    def __init__(self, errors: Sequence[Problem], source: str, overridden: Sequence[str] = ()) -> None:
        super().__init__(list(errors), source, list(overridden))
        self.errors = list(errors)
        self.source = source
        self.overridden = list(overridden)

    def _line(self, problem: Problem) -> str:
        """A problem behind its source: the file, or `--set` where the command line set that very key."""
        for path in self.overridden:
            if problem.path == path or problem.path.startswith(f"{path}."):
                return f"--set {problem}"
        return f"{self.source}: {problem}"

    @property
    def lines(self) -> list[str]:
        """One line for each problem."""
        return [self._line(problem) for problem in self.errors]

    def __str__(self) -> str:
        more = len(self.errors) - 1
        return self.lines[0] + (f" (and {more} more)" if more else "")
