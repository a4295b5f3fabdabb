"""What a target of `clusters.yaml` says of its queue: where it lies, how the place is shared, what is submitted."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.choosing import Room, Rules
from cluster.folders import UserError
from cluster.launch import Job, LaunchError, Unreachable, job_of
from cluster.package import SPEC
from cluster.queue import Entry, Queue
from cluster.targets import HERE, refuse_named

if TYPE_CHECKING:
    from cluster.targets import Quota, Target


def queue_of(target: Target, patience_s: float = 30.0) -> Queue:
    """The queue of a target: in its database, else in its storage folder.

    Raises:
        QueueError: it has no database, and its storage cannot hold a queue.
    """
    given = target.database
    if given is not None:
        return Queue.open(
            given if isinstance(given, str) else given.read(f"target {target.name}: database"), patience_s
        )
    storage = target.folder("x").rpartition("/")[0]
    return Queue.open(storage, patience_s)


def rules_of(target: Target) -> Rules:
    """The quotas and manners of a target."""
    owners = {name: _room(quota) for name, quota in target.quotas.items()}
    return Rules(_room(target.room), owners, _room(target.quota), target.backfill, target.preempt)


def _room(quota: Quota | None) -> Room:
    if quota is None:
        return Room()
    given = {kind: float(number) for kind, number in quota.model_dump().items() if number is not None}
    return Room(**given)


def capacity_of(target: Target) -> Callable[[], Room]:
    """What tells how much a target has in all, used or not."""
    if target.room is not None and target.room.cpus is not None and target.room.gpus is not None:
        return Room  # said already, and clusters that grow on demand have more than they show
    if target.kind == "ray":
        from cluster.ray_jobs import RayJobs

        asking = RayJobs(target)
        return lambda: _without(target, _of_ray(asking.ask("GET", "/api/v0/nodes?limit=10000&detail=true")))
    if target.kind in HERE:
        return lambda: _without(target, Room(float(len(os.sched_getaffinity(0))), float(_gpus_here())))
    return Room


def _without(target: Target, there: Room) -> Room:
    """What a place shows, but for what the target says itself."""
    said = _room(target.room)
    return Room(
        said.cpus if said.cpus < float("inf") else there.cpus, said.gpus if said.gpus < float("inf") else there.gpus
    )


def _of_ray(answer: Any) -> Room:
    """The CPUs and GPUs of a Ray cluster's living nodes, as its dashboard lists them."""
    try:
        nodes = answer["data"]["result"]["result"]
        alive = [node.get("resources_total") or {} for node in nodes if node["state"] == "ALIVE"]
        if not alive:  # a dashboard answers before the first node is there
            raise Unreachable("the cluster has no node yet")
        return Room(sum(float(each.get("CPU", 0)) for each in alive), sum(float(each.get("GPU", 0)) for each in alive))
    except (KeyError, TypeError, ValueError) as error:
        raise LaunchError(f"the dashboard lists nodes in a way that is not known here ({error!r}): say room") from None


def _gpus_here() -> int:
    """The NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([each for each in visible.split(",") if each.strip() not in ("", "-1", "NoDevFiles")])
    found = Path("/proc/driver/nvidia/gpus")
    return len(list(found.iterdir())) if found.is_dir() else 0


def jobs_of(target: Target) -> Callable[[Entry], Job]:
    """What makes the job of an entry, having looked once more at what will run."""

    def made(entry: Entry) -> Job:
        package = Path(entry.package)
        verify(package, entry.spec_hash, target)
        return job_of(target, entry.id, package, entry.folder, entry.spec_hash)

    return made


def verify(package: Path, digest: str, target: Target) -> None:
    """Make sure that a package is what was submitted, and names only code that the target allows.

    Raises:
        UserError: it is gone, damaged or another one.
        LaunchError: its code is not allowed.
    """
    told = hashlib.sha256()
    try:
        with zipfile.ZipFile(package) as packed:
            for info in sorted(packed.infolist(), key=lambda each: each.filename.encode()):
                content = hashlib.sha256(packed.read(info)).hexdigest()
                mode = (info.external_attr >> 16) & 0o7777
                told.update(f"{len(info.filename.encode())} {info.filename} {mode:o} {content}\n".encode())
            spec = json.loads(packed.read(SPEC))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{package}: cannot be read ({reason}): submit the spec again") from None
    if digest and told.hexdigest() != digest:
        raise UserError(f"{package} is not what was submitted: cancel the sweep and submit its spec again")
    refuse_named(spec, target)
