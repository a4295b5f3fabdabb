"""`musweep metrics`: what all sweeps of a folder are doing, for Prometheus, read from their status.json when asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from cluster.folders import UserError
from sweeps import telemetry
from sweeps.history import END_STATES

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client.core import Metric

Status = dict[str, Any]
Value = tuple[tuple[str, ...], float]
"""Label values after the sweep's name, and a number."""

ENDED = ("done", "interrupted", "failed")
GROUP_STATES = ("placed", "waiting", "done", "lost")
CAUSES = ("preempted", "memory", "infrastructure", "hung", "bug")
QUEUED = ("queued", "held", "starting", "running")
FORGET_S = 7 * 86400.0  # sweeps that ended longer ago are left out: every name is a time series


@dataclass(frozen=True, slots=True)
class Kind:
    """A metric with one value or a few for each sweep."""

    name: str
    words: str
    labels: tuple[str, ...]
    values: Callable[[Status], Iterable[Value]]
    counter: bool = False


def _number(key: str, factor: float = 1.0) -> Callable[[Status], Iterator[Value]]:
    """One number of a status, where there is one."""

    def values(status: Status) -> Iterator[Value]:
        if status.get(key) is not None:
            yield (), float(status[key]) * factor

    return values


def _of_device(kind: str) -> Callable[[Status], Iterator[Value]]:
    """Seconds for which workers held a kind of device."""

    def values(status: Status) -> Iterator[Value]:
        if "held_s" in status:
            yield (), float(status["held_s"]) * float((status.get("devices") or {}).get(kind, 0.0))

    return values


def _of_group(key: str) -> Callable[[Status], Iterator[Value]]:
    """One number of each group's worker, by the device it has."""

    def values(status: Status) -> Iterator[Value]:
        for group, used in () if _ended(status) else sorted((status.get("usage") or {}).items()):
            if used.get(key) is not None:
                device = used.get("gpu") or used.get("device") or "cpu"
                yield (str(group), str(used.get("host") or ""), str(device)), float(used[key])

    return values


def _ended(status: Status) -> bool:
    return status.get("phase") in ENDED


def _trials(status: Status) -> Iterator[Value]:
    for stage, counts in sorted((status.get("by_stage") or {}).items()):
        for state in ("running", *END_STATES):
            yield (stage, state), float(counts.get(state, 0))


def _planned(status: Status) -> Iterator[Value]:
    for stage, (_, size) in sorted((status.get("stages") or {}).items()):
        yield (stage,), float(size)


def _groups(status: Status) -> Iterator[Value]:
    found = Counter(group["state"] for group in status.get("groups") or ()) if not _ended(status) else Counter()
    for state in dict.fromkeys((*GROUP_STATES, *found)):
        yield (state,), float(found[state])


def _restarts(status: Status) -> Iterator[Value]:
    faults = status.get("faults") or {}
    for cause in dict.fromkeys((*CAUSES, *faults)):
        yield (cause,), float(faults.get(cause, 0))


def _phase(status: Status) -> Iterator[Value]:
    yield (str(status.get("phase") or "unknown"),), 1.0


def _best(status: Status) -> Iterator[Value]:
    if (status.get("best") or {}).get("objective") is not None:
        yield (), float(status["best"]["objective"])


def _rate(status: Status) -> Iterator[Value]:
    if "updates_per_s" in status:
        yield (), 0.0 if _ended(status) else float(status["updates_per_s"])


def _eta(status: Status) -> Iterator[Value]:
    if status.get("eta_s") is not None and not _ended(status):
        yield (), float(status["eta_s"])


def _mlflow(key: str) -> Callable[[Status], Iterator[Value]]:
    def values(status: Status) -> Iterator[Value]:
        if mlflow := status.get("mlflow"):
            yield (), float(not mlflow.get("error")) if key == "up" else float(mlflow.get("behind") or 0)

    return values


_ON_GROUP = ("group", "host", "device")
KINDS = (
    Kind("musweep_trials", "Trials by stage and state.", ("stage", "state"), _trials),
    Kind("musweep_trials_planned", "Trials that a stage has in all.", ("stage",), _planned),
    Kind("musweep_sweep_phase", "1 for what the driver is or was at.", ("phase",), _phase),
    Kind("musweep_groups", "Groups of a running sweep by state.", ("state",), _groups),
    Kind("musweep_updates", "Updates done by all trials.", (), _number("updates_done"), True),
    Kind("musweep_updates_per_second", "Updates a second over the last half minute.", (), _rate),
    Kind("musweep_best_objective", "Objective of the search's best trial.", (), _best),
    Kind("musweep_eta_seconds", "Time left, as estimated.", (), _eta),
    Kind("musweep_driver_lag_seconds", "From a round's last report to its answer.", (), _number("lag_s")),
    Kind("musweep_mlflow_backlog_trials", "Ended trials that MLflow does not have yet.", (), _mlflow("behind")),
    Kind("musweep_mlflow_up", "Whether MLflow took what it was last sent.", (), _mlflow("up")),
    Kind("musweep_restarts", "Workers lost, by cause.", ("cause",), _restarts, True),
    Kind("musweep_lost_seconds", "Worker seconds from last reports to faults.", (), _number("lost_s"), True),
    Kind("musweep_training_seconds", "Worker seconds of training.", (), _number("worker_s"), True),
    Kind("musweep_gpu_seconds", "GPU seconds held by workers, waiting included.", (), _of_device("gpus"), True),
    Kind("musweep_cpu_seconds", "CPU-core seconds held by workers, waiting included.", (), _of_device("cpus"), True),
    Kind("musweep_worker_memory_bytes", "Resident memory of a worker.", _ON_GROUP, _of_group("rss_bytes")),
    Kind("musweep_worker_cpu_seconds", "CPU time of a worker.", _ON_GROUP, _of_group("cpu_s"), True),
    Kind("musweep_worker_gpu_memory_bytes", "GPU memory of a worker's own.", _ON_GROUP, _of_group("gpu_bytes")),
    Kind("musweep_device_memory_used_bytes", "Memory used on a worker's GPU.", _ON_GROUP, _of_group("gpu_used_bytes")),
    Kind("musweep_device_memory_bytes", "Memory of a worker's GPU.", _ON_GROUP, _of_group("gpu_total_bytes")),
    Kind("musweep_device_busy_ratio", "Share of time a worker's GPU computed.", _ON_GROUP, _of_group("gpu_busy")),
)  # fmt: skip


