"""Messages to people, through apprise: chat, mail, webhooks. Addresses carry secrets, and are kept elsewhere."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.launch import LaunchError
from sweeps.tracked import redact

_TYPES = {"worse": "failure", "broken": "failure", "missed": "warning", "late": "warning"}


class NotifyError(Exception):
    """A message that did not arrive; one line without any secret."""


def send(
    references: Sequence[str], title: str, body: str, result: str = "", picture: bytes | None = None
) -> list[str]:  # fmt: skip
    """Send a message to every address.

    Args:
        references: `env:NAME` or `file:PATH`, each of which holds a URL of apprise.
        title: in a few words.
        body: plain text.
        result: what it is about, for the colour or sign that a channel may have.
        picture: a PNG that goes with it where the channel takes one.

    Returns:
        What went wrong, a line for each address that the message did not reach; empty if it reached all.
    """
    failed = []
    for reference in references:
        try:
            _send(reference, title, body, result, picture)
        except (LaunchError, NotifyError) as error:
            failed.append(str(error))
    return failed


def _send(reference: str, title: str, body: str, result: str, picture: bytes | None) -> None:
    import apprise

    url = address(reference)
    channel = apprise.Apprise()
    if not channel.add(url):
        raise NotifyError(f"notify {reference}: what it holds is no URL of apprise, as slack://... or json://host/path")
    kind = _TYPES.get(result, "success" if result in ("ok", "better") else "info")
    with tempfile.TemporaryDirectory(prefix="musweep-") as folder:
        attached = None
        if picture is not None:
            path = Path(folder) / "nights.png"
            path.write_bytes(picture)
            attached = str(path)
        with apprise.LogCapture(level=logging.WARNING) as said:  # type: ignore[no-untyped-call]
            arrived = channel.notify(title=title, body=body, notify_type=kind, attach=attached)
            words = " ".join(said.getvalue().split())
    if not arrived:
        shown = redact(words.replace(url, "...") or "the channel refused it")
        raise NotifyError(f"notify {reference}: {shown[:300]}")


def ping(reference: str) -> None:
    """Ask for a URL, as those who watch for silence want it.

    Raises:
        NotifyError: it did not answer, or not with success.
        LaunchError: the URL is not where it is said to be.
    """
    import requests

    url = address(reference)
    try:
        answer = requests.get(url, timeout=10)
    except requests.RequestException as error:
        raise NotifyError(f"ping {reference}: {type(error).__name__}") from None
    if not answer.ok:
        raise NotifyError(f"ping {reference}: answered {answer.status_code}")


def address(reference: str) -> str:
    """The URL that a reference holds.

    Raises:
        LaunchError: it is not there.
    """
    from cluster.targets import read_reference

    return read_reference(reference, f"notify {reference}")
