"""The application: pages and API over one shelf of sweeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from cluster.database import DatabaseBusy
from cluster.folders import UserError
from cluster.launch import LaunchError, Unreachable
from cluster.service import api, api_actions, api_around, api_schedules, pages
from cluster.service.access import Access
from cluster.service.actions import Actions, wrongs
from cluster.service.audit import Audit
from cluster.service.gate import Gate, Limits
from cluster.service.live import Hub
from cluster.service.models import Wrong
from cluster.service.picking import BadQuery
from cluster.service.problems import problem
from cluster.service.reading import MEMORY, NoSuchSweep, Shelf
from sweeps.errors import SpecError
from sweeps.journal import JournalError

if TYPE_CHECKING:
    from cluster.service.tokens import Tokens

API = "/api/v1"
THREADS = 100
"""Requests under way: those that wait for a long journal's first read must not keep others out."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service is started with."""

    hosts: frozenset[str] = LOOPBACK
    """Names that requests may call it by."""
    open: bool = True
    """Whether everyone is let in: on loopback, where no token is asked for."""
    rate: float = 100.0
    """Requests a second that a client may make in the long run."""
    failures: float = 10.0
    """Wrong tokens a minute."""
    memory: float = MEMORY
    """Bytes that journals which were read may take, about."""


@dataclass(slots=True)
class Service:
    """What routes share, at `request.app.state.service`."""

    root: Path
    settings: Settings
    shelf: Shelf
    access: Access
    hub: Hub
    actions: Actions
    limits: Limits
    audit: Audit


def create(
    root: Path, settings: Settings | None = None, tokens: Tokens | None = None, audit: Path | None = None
) -> FastAPI:
    """The application for a folder of sweeps.

    Args:
        root: the folder.
        settings: default: open, for loopback.
        tokens: that let others in.
        audit: the log's file; None: no log.
    """
    settings = settings or Settings()
    shelf = Shelf(root, memory=settings.memory)
    service = Service(
        root, settings, shelf, Access(tokens, settings.open), Hub(shelf), Actions(root),
        Limits(settings.rate, settings.failures), Audit(audit),
    )  # fmt: skip

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        service.actions.begin()
        service.hub.begin()
        yield
        service.hub.close()
        service.actions.close()

    app = FastAPI(title="musweep", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    app.state.service = service
    for each in (api.router, api_actions.router, api_around.router, api_schedules.router):
        app.include_router(each, prefix=API)
    app.include_router(pages.router)
    app.add_middleware(Gate, service=service)
    _answer_refusals(app)
    _describe(app)
    return app


def _answer_refusals(app: FastAPI) -> None:
    """Have every refusal leave in one shape, as a page for those who asked for one."""

    def answer(
        request: Request, status: int, words: str, wrong: list[Wrong] | None = None, headers: Any = None
    ) -> Response:
        if pages.wants_html(request):
            shown = pages.refused(request, status, words)
            shown.headers.update(headers or {})
            return shown
        return JSONResponse(problem(status, words, wrong).model_dump(), status, headers, "application/problem+json")

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = f"{request.url.path}: there is nothing here" if error.detail == "Not Found" else str(error.detail)
        return answer(request, error.status_code, words, getattr(error, "problems", None), error.headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = [
            Wrong(key=".".join(map(str, each["loc"])), problem=each["msg"], value=_short(each.get("input")))
            for each in error.errors()
        ]
        first = found[0] if found else Wrong(key="", problem="it cannot be understood")
        return answer(request, 422, f"{first.key}: {first.problem}", found)

    async def user(request: Request, error: Exception) -> Response:
        status = (
            404
            if isinstance(error, NoSuchSweep) or str(error).startswith("no schedule ")
            else 422
            if isinstance(error, BadQuery)
            else 409
        )
        if isinstance(error, SpecError):
            return answer(request, 422, str(error), wrongs(error.errors))
        if isinstance(error, Unreachable | DatabaseBusy):
            return answer(request, 409, f"{error}; try again later")
        return answer(request, status, " ".join(str(error).split()))

    async def fault(request: Request, error: Exception) -> Response:
        words = f"a fault of musweep's ({type(error).__name__}); the service's own output has more"
        return answer(request, 500, words)

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    for kind in (UserError, LaunchError, SpecError, JournalError):
        app.add_exception_handler(kind, user)
    app.add_exception_handler(Exception, fault)


def _short(value: Any) -> Any:
    """What was sent, where it is short."""
    if isinstance(value, int | float | bool | None):
        return str(value) if isinstance(value, float) else value
    return str(value)[:200]


def _describe(app: FastAPI) -> None:
    """Have the OpenAPI document say how one gets in and what a refusal looks like."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title="musweep", version="1", routes=app.routes, description=api.ABOUT, openapi_version="3.1.0"
            )
            schemes = made.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["token"] = {
                "type": "http", "scheme": "bearer",
                "description": "A token of `musweep token add`. Not needed on loopback where none is asked for.",
            }  # fmt: skip
            schemes["session"] = {"type": "apiKey", "in": "cookie", "name": "musweep", "description": "Of a browser."}
            for path, item in made["paths"].items():
                for operation in item.values():
                    operation["security"] = [] if path == f"{API}/health" else [{"token": []}, {"session": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
