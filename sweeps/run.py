"""The driver: resolve a spec, start Ray, the board and Tune, watch them, and leave a finished folder behind.

`run` starts a sweep, `resume` goes on with one after any kind of end, `extend` adds trials to a finished one.
All three drive the same way: what was done is in the journal, so there is nothing else to restore.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import compared, history, journal, store, tracking
from sweeps import folder as folders
from sweeps.lease import Lease
from sweeps.resolve import Resolved, places, resolve
from sweeps.spec import SweepSpec

StatusCallback = Callable[[dict[str, Any]], None]
ReportWriter = Callable[[Path], object]
POLL_S = 0.5
MLFLOW_PATIENCE_S = 10.0
LEAVE_S = 20.0  # how long an interrupted sweep may take to checkpoint before it is cut off


class Interrupted(Exception):
    """The sweep was stopped from outside; `folder` resumes it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; resume with: musweep resume {folder}")
        self.folder = folder


class SweepFailed(RuntimeError):
    """No group was left that could train."""


class _Rows:
    """Follows the journal and keeps the Parquet parts up to date."""

    def __init__(self, folder: Path) -> None:
        self._journal = folder / "journal.jsonl"
        records, self._offset = journal.tail(self._journal, 0)
        self._writer = store.RowWriter(folder, history.fold(records))

    def follow(self) -> None:
        """Take in what the journal has gained."""
        records, self._offset = journal.tail(self._journal, self._offset)
        for record in records:
            self._writer.add(record)

    def close(self) -> None:
        """Write all that is left."""
        self.follow()
        self._writer.close()


@dataclass(slots=True)
class _Drive:
    """One driver's work on one folder."""

    folder: Path
    spec: SweepSpec
    on_status: StatusCallback | None
    report: ReportWriter | None
    mirror: tracking.Mirror | None
    rows: _Rows
    phase: str = "starting"
    interrupted: bool = False


def run(
    spec: SweepSpec,
    out: Path | None = None,
    on_status: StatusCallback | None = None,
    report: ReportWriter | None = None,
) -> Path:
    """Run a new sweep to its end and return its folder.

    Args:
        spec: a checked spec.
        out: the folder to make; default `<spec.storage>/<name>-<time>-<random>`.
        on_status: called about twice a second with the state of the sweep (`sweeps.status`).
        report: writes the report of a folder at the end, before MLflow gets its artifacts.

    Raises:
        FileExistsError: `out` holds a sweep already.
        Interrupted: stopped by SIGINT or SIGTERM, cleanly.
        SweepFailed: every group failed for good.
    """
    folder = folders.create(spec, out)
    with Lease(folder) as lease:
        return _drive(folder, spec, lease.epoch, on_status, report)


def resume(folder: Path, on_status: StatusCallback | None = None, report: ReportWriter | None = None) -> Path:
    """Go on with a sweep where its journal ends; a finished one only has its tables and report renewed."""
    spec = folders.read_spec(folder)
    with Lease(folder) as lease:
        return _drive(folder, spec, lease.epoch, on_status, report)


def extend(
    folder: Path, trials: int, on_status: StatusCallback | None = None, report: ReportWriter | None = None
) -> Path:
    """Add trials to a sweep's budget and run them; the search goes on from all it has seen."""
    spec = folders.read_spec(folder)
    with Lease(folder) as lease:
        return _drive(folder, spec, lease.epoch, on_status, report, extend=trials)


def _drive(
    folder: Path,
    spec: SweepSpec,
    epoch: int,
    on_status: StatusCallback | None,
    report: ReportWriter | None,
    extend: int = 0,
) -> Path:
    _quiet()
    _say(on_status, folder, "starting")
    workers, slots = places(folder, spec)
    with contextlib.ExitStack() as stack:
        # Ray and the board take seconds to start, and so does measuring the engines: side by side.
        resolving = stack.enter_context(ThreadPoolExecutor(1)).submit(resolve, folder, spec)
        stack.enter_context(_ray(workers, spec.resources.cpu))
        board = _board(folder, spec, epoch, extend, workers, slots)
        mirror = tracking.Mirror(folder, spec) if spec.mlflow.enabled else None
        drive = _Drive(folder, spec, on_status, report, mirror, _Rows(folder))
        if mirror is not None:
            mirror.start()
        try:
            _tune(drive, board, resolving.result())
        finally:
            drive.phase = "finishing"
            _say(on_status, folder, "finishing")
            _finish(drive)
    if drive.interrupted:
        raise Interrupted(folder)
    _say(on_status, folder, "done")
    return folder


