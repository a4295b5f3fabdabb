"""What a sweep's next trial is, through all its stages: a function of the spec and of what the journal says.

Stages are asked for in their order, trial by trial, so that a number's stage and point do not depend on how many slots
there are. A stage that has to wait keeps all after it waiting.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sweeps import stages
from sweeps.history import History, Trial
from sweeps.journal import Record, of_type
from sweeps.resolve import LARGEST_GROUP, device
from sweeps.search import STARTUP, Proposer
from sweeps.space import Params
from sweeps.spec import SweepSpec
from sweeps.stages import SEARCH, Chosen, Point, Stage

WAVE = STARTUP["tpe"]
"""HF's trials are few and are asked for last: by waves their points do not depend on how many slots are free then."""


HOPELESS = 20  # trials that all failed: what is wrong is wrong for all, and nobody wants to read of a thousand
SHARE_BYTES = 2.0**29
"""Memory that the confirmed trials of a group may take for it to hold more than it did in the search."""
_ARRAYS = 10  # HF's: parameters, their next value, CG's last solution, its vectors and iterates


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial that is to be trained."""

    stage: str
    params: Params
    point_id: str
    replicate: int
    config: Params


class Asker:
    """Proposes the trials of all stages of one sweep.

    Args:
        spec: the sweep's.
        history: of the sweep; whoever asks keeps it up to date: each answer of `next` is in it before a trial ends.
        records: what the history was made from.
    """

    def __init__(self, spec: SweepSpec, history: History, records: Iterable[Record]) -> None:
        self._spec, self._history = spec, history
        self._stages = stages.by_name(spec)
        self._searches = [stage for stage in self._stages.values() if not stage.confirms]
        self._numbers: dict[int, int] = {}  # the sweep's -> the search stage's
        self._asked: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._begun: Counter[tuple[str, str]] = Counter()  # trials of confirm stages, by stage and point
        self._proposers: dict[str, Proposer] = {}
        self._arms: list[Chosen] | None = None
        for trial in history.trials.values():
            self._enter(trial.number, trial.stage, trial.point_id)
            self._running[trial.stage] -= trial.state != "running"
        records = [record for record in records if record["type"] in ("ask", "report", "end", "retry")]
        for stage in self._searches:
            first = next((r for r in of_type(records, "ask") if r["stage"] == stage.name), None)
            if first is not None or not stage.taken:
                self._proposer(stage, first["params"] if first else {}).replay(records, stage.name)

    def stage(self, name: str) -> Stage:
        """A stage by its name."""
        return self._stages[name]

    def next(self, number: int, over: Collection[str] = ()) -> Asked | None:
        """The trial of this number; None if there is none to be asked for now, and `left` says whether one may come.

        Args:
            number: one more than the last trial's.
            over: search stages whose time is used up.
        """
        open_search = self._open_search(over)
        if open_search is not None:
            return self._search(open_search, number)
        return self._confirm(number) if self._confirms(over) else None

    def left(self, over: Collection[str] = ()) -> bool:
        """Whether a trial may still be asked for, now or when others have ended."""
        if self._open_search(over) is not None:
            return True
        if self._spec.confirm is None:
            return False
        return any(self._running[stage.name] for stage in self._searches) or self._next_arm() is not None

    def slots(self, slots: int, groups: int, over: Collection[str] = ()) -> int:
        """Slots of each of so many groups now, which have `slots` while there is a search to learn from what has ended.

        From what is confirmed nothing is learnt, and many nets train together faster: a group takes all its share, if
        its size was left to us, up to what fits in memory.
        """
        spec = self._spec
        if spec.search.group_size != "auto" or spec.trainer is not None or not self._confirms(over):
            return slots
        share = -(-sum(size for name, size in self.sizes().items() if stages.is_confirm(name)) // max(1, groups))
        configs = [self._stages[arm.stage].spec.config(0, arm.point.params) for arm, _ in self._progress()]
        fit = min((int(SHARE_BYTES // _bytes(config)) for config in configs), default=0)
        return max(slots, min(share, fit, LARGEST_GROUP[device(spec)]))

    def sizes(self) -> dict[str, int]:
        """Trials of each stage in all; of a confirm stage as planned, until it is known."""
        found = {stage.name: self._size(stage) for stage in self._searches}
        known = self._arms is not None or (self._history.confirming and self._confirms())
        for name, stage in self._stages.items():
            if stage.confirms:
                left = sum(max(0, self._seeds - n) for arm, n in self._progress() if arm.stage == name) if known else 0
                found[name] = self._asked[name] + left if known else max(stage.trials, self._asked[name])
        return found

    @property
    def missing(self) -> str:
        """What was asked for and cannot be, in words."""
        unconfirmed = stages.missing(self._spec, self._arms) if self._arms is not None else ""
        early = (self._tried_out(stage) or self._hopeless(stage) for stage in self._searches)
        return "; ".join(filter(None, (*early, unconfirmed)))

    def _hopeless(self, stage: Stage) -> str:
        """Why no more is asked for of a search of which everything failed so far; empty where something did not."""
        counts = self._history.tally.states[stage.name]
        ended = counts.total() - counts["running"]
        if ended < HOPELESS or counts["failed"] < ended:
            return ""
        return (
            f"{stage.name} ended early: all of its first {ended} trials failed; musweep retry --failed runs them again"
        )

    def _tried_out(self, stage: Stage) -> str:
        """Where a search ended before its budget, since no point of its space was left; empty where it did not."""
        proposer, asked = self._proposers.get(stage.name), self._asked[stage.name]
        if self._spec.search.algorithm == "grid" or proposer is None or not proposer.exhausted(asked):
            return ""
        if asked >= self._budget(stage):
            return ""
        return f"{stage.name} ended after {asked} of {self._budget(stage)} trials: all points of its space were tried"

    def tell(self, trial: Trial, state: str, objective: float | None) -> None:
        """A trial has ended; the search hears of it."""
        self._running[trial.stage] -= 1
        if trial.number in self._numbers:
            self._proposers[trial.stage].tell(self._numbers[trial.number], state, objective, trial.scores)

    def extended(self) -> None:
        """The budget has grown, so the search goes on and what is best may change."""
        self._arms = None

    def over(self, seconds: float, groups: int) -> dict[str, str]:
        """Search stages whose time is used up after so many seconds, each with the reason in words.

        The searches of baselines come last and are to have their share: the sweep's own ends before it takes that too.
        """
        budget, own, *others = self._spec.budget, *(stage.name for stage in self._searches)
        share = 1 / (1 + sum(baseline.share for baseline in self._spec.baselines if baseline.kind == "hf"))
        gpu_seconds = seconds * self._spec.resources.gpu * groups
        found = {}
        for name, part in ((own, share), *((other, 1.0) for other in others)):
            kept = f", but for what {' and '.join(others)} shall have" if part < 1 else ""
            if budget.wall is not None and seconds >= budget.wall * part:
                found[name] = f"wall budget of {budget.wall:g} s used{kept}"
            elif budget.gpu_hours is not None and gpu_seconds >= budget.gpu_hours * 3600 * part:
                found[name] = f"budget of {budget.gpu_hours:g} GPU-hours used{kept}"
        return found

    def _confirms(self, over: Collection[str] = ()) -> bool:
        """Whether points are confirmed now: all searches have ended."""
        if self._spec.confirm is None or any(self._running[stage.name] for stage in self._searches):
            return False
        return self._open_search(over) is None

    # -- searches --------------------------------------------------------------------------------------------

    def _size(self, stage: Stage) -> int:
        """Trials of a search stage: what the budget pays for, or as many as there are points to try."""
        proposer = self._proposers.get(stage.name)
        size = proposer.size() if proposer else None
        return self._budget(stage) if size is None else min(self._budget(stage), size)

    def _budget(self, stage: Stage) -> int:
        """Trials that are paid for in a search stage, those by which it was extended among them."""
        trials = self._spec.budget.trials + self._history.extended
        if stage.name == SEARCH:
            return trials
        share = next(b.share for b in self._spec.baselines if b.kind == "hf" and f"{SEARCH}:{b.name}" == stage.name)
        return max(1, round(share * trials))

    def _open_search(self, over: Collection[str]) -> Stage | None:
        """The first search stage that is not done and may be gone on with, perhaps not before others have ended.

        A search that its time has ended stays so once points are confirmed, whatever a later driver's clock says. One
        without such a budget is done by then, unless the spec was given another baseline since.
        """
        budget = self._spec.budget
        timed = budget.wall is not None or budget.gpu_hours is not None
        if timed and self._history.confirming:
            return None
        open_ = (stage for stage in self._searches if stage.name not in over and not self._hopeless(stage))
        undone = (stage for stage in open_ if self._asked[stage.name] < self._size(stage))
        return next(filter(self._startable, undone), None)

    def _startable(self, stage: Stage) -> bool:
        """Whether a search has begun or can begin, at once or later: one on the best point's net needs such a point."""
        return stage.name in self._proposers or self._running[SEARCH] > 0 or bool(self._best())

    def _best(self) -> list[Point]:
        return stages.best_points(self._spec, stages.in_stage(self._history, SEARCH), 1)

    def _search(self, stage: Stage, number: int) -> Asked | None:
        if stage.name not in self._proposers:
            if self._running[SEARCH]:
                return None
            self._proposer(stage, self._best()[0].params)
        proposer = self._proposers[stage.name]
        if not proposer.ready:
            return None
        local = self._asked[stage.name]
        params = proposer.ask(local, number)
        replicate, point_id = stage.spec.replicate(local), stage.spec.point_id(params)
        self._enter(number, stage.name, point_id)
        config = stage.spec.config(number, params, replicate=replicate)
        return Asked(stage.name, params, point_id, replicate, _as_read(config))

    def _proposer(self, stage: Stage, params: Mapping[str, Any]) -> Proposer:
        wave = 0 if stage.name == SEARCH else WAVE
        made = self._proposers[stage.name] = Proposer(stages.on_net_of(stage, params), wave)
        return made

    def _enter(self, number: int, stage: str, point_id: str) -> None:
        if stages.is_confirm(stage):
            self._begun[stage, point_id] += 1
        else:
            self._numbers[number] = self._asked[stage]
        self._asked[stage] += 1
        self._running[stage] += 1

    # -- confirmation ----------------------------------------------------------------------------------------

    @property
    def _seeds(self) -> int:
        return self._spec.confirm.seeds if self._spec.confirm else 0

    def _progress(self) -> list[tuple[Chosen, int]]:
        """Each point to confirm with the number of its trials so far. Only while no search trial runs."""
        if self._arms is None:
            self._arms = stages.chosen(self._spec, self._stages, self._history)
        return [(arm, self._begun[arm.stage, arm.point.point_id]) for arm in self._arms]

    def _next_arm(self) -> Chosen | None:
        """The point that has the fewest trials, the better one first: so all have their first seed before a second."""
        open_ = [(done, place, arm) for place, (arm, done) in enumerate(self._progress()) if done < self._seeds]
        return min(open_, key=lambda item: item[:2])[2] if open_ else None

    def _confirm(self, number: int) -> Asked | None:
        """One more seed of the next point; each trial of all arms has a replicate of its own."""
        arm = self._next_arm()
        if arm is None:
            return None
        replicate = self._begun.total()
        spec, params = self._stages[arm.stage].spec, dict(arm.point.params)
        config = spec.config(number, params, stage=stages.CONFIRM, replicate=replicate) | {"updates": arm.updates}
        self._enter(number, arm.stage, arm.point.point_id)
        return Asked(arm.stage, params, arm.point.point_id, replicate, _as_read(config))


def _bytes(config: Params) -> float:
    """About what a trial takes: weights and what is as large as they, and the activations of a batch."""
    net = config["net"]
    if net.get("module"):  # of the user's own: not known
        return math.inf
    weights = float(sum(a * b for a, b in pairwise(net["widths"])))
    activations: float = 2 * config["batch"] * sum(net["widths"]) * max(1, net.get("steps", 0))
    return 4.0 * (_ARRAYS * weights + activations)


def _as_read(config: Params) -> Params:
    """A config as the journal gives it back, with lists for tuples: those asked before and after a resume are alike."""
    plain: Params = json.loads(json.dumps(config))
    return plain
