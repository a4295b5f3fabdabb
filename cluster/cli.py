"""The command line. What a command needs is imported inside it, so that help and checks answer at once.

Exit codes: 0 fine, 1 a fault of musweep's, 2 something the user can put right, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster import (
    commands_again,  # noqa: F401
    commands_keep,  # noqa: F401
    commands_queue,  # noqa: F401
    commands_render,  # noqa: F401
    commands_schedule,  # noqa: F401
    commands_see,  # noqa: F401
    commands_serve,  # noqa: F401
    commands_submit,  # its commands come with the import
)
from cluster.app import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER, Dir, Protocol, Set, Spec, app
from cluster.driving import drive_folder, drive_spec, holds, is_shipped, load, warn, write_report

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

_PATH_ERRORS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


@app.command()
def check(spec: Spec, set_: Set = None, protocol: Protocol = None) -> None:
    """Say whether a spec can be run, in each of its protocols; every mistake in one line."""
    from cluster.plan import summary
    from sweeps.spec import protocols

    names: list[str | None] = [protocol] if protocol else [*protocols(spec)] or [None]
    for name in names:
        checked = load(spec, set_, name)
        print(f"ok: {spec}{f' --protocol {name}' if name else ''}: {summary(checked)}")
        warn(checked)


@app.command()
def schema() -> None:
    """Print the JSON Schema of specs, for editors."""
    import json

    from sweeps.spec import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command()
def plan(spec: Spec, set_: Set = None, protocol: Protocol = None) -> None:
    """Show what a sweep would do, and about how long, after a short measurement on this machine."""
    from cluster.plan import make, show
    from cluster.show import console

    checked = load(spec, set_, protocol)
    with console(stderr=True).status("loading data and measuring engines"):
        made = make(checked)
    show(checked, made, console())


@app.command()
def run(
    what: Annotated[Path, typer.Argument(metavar="SPEC|DIR", help="A spec to run, or a sweep's folder.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The folder to make.")] = None,
    set_: Set = None,
    protocol: Protocol = None,
    more: Annotated[int, typer.Option("--more", metavar="N", min=0, help="Add N trials to a sweep (needs DIR).")] = 0,
) -> None:
    """Run a sweep here, showing its progress; with a folder, go on with it or extend it."""
    from cluster.folders import UserError

    if not what.is_dir() and (what.suffix in (".yaml", ".yml") or what.is_file() or is_shipped(what)):
        if more:
            raise UserError(f"--more extends a sweep: give its folder instead of {what}")
        checked = load(what, set_, protocol)
        warn(checked)
        if out is not None and holds(out, checked):
            print(f"going on with {out}")
            return drive_folder(out, 0)

        return drive_spec(checked, out)
    if set_ or out or protocol:
        wrong = "its spec is settled, so --set, --protocol and --out cannot be used"
        raise UserError(f"{what} is a sweep's folder: {wrong}")
    return drive_folder(what, more)


@app.command()
def resume(folder: Dir, to: commands_submit.To = None) -> None:
    """Go on with a sweep after any kind of end; a finished one has its tables and report renewed."""
    from cluster.folders import is_sweep
    from cluster.submitted import recall

    if to is not None or (not is_sweep(folder) and recall(str(folder)) is not None):
        commands_submit.resume_submitted(str(folder), to)
    else:
        drive_folder(folder, 0)


@app.command()
def fork(
    folder: Dir,
    trial: Annotated[str, typer.Option("--trial", metavar="TRIAL", help="12, t00012 or best.")] = "best",
    at: Annotated[
        int | None, typer.Option("--at", metavar="UPDATE", min=1, help="Of a kept state; else the end.")
    ] = None,
    updates: Annotated[
        int | None, typer.Option("--updates", metavar="N", min=1, help="Train N more; else to the trial's end.")
    ] = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The folder to make.")] = None,
) -> None:
    """Go on from a trial's stored state in other ways, as in --set tail_updates=[0,200]; a sweep of its own."""
    from cluster import folders
    from sweeps.folder import read_spec_file
    from sweeps.forks import spec_of

    read = folders.read(folder)
    chosen = folders.trial(read, trial)
    start = chosen.updates if at is None else at
    spec = spec_of(read.path, read_spec_file(read.path), chosen, start, updates, set_ or ())

    drive_spec(spec, out)


@app.command()
def ls(
    root: Annotated[Path, typer.Argument(metavar="[ROOT]", help="A folder of sweeps.")] = Path("runs"),
    remote: Annotated[str | None, typer.Option("--remote", metavar="TARGET", help="Those sent there.")] = None,
) -> None:
    """List the sweeps of a folder, or those that were sent to a target, newest first."""
    from cluster.show import console, listing

    if remote is not None:
        commands_submit.list_remote(remote)
        return
    made = listing(root)
    if made is None:
        print(f"no sweeps in {root}/ yet; start one with: musweep run SPEC")
    else:
        console().print(made)


@app.command()
def show(
    folder: Dir, trial: Annotated[str | None, typer.Argument(metavar="[TRIAL]", help="12 or t00012.")] = None
) -> None:
    """Show a sweep: its best trials, parameters and rungs; or one trial: why it ended, its curve."""
    from cluster import folders
    from cluster.show import console, show_sweep, show_trial

    read = folders.read(folder)
    if trial is None:
        show_sweep(read, console())
    else:
        show_trial(read, folders.trial(read, trial), console())


