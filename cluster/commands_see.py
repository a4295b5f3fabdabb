"""Commands that watch sweeps: events, logs, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from cluster.app import Dir, app

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the sweep ends.")]


@app.command()
def events(
    folder: Dir,
    follow: Follow = False,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Only these, such as end or trouble; repeatable.")
    ] = None,
) -> None:
    """Print what happened to a sweep, one JSON object a line, as it happens with -f."""
    from cluster.folders import find
    from cluster.logs import print_events

    print_events(find(folder), follow, types or ())


@app.command()
def logs(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep's folder or name, or its id on submission.")],
    trial: Annotated[str | None, typer.Argument(metavar="[TRIAL]", help="12, t00012 or best; else all.")] = None,
    follow: Follow = False,
    to: Annotated[str | None, typer.Option("--to", metavar="TARGET", help="Where it was submitted to.")] = None,
) -> None:
    """Show what a sweep's workers printed, or its driver if it was submitted, or what a trial printed as it trained."""
    from cluster.logs import print_lines, show
    from cluster.submitted import driver_log, recall

    def driver() -> Iterator[str]:
        return driver_log(str(sweep), to, follow)

    sent = to is not None or recall(str(sweep)) is not None
    print_lines(show(sweep, trial, follow, driver if sent else None), follow)


@app.command()
def metrics(
    root: Annotated[Path, typer.Argument(metavar="[ROOT]", help="A folder of sweeps.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", metavar="P", min=0, max=65535, help="0: any that is free.")] = 9464,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="To listen on; there is no password.")
    ] = "127.0.0.1",
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="URL", help="Of the queue to count; else queue.db in ROOT.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics once instead of serving them.")] = False,
) -> None:
    """Serve what all sweeps of a folder are doing to Prometheus; drivers need not know of it."""
    from cluster import metrics as work

    if once:
        print(work.text(root, queue), end="")
        return
    server, thread = work.serve(root, port, host, queue)
    print(f"metrics of {root}/ at http://{host}:{server.server_port}/metrics; Ctrl-C ends it", flush=True)
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()
