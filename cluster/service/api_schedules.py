"""The REST API: schedules and their nights."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path as File
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from cluster.service.access import operator, reader, who_of
from cluster.service.api import REFUSALS, service
from cluster.service.api_actions import text_of
from cluster.service.models_acts import FiringInfo, NewSchedule, ScheduleInfo

if TYPE_CHECKING:
    from cluster.schedule import Firing, Schedule, Schedules

router = APIRouter(responses=REFUSALS, tags=["schedules"])
may_read, may_act = [Depends(reader)], [Depends(operator)]
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$", description="Of a schedule.")]
NEXT = 3


def schedules() -> Schedules:
    """Those of this user, or of $MUSWEEP_DATABASE."""
    from cluster.schedule import Schedules

    return Schedules.open(patience_s=5.0)


def told(schedule: Schedule) -> ScheduleInfo:
    """A schedule as it is sent: no secrets are in one, and no paths but a file's name."""
    from cluster.schedule_show import next_due

    due = next_due(schedule, time.time(), NEXT)
    return ScheduleInfo.model_validate({**asdict(schedule), "spec": File(schedule.spec).name, "next": due})


def _firing(firing: Firing) -> FiringInfo:
    return FiringInfo.model_validate(asdict(firing))


@router.get("/schedules", response_model=list[ScheduleInfo], dependencies=may_read)
def all_() -> list[ScheduleInfo]:
    """List the schedules."""
    return [told(each) for each in schedules().all()]


@router.post("/schedules", response_model=ScheduleInfo, dependencies=may_act)
def add(request: Request, sent: NewSchedule) -> ScheduleInfo:
    """Add a schedule; 422 tells every mistake of its spec."""
    from cluster.schedule import Schedule

    kept = service(request).actions.keep_spec(
        sent.name, text_of(sent.spec), sent.target, sent.overrides, sent.protocol
    )  # fmt: skip
    made = Schedule(
        name=sent.name, cron=sent.cron, zone=sent.zone, spec=kept, target=sent.target, folder=str(File.cwd()),
        overrides=tuple(sent.overrides), protocol=sent.protocol, overlap=sent.overlap, catch_up=sent.catch_up,
        deadline_s=sent.deadline_s, jitter_s=sent.jitter_s, owner=who_of(request).name, notify=tuple(sent.notify),
        notify_when=sent.notify_when,
    )  # fmt: skip
    return told(schedules().add(made))


@router.get("/schedules/{name}", response_model=ScheduleInfo, dependencies=may_read)
def one(name: Name) -> ScheduleInfo:
    """Tell all of a schedule."""
    return told(schedules().get(name))


@router.delete("/schedules/{name}", status_code=204, response_class=Response, dependencies=may_act)
def remove(name: Name) -> Response:
    """Forget a schedule with its history; sweeps stay."""
    schedules().remove(name)
    return Response(status_code=204)


@router.post("/schedules/{name}/pause", response_model=ScheduleInfo, dependencies=may_act)
def pause(name: Name) -> ScheduleInfo:
    """Let a schedule no longer be due; what is active goes on."""
    return told(schedules().pause(name))


@router.post("/schedules/{name}/resume", response_model=ScheduleInfo, dependencies=may_act)
def resume(name: Name) -> ScheduleInfo:
    """Let a paused schedule be due again, from now on."""
    return told(schedules().resume(name))


@router.post("/schedules/{name}/run", response_model=FiringInfo, dependencies=may_act)
def run(name: Name) -> FiringInfo:
    """Have a schedule fire now; a scheduler begins it."""
    return _firing(schedules().run_now(name))


@router.get("/schedules/{name}/firings", response_model=list[FiringInfo], dependencies=may_read)
def firings(
    name: Name, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[FiringInfo]:  # fmt: skip
    """List the times that a schedule was due, the newest first."""
    store = schedules()
    store.get(name)
    return [_firing(each) for each in store.firings(name, limit)]


@router.get("/firings", response_model=list[FiringInfo], dependencies=may_read)
def nights(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[FiringInfo]:
    """List the times that any schedule was due, the newest first."""
    return [_firing(each) for each in schedules().firings(None, limit)]
