"""Commands that keep sweeps healthy and tidy: doctor, rm, gc, keep, reap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.app import Dir, app

Root = Annotated[Path, typer.Argument(metavar="[ROOT]", help="A folder of sweeps.")]


@app.command()
def reap(
    root: Root = Path("runs"),
    mlflow: Annotated[str | None, typer.Option("--mlflow", metavar="URI", help="One more MLflow to look at.")] = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="Wait until sweeps without a folder here are surely dead; end them, too.")
    ] = False,
) -> None:
    """End what dead drivers left RUNNING in MLflow and in exported Optuna studies."""
    from cluster.keeping import show_reaped

    show_reaped(root, mlflow, gone)


@app.command()
def rm(
    sweeps: Annotated[list[Path], typer.Argument(metavar="SWEEP...", help="Folders, or names under runs/.")],
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Delete their MLflow runs, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if a folder holds files that are not musweep's.")
    ] = False,
) -> None:
    """Remove sweeps for good: their folders, and with --mlflow their runs."""
    from cluster.keeping import remove_sweeps

    remove_sweeps(sweeps, mlflow, yes, force)


@app.command()
def gc(
    root: Root = Path("runs"),
    days: Annotated[float | None, typer.Option("--days", metavar="N", min=0, help="Younger sweeps stay.")] = None,
    sweeps: Annotated[int | None, typer.Option("--sweeps", metavar="N", min=0, help="Last N of a name stay.")] = None,
    models: Annotated[
        int | None, typer.Option("--models", metavar="N", min=0, help="Models of the best N stay.")
    ] = None,
    rules: Annotated[Path | None, typer.Option("--rules", metavar="FILE", help="Else retention.yaml, if any.")] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Delete MLflow runs of removed sweeps, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; else it is only shown.")] = False,
) -> None:
    """Tidy a folder of sweeps by a rule: which sweeps go, and what finished ones may lose."""
    from cluster.keeping import collect

    collect(root, {"days": days, "sweeps": sweeps}, models, rules, mlflow, yes)


@app.command()
def keep(folder: Dir, drop: Annotated[bool, typer.Option("--drop", help="Let rules remove it again.")] = False) -> None:
    """Keep a sweep whatever the rules of `musweep gc` say."""
    from cluster.folders import find
    from cluster.retention import KEEP

    found = find(folder)
    if drop:
        (found / KEEP).unlink(missing_ok=True)
    else:
        (found / KEEP).touch()
    print(f"{found}: rules {'may remove it' if drop else 'never remove it'}")


@app.command()
def doctor(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A sweep's folder; none: this machine.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be; needs DIR.")] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="With --repair: give up what is damaged, keep the rest.")
    ] = False,
) -> None:
    """Look at this machine, or say whether a sweep's folder is consistent and repair it."""
    from cluster.keeping import show_folder, show_machine

    if folder is None:
        show_machine(repair or salvage)
    else:
        show_folder(folder, repair, salvage)
