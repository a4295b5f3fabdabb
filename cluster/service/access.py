"""Who may do what: tokens, roles, sessions of browsers, and what tells a form of ours from another site's."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from fastapi import Request, Response

from cluster.service.problems import Refused
from cluster.service.roles import ROLES

if TYPE_CHECKING:
    from cluster.service.tokens import Token, Tokens

COOKIE = "musweep"
CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf"
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 1000
MOST_FORM = 1_000_000
FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Who:
    """Whoever makes a request."""

    name: str
    role: str
    how: str
    """`open` (loopback without tokens), `token` or `session`; `nobody` where none was given."""
    csrf: str = ""
    """What a form of this one's pages carries."""

    def may(self, role: str) -> bool:
        """Whether the role is enough."""
        return self.role in ROLES and ROLES.index(self.role) >= ROLES.index(role)


NOBODY = Who("", "", "nobody")


@dataclass(slots=True)
class _Session:
    token: Token
    csrf: str
    until: float


class Access:
    """What one service lets in.

    Args:
        tokens: those that count.
        open_: whether everyone is let in as `admin`: on loopback, where no token was made.
        timer: monotonic seconds.
    """

    def __init__(self, tokens: Tokens | None, open_: bool, timer: Callable[[], float] = time.monotonic) -> None:
        self.tokens, self.open, self._timer = tokens, open_, timer
        self._csrf = secrets.token_urlsafe(32)
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    # -- who is it -----------------------------------------------------------------------------------------------

    def who(self, authorization: str, cookie: str) -> Who:
        """Whoever sends this header and this cookie. A header that is no good is not mended by a cookie."""
        if authorization:
            kind, _, given = authorization.partition(" ")
            token = self._token(given.strip()) if kind.lower() == "bearer" else None
            return Who(token.name, token.role, "token") if token is not None else NOBODY
        if cookie and (session := self._session(cookie)) is not None:
            return Who(session.token.name, session.token.role, "session", session.csrf)
        return Who("loopback", "admin", "open", self._csrf) if self.open else NOBODY

    def _token(self, given: str) -> Token | None:
        return self.tokens.check(given) if self.tokens is not None else None

    def _session(self, cookie: str) -> _Session | None:
        key = _key(cookie)
        session = self._sessions.get(key)
        if session is None:
            return None
        if session.until < self._timer() or self.tokens is None or not self.tokens.valid(session.token.id):
            self._sessions.pop(key, None)
            return None
        return session

    # -- sessions ------------------------------------------------------------------------------------------------

    def sign_in(self, given: str) -> tuple[Who, str] | None:
        """A session for a token, and the cookie's value; None for one that does not count."""
        token = self._token(given.strip())
        if token is None:
            return None
        cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._sessions[_key(cookie)] = _Session(token, csrf, self._timer() + SESSION_S)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return Who(token.name, token.role, "session", csrf), cookie

    def sign_out(self, cookie: str) -> None:
        """End a session."""
        self._sessions.pop(_key(cookie), None)


def _key(cookie: str) -> bytes:
    # The cookie itself is not kept, and is looked up by its hash: no timing tells how much of a guess was right.
    return hashlib.sha256(cookie.encode()).digest()


async def login(request: Request, given: str) -> str:
    """A new session's cookie for a token that was typed into the login page.

    Raises:
        Refused: 401 for one that does not count; 429 after too many of those.
    """
    from anyio import to_thread

    service = request.app.state.service
    client = request.client.host if request.client else "?"
    if (wait := service.limits.locked(client)) > 0:
        raise Refused(429, f"too many wrong tokens: wait {wait:.0f} s", headers={"Retry-After": f"{wait:.0f}"})
    found = await to_thread.run_sync(service.access.sign_in, given)
    request.state.audit = {"login": "yes" if found else "refused"}
    if found is None:
        service.limits.failed(client)
        raise Refused(401, "this token opens nothing here: it is mistyped, expired or revoked")
    request.state.who = found[0]
    return str(found[1])


def set_cookie(request: Request, response: Response, cookie: str) -> None:
    """Have a browser keep its session: no script sees it, and no other site's request carries it."""
    secure = request.url.scheme == "https"
    response.set_cookie(
        COOKIE, cookie, max_age=int(SESSION_S), httponly=True, samesite="strict", secure=secure, path="/"
    )


def clear_cookie(response: Response) -> None:
    """Have a browser forget its session."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")


# -- what routes ask for -------------------------------------------------------------------------------------------


def who_of(request: Request) -> Who:
    """Whoever makes a request, as the gate found."""
    who: Who = request.state.who
    return who


def need(role: str) -> Callable[[Request], Awaitable[Who]]:
    """What a route depends on to let in only a role, and those above it.

    Raises:
        Refused: 401 for nobody, 403 for too low a role or a form of another site.
    """

    async def check(request: Request) -> Who:
        who = who_of(request)
        if who.how == "nobody":
            raise Refused(401, "a token is needed: Authorization: Bearer msw_..., made with `musweep token add`")
        if not who.may(role):
            raise Refused(403, f"{who.name} is {who.role}; this needs {role}")
        if request.method not in ("GET", "HEAD", "OPTIONS") and _by_browser(request, who):
            await _check_csrf(request, who)
        return who

    check.role = role  # type: ignore[attr-defined]
    return check


reader, operator, admin = need("reader"), need("operator"), need("admin")


def _by_browser(request: Request, who: Who) -> bool:
    """Whether a browser may have added what lets the request in, on any site's behalf."""
    if who.how == "session":
        return True
    return who.how == "open" and any(name in request.headers for name in ("origin", "sec-fetch-site", "cookie"))


async def _check_csrf(request: Request, who: Who) -> None:
    given = request.headers.get(CSRF_HEADER, "")
    if not given and request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM_TYPE:
        given = (await form(request)).get(CSRF_FIELD, "")
    if not secrets.compare_digest(given.encode(), who.csrf.encode()):
        raise Refused(403, "this form is not of a page that was shown to you just now: reload the page, then try again")


async def form(request: Request) -> dict[str, str]:
    """The fields of a form; of a name that comes twice the last. May be asked again.

    Raises:
        Refused: it is too long or not text.
    """
    found: dict[str, str] | None = getattr(request.state, "form", None)
    if found is None:
        data = await request.body()
        if len(data) > MOST_FORM:
            raise Refused(413, f"a form of {len(data)} bytes; legal: up to {MOST_FORM}")
        try:
            parsed = parse_qs(data.decode("utf-8"), keep_blank_values=True, max_num_fields=1000)
        except ValueError:
            raise Refused(400, "this is not a form") from None
        found = request.state.form = {name: values[-1] for name, values in parsed.items()}
    return found
