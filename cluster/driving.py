"""Driving a sweep from the command line: load its spec, run or resume it under a display, say how it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cluster.app import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER

if TYPE_CHECKING:
    from cluster.live import Status
    from sweeps.spec import SweepSpec


def load(path: Path, overrides: Sequence[str] | None, protocol: str | None = None) -> SweepSpec:
    """Read and check a spec, given as a file or as the name of a shipped one."""
    from sweeps import spec

    return spec.load(path, list(overrides or ()), protocol)


def is_shipped(name: Path) -> bool:
    """Whether a spec of this name comes with musweep."""
    from sweeps.spec import shipped

    return str(name) in shipped()


def warn(spec: SweepSpec) -> None:
    """Say what is allowed and yet probably not meant."""
    from cluster.plan import warnings

    for line in warnings(spec):
        print(f"warning: {line}", file=sys.stderr)


def holds(folder: Path, spec: SweepSpec) -> bool:
    """Whether a folder holds a sweep of this very spec, so that the command that was killed can be given again.

    Raises:
        UserError: it holds a sweep of another spec.
    """
    from cluster.folders import UserError, find, is_sweep
    from sweeps import places
    from sweeps.folder import read_spec
    from sweeps.warm import same_but_for_sources

    if (url := places.url_of(folder)) is not None:
        from sweeps.remote import Remote

        if "spec.json" not in Remote(url).names():
            return False
        folder = find(folder)
    if not is_sweep(folder):
        return False
    stored = read_spec(folder)
    if stored != spec and not same_but_for_sources(spec, stored):
        raise UserError(f"{folder} holds a sweep of another spec: choose another --out, or `musweep resume {folder}`")
    return True


def write_report(folder: Path) -> Path:
    """Write the report of a sweep folder; return where it is."""
    from dashboards.report import write

    return write(folder)


def drive_spec(spec: SweepSpec, out: Path | None) -> None:
    """Run a new sweep."""

    def start(show: Callable[[Status], None]) -> Path:
        from sweeps.run import run as run_sweep

        return run_sweep(spec, out, on_status=show, report=write_report)

    _drive(start)


def drive_folder(typed: Path, more: int) -> None:
    """Resume or extend the sweep of a folder."""
    from cluster.folders import find

    folder = find(typed)

    def go_on(show: Callable[[Status], None]) -> Path:
        from sweeps.run import extend
        from sweeps.run import resume as resume_sweep

        if more:
            return extend(folder, more, on_status=show, report=write_report)
        return resume_sweep(folder, on_status=show, report=write_report)

    _drive(go_on)


def _drive(work: Callable[[Callable[[Status], None]], Path]) -> None:
    """Do the work under a progress display, then say what came of it and where it lies."""
    from cluster.live import progress
    from cluster.show import console, show_end
    from sweeps.run import Interrupted
    from sweeps.tuning import SweepFailed

    out, place = console(), ""

    def show(status: Status) -> None:
        nonlocal place
        place = status.get("folder", place)
        shown(status)

    try:
        with progress(out) as shown:
            folder = work(show)
    except (Interrupted, KeyboardInterrupt) as stopped:
        again = f"; resume with: musweep resume {getattr(stopped, 'folder', place)}" if place else ""
        print(f"interrupted{again}", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except SweepFailed as failed:
        print(f"error: the sweep failed: {failed}", file=sys.stderr)
        raise typer.Exit(EXIT_FAULT) from None
    if not show_end(folder, out):
        print("error: every trial failed; the reasons are above", file=sys.stderr)
        raise typer.Exit(EXIT_USER)
