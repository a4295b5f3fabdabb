"""The board as a Ray actor: one process beside the driver, that groups and the driver call."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import ray

from sweeps import lease, status
from sweeps.board import Board
from sweeps.round import Answer, Attached, Entry
from sweeps.spec import SweepSpec
from sweeps.versions import versions

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

        self._board = Board(
            Path(folder), SweepSpec.model_validate(spec), groups, slots,
            epoch=epoch, versions=versions(), guard=guard,
        )  # fmt: skip
        if extend:
            self._board.extend(extend)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._meter = status.Meter()
        self._lag: float | None = None
        self._usage: dict[int, tuple[float, dict[str, Any]]] = {}

    async def ready(self) -> int:
        """The actor's process id, once the journal is replayed."""
        return os.getpid()

    async def attach(self, group: int) -> Attached:
        """See `Board.attach`; a report of the worker before this one is dropped with its waiting call."""
        stale = self._waiting.pop(group, None)
        if stale is not None:
            stale.cancel()
        return self._board.attach(group)

    async def report(self, group: int, incarnation: int, engine: str, entries: list[Entry]) -> Answer:
        """See `Board.report`; waits until the round is settled."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[group] = future
        arrived = time.monotonic()
        answers = self._board.report(group, incarnation, engine, entries)
        self._deliver(answers)
        self._lag = time.monotonic() - arrived if answers else self._lag
        return await future

    async def use(self, group: int, usage: dict[str, Any]) -> None:
        """A worker says what it uses of its machine."""
        self._usage[group] = time.monotonic(), usage

    async def lose(self, group: int, reason: str) -> None:
        """See `Board.lose`."""
        self._deliver(self._board.lose(group, reason))

    async def leave(self) -> None:
        """See `Board.leave`."""
        self._board.leave()

    async def status(self) -> dict[str, Any]:
        """What the live table shows."""
        known = time.monotonic() - USAGE_S
        usage = {group: used for group, (at, used) in self._usage.items() if at >= known}
        return {**status.status(self._board, self._meter), "lag_s": self._lag, "usage": usage}

    async def outcome(self) -> tuple[bool, dict[int, str]]:
        """Whether the sweep is finished, and the groups that were lost for good."""
        return self._board.finished, self._board.lost

    async def close(self, reason: str) -> None:
        """See `Board.close`."""
        self._board.close(reason)

    def _deliver(self, answers: dict[int, Answer]) -> None:
        for group, answer in answers.items():
            future = self._waiting.pop(group, None)
            if future is not None and not future.done():
                future.set_result(answer)
