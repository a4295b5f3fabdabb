"""`musweep render`: what a place would be given, as text to look at, to keep or to apply by hand."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cluster.app import Protocol, Set, app
from cluster.driving import load


@app.command()
def render(
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="As `musweep clusters` lists them.")],
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC]", help="A sweep; none: the file for `ray up` of kind hosts.")
    ] = None,
    set_: Set = None,
    protocol: Protocol = None,
    cron: Annotated[
        str | None, typer.Option("--cron", metavar="EXPR", help="A CronJob that runs it anew each time (kind k8s).")
    ] = None,
    zone: Annotated[str, typer.Option("--zone", metavar="TZ", help="The clock that --cron is read by.")] = "Etc/UTC",
) -> None:
    """Print a batch script, manifests or the file for `ray up`; nothing is asked or sent."""
    from cluster import submitted, targets
    from cluster.folders import UserError
    from cluster.launch import job_of, launcher_of

    place = targets.target(to)
    if spec is None:
        if place.hosts is None:
            raise UserError(f"render --to {to}: name a spec; only kind hosts has something to show without one")
        from cluster.hosts import render as hosts

        print(hosts(place), end="")
        return
    if cron is not None and place.kind != "k8s":
        raise UserError(f"--cron: target {to} is of kind {place.kind}; CronJobs are for kind k8s")
    if cron is not None:
        _refuse_times(cron, zone)
    package, _ = submitted.render(load(spec, set_, protocol), place)
    with tempfile.TemporaryDirectory() as folder:
        zipped = Path(folder) / f"{package.id}.zip"
        package.write(zipped)
        if cron is None:
            print(launcher_of(place).render(job_of(place, package.id, zipped)), end="")
            return
        from cluster import k8s

        job = job_of(place, package.id, zipped, place.folder(package.id).rpartition("/")[0])
        print(k8s.text(k8s.cronjob(job, place, cron, zone)), end="")


_FIELDS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "day of the week": (0, 7)}
_NAMES = "jan feb mar apr may jun jul aug sep oct nov dec", "sun mon tue wed thu fri sat"
_PART = re.compile(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?")


def _refuse_times(cron: str, zone: str) -> None:
    """Refuse times that Kubernetes would.

    Raises:
        UserError: they are no times, or there is no such zone.
    """
    from zoneinfo import available_timezones

    from cluster.folders import UserError
    from sweeps.errors import nearest

    fields = cron.split()
    if len(fields) != len(_FIELDS):
        raise UserError(f'--cron "{cron}": {len(fields)} fields; legal: {", ".join(_FIELDS)}, as in "30 2 * * *"')
    for (name, (low, high)), field in zip(_FIELDS.items(), fields, strict=True):
        for part in field.split(","):
            found = _PART.fullmatch(part)
            ends = [_number(name, end) for end in found.groups()[:2] if end] if found else []
            if not found or not all(low <= end <= high for end in ends) or ends != sorted(ends):
                raise UserError(f'--cron "{cron}": {name} {part}; legal: {low} to {high}, *, ranges, lists and steps')
    if zone not in available_timezones():
        raise UserError(f"--zone {zone}: no such time zone; {nearest(zone, available_timezones()) or 'Etc/UTC'} is one")


def _number(field: str, word: str) -> int:
    """The number that a word of a field stands for, -1 if none."""
    names = {"month": _NAMES[0], "day of the week": _NAMES[1]}.get(field, "").split()
    if word.lower() in names:
        return names.index(word.lower()) + (field == "month")
    return int(word) if word.isdecimal() else -1
