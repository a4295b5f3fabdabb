"""Commands that have a sweep do something again: retry."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.app import Dir, app


@app.command()
def retry(
    folder: Dir,
    failed: Annotated[bool, typer.Option("--failed", help="All trials that failed, whatever the reason.")] = False,
    lost: Annotated[
        bool, typer.Option("--lost", help="Those that failed with their worker, not by their code.")
    ] = False,
    trial: Annotated[
        list[str] | None, typer.Option("--trial", metavar="TRIAL", help="12 or t00012; repeatable.")
    ] = None,
) -> None:
    """Run failed trials again, each from its newest checkpoint or its start, and go on with the sweep."""
    from cluster import folders
    from cluster.driving import drive_folder
    from sweeps.retry import NotFailedError
    from sweeps.retry import retry as note

    found = folders.find(folder)
    if not (failed or lost or trial):
        raise folders.UserError("retry: say which: --failed, --lost or --trial TRIAL")
    try:
        numbers = note(found, [folders.trial_number(typed) for typed in trial or ()], lost and not failed)
    except NotFailedError as error:
        raise folders.UserError(f"{found}: {error}") from None
    few = ", ".join(f"t{number:05d}" for number in numbers[:5]) + (", ..." if len(numbers) > 5 else "")
    print(f"{len(numbers)} failed trial{'s' if len(numbers) > 1 else ''} to run again: {few}")
    drive_folder(found, 0)
