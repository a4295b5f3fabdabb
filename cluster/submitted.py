"""Submitted sweeps, from Python as from the command line: submit, ask, follow, stop, go on, wait."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.launch import (
    ACTIVE,
    STATES,
    JobStatus,
    Launcher,
    LaunchError,
    Unreachable,
    job_of,
    launcher_of,
)  # fmt: skip
from cluster.package import Package, pack, sweep_id
from cluster.targets import HERE, Target, refuse_code, target
from sweeps.errors import SpecError

if TYPE_CHECKING:
    from cluster.queue import Queue
    from sweeps.spec import SweepSpec

__all__ = ["STATES", "Submission", "driver_log", "listed", "resume", "status", "stop", "submit", "wait"]

PATIENCE_S = 600.0
"""How long a place may be out of reach before whoever waits gives up."""
_MOST_AGAIN = 1000


@dataclass(frozen=True, slots=True)
class Submission:
    """What came of a submission."""

    id: str
    target: Target
    folder: str
    """Where the sweep lies, at the target."""
    package: Package
    before: JobStatus
    """What the place knew of it before."""
    queued: bool = False
    note: str = ""
    """What a user should know, such as that other code was sent before."""

    @property
    def there(self) -> bool:
        """Whether it was there already, so that nothing was done."""
        return self.before.state in (*ACTIVE, "finished")


def prepared(
    spec: SweepSpec, to: Target, again: bool = False, folder: Path | None = None, id_: str | None = None
) -> tuple[Package, Launcher, JobStatus]:
    """What would be sent to a target, the target's launcher, and what the target knows of the sweep.

    Its id is made from its spec, unless it is given.

    Raises:
        LaunchError: the target does not allow the spec's code, does not answer, or too much would be sent.
    """
    refuse_code(spec, to)
    id_ = id_ or sweep_id(spec)
    workers = to.resources.workers or (1 if to.queue else None)  # a queue must know what a sweep will take
    if workers is not None and spec.resources.workers == "auto":
        spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"workers": workers})})
    package = pack(spec, folder, to.limit_mb, here=to.kind in HERE, id_=id_)
    launcher = launcher_of(to)
    before = _status(id_, to, launcher)
    if again and before.state != "unknown":
        names = (f"{id_}-again{n}" for n in range(1, _MOST_AGAIN))
        id_ = next(name for name in names if _status(name, to, launcher).state == "unknown")
        package = pack(spec, folder, to.limit_mb, here=to.kind in HERE, id_=id_)
        before = _status(id_, to, launcher)
    return package, launcher, before


def submit(
    spec: SweepSpec,
    to: Target | str,
    *,
    again: bool = False,
    folder: Path | None = None,
    priority: int = 0,
    told: Callable[[Submission], None] | None = None,
    id_: str | None = None,
) -> Submission:
    """Send a sweep to a target; one that is there already is left alone, one that was stopped or failed goes on.

    Args:
        spec: a checked spec.
        to: a target, or its name.
        again: a new sweep of a spec that is there already.
        folder: to send; default: that of the code that the spec names.
        priority: of a target with a queue; higher goes first.
        told: called once the package is ready, before the place has it.
        id_: of the sweep; default: one made from its spec, so that the same spec is the same sweep.

    Raises:
        LaunchError: the target does not take it; one line says why.
    """
    to = target(to) if isinstance(to, str) else to
    package, launcher, before = prepared(spec, to, again, folder, id_)
    made = Submission(package.id, to, to.folder(package.id), package, before, to.queue)
    if made.there:
        remember(made.id, to.name)
        return _with_note(made, launcher, priority)
    if told is not None:
        told(made)
    remember(made.id, to.name)
    if to.queue:
        _put(made, spec, priority)
        return made
    with tempfile.TemporaryDirectory(prefix="musweep-") as place:
        zipped = Path(place) / f"{package.id}.zip"
        launcher.submit(job_of(to, package.id, zipped, digest=package.write(zipped)))
    return made


def render(spec: SweepSpec, to: Target, folder: Path | None = None) -> tuple[Package, str]:
    """What would be sent to a target, and the job as the target would get it; nothing is asked or sent."""
    refuse_code(spec, to)
    package = pack(spec, folder, to.limit_mb, here=to.kind in HERE)
    job = job_of(to, package.id, Path(f"{package.id}.zip"), digest=package.digest)
    return package, launcher_of(to).render(job)


def _with_note(made: Submission, launcher: Launcher, priority: int) -> Submission:
    """Say whether a sweep that is there already was sent with other files, or has another priority."""
    from dataclasses import replace

    sent, notes = launcher.digest(made.id), []
    if sent and sent != made.package.digest:
        notes.append("it was sent with other files than there are now; --again starts a new sweep with these")
    if made.queued and priority and made.before.state in ACTIVE:
        notes.append(f"its priority stays as it was: musweep queue priority {made.id} {priority}")
    return replace(made, note="; ".join(notes))


def _put(made: Submission, spec: SweepSpec, priority: int) -> None:
    """Have a sweep wait in its target's queue, its package in the storage folder beside the sweeps."""
    from cluster.sharing import queue_of

    to, resources = made.target, made.target.resources
    queue = queue_of(to)
    workers = spec.resources.workers if isinstance(spec.resources.workers, int) else resources.workers or 1
    storage = Path(to.folder(made.id)).parent
    if "://" in made.folder:
        storage = state_folder() / "packages"
    digest = made.package.digest
    zipped = storage / ".packages" / f"{made.id}-{digest[:10]}.zip"  # other files do not replace what is queued
    zipped.parent.mkdir(parents=True, exist_ok=True)
    digest = made.package.write(zipped)
    entry = queue.put(
        made.id, target=to.name, name=spec.name, priority=priority, workers=workers,
        cpus=max(resources.cpus or 0.0, workers * spec.resources.cpu),  # what is set aside for it, or what it takes
        gpus=max(resources.gpus or 0.0, workers * spec.resources.gpu),
        package=zipped, folder=made.folder, spec_hash=digest,
    )  # fmt: skip
    if entry.state in ("failed", "stopped"):
        queue.requeue(made.id, package=zipped, spec_hash=digest)


