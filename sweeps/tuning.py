"""Have Ray Tune place the groups, watch the board meanwhile, and leave cleanly when asked to.

The board says who trains what; Tune only places workers and tells of those it lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import history, journal, places, store, tracking
from sweeps.resolve import Resolved
from sweeps.spec import SweepSpec
from sweeps.telemetry import Watch

StatusCallback = Callable[[dict[str, Any]], None]
ReportWriter = Callable[[Path], object]
POLL_S = 0.5
LEAVE_S = 20.0  # how long an interrupted sweep may take to checkpoint before it is cut off


class SweepFailed(RuntimeError):
    """No group was left that could train."""


class Rows:
    """Follows the journal and keeps the Parquet parts up to date; what it reads it hands on to the watch."""

    def __init__(self, folder: Path, watch: Watch | None = None) -> None:
        self._journal = folder / "journal.jsonl"
        self._fence = journal.Fence()
        records, self._offset = journal.tail(self._journal, 0, self._fence)
        self._watch = watch
        if watch is not None:
            watch.begin(records)
        self._writer = store.RowWriter(folder, history.fold(records))

    def follow(self) -> None:
        """Take in what the journal has gained."""
        records, self._offset = journal.tail(self._journal, self._offset, self._fence)
        if self._watch is not None and records:
            self._watch.add(records)
        for record in records:
            self._writer.add(record)

    def close(self) -> None:
        """Write all that is left."""
        self.follow()
        self._writer.close()


@dataclass(slots=True)
class Drive:
    """One driver's work on one folder."""

    folder: Path
    spec: SweepSpec
    on_status: StatusCallback | None
    report: ReportWriter | None
    mirror: tracking.Mirror | None
    rows: Rows
    phase: str = "starting"
    interrupted: bool = False


def start_board(folder: Path, spec: SweepSpec, epoch: int, extend: int, groups: int, slots: int) -> Any:
    """Start the board's actor; it replays the journal while others start."""
    from sweeps.board_actor import BoardActor

    path, plain = str(folder.resolve()), spec.model_dump(mode="json")  # actors have a working directory of their own
    actor: Any = BoardActor  # Ray's decorator adds methods that its types do not show
    return actor.options(max_concurrency=1000).remote(path, plain, groups, slots, epoch, extend)


def tune_groups(drive: Drive, board: Any, resolved: Resolved) -> None:
    """Have Ray Tune place the groups and wait until the board says that the sweep is over."""
    import ray
    from ray import tune

    from sweeps.callback import LostGroups
    from sweeps.own_worker import OwnWorker
    from sweeps.seats import Seats
    from sweeps.worker import GroupWorker

    folder, resources = drive.folder.resolve(), drive.spec.resources
    place = {
        "folder": str(folder),
        "url": places.remote_of(folder),
        "spec": drive.spec.model_dump(mode="json"),
        "engines": resolved.engines,
        "device": resolved.device,
        "capture": True,
        "board": board,
        "cwd": str(Path.cwd()),  # files that the user's own code opens; Tune gives workers folders of their own
    }
    worker = OwnWorker if drive.spec.trainer else GroupWorker
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resolved.workers)  # one by one they would wait for each other
    tuner = tune.Tuner(
        tune.with_resources(worker, {"cpu": resources.cpu, "gpu": resources.gpu}),
        tune_config=tune.TuneConfig(
            metric="trials",
            mode="min",
            search_alg=Seats(resolved.workers, place),
            num_samples=-1,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "ray"),
            failure_config=tune.FailureConfig(max_failures=5),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # groups keep their own
            callbacks=[LostGroups(board)],
            verbose=0,
        ),
    )
    reason = "failed"
    try:
        with _watch(drive, board):
            tuner.fit()
        finished, lost = ray.get(board.outcome.remote())
        if drive.interrupted:
            reason = "interrupted"
        elif finished:
            reason = "finished"
        else:
            raise SweepFailed("; ".join(f"group {g}: {why}" for g, why in lost.items()) or "Ray Tune ended early")
    finally:
        with contextlib.suppress(Exception):
            ray.get(board.close.remote(reason), timeout=30)
        ray.kill(board)


@contextlib.contextmanager
def _watch(drive: Drive, board: Any) -> Iterator[None]:
    """Show the board's state while Tune runs, and turn the first SIGINT or SIGTERM into a clean leave."""
    import ray

    stopped = threading.Event()
    drive.phase = "searching"

    def poll() -> None:
        while not stopped.wait(POLL_S):
            if main and _asked_to_leave(drive.folder):
                os.kill(os.getpid(), signal.SIGTERM)
            with contextlib.suppress(Exception):
                _show(drive, ray.get(board.status.remote(), timeout=10))
                drive.rows.follow()

    def give_up(_signum: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    def leave(_signum: int, _frame: Any) -> None:
        """Ask the groups to checkpoint and leave; a second signal, or none of them answering in time, ends it."""
        drive.interrupted, drive.phase = True, "stopping"
        board.leave.remote()
        for again in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(again, give_up)
        signal.alarm(int(LEAVE_S))

    main = threading.current_thread() is threading.main_thread()
    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)} if main else {}
    if main:
        signal.signal(signal.SIGINT, leave)
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except KeyboardInterrupt:
        drive.interrupted = True
    finally:
        if main:
            signal.alarm(0)
        for signum, handler in before.items():
            signal.signal(signum, handler)
        stopped.set()
        with contextlib.suppress(Exception):
            _show(drive, ray.get(board.status.remote(), timeout=10))
        poller.join(timeout=2 * POLL_S)


def _asked_to_leave(folder: Path) -> bool:
    """Whether someone whose signals do not reach this process has left a word for it, which is taken away."""
    try:
        (folder / "logs" / "stop").unlink()
    except OSError:
        return False
    return True


def _show(drive: Drive, state: dict[str, Any]) -> None:
    if drive.on_status is not None:
        mlflow = drive.mirror.status() if drive.mirror is not None else None
        phase = "confirming" if drive.phase == "searching" and state["confirming"] else drive.phase
        extra = {"sweep_id": drive.folder.name, "folder": str(drive.folder), "phase": phase, "mlflow": mlflow}
        drive.on_status({**state, **extra})


def say(on_status: StatusCallback | None, folder: Path, phase: str, **more: str) -> None:
    """Tell whoever shows the sweep what the driver is doing now."""
    if on_status is not None:
        on_status({"sweep_id": folder.name, "folder": str(folder), "phase": phase, **more})
