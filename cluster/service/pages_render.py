"""How pages become HTML: templates, the words and signs of states, static files by their hash."""

from __future__ import annotations

import hashlib
import mimetypes
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import text
from dashboards import view

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import Response
    from jinja2 import Environment

HERE = Path(__file__).parent
PART = "x-part"
"""The header by which a page's script asks for its main part alone."""
YEAR_S = 365 * 86_400

SIGNS: dict[str, tuple[str, str]] = {
    "running": ("▶", "running"), "starting": ("▷", "running"), "stopping": ("■", "stopping"),
    "finished": ("✓", "finished"), "complete": ("✓", "complete"), "interrupted": ("■", "interrupted"),
    "stopped": ("■", "stopped"), "out of budget": ("■", "wait"), "cut off": ("✗", "lost"), "failed": ("✗", "failed"),
    "unreadable": ("✗", "lost"), "diverged": ("✗", "diverged"), "skipped": ("○", "skipped"), "queued": ("·", "queued"),
    "held": ("‖", "held"), "paused": ("‖", "paused"), "ok": ("✓", "ok"), "better": ("▲", "better"),
    "worse": ("▼", "worse"), "broken": ("✗", "broken"), "equivalent": ("=", "equivalent"),
    "not distinguishable": ("≈", "open"), "no verdict": ("?", "open"), "missed": ("✗", "bad"), "none": ("○", "none"),
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
        "num": view.number, "val": text.value, "span": text.span, "utc": utc, "ago": ago, "count": lambda n: f"{n:,}",
        "spoken": lambda name: name.replace("_", " "),
    }  # fmt: skip
    made.globals |= {"sign": sign, "static": static, "setting": view.text}
    return made


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
    from fastapi.responses import Response

    found = environment().get_template(template)
    if request.headers.get(PART) == "main" and status == 200:
        context = found.new_context(_context(request, values))
        body = "".join(found.blocks["main"](context)).encode()
    else:
        body = found.render(_context(request, values)).encode()
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "X-Part, Cookie"}
    headers["Referrer-Policy"] = "same-origin"  # with no-referrer, browsers say that forms come from nowhere
    if status == 200 and request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, "text/html; charset=utf-8")


def _context(request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
    """What every template may count on."""
    from cluster.service.access import NOBODY

    who = getattr(request.state, "who", NOBODY)
    common = {"path": request.url.path, "events": "", "who": who, "csrf": who.csrf}
    return {**common, **values}
