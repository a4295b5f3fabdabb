"""The board as a Ray actor: one process beside the driver, that groups and the driver call."""

from __future__ import annotations

import asyncio
import math
import os
import time
import traceback
from pathlib import Path
from typing import Any

import ray

from sweeps import lease, status
from sweeps.board import Board
from sweeps.causes import cause_of, words_of
from sweeps.round import Answer, Attached, Entry, Place
from sweeps.spec import SweepSpec
from sweeps.versions import versions
from sweeps.watchdog import LOOK_S, SILENT_S, Suspect, Watchdog

USAGE_S = 300.0  # what a worker said longer ago may be of one that is no more


@ray.remote(num_cpus=0, max_restarts=0)
class BoardActor:
    """Serves one `Board`. A report is answered when its round is settled; meanwhile the caller waits."""

    def __init__(self, folder: str, spec: dict[str, Any], groups: int, slots: int, epoch: int, extend: int) -> None:
        holder = lease.Guard(Path(folder), epoch)

        def guard() -> None:
            try:
                holder.check()
            except lease.StaleWriter:
                os._exit(1)  # another driver owns the sweep: nothing may be written or answered any more

        model = SweepSpec.model_validate(spec)
        self._board = Board(Path(folder), model, groups, slots, epoch=epoch, versions=versions(), guard=guard)
        if extend:
            self._board.extend(extend)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        patience = model.resources.patience or math.inf
        self._watchdog = Watchdog(time.monotonic, patience, min(SILENT_S, patience))
        self._condemned: dict[int, Suspect] = {}
        """Workers that were given up, and of whose end nobody has told yet."""
        self._meter = status.Meter()
        self._lag: float | None = None
        self._usage: dict[int, tuple[float, dict[str, Any]]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def ready(self) -> int:
        """The actor's process id, once the journal is replayed."""
        return os.getpid()

    # -- what workers call -------------------------------------------------------------------------------------

    async def enter(self, group: int, place: Place) -> int:
        """See `Board.enter`; a worker is watched from then on. The call that its predecessor waits in is dropped."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        stale = self._waiting.pop(group, None)
        if stale is not None:
            stale.cancel()
        self._condemned.pop(group, None)
        self._watchdog.entered(group, place)
        return self._board.enter(group)

    async def attach(self, group: int, incarnation: int, place: Place) -> Attached:
        """See `Board.attach`."""
        attached = self._board.attach(group, incarnation, place)
        self._watchdog.answered(group)
        return attached

    async def trying(self, group: int, incarnation: int, number: int) -> None:
        """See `Board.trying`."""
        self._board.trying(group, incarnation, number)

    async def report(self, group: int, incarnation: int, engine: str, entries: list[Entry]) -> Answer:
        """See `Board.report`; waits until the round is settled."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        arrived = time.monotonic()
        answers = self._board.report(group, incarnation, engine, entries)
        self._waiting[group] = future
        self._watchdog.reported(group)
        self._deliver(answers)
        self._lag = time.monotonic() - arrived if answers else self._lag
        return await future

    async def beat(self, group: int, incarnation: int, used_s: float) -> None:
        """A worker is alive, and has used so many seconds of processors."""
        self._board.refuse_stale(group, incarnation)
        self._watchdog.beat(group, used_s)

    async def use(self, group: int, usage: dict[str, Any]) -> None:
        """A worker says what it uses of its machine."""
        self._usage[group] = time.monotonic(), usage

    # -- what the driver calls ---------------------------------------------------------------------------------

    async def fault(self, group: int, text: str) -> float | None:
        """See `Board.fault`, with the cause read from Ray's words, or known to who had the worker ended.

        Returns how many seconds to wait with the next worker; None: the group gets none.
        """
        known = self._condemned.pop(group, None)
        cause, words = (known.cause, known.words) if known else (cause_of(text), words_of(text))
        self._watchdog.gone(group)
        self._waiting.pop(group, None)
        self._deliver(self._board.fault(group, cause, words))
        return self._board.delay(group)

    async def leave(self) -> None:
        """See `Board.leave`."""
        self._deliver(self._board.leave())

    async def status(self, why: str = "") -> dict[str, Any]:
        """What the live table shows.

        Args:
            why: what a worker needs and what the cluster has, for groups that have no worker.
        """
        known = time.monotonic() - USAGE_S
        usage = {group: used for group, (at, used) in self._usage.items() if at >= known}
        return {**status.status(self._board, self._meter, why), "lag_s": self._lag, "usage": usage}

    async def condemned(self) -> dict[int, Place]:
        """Where workers are that are to be ended, by group."""
        return {group: suspect.place for group, suspect in self._condemned.items()}

    async def over(self) -> bool:
        """See `Board.over`."""
        return self._board.over

    async def outcome(self) -> tuple[bool, dict[int, str]]:
        """Whether the sweep is finished, and the groups that were lost for good."""
        return self._board.finished, self._board.lost

    async def close(self, reason: str) -> None:
        """See `Board.close`."""
        if self._looking is not None:
            self._looking.cancel()
        self._board.close(reason)

    # -- rounds ------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Find workers that are lost, and have the trials of those that stay away taken over."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                for suspect in self._watchdog.look():
                    self._condemned[suspect.group] = suspect
                    self._waiting.pop(suspect.group, None)
                    self._board.missing(suspect.group, suspect.since)
                self._deliver(self._board.look())
            except Exception:
                traceback.print_exc()
                os._exit(1)  # a board that no longer looks after its groups would let the sweep wait for ever

    def _deliver(self, answers: dict[int, Answer]) -> None:
        for group, answer in answers.items():
            if answer.done or answer.leave:
                self._watchdog.gone(group)
            else:
                self._watchdog.answered(group)
            future = self._waiting.pop(group, None)
            if future is not None and not future.done():
                future.set_result(answer)
