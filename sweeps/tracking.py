"""MLflow: a background thread that follows the journal and keeps a parent run and a child per trial up to date.

The journal is the truth and MLflow a copy that may be late (`mlflow_copy`). No other file imports mlflow, and this
one does so only in the thread, since it takes seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import journal, tracked
from sweeps.mlflow_copy import Copy

if TYPE_CHECKING:
    from sweeps.mlflow_runs import Identity
    from sweeps.spec import SweepSpec

Connect = Callable[[str], Any]

POLL_S = 1.0
DUTY = 0.2  # share of the time that mirroring may take while the search runs; all of it at the end
SLOWEST_S = 2.0
BACKOFF_S = (0.5, 60.0)
# Our own backoff retries, after a look at what got through: a blind retry of a POST makes a run twice.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # a batch of 1,000 points takes a busy server seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MirrorBusy(RuntimeError):
    """Another process mirrors this sweep right now."""


class _Stopped(Exception):
    """The thread was asked to stop between two trials."""


def tracking_uri(folder: Path, uri: str | None = None) -> str:
    """Where a sweep's runs go: `uri`, else MLFLOW_TRACKING_URI, else mlflow.db beside the sweep folder."""
    default = f"sqlite:///{folder.resolve().parent / 'mlflow.db'}"
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or default


def place_of(folder: Path) -> str | None:
    """Where a sweep folder's runs go; None if its spec wants none, or cannot be read."""
    try:
        wanted = _wanted(folder)
    except (ValueError, AttributeError, OSError):
        return None
    return tracking_uri(folder, wanted.get("uri")) if wanted.get("enabled", True) else None


class Client:
    """An `MlflowClient` with one more method."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def write(
        self,
        run_id: str,
        points: Iterable[tuple[str, float, int, int]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log (name, value, time in ms, update) points, params and tags at once, cut up only at MLflow's limits."""
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            metrics=[Metric(*point) for point in points],
            params=[Param(name, value) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )


def connect(uri: str) -> Client:
    """A client that is quiet and quick to give up.

    Raises:
        Exception: whatever MLflow raises when it cannot be reached.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store"):  # notes on each migration; errors reach us as exceptions
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if uri.startswith("sqlite:///") and uri != "sqlite:///:memory:":
        _make_sqlite(Path(uri.removeprefix("sqlite:///")))
    return Client(MlflowClient(tracking_uri=uri))


def _make_sqlite(path: Path) -> None:
    """Make the database whole or not at all: a kill amid MLflow's own migrations leaves one it refuses for ever."""
    if path.exists():
        return
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f".{path.name}.lock"), wait=True):
        if path.exists():
            return
        making = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        making.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"sqlite:///{making}").search_experiments(max_results=1)
        making.replace(path)


@contextlib.contextmanager
def _locked(path: Path, wait: bool = False) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise MirrorBusy(f"{path.parent}: another process is mirroring this sweep to MLflow") from None
        yield
    finally:
        os.close(file)


