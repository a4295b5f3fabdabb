"""What a driver has in hand while it drives, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import history, journal, store, tracking
from sweeps.spec import SweepSpec
from sweeps.telemetry import Watch

StatusCallback = Callable[[dict[str, Any]], None]
ReportWriter = Callable[[Path], object]


class Rows:
    """Follows the journal and keeps the Parquet parts up to date; what it reads it hands on to the watch."""

    def __init__(self, folder: Path, watch: Watch | None = None) -> None:
        self._folder, self._watch = folder, watch
        self._journal = folder / "journal.jsonl"
        self._fence = journal.Fence()
        self._offset = 0
        self._writer: store.RowWriter | None = None

    def follow(self) -> None:
        """Take in what the journal has gained; at first all of it, which after many trials takes seconds."""
        if self._writer is None:
            fence = journal.Fence()
            records, offset = journal.tail(self._journal, 0, fence)
            writer = store.RowWriter(self._folder, history.fold(records))
            if self._watch is not None:
                self._watch.begin(records)
            self._fence, self._offset, self._writer = fence, offset, writer
            return
        records, self._offset = journal.tail(self._journal, self._offset, self._fence)
        if self._watch is not None and records:
            self._watch.add(records)
        for record in records:
            self._writer.add(record)

    def close(self) -> None:
        """Write all that is left."""
        self.follow()
        assert self._writer is not None
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
    failed: str = ""
    """Why it cannot go on, in words."""


def say(on_status: StatusCallback | None, folder: Path, phase: str, **more: str) -> None:
    """Tell whoever shows the sweep what the driver is doing now."""
    if on_status is not None:
        on_status({"sweep_id": folder.name, "folder": str(folder), "phase": phase, **more})
