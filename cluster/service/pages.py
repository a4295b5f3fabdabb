"""The web pages: what is asked for becomes what a template shows. They work without a script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from cluster import text
from cluster.folders import UserError, trial_number
from cluster.service import access, pages_compare, pages_nights, pages_queue, pages_sweep
from cluster.service.access import Who, operator, reader
from cluster.service.models import Log, Summary
from cluster.service.pages_render import html, shared, static_file
from cluster.service.pages_sweep import address, table_of
from cluster.service.problems import Refused
from dashboards.svg import series

router = APIRouter(include_in_schema=False)
for part in (pages_nights.router, pages_compare.router, pages_queue.router):
    router.include_router(part)
LINES, MOST = 500, 500
METRICS = 60
HOW = "musweep token add NAME --role reader"
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report carries its own script, and has names of others in it: it runs apart from the pages that may act."""
TITLES = {
    400: "This cannot be understood", 401: "Sign in first", 403: "This is not yours to do",
    404: "There is nothing here", 409: "This cannot be done now", 413: "Too much at once", 422: "This cannot be done",
    429: "Too many tries", 500: "A fault of ours",
}  # fmt: skip


def _shelf(request: Request) -> Any:
    return request.app.state.service.shelf


@router.get("/static/{name}")
def static(name: str, v: str | None = None) -> Response:
    """A style sheet, a script or a picture."""
    try:
        return static_file(name, v)
    except FileNotFoundError:
        raise Refused(404, f"no file {name[:60]!r}") from None


@router.get("/sweeps")
def sweeps(request: Request, _who: Annotated[Who, Depends(reader)]) -> Response:
    """All sweeps."""
    every = _shelf(request).sweeps()
    versions = hash(tuple((each.id, each.version) for each in every))
    return shared.html(request, versions, "sweeps.html", lambda: _listed(request, every))


def _listed(request: Request, every: Sequence[Summary]) -> dict[str, Any]:
    """The sweeps that were asked for."""
    table = table_of("/sweeps", request.query_params, "updated_at", first_descending=True)
    wanted = table.q.lower()
    found = [
        each for each in every
        if (not table.state or each.state == table.state)
        and wanted in f"{each.id} {each.name} {each.objective} {each.verdict} {each.state}".lower()
    ]  # fmt: skip
    if table.sort in ("id", "state", "ended", "best", "updated_at"):
        there = [each for each in found if getattr(each, table.sort) is not None]
        rest = [each for each in found if getattr(each, table.sort) is None]
        found = [*sorted(there, key=lambda each: getattr(each, table.sort), reverse=table.descending), *rest]
    return {
        "found": found[:MOST], "total": len(every), "table": table, "root": str(_shelf(request).root),
        "running": sum(each.state == "running" for each in every), "states": sorted({each.state for each in every}),
        "events": "/api/v1/events",
    }  # fmt: skip


@router.get("/sweeps/{id_}")
def sweep(request: Request, id_: str, who: Annotated[Who, Depends(reader)]) -> Response:
    """One sweep."""
    shelf = _shelf(request)
    events = f"/api/v1{address(id_)}/events"

    def make() -> dict[str, Any]:
        shown = pages_sweep.context(shelf, id_, request.query_params)
        return {**shown, "may_write": who.may("operator"), "short": text.count, "events": events}

    return shared.html(request, shelf.version(id_), "sweep.html", make)


@router.get("/sweeps/{id_}/report")
def report(request: Request, id_: str, _who: Annotated[Who, Depends(reader)]) -> Response:
    """The sweep's report, a page of its own."""
    shelf = _shelf(request)
    shelf.summary(id_)
    path = shelf.root / id_ / "report.html"
    if not path.is_file():
        raise Refused(404, f"{id_} has no report yet: musweep report {path.parent} makes one")
    return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/sweeps/{id_}/stop")
def ask_stop(request: Request, id_: str, _who: Annotated[Who, Depends(operator)]) -> Response:
    """Whether it is really to be stopped."""
    summary = _shelf(request).summary(id_)
    if summary.state != "running":
        raise Refused(409, f"{id_} does not run: it is {summary.state}")
    return html(request, "stop.html", summary=summary)