class Mirror:
    """Mirrors a running sweep from a thread of its own. Nothing that MLflow does reaches the caller.

    Args:
        folder: the sweep folder.
        spec: its spec, for `mlflow.uri` and `mlflow.experiment`; read from spec.json if None.
        connect: makes the client from a URI.
    """

    def __init__(self, folder: Path, spec: SweepSpec | None = None, *, connect: Connect = connect) -> None:
        wanted = spec.mlflow.model_dump() if spec is not None else _wanted(folder)
        self.folder = folder
        self._uri = tracking_uri(folder, wanted.get("uri"))
        self._experiment = wanted.get("experiment")
        self._connect = connect
        self._follower, self._offset, self._fence = tracked.Follower(), 0, journal.Fence()
        self._copy: Copy | None = None
        self._behind, self._error, self._failures = 0, "", 0
        self._stop, self._wake = threading.Event(), threading.Event()
        self._turn = threading.Condition()
        self._asked = self._answered = 0
        self._resumed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mlflow-mirror", daemon=True)

    def start(self) -> None:
        """Begin to follow the journal."""
        self._thread.start()

    def drain(self, timeout: float) -> bool:
        """Wait until all that the folder holds now is in MLflow; False if that took longer than `timeout` seconds."""
        if not self._thread.is_alive():
            return False
        with self._turn:
            self._asked += 1
            ticket = self._asked
            self._wake.set()
            return self._turn.wait_for(lambda: self._answered >= ticket, timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread, between two trials; what is missing is sent by the next mirror or by `sync`."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def status(self) -> dict[str, Any]:
        """`behind`: ended trials that MLflow does not have yet; `error`: what went wrong last, None if all is well."""
        return {"behind": self._behind, "error": self._error or None, "uri": tracked.redact(self._uri)}

    def _run(self) -> None:
        if sys.platform == "linux":  # the sweep goes first: on Linux niceness is a thread's own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while not self._stop.is_set():
            try:
                with _locked(self.folder / ".mlflow.lock"):
                    self._follow()
            except _Stopped:
                return
            except Exception as error:
                self._fail(error)

    def _follow(self) -> None:
        """Step until asked to stop.

        Raises:
            Exception: whatever MLflow raises.
        """
        while not self._stop.is_set():
            try:
                self._step()
            except _Stopped:
                return
            except Exception as error:
                self._fail(error)
            else:
                self._failures, self._error = 0, next(iter(self._copy.refused.values()), "") if self._copy else ""
                self._pause(POLL_S)

    def _step(self) -> None:
        ticket = self._asked
        records, self._offset = journal.tail(self.folder / "journal.jsonl", self._offset, self._fence)
        self._follower.apply(records)
        self._count()
        draining = ticket > self._answered
        if self._copy is None and not draining and not self._follower.history.tally.updates.total():
            return  # importing mlflow takes seconds that the workers need to start
        if self._copy is None:
            client = self._connect(self._uri)
            self._copy = Copy(self.folder, client, self._uri, self._experiment, repair=False)
        self._copy.push(self._follower, final=False, go_on=self._go_on)
        self._count()
        with self._turn:
            self._answered = ticket
            self._turn.notify_all()

    def _go_on(self) -> None:
        """Between two trials: stop if asked to; while the search runs, leave most of the time to the workers."""
        self._count()
        if self._asked == self._answered:
            self._stop.wait(min(SLOWEST_S, (time.monotonic() - self._resumed) * (1 - DUTY) / DUTY))
        self._resumed = time.monotonic()
        if self._stop.is_set():
            raise _Stopped

    def _count(self) -> None:
        done = self._copy.done if self._copy else set()
        self._behind = max(0, self._follower.history.tally.ended_trials - len(done))

    def _fail(self, error: Exception) -> None:
        """Remember an error and wait, longer each time, less while someone waits for us."""
        self._error = tracked.redact(f"{type(error).__name__}: {error}")
        if self._copy is not None:
            self._copy.doubt()
        pause = min(BACKOFF_S[1], BACKOFF_S[0] * 2**self._failures)
        self._failures += 1
        self._pause(min(pause, 2.0) if self._asked > self._answered else pause)

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()


def sync(folder: Path, uri: str | None = None, experiment: str | None = None, *, connect: Connect = connect) -> str:
    """Make MLflow agree with a sweep folder, whatever it holds now, and say where that is.

    A sweep that no driver is running is ended there too.

    Raises:
        MirrorBusy: a running sweep is being mirrored by its own driver.
        Exception: whatever MLflow raises.
    """
    wanted = _wanted(folder)
    uri = tracking_uri(folder, uri or wanted.get("uri"))
    follower = tracked.Follower()
    with _locked(folder / ".mlflow.lock"):
        follower.apply(journal.read(folder / "journal.jsonl"))
        copy = Copy(folder, connect(uri), uri, experiment or wanted.get("experiment"), repair=True)
        copy.push(follower, final=True)
    words = next(iter(copy.refused.values()), "")
    left = f"; params of {len(copy.refused)} refused: {words}" if copy.refused else ""
    return f"{len(copy.done)} trials in experiment {copy.experiment} at {tracked.redact(uri)}{left}"


def close(folder: Path, uri: str, identity: Identity) -> str:
    """End in MLflow what the last driver of a sweep left RUNNING there, and send what it did not; say what was found.

    The caller has seen that no driver runs the sweep. Should one start meanwhile, its mirror waits for us and opens
    the runs again.

    Raises:
        MirrorBusy: a driver mirrors the sweep after all.
        Exception: whatever MLflow raises.
    """
    from sweeps import mlflow_runs

    words, follower = "", tracked.Follower()
    with _locked(folder / ".mlflow.lock"):
        client = connect(uri)
        try:
            follower.apply(journal.read(folder / "journal.jsonl"))
            Copy(folder, client, uri, _wanted(folder).get("experiment"), repair=False).push(follower, final=True)
        except (ValueError, KeyError, AttributeError) as error:  # a JournalError is a ValueError
            words = f"its folder is damaged ({error}): see `musweep doctor {folder}`"
        left = mlflow_runs.end(client, mlflow_runs.running(client).get(identity, []))
    return words or (f"{left} of them unknown to its journal" if left else "")


def _wanted(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "spec.json").read_bytes()).get("mlflow") or {}
    except FileNotFoundError:
        return {}
