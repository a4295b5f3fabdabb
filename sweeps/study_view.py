"""A sweep as an Optuna study in a database, for Optuna Dashboard: one way, from the journal.

Nothing is ever read back from it. The study's name is the sweep's id, its trials have the sweep's numbers, and it can
be dropped and made again at will. Optuna is imported where it is needed, since that takes a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeps import folder as folders
from sweeps import journal, stages, tracked
from sweeps.history import History, Trial
from sweeps.parameters import Choice, Fixed, Parameter
from sweeps.spec import SweepSpec

DATABASE = "MUSWEEP_DATABASE"
"""The environment's name for the database where running sweeps are shown."""
FILE = "study.db"
"""Where a sweep's study lies in its folder, if no other place is named."""
ALIVE = "musweep.alive"
"""The study's attribute that a living driver renews: a number that means nothing but to be another one each time."""
ALIVE_S = 30.0
BATCH = 200  # trials whose curves are written by one statement
POLL_S = 2.0
LEAVE_S = 5.0  # how long the end of a sweep may wait for its study
BACKOFF_S = (1.0, 60.0)

Progress = Callable[[int, int], None]


class StudyBusy(RuntimeError):
    """Another process writes this sweep's study right now."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A trial in Optuna's terms; `state` is the name of a TrialState."""

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    curve: dict[int, float]
    attrs: dict[str, Any]
    start: float
    end: float | None


def shown(trial: Trial, shapes: Mapping[str, Parameter], worst: float, living: bool) -> Shown:
    """What Optuna is told of a trial, as the search tells its own study (DESIGN 4).

    Stopped trials are pruned, with their curve; diverged and skipped ones are pruned with the worst value there is.
    A running trial of a sweep that no driver runs is WAITING: it is taken up again by a resume.
    """
    curve, value = dict(trial.scores), None
    if trial.state == "complete" and trial.objective is not None:
        state, value = "COMPLETE", trial.objective
    elif trial.state == "failed":
        state = "FAIL"
    elif trial.state == "running":
        state = "RUNNING" if living else "WAITING"
    else:
        state = "PRUNED"
        if trial.state != "stopped":
            curve[trial.updates] = worst
    known = {name: _plain(given) for name, given in trial.params.items() if _fits(shapes.get(name), given)}
    attrs = {
        "trial": trial.id, "stage": trial.stage, "point": trial.point_id, "replicate": trial.replicate,
        **{f"param.{name}": given for name, given in trial.params.items() if name not in known},
    }  # fmt: skip
    return Shown(trial.number, state, value, known, curve, attrs, trial.asked_at, trial.ended_at)


def shapes_of(spec: SweepSpec) -> dict[str, Parameter]:
    """Each parameter's range, that of the first stage which has it: a study holds one distribution of a name."""
    found: dict[str, Parameter] = {}
    for stage in stages.of(spec):
        for name, parameter in stage.spec.space.items():
            found.setdefault(name, parameter)
    return found


def _fits(parameter: Parameter | None, value: Any) -> bool:
    if isinstance(parameter, Fixed):
        return bool(value == parameter.value)
    return parameter is not None and parameter.contains(value)


def _plain(value: Any) -> Any:
    """A value that Optuna's databases can hold; lists as JSON."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _distribution(parameter: Parameter) -> Any:
    """A parameter's range for readers; `one_minus_log` has no counterpart in Optuna, so it is shown as linear."""
    from optuna import distributions

    if isinstance(parameter, Choice):
        return distributions.CategoricalDistribution([_plain(value) for value in parameter.values])
    if isinstance(parameter, Fixed):
        return distributions.CategoricalDistribution([_plain(parameter.value)])
    log = parameter.scale == "log"
    kind = distributions.IntDistribution if isinstance(parameter.low, int) else distributions.FloatDistribution
    return kind(parameter.low, parameter.high, log=log)


def default_url(folder: Path) -> str:
    """The database in the sweep's own folder."""
    return f"sqlite:///{folder.resolve() / FILE}"


