"""The worker of a sweep whose trials are trained by a function of the user's own, one at a time (`trainers.own`)."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

from sweeps.round import Answer, Entry, Seated
from sweeps.spec import SweepSpec
from sweeps.worker import GroupWorker, words


class OwnWorker(GroupWorker):
    """Lets the function of its one trial go on from report to report. Every report goes to the board as it comes."""

    _trials: Any
    """An OwnGroup, in the place of the Group that musweep's own methods train in."""

    def _prepare(self, config: dict[str, Any]) -> None:
        """Have the function, and the data of the task if one is named."""
        from trainers.own import OwnGroup
        from trainers.tasks import load
        from trainers.tasks.own import function

        spec = self._spec
        assert spec.trainer is not None
        os.chdir(config["cwd"])
        self._trials = OwnGroup(
            function(spec.trainer, "trainer"),
            [spec.objective.metric, *([spec.target.metric] if spec.target else [])],
            spec.report_updates(),
            spec.rungs(),
            task=load(spec.task.name, spec.task.settings) if spec.task.name else None,
            device=config["device"],
            threads=max(1, int(spec.resources.cpu)),
        )

    def _insight(self, spec: SweepSpec) -> None:  # noqa: ARG002 - what is inside its nets is not known
        return None

    def cleanup(self) -> None:
        """Let functions that stand in a report end."""
        self._trials.close()

    def _advance(self) -> list[Entry]:
        """Let each trial that the board waits for go on to its next report, or to its end."""
        only, self._only = self._only, None
        due = [number for number in self._at if only is None or number in only]
        return [self._unfit.get(number) or self._entry(number) for number in due]

    def _entry(self, number: int) -> Entry:
        said = self._trials.next(number)
        if said.failed:
            return Entry(
                number, self._at[number], {}, math.nan, said.seconds, failed=said.failed, traceback=said.traceback
            )
        last = said.last
        if last is None or last.update <= self._at[number]:  # it has been heard, perhaps before a restart
            self._keep_state(number)
            return Entry(number, self._at[number], {}, math.nan, said.seconds, returned=True)
        self._at[number] = last.update
        target = self._spec.target
        if said.returned or (target is not None and target.reached(last.metrics)):
            self._keep_state(number)
        return Entry(number, last.update, last.metrics, last.metrics[self._spec.objective.metric], said.seconds)

    def _obey(self, answer: Answer) -> bool:
        """Such trials are long, so any of their reports is worth a checkpoint."""
        return super()._obey(replace(answer, checkpoint=True))

    def _seat(self, seated: Seated, state: Any) -> None:
        """Give a trial the slot."""
        from trainers.own import OwnConfig

        number = seated.number
        self._course[number] = self._course_of(seated)
        self._at[number] = 0
        try:
            self._trials.add(OwnConfig.from_dict(seated.config), state)
        except Exception as error:
            self._unfit[number] = Entry(number, 0, {}, math.nan, 0.0, failed=words(error))

    def _engine_name(self) -> str:
        return "own"

    def _restore(self, trials: tuple[Seated, ...]) -> None:
        """Start each trial from its newest state that is not ahead of the journal; what was heard passes unheard."""
        states = self._checkpoints.read({seated.number: seated.update for seated in trials if seated.update})
        self._mark("seated", [seated.number for seated in trials])
        for seated in trials:
            number = seated.number
            self._seat(seated, states.get(number))
            self._at[number] = seated.update
            if number not in self._unfit:
                self._trials.catch_up(number, seated.update)

    def _write_checkpoint(self) -> None:
        """Store the state that came with the last report; without one the older checkpoints stay the newest."""
        if any(self._trials.holds_state(number) for number in self._at):
            super()._write_checkpoint()

    def _unpack(self, data: bytes, wanted: set[int]) -> dict[int, Any]:
        from trainers.own import unpack

        return dict(unpack(data, wanted))

    def _keep_state(self, number: int) -> None:
        """Keep the last state of a trial that is complete, for `musweep export --model`."""
        state = self._trials.state(number)
        if state is not None:
            self._checkpoints.keep_model(number, state)