@app.command()
def export(
    folder: Dir,
    format_: Annotated[str | None, typer.Option("--format", metavar="parquet|csv", help="Trials and rows.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="TRIAL", help="State_dict of 12, t00012 or best.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Where to write.")] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="URL|file", help="An Optuna study: a database, or study.db there.")
    ] = None,
) -> None:
    """Write a sweep's tables, a trial's trained model as a state_dict, or all of it as an Optuna study."""
    from cluster.export import export_model, export_tables
    from cluster.folders import UserError

    if sum(each is not None for each in (format_, model, study)) != 1:
        raise UserError("export: give --format parquet, --format csv, --model TRIAL or --study URL")
    if study is not None:
        from cluster.keeping import export_study

        export_study(folder, study)
        return
    written = export_tables(folder, format_, out) if format_ is not None else export_model(folder, model or "", out)
    for path in written:
        print(path)


@app.command()
def report(folder: Dir, open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False) -> None:
    """Write a sweep's report.html anew."""
    from cluster.folders import find

    path = write_report(find(folder))
    print(path)
    if open_:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="One sweep, or several.")],
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="hf|published|DIR", help="Else what the spec says."),
    ] = None,
    match: Annotated[
        str | None, typer.Option("--match", metavar="work|wall", help="What sweeps must have spent alike.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print comparison.json instead of tables.")] = False,
) -> None:
    """Hold a sweep's confirmed points against HF, printed tables or other sweeps: who is better, and how surely."""
    from cluster import compare as work
    from cluster.show import console

    found = work.run(folders, against, match)
    if json_:
        print(work.as_json(found))
    else:
        work.show(found, console(), against)
    if len(folders) > 1 and not (found.contrasts or found.profile):
        raise typer.Exit(EXIT_USER)


@app.command()
def confirm(
    folder: Dir,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many of the best points.")] = 3,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Fresh replicates of each.")] = 10,
    hf: Annotated[bool, typer.Option("--hf", help="Search and confirm HF as well.")] = False,
) -> None:
    """Train a sweep's best points again on fresh seeds, so that it can be compared."""
    from cluster.compare import add_confirm

    drive_folder(add_confirm(folder, top, seeds, hf), 0)


@app.command()
def sync(folder: Dir) -> None:
    """Rebuild everything that is derived from a sweep's journal: tables, report, MLflow."""
    from cluster.export import rebuild

    for line in rebuild(folder, write_report):
        print(line)


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Experiments, or how their names begin; none: all.")
    ] = None,
    protocol: Annotated[str, typer.Option("--protocol", metavar="full|reduced", help="The papers', or two cores'.")] = (
        "reduced"
    ),
    again: Annotated[bool, typer.Option("--again", help="Measure again what is stored already.")] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Run nothing: only write the page from what is stored.")
    ] = False,
    set_: Set = None,
) -> None:
    """Run the papers' experiments, store what came of them, and write REPRODUCTION.md from what is stored."""
    from cluster import reproduce as work

    def drive(spec: SweepSpec, folder: Path) -> Path:
        if holds(folder, spec):
            drive_folder(folder, 0)
        else:
            drive_spec(spec, folder)
        return folder

    wanted = [] if write else work.chosen(names or ())
    if len(wanted) > 1:
        print(f"{len(wanted)} experiments: {', '.join(experiment.name for experiment in wanted)}")
    for experiment in wanted:
        path = work.result_path(work.RESULTS, experiment, protocol)
        if again or not path.exists():
            print(f"{experiment.name}: {experiment.title}, {protocol} protocol")
            print(f"stored: {work.run(experiment, protocol, work.RESULTS, drive, set_ or ())}")
    print(f"written: {work.write_page(work.RESULTS, work.PAGE)}, {work.write_pictures(work.RESULTS, work.PICTURES)}")


def _hint(error: BaseException) -> list[str] | None:
    """The lines for an error that the user can put right, None for a fault of ours."""
    from cluster.folders import UserError
    from cluster.launch import LaunchError
    from sweeps.connect import Unplaceable
    from sweeps.errors import SpecError
    from sweeps.journal import JournalError, PassingError
    from sweeps.lease import LeaseHeld, StaleWriter
    from sweeps.places import PlaceError
    from trainers.tasks.options import TaskError

    if isinstance(error, SpecError):
        return error.lines
    if isinstance(error, UserError):
        return list(getattr(error, "lines", ())) or [str(error)]
    if isinstance(error, LaunchError | Unplaceable | JournalError | LeaseHeld | TaskError):
        return [str(error)]
    if isinstance(error, (*_PATH_ERRORS, PassingError, PlaceError, StaleWriter)):
        return [str(error)]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return [f"{error}; make room, then give the same command again"]
    if hasattr(error, "format_message"):  # typer's own: a missing argument, an unknown option
        return [f"{error.format_message()} (see musweep --help)"]
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code: Any = app(list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAULT
    except Exception as error:
        lines = _hint(error)
        if lines is None:
            raise
        for words in lines:
            print(f"error: {' '.join(words.split())}", file=sys.stderr)
        return EXIT_USER


if __name__ == "__main__":
    sys.exit(main())
