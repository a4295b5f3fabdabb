"""`musweep render`: what a place would be given, as text to look at, to keep or to apply by hand."""

from __future__ import annotations

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