def _board(folder: Path, spec: SweepSpec, epoch: int, extend: int, groups: int, slots: int) -> Any:
    """Start the board's actor; it replays the journal while others start."""
    from sweeps.board_actor import BoardActor

    path, plain = str(folder.resolve()), spec.model_dump(mode="json")  # actors have a working directory of their own
    actor: Any = BoardActor  # Ray's decorator adds methods that its types do not show
    return actor.options(max_concurrency=1000).remote(path, plain, groups, slots, epoch, extend)


def _tune(drive: _Drive, board: Any, resolved: Resolved) -> None:
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
        "spec": drive.spec.model_dump(mode="json"),
        "engines": resolved.engines,
        "device": resolved.device,
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
def _watch(drive: _Drive, board: Any) -> Iterator[None]:
    """Show the board's state while Tune runs, and turn the first SIGINT or SIGTERM into a clean leave."""
    import ray

    stopped = threading.Event()
    drive.phase = "searching"

    def poll() -> None:
        while not stopped.wait(POLL_S):
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

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    main = threading.current_thread() is threading.main_thread()
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


def _show(drive: _Drive, state: dict[str, Any]) -> None:
    if drive.on_status is not None:
        mlflow = drive.mirror.status() if drive.mirror is not None else None
        phase = "confirming" if drive.phase == "searching" and state["confirming"] else drive.phase
        extra = {"sweep_id": drive.folder.name, "folder": str(drive.folder), "phase": phase, "mlflow": mlflow}
        drive.on_status({**state, **extra})


def _say(on_status: StatusCallback | None, folder: Path, phase: str) -> None:
    if on_status is not None:
        on_status({"sweep_id": folder.name, "folder": str(folder), "phase": phase})


def _finish(drive: _Drive) -> None:
    """Write what is derived from the journal, then let MLflow catch up."""
    drive.rows.close()
    with contextlib.suppress(OSError):  # a full disk: many small files do as well
        store.merge_diagnostics(drive.folder)
    told = history.load(drive.folder)
    store.write_derived(drive.folder, told)
    compared.write(drive.folder)
    if drive.report is not None:
        drive.report(drive.folder)
    if drive.mirror is not None:
        _drain(drive.mirror)
        drive.mirror.stop()


def _drain(mirror: tracking.Mirror) -> None:
    """Wait for MLflow while it makes headway; one that fails gets the rest with the next sync."""
    failing_since = None
    while not mirror.drain(timeout=1.0):
        failing_since = (failing_since or time.monotonic()) if mirror.status()["error"] else None
        if failing_since is not None and time.monotonic() - failing_since > MLFLOW_PATIENCE_S:
            return


def _quiet() -> None:
    """Ray Tune's own loggers and progress lines are not for our users; ours are the journal and the live table."""
    for name, value in (
        ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),
        ("TUNE_DISABLE_SIGINT_HANDLER", "1"),
        ("TUNE_GLOBAL_CHECKPOINT_S", "3600"),  # its state is never restored (DESIGN 6)
        ("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0"),
        ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),
        ("RAY_DEDUP_LOGS", "1"),
        ("RAY_AIR_NEW_OUTPUT", "0"),
    ):
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def _ray(workers: int, cpu: float) -> Iterator[None]:
    """A Ray of our own on this machine, for so many workers of so many CPUs, unless the caller has started one."""
    import ray

    needed = max(1, math.ceil(workers * cpu))
    if ray.is_initialized():
        there = ray.cluster_resources().get("CPU", 0)
        if there < needed:  # groups wait for each other: one that finds no place would hold up all
            raise ValueError(f"the Ray that is running here has {there:g} CPUs, {workers} workers need {needed}")
        yield
        return
    ray.init(
        address="local",
        num_cpus=needed,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()
