"""The REST API: sweeps and what is in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from cluster.service.access import reader
from cluster.service.live import TooMany
from cluster.service.models import (
    Curve,
    Log,
    Measurement,
    Page,
    Point,
    Problem,
    Sheet,
    Summary,
    TrialRow,
    TrialSheet,
)
from cluster.service.problems import Refused

if TYPE_CHECKING:
    from cluster.service.app import Service
    from cluster.service.reading import Shelf

ABOUT = (
    "Sweeps over momentum, learning rate, initialization and depth: read them, start them, stop them. Numbers that are "
    'not finite are the strings "NaN", "Infinity" and "-Infinity". Times are seconds since 1970.'
)
NAME = r"^[\w][\w .+=@,:~-]{0,199}$"
Id = Annotated[str, Path(pattern=NAME, description="The name of a sweep's folder.")]
TrialId = Annotated[str, Path(pattern=r"^t?\d{1,9}$", description="Of a trial: 12 or t00012.")]
Offset = Annotated[int, Query(ge=0, le=10**9)]

REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": words, "content": {"application/problem+json": {}}}
    for code, words in {
        401: "No token, or one that opens nothing.",
        403: "Too low a role, or asked for by another site's page.",
        404: "There is no such thing.",
        409: "It cannot be done as things are; `detail` says why.",
        413: "Too much was sent.",
        421: "The service is not called by this name.",
        422: "What was sent is wrong; `problems` says where.",
        429: "Too many requests; `Retry-After` says when to come again.",
    }.items()
}
router = APIRouter(dependencies=[Depends(reader)], responses=REFUSALS, tags=["sweeps"])


def service(request: Request) -> Service:
    """The service that a request came to."""
    found: Service = request.app.state.service
    return found


def shelf(request: Request) -> Shelf:
    """Its sweeps."""
    return service(request).shelf


def json_of(model: Any) -> Response:
    """A model as JSON, not finite numbers as strings; once, where FastAPI would make it twice."""
    return Response(model.model_dump_json(by_alias=True), media_type="application/json")


def number_of(trial: str) -> int:
    """The number in `12` or `t00012`."""
    return int(trial.removeprefix("t"))


@router.get("/sweeps", response_model=Page[Summary])
def sweeps(
    request: Request,
    state: Annotated[str, Query(max_length=40, description="Only those in this state.")] = "",
    name: Annotated[str, Query(max_length=200, description="Only those whose id or name has this in it.")] = "",
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Response:
    """List the sweeps, the last changed first."""
    every = shelf(request).sweeps()
    found = [each for each in every if state in ("", each.state) and name.lower() in f"{each.id} {each.name}".lower()]
    rows = found[offset : offset + limit]
    return json_of(Page[Summary](rows=rows, total=len(every), matched=len(found), offset=offset, limit=limit))


@router.get("/sweeps/{id_}", response_model=Sheet)
def sweep(request: Request, id_: Id) -> Response:
    """Tell all of a sweep but its trials."""
    return json_of(shelf(request).sweep(id_))


@router.get("/sweeps/{id_}/summary", response_model=Summary)
def summary(request: Request, id_: Id) -> Response:
    """Tell how a sweep stands, in short; what to ask for again and again."""
    return json_of(shelf(request).summary(id_))


@router.get("/sweeps/{id_}/trials", response_model=Page[TrialRow])
def trials(
    request: Request,
    id_: Id,
    sort: Annotated[str, Query(max_length=100, description="A column, or a parameter.")] = "number",
    descending: bool = False,
    filter: Annotated[
        str, Query(max_length=500, description="Terms that must all fit: `state:complete lr<0.01 nag`.")
    ] = "",
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Response:
    """List a sweep's trials, sorted and filtered."""
    return json_of(shelf(request).trials(id_, sort, descending, filter, offset, limit))


@router.get("/sweeps/{id_}/trials/{trial}", response_model=TrialSheet)
def trial(request: Request, id_: Id, trial: TrialId) -> Response:
    """Tell all of a trial."""
    return json_of(shelf(request).trial(id_, number_of(trial)))


