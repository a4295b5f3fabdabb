"""What every request passes before a route sees it: host, origin, rate and size; who it is; what is noted of it."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anyio import move_on_after, to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse

from cluster.service.access import COOKIE, NOBODY, Who
from cluster.service.problems import Refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cluster.service.app import Service

SAFE = ("GET", "HEAD", "OPTIONS")
MOST_BODY = 5_000_000
"""Bytes that a request may carry."""
DRAIN_S = 5.0
_CLIENTS = 10_000
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer, unless a route says otherwise of itself."""


class Buckets:
    """A token bucket for each client: so many requests a second, and some more at once.

    Args:
        rate: requests a second that a client may make in the long run.
        burst: that it may make at once.
        timer: monotonic seconds.
    """

    def __init__(self, rate: float, burst: float, timer: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._timer = rate, burst, timer
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, price: float = 1.0) -> float:
        """Take from a client's bucket; the seconds after which it may come again if that is empty, else 0."""
        left = self.left(client)
        if left < price:
            return (price - left) / self.rate
        self._left[client] = left - price, self._timer()
        self._left.move_to_end(client)
        while len(self._left) > _CLIENTS:  # who came longest ago, whose bucket is full again most likely
            self._left.popitem(last=False)
        return 0.0

    def left(self, client: str) -> float:
        """What a client's bucket holds."""
        left, at = self._left.get(client, (self.burst, 0.0))
        return min(self.burst, left + (self._timer() - at) * self.rate)


class Limits:
    """How much a client may ask.

    Args:
        rate: requests a second; four times as many at once.
        failures: wrong tokens a minute.
        timer: monotonic seconds.
    """

    def __init__(self, rate: float, failures: float, timer: Callable[[], float] = time.monotonic) -> None:
        self._requests = Buckets(rate, rate * 4, timer)
        self._failures = Buckets(failures / 60, failures, timer)

    def request(self, client: str) -> float:
        """Count a request; the seconds to wait if it is one too many, else 0."""
        return self._requests.take(client)

    def failed(self, client: str) -> None:
        """Count a wrong token."""
        self._failures.take(client)

    def locked(self, client: str) -> float:
        """The seconds that a client must wait before it shows another token; 0 if it need not."""
        left = self._failures.left(client)
        return 0.0 if left >= 1.0 else max(1.0, (1.0 - left) / self._failures.rate)


class Gate:
    """The middleware. Arguments: the application behind it, and the service."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        client = scope["client"][0] if scope.get("client") else "?"
        state = scope.setdefault("state", {})
        state["who"] = NOBODY
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                made = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    made.setdefault(name, value)
            await send(message)

        try:
            refused = await self._look(scope, headers, client, state)
            if refused is not None:
                await _drain(receive)
                answer = JSONResponse(
                    refused.problem.model_dump(), refused.status_code, refused.headers, "application/problem+json"
                )
                await answer(scope, receive, sending)
                return
            await self._app(scope, _limited(receive), sending)
        finally:
            self._note(scope, headers, client, state, status)

    async def _look(self, scope: Scope, headers: Headers, client: str, state: dict[str, object]) -> Refused | None:
        """Find out who it is; why it is refused, if it is."""
        if refused := self._host(headers) or _origin(scope, headers) or _size(headers):
            return refused
        if "authorization" in headers and (wait := self._service.limits.locked(client)) > 0:
            return _slower(wait)
        who = await self._who(headers)
        state["who"] = who
        if who is NOBODY and "authorization" in headers:
            self._service.limits.failed(client)
        wait = self._service.limits.request(f"{client} {who.name}")
        return _slower(wait) if wait else None

    async def _who(self, headers: Headers) -> Who:
        access = self._service.access
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        given = headers.get("authorization", "")
        if not given and not cookie:
            return access.who("", "")
        return await to_thread.run_sync(access.who, given, cookie)  # may ask the database

    def _host(self, headers: Headers) -> Refused | None:
        # A page of another site whose name was made to mean this machine (DNS rebinding) still says its own name here.
        match = _HOST.fullmatch(headers.get("host", ""))
        name = match.group(1).lower().rstrip(".") if match else ""
        if name in self._service.settings.hosts:
            return None
        shown = name or "no name"
        return Refused(421, f"this service is not called {shown}; whoever runs it can allow that: --allowed-host NAME")

    def _note(self, scope: Scope, headers: Headers, client: str, state: dict[str, object], status: int) -> None:
        """Write to the audit log what changed something, and what was refused to someone who showed a token."""
        if scope["method"] in SAFE and not (status in (401, 403) and "authorization" in headers):
            return
        who = state["who"]
        assert isinstance(who, Who)
        more = state.get("audit")
        told = dict(more) if isinstance(more, dict) else {}
        self._service.audit.write(who.name, who.role, client, f"{scope['method']} {scope['path']}", status, **told)


def _origin(scope: Scope, headers: Headers) -> Refused | None:
    """Refuse what another site's page has a browser send, whatever the browser would add."""
    if scope["method"] in SAFE:
        return None
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return Refused(403, f"a page of another site asked for this (Sec-Fetch-Site: {site[:40]})")
    if origin is not None:
        try:
            parts = urlsplit(origin)
            same = (parts.scheme, parts.netloc.lower()) == (scope.get("scheme"), headers.get("host", "").lower())
        except ValueError:
            same = False
        if not same:
            return Refused(403, f"a page of another site asked for this (Origin: {origin[:80]})")
    return None


def _size(headers: Headers) -> Refused | None:
    given = headers.get("content-length", "0")
    if given.isdecimal() and int(given) > MOST_BODY:
        return Refused(413, f"a request of {given[:20]} bytes; legal: up to {MOST_BODY}")
    return None


async def _drain(receive: Receive) -> None:
    """Take what a refused client still sends, so that it comes to read why; not for ever."""
    got = 0
    with move_on_after(DRAIN_S):
        while got < 4 * MOST_BODY:
            message = await receive()
            got += len(message.get("body", b""))
            if not message.get("more_body"):
                return


def _slower(wait: float) -> Refused:
    seconds = max(1, round(wait))
    return Refused(429, f"too many requests: wait {seconds} s", headers={"Retry-After": str(seconds)})


def _limited(receive: Receive) -> Receive:
    """What is received, until it is more than a request may carry: some do not say how long they are."""
    got = 0

    async def receiving() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > MOST_BODY:
            raise Refused(413, f"a request of more than {MOST_BODY} bytes; legal: up to {MOST_BODY}")
        return message

    return receiving
