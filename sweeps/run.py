"""The driver: resolve a spec, start Ray, the board and Tune, watch them, and leave a finished folder behind.

`run` starts a sweep, `resume` goes on with one after any kind of end, `extend` adds trials to a finished one.
All three drive the same way: what was done is in the journal, so there is nothing else to restore.
"""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sweeps import compared, history, remote, store, study_view, tracking
from sweeps import folder as folders
from sweeps.connect import cluster, own, shared
from sweeps.drive import Drive, ReportWriter, Rows, StatusCallback, say
from sweeps.lease import Guard, Lease
from sweeps.resolve import Resolved, device, places, resolve
from sweeps.spec import SweepSpec
from sweeps.telemetry import Watch
from sweeps.tuning import start_board, tune_groups
from sweeps.watching import interruptible

MLFLOW_PATIENCE_S = 10.0


class Interrupted(Exception):
    """The sweep was stopped from outside; `folder` resumes it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; resume with: musweep resume {folder}")
        self.folder = folder


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
        Unplaceable: the cluster cannot run it, as its folder is not shared there or its device does not work.
    """
    folder = folders.create(spec, out)
    with Lease(folder, waiting=lambda words: say(on_status, folder, "starting", note=words)) as lease:
        return _drive(folder, spec, lease.epoch, on_status, report)


def resume(folder: Path, on_status: StatusCallback | None = None, report: ReportWriter | None = None) -> Path:
    """Go on with a sweep where its journal ends; a finished one only has its tables and report renewed."""
    spec = folders.read_spec(folder)
    with Lease(folder, waiting=lambda words: say(on_status, folder, "starting", note=words)) as lease:
        return _drive(folder, spec, lease.epoch, on_status, report)


def extend(
    folder: Path, trials: int, on_status: StatusCallback | None = None, report: ReportWriter | None = None
) -> Path:
    """Add trials to a sweep's budget and run them; the search goes on from all it has seen."""
    spec = folders.read_spec(folder)
    with Lease(folder, waiting=lambda words: say(on_status, folder, "starting", note=words)) as lease:
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
    with Watch(folder, spec.model_dump(mode="json"), epoch, on_status, (Interrupted, KeyboardInterrupt)) as watch:
        return _driven(folder, spec, epoch, watch, report, extend)


def _driven(folder: Path, spec: SweepSpec, epoch: int, watch: Watch, report: ReportWriter | None, extend: int) -> Path:
    """See `_drive`, under a watch."""
    say(watch, folder, "starting")
    with contextlib.ExitStack() as stack:
        stack.enter_context(remote.publishing(folder))
        on_gpu = device(spec) == "cuda"
        if shared() or on_gpu:  # a GPU's memory says how many trials a group can have: measured where they will train
            workers, _ = places(folder, spec)
            stack.enter_context(cluster() if shared() else own(workers, spec.resources.cpu, spec.resources.gpu))
            with interruptible():
                resolved = _on_cluster(folder, spec, watch)
            board = start_board(folder, spec, epoch, extend, resolved.workers, resolved.group_size)
        else:
            workers, slots = places(folder, spec)
            # Ray and the board take seconds to start, and so does measuring the engines: side by side.
            resolving = stack.enter_context(ThreadPoolExecutor(1)).submit(resolve, folder, spec)
            stack.enter_context(own(workers, spec.resources.cpu, spec.resources.gpu))
            board = start_board(folder, spec, epoch, extend, workers, slots)
            with interruptible():
                resolved = resolving.result()
        mirror = tracking.Mirror(folder, spec) if spec.mlflow.enabled else None
        drive = Drive(folder, spec, watch, report, mirror, Rows(folder, watch))
        if mirror is not None:
            watch.mlflow = mirror.status
            mirror.start()
        stack.enter_context(study_view.following(folder, spec))
        try:
            tune_groups(drive, board, resolved)
        finally:
            drive.phase = "finishing"
            say(watch, folder, "finishing")
            Guard(folder, epoch).check()  # what another driver may be writing by now is not touched
            _finish(drive)
    if drive.interrupted:
        raise Interrupted(folder)
    say(watch, folder, "done")
    return folder


def _on_cluster(folder: Path, spec: SweepSpec, on_status: StatusCallback | None) -> Resolved:
    """See that every node can do its part, and choose by what is there."""
    from sweeps import placement

    for warning in placement.check_nodes(folder, spec):
        say(on_status, folder, "starting", note=warning)
    return placement.resolve_there(folder, spec, lambda words: say(on_status, folder, "starting", note=words))


def _finish(drive: Drive) -> None:
    """Write what is derived from the journal, then let MLflow catch up."""
    drive.rows.close()
    with contextlib.suppress(OSError):  # a full disk: many small files do as well
        remote.merge_diagnostics(drive.folder)
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
