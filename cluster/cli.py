"""The command line. What a command needs is imported inside it, so that help and checks answer at once.

Exit codes: 0 fine, 1 a fault of musweep's, 2 something the user can put right, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cluster.live import Status
    from sweeps.spec import SweepSpec

EXIT_USER, EXIT_FAULT, EXIT_INTERRUPTED = 2, 1, 130
_PATH_ERRORS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)

app = typer.Typer(
    name="musweep",
    help="Sweeps over momentum, learning rate, initialization and depth: run them, look at them, keep them.",
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a fault of ours is shown as Python shows it, for a bug report
    context_settings={"help_option_names": ["-h", "--help"]},
)

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="A sweep's YAML file, or the name of a shipped one.")]
Dir = Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder, its name under runs/, or `latest`.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as in space.lr.high=0.5; repeatable.")
]

Protocol = Annotated[
    str | None, typer.Option("--protocol", metavar="NAME", help="A protocol of the spec, such as reduced; else full.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"musweep {version('musweep')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def check(spec: Spec, set_: Set = None, protocol: Protocol = None) -> None:
    """Say whether a spec can be run, in each of its protocols; every mistake in one line."""
    from cluster.plan import summary
    from sweeps.spec import protocols

    names: list[str | None] = [protocol] if protocol else [*protocols(spec)] or [None]
    for name in names:
        checked = _load(spec, set_, name)
        print(f"ok: {spec}{f' --protocol {name}' if name else ''}: {summary(checked)}")
        _warn(checked)


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

    checked = _load(spec, set_, protocol)
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

    if not what.is_dir() and (what.suffix in (".yaml", ".yml") or what.is_file() or _is_shipped(what)):
        if more:
            raise UserError(f"--more extends a sweep: give its folder instead of {what}")
        checked = _load(what, set_, protocol)
        _warn(checked)
        if out is not None and _holds(out, checked):
            print(f"going on with {out}")
            return _drive_folder(out, 0)

        return _drive_spec(checked, out)
    if set_ or out or protocol:
        wrong = "its spec is settled, so --set, --protocol and --out cannot be used"
        raise UserError(f"{what} is a sweep's folder: {wrong}")
    return _drive_folder(what, more)


@app.command()
def resume(folder: Dir) -> None:
    """Go on with a sweep after any kind of end; a finished one has its tables and report renewed."""
    _drive_folder(folder, 0)


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

    _drive_spec(spec, out)


@app.command()
def ls(root: Annotated[Path, typer.Argument(metavar="[ROOT]", help="A folder of sweeps.")] = Path("runs")) -> None:
    """List the sweeps of a folder, newest first."""
    from cluster.show import console, listing

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
) -> None:
    """Write a sweep's tables, or a trial's trained model as a state_dict of ordinary PyTorch modules."""
    from cluster.export import export_model, export_tables
    from cluster.folders import UserError

    if (format_ is None) == (model is None):
        raise UserError("export: give --format parquet, --format csv or --model TRIAL")
    written = export_tables(folder, format_, out) if format_ is not None else export_model(folder, model or "", out)
    for path in written:
        print(path)


@app.command()
def report(folder: Dir, open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False) -> None:
    """Write a sweep's report.html anew."""
    from cluster.folders import find

    path = _report(find(folder))
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

    _drive_folder(add_confirm(folder, top, seeds, hf), 0)


@app.command()
def sync(folder: Dir) -> None:
    """Rebuild everything that is derived from a sweep's journal: tables, report, MLflow."""
    from cluster.export import rebuild

    for line in rebuild(folder, _report):
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
        if _holds(folder, spec):
            _drive_folder(folder, 0)
        else:
            _drive_spec(spec, folder)
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


@app.command()
def doctor() -> None:
    """Look at this machine: versions, cores, memory, GPUs, Ray, MLflow, disk, data."""
    from cluster.doctor import examine, table
    from cluster.show import console

    with console(stderr=True).status("looking at this machine"):
        findings = examine()
    console().print(table(findings))


def _load(path: Path, overrides: Sequence[str] | None, protocol: str | None = None) -> SweepSpec:
    from sweeps.spec import load

    return load(path, list(overrides or ()), protocol)


def _is_shipped(name: Path) -> bool:
    from sweeps.spec import shipped

    return str(name) in shipped()


def _warn(spec: SweepSpec) -> None:
    from cluster.plan import warnings

    for line in warnings(spec):
        print(f"warning: {line}", file=sys.stderr)


def _holds(folder: Path, spec: SweepSpec) -> bool:
    """Whether a folder holds a sweep of this very spec, so that the command that was killed can be given again.

    Raises:
        UserError: it holds a sweep of another spec.
    """
    from cluster.folders import UserError, is_sweep
    from sweeps.folder import read_spec

    if not is_sweep(folder):
        return False
    if read_spec(folder) != spec:
        raise UserError(f"{folder} holds a sweep of another spec: choose another --out, or `musweep resume {folder}`")
    return True


def _report(folder: Path) -> Path:
    from dashboards.report import write

    return write(folder)


def _drive_spec(spec: SweepSpec, out: Path | None) -> None:
    """Run a new sweep."""

    def start(show: Callable[[Status], None]) -> Path:
        from sweeps.run import run as run_sweep

        return run_sweep(spec, out, on_status=show, report=_report)

    _drive(start)


def _drive_folder(typed: Path, more: int) -> None:
    """Resume or extend the sweep of a folder."""
    from cluster.folders import find

    folder = find(typed)

    def go_on(show: Callable[[Status], None]) -> Path:
        from sweeps.run import extend
        from sweeps.run import resume as resume_sweep

        if more:
            return extend(folder, more, on_status=show, report=_report)
        return resume_sweep(folder, on_status=show, report=_report)

    _drive(go_on)


def _drive(work: Callable[[Callable[[Status], None]], Path]) -> None:
    """Do the work under a progress display, then say what came of it and where it lies."""
    from cluster.live import progress
    from cluster.show import console, show_end
    from sweeps.run import Interrupted, SweepFailed

    out, place = console(), ""

    def show(status: Status) -> None:
        nonlocal place
        place = status.get("folder", place)
        shown(status)

    try:
        with progress(out) as shown:
            folder = work(show)
    except (Interrupted, KeyboardInterrupt) as stopped:
        again = f"; resume with: musweep resume {getattr(stopped, 'folder', place)}" if place else ""
        print(f"interrupted{again}", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except SweepFailed as failed:
        print(f"error: the sweep failed: {failed}", file=sys.stderr)
        raise typer.Exit(EXIT_FAULT) from None
    if not show_end(folder, out):
        print("error: every trial failed; the reasons are above", file=sys.stderr)
        raise typer.Exit(EXIT_USER)


def _hint(error: BaseException) -> list[str] | None:
    """The lines for an error that the user can put right, None for a fault of ours."""
    from cluster.folders import UserError
    from sweeps.errors import SpecError
    from sweeps.journal import JournalError
    from sweeps.lease import LeaseHeld
    from trainers.tasks.options import TaskError

    if isinstance(error, SpecError):
        return error.lines
    if isinstance(error, UserError | JournalError | LeaseHeld | TaskError):
        return [str(error)]
    if isinstance(error, _PATH_ERRORS):
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
