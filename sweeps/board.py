"""The board: the one owner of a running sweep's study, rungs and journal. Plain Python, no Ray.

Groups attach, train each of their trials to its next report update, report, and act on the answer. With
`order: number` the board answers when every group that holds trials has reported (a round): decisions are then
taken in trial order and freed slots are filled in trial order, so nothing depends on which worker was faster.
With `order: arrival` each report is answered at once. A group without trials waits for its answer until there are some
for it, perhaps in the next stage, or none will come.

Everything a round decides is one journal commit, on disk before any answer leaves: no decision is ever acted on
that a restart would not know.
"""

from __future__ import annotations

import errno
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sweeps import history, journal
from sweeps.asking import Asker
from sweeps.spec import SweepSpec
from sweeps.stages import is_confirm, is_search
from sweeps.stopping import class_of, promote


@dataclass(frozen=True, slots=True)
class Entry:
    """What a worker reports of one trial at one update. `score` is what rungs compare."""

    number: int
    update: int
    metrics: Mapping[str, float]
    score: float
    wall_s: float
    diverged_at: int | None = None
    failed: str | None = None
    traceback: str = ""
    returned: bool = False
    """The trial's own function ended after its last report, which is not repeated here."""
    init: Mapping[str, float] | None = None
    """What was measured before the first update."""
    doomed: str | None = None
    """Why the trial's net cannot start; at update 0 it was not trained for that."""
    engine: str | None = None
    """What trained it, where that is not all that trains its group."""


@dataclass(frozen=True, slots=True)
class Seated:
    """A trial that a group holds: what it is, its stage, and the update it last reported."""

    stage: str
    config: dict[str, Any]
    update: int = 0

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.config["number"])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a group does next: drop these trials, add those, then go on unless `done` or `leave`."""

    drop: tuple[int, ...] = ()
    new: tuple[Seated, ...] = ()
    checkpoint: bool = False
    """Some trial passed a rung in this round."""
    done: bool = False
    """No trial is left for this group, and none will come."""
    leave: bool = False
    """The sweep is being interrupted: checkpoint and leave."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A group's place at the board, and the trials it holds."""

    incarnation: int
    trials: tuple[Seated, ...]


class StaleWorkerError(RuntimeError):
    """A worker that was replaced spoke up; it must end without touching anything."""


