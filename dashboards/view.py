"""A sweep folder as the report sees it: spec, history, searched parameters, ranking, and how values are written.

Only the standard library and `sweeps.history` are imported, so a report costs no heavy import.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps import history
from sweeps.comparison import Comparison
from sweeps.history import Trial
from sweeps.stages import is_confirm, is_search

NONE = "–"
"""What stands where a trial has no value."""
_STANDING = ("complete", "stopped", "running", "diverged")


@dataclass(frozen=True, slots=True)
class Param:
    """A searched parameter and its axis. `low` and `high` are for numbers, `values` for choices."""

    name: str
    kind: str  # float | int | choice
    scale: str = "linear"  # linear | log | one_minus_log
    low: float = 0.0
    high: float = 1.0
    values: tuple[Any, ...] = ()

    def place(self, value: Any) -> float | None:
        """Where a value lies on the axis: an index, the value, its log10, or -log10(1 - value); None if nowhere."""
        if self.kind == "choice":
            return float(self.values.index(value)) if value in self.values else None
        if not isinstance(value, int | float):
            return None
        if self.scale == "log":
            return math.log10(value) if value > 0 else None
        if self.scale == "one_minus_log":
            return -math.log10(1 - value) if value < 1 else None
        return float(value)

    def span(self) -> tuple[float, float]:
        """The two ends of the axis, as `place` counts."""
        if self.kind == "choice":
            return 0.0, float(max(len(self.values) - 1, 1))
        low, high = self.place(self.low), self.place(self.high)
        return (0.0, 1.0) if low is None or high is None or low == high else (low, high)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Positions of ticks and their texts, in the parameter's own values."""
        if self.kind == "choice":
            return [float(i) for i in range(len(self.values))], [text(self.name, value) for value in self.values]
        if self.scale == "one_minus_log":
            marks = [1 - rest for rest in reversed(log_marks(1 - self.high, 1 - self.low))]
        elif self.scale == "log":
            marks = log_marks(self.low, self.high)
        else:
            marks = linear_marks(self.low, self.high, whole=self.kind == "int")
        return [self.place(mark) or 0.0 for mark in marks], [text(self.name, mark) for mark in marks]


@dataclass(slots=True)
class View:
    """What every part of the report is made from."""

    spec: dict[str, Any]
    history: history.History
    metric: str
    mode: str
    params: list[Param]
    folder: Path | None = None
    comparison: Comparison | None = None
    """What the confirmed trials say; None where none is stored."""
    everything: list[Trial] = field(init=False)
    """The trials of all stages, in order of asking."""
    trials: list[Trial] = field(init=False)
    """The trials of the search, in order of asking: what is ranked, mapped and weighed."""
    ranked: list[Trial] = field(init=False)
    """Trials best first, as the sweep judged them; failed and skipped ones are left out."""

    def __post_init__(self) -> None:
        self.everything = list(self.history.trials.values())
        self.trials = [trial for trial in self.everything if is_search(trial.stage)]
        judged = [trial for trial in self.trials if trial.state not in ("failed", "skipped")]
        self.ranked = sorted(judged, key=self._rank)

    def _rank(self, trial: Trial) -> tuple[int, float, int]:
        """By state, then objective: a trial stopped early was judged worse than those that went on."""
        value = self.value(trial)
        if value is None:
            return len(_STANDING), 0.0, trial.number
        return _STANDING.index(trial.state), -value if self.mode == "max" else value, trial.number

    def value(self, trial: Trial) -> float | None:
        """The objective at the trial's end, or where it stands now; None where it has no finite one."""
        if trial.state == "diverged":
            return None
        if trial.objective is not None:
            return trial.objective if math.isfinite(trial.objective) else None
        points = self.curve(trial)
        return points[-1][1] if points else None

    def curve(self, trial: Trial) -> list[tuple[int, float]]:
        """(update, objective) at each report with a finite one."""
        points = ((update, metrics.get(self.metric)) for update, metrics in sorted(trial.metrics.items()))
        return [(update, value) for update, value in points if value is not None and math.isfinite(value)]

    @property
    def best(self) -> Trial | None:
        """The best complete trial, or the best of the others while none is complete."""
        return self.ranked[0] if self.ranked and self.value(self.ranked[0]) is not None else None

    @property
    def stages(self) -> dict[str, list[Trial]]:
        """Trials by stage, in the order in which the stages began."""
        found: dict[str, list[Trial]] = {}
        for trial in self.everything:
            found.setdefault(trial.stage, []).append(trial)
        return found

    @property
    def counts(self) -> dict[str, int]:
        """Trials by state, states without trials left out."""
        order = ("complete", "stopped", "diverged", "failed", "skipped", "running")
        found = {state: sum(trial.state == state for trial in self.trials) for state in order}
        return {state: count for state, count in found.items() if count}

    @property
    def rungs(self) -> list[int]:
        """Updates at which trials were compared: those of the spec, and all that the journal knows of."""
        given = (self.spec.get("early_stopping") or {}).get("rungs")
        known = {int(rung) for rung in given} if isinstance(given, list) else set()
        chosen = (self.spec.get("resolved") or {}).get("rungs") or ()
        known.update(int(rung) for rung in chosen)
        seen = {update for trial in self.trials for update in trial.promoted}
        seen.update(trial.stopped_at_rung for trial in self.trials if trial.stopped_at_rung is not None)
        # a rung of the spec is moved up to the next report, so once the journal names rungs only those count
        return sorted(seen or known)

    @property
    def updates(self) -> int:
        """Updates of a full-length trial."""
        lengths = [trial.config.get("updates", 0) for trial in self.trials]
        return max(lengths, default=0) or int((self.spec.get("training") or {}).get("updates") or 0)

    def param(self, name: str) -> Param | None:
        """A searched parameter by name."""
        return next((param for param in self.params if param.name == name), None)

    def setting(self, trial: Trial, name: str) -> Any:
        """A trial's value of a searched or fixed method parameter (`method`, `lr`, `mu_max`), or None."""
        if name in trial.params:
            return trial.params[name]
        method = trial.config.get("method") or {}
        return method.get("kind" if name == "method" else name)

    def described(self, trial: Trial) -> str:
        """A trial's searched parameters in words, such as `nag, mu_max 0.991, lr 0.012, sparse, depth 11`."""
        parts = []
        for param in sorted(self.params, key=lambda param: param.name != "method"):
            value = trial.params.get(param.name)
            if value is None or (param.name == "mu_max" and self.setting(trial, "method") == "sgd"):
                continue
            shown = text(param.name, value)
            parts.append(shown if isinstance(value, str) else f"{param.name} {shown}")
        return ", ".join(parts)


