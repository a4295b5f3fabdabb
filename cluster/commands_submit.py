"""Commands for sweeps that run elsewhere: submit, status, stop, wait, clusters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.app import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER, Protocol, Set, Spec, app
from cluster.driving import load, warn

if TYPE_CHECKING:
    from cluster.launch import JobStatus
    from cluster.submitted import Submission
    from cluster.targets import Target

To = Annotated[str | None, typer.Option("--to", metavar="TARGET", help="Default: where it was last sent from here.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="A submitted sweep, as `musweep submit` called it.")]

EXITS = {"finished": 0, "failed": EXIT_FAULT, "stopped": EXIT_INTERRUPTED, "unknown": EXIT_USER}


@app.command()
def submit(
    spec: Spec,
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="As `musweep clusters` lists them.")],
    set_: Set = None,
    protocol: Protocol = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="To send; default: that of the spec's own code.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="A new sweep, though this spec is there already.")] = False,
    priority: Annotated[int, typer.Option("--priority", metavar="N", help="In a queue; higher goes first.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent.")] = False,
) -> None:
    """Send a sweep to a cluster; sending it twice is safe, and goes on with one that was stopped."""
    from cluster import submitted, targets

    place = targets.target(to)
    checked = load(spec, set_, protocol)
    warn(checked)
    if dry_run:
        package, job = submitted.render(checked, place, folder)
        _show_files(package.files, package.root, package.notes)
        print(f"{package.id} would lie in {place.folder(package.id)}; {place.kind} would get:")
        print(job)
        return
    shown: list[str] = []

    def tell(made: Submission) -> None:
        _tell(made)
        shown.append(made.id)

    first = tell if place.kind == "debug" else None  # whose driver runs before `submit` returns
    made = submitted.submit(checked, place, again=again, folder=folder, priority=priority, told=first)
    if not shown:
        _tell(made)
    if place.kind == "debug" and not made.there:
        ended = submitted.status(made.id, place)
        _end(ended)


def _tell(made: Submission) -> None:
    """Three lines: what has become of the sweep, what was sent and where it lies, how to follow."""
    from cluster.package import sized

    for note in [*made.package.notes, *filter(None, [made.note])]:
        print(f"note: {note}", file=sys.stderr)
    name, files = made.target.name, 1 + len(made.package.files)
    if made.there:
        why = f" ({made.before.why})" if made.before.why else ""
        print(f"{made.id} is there already: {made.before.state} on {name}{why}; --again starts a new one")
    else:
        done = "queued for" if made.queued else "submitted to"
        going = ", where it goes on" if made.before.state in ("stopped", "failed") else ""
        print(f"{made.id} {done} {name}{going}")
        root = f" from {made.package.root}" if made.package.root else ""
        print(
            f"sends {files} file{'s' if files > 1 else ''}, {sized(made.package.size)}{root}; it lies in {made.folder}"
        )
    print(f"follow it: musweep logs -f {made.id}   (or status, stop, resume, wait)", flush=True)


def _show_files(files: object, root: Path | None, notes: list[str]) -> None:
    """Every file that would be sent, with its size."""
    import json

    from cluster.package import SPEC, sized

    assert isinstance(files, dict)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"would be sent{f' from {root}' if root else ''}:")
    for name, path in sorted(files.items()):
        shown = name if name.isprintable() and " " not in name else json.dumps(name, ensure_ascii=False)
        print(f"  {shown}  {sized(path.stat().st_size)}")
    print(f"  {SPEC}  the resolved spec")


@app.command()
def status(id_: Id, to: To = None) -> None:
    """Say what has become of a submitted sweep, and how far it is."""
    from cluster import submitted

    place = submitted.found(id_, to)
    known = submitted.status(id_, place)
    print(_words(known, place))
    if known.state == "unknown":
        raise typer.Exit(EXIT_USER)


def _words(known: JobStatus, place: Target) -> str:
    again = ""
    if known.state == "failed" and "musweep resume" not in known.why:
        first = "put it right, then" if known.why.startswith(f"exit code {EXIT_USER}:") else "go on with it"
        again = f"{first}: musweep resume {known.id} --to {place.name}"
    parts = [part for part in (_progress(known, place), known.why, again) if part]
    return f"{known.id} on {place.name}: {known.state}{'; ' if parts else ''}{'; '.join(parts)}"


def _progress(known: JobStatus, place: Target) -> str:
    """How far a sweep is whose folder can be read from here."""
    from collections import Counter

    from cluster import folders
    from sweeps import telemetry

    folder = Path(place.folder(known.id))
    if "://" in place.folder(known.id) or not folders.is_sweep(folder):
        return ""
    try:
        read = folders.read(folder)
    except Exception:  # it is being made, or damaged, which its driver tells of
        return ""
    states = Counter(trial.state for trial in read.history.trials.values())
    ended = sum(states.values()) - states["running"]
    told = f"{ended} of {read.budget} trials ended, in {folder}"
    if known.state == "running":
        said = telemetry.load(folder)
        told = "; ".join([told, *(str(said[key]) for key in ("waiting", "trouble", "note") if said.get(key))])
    return told


@app.command()
def stop(id_: Id, to: To = None) -> None:
    """Have a submitted sweep leave cleanly, so that it can go on later."""
    from cluster import submitted

    place = submitted.found(id_, to)
    print(_words(submitted.stop(id_, place), place))


@app.command()
def wait(
    id_: Id,
    to: To = None,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="S", min=0, help="Give up after it.")] = None,
) -> None:
    """Wait for the end of a submitted sweep. Exit code 0 if it is finished, 1 if it failed, 130 if it was stopped."""
    from cluster import submitted
    from cluster.folders import UserError

    place = submitted.found(id_, to)
    try:
        ended = submitted.wait(id_, place, timeout, lambda known: print(_words(known, place), flush=True))
    except TimeoutError as error:
        raise UserError(str(error)) from None
    _end(ended)


def _end(ended: JobStatus) -> None:
    if code := EXITS.get(ended.state, 0):
        raise typer.Exit(code)


def resume_submitted(id_: str, to: str | None) -> None:
    """Go on with a submitted sweep; for `musweep resume ID --to TARGET`."""
    from cluster import submitted

    place = submitted.found(id_, to)
    print(_words(submitted.resume(id_, place), place))


def list_remote(to: str) -> None:
    """List the sweeps that a target knows; for `musweep ls --remote TARGET`."""
    from cluster import submitted, targets

    place = targets.target(to)
    found = submitted.listed(place)
    if not found:
        print(f"no sweeps on {to} yet; send one with: musweep submit SPEC --to {to}")
    width = max((len(known.id) for known in found), default=0)
    for known in found:
        print(f"{known.id:{width}}  {known.state:8}  {known.why}".rstrip())


clusters_app = typer.Typer(help="The places that sweeps can be sent to.", invoke_without_command=True)
app.add_typer(clusters_app, name="clusters")


@clusters_app.callback()
def clusters(context: typer.Context) -> None:
    """List the places that sweeps can be sent to; clusters.yaml says which there are."""
    from cluster import targets

    if context.invoked_subcommand is not None:
        return
    found = targets.load()
    width = max(map(len, found))
    for name, place in found.items():
        where = place.url if place.kind == "ray" else place.address or ""
        print(f"{name:{width}}  {place.kind:6}  {'  '.join(filter(None, [where, place.folder('')]))}".rstrip("/ "))


@clusters_app.command("check")
def clusters_check(target: Annotated[str, typer.Argument(metavar="TARGET", help="Its name.")]) -> None:
    """Say whether a target can be reached, and what answers there."""
    from cluster import targets
    from cluster.launch import launcher_of

    place = targets.target(target)
    print(f"ok: {target}: {launcher_of(place).check()}")


@app.command(hidden=True)
def drive(
    package: Annotated[Path | None, typer.Argument(metavar="[PACKAGE]")] = None,
    out: Annotated[str, typer.Option("--out", metavar="DIR|URL")] = "",
    secret: Annotated[list[str] | None, typer.Option("--secret", metavar="NAME=env:NAME|file:PATH")] = None,
) -> None:
    """Run what was submitted; for launchers, which may give it any number of times."""
    from cluster.folders import UserError
    from cluster.launched import drive as work

    if not out:
        raise UserError("drive: --out is missing")
    work(package, out, secret or ())
