"""What the shelf keeps of one sweep folder between questions."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.folders import Folder
from cluster.service.looks import Look, Stamp
from cluster.service.models import Summary
from sweeps.history import Reader

PER_BYTE = 3.0
"""What a byte of journal takes in memory, about."""


@dataclass(slots=True)
class Made:
    """A view that was made."""

    value: Any
    version: int
    at: float
    cost_s: float


class Kept:
    """What is known of one sweep folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.RLock()
        self.reader: Reader | None = None
        self.folder: Folder | None = None
        self.look: Look | None = None
        self.looked = self.read_at = -1e9
        self.summary: Summary | None = None
        self.told = False
        """Whether the summary is what the driver told, the journal not being read."""
        self.version = 0
        self.beside: tuple[Stamp, ...] = ()
        self.made: OrderedDict[Any, Made] = OrderedDict()
        """Views, by what was asked."""

    def forget(self) -> None:
        """Let go of the journal and what was made of it."""
        self.reader = self.folder = None
        self.made.clear()

    @property
    def behind(self) -> bool:
        """Whether more is known by now than the summary says."""
        return self.told and self.reader is not None

    @property
    def weight(self) -> float:
        """Bytes in memory, about."""
        return self.reader.offset * PER_BYTE if self.reader is not None else 0.0