def status(id_: str, to: Target | str | None = None) -> JobStatus:
    """What has become of a submitted sweep; while it waits in a queue, what the queue says."""
    to = found(id_, to)
    return _status(id_, to, launcher_of(to))


def _status(id_: str, to: Target, launcher: Launcher) -> JobStatus:
    queued = _queued(id_, to)
    if queued is None or queued.state == "running":
        known = launcher.status(id_)
        if queued is None or known.state in (*ACTIVE, "finished"):
            return known
        return JobStatus(id_, "pending", f"{known.state}: {known.why}; its dispatcher sees to it")
    return queued


def _queued(id_: str, to: Target) -> JobStatus | None:
    """What a target's queue says of a sweep; None if it has none or does not know it."""
    if not to.queue:
        return None
    from cluster.sharing import queue_of

    entry = queue_of(to).get(id_)
    if entry is None:
        return None
    state = {"queued": "pending", "starting": "pending", "held": "pending"}.get(entry.state, entry.state)
    return JobStatus(id_, state, entry.why or f"in the queue, {entry.state}")


def driver_log(id_: str, to: Target | str | None = None, follow: bool = False) -> Iterator[str]:
    """The lines of a submitted sweep's driver, with `follow` until it ends; breaks of the network are waited for."""
    launcher = launcher_of(found(id_, to))
    shown, failing = 0, 0.0
    while True:
        try:
            for n, line in enumerate(launcher.logs(id_, follow)):
                if n >= shown:
                    shown, failing = n + 1, 0.0
                    yield line
            return
        except Unreachable:
            failing = failing or time.monotonic()
            if not follow or time.monotonic() - failing > PATIENCE_S:
                raise
            time.sleep(2.0)