class Board:
    """Owns one sweep. Every method is called from one thread.

    Args:
        folder: the sweep folder; its journal is opened for writing, so the caller holds the lease.
        spec: the resolved spec.
        groups: number of groups, each with `slots` slots; perhaps with more for what is confirmed (`Asker.slots`).
        guard: called before each write; raises when another driver has taken the sweep over.
        clock: seconds since 1970, for records only; budgets use `timer`.
        timer: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        spec: SweepSpec,
        groups: int,
        slots: int,
        *,
        epoch: int = 1,
        versions: Mapping[str, str] | None = None,
        guard: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.slots = slots
        self._guard, self._clock, self._timer = guard, clock, timer
        self.trouble = ""
        """What keeps the board waiting, for people to see; empty when nothing does."""
        self._journal = journal.Journal(folder / "journal.jsonl")
        self.history = history.fold(self._journal.records)
        self._asker = Asker(spec, self.history, self._journal.records)
        self._unwritten: list[journal.Record] = []
        self._rungs = spec.rungs()
        self._order = spec.early_stopping.order if spec.early_stopping else "number"
        self._scores: dict[tuple[int, Hashable], dict[int, float]] = defaultdict(dict)
        for trial in self.history.trials.values():
            self._note_scores(trial)
        self._groups: dict[int, list[int]] = {group: [] for group in range(groups)}
        for trial in self.history.trials.values():
            if trial.state == "running":  # a resume may have fewer groups than the crashed run
                self._groups[trial.group % groups].append(trial.number)
        self._known: dict[int, set[int]] = {group: set() for group in range(groups)}
        """The trials that a group's worker has been told of and not yet told to drop."""
        self._incarnations = dict.fromkeys(self._groups, 0)
        self._pending: dict[int, tuple[str, list[Entry]]] = {}
        self._idle: set[int] = set()
        """Groups that wait for trials."""
        self._lost: dict[int, str] = {}
        self._leaving = False
        self._seated = False
        searched = (trial.wall_s for trial in self.history.trials.values() if not is_confirm(trial.stage))
        self._spent_before = sum(searched) / max(1, groups)
        self._started = timer()
        self._log("open", format=journal.FORMAT, sweep_id=folder.name, epoch=epoch, versions=dict(versions or {}))
        self._write()

    # -- what groups call ------------------------------------------------------------------------------------

    def attach(self, group: int) -> Attached:
        """A group's worker has started, for the first time or again; what it held before is its own."""
        if not self._seated:  # one commit for all groups: seats do not depend on who started first
            self._seated = True
            self._fill(self._over())
            self._write()
        self._incarnations[group] += 1
        self._pending.pop(group, None)
        self._idle.discard(group)
        self._lost.pop(group, None)
        self._known[group] = set(self._groups[group])
        return Attached(self._incarnations[group], tuple(map(self._seat, self._groups[group])))

    def report(self, group: int, incarnation: int, engine: str, entries: list[Entry]) -> dict[int, Answer]:
        """Take a group's measurements; return the answers that are due, perhaps to several groups or to none.

        A group that holds no trial reports none, and is answered when there is something for it to do.

        Raises:
            StaleWorkerError: a newer worker has attached to this group.
        """
        if incarnation != self._incarnations[group]:
            raise StaleWorkerError(f"group {group}: worker {incarnation} was replaced by {self._incarnations[group]}")
        assert {entry.number for entry in entries} == self._known[group], "a group reports each of its trials"
        if entries:
            self._pending[group] = (engine, entries)
        elif self._groups[group]:  # they were given to it before it said that it had none
            return {group: self._answer(group)}
        else:
            self._idle.add(group)
        return self._settle_if_due()

    def lose(self, group: int, reason: str) -> dict[int, Answer]:
        """A group's worker failed for good: its trials end as failed, the others go on."""
        self._pending.pop(group, None)
        self._idle.discard(group)
        self._lost[group] = reason
        self._incarnations[group] += 1
        for number in self._groups[group]:
            self._end(number, "failed", f"worker lost: {reason}")
        self._groups[group], self._known[group] = [], set()
        self._write()
        return self._settle_if_due()

    def leave(self) -> None:
        """Have every group checkpoint and leave with its next answer."""
        self._leaving = True

    def extend(self, trials: int) -> None:
        """Grow the budget of a finished sweep."""
        self._log("extend", trials=trials)
        self._asker.extended()
        self._write()

    def close(self, reason: str) -> None:
        """Write why the driver leaves and release the journal."""
        self._log("close", reason=reason, **({"note": self.note} if self.note else {}))
        self._write()
        self._journal.close()

    # -- what the driver asks --------------------------------------------------------------------------------

    @property
    def budget(self) -> int:
        """How many trials the sweep may ask for in all its stages."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> dict[str, int]:
        """How many trials each stage has in all; what is to be confirmed is counted as planned until it is known."""
        return self._asker.sizes()

    @property
    def finished(self) -> bool:
        """Nothing runs and nothing is left to ask for."""
        return not any(self._groups.values()) and not self._asker.left(self._over())

    @property
    def note(self) -> str:
        """What was asked for and cannot be done, in words."""
        return self._asker.missing

    @property
    def lost(self) -> dict[int, str]:
        """Groups whose worker failed for good, with the reason."""
        return dict(self._lost)

    # -- rounds ----------------------------------------------------------------------------------------------

    def _settle_if_due(self) -> dict[int, Answer]:
        holders = {group for group, numbers in self._groups.items() if numbers}
        if not (self._pending or self._idle) or (self._order == "number" and not holders <= set(self._pending)):
            return {}
        return self._settle()

    def _settle(self) -> dict[int, Answer]:
        """Decide a round in trial order, fill freed slots in trial order, write, and only then answer."""
        pending, self._pending = self._pending, {}
        waiting, self._idle = pending.keys() | self._idle, set()
        for group in sorted(pending):
            self._log_report(group, *pending[group])
        entries = sorted((e for _, items in pending.values() for e in items), key=lambda entry: entry.number)
        for entry in entries:
            lost_at = 0 if _skipped(entry) else entry.diverged_at
            self._note_scores(self.history.trials[entry.number], lost_at)
        over = {} if self._leaving else self._over()
        passed = {entry.number for entry in entries if self._decide(entry, over)}
        trials = self.history.trials
        self._groups = {g: [n for n in ns if trials[n].state == "running"] for g, ns in self._groups.items()}
        if not self._leaving:
            self._fill(over)
        self._write()
        if not self._leaving and any(self._groups.values()) and self._asker.left(over):
            self._idle = {group for group in waiting if not self._groups[group]}
        return {group: self._answer(group, passed) for group in sorted(waiting - self._idle)}

    def _answer(self, group: int, passed: Collection[int] = ()) -> Answer:
        """Tell a group's worker what has become of its trials, and which it has been given."""
        held, now = self._known[group], self._groups[group]
        self._known[group] = set(now)
        return Answer(
            drop=tuple(sorted(held - set(now))),
            new=tuple(self._seat(number) for number in now if number not in held),
            checkpoint=any(number in passed for number in held if number in now),
            done=not now,
            leave=self._leaving,
        )

    def _seat(self, number: int) -> Seated:
        trial = self.history.trials[number]
        return Seated(trial.stage, trial.config, trial.updates)

    def _decide(self, entry: Entry, over: Mapping[str, str]) -> bool:
        """End a trial, let it pass its rung (True), or let it go on."""
        trial = self.history.trials[entry.number]
        if entry.failed is not None:
            self._end(entry.number, "failed", entry.failed, traceback=entry.traceback)
        elif entry.returned:
            self._end(entry.number, "complete", f"its trainer ended it at update {trial.updates}")
        elif _skipped(entry):
            self._end(entry.number, "skipped", entry.doomed or "")
        elif entry.diverged_at is not None:
            self._end(entry.number, "diverged", f"not finite at update {entry.diverged_at}", updates=entry.diverged_at)
        elif not math.isfinite(entry.score):
            self._end(entry.number, "diverged", f"score {entry.score} at update {entry.update}")
        elif (target := self.spec.target) is not None and target.reached(entry.metrics):
            self._end(entry.number, "complete", f"target: {target.metric} below {target.below:g}")
        elif entry.update >= trial.config["updates"]:
            self._end(entry.number, "complete")
        elif is_search(trial.stage) and entry.update in self._rungs and not self._promoted(trial, entry):
            pass
        elif trial.stage in over:
            self._end(entry.number, "stopped", over[trial.stage])
        return entry.update in trial.promoted

    def _promoted(self, trial: history.Trial, entry: Entry) -> bool:
        """Judge a trial at a rung; end it if it does not pass."""
        stopping = self.spec.early_stopping
        assert stopping is not None, "rungs without early stopping"
        scores = self._scores[entry.update, self._class_of(trial)]
        if promote(entry.number, entry.score, scores.items(), stopping.factor, self.spec.mode, stopping.order):
            self._log("promote", trial=entry.number, update=entry.update)
            return True
        self._end(entry.number, "stopped", f"rung {entry.update}: not among the best", rung=entry.update)
        return False

    def _fill(self, over: Collection[str]) -> None:
        """Ask for a trial for each free slot, each given to the group that has least to compute."""
        load = {g: sum(_cost(self.history.trials[n].config) for n in ns) for g, ns in self._groups.items()}
        live = [group for group in self._groups if group not in self._lost]
        slots = self._asker.slots(self.slots, len(live), over)
        while free := [group for group in live if len(self._groups[group]) < slots]:
            number = len(self.history.trials)
            asked = self._asker.next(number, over)
            if asked is None:
                return
            group = min(free, key=lambda g: (load[g], g))
            load[group] += _cost(asked.config)
            self._groups[group].append(number)
            self._log("ask", trial=number, params=asked.params, config=asked.config, stage=asked.stage,
                      replicate=asked.replicate, point_id=asked.point_id, group=group)  # fmt: skip

    # -- records ---------------------------------------------------------------------------------------------

    def _log(self, kind: str, **fields: Any) -> None:
        record = {"type": kind, "time": self._clock(), **fields}
        self.history.apply(record)
        self._unwritten.append(record)

    def _write(self) -> None:
        """Commit what was logged. Memory is ahead of the disk here, so a full disk is waited out, never skipped."""
        while self._unwritten:
            self._guard()
            try:
                self._journal.append(self._unwritten)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self.trouble = f"{self._journal.path}: {error.strerror}; waiting for room"
                time.sleep(1.0)
            else:
                self._unwritten, self.trouble = [], ""

    def _log_report(self, group: int, engine: str, entries: list[Entry]) -> None:
        rows = []
        for entry in entries:
            if entry.failed is not None or entry.returned or _skipped(entry):
                continue
            row = {
                "trial": entry.number,
                "update": entry.update,
                "metrics": _numbers(entry.metrics),
                "score": journal.number(entry.score),
                "wall_s": entry.wall_s,
            }
            own = entry.engine if entry.engine != engine else None
            extra = {"init": entry.init and _numbers(entry.init), "doomed": entry.doomed, "engine": own}
            rows.append(row | {key: value for key, value in extra.items() if value})
        if rows:
            self._log("report", group=group, engine=engine, trials=rows)

    def _end(
        self,
        number: int,
        state: str,
        reason: str = "",
        *,
        rung: int | None = None,
        updates: int | None = None,
        traceback: str = "",
    ) -> None:
        """Log a trial's end and tell the search."""
        trial = self.history.trials[number]
        updates = trial.updates if updates is None else updates
        last = trial.metrics.get(trial.updates, {}).get(self.spec.objective.metric, math.nan)
        told = {"traceback": traceback} if traceback else {}
        objective = last if state in ("complete", "stopped") and math.isfinite(last) else None
        self._log("end", trial=number, state=state, reason=reason, stopped_at_rung=rung, objective=objective,
                  updates=updates, work=float(updates * trial.config["batch"]), wall_s=trial.wall_s,
                  engine=trial.engine, group=trial.group, **told)  # fmt: skip
        self._asker.tell(trial, state, objective)

    # -- small parts -----------------------------------------------------------------------------------------

    def _class_of(self, trial: history.Trial) -> Hashable:
        stopping = self.spec.early_stopping
        return class_of(trial.params, stopping.compare_within if stopping else None)

    def _note_scores(self, trial: history.Trial, lost_at: int | None = None) -> None:
        """Enter a trial's scores at its rungs; one that diverged or was skipped is the worst where it never came."""
        if not is_search(trial.stage):
            return
        ended_at = trial.updates if trial.state in ("diverged", "skipped") else lost_at
        for rung in self._rungs:
            if ended_at is not None and ended_at <= rung:
                self._scores[rung, self._class_of(trial)][trial.number] = math.nan
                return
            if rung in trial.scores:
                self._scores[rung, self._class_of(trial)][trial.number] = trial.scores[rung]

    def _over(self) -> dict[str, str]:
        """Search stages whose time is used up, each with the reason in words."""
        return self._asker.over(self._timer() - self._started + self._spent_before, len(self._groups))


def _skipped(entry: Entry) -> bool:
    """Whether a trial was not trained because its net cannot start."""
    return entry.doomed is not None and not entry.update


def _numbers(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Metrics as JSON has them."""
    return {name: journal.number(value) for name, value in metrics.items()}


def _cost(config: Mapping[str, Any]) -> float:
    """Arithmetic of one update of a trial, to balance groups by; nothing is known of a trainer of the user's own."""
    if "net" not in config:
        return 1.0
    widths = config["net"]["widths"]
    return float(config["batch"] * sum(a * b for a, b in pairwise(widths)))
