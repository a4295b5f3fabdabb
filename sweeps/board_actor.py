"""The board as a Ray actor: one process beside the driver, that groups and the driver call."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import ray

from sweeps import lease, status
from sweeps.board import Answer, Attached, Board, Entry
from sweeps.spec import SweepSpec
from sweeps.versions import versions


@ray.remote(num_cpus=0, max_restarts=0)
class BoardActor:
    """Serves one `Board`. A report is answered when its round is settled; meanwhile the caller waits."""

    def __init__(self, folder: str, spec: dict[str, Any], groups: int, slots: int, epoch: int, extend: int) -> None:
        def guard() -> None:
            if lease.read(Path(folder)).get("epoch") != epoch:
                os._exit(1)  # another driver owns the sweep: nothing may be written or answered any more

        self._board = Board(
            Path(folder), SweepSpec.model_validate(spec), groups, slots,
            epoch=epoch, versions=versions(), guard=guard,
        )  # fmt: skip
        if extend:
            self._board.extend(extend)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._meter = status.Meter()

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
        self._deliver(self._board.report(group, incarnation, engine, entries))
        return await future

    async def lose(self, group: int, reason: str) -> None:
        """See `Board.lose`."""
        self._deliver(self._board.lose(group, reason))

    async def leave(self) -> None:
        """See `Board.leave`."""
        self._board.leave()

    async def status(self) -> dict[str, Any]:
        """What the live table shows."""
        return status.status(self._board, self._meter)

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
