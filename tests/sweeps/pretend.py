"""A board's workers, pretended: no Ray, no torch, and every crash that a process boundary allows."""

import math
import random
from collections.abc import Callable
from pathlib import Path

from sweeps import history
from sweeps.board import Board
from sweeps.round import Entry
from sweeps.rungs import report_updates
from sweeps.spec import SweepSpec

SPEC = {
    "name": "pretend",
    "task": "digits",
    "training": {"updates": 90, "reports": 9, "batch": 10},
    "space": {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "scale": "log"},
        "mu_max": {"type": "float", "low": 0.5, "high": 0.99, "scale": "one_minus_log"},
        "method": {"type": "choice", "values": ["cm", "nag"]},
        "depth": {"type": "choice", "values": [1, 2]},
    },
    "search": {"algorithm": "random", "seed": 3},
    "budget": {"trials": 40},
    "early_stopping": {"rungs": [10, 30], "factor": 3, "fork": None},
    "objective": "valid_loss",
}


def spec_with(**changes) -> SweepSpec:
    return SweepSpec.model_validate({**SPEC, **changes})


def pretend_loss(config: dict, update: int) -> float:
    """A trial's loss as a function of its config alone; NaN once a large lr has had time to diverge."""
    method, seed = config["method"], config["seed"]
    luck = 0.01 * math.sin(seed["replicate"]) if seed["stage"] == "confirm" else 0.0
    if method["kind"] == "hf":
        return abs(math.log10(method["hf"]["damping"]) - 1) + 5 / update + luck
    if method["lr"] > 0.5 and update > 5:
        return math.nan
    return (
        abs(math.log10(method["lr"]) + 2) + method["mu_max"] + 5 / update + 0.01 * len(config["net"]["widths"]) + luck
    )


class PretendWorker:
    def __init__(self, board: Board, group: int) -> None:
        self.board, self.group = board, group
        attached = board.attach(group)
        self.incarnation = attached.incarnation
        self.at = {seated.number: seated.update for seated in attached.trials}
        self.seats = {seated.number: seated for seated in attached.trials}
        self.gone = False
        self.only: set[int] | None = None
        self.doomed: Callable[[dict], str | None] = lambda config: None

    def report(self):
        entries = []
        for number, update in self.at.items():
            if self.only is not None and number not in self.only:
                continue
            seated = self.seats[number]
            reports = report_updates(seated.config["updates"], self.board.spec.training.reports)
            update = next(r for r in reports if r > update)
            self.at[number] = update
            if doomed := self.doomed(seated.config):
                self.at[number] = 0
                entries.append(Entry(number, 0, {}, math.nan, 0.0, doomed=doomed))
                continue
            loss = pretend_loss(seated.config, update)
            diverged = 8 if math.isnan(loss) else None
            seconds = 1.0 if seated.config["method"]["kind"] == "hf" else 0.5
            entries.append(Entry(number, update, {"valid_loss": loss}, loss, seconds, diverged_at=diverged))
        return self.board.report(self.group, self.incarnation, "loop", entries)

    def obey(self, answer) -> None:
        for number in answer.drop:
            del self.at[number]
        for seated in answer.new:
            assert seated.number not in self.at
            self.at[seated.number] = seated.update
            self.seats[seated.number] = seated
        self.only = {seated.number for seated in answer.new} if answer.only_new else None
        self.gone = answer.done or answer.leave


def play(
    folder: Path, spec: SweepSpec, groups: int, slots: int, *, seed: int = 0, rounds: int | None = None, doomed=None
) -> Board:
    """Drive a sweep with workers that report in a random order, for some number of reports or to the end."""
    board = Board(folder, spec, groups, slots, clock=lambda: 0.0)
    order = random.Random(seed)
    workers = {group: PretendWorker(board, group) for group in range(groups)}
    waiting: set[int] = set()
    for worker in workers.values():
        worker.doomed = doomed or worker.doomed
    while rounds is None or rounds > 0:
        ready = [group for group, worker in workers.items() if not worker.gone and group not in waiting]
        if not ready:
            break
        group = order.choice(ready)
        waiting.add(group)
        for answered, answer in workers[group].report().items():
            workers[answered].obey(answer)
            waiting.discard(answered)
        rounds = None if rounds is None else rounds - 1
    assert rounds is not None or all(worker.gone for worker in workers.values()), "somebody waits for ever"
    return board


def kill(board: Board) -> None:
    """The process is gone: its file lock is, and nothing more is written."""
    board._journal.close()


def table(board_or_folder) -> dict:
    told = board_or_folder.history if isinstance(board_or_folder, Board) else history.load(board_or_folder)
    return {
        t.number: (t.params, t.state, t.stopped_at_rung, t.objective, t.updates, tuple(t.metrics))
        for t in told.trials.values()
    }
