"""The REST API: the cluster, printed numbers, and the service itself."""

from __future__ import annotations

import threading
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from cluster.service import audit as audits
from cluster.service.access import admin, reader, who_of
from cluster.service.api import REFUSALS, service
from cluster.service.models_acts import Audited, Health, PublishedNumber, PublishedTable, TargetInfo, TokenInfo, Version

router = APIRouter(responses=REFUSALS)
may_read, may_rule = [Depends(reader)], [Depends(admin)]
METRICS_S = 2.0
"""How old metrics may be."""


@router.get("/targets", response_model=list[TargetInfo], dependencies=may_read, tags=["queue"])
def targets(request: Request) -> list[TargetInfo]:
    """List the places that sweeps can be sent to."""
    return [
        TargetInfo(
            name=name,
            kind=each.kind,
            storage=each.folder("").rstrip("/"),
            queue=each.queue,
            allow=each.allow,
        )
        for name, each in service(request).actions.targets().items()
    ]


@router.get("/baselines", response_model=list[PublishedTable], dependencies=may_read, tags=["baselines"])
def baselines() -> list[PublishedTable]:
    """List the papers' tables that sweeps are held against."""
    from sweeps import published

    return [
        PublishedTable(
            name=table.name,
            title=table.title,
            paper=table.paper,
            where=table.where,
            place=table.place,
            protocol=table.protocol,
            values=[
                PublishedNumber(
                    row=value.row,
                    column=value.column,
                    value=value.value,
                    unit=value.unit,
                    task=value.task,
                    method=value.method,
                    certainty=value.certainty,
                    page=value.page,
                    note=value.note,
                )
                for value in table.values
            ],
        )
        for table in map(published.table, published.names())
    ]


@router.get("/health", response_model=Health, tags=["service"])
async def health() -> Health:
    """Say that the service answers; needs no token."""
    return Health()


@router.get("/version", response_model=Version, dependencies=may_read, tags=["service"])
def version(request: Request) -> Version:
    """Say what answers, and who you are to it."""
    from importlib.metadata import version as version_of

    who = who_of(request)
    root = str(service(request).root) if who.may("operator") else ""
    return Version(musweep=version_of("musweep"), api="v1", who=who.name, role=who.role, root=root)


_metrics: dict[str, tuple[float, str]] = {}
_measuring = threading.Lock()


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    dependencies=may_read,
    tags=["service"],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """What all sweeps are doing, for Prometheus, as `musweep metrics` has it."""
    from cluster import metrics as work

    root = service(request).root
    with _measuring:
        at, text = _metrics.get(str(root), (-1e9, ""))
        if time.monotonic() - at > METRICS_S:
            text = work.text(root)
            _metrics[str(root)] = time.monotonic(), text
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


@router.get("/tokens", response_model=list[TokenInfo], dependencies=may_rule, tags=["service"])
def tokens(request: Request) -> list[TokenInfo]:
    """List the tokens, without their secrets; they are made and revoked on the command line only."""
    known, now = service(request).access.tokens, time.time()
    return [
        TokenInfo(
            id=each.id,
            name=each.name,
            role=each.role,
            state=each.state(now),
            made=each.made,
            expires=each.expires,
            revoked=each.revoked,
            used=each.used,
        )
        for each in (known.all() if known is not None else [])
    ]


@router.get("/audit", response_model=list[Audited], dependencies=may_rule, tags=["service"])
def audit(request: Request, last: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """List what was done lately and by whom, the newest last."""
    path = service(request).audit.path
    return JSONResponse(audits.read(path, last) if path is not None else [])


@router.get("/openapi.json", response_model=dict[str, Any], dependencies=may_read, tags=["service"])
async def openapi(request: Request) -> Response:
    """This document."""
    return JSONResponse(request.app.openapi())
