"""Stored states of trials: a group's checkpoints, from which a restart goes on, and states that are kept for good."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweeps import forks, journal, remote
from sweeps.store import atomic_write

Unpack = Callable[[bytes, set[int]], dict[int, Any]]


class Checkpoints:
    """Where one group stores states of a sweep, and where any group finds those of any trial.

    Where the sweep lies on a store, its workers have working folders of their own, of which the store has all.

    Args:
        folder: the sweep folder.
        group: whose checkpoints `write` writes.
        unpack: the wanted trials' states of an archive; raises DamagedStateError.
    """

    def __init__(self, folder: Path, group: int, unpack: Unpack) -> None:
        self._folder, self._group, self._unpack = folder, group, unpack
        self._store = remote.of(folder)

    def write(self, states: Mapping[int, Any]) -> None:
        """Store every trial of the group; the last two checkpoints are kept.

        Each has a name of its own: neither a crash nor a stale worker can harm an older one. Where there is no room,
        or no answer, the older ones have to do: a worker that trains on is worth more than one that waits.
        """
        from trainers.checkpoint import pack

        folder = self._folder / "checkpoints"
        path = folder / f"group-{self._group:03d}-{time.time_ns():020d}.npz"
        try:
            folder.mkdir(exist_ok=True)
            atomic_write(path, pack(states))
            remote.keep(path, self._folder)
        except OSError as error:
            if not (words := journal.trouble(error)):
                raise
            print(f"checkpoint {path.name} is not stored: {words}", file=sys.stderr)
            path.unlink(missing_ok=True)
            return
        for old in sorted(folder.glob(f"group-{self._group:03d}-*.npz"))[:-2]:
            old.unlink(missing_ok=True)
            if self._store is not None:
                with contextlib.suppress(OSError):
                    self._store.remove(f"checkpoints/{old.name}")

    def read(self, wanted: Mapping[int, int]) -> dict[int, Any]:
        """The newest stored state of each wanted trial, at or before its update; damaged files are passed over."""
        from trainers.checkpoint import DamagedStateError

        found: dict[int, Any] = {}
        if not wanted:
            return found
        if self._store is not None:
            remote.patiently("checkpoints are not read", self._fetch)
        for path in sorted((self._folder / "checkpoints").glob("group-*.npz")):
            with contextlib.suppress(DamagedStateError, OSError):
                for number, state in self._unpack(path.read_bytes(), set(wanted)).items():
                    newer = number not in found or state.update > found[number].update
                    if state.update <= wanted[number] and newer:
                        found[number] = state
        return found

    def _fetch(self) -> None:
        """Have here what other nodes, or another driver's, have stored."""
        assert self._store is not None
        names = self._store.names("checkpoints/")
        remote.fetch_all(self._folder, self._store, [name for name in names if not (self._folder / name).exists()])

    def keep_model(self, number: int, state: Any) -> None:
        """Keep the last state of a complete trial, for `musweep export --model`."""
        self._keep(forks.model_path(self._folder, number), number, state)

    def keep_state(self, number: int, update: int, state: Any) -> None:
        """Keep a state that a fork may start from."""
        self._keep(forks.state_path(self._folder, number, update), number, state)

    def _keep(self, path: Path, number: int, state: Any) -> None:
        from trainers.checkpoint import pack

        data = pack({number: state})

        def store() -> None:
            path.parent.mkdir(exist_ok=True)
            atomic_write(path, data)
            remote.keep(path, self._folder)

        remote.patiently(f"{path.name} is not stored", store)
