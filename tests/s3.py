"""An S3 server of the tests' own on loopback, that can be made to fail or to go away."""

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

BUCKET = "bucket"


class Server:
    """Moto's S3 behind a door that says 500 when `failing` asks for it."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self.failing = 0
        """So many requests more are answered 500; -1: all."""
        self.requests: list[str] = []
        self.port = 0
        self.start()
        for method, path in (("POST", "/moto-api/reset"), ("PUT", f"/{BUCKET}")):
            self._app(_request(method, path, f"127.0.0.1:{self.port}"), lambda *_: lambda _data: None)

    def start(self) -> None:
        from werkzeug.serving import make_server

        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        self.port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Go away; what is stored stays."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def _answer(self, request: dict[str, Any], start: Any) -> Any:
        self.requests.append(f"{request['REQUEST_METHOD']} {request['PATH_INFO']}")
        if self.failing:
            self.failing -= 1
            start("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return self._app(request, start)


def _request(method: str, path: str, host: str) -> dict[str, Any]:
    from werkzeug.test import EnvironBuilder

    return {**EnvironBuilder(path=path, method=method).get_environ(), "HTTP_HOST": host}


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    """A server, and an environment in which pyarrow finds its way there."""
    pytest.importorskip("moto", reason="moto is not installed")
    from moto.core.models import override_responses_real_send  # noqa: F401 - fails early if moto is another one

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("no_proxy", "127.0.0.1"),
    ):
        monkeypatch.setenv(name, value)
    server = Server()
    try:
        yield server
    finally:
        server.stop()
