"""Watch a sweep while Tune runs: show its state, end workers that hang, see whether Ray is there, leave cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sweeps.connect import Head, shared
from sweeps.drive import Drive
from sweeps.round import Place

if TYPE_CHECKING:
    from sweeps.seats import Seats

POLL_S = 0.5
WHY_S = 5.0  # how often the cluster is asked for what it has free
END_S = 10.0  # how long a worker that is to be ended may take before that is tried again
LEAVE_S = 20.0  # how long an interrupted sweep may take to checkpoint before it is cut off
HEAD_S = 45.0  # a cluster's head may be restarted; after 60 s Ray ends this process, without a word to anybody
OWN_HEAD_S = 10.0  # nobody restarts that of a Ray of our own
CUT_S = 5.0
LEAVING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watcher:
    """Looks after a sweep twice a second, in a thread of its own.

    Args:
        drive: what is shown.
        board: the board's actor.
        seats: told when all is over.
        worker_bytes: what a full worker takes of memory, 0 if that is not known.
    """

    def __init__(self, drive: Drive, board: Any, seats: Seats, worker_bytes: int) -> None:
        import ray

        self._drive, self._board, self._seats, self._worker_bytes = drive, board, seats, worker_bytes
        self._shared = shared()
        self._head = Head(str(ray.get_runtime_context().gcs_address))
        self._why, self._asked = "", -WHY_S
        self._ended: dict[Place, float] = {}
        self._stopped = threading.Event()
        self._main = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, but show the last state."""
        self._stopped.set()
        with contextlib.suppress(Exception):
            self._show(self._ask(self._board.status.remote()))
        self._thread.join(timeout=2 * POLL_S)

    def _run(self) -> None:
        while not self._stopped.wait(POLL_S):
            if self._main and _asked_to_leave(self._drive.folder):
                os.kill(os.getpid(), signal.SIGTERM)
            if (gone := self._head.silent_s()) > (HEAD_S if self._shared else OWN_HEAD_S):
                self._give_up(f"Ray's head at {self._head.address} has not answered for {gone:.0f} s")
                return
            with contextlib.suppress(Exception):
                self._look()
                self._drive.rows.follow()

    def _look(self) -> None:
        state = self._ask(self._board.status.remote(self._why))
        self._show(state)
        self._seats.over = self._ask(self._board.over.remote())
        if self._head.silent_s():
            return  # what follows asks the head
        self._end(self._ask(self._board.condemned.remote()))
        without = any(group["state"] == "waiting" for group in state["groups"])
        if without and self._shared and time.monotonic() - self._asked > WHY_S:
            from sweeps import placement

            self._why, self._asked = placement.waiting_now(self._drive.spec, self._worker_bytes), time.monotonic()

    def _end(self, condemned: dict[int, Place]) -> None:
        """Have workers ended that the board has given up; that they are gone is heard from Tune."""
        from sweeps import placement

        now = time.monotonic()
        for place in condemned.values():
            if now - self._ended.get(place, -END_S) >= END_S:
                self._ended[place] = now
                placement.end_worker(place)

    def _ask(self, reference: Any) -> Any:
        import ray

        return ray.get(reference, timeout=10)

    def _show(self, state: dict[str, Any]) -> None:
        drive = self._drive
        if drive.on_status is not None:
            mlflow = drive.mirror.status() if drive.mirror is not None else None
            phase = "confirming" if drive.phase == "searching" and state["confirming"] else drive.phase
            extra = {"sweep_id": drive.folder.name, "folder": str(drive.folder), "phase": phase, "mlflow": mlflow}
            drive.on_status({**state, **extra})

    def _give_up(self, words: str) -> None:
        """End the sweep with an error. All is in the journal; the same command, or resume, goes on."""
        drive = self._drive
        drive.failed = f"{words}; nothing is lost, go on with: musweep resume {drive.folder}"
        if self._main:
            os.kill(os.getpid(), signal.SIGALRM)
        if self._stopped.wait(CUT_S):
            return
        # The main thread hears no signal while it waits, in Ray, for a head that is gone.
        with contextlib.suppress(Exception):
            self._ask(self._board.close.remote("failed"))
        print(f"error: the sweep failed: {drive.failed}", file=sys.stderr, flush=True)
        os._exit(1)


def _leaving() -> list[signal.Signals]:
    """Signals that ask a driver to leave; under nohup a closed terminal is nothing to leave for."""
    return [s for s in LEAVING if s != signal.SIGHUP or signal.getsignal(s) is not signal.SIG_IGN]


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn signals to leave into KeyboardInterrupt while no group trains; Ray's handler would abort the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, _interrupt) for signum in _leaving()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def watching(drive: Drive, board: Any, seats: Seats, worker_bytes: int) -> Iterator[None]:
    """Watch a sweep meanwhile, and turn the first SIGINT, SIGTERM or SIGHUP into a clean leave.

    Args:
        drive: whose sweep; `interrupted` or `failed` is set if it did not come to its own end.
        board: the board's actor.
        seats: told when all is over.
        worker_bytes: what a full worker takes of memory, 0 if that is not known.
    """
    drive.phase = "searching"

    def leave(_signum: int, _frame: FrameType | None) -> None:
        """Ask the groups to checkpoint and leave; a second signal, or none of them answering in time, ends it."""
        drive.interrupted, drive.phase = True, "stopping"
        board.leave.remote()
        for again in leaving:
            signal.signal(again, _interrupt)
        signal.alarm(int(LEAVE_S))

    main = threading.current_thread() is threading.main_thread()
    watcher = Watcher(drive, board, seats, worker_bytes)
    leaving = _leaving()
    before = {s: signal.getsignal(s) for s in (*leaving, signal.SIGALRM)} if main else {}
    if main:
        for signum in leaving:
            signal.signal(signum, leave)
        signal.signal(signal.SIGALRM, _interrupt)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        drive.interrupted = not drive.failed
    finally:
        if main:
            signal.alarm(0)
        for signum, handler in before.items():
            signal.signal(signum, handler)
        watcher.stop()


def _asked_to_leave(folder: Path) -> bool:
    """Whether someone whose signals do not reach this process has left a word for it, which is taken away."""
    try:
        (folder / "logs" / "stop").unlink()
    except OSError:
        return False
    return True
