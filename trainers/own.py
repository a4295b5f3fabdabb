"""Trials that are trained by a function of the user's own: `trainer: package.module:function`.

The function is called with a `Trial` and hands over measurements with `trial.report`. It runs in a thread that stands
still in `report` until it is told to go on: so it trains only while its worker waits for it, and may be ended there.
"""

from __future__ import annotations

import io
import random
import re
import threading
import time
import traceback
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainers import checkpoint
from trainers.config import SeedConfig

if TYPE_CHECKING:
    from trainers.tasks import Task

PATIENCE_S = 30.0  # how long a function that was told to end may take to clean up
_LONGEST = 500  # characters of an error's line; the traceback has all of it
_METRIC = re.compile(r"\w+([ .:/-]\w+)*")
_CONTAINERS = (dict, OrderedDict, Counter, list, tuple, set)
_PLAIN = (str, bytes, bool, int, float, complex, type(None), torch.Size, torch.device, torch.dtype)


class StopTrial(BaseException):
    """Ends the function of a trial that is over. No error: let it pass; `finally` is there to clean up."""


class ReportError(ValueError):
    """A report that cannot be taken; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class OwnConfig:
    """One point with one seed, for a function of the user's own; `batch` is 1, so that its work counts updates."""

    number: int
    trainer: str
    params: Mapping[str, Any]
    updates: int
    seed: SeedConfig
    batch: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OwnConfig:
        """The inverse of `to_dict`, also after a trip through JSON."""
        return cls(**{**data, "seed": SeedConfig(**data["seed"])})