def stop(id_: str, to: Target | str | None = None) -> JobStatus:
    """Have a submitted sweep's driver leave cleanly, wait until it has, and say what the place then knows."""
    return _told(id_, to, lambda queue: queue.cancel(id_), lambda launcher: launcher.stop(id_))


def resume(id_: str, to: Target | str | None = None) -> JobStatus:
    """Go on with a submitted sweep that was stopped or has failed, and say what the place then knows."""
    return _told(id_, to, lambda queue: queue.requeue(id_), lambda launcher: launcher.resume(id_))


def _told(
    id_: str,
    to: Target | str | None,
    in_queue: Callable[[Queue], object],
    at_place: Callable[[Launcher], object],
) -> JobStatus:
    """Tell whoever has a sweep in hand, its queue or its place; what is known of it then."""
    to = found(id_, to)
    if to.queue:
        from cluster.sharing import queue_of

        if (queue := queue_of(to)).get(id_) is not None:
            in_queue(queue)
            return status(id_, to)
    launcher = launcher_of(to)
    at_place(launcher)
    return launcher.status(id_)


def wait(
    id_: str,
    to: Target | str | None = None,
    timeout_s: float | None = None,
    on_status: Callable[[JobStatus], None] | None = None,
    poll_s: float = 2.0,
) -> JobStatus:
    """Wait until a submitted sweep is no longer active; a place that does not answer is asked again for ten minutes.

    Raises:
        TimeoutError: it still is after `timeout_s`.
    """
    to = found(id_, to)
    began, failing = time.monotonic(), 0.0
    known: JobStatus | None = None
    while True:
        last = known
        try:
            known = status(id_, to)
            failing = 0.0
        except Unreachable:
            failing = failing or time.monotonic()
            if time.monotonic() - failing > PATIENCE_S:
                raise
        if known is not None and known != last and on_status is not None:
            on_status(known)
        if known is not None and known.state not in ACTIVE:
            return known
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise TimeoutError(f"{id_} is still {known.state if known else 'out of reach'} after {timeout_s:g} s")
        time.sleep(poll_s)


def listed(to: Target | str) -> list[JobStatus]:
    """The sweeps that a target knows, newest first."""
    return launcher_of(target(to) if isinstance(to, str) else to).list()


def state_folder() -> Path:
    """Where musweep keeps what it remembers between commands of one user."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "musweep"


def remember(id_: str, name: str) -> None:
    """Note to which target a sweep was sent, so that later commands need not be told; nothing depends on it."""
    path = state_folder() / "submitted.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"id": id_, "target": name, "time": time.time()}) + "\n")
    except OSError:  # a home that cannot be written: --to does as well
        return


def recall(id_: str) -> str | None:
    """The target that a sweep was last sent to from here."""
    try:
        lines = (state_folder() / "submitted.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            noted = json.loads(line)
            if noted["id"] == id_:
                return str(noted["target"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def folder_here(id_: str) -> Path | None:
    """The folder of a sweep that was submitted from here, if this machine sees it."""
    from cluster.folders import is_sweep

    try:
        name = recall(id_)
        folder = target(name).folder(id_) if name is not None else ""
    except SpecError:  # its target is no longer in clusters.yaml, or that has a mistake
        return None
    return Path(folder) if folder and "://" not in folder and is_sweep(Path(folder)) else None


def found(id_: str, to: Target | str | None) -> Target:
    """The target that is meant: the one that is named, else the one that the sweep was last sent to from here.

    Raises:
        LaunchError: neither is known.
    """
    if isinstance(to, Target):
        return to
    name = to or recall(id_)
    if name is None:
        raise LaunchError(f"{id_} was not submitted from here: give --to TARGET (musweep clusters lists them)")
    return target(name)
