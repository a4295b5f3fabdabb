"""The audit log: who asked for what that changes something, from where, and what came of it. Never a secret."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeps.events import scrub

FILE = "audit.jsonl"
_LONGEST = 300


def place() -> Path:
    """Where it lies: where musweep keeps its state."""
    from cluster.submitted import state_folder

    return state_folder() / FILE


class Audit:
    """Appends to the log, a line of JSON each; nothing of it is ever changed.

    Args:
        path: of the file, readable by its owner only; None keeps none, for tests.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self._turn = path, threading.Lock()
        self._failed = False

    def write(self, who: str, role: str, origin: str, what: str, status: int, **more: Any) -> None:
        """Note what was asked for and what came of it.

        Args:
            who: by name; empty for nobody known.
            role: at that time.
            origin: the client's address.
            what: in words, as in `POST /api/v1/sweeps`.
            status: of the answer.
            more: what else tells what was done, such as a sweep's id.
        """
        if self.path is None:
            return
        told = {"time": round(time.time(), 3), "who": who, "role": role, "from": origin, "what": what, "status": status}
        told |= {name: value for name, value in more.items() if value}
        line = json.dumps({name: _short(value) for name, value in told.items()}, separators=(",", ":")) + "\n"
        try:
            with self._turn:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                try:
                    os.write(file, line.encode())
                finally:
                    os.close(file)
            self._failed = False
        except OSError as error:
            if not self._failed:  # said once: a full disk must not stop whoever wants to stop a sweep
                print(f"warning: the audit log {self.path} cannot be written: {error.strerror}", flush=True)
            self._failed = True


def _short(value: Any) -> Any:
    return scrub(value)[:_LONGEST] if isinstance(value, str) else value


def read(path: Path, last: int = 100) -> list[dict[str, Any]]:
    """The last lines, the newest last; none where there is no log."""
    return list(deque(_lines(path), maxlen=last))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found
