"""Server-sent events: what changes is told once to all who watch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from anyio import to_thread

from cluster.service.models import Summary
from cluster.service.reading import FRESH_S, Shelf

BEAT_S = 15.0
"""After so long without news a comment is sent, so that proxies keep the connection."""
MOST = 500
"""Streams at once."""
SPREAD_S, MOST_SPREAD_S = 0.015, 1.5
"""Seconds, for each stream and at most, over which news are told."""
_WAITING = 64
"""Events that a slow client may be behind."""
_FIRST = 50
"""Sweeps, the last changed ones, that a new stream is told of at once."""


@dataclass(eq=False)
class Watcher:
    """One open stream."""

    sweep: str | None
    waiting: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(_WAITING))


def event(kind: str, data: str, id_: str = "") -> bytes:
    """One event as it goes over the line."""
    lines = [f"event: {kind}", *([f"id: {id_}"] if id_ else []), *(f"data: {line}" for line in data.splitlines())]
    return ("\n".join(lines) + "\n\n").encode()


def busy() -> bool:
    """Whether the machine has more to do than cores: then sweeps go first, and pages go on half as often."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


class TooMany(Exception):
    """As many streams as there may be are open."""


class Hub:
    """Looks at the sweeps while anyone watches, and tells all of them what is new.

    Events: `sweep` with a Summary as JSON whenever one changes, `gone` with an id, `bye` when the service ends.

    Args:
        shelf: of the sweeps.
        every_s: between two looks.
    """

    def __init__(self, shelf: Shelf, every_s: float = FRESH_S) -> None:
        self._shelf, self._every_s = shelf, every_s
        self._watchers: set[Watcher] = set()
        self._known: dict[str, Summary] = {}
        self._task: asyncio.Task[None] | None = None
        self._over = False

    @property
    def watchers(self) -> int:
        """Open streams."""
        return len(self._watchers)

    def begin(self) -> None:
        """Let streams be open, also after `close`."""
        self._over, self._task = False, None

    def close(self) -> None:
        """End all streams; from the event loop's thread."""
        self._over = True
        for watcher in self._watchers:
            self._put(watcher, b"")
        if self._task is not None:
            self._task.cancel()

    def open(self, sweep: str | None = None) -> Watcher:
        """A place for a stream of one sweep, or of all.

        Raises:
            TooMany: as many streams as there may be are open.
        """
        if len(self._watchers) >= MOST:
            raise TooMany
        return Watcher(sweep)

    async def watch(self, watcher: Watcher) -> AsyncIterator[bytes]:
        """The events of a stream: first how things stand, then every change, until the client leaves."""
        self._watchers.add(watcher)
        try:
            yield b"retry: 2000\n\n"
            every = await to_thread.run_sync(self._shelf.sweeps)
            if self._task is None or self._task.done():  # news are what differs from what the first one was told
                self._known = {each.id: each for each in every}
                self._task = asyncio.create_task(self._look())
            found = [each for each in every if watcher.sweep in (None, each.id)]
            yield b"".join(event("sweep", each.model_dump_json(), each.version) for each in found[:_FIRST])
            while not self._over:
                try:
                    news = await asyncio.wait_for(watcher.waiting.get(), BEAT_S)
                except TimeoutError:
                    news = b": still here\n\n"
                if news:
                    # Pages ask again when they are told: all at once they would wait for each other.
                    await asyncio.sleep(random.random() * min(MOST_SPREAD_S, SPREAD_S * len(self._watchers)))
                    yield news
            yield event("bye", "{}")
        finally:
            self._watchers.discard(watcher)

    async def _look(self) -> None:
        while self._watchers and not self._over:
            with contextlib.suppress(OSError):
                found = {each.id: each for each in await to_thread.run_sync(self._shelf.sweeps)}
                self._tell(found)
                self._known = found
            await asyncio.sleep(self._every_s * (2 if busy() else 1))

    def _tell(self, found: dict[str, Summary]) -> None:
        news = [
            (id_, event("sweep", each.model_dump_json(), each.version))
            for id_, each in found.items()
            if self._known.get(id_) != each
        ]
        news += [(id_, event("gone", f'"{id_}"')) for id_ in self._known.keys() - found.keys()]
        for id_, data in news:
            for watcher in self._watchers:
                if watcher.sweep in (None, id_):
                    self._put(watcher, data)

    def _put(self, watcher: Watcher, data: bytes) -> None:
        """Have a client told; of one that does not read the oldest news are dropped."""
        while watcher.waiting.full():
            watcher.waiting.get_nowait()
        watcher.waiting.put_nowait(data)