def _storage(url: str) -> Any:
    """Optuna's storage, whose commits do not wait for the disk: a view that is lost is made again.

    Raises:
        Exception: whatever the database raises that cannot be reached.
    """
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    arguments: dict[str, Any] = {}
    if url.startswith("sqlite"):
        arguments = {"timeout": 30}
    elif url.startswith("postgresql"):
        arguments = {"connect_timeout": 10, "options": "-c synchronous_commit=off"}
    engine = {"connect_args": arguments, "pool_pre_ping": not url.startswith("sqlite")}
    storage = optuna.storages.RDBStorage(url, engine_kwargs=engine)
    if url.startswith("sqlite"):

        def hurry(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA synchronous=OFF")

        sqlalchemy.event.listen(storage.engine, "connect", hurry)
        storage.engine.dispose()  # the connections made so far are slow ones
    return storage


class View:
    """The study of one sweep in one database. `push` may be called again after any error."""

    def __init__(self, url: str, spec: SweepSpec) -> None:
        self._spec, self._storage = spec, _storage(url)
        self._shapes = shapes_of(spec)
        self._distributions = {name: _distribution(shape) for name, shape in self._shapes.items()}
        self._worst = math.inf if spec.mode == "min" else -math.inf
        self._study = -1
        self._known: dict[int, tuple[int, str, set[int]]] = {}  # by number: id, state, updates of its curve
        self._over: set[int] = set()
        """Trials that are shown as ended: they are not looked at again."""
        self._looked = False
        self._alive_at = -ALIVE_S

    def close(self) -> None:
        """Give the connections back."""
        self._storage.scoped_session.remove()
        self._storage.engine.dispose()

    def push(self, history: History, *, living: bool, progress: Progress | None = None) -> int:
        """Bring the study up to the history and return how many trials changed there.

        Raises:
            Exception: whatever the database raises; the next call goes on from what got through.
        """
        if not history.sweep_id:
            return 0
        self._over = self._over if self._looked else set()
        wanted = [self._shown(trial, living) for n, trial in sorted(history.trials.items()) if n not in self._over]
        if not self._looked:
            self._look(history.sweep_id, wanted)
        if living and time.monotonic() - self._alive_at > ALIVE_S:
            self._storage.set_study_user_attr(self._study, ALIVE, secrets.token_hex(4))
            self._alive_at = time.monotonic()
        changed = [trial for trial in wanted if self._differs(trial)]
        for first in range(0, len(changed), BATCH):
            self._looked = False  # until it is through: an error may come after it took effect
            self._write(changed[first : first + BATCH])
            self._looked = True
            if progress is not None:
                progress(min(first + BATCH, len(changed)), len(changed))
        self._over |= {trial.number for trial in wanted if trial.state not in ("RUNNING", "WAITING")}
        return len(changed)

    def _shown(self, trial: Trial, living: bool) -> Shown:
        return shown(trial, self._shapes, self._worst, living)

    def _differs(self, trial: Shown) -> bool:
        _, state, updates = self._known.get(trial.number, (0, "", set()))
        return state != trial.state or not trial.curve.keys() <= updates

    def _look(self, name: str, wanted: list[Shown]) -> None:
        """Read what the database holds; a study that says something else than the journal is made anew."""
        import optuna

        direction = "minimize" if self._spec.mode == "min" else "maximize"

        def made() -> int:
            study = optuna.create_study(
                storage=self._storage, study_name=name, direction=direction, load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),
            )  # fmt: skip
            return int(self._storage.get_study_id_from_name(study.study_name))

        self._study = made()
        found = self._storage.get_all_trials(self._study)
        if len(found) > len(wanted) or any(map(_contradicts, found, wanted)):
            self._storage.delete_study(self._study)
            self._study, found = made(), []
        self._known = {t.number: (t._trial_id, t.state.name, set(t.intermediate_values)) for t in found}
        self._looked = True

    def _write(self, trials: list[Shown]) -> None:
        """Enter trials that are not there yet, then what their curves lack, then the ends of those that ran."""
        from optuna.trial import TrialState

        for trial in trials:
            if trial.number not in self._known:
                assert trial.number == len(self._known), "trials are entered in the order of their numbers"
                entered = self._storage.create_new_trial(self._study, self._template(trial))
                self._known[trial.number] = entered, trial.state, set()
        self._add_curves(trials)
        for trial in trials:
            there, state, updates = self._known[trial.number]
            if state != trial.state:
                values = None if trial.value is None else [trial.value]
                self._storage.set_trial_state_values(there, TrialState[trial.state], values)
            self._known[trial.number] = there, trial.state, updates | trial.curve.keys()

    def _template(self, trial: Shown) -> Any:
        from optuna.trial import FrozenTrial, TrialState

        return FrozenTrial(
            number=trial.number, trial_id=-1, state=TrialState[trial.state], value=trial.value,
            datetime_start=datetime.fromtimestamp(trial.start),
            datetime_complete=None if trial.end is None else datetime.fromtimestamp(trial.end),
            params=trial.params, distributions={name: self._distributions[name] for name in trial.params},
            user_attrs=trial.attrs, system_attrs={}, intermediate_values={},
        )  # fmt: skip

    def _add_curves(self, trials: Iterable[Shown]) -> None:
        """Write what curves lack in one statement: point by point Optuna takes a millisecond for each."""
        import sqlalchemy
        from optuna.storages._rdb.models import TrialIntermediateValueModel as Value

        rows = []
        for trial in trials:
            there, _, updates = self._known[trial.number]
            for update in sorted(trial.curve.keys() - updates):
                stored, kind = Value.intermediate_value_to_stored_repr(trial.curve[update])
                rows.append(
                    {
                        "trial_id": there,
                        "step": update,
                        "intermediate_value": stored,
                        "intermediate_value_type": kind,
                    }
                )
        if rows:
            with self._storage.engine.begin() as connection:
                connection.execute(sqlalchemy.insert(Value.__table__), rows)