class Sweeps(Collector):
    """Reads the status of every sweep under a folder at each scrape.

    Args:
        root: the folder.
        queue: place of a queue to count; None: `queue.db` under root or MUSWEEP_DATABASE, where there is one.
        timer: monotonic seconds.
    """

    def __init__(self, root: Path, queue: str | None = None, timer: Callable[[], float] = time.monotonic) -> None:
        self._root, self._queue, self._timer = root, queue, timer
        self._beats: dict[str, tuple[int, float]] = {}

    def collect(self) -> Iterator[Metric]:
        """All metrics as they stand now."""
        began = self._timer()
        statuses = dict(self._read())
        for kind in KINDS:
            family = (CounterMetricFamily if kind.counter else GaugeMetricFamily)(
                kind.name, kind.words, labels=("sweep", *kind.labels)
            )
            for name, status in statuses.items():
                with contextlib.suppress(TypeError, ValueError, KeyError):  # of another musweep, or damaged
                    for labels, value in [*kind.values(status)]:
                        family.add_metric((name, *labels), value)
            yield family
        yield from self._drivers(statuses)
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self._root).free
            yield GaugeMetricFamily("musweep_disk_free_bytes", "Room where the sweeps are.", value=free)
        yield from self._queued()
        took = self._timer() - began
        yield GaugeMetricFamily("musweep_scrape_seconds", "What making these numbers took.", value=took)

    def _read(self) -> Iterator[tuple[str, Status]]:
        for folder in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            status = telemetry.load(folder)
            if status and not (_ended(status) and time.time() - float(status.get("time", 0.0)) > FORGET_S):
                yield folder.name, status

    def _drivers(self, statuses: dict[str, Status]) -> Iterator[Metric]:
        """Whether drivers live, by their beats and this process's own clock: theirs may go otherwise."""
        up = GaugeMetricFamily("musweep_driver_up", "Whether a driver works on the sweep.", labels=("sweep",))
        age = GaugeMetricFamily("musweep_driver_beat_age_seconds", "Since the driver's last beat.", labels=("sweep",))
        now = self._timer()
        for name, status in statuses.items():
            beat = int(status.get("beat", 0))
            if name not in self._beats:  # the first look must believe the driver's clock
                self._beats[name] = beat, now - max(0.0, time.time() - float(status.get("time", 0.0)))
            elif self._beats[name][0] != beat:
                self._beats[name] = beat, now
            silent = now - self._beats[name][1]
            up.add_metric((name,), float(not _ended(status) and silent < telemetry.OLD_S))
            if not _ended(status):
                age.add_metric((name,), silent)
        yield from (up, age)

    def _queued(self) -> Iterator[Metric]:
        place = self._queue or os.environ.get("MUSWEEP_DATABASE") or ""
        if not place and not (self._root / "queue.db").exists():
            return
        from cluster.queue import Queue

        family = GaugeMetricFamily("musweep_queue_sweeps", "Sweeps in the queue.", labels=("state", "priority"))
        try:
            entries = Queue.open(place or self._root, patience_s=2.0).entries(states=QUEUED)
        except Exception:  # whatever its database says: the other numbers must not go with it
            up = 0.0
        else:
            up = 1.0
            counts = Counter((entry.state, str(entry.priority)) for entry in entries)
            for labels in sorted({*counts, *((state, "0") for state in QUEUED)}):
                family.add_metric(labels, counts[labels])
        yield family
        yield GaugeMetricFamily("musweep_queue_up", "Whether the queue's database answers.", value=up)


def registry(root: Path, queue: str | None = None) -> CollectorRegistry:
    """A registry with the metrics of a folder of sweeps and of this user's schedules, and no others."""
    from cluster.metrics_nights import Nights

    made = CollectorRegistry()
    made.register(Sweeps(root, queue))
    made.register(Nights())
    return made


def text(root: Path, queue: str | None = None) -> str:
    """The metrics as a scrape gets them."""
    from prometheus_client import generate_latest

    return generate_latest(registry(root, queue)).decode()


def serve(
    root: Path, port: int, host: str = "127.0.0.1", queue: str | None = None
) -> tuple[WSGIServer, threading.Thread]:
    """Answer scrapes from a thread until the server is shut down; port 0 takes a free one.

    Raises:
        UserError: the port cannot be had.
    """
    from prometheus_client import start_http_server

    try:
        return start_http_server(port, host, registry(root, queue))
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port} on {host}: {error}; 0 takes any that is free") from None