@dataclass(frozen=True, slots=True)
class OwnState:
    """What a function gave to `report` as its state, as bytes that `torch.load` reads without unpickling code."""

    update: int
    data: bytes

    @classmethod
    def of(cls, update: int, state: Any) -> OwnState:
        """The state as it stands now. Raises ReportError for what cannot be stored."""
        _check_state(state, "state")
        file = io.BytesIO()
        torch.save(state, file)
        return cls(update, file.getvalue())

    def value(self) -> Any:
        """What was given, its tensors on the CPU."""
        return torch.load(io.BytesIO(self.data), weights_only=True, map_location="cpu")

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Name every number, as `TrialState.to_arrays` does."""
        return {"update": np.array(self.update, np.int64), "state": np.frombuffer(self.data, np.uint8)}


def unpack(data: bytes, wanted: Iterable[int] | None = None) -> dict[int, OwnState]:
    """The wanted states (all by default) of an archive that `checkpoint.pack` made. Raises DamagedStateError."""
    found = checkpoint.arrays(data, None if wanted is None else set(wanted))
    try:
        return {number: OwnState(int(named["update"]), named["state"].tobytes()) for number, named in found.items()}
    except KeyError as error:
        raise checkpoint.DamagedStateError(f"damaged state archive: no {error}") from error


def _check_state(value: Any, place: str) -> None:
    if isinstance(value, torch.Tensor) or type(value) in _PLAIN:
        return
    if type(value) not in _CONTAINERS:
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        hint = "torch.from_numpy(it)" if isinstance(value, np.ndarray) else "its state_dict(), or plain values"
        if isinstance(value, np.generic):
            hint = "int(it) or float(it)"
        raise ReportError(
            f"{place} is a {kind}: tensors, numbers, text and containers of them can be kept; give {hint}"
        )
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        if isinstance(value, dict):
            _check_state(key, f"a key of {place}")
        _check_state(inner, f"{place}[{key!r}]")


@dataclass(frozen=True, slots=True)
class Report:
    """What a function handed over at an update; `state` is live, so it is good only while the function stands still."""

    update: int
    metrics: dict[str, float]
    state: Any = None


@dataclass(frozen=True, slots=True)
class Said:
    """What came of letting a function go on: its next report, or its end with the last one (None: it gave none)."""

    last: Report | None
    returned: bool = False
    failed: str = ""
    """The error in one line."""
    traceback: str = ""
    seconds: float = 0.0


def _print(report: Report) -> None:
    print(f"update {report.update}:", ", ".join(f"{name} {value:.6g}" for name, value in report.metrics.items()))


@dataclass(slots=True)
class Trial:
    """What a training function is given. Made by hand, `Trial({"lr": 0.1}, updates=100)`, it prints its reports."""

    params: Mapping[str, Any]
    """The values of the space that are active at this trial's point."""
    updates: int
    """How many updates to train; what an update is, the function says."""
    seed: int = 0
    """A number below 2^63 from the sweep's seed and the replicate; torch, numpy and random were seeded with it."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where to train."""
    number: int = 0
    """The trial's number, 12 for t00012."""
    reports: tuple[int, ...] = ()
    """Updates at which the spec asks for measurements, ascending, the rungs and the end among them."""
    rungs: tuple[int, ...] = ()
    """Updates at which trials are compared: each must be reported."""
    task: Task | None = None
    """The task's data where the spec names a task."""
    state: Any = None
    """What was last given to `report` as state, if the trial goes on after an interruption; tensors on the CPU."""
    start: int = 0
    """The update of that state: updates already done."""
    needed: tuple[str, ...] = ()
    """Metrics that every report must hold: the objective, and the target's."""
    _hear: Callable[[Report], None] = _print
    _last: Report | None = None

    def due(self, update: int) -> bool:
        """Whether the spec asks for measurements at an update."""
        place = bisect_left(self.reports, update)
        return place < len(self.reports) and self.reports[place] == update

    def report(self, update: int, state: Any = None, **metrics: Any) -> None:
        """Hand over measurements at an update, and return to go on.

        An update counts from 1 and is reported once, in growing order; each of `rungs` must be among them. What was
        given as `state` at the newest kept report comes back as `trial.state` when the trial goes on later.

        Raises:
            ReportError: the report cannot be taken.
            StopTrial: the trial is over; let it pass.
        """
        if isinstance(update, bool) or not isinstance(update, int | np.integer):
            raise ReportError(f"report at update {update!r}: not a whole number")
        report = Report(int(update), {name: _number(name, value) for name, value in metrics.items()}, state)
        before = self._last.update if self._last else self.start
        self._check(report, before)
        self._last = report
        self._hear(report)

    def _check(self, report: Report, before: int) -> None:
        update = report.update
        where = f"report at update {update}"
        if update <= before:
            again = f"update {before} has been reported" if before else "updates count from 1"
            raise ReportError(f"{where}: {again}; the next report comes after it")
        if update > self.updates:
            raise ReportError(f"{where}: the trial ends at {self.updates} (training.updates)")
        if missed := [rung for rung in self.rungs if before < rung < update]:
            raise ReportError(
                f"{where}: trials are compared at update {missed[0]}, which was not reported; report wherever "
                "trial.due(update) is true"
            )
        if missing := [name for name in self.needed if name not in report.metrics]:
            names = ", ".join(report.metrics) or "no metrics at all"
            raise ReportError(f"{where}: gives {names}, but the spec judges trials by {missing[0]}")


def _number(name: str, value: Any) -> float:
    if not _METRIC.fullmatch(name):  # MLflow would refuse it, and with it all that it comes with
        raise ReportError(f"metric {name!r}: a name is of letters, digits and _, parted by one of - . : / or a space")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ReportError(f"metric {name}={value!r:.60}: not a number") from None