@router.get("/sweeps/{id_}/trials/{number}")
def trial(request: Request, id_: str, number: int, _who: Annotated[Who, Depends(reader)]) -> Response:
    """One trial."""
    shelf = _shelf(request)
    found, summary = shelf.trial(id_, number), shelf.summary(id_)
    drawn = [
        (
            each.metric,
            series(list(zip(each.updates, each.values, strict=True)), each.metric, f"{each.metric} by update"),
        )
        for each in found.curves[:METRICS]
    ]
    total = shelf.trials(id_, limit=0).total
    return html(
        request, "trial.html", sheet=found, row=found.row, summary=summary, number=number, total=total,
        drawn=[(name, plot) for name, plot in drawn if plot], config=json.dumps(found.config, indent=1, default=str),
        events=f"/api/v1{address(id_)}/events" if found.row.state == "running" else "",
    )  # fmt: skip


@router.get("/sweeps/{id_}/logs")
def logs(request: Request, id_: str, _who: Annotated[Who, Depends(reader)]) -> Response:
    """The end of what a sweep's processes printed."""
    shelf, typed, wrong = _shelf(request), request.query_params.get("trial", "").strip(), ""
    wanted, summary = request.query_params.get("q", "").strip(), shelf.summary(id_)
    try:
        found = shelf.log(id_, trial_number(typed) if typed else None, 20 * LINES if wanted else LINES)
    except UserError as error:
        found, wrong = Log(lines=[], cut=False), str(error)
    if wanted:
        lines = [each for each in found.lines if wanted.lower() in each.lower()]
        found = Log(lines=lines[-LINES:], cut=found.cut)
    return html(
        request, "logs.html", summary=summary, log=found, trial=typed, q=wanted, wrong=wrong,
        events=f"/api/v1{address(id_)}/events",
    )  # fmt: skip


@router.get("/login")
def login(request: Request, next: str = "/") -> Response:
    """Where one signs in."""
    if access.who_of(request).may("reader"):
        return RedirectResponse(local(next), 303)
    return html(request, "login.html", wrong="", next=local(next), how=HOW)


@router.post("/login")
async def sign_in(request: Request) -> Response:
    """Trade a token for a session."""
    given = await access.form(request)
    service, there = request.app.state.service, local(given.get("next", "/"))
    client = request.client.host if request.client else "?"
    wait = service.limits.locked(client)
    found = None if wait else await to_thread.run_sync(service.access.sign_in, given.get("token", ""))
    if found is None:
        wrong = "This token does not count: it is mistyped, has expired, or was revoked."
        if wait:
            wrong = f"Too many wrong tokens came from here: wait {wait:.0f} s."
        else:
            service.limits.failed(client)
        return html(request, "login.html", 429 if wait else 401, wrong=wrong, next=there, how=HOW)
    answer = RedirectResponse(there, 303)
    access.set_cookie(request, answer, found[1])
    return answer


@router.post("/logout")
def sign_out(request: Request, _who: Annotated[Who, Depends(reader)]) -> Response:
    """End a session."""
    request.app.state.service.access.sign_out(request.cookies.get(access.COOKIE, ""))
    answer = RedirectResponse("/login", 303)
    access.clear_cookie(answer)
    return answer


def local(address_: str) -> str:
    """A path of this service; the first page where an address is anything else."""
    return address_ if address_[:1] == "/" and address_[1:2] not in ("/", "\\") and address_.isprintable() else "/"


@router.post("/sweeps/{id_}/{act}")
def act(request: Request, id_: str, act: str, _who: Annotated[Who, Depends(operator)]) -> Response:
    """Stop or resume a sweep, then show it."""
    service = request.app.state.service
    if act not in ("stop", "resume"):
        raise Refused(404, f"{act[:40]!r} cannot be done to a sweep; legal: stop, resume")
    service.shelf.summary(id_)  # what is no sweep of ours is refused
    request.state.audit = {"sweep": id_}
    (service.actions.stop if act == "stop" else service.actions.resume)(id_)
    return RedirectResponse(address(id_), 303)


def wants_html(request: Request) -> bool:
    """Whether an answer that says no is to be a page."""
    return not request.url.path.startswith(("/api/", "/static/")) and "text/html" in request.headers.get("accept", "")


def refused(request: Request, status: int, words: str) -> Response:
    """The page that says why something was not done; one who is not signed in is led to where that is done."""
    if status == 401 and request.method == "GET" and "x-part" not in request.headers:
        from urllib.parse import quote

        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(here, safe='')}" if here != "/" else "/login", 303)
    return html(request, "error.html", status, title=TITLES.get(status, "This did not work"), words=words, code=status)
