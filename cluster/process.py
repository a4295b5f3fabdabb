"""A process that another one will ask about later: a pid alone may by then be somebody else's."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_DETACH = """
import os, subprocess, sys
log = open(sys.argv[1], "ab")
made = subprocess.Popen(sys.argv[3:], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=sys.argv[2],
                        start_new_session=True)
print(made.pid, flush=True)
os._exit(0)
"""


def holder() -> str:
    """A name for one who holds something in a database, which nobody else has: host, process and some digits."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a host, for as long as it lives."""

    pid: int
    started: str
    """By the host's own count, which no clock that is put right changes."""
    boot: str
    host: str

    @property
    def here(self) -> bool:
        """Whether it is one of this host's."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it still runs, on this host."""
        return self.here and self.boot == _boot() and self.started == _started(self.pid) != ""

    def write(self, path: Path) -> None:
        """Leave it for whoever asks later."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)


def of(pid: int) -> Process:
    """A process of this host that runs now."""
    return Process(pid, _started(pid), _boot(), socket.gethostname())


def read(path: Path) -> Process | None:
    """The process that a file tells of; None without one."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Process(**json.loads(path.read_text()))
    return None


def detached(command: Sequence[str], log: Path, folder: Path, env: Mapping[str, str]) -> Process:
    """Start a process that outlives this one and its terminal; what it says goes to the end of a file.

    Raises:
        OSError: it cannot be started.
    """
    words = [sys.executable, "-I", "-S", "-c", _DETACH, str(log), str(folder), *command]
    done = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError((done.stderr.strip().splitlines() or ["not started"])[-1])
    return of(int(done.stdout))


def _boot() -> str:
    """What changes when the host starts anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return f"{psutil.boot_time():.0f}"


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none or it is dead and not yet buried."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        import psutil

        with contextlib.suppress(psutil.Error):
            return f"{psutil.Process(pid).create_time():.3f}"
        return ""
    return "" if state in "ZX" else rest[18]
