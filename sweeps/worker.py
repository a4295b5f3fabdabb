"""A group's worker: a Ray Tune trainable that trains its slots together and asks the board what comes next."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from sweeps.board import Answer, Entry
from sweeps.history import trial_id
from sweeps.spec import SweepSpec
from sweeps.store import atomic_write

STEP_S = 1.0  # Tune hears of a group about once a second: its loop is for hundreds of results, not thousands
CHECKPOINT_SHARE = 0.05  # checkpoints at rungs may take this share of the time


class GroupWorker(tune.Trainable):  # type: ignore[misc]
    """Trains one group. All that matters is said to the board; Tune only places, watches and restarts it."""

    def setup(self, config: dict[str, Any]) -> None:
        """Attach to the board and bring the group's trials to where the journal has them."""
        from trainers.engine import one_thread
        from trainers.group import Group
        from trainers.tasks import load

        one_thread()
        self._group: int = config["group"]
        self._folder = Path(config["folder"])
        self._spec = SweepSpec.model_validate(config["spec"])
        self._reports = self._spec.report_updates()
        self._rungs = set(self._spec.rungs())
        self._board = config["board"]
        self._engines: dict[str, str] | str = config["engines"]
        self._trials = Group(
            load(self._spec.task.name, self._spec.task.options),
            self._engines,
            device=config["device"],
            eval_examples=self._spec.training.eval_examples,
        )
        self._at: dict[int, int] = {}
        self._failed: dict[int, str] = {}
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = 0.0
        attached = ray.get(self._board.attach.remote(self._group))
        self._incarnation = attached.incarnation
        self._restore(attached.trials)

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
        until = {n: self._next_report(u) for n, u in self._at.items() if n not in self._failed}
        seconds = self._trials.advance(until)
        numbers = list(until)
        metrics = self._trials.evaluate(numbers)
        scores = {n: metrics[n][self._spec.objective.metric] for n in numbers}
        scores.update(self._fork_scores([n for n in numbers if until[n] in self._rungs]))
        entries = []
        for number in numbers:
            self._at[number] = until[number]
            diverged = self._trials.diverged_at(number)
            score = math.nan if diverged is not None else scores[number]
            entries.append(
                Entry(number, until[number], metrics[number], score, seconds.get(number, 0.0), diverged_at=diverged)
            )
            if until[number] == self._spec.training.updates and diverged is None:
                self._save_model(number)
        entries += [Entry(n, self._at[n], {}, math.nan, 0.0, failed=why) for n, why in self._failed.items()]
        return entries

    def _fork_scores(self, numbers: list[int]) -> dict[int, float]:
        """At a rung: the objective after a short fork at low momentum (DESIGN 4.5), if the spec asks for one."""
        stopping = self._spec.early_stopping
        if not numbers or stopping is None or stopping.fork is None:
            return {}
        forked = self._trials.fork(numbers, stopping.fork.updates, stopping.fork.mu)
        return {number: values[self._spec.objective.metric] for number, values in forked.items()}

    def _next_report(self, update: int) -> int:
        return next(report for report in self._reports if report > update)

    def _obey(self, answer: Answer) -> bool:
        for number in answer.drop:
            del self._at[number]
            if self._failed.pop(number, None) is None:
                self._trials.remove(number)
        for config in answer.new:
            self._seat(config, None)
        if answer.leave or (answer.checkpoint and self._checkpoint_due()):
            self._write_checkpoint()
        return answer.done or answer.leave

    def _seat(self, config: dict[str, Any], state: Any) -> None:
        """Give a trial a slot. A trial that cannot even start fails alone; its group goes on."""
        from trainers.config import TrialConfig

        number = config["number"]
        self._at[number] = 0 if state is None else state.update
        try:
            self._trials.add(TrialConfig.from_dict(config), state)
        except Exception as error:
            self._failed[number] = f"{type(error).__name__}: {error}"

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
        behind = {number: update for number, update in behind.items() if number not in self._failed}
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
        data = pack({number: self._trials.state(number) for number in self._at if number not in self._failed})
        atomic_write(folder / f"group-{self._group:03d}-{time.time_ns():020d}.npz", data)
        for old in sorted(folder.glob(f"group-{self._group:03d}-*.npz"))[:-2]:
            old.unlink(missing_ok=True)
        self._last_checkpoint = time.monotonic()
        self._checkpoint_cost = self._last_checkpoint - started

    def _read_checkpoints(self, wanted: dict[int, int]) -> dict[int, Any]:
        """The newest stored state of each wanted trial, at or before its update; damaged files are passed over."""
        from trainers.checkpoint import DamagedStateError, unpack

        found: dict[int, Any] = {}
        if not wanted:
            return found
        for path in sorted((self._folder / "checkpoints").glob("group-*.npz")):
            with contextlib.suppress(DamagedStateError, OSError):
                for number, state in unpack(path.read_bytes(), set(wanted)).items():
                    newer = number not in found or state.update > found[number].update
                    if state.update <= wanted[number] and newer:
                        found[number] = state
        return found

    def _save_model(self, number: int) -> None:
        """Keep the weights of a trial that used its full budget, for `musweep export --model`."""
        from trainers.checkpoint import pack

        folder = self._folder / "models"
        folder.mkdir(exist_ok=True)
        atomic_write(folder / f"{trial_id(number)}.npz", pack({number: self._trials.state(number)}))
