"""Trials of a group of which only some are in memory at once: the others' states lie on this machine's disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any


class Residents:
    """Brings trials into a group and out again, where a worker has run out of memory before.

    Args:
        group: what trains; `add(config, state)`, `remove(number)` and `state(number)` are all that is asked of it.
        unpack: the wanted trials' states of an archive.
    """

    def __init__(self, group: Any, unpack: Callable[[bytes, set[int]], dict[int, Any]]) -> None:
        self._group, self._unpack = group, unpack
        self._configs: dict[int, Any] = {}
        self._parked: dict[int, IO[bytes]] = {}
        """Files without a name: they are gone with this process, however it ends."""
        self._size: int | None = None

    def limit(self, size: int | None) -> None:
        """Have no more than so many in memory from the next `at_once` on; None: all."""
        self._size = size

    @property
    def limited(self) -> bool:
        """Whether trials are trained by turns."""
        return self._size is not None

    def add(self, config: Any, state: Any) -> None:
        """Take a trial in; it is in memory until it is parked."""
        self._group.add(config, state)
        self._configs[config.number] = config

    def park(self, number: int) -> None:
        """Put a trial out of memory, if there is a limit."""
        from trainers.checkpoint import pack

        if self._size is None or number in self._parked:
            return
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when the trial is back
        file.write(pack({number: self._group.state(number)}))
        self._parked[number] = file
        self._group.remove(number)

    def remove(self, number: int) -> None:
        """Forget a trial."""
        self._configs.pop(number, None)
        if (file := self._parked.pop(number, None)) is not None:
            file.close()
        else:
            self._group.remove(number)

    def state(self, number: int) -> Any:
        """A trial's state, wherever it is."""
        return self._stored(number) if number in self._parked else self._group.state(number)

    def by_turns(self, numbers: Sequence[int], most: int | None = None) -> Iterator[list[int]]:
        """These trials in parts that may be in memory at once, and at most so many in one."""
        sizes = [size for size in (self._size, most) if size is not None]
        step = max(1, min(sizes, default=len(numbers)))
        for start in range(0, len(numbers), step):
            yield list(numbers[start : start + step])

    @contextlib.contextmanager
    def at_once(self, numbers: Sequence[int]) -> Iterator[None]:
        """Have these trials in memory meanwhile."""
        for number in [number for number in numbers if number in self._parked]:
            self._group.add(self._configs[number], self._stored(number))
            self._parked.pop(number).close()
        yield
        for number in numbers:
            if number in self._configs:
                self.park(number)

    def _stored(self, number: int) -> Any:
        file = self._parked[number]
        file.seek(0)
        return self._unpack(file.read(), {number})[number]

    def __del__(self) -> None:
        for file in self._parked.values():
            file.close()
