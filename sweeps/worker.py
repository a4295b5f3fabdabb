"""A group's worker: a Ray Tune trainable that trains its slots together and asks the board what comes next."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from sweeps import forks
from sweeps.board import Answer, Entry
from sweeps.spec import SweepSpec
from sweeps.store import atomic_write

STEP_S = 1.0  # Tune hears of a group about once a second: its loop is for hundreds of results, not thousands
CHECKPOINT_SHARE = 0.05  # checkpoints at rungs may take this share of the time


class GroupWorker(tune.Trainable):  # type: ignore[misc]
    """Trains one group. All that matters is said to the board; Tune only places, watches and restarts it."""

    def setup(self, config: dict[str, Any]) -> None:
        """Attach to the board and bring the group's trials to where the journal has them."""
        self._group: int = config["group"]
        self._folder = Path(config["folder"])
        self._spec = SweepSpec.model_validate(config["spec"])
        self._reports = self._spec.report_updates()
        self._rungs = set(self._spec.rungs())
        self._board = config["board"]
        self._engines: dict[str, str] | str = config["engines"]
        self._at: dict[int, int] = {}
        self._unfit: dict[int, Entry] = {}
        """What to report of trials that are not trained."""
        self._doomed: dict[int, str] = {}
        """What to report of trials that are trained though their net cannot start."""
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = 0.0
        self._prepare(config)
        attached = ray.get(self._board.attach.remote(self._group))
        self._incarnation = attached.incarnation
        self._restore(attached.trials)

    def _prepare(self, config: dict[str, Any]) -> None:
        """Have what trains: data and engines."""
        from sweeps.insight import Insight
        from trainers.engine import one_thread
        from trainers.group import Group
        from trainers.tasks import load

        one_thread()
        self._start = forks.read_start(self._folder, self._spec)
        self._trials = Group(
            load(self._spec.task.name, self._spec.task.settings),
            self._engines,
            device=config["device"],
            eval_examples=self._spec.training.eval_examples,
        )
        self._insight = Insight(self._folder, self._group, self._spec, self._trials)

    def step(self) -> dict[str, Any]:
        """Train, report and obey until a second has passed or the group is done."""
        until = time.monotonic() + STEP_S
        done = not self._at
        while not done and time.monotonic() < until:
            entries = self._advance()
            answer = ray.get(self._board.report.remote(self._group, self._incarnation, self._engine_name(), entries))
            done = self._obey(answer)
        return {"done": done, "trials": len(self._at)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing for Tune to keep: a group's checkpoints lie in the sweep folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: what a group holds comes from the board."""

    # -- training --------------------------------------------------------------------------------------------

    def _advance(self) -> list[Entry]:
        """Train every trial to its next report update and measure it."""
        until = {n: self._next_report(u) for n, u in self._at.items() if n not in self._unfit}
        skipped = [n for n, entry in self._unfit.items() if entry.doomed]
        born = self._insight.born([*(n for n in until if not self._at[n]), *skipped])
        seconds = self._trials.advance(until)
        numbers = list(until)
        metrics = self._trials.evaluate(numbers)
        self._try_phases(until, metrics)
        for number, values in self._insight.reported(until, metrics).items():
            metrics[number] |= values
        scores = {n: metrics[n][self._spec.objective.metric] for n in numbers}
        scores.update(self._fork_scores([n for n in numbers if until[n] in self._rungs]))
        entries = []
        for number in numbers:
            self._at[number] = until[number]
            diverged = self._trials.diverged_at(number)
            score = math.nan if diverged is not None else scores[number]
            entries.append(
                Entry(
                    number, until[number], metrics[number], score, seconds.get(number, 0.0), diverged_at=diverged,
                    init=born.get(number), doomed=self._doomed.pop(number, None),
                )
            )  # fmt: skip
            if diverged is None:
                self._keep(number, until[number], metrics[number])
        return [*entries, *self._unfit.values()]

    def _fork_scores(self, numbers: list[int]) -> dict[int, float]:
        """At a rung: the objective after a short fork at low momentum (DESIGN 4.5), if the spec asks for one."""
        stopping = self._spec.early_stopping
        if not numbers or stopping is None or stopping.fork is None:
            return {}
        forked = self._trials.fork(numbers, stopping.fork.updates, stopping.fork.mu)
        return {number: values[self._spec.objective.metric] for number, values in forked.items()}

    def _try_phases(self, until: dict[int, int], metrics: dict[int, dict[str, float]]) -> None:
        """Measure the spec's forks that begin here: last phases of copies (S13 Table 2), as rows of the trials."""
        for phase in self._spec.forks:
            if numbers := [number for number, update in until.items() if update == phase.at]:
                for number, values in self._trials.fork(numbers, phase.updates, phase.mu).items():
                    metrics[number] |= {f"fork/{phase.name}/{name}": value for name, value in values.items()}

    def _next_report(self, update: int) -> int:
        return next(report for report in self._reports if report > update)

    def _obey(self, answer: Answer) -> bool:
        for number in answer.drop:
            del self._at[number]
            unfit = self._unfit.pop(number, None)
            if unfit is None or unfit.doomed:
                self._trials.remove(number)
        for config in answer.new:
            self._seat(config, None)
        if answer.leave or (answer.checkpoint and self._checkpoint_due()):
            self._write_checkpoint()
        return answer.done or answer.leave

    def _seat(self, config: dict[str, Any], state: Any) -> None:
        """Give a trial a slot. One that cannot be trained, or need not be, ends alone; its group goes on."""
        from trainers.config import TrialConfig

        number = config["number"]
        state = self._start if state is None else state
        self._at[number] = 0 if state is None else state.update
        try:
            self._trials.add(TrialConfig.from_dict(config), state)
            doomed = self._insight.doomed(number) if not self._at[number] else None
        except Exception as error:
            self._unfit[number] = Entry(number, self._at[number], {}, math.nan, 0.0, failed=words(error))
            with contextlib.suppress(KeyError):
                self._trials.remove(number)
            return
        if doomed and self._insight.skips:
            self._unfit[number] = Entry(number, 0, {}, math.nan, 0.0, doomed=doomed)
        elif doomed:
            self._doomed[number] = doomed

    def _engine_name(self) -> str:
        names = {self._engines} if isinstance(self._engines, str) else set(self._engines.values())
        return "+".join(sorted(names))

    # -- what a restart needs --------------------------------------------------------------------------------

    def _restore(self, trials: tuple[tuple[dict[str, Any], int], ...]) -> None:
        """Load each trial from the newest checkpoint that is not ahead of the journal, then catch up unreported."""
        states = self._read_checkpoints({config["number"]: update for config, update in trials if update})
        for config, _ in trials:
            self._seat(config, states.get(config["number"]))
        behind = {config["number"]: update for config, update in trials if update > self._at[config["number"]]}
        behind = {number: update for number, update in behind.items() if number not in self._unfit}
        if behind:
            self._trials.advance(behind)
            self._at.update(behind)

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - self._last_checkpoint >= self._checkpoint_cost / CHECKPOINT_SHARE

    def _write_checkpoint(self) -> None:
        """Store every trial of the group; the last two checkpoints are kept.

        Each has a name of its own: neither a crash nor a stale worker can harm an older one.
        """
        from trainers.checkpoint import pack

        started = time.monotonic()
        folder = self._folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        data = pack({number: self._trials.state(number) for number in self._at if number not in self._unfit})
        atomic_write(folder / f"group-{self._group:03d}-{time.time_ns():020d}.npz", data)
        for old in sorted(folder.glob(f"group-{self._group:03d}-*.npz"))[:-2]:
            old.unlink(missing_ok=True)
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = self._last_checkpoint - started

    def _read_checkpoints(self, wanted: dict[int, int]) -> dict[int, Any]:
        """The newest stored state of each wanted trial, at or before its update; damaged files are passed over."""
        from trainers.checkpoint import DamagedStateError

        found: dict[int, Any] = {}
        if not wanted:
            return found
        for path in sorted((self._folder / "checkpoints").glob("group-*.npz")):
            with contextlib.suppress(DamagedStateError, OSError):
                for number, state in self._unpack(path.read_bytes(), set(wanted)).items():
                    newer = number not in found or state.update > found[number].update
                    if state.update <= wanted[number] and newer:
                        found[number] = state
        return found

    def _unpack(self, data: bytes, wanted: set[int]) -> dict[int, Any]:
        from trainers.checkpoint import unpack

        return dict(unpack(data, wanted))

    def _keep(self, number: int, update: int, metrics: dict[str, float]) -> None:
        """Keep the state of a trial that ends complete, for `musweep export --model`, or that a fork may start from."""
        from trainers.checkpoint import pack

        target = self._spec.target
        if update == self._spec.training.updates or (target is not None and target.reached(metrics)):
            path = forks.model_path(self._folder, number)
        elif update in self._spec.training.keep:
            path = forks.state_path(self._folder, number, update)
        else:
            return
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, pack({number: self._trials.state(number)}))


def words(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}"