class _Call:
    """One call of a function, in a thread that trains only between `next` and its answer."""

    def __init__(self, function: Callable[[Trial], object], trial: Trial, threads: int) -> None:
        self.unheard = 0
        """Reports up to this update have been heard before and are passed over."""
        self._function, self._trial, self._threads = function, trial, threads
        self._said: SimpleQueue[Said] = SimpleQueue()
        self._turns: SimpleQueue[bool] = SimpleQueue()
        self._over = False
        self._since = 0.0
        self._thread = threading.Thread(target=self._run, name=f"trial {trial.number}", daemon=True)
        trial._hear = self._heard

    def next(self) -> Said:
        """Let the function go on to its next report, or to its end."""
        self._since = time.perf_counter()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._turns.put(True)
        return self._said.get()

    def stop(self) -> None:
        """End the function where it stands, and wait for it to clean up."""
        self._over = True
        if self._thread.is_alive():
            self._turns.put(False)
            self._thread.join(PATIENCE_S)

    def _heard(self, report: Report) -> None:
        """In the function's thread: say a report, and stand still until someone asks for more."""
        if self._over:
            raise StopTrial
        if report.update <= self.unheard:
            self._since = time.perf_counter()
            return
        if report.state is not None:
            _check_state(report.state, "state")
        if report.update == self._trial.updates:  # the end is said when the function has returned
            return
        self._said.put(Said(report, seconds=time.perf_counter() - self._since))
        if not self._turns.get():
            raise StopTrial

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        torch.manual_seed(self._trial.seed)
        np.random.seed(self._trial.seed % 2**32)
        random.seed(self._trial.seed)
        line, trace, trial = "", "", self._trial
        try:
            self._function(trial)
        except StopTrial:
            pass
        except BaseException as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
            own = error.__traceback__.tb_next if error.__traceback__ else None  # without the line above
            trace = "".join(traceback.format_exception(type(error), error, own))
        last = trial._last
        if not line and last is None and not trial.start and not self.unheard:
            line = "returned without a report"
        self._said.put(Said(last, not line, line, trace, time.perf_counter() - self._since))


class OwnGroup:
    """The trials of a worker that trains by a function of the user's own.

    Args:
        function: what is called with a Trial.
        needed: metrics that every report must hold.
        reports: updates at which the spec asks for measurements.
        rungs: those that must be reported.
        threads: torch's threads for the function.
    """

    def __init__(
        self,
        function: Callable[[Trial], object],
        needed: Iterable[str] = (),
        reports: Iterable[int] = (),
        rungs: Iterable[int] = (),
        *,
        task: Task | None = None,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self._function, self._needed, self._task, self._threads = function, tuple(needed), task, threads
        self._reports, self._rungs, self._device = tuple(reports), tuple(rungs), torch.device(device)
        self._calls: dict[int, _Call] = {}
        self._live: dict[int, Report] = {}

    def add(self, config: OwnConfig, state: OwnState | None = None) -> None:
        """Take a trial in, from `state` or from its first update. Raises ValueError when its number is taken."""
        if config.number in self._calls:
            raise ValueError(f"trial {config.number} is already in this group")
        trial = Trial(
            config.params, config.updates, config.seed.stream("trainer"), self._device, config.number,
            self._reports, self._rungs, self._task, None if state is None else state.value(),
            0 if state is None else state.update, self._needed,
        )  # fmt: skip
        self._calls[config.number] = _Call(self._function, trial, self._threads)

    def remove(self, number: int) -> None:
        """End a trial's function and forget it. Raises KeyError when there is none of that number."""
        self._live.pop(number, None)
        self._calls.pop(number).stop()

    def close(self) -> None:
        """End all functions."""
        for number in list(self._calls):
            self.remove(number)

    def catch_up(self, number: int, update: int) -> None:
        """Have a trial's reports up to an update pass unheard: they were heard before the worker was started anew."""
        self._calls[number].unheard = update

    def next(self, number: int) -> Said:
        """Let a trial's function go on to its next report, or to its end."""
        self._live.pop(number, None)
        said = self._calls[number].next()
        if said.last is not None and said.last.state is not None and not said.failed:
            self._live[number] = said.last
        return said

    def holds_state(self, number: int) -> bool:
        """Whether a state came with the report that a trial stands at."""
        return number in self._live

    def state(self, number: int) -> OwnState | None:
        """What the function gave with the report that it stands at, None if it gave nothing there."""
        report = self._live.get(number)
        return None if report is None else OwnState.of(report.update, report.state)
