"""How pages become HTML: templates, the words and signs of states, static files by their hash."""

from __future__ import annotations

import hashlib
import mimetypes
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import text
from cluster.service.access import who_of
from dashboards import view

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import Response
    from jinja2 import Environment
    from markupsafe import Markup

HERE = Path(__file__).parent
PART = "x-part"
"""The header by which a page's script asks for its main part alone."""
YEAR_S = 365 * 86_400
SHARED_S, STALE_S = 1.0, 5.0

SIGNS: dict[str, tuple[str, str]] = {
    "running": ("▶", "running"), "starting": ("▷", "running"), "stopping": ("■", "stopping"),
    "finished": ("✓", "finished"), "complete": ("✓", "complete"), "interrupted": ("■", "interrupted"),
    "stopped": ("■", "stopped"), "out of budget": ("■", "wait"), "cut off": ("✗", "lost"), "failed": ("✗", "failed"),
    "unreadable": ("✗", "lost"), "diverged": ("✗", "diverged"), "skipped": ("–", "skipped"), "queued": ("·", "queued"),
    "held": ("‖", "held"), "paused": ("‖", "paused"), "ok": ("✓", "ok"), "better": ("▲", "better"),
    "worse": ("▼", "worse"), "broken": ("✗", "broken"), "equivalent": ("=", "equivalent"),
    "not distinguishable": ("≈", "open"), "no verdict": ("?", "open"), "missed": ("○", "bad"), "none": ("○", "none"),
}  # fmt: skip
"""(sign, class) of each word that says how something stands; the word itself is always beside its sign."""


def sign(word: str) -> tuple[str, str]:
    """A state's sign and class."""
    return SIGNS.get(word, ("○", "none"))


@cache
def environment() -> Environment:
    """The templates, which escape all that they are given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters |= {
        "num": view.number, "val": text.value, "span": text.span, "utc": utc, "ago": ago, "coded": coded,
        "count": lambda n: f"{n:,}",
        "spoken": lambda name: name.replace("_", " "),
    }  # fmt: skip
    made.globals |= {"sign": sign, "static": static, "setting": view.text}
    return made


def coded(words: str) -> Markup:
    """Words in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = str(escape(words)).split("`")
    if len(parts) % 2 == 0:
        return escape(words)
    return Markup("".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)))


def utc(seconds: float | None) -> str:
    """A time as people read it, to the minute."""
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def ago(seconds: float | None, now: float | None = None) -> str:
    """How long ago, or in how long: `3 min ago`, `in 2 h`."""
    if seconds is None:
        return "–"
    gap = (time.time() if now is None else now) - seconds
    size = abs(gap)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if size >= (2 if unit == "d" else 1) * length:
            words = f"{int(size // length)} {unit}"
            break
    else:
        return "just now" if gap >= 0 else "in a moment"
    return f"{words} ago" if gap >= 0 else f"in {words}"


@cache
def _stored(name: str) -> tuple[bytes, str, str]:
    """A static file: its bytes, their hash and its type.

    Raises:
        FileNotFoundError: there is none.
    """
    path = HERE / "static" / name
    if "/" in name or name.startswith(".") or not path.is_file():
        raise FileNotFoundError(name)
    data = path.read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return data, hashlib.sha256(data).hexdigest()[:16], "text/javascript" if name.endswith(".js") else kind


def static(name: str) -> str:
    """The address of a static file, another one when its bytes are others."""
    return f"/static/{name}?v={_stored(name)[1]}"


def static_file(name: str, version: str | None) -> Response:
    """A static file, to be kept for a year where it was asked for by its hash.

    Raises:
        FileNotFoundError: there is none.
    """
    from fastapi.responses import Response

    data, known, kind = _stored(name)
    keep = f"public, max-age={YEAR_S}, immutable" if version == known else "no-cache"
    return Response(data, media_type=kind, headers={"Cache-Control": keep, "ETag": f'"{known}"'})


def html(request: Request, template: str, status: int = 200, /, **values: Any) -> Response:
    """A page, or its main part alone for the page's script; nothing but 304 for one who has it."""
    return answer(request, body(request, template, status, values), status)


def body(request: Request, template: str, status: int, values: Mapping[str, Any]) -> bytes:
    """A page's HTML."""
    found, context = environment().get_template(template), _context(request, values)
    if request.headers.get(PART) == "main" and status == 200:
        return "".join(found.blocks["main"](found.new_context(context))).encode()
    return found.render(context).encode()


def answer(request: Request, made: bytes, status: int = 200) -> Response:
    """An answer of HTML; nothing but 304 for one who has it."""
    from fastapi.responses import Response

    tag = f'"{hashlib.blake2b(made, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "X-Part, Cookie"}
    headers["Referrer-Policy"] = "same-origin"  # with no-referrer, browsers say that forms come from nowhere
    if status == 200 and request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(made, status, headers, "text/html; charset=utf-8")


@dataclass(slots=True)
class _Made:
    """A main part that was made, and for what."""

    making: threading.Lock = field(default_factory=threading.Lock)
    version: Any = None
    at: float = -1e9
    html: bytes = b""


class Shared:
    """Main parts of live pages, made once for all who ask for the same one within a second.

    While one is made anew, the others who ask get the one before, if it is but seconds old: the page's script asks
    again. What is another's alone is not in them: where a form says whose it is, the one who asks is put in.
    """

    MOST = 64

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._made: OrderedDict[Any, _Made] = OrderedDict()
        self._mark = secrets.token_urlsafe(24)

    def html(self, request: Request, version: Any, template: str, make: Callable[[], Mapping[str, Any]]) -> Response:
        """A page as `html` makes it, of the values that `make` gives where none is fresh.

        Args:
            request: asks for it.
            version: changes when what the page shows does.
            template: of the page.
            make: gives the template's values.
        """
        who = who_of(request)
        if request.headers.get(PART) != "main":
            return html(request, template, **make())
        kept = self._kept((id(request.app), template, str(request.url), who.role))
        age = time.monotonic() - kept.at
        if version != kept.version or age > SHARED_S:
            first = kept.making.acquire(blocking=age > STALE_S)
            try:
                if first and (version != kept.version or time.monotonic() - kept.at > SHARED_S):
                    kept.html = body(request, template, 200, {**make(), "csrf": self._mark})
                    kept.version, kept.at = version, time.monotonic()
            finally:
                if first:
                    kept.making.release()
        return answer(request, kept.html.replace(self._mark.encode(), who.csrf.encode()))

    def _kept(self, key: Any) -> _Made:
        with self._turn:
            found = self._made.setdefault(key, _Made())
            self._made.move_to_end(key)
            while len(self._made) > self.MOST:
                self._made.popitem(last=False)
            return found


shared = Shared()


def _context(request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
    """What every template may count on."""
    who = who_of(request)
    common = {"path": request.url.path, "events": "", "poll": 0, "who": who, "csrf": who.csrf}
    return {**common, **values}
