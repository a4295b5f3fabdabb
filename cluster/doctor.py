"""`musweep doctor`: what this machine has and what would stop a sweep, each with the next step.

Ray and PyTorch are tried in processes of their own: a broken one can then neither hang nor crash the others.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster import text

if TYPE_CHECKING:
    from rich.table import Table

OK, WARN, BAD = "ok", "warn", "bad"
GIB = 2**30
PROBE_S = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. `step` says what to do where `state` is not ok."""

    what: str
    state: str
    says: str
    step: str = ""


def examine(runs: Path = Path("runs")) -> list[Finding]:
    """Look at everything; a check that fails becomes a finding, never an exception."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _machine,
        _torch,
        _ray,
        lambda: [mlflow(_uri(runs))],
        lambda: [disk("disk (runs)", runs), disk("disk (cache)", cache_folder())],
        _data,
    ]
    with ThreadPoolExecutor(len(checks)) as pool:
        return [finding for found in pool.map(_guarded, checks) for finding in found]


def _guarded(look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except Exception as error:  # a machine can be odd in ways that nobody thought of
        name = getattr(look, "__name__", "check").strip("_<>")
        return [Finding(name, WARN, f"could not be checked: {type(error).__name__}: {error}")]


def table(findings: list[Finding]) -> Table:
    """The findings as a table."""
    from rich.markup import escape

    from cluster.show import table as make

    colours = {OK: "green", WARN: "yellow", BAD: "red"}
    made = make("what", "state", "found", "next step")
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        made.add_row(escape(finding.what), state, escape(finding.says), escape(finding.step))
    return made


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    state = OK if sys.version_info >= (3, 11) else BAD
    return [
        Finding("Python", state, f"{version} at {sys.executable}", "" if state == OK else "use Python 3.11 or newer")
    ]


def _packages() -> list[Finding]:
    """What pyproject.toml asks for against what is installed."""
    from packaging.requirements import Requirement

    versions, wrong = {}, []
    for line in importlib.metadata.requires("musweep") or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            versions[needed.name] = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(versions[needed.name].split("+")[0], prereleases=True):
            wrong.append(f"{needed.name} {versions[needed.name]}, needed {needed.specifier}")
    named = ("torch", "ray", "optuna", "mlflow", "pyarrow", "numpy")
    says = ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
    if wrong:
        return [Finding("packages", BAD, "; ".join(wrong), "make install, or pip install -c constraints.txt -e .")]
    return [Finding("packages", OK, f"musweep {importlib.metadata.version('musweep')}; {says}")]


def _machine() -> list[Finding]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = os.getloadavg()[0]
    loaded = busy > 0.5 * cores + 0.5
    memory = psutil.virtual_memory()
    short = memory.available < 2 * GIB
    return [
        Finding(
            "cores", WARN if loaded else OK, f"{cores} usable, load {busy:.1f}",
            "other programs are using the cores: sweeps and measurements will be slower" if loaded else "",
        ),
        Finding(
            "memory", WARN if short else OK, f"{text.size(memory.available)} free of {text.size(memory.total)}",
            "a worker needs about 0.5 GiB: set resources.workers lower" if short else "",
        ),
    ]  # fmt: skip


def _probe(code: str) -> tuple[bool, str]:
    """Run Python code in a process of its own: whether it ended well, and the last line it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_S, check=False,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PROBE_S:.0f} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"


def _torch() -> list[Finding]:
    code = (
        "import torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0; "
        "print('|'.join([torch.__version__] + [torch.cuda.get_device_name(i) for i in range(n)]))"
    )
    fine, said = _probe(code)
    if not fine:
        return [Finding("PyTorch", BAD, said, "make install")]
    version, *devices = said.split("|")
    found = [Finding("PyTorch", OK, f"{version} starts")]
    if devices:
        return [*found, Finding("GPUs", OK, ", ".join(devices))]
    if shutil.which("nvidia-smi") is not None and _lists_gpus():
        step = "install the CUDA build of torch 2.13.0 for this driver"
        return [*found, Finding("GPUs", WARN, "present, but PyTorch cannot use them", step)]
    return [*found, Finding("GPUs", OK, "none; sweeps run on the CPU")]