@router.get("/sweeps/{id_}/curves", response_model=list[Curve])
def curves(
    request: Request,
    id_: Id,
    n: Annotated[int, Query(ge=1, le=500, description="Of the best trials.")] = 10,
    metric: Annotated[str, Query(max_length=200, description="Default: the objective.")] = "",
    trial: Annotated[list[int] | None, Query(max_length=500, description="Of these, and not the best.")] = None,
) -> list[Curve]:
    """Tell a metric of some trials by update."""
    return shelf(request).curves(id_, n, metric, tuple(trial or ()))


@router.get("/sweeps/{id_}/points", response_model=list[Point])
def points(
    request: Request,
    id_: Id,
    x: Annotated[str, Query(max_length=100)] = "mu_max",
    y: Annotated[str, Query(max_length=100)] = "lr",
) -> list[Point]:
    """Tell the trials of the search as dots on a map of two parameters."""
    return shelf(request).points(id_, x, y)


@router.get(
    "/sweeps/{id_}/rows",
    response_model=Page[Measurement],
    responses={200: {"content": {"application/vnd.apache.arrow.stream": {"schema": {"type": "string"}}}}},
)
def rows(
    request: Request,
    id_: Id,
    format: Annotated[Literal["arrow", "json"], Query(description="`arrow`: all of them, as an IPC stream.")] = "json",
    trial: Annotated[str | None, Query(pattern=r"^t?\d{1,9}$", description="Only of this one; JSON only.")] = None,
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=100_000, description="JSON only.")] = 1000,
) -> Response:
    """Tell every number that was measured: trial, update, metric, value."""
    if format == "json":
        only = None if trial is None else number_of(trial)
        return json_of(shelf(request).measurements(id_, offset, limit, only))
    from sweeps.parquet import stream

    batches = shelf(request).batches(id_)
    first = next(batches)  # what can be refused is refused before the answer begins
    headers = {"Content-Disposition": f'attachment; filename="{id_.encode("ascii", "replace").decode()}.arrows"'}
    return StreamingResponse(stream(first, batches), 200, headers, "application/vnd.apache.arrow.stream")


@router.get("/sweeps/{id_}/comparison", response_model=dict[str, Any])
def comparison(request: Request, id_: Id) -> Response:
    """Tell the sweep's comparison.json: arms, contrasts, verdicts."""
    found = shelf(request).comparison(id_)
    if found is None:
        raise Refused(404, f"{id_} has no comparison: musweep confirm and musweep compare make one")
    return JSONResponse(found)


@router.get("/sweeps/{id_}/log", response_model=Log)
def log(
    request: Request,
    id_: Id,
    trial: Annotated[str | None, Query(pattern=r"^t?\d{1,9}$", description="What this one printed.")] = None,
    lines: Annotated[int, Query(ge=1, le=10_000)] = 500,
) -> Response:
    """Tell the end of what a sweep's driver and groups printed."""
    return json_of(shelf(request).log(id_, None if trial is None else number_of(trial), lines))


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `sweep` with a Summary, `gone` with an id, `bye` at the end.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/events", response_class=StreamingResponse, responses=_STREAM)
async def events(request: Request) -> Response:
    """Tell of every change of any sweep, as it happens."""
    return _told(request, None)


@router.get("/sweeps/{id_}/events", response_class=StreamingResponse, responses=_STREAM)
async def sweep_events(request: Request, id_: Id) -> Response:
    """Tell of every change of a sweep, as it happens."""
    from anyio import to_thread

    await to_thread.run_sync(shelf(request).summary, id_)
    return _told(request, id_)


def _told(request: Request, id_: str | None) -> Response:
    hub = service(request).hub
    try:
        watching = hub.open(id_)
    except TooMany:
        raise Refused(429, "as many live pages are open as there may be", headers={"Retry-After": "30"}) from None

    async def body() -> AsyncIterator[bytes]:
        async for data in hub.watch(watching):
            yield data

    return StreamingResponse(
        body(), 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, "text/event-stream"
    )  # fmt: skip
