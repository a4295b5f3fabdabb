"""The application: pages and API over one shelf of sweeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from cluster.folders import UserError
from cluster.service import api, pages
from cluster.service.access import Access
from cluster.service.live import Hub
from cluster.service.problems import Refused
from cluster.service.reading import NoSuchSweep, Shelf

if TYPE_CHECKING:
    from cluster.service.tokens import Tokens

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service is started with."""

    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "[::1]", "testserver"})
    """Names that requests may call it by."""
    open: bool = True
    """Whether everyone is let in: on loopback, where no token was made."""


@dataclass(slots=True)
class Service:
    """What routes share, at `request.app.state.service`."""

    root: Path
    shelf: Shelf
    access: Access
    hub: Hub
    settings: Settings = field(default_factory=Settings)


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def create(root: Path, settings: Settings | None = None, tokens: Tokens | None = None) -> FastAPI:
    """The application for a folder of sweeps."""
    settings = settings or Settings()
    app = FastAPI(title="musweep", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    shelf = Shelf(root)
    app.state.service = Service(root, shelf, Access(tokens, settings.open), Hub(shelf), settings)
    app.include_router(api.router, prefix="/api/v1")
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _answer_refusals(app)
    return app


def _answer_refusals(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        return JSONResponse(error.problem.model_dump(), error.status, error.headers, "application/problem+json")

    @app.exception_handler(NoSuchSweep)
    async def nothing(request: Request, error: NoSuchSweep) -> Response:
        return await refused(request, Refused(404, str(error)))

    @app.exception_handler(UserError)
    async def user(request: Request, error: UserError) -> Response:
        return await refused(request, Refused(422, str(error)))