def read(folder: Path) -> View:
    """The view of a sweep folder.

    Raises:
        FileNotFoundError: the folder holds no spec.json.
    """
    path = folder / "spec.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder}: no spec.json, so this is not a sweep folder")
    spec = json.loads(path.read_text(encoding="utf-8"))
    objective = spec.get("objective") or "valid_loss"
    metric = objective["metric"] if isinstance(objective, dict) else objective
    params = searched(spec.get("space") or {})
    found = history.load(folder)
    return View(spec, found, metric, spec.get("mode") or "min", params, folder, _comparison(folder, found))


def _comparison(folder: Path, found: history.History) -> Comparison | None:
    """What comparison.json says; worked out anew where that is missing or older than the journal.

    None of a sweep without confirmed trials. Only working it out imports anything heavy.
    """
    confirmed = {t.number for t in found.trials.values() if is_confirm(t.stage) and t.state in ("complete", "diverged")}
    try:
        stored = Comparison.from_dict(json.loads((folder / "comparison.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        stored = None
    if not confirmed or (stored is not None and confirmed == _trials(stored)):
        return stored
    from sweeps.compared import NothingToCompare, compare

    try:
        return compare(folder)
    except NothingToCompare:
        return stored


def _trials(comparison: Comparison) -> set[int]:
    """The sweep's own confirmed trials."""
    return {number for arm in comparison.arms if arm.kind != "sweep" for number in arm.trials}


def searched(space: dict[str, Any]) -> list[Param]:
    """The parameters of a spec's space that can take more than one value."""
    params = []
    for name, entry in space.items():
        if isinstance(entry, list):
            entry = {"type": "choice", "values": entry}
        if not isinstance(entry, dict):
            continue
        kind = entry.get("type")
        if kind == "choice" and len(entry["values"]) > 1:
            params.append(Param(name, "choice", values=tuple(entry["values"])))
        elif kind in ("float", "int") and entry["low"] != entry["high"]:
            params.append(Param(name, kind, entry.get("scale") or "linear", entry["low"], entry["high"]))
    return params


def log_marks(low: float, high: float) -> list[float]:
    """Round numbers (1, 2, 5 times powers of ten; powers alone over long ranges) from low to high."""
    if not 0 < low < high:
        return [low]
    steps = (1, 2, 5) if math.log10(high / low) <= 3.2 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [float(f"{step}e{power}") for power in powers for step in steps]
    inside = [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]
    return inside if len(inside) > 1 else [low, high]


def linear_marks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers from low to high; only whole ones if asked."""
    if not low < high:
        return [low]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float | None, keep_zeros: bool = True) -> str:
    """A number with three significant digits; thousands get commas."""
    if value is None or not math.isfinite(value):
        return NONE if value is None or math.isnan(value) else ("∞" if value > 0 else "-∞")
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-4 <= size < 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        mantissa = mantissa if keep_zeros else mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}"
    shown = f"{value:,.{max(0, 2 - math.floor(math.log10(size)))}f}"
    return shown if keep_zeros or "." not in shown else shown.rstrip("0").rstrip(".")


def text(name: str, value: Any, keep_zeros: bool = False) -> str:
    """A parameter's value as a person reads it; momenta show two digits of their distance from 1."""
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if name in ("mu_max", "tail_mu", "mu") and 0.5 < value < 1:
        shown = f"{value:.{1 - math.floor(math.log10(1 - value) + 1e-9)}f}"
        return shown if keep_zeros else shown.rstrip("0")
    return number(value, keep_zeros)


def duration(seconds: float | None) -> str:
    """A length of time, in its two largest units."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{number(seconds, keep_zeros=False)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def utc(seconds: float | None) -> str:
    """A point in time in UTC, to the second."""
    return NONE if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
