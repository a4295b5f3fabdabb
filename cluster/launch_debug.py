"""Sweeps in this process, in the foreground: what a place would run, where a debugger can look at it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cluster import process
from cluster.launch import Job, driver_command
from cluster.launch_local import LocalLauncher

if TYPE_CHECKING:
    from io import TextIOWrapper


class DebugLauncher(LocalLauncher):
    """Drives in the process that submits; `submit` returns when the sweep has ended."""

    def submit(self, job: Job) -> None:
        """Drive the sweep to its end, unless another process does or it is finished."""
        began = self._claimed(job)
        if began is not None:
            self._drive(job, began)

    def _claimed(self, job: Job) -> Path | None:
        """The folder of logs, once this process is known to be the driver; None if there is nothing to do."""
        super().submit(job)  # which calls `_start`, under the lock of starters
        logs = self._logs(job.id)
        mine = process.read(logs / "driver.json")
        return logs if mine == process.of(os.getpid()) and not (logs / "driver.exit").exists() else None

    def _start(self, job: Job, logs: Path) -> None:  # noqa: ARG002 - the drive itself comes once the lock is free
        process.of(os.getpid()).write(logs / "driver.json")

    def _drive(self, job: Job, logs: Path) -> None:
        from cluster.cli import main
        from cluster.launched import recorded

        code, before = 1, dict(os.environ)
        with (logs / "driver.log").open("a", encoding="utf-8") as log:
            streams = sys.stdout, sys.stderr
            os.environ.pop("RAY_ADDRESS", None)
            os.environ.update(job.env)
            sys.stdout, sys.stderr = _Tee(streams[0], log), _Tee(streams[1], log)  # type: ignore[assignment]
            try:
                code = main(driver_command(job, str(job.package))[4:])
            finally:
                sys.stdout, sys.stderr = streams
                os.environ.clear()
                os.environ.update(before)
                recorded(logs / "driver.exit", code)

    def check(self) -> str:
        """Say where sweeps will lie."""
        return super().check().replace("this host", "this process")


class _Tee:
    """A stream whose text goes to a log as well."""

    def __init__(self, stream: TextIO, log: TextIOWrapper) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        self._log.write(text)
        self._log.flush()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
