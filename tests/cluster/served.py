"""The service on a free port of this machine, and sweeps for it that nobody trained."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.service.app import Service, Settings, create
from cluster.service.serving import listening, server
from cluster.service.tokens import Tokens
from tests.dashboards.synthetic import Sweep, make


@dataclass
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Served:
    """A service that runs, asked over HTTP as any client would."""

    url: str
    service: Service
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        form: bytes | None = None,
    ) -> Answer:
        data, sent = form, {**self.headers, **(headers or {})}
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return Answer(answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()})
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), {k.lower(): v for k, v in error.headers.items()})

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def api(self, path: str) -> Any:
        found = self.get(f"/api/v1{path}")
        assert found.status == 200, found.body
        return found.json


@contextmanager
def served(
    root: Path, settings: Settings | None = None, tokens: Tokens | None = None, audit: Path | None = None,
    fresh_s: float = 0.0,
) -> Iterator[Served]:  # fmt: skip
    """A running service; answers are fresh, so that a test sees what it has just written."""
    app = create(root, settings or Settings(rate=10_000), tokens, audit)
    app.state.service.shelf._fresh_s = fresh_s
    with listening("127.0.0.1", 0) as sock:
        running = server(app)
        thread = threading.Thread(target=running.run, args=([sock],), name="served")
        thread.start()
        try:
            until = time.monotonic() + 20
            while not running.started and time.monotonic() < until:
                time.sleep(0.01)
            assert running.started
            yield Served(f"http://127.0.0.1:{sock.getsockname()[1]}", app.state.service)
        finally:
            running.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def shelf_of(root: Path) -> Path:
    """Three sweeps: one that is finished, one that was cut off, one whose objective is to be large."""
    make(root / "done", Sweep(trials=40, name="done"))
    make(root / "cut", Sweep(trials=12, name="cut", close=None))
    make(root / "best", Sweep(trials=24, name="best", mode="max", rungs=()))
    return root
