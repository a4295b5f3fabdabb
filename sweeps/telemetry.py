"""What a driver tells of a running sweep: status.json, always whole and at most seconds old, and its events.

A reader on another machine knows that a status is old when its `beat` no longer rises; clocks are not compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from sweeps import journal, lease
from sweeps.cost import Devices, Ledger
from sweeps.events import Live, append, encode

FILE = "status.json"
SCHEMA_VERSION = 1
WRITE_S = 2.0
OLD_S = 30.0  # a status whose beat has not risen for so long has no driver

Status = dict[str, Any]


def load(folder: Path) -> Status:
    """The last status of a sweep as its driver left it, empty if there is none that can be read."""
    try:
        status = json.loads((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) and status.get("schema_version", 0) <= SCHEMA_VERSION else {}


def read(folder: Path) -> Status:
    """The last status of a sweep, empty if it never had any; `age_s` and whether a driver holds it (`driven`) added."""
    status = load(folder)
    if not status:
        return {}
    age = max(0.0, time.time() - float(status.get("time", 0.0)))
    return {**status, "age_s": age, "driven": lease.held(folder)}


def over(folder: Path) -> bool:
    """Whether no driver works on a sweep now."""
    return not lease.held(folder)


class Watch:
    """Stands where the status callback of a driver stands: keeps each status for readers, and passes it on.

    Args:
        folder: the sweep folder, whose lease the caller holds.
        spec: its spec as plain values, for what a worker holds.
        epoch: of the lease.
        then: the callback that it stands before.
        interrupts: errors that only say that the sweep was stopped from outside.
    """

    def __init__(
        self,
        folder: Path,
        spec: dict[str, Any],
        epoch: int,
        then: Callable[[Status], None] | None = None,
        interrupts: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
    ) -> None:
        self._path = folder / FILE
        self._interrupts = interrupts
        self._looked, self._taken = 0.0, False
        self._then = then
        self._devices = Devices.of(spec)
        before = read(folder)
        self._beat = int(before.get("beat", 0))
        self._head = {"schema_version": SCHEMA_VERSION, "host": socket.gethostname(), "pid": os.getpid(),
                      "epoch": epoch, "started": time.time()}  # fmt: skip
        self._status: Status = {}
        self._ledger = Ledger()
        self._events: Live | None = None
        self._early: list[tuple[str, dict[str, Any]]] = []
        self._troubles: dict[str, str] = {}
        self._groups: dict[int, tuple[Any, ...]] = {}
        self._waiting = ""
        self.mlflow: Callable[[], Status] | None = None
        """Asked for MLflow's state also while nobody else asks, as when the sweep is over and MLflow catches up."""
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Watch:
        self.tell("driver_started", **{key: self._head[key] for key in ("host", "pid", "epoch")})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        phase = "done" if kind is None else "interrupted" if issubclass(kind, self._interrupts) else "failed"
        failed = {} if phase != "failed" else {"error": f"{kind.__name__ if kind else ''}: {error}".splitlines()[0]}
        self._stop.set()
        self._thread.join(10 * WRITE_S)
        with self._lock:
            self._status |= {"phase": phase, **({"mlflow": self.mlflow()} if self.mlflow is not None else {})}
            self._looked = 0.0
            self.tell("driver_stopped", reason=phase, **failed)
            self._write()
            if self._events is not None:
                self._events.close()
            for early, told in self._early if not self._stale() else ():  # it never came as far as the journal
                append(self._path.parent, early, **told)

    def _stale(self) -> bool:
        """Whether another driver has taken the sweep over; then its files are not touched."""
        now = time.monotonic()
        if not self._taken and (not self._looked or now - self._looked > 1.0):
            self._looked = now
            self._taken = lease.read(self._path.parent).get("epoch", self._head["epoch"]) > self._head["epoch"]
        return self._taken

    # -- the journal -------------------------------------------------------------------------------------------

    def begin(self, records: list[journal.Record]) -> None:
        """Take the journal as it stands, once, before any `add`."""
        with self._lock:
            self._events = Live(self._path.parent, records)
            for kind, fields in self._early:
                self._events.tell(kind, **fields)
            self._early.clear()
            self._count(records)

    def add(self, records: list[journal.Record]) -> None:
        """Take in what the journal has gained."""
        with self._lock:
            if self._events is not None and not self._stale():
                self._events.add(records)
            self._count(records)

    def _count(self, records: Iterable[journal.Record]) -> None:
        for record in records:
            self._ledger.add(record)
            if record["type"] == "open":
                self._head["versions"] = record["versions"]

    # -- what others say -----------------------------------------------------------------------------------------

    def tell(self, kind: str, **fields: Any) -> None:
        """Write an event that is in no journal."""
        with self._lock:
            if self._events is None:
                self._early.append((kind, {"time": time.time(), **fields}))
            elif not self._stale():
                self._events.tell(kind, **fields)

    def __call__(self, status: Status) -> None:
        """Take a new status: keep it, tell of what is new in it, pass it on."""
        with self._lock:
            changed = status.get("phase") != self._status.get("phase")
            self._status |= status
            self._notice()
            if changed:
                self._write()
        if self._then is not None:
            self._then(status)

    def _notice(self) -> None:
        """Tell of troubles that came or went, and of groups whose place is another."""
        status = self._status
        found = {"journal": status.get("trouble"), "mlflow": (status.get("mlflow") or {}).get("error")}
        for source, words in found.items():
            if words and source not in self._troubles:
                self.tell("trouble", source=source, words=str(words).splitlines()[0])
            elif not words and source in self._troubles:
                self.tell("trouble_over", source=source)
        self._troubles = {source: str(words) for source, words in found.items() if words}
        for group in status.get("groups") or ():
            place = tuple(group.get(key) for key in ("state", "host", "device", "pid"))
            if self._groups.get(group["group"]) != place:
                self._groups[group["group"]] = place
                told = {key: group.get(key) for key in ("group", "state", "host", "device", "pid", "restarts")}
                self.tell("group", **{key: value for key, value in told.items() if value is not None})
        waiting = str(status.get("waiting") or "")
        if waiting != self._waiting:
            self._waiting = waiting
            self.tell("waiting", words=waiting) if waiting else self.tell("waiting_over")

    # -- status.json ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(WRITE_S):
            with self._lock:
                if self.mlflow is not None:
                    self._status["mlflow"] = self.mlflow()
                    self._notice()
                self._write()

    def _write(self) -> None:
        """Replace the file. It is not synced: after a power cut it may be gone, and the next driver writes it anew."""
        if self._stale():
            return
        self._beat += 1
        counted = self._ledger.plain()
        spent = {
            f"{self._devices.kind.lower()}_seconds": self._devices.seconds(counted["held_s"]),
            "devices": {"gpus": self._devices.gpus, "cpus": self._devices.cpus},
        }
        name = self._events.sweep_id if self._events else self._path.parent.name
        status = {**self._status, **self._head, **counted, **spent, "sweep_id": name,
                  "time": time.time(), "beat": self._beat}  # fmt: skip
        temporary = self._path.with_name(f".{FILE}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            temporary.write_bytes(encode(status))
            temporary.replace(self._path)
