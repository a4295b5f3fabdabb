"""Where sweeps lie: in folders, or under URLs with a working folder on this machine. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

SCHEMES = ("s3", "gs", "abfs", "abfss", "hdfs", "file")
S3_OPTIONS = ("endpoint_override", "region", "scheme")
_SECRET = re.compile(r"key|secret|token|password|credential|signature|^sig$|^user$", re.IGNORECASE)
_FILE = "remote.json"


class PlaceError(ValueError):
    """A place that cannot be used as it is named, in one line."""


def url_of(typed: str | Path) -> str | None:
    """The URL that a text or a Path, which has lost a slash of it, means; None for a folder."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)$", str(typed))
    if match is None:
        return None
    scheme, rest = match[1].lower(), match[2]
    return f"{scheme}://{'/' if scheme == 'file' else ''}{rest.rstrip('/')}"


def wrong_with(url: str) -> tuple[str, str] | None:
    """Why a URL cannot be used, and what can; None if nothing is wrong so far as can be said without trying."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        return f"no storage of kind {parts.scheme}://", f"a folder, or {', '.join(f'{s}://' for s in SCHEMES)}"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if (parts.password is not None) or any(_SECRET.search(name) for name in options):
        return "a secret does not belong in a URL", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if parts.scheme == "s3" and not parts.netloc:
        return "no bucket", "s3://BUCKET/PREFIX"
    unknown = [name for name in options if parts.scheme == "s3" and name not in S3_OPTIONS]
    if unknown:
        return f"unknown option {unknown[0]}", ", ".join(S3_OPTIONS)
    return None


def shown(text: str) -> str:
    """A text without what may be a secret in the URLs in it."""
    text = re.sub(r"(://[^:/@\s]*):[^/\s]*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&;][^=&\s]*(?:key|secret|token|password|sig)[^=&\s]*)=[^&\s]+", r"\1=***", text)


def under(url: str, name: str) -> str:
    """The URL of something below another."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def parent(url: str) -> tuple[str, str]:
    """The URL above, and the last name."""
    parts = urlsplit(url)
    above, _, name = parts.path.rstrip("/").rpartition("/")
    return urlunsplit(parts._replace(path=above)), name


def scratch() -> Path:
    """Where this machine keeps working folders of sweeps that lie elsewhere."""
    named = os.environ.get("MUSWEEP_SCRATCH")
    return Path(named) if named else Path.home() / ".cache" / "musweep" / "sweeps"


def working(url: str) -> Path:
    """This machine's working folder of the sweep at a URL; sweeps of one name at two places have two."""
    _, name = parent(url)
    return scratch() / hashlib.sha256(url.encode()).hexdigest()[:8] / name


def mark(folder: Path, url: str) -> None:
    """Note in a working folder where the sweep lies."""
    folder.mkdir(parents=True, exist_ok=True)
    if remote_of(folder) != url:
        temporary = folder / f".{_FILE}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps({"url": url}))
        temporary.replace(folder / _FILE)


def remote_of(folder: Path) -> str | None:
    """Where the sweep of a working folder lies; None if the folder is the sweep."""
    try:
        return str(json.loads((folder / _FILE).read_bytes())["url"])
    except FileNotFoundError:
        return None
