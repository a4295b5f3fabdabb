"""Running the service: it is nice to the sweeps beside it, and leaves when it is asked to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from cluster.folders import UserError
from cluster.loopback import is_loopback
from cluster.service import audit
from cluster.service.app import LOOPBACK, Settings, create
from cluster.service.tokens import Tokens

if TYPE_CHECKING:
    from fastapi import FastAPI

LEAVE_S = 5
"""How long requests that are under way may take when the service is asked to leave."""
BACKLOG = 512


def settings_of(
    host: str, allowed: tuple[str, ...], proxy: str | None, require_token: bool, rate: float, tokens: Tokens
) -> Settings:
    """What a service on this address may do.

    Args:
        host: to listen on.
        allowed: other names that it may be called by.
        proxy: addresses of those who are believed to say whom they ask for.
        require_token: whether a token is asked for also on loopback.
        rate: requests a second of one client.
        tokens: those there are.

    Raises:
        UserError: others could reach it, and there is no token.
    """
    closed = require_token or proxy is not None or not is_loopback(host) or any(not is_loopback(n) for n in allowed)
    if closed and not tokens.any_valid():
        why = (
            "--require-token" if require_token else f"--host {host}" if not is_loopback(host) else "others may reach it"
        )
        raise UserError(f"serve: {why}: no token is valid yet; make one first: musweep token add NAME --role admin")
    names = {name.lower() for name in allowed} | ({host.lower()} if host not in ("0.0.0.0", "::", "") else set())
    hosts = {f"[{name}]" if ":" in name and not name.startswith("[") else name for name in names}
    return Settings(hosts=LOOPBACK | hosts, open=not closed, rate=rate)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens.

    Raises:
        UserError: the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
            made.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            words = getattr(error, "strerror", None) or str(error)
            raise UserError(f"serve: --port {port} on {host}: {words}; --port 0 takes any that is free") from None
        yield made
    finally:
        made.close()


class _Server(uvicorn.Server):
    """Closes live pages first when it is asked to leave: they would stay open for ever."""

    def __init__(self, config: uvicorn.Config, leave: Callable[[], None]) -> None:
        super().__init__(config)
        self._leave = leave

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._leave()
        await super().shutdown(sockets)


def server(app: FastAPI, proxy: str | None = None) -> uvicorn.Server:
    """What answers for an application, until its `should_exit` is set."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=LEAVE_S,
        timeout_keep_alive=75, proxy_headers=proxy is not None, forwarded_allow_ips=proxy or "",
        h11_max_incomplete_event_size=65536, limit_concurrency=2000, ws="none",
    )  # fmt: skip
    return _Server(config, app.state.service.hub.close)


def serve(
    root: Path, host: str, port: int, settings: Settings, tokens: Tokens, proxy: str | None, nice: int,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Serve a folder of sweeps until SIGTERM or SIGINT.

    Raises:
        UserError: the port cannot be had.
    """
    with listening(host, port) as sock:
        if nice:
            os.nice(nice)
        app = create(root, settings, tokens, audit.place())
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{sock.getsockname()[1]}"
        os.environ.setdefault(
            "MUSWEEP_URL", url
        )  # drivers that are started from here say in MLflow where their page is
        who = "everyone on this machine" if settings.open else "whoever has a token"
        say(f"serving {root}/ at {url}/ to {who}; Ctrl-C ends it")
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises again what it was stopped by
        with contextlib.suppress(KeyboardInterrupt):
            server(app, proxy).run([sock])