def _contradicts(found: Any, wanted: Shown) -> bool:
    """Whether a trial in the database could not become what the journal says by adding to it."""
    if found.params != wanted.params or any(found.user_attrs.get(k) != v for k, v in wanted.attrs.items()):
        return True
    if any(not _same(value, wanted.curve.get(update)) for update, value in found.intermediate_values.items()):
        return True
    over = found.state.is_finished()
    return over and (found.state.name != wanted.state or not _same(found.value, wanted.value))


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer of a sweep's study at a time: trials are entered in order, and two writers would enter them twice.

    Raises:
        StudyBusy: another process is at it.
    """
    file = os.open(folder / ".study.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyBusy(f"{folder}: another process is writing this sweep's study; try again later") from None
        yield
    finally:
        os.close(file)


def export(
    folder: Path, url: str | None = None, *, living: bool = False, progress: Progress | None = None
) -> tuple[str, int]:
    """Make a database's study agree with a sweep's journal; return the database's URL and how many trials changed.

    Args:
        folder: the sweep.
        url: a database as SQLAlchemy names it; default `study.db` in the folder.
        living: whether a driver runs the sweep now.
        progress: called with how many of how many trials are written.

    Raises:
        StudyBusy: another process is at it.
        Exception: whatever the database raises.
    """
    url = url or default_url(folder)
    with _alone(folder):
        view = View(url, folders.read_spec(folder))
        try:
            told = History()
            for record in journal.read(folder / "journal.jsonl"):
                told.apply(record)
            return url, view.push(told, living=living, progress=progress)
        finally:
            view.close()


class Live:
    """Shows a running sweep in a database, from a thread of its own. What the database does reaches no one else."""

    def __init__(self, folder: Path, spec: SweepSpec, url: str) -> None:
        self._folder, self._spec, self._url = folder, spec, url
        self.error = ""
        """What went wrong last, empty if all is well."""
        self._history, self._offset, self._fence = History(), 0, journal.Fence()
        self._view: View | None = None
        self._failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="study-view", daemon=True)

    def start(self) -> Live:
        """Begin to follow the journal."""
        self._thread.start()
        return self

    def stop(self, timeout: float = LEAVE_S) -> None:
        """Write what the journal says now and end, or give up after `timeout` seconds; `export` does the rest."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        last = False
        while not last:
            last = self._stop.is_set()
            began, pause = time.monotonic(), POLL_S
            try:
                with _alone(self._folder):
                    self._step(living=not last)
                self.error, self._failures = "", 0
                pause = max(POLL_S, 4 * (time.monotonic() - began))  # at most a fifth of the time: the sweep goes first
            except Exception as error:
                self.error = tracked.redact(f"{type(error).__name__}: {error}")
                pause = min(BACKOFF_S[1], BACKOFF_S[0] * 2**self._failures)
                self._failures += 1
            if not last:
                self._stop.wait(pause)
        if self._view is not None:
            with contextlib.suppress(Exception):
                self._view.close()

    def _step(self, living: bool) -> None:
        records, self._offset = journal.tail(self._folder / "journal.jsonl", self._offset, self._fence)
        for record in records:
            self._history.apply(record)
        if not self._history.trials:
            return  # importing optuna takes a second that the workers need to start
        if self._view is None:
            self._view = View(self._url, self._spec)
        self._view.push(self._history, living=living)


@contextlib.contextmanager
def following(folder: Path, spec: SweepSpec) -> Iterator[Live | None]:
    """Show a sweep in the database that $MUSWEEP_DATABASE names while it runs; nothing if it names none."""
    url = os.environ.get(DATABASE)
    view = Live(folder, spec, url).start() if url else None
    try:
        yield view
    finally:
        if view is not None:
            view.stop()


def running(url: str) -> dict[str, str]:
    """The sweeps of which a database shows trials as RUNNING, each with its last sign of life there.

    Raises:
        Exception: whatever the database raises.
    """
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return {}
    import sqlalchemy
    from optuna.storages._rdb.models import StudyModel, TrialModel
    from optuna.trial import TrialState

    with _opened(url) as storage, storage.engine.connect() as connection:
        rows = connection.execute(
            sqlalchemy.select(StudyModel.study_id, StudyModel.study_name)
            .join(TrialModel, TrialModel.study_id == StudyModel.study_id)
            .where(TrialModel.state == TrialState.RUNNING)
            .distinct()
        ).all()
        return {name: str(storage.get_study_user_attrs(study).get(ALIVE, "")) for study, name in rows}


def set_waiting(url: str, sweep_id: str) -> int:
    """Show the RUNNING trials of a sweep that is gone as WAITING, and say how many they were.

    Raises:
        Exception: whatever the database raises.
    """
    from optuna.trial import TrialState

    with _opened(url) as storage:
        study = storage.get_study_id_from_name(sweep_id)
        left = storage.get_all_trials(study, deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        return len(left)


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Any]:
    storage = _storage(url)
    try:
        yield storage
    finally:
        storage.scoped_session.remove()
        storage.engine.dispose()
