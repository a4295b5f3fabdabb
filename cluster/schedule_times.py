"""When a cron expression is due, by the clock of a zone: pure functions of moments.

Moments are seconds since 1970, which no change of clocks touches. Where a zone's clock is changed, an expression that
names its hour and minute (`30 2 * * *`) is due once: at the first moment after an hour that is skipped, at the first of
two that are alike. One that begins its minute or hour with a star (`*/20 * * * *`) goes by the wall: what is skipped is
not due, what comes twice is due twice. So it is in Debian's cron, whose rules cronsim keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from cluster.folders import UserError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_BEFORE_S = 26 * 3600.0
"""Longer than any zone's clock was ever put forward at once: from so long before nothing that was put off is missed."""
_EXAMPLE = '"30 2 * * *" is every night at half past two'


def check(cron: str, zone: str) -> None:
    """Refuse what is no cron expression of five fields, never due, or no zone.

    Raises:
        UserError: in one line, with what is legal.
    """
    from cronsim import CronSimError

    _zone(zone)
    if len(cron.split()) != 5:
        raise UserError(
            f'cron "{cron}": {len(cron.split())} fields; legal: minute, hour, day, month, day of the week; {_EXAMPLE}'
        )
    try:
        next(due(cron, zone, datetime.now(UTC).timestamp()))
    except CronSimError as error:
        where = str(error).removeprefix("Bad ")
        raise UserError(
            f'cron "{cron}": {where} is not legal: numbers, *, ranges, lists and steps; {_EXAMPLE}'
        ) from None
    except StopIteration:
        raise UserError(f'cron "{cron}": no such day comes in the next fifty years; {_EXAMPLE}') from None


def due(cron: str, zone: str, after: float) -> Iterator[float]:
    """The moments after a given one at which an expression is due, in order, each once, without end.

    Args:
        cron: five fields.
        zone: of the IANA database, as Europe/London.
        after: seconds since 1970; not itself among the answers.
    """
    from cronsim import CronSim

    clock = _zone(zone)
    named = not any(field.startswith("*") for field in cron.split()[:2])
    last = after
    start = after - _BEFORE_S if named else after
    for found in CronSim(cron, datetime.fromtimestamp(start, UTC).astimezone(clock)):
        moment = found.timestamp()
        if moment <= last:  # of two that are put off to the same moment one is due
            continue
        if not named and datetime.fromtimestamp(moment, clock).replace(fold=0) != found.replace(fold=0):
            continue  # a midnight that was skipped
        last = moment
        yield moment


def between(cron: str, zone: str, after: float, until: float) -> Iterator[float]:
    """The moments at which an expression is due after one moment and up to another, that one included."""
    for moment in due(cron, zone, after):
        if moment > until:
            return
        yield moment


def delay(name: str, moment: float, jitter_s: float) -> float:
    """How long a schedule's firing is put off, from 0 to `jitter_s`: the same whoever asks, other for each firing."""
    drawn = int.from_bytes(hashlib.sha256(f"{name} {moment:.0f}".encode()).digest()[:8], "big")
    return jitter_s * drawn / 2**64


def shown(moment: float, zone: str) -> str:
    """A moment by a zone's clock, as `Sat 2026-11-21 02:30 GMT`."""
    return datetime.fromtimestamp(moment, _zone(zone)).strftime("%a %Y-%m-%d %H:%M %Z")


def words(cron: str) -> str:
    """What an expression means, in English."""
    from cronsim import CronSim

    return str(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)).explain())


@cache
def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, available_timezones

    from sweeps.errors import nearest

    if name not in available_timezones():
        near = nearest(name, available_timezones()) or "Europe/London"
        raise UserError(f"time zone {name!r}: no such zone; legal: those of the IANA database, as {near}")
    return ZoneInfo(name)