def _lists_gpus() -> bool:
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    return done.returncode == 0 and "GPU" in done.stdout


def _ray() -> list[Finding]:
    """Start a Ray of one core and have it answer, as a sweep would."""
    code = (
        "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False, "
        "logging_level=40); assert ray.get(ray.remote(lambda: 7).remote()) == 7; ray.shutdown(); print('fine')"
    )
    began = time.monotonic()
    fine, said = _probe(code)
    shm = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else None
    step = (
        "" if shm is None or shm > GIB // 4 else "enlarge /dev/shm (docker run --shm-size=1g): Ray falls back to disk"
    )
    if not fine:
        return [Finding("Ray", BAD, said, "ps aux | grep ray for one left over; see /tmp/ray/session_latest/logs")]
    return [
        Finding("Ray", WARN if step else OK, f"started and answered in {text.span(time.monotonic() - began)}", step)
    ]


def _uri(runs: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs / 'mlflow.db'}"


def mlflow(uri: str) -> Finding:
    """Whether an MLflow tracking URI answers. Sweeps run without it, so it is never worse than a warning."""
    from sweeps.tracked import redact

    later = "sweeps run anyway; `musweep sync DIR` catches up"
    parts, shown = urlsplit(uri), redact(uri)
    if parts.scheme in ("http", "https"):
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        try:
            with urllib.request.urlopen(f"{bare}/health", timeout=5) as reply:
                return Finding("MLflow", OK, f"{shown} answers {reply.status}")
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            return Finding("MLflow", WARN, f"{shown}: {reason}", f"start or name a server; {later}")
    if parts.scheme == "sqlite":
        return _sqlite(uri, Path(uri.removeprefix("sqlite:///")))
    if parts.hostname:
        try:
            with socket.create_connection((parts.hostname, parts.port or 5432), timeout=5):
                return Finding("MLflow", OK, f"{parts.scheme} database at {parts.hostname} accepts connections")
        except OSError as error:
            return Finding("MLflow", WARN, f"{parts.hostname}: {error}", f"start the database; {later}")
    return Finding("MLflow", OK, f"{shown} (not tried)")


def _sqlite(uri: str, path: Path) -> Finding:
    if not path.exists():
        return Finding("MLflow", OK, f"{uri}: will be made by the first sweep")
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as database:
            runs = database.execute("select count(*) from runs").fetchone()[0]
        database.close()
    except sqlite3.Error as error:
        return Finding(
            "MLflow", WARN, f"{uri}: {error}", "stop what holds it, or move the file away and `musweep sync`"
        )
    return Finding("MLflow", OK, f"{uri}: {text.plural(runs, 'run')}")


def disk(what: str, folder: Path) -> Finding:
    """Whether a folder, or the nearest one above it that exists, can be written to and has room."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return Finding(what, BAD, f"{place} cannot be written to", "run elsewhere, or set storage in the spec")
    free = shutil.disk_usage(place).free
    state = BAD if free < GIB // 4 else WARN if free < 2 * GIB else OK
    return Finding(what, state, f"{text.size(free)} free in {place}", "" if state == OK else "make room")


def cache_folder() -> Path:
    """Where prepared data lie."""
    return Path(os.environ.get("MUSWEEP_CACHE") or Path.home() / ".cache" / "musweep")


def _data() -> list[Finding]:
    """Where each task's data come from on this machine."""
    found = [Finding("data", OK, "digits come with scikit-learn, curves are generated")]
    given = os.environ.get("MUSWEEP_DATA")
    if given and not Path(given).is_dir():
        return [*found, Finding("data (MNIST)", WARN, f"MUSWEEP_DATA={given}: no such folder", "correct or unset it")]
    if given and list(Path(given).glob("**/train-images-idx3-ubyte*")):
        return [*found, Finding("data (MNIST)", OK, f"in {given}")]
    if list(cache_folder().glob("**/mnist*")):
        return [*found, Finding("data (MNIST)", OK, f"in {cache_folder()}")]
    step = "set MUSWEEP_DATA to a folder with the four MNIST files, or let the first sweep download them"
    return [*found, Finding("data (MNIST)", WARN, "not on this machine yet", step)]
