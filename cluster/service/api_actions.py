"""The REST API: what starts, stops and orders sweeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from cluster.service.access import operator, reader, who_of
from cluster.service.api import REFUSALS, Id, json_of, service
from cluster.service.models_acts import Checked, Known, Priority, QueueEntry, QueueState, Submission, Submitted, ToCheck

if TYPE_CHECKING:
    from cluster.queue import Entry, Queue

router = APIRouter(responses=REFUSALS)
may_read, may_act = [Depends(reader)], [Depends(operator)]
EntryId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$", description="Of a queued sweep.")]


def text_of(spec: str | dict[str, Any]) -> str:
    """A spec as text; JSON is YAML, too."""
    return spec if isinstance(spec, str) else json.dumps(spec, ensure_ascii=False)


@router.post("/check", response_model=Checked, dependencies=may_read, tags=["sweeps"])
def check(request: Request, sent: ToCheck) -> Checked:
    """Say whether a spec can be run; 422 tells every mistake."""
    summary, warnings = service(request).actions.check(text_of(sent.spec), sent.overrides, sent.protocol)
    return Checked(summary=summary, warnings=warnings)


@router.post("/sweeps", response_model=Submitted, dependencies=may_act, tags=["sweeps"])
def submit(request: Request, sent: Submission) -> Submitted:
    """Send a sweep to a target; sent twice it is there once, and one that was stopped goes on."""
    made = service(request).actions.submit(
        text_of(sent.spec), sent.target, sent.overrides, sent.protocol, sent.again, sent.priority
    )
    request.state.audit = {"sweep": made.id, "target": made.target, "state": made.state}
    return made


@router.get("/sweeps/{id_}/place", response_model=Known, dependencies=may_read, tags=["sweeps"])
def place(request: Request, id_: Id) -> Known:
    """Tell what the place of a submitted sweep knows of it."""
    return service(request).actions.status(id_)


@router.post("/sweeps/{id_}/stop", response_model=Known, dependencies=may_act, tags=["sweeps"])
def stop(request: Request, id_: Id) -> Known:
    """Have a sweep leave cleanly, so that it can go on later; what takes long is still under way when this answers."""
    return service(request).actions.stop(id_)


@router.post("/sweeps/{id_}/resume", response_model=Known, dependencies=may_act, tags=["sweeps"])
def resume(request: Request, id_: Id) -> Known:
    """Go on with a sweep after any kind of end."""
    return service(request).actions.resume(id_)


# -- the queue -----------------------------------------------------------------------------------------------------


@router.get("/queue", response_model=list[QueueState], dependencies=may_read, tags=["queue"])
def queue(request: Request, ended: bool = False) -> list[QueueState]:
    """List what waits for a place and why, in the order in which it would start; with `ended` also what has ended."""
    from cluster.queue import ENDED
    from cluster.queue_show import in_order, summary

    made = []
    for target, opened in service(request).actions.queues():
        entries = opened.entries(target.name)
        shown = [_entry(each) for each in in_order(entries) if ended or each.state not in ENDED]
        made.append(QueueState(target=target.name, summary=summary(opened, target.name, entries), entries=shown))
    return made


def _entry(entry: Entry) -> QueueEntry:
    return QueueEntry.model_validate(asdict(entry))


def _told(request: Request, id_: str, work: Callable[[Queue], Entry]) -> Response:
    return json_of(_entry(service(request).actions.entry(id_, work)))


@router.post("/queue/{id_}/priority", response_model=QueueEntry, dependencies=may_act, tags=["queue"])
def priority(request: Request, id_: EntryId, sent: Priority) -> Response:
    """Give a queued sweep another priority."""
    return _told(request, id_, lambda queue: queue.priority(id_, sent.priority))


@router.post("/queue/{id_}/hold", response_model=QueueEntry, dependencies=may_act, tags=["queue"])
def hold(request: Request, id_: EntryId) -> Response:
    """Keep a queued sweep from starting; one that runs is stopped cleanly, and can go on."""
    return _told(request, id_, lambda queue: queue.hold(id_, who_of(request).name))


@router.post("/queue/{id_}/release", response_model=QueueEntry, dependencies=may_act, tags=["queue"])
def release(request: Request, id_: EntryId) -> Response:
    """Let a held sweep start again, at its old place."""
    return _told(request, id_, lambda queue: queue.release(id_))


@router.post("/queue/{id_}/cancel", response_model=QueueEntry, dependencies=may_act, tags=["queue"])
def cancel(request: Request, id_: EntryId) -> Response:
    """Take a sweep out of the queue; one that runs is stopped cleanly."""
    return _told(request, id_, lambda queue: queue.cancel(id_, who_of(request).name))
