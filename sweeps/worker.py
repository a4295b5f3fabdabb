"""A group's worker: a Ray Tune trainable that trains its slots together and asks the board what comes next."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from sweeps import forks, remote, stages
from sweeps.capture import Capture, log_path
from sweeps.causes import cause_of
from sweeps.checkpoints import Checkpoints
from sweeps.history import trial_id
from sweeps.resident import Residents
from sweeps.round import Answer, Entry, Place, Seated
from sweeps.spec import SweepSpec
from sweeps.usage import born, usage, used_s
from sweeps.watchdog import BEAT_S

if TYPE_CHECKING:
    from sweeps.insight import Insight

USAGE_S = 5.0
STEP_S = 1.0  # Tune hears of a group about once a second: its loop is for hundreds of results, not thousands
CHECKPOINT_SHARE = 0.02  # checkpoints may take this share of the time
CHECKPOINT_S = 60.0  # how much of the time of trials that pass no rung may be lost with a worker


@dataclass(frozen=True, slots=True)
class Course:
    """What trials of one stage and length have in common."""

    spec: SweepSpec
    reports: list[int]
    rungs: set[int]
    insight: Insight | None = None


class GroupWorker(tune.Trainable):  # type: ignore[misc]
    """Trains one group. All that matters is said to the board; Tune only places it and tells of its end."""

    _log: Capture | None = None
    """Keeps what this process prints."""
    _used = -math.inf
    """When it last said what it uses."""

    def setup(self, config: dict[str, Any]) -> None:
        """Attach to the board and bring the group's trials to where the journal has them."""
        self._group: int = config["group"]
        self._folder = remote.here(Path(config["folder"]), config.get("url"))
        self._spec = SweepSpec.model_validate(config["spec"])
        self._board = config["board"]
        self._engines: dict[str, str] | str = config["engines"]
        self._device: str = config.get("device", "cpu")
        if config.get("capture"):
            self._log = Capture(log_path(self._folder, self._group))
        self._mark("began", words=f"group {self._group}, process {os.getpid()} on {socket.gethostname()}")
        node = ray.get_runtime_context().get_node_id()
        place = Place(socket.gethostname(), node, os.getpid(), born(), self._device)
        self._incarnation: int = ray.get(self._board.enter.remote(self._group, place))
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        self._prepare(config)
        self._open()
        attached = ray.get(self._board.attach.remote(self._group, self._incarnation, place))
        self._residents.limit(attached.resident)
        self._alone = attached.alone
        self._restore(attached.trials)

    def _beat(self) -> None:
        """Tell the board now and then that this process is alive, also while it trains."""
        while True:
            self._board.beat.remote(self._group, self._incarnation, used_s())
            time.sleep(BEAT_S)

    def _open(self) -> None:
        """Hold no trial yet."""
        self._residents = Residents(self._trials, self._unpack)
        self._alone = False
        """Train one by one: some trial has raised an error, and it is not known which."""
        self._only: set[int] | None = None
        """The trials that the board waits for, if not for all."""
        self._checkpoints = Checkpoints(self._folder, self._group, self._unpack)
        self._stages = stages.by_name(self._spec)
        self._courses: dict[tuple[str, int], Course] = {}
        self._course: dict[int, Course] = {}
        self._at: dict[int, int] = {}
        self._unfit: dict[int, Entry] = {}
        """What to report of trials that are not trained."""
        self._doomed: dict[int, str] = {}
        """What to report of trials that are trained though their net cannot start."""
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = 0.0
        self._measure_s = 0.0
        """What measuring a trial took when that was done last."""
        self._fork_s: dict[int, float] = {}
        """How long forks of trials were trained since their last report."""

    def _prepare(self, config: dict[str, Any]) -> None:
        """Have what trains: data and engines."""
        from trainers.devices import keep_to
        from trainers.engine import one_thread
        from trainers.group import Group
        from trainers.tasks import load

        one_thread()
        keep_to(self._device, self._spec.resources.gpu)
        self._start = forks.read_start(self._folder, self._spec)
        self._trials = Group(
            load(self._spec.task.name, self._spec.task.settings),
            self._engines,
            device=config["device"],
            precision=self._spec.training.precision,
            eval_examples=self._spec.training.eval_examples,
        )

    def _course_of(self, seated: Seated) -> Course:
        """How a trial's stage has it trained and measured."""
        key = seated.stage, seated.config["updates"]
        if key not in self._courses:
            spec = stages.trained(self._stages[seated.stage].spec, seated.config["updates"])
            self._courses[key] = Course(spec, spec.report_updates(), set(spec.rungs()), self._insight(spec))
        return self._courses[key]

    def _insight(self, spec: SweepSpec) -> Insight | None:
        from sweeps.insight import Insight

        return Insight(self._folder, self._group, spec, self._trials)

    def step(self) -> dict[str, Any]:
        """Train, report and obey until a second has passed or the group is done; without trials, wait for some."""
        until = time.monotonic() + STEP_S
        done = False
        while not done and time.monotonic() < until:
            entries = self._advance()
            answer = ray.get(self._board.report.remote(self._group, self._incarnation, self._engine_name(), entries))
            done = self._obey(answer)
        self._use()
        return {"done": done, "trials": len(self._at)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing for Tune to keep: a group's checkpoints lie in the sweep folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: what a group holds comes from the board."""

    # -- training --------------------------------------------------------------------------------------------

    def _advance(self) -> list[Entry]:
        """Train every trial that the board waits for to its next report update and measure it."""
        only, self._only = self._only, None
        due = [number for number in self._at if only is None or number in only]
        entries: list[Entry] = []
        for numbers in self._by_turns([n for n in due if n not in self._unfit or self._unfit[n].doomed]):
            entries += self._tried(numbers, self._train)
        self._alone = False
        return [*entries, *(self._unfit[number] for number in due if number in self._unfit)]

    def _by_turns(self, numbers: list[int]) -> Iterator[list[int]]:
        """Parts of the group that are trained at once, each in memory meanwhile."""
        for some in self._residents.by_turns(numbers, 1 if self._alone else None):
            with self._residents.at_once(some):
                yield some

    def _tried(self, numbers: list[int], train: Callable[[list[int]], list[Entry]]) -> list[Entry]:
        """Train trials. One that is alone and raises an error of its own fails alone."""
        if self._alone:
            self._announce(numbers[0])
        try:
            return train(numbers)
        except Exception as error:
            told = traceback.format_exc()
            if len(numbers) > 1 or not (self._alone or self._residents.limited):
                raise
            if cause_of(told) not in ("bug", "memory"):
                raise
            number = numbers[0]
            self._unfit[number] = Entry(
                number, self._at[number], {}, math.nan, 0.0, failed=words(error), traceback=told
            )
            self._residents.remove(number)
            return []

    def _announce(self, number: int) -> None:
        """Have the board know which trial is trained alone, in case that this process does not survive it."""
        ray.get(self._board.trying.remote(self._group, self._incarnation, number))

    def _train(self, numbers: list[int]) -> list[Entry]:
        """Train these trials to their next report updates and measure them."""
        until = {n: self._next_report(n, self._at[n]) for n in numbers if n not in self._unfit}
        skipped = [n for n in numbers if n in self._unfit]
        born: dict[int, dict[str, float]] = {}
        for course, some in self._by_course([*(n for n in until if not self._at[n]), *skipped]):
            born |= course.insight.born(some) if course.insight else {}
        seconds = self._trials.advance(until)
        metrics: dict[int, dict[str, float]] = {}
        scores: dict[int, float] = {}
        for course, some in self._by_course(until):
            measured, compared = self._measure(course, {number: until[number] for number in some})
            metrics |= measured
            scores |= compared
        entries = []
        for number in until:
            self._at[number] = until[number]
            diverged = self._trials.diverged_at(number)
            score = math.nan if diverged is not None else scores[number]
            entries.append(
                Entry(
                    number, until[number], metrics[number], score, seconds.get(number, 0.0), diverged_at=diverged,
                    init=born.get(number), doomed=self._doomed.pop(number, None), engine=self._trials.engine(number),
                    fork_s=self._fork_s.pop(number, 0.0),
                )
            )  # fmt: skip
            if diverged is None:
                self._keep(number, until[number], metrics[number])
        return entries

    def _by_course(self, numbers: Iterable[int]) -> list[tuple[Course, list[int]]]:
        """Trials with what they have in common, in the order in which they were given."""
        found: dict[int, tuple[Course, list[int]]] = {}
        for number in numbers:
            course = self._course[number]
            found.setdefault(id(course), (course, []))[1].append(number)
        return list(found.values())

    def _measure(self, course: Course, until: dict[int, int]) -> tuple[dict[int, dict[str, float]], dict[int, float]]:
        """What trials of one course come to at the updates where they stand, and what rungs compare of it."""
        numbers = list(until)
        self._trials.measure_on(course.spec.training.eval_examples)
        began = time.monotonic()
        metrics: dict[int, dict[str, float]] = self._trials.evaluate(numbers)
        self._measure_s = (time.monotonic() - began) / max(1, len(numbers))
        self._try_phases(course.spec, until, metrics)
        for number, values in course.insight.reported(until, metrics).items() if course.insight else ():
            metrics[number] |= values
        scores = {n: metrics[n][course.spec.objective.metric] for n in numbers}
        return metrics, scores | self._fork_scores(course.spec, [n for n in numbers if until[n] in course.rungs])

    def _fork_scores(self, spec: SweepSpec, numbers: list[int]) -> dict[int, float]:
        """At a rung: the objective after a short fork at low momentum (DESIGN 4.5), if the spec asks for one."""
        stopping = spec.early_stopping
        if not numbers or stopping is None or stopping.fork is None:
            return {}
        (forked,) = self._forks(numbers, [(stopping.fork.updates, stopping.fork.mu)])
        return {number: values[spec.objective.metric] for number, values in forked.items()}

    def _try_phases(self, spec: SweepSpec, until: dict[int, int], metrics: dict[int, dict[str, float]]) -> None:
        """Measure the spec's forks that begin here: last phases of copies (S13 Table 2), as rows of the trials."""
        for at in dict.fromkeys(phase.at for phase in spec.forks):
            phases = [phase for phase in spec.forks if phase.at == at]
            if numbers := [number for number, update in until.items() if update == at]:
                forked = self._forks(numbers, [(phase.updates, phase.mu) for phase in phases])
                for phase, found in zip(phases, forked, strict=True):
                    for number, values in found.items():
                        metrics[number] |= {f"fork/{phase.name}/{name}": value for name, value in values.items()}

    def _forks(self, numbers: list[int], phases: list[tuple[int, float]]) -> list[dict[int, dict[str, float]]]:
        """What forks of trials come to, and note how long they were trained, their measuring taken off."""
        began = time.monotonic()
        found: list[dict[int, dict[str, float]]] = self._trials.forks(numbers, phases)
        took = (time.monotonic() - began) / len(numbers) - self._measure_s * len(phases)
        for number in numbers:
            self._fork_s[number] = self._fork_s.get(number, 0.0) + max(0.0, took)
        return found

    def _next_report(self, number: int, update: int) -> int:
        return next(report for report in self._course[number].reports if report > update)

    def _obey(self, answer: Answer) -> bool:
        self._mark("ended", answer.drop)
        for number in answer.drop:
            del self._at[number], self._course[number]
            unfit = self._unfit.pop(number, None)
            if unfit is None or unfit.doomed:
                self._residents.remove(number)
        self._restore(answer.new)
        self._only = {seated.number for seated in answer.new} if answer.only_new else None
        if answer.leave or self._checkpoint_due(answer.checkpoint):
            self._write_checkpoint()
        return answer.done or answer.leave

    def _seat(self, seated: Seated, state: Any) -> None:
        """Give a trial a slot. One that cannot be trained, or need not be, ends alone; its group goes on."""
        from trainers.config import TrialConfig

        number = seated.number
        self._course[number] = course = self._course_of(seated)
        state = self._start if state is None else state
        self._at[number] = 0 if state is None else state.update
        try:
            self._residents.add(TrialConfig.from_dict(seated.config), state)
            doomed = course.insight.doomed(number) if course.insight and not self._at[number] else None
            self._residents.park(number)
        except Exception as error:
            self._unfit[number] = Entry(number, self._at[number], {}, math.nan, 0.0, failed=words(error))
            with contextlib.suppress(KeyError):
                self._residents.remove(number)
            return
        if doomed and course.insight and course.insight.skips:
            self._unfit[number] = Entry(number, 0, {}, math.nan, 0.0, doomed=doomed)
        elif doomed:
            self._doomed[number] = doomed

    def _mark(self, verb: str, numbers: Iterable[int] = (), words: str = "") -> None:
        """Say in the log whose lines follow."""
        named = [trial_id(number) for number in numbers]
        if self._log is not None and (named or words):
            self._log.mark(verb, named, words)

    def _use(self) -> None:
        """Tell the board now and then what this process uses, for people to see."""
        now = time.monotonic()
        if self._log is not None and now - self._used >= USAGE_S:
            self._used = now
            used = {"host": socket.gethostname(), "pid": os.getpid(), "device": self._device, **usage(self._device)}
            self._board.use.remote(self._group, used)

    def _engine_name(self) -> str:
        names = {self._engines} if isinstance(self._engines, str) else set(self._engines.values())
        return "+".join(sorted(names))

    # -- what a restart needs --------------------------------------------------------------------------------

    def _restore(self, trials: tuple[Seated, ...]) -> None:
        """Load each trial from the newest checkpoint that is not ahead of the journal, then catch up unreported."""
        states = self._checkpoints.read({seated.number: seated.update for seated in trials if seated.update})
        self._mark("seated", [seated.number for seated in trials])
        for seated in trials:
            self._seat(seated, states.pop(seated.number, None))
        behind = {seated.number: seated.update for seated in trials if seated.update > self._at[seated.number]}

        def catch_up(numbers: list[int]) -> list[Entry]:
            self._trials.advance({number: behind[number] for number in numbers})
            self._at.update({number: behind[number] for number in numbers})
            return []

        for numbers in self._by_turns([number for number in behind if number not in self._unfit]):
            self._tried(numbers, catch_up)

    def _checkpoint_due(self, asked: bool) -> bool:
        """Whether to store the group's trials: at rungs, else once a minute, as far as its share of the time allows."""
        elapsed = time.monotonic() - self._last_checkpoint
        return (
            bool(self._at)
            and (asked or elapsed >= CHECKPOINT_S)
            and elapsed >= self._checkpoint_cost / CHECKPOINT_SHARE
        )

    def _write_checkpoint(self) -> None:
        """Store every trial of the group that is trained."""
        started = time.monotonic()
        self._checkpoints.write({n: self._residents.state(n) for n in self._at if n not in self._unfit})
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = self._last_checkpoint - started

    def _unpack(self, data: bytes, wanted: set[int]) -> dict[int, Any]:
        from trainers.checkpoint import unpack

        return dict(unpack(data, wanted))

    def _keep(self, number: int, update: int, metrics: dict[str, float]) -> None:
        """Keep the state of a trial that ends complete, for `musweep export --model`, or that a fork may start from."""
        spec = self._course[number].spec
        if update == spec.training.updates or (spec.target is not None and spec.target.reached(metrics)):
            self._checkpoints.keep_model(number, self._trials.state(number))
        elif update in spec.training.keep:
            self._checkpoints.keep_state(number, update, self._trials.state(number))


def words(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}"
