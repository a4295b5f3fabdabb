"""What the commands that keep sweeps show on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cluster import text
from cluster.app import EXIT_USER
from cluster.show import console, table
from cluster.text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from cluster.reaper import Reaped
    from cluster.retention import Plan

_COLOURS = {"closed": "green", "running": "blue", "silent": "yellow", "failed": "red"}
_POLL_S = 5.0


def show_reaped(root: Path, uri: str | None, gone: bool) -> None:
    """Reap, and with `gone` go on until nothing silent is left."""
    from cluster import reaper
    from cluster.folders import UserError

    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the one that holds your sweeps")
    with console(stderr=True).status("asking MLflow what is RUNNING") as shown:
        found = reaper.reap(root, uri)
        began = time.monotonic()
        closed = [each for each in found if each.state == reaper.CLOSED]
        while gone and any(each.state == reaper.SILENT for each in found):
            left = reaper.SILENCE_S - (time.monotonic() - began)
            shown.update(f"watching what is silent, {max(0.0, left):.0f} s or more to go")
            time.sleep(_POLL_S)
            found = reaper.reap(root, uri)
            closed += [each for each in found if each.state == reaper.CLOSED]
            if left < -reaper.SILENCE_S:
                break
    shown_last = closed + [each for each in found if each.state != reaper.CLOSED]
    if not shown_last:
        print("nothing is RUNNING that should not be")
        return
    _print(shown_last)
    if not gone and any(each.state == reaper.SILENT for each in shown_last):
        print(f"silent ones may be dead: `musweep reap {root} --gone` watches them and ends those that are")


def _print(found: list[Reaped]) -> None:
    made = table("sweep", "state", "what", "where")
    for each in found:
        state = f"[{_COLOURS[each.state]}]{each.state}[/]"
        made.add_row(plain(each.what) or "-", state, plain(each.says), plain(each.place))
    console().print(made)


def remove_sweeps(typed: Sequence[Path], mlflow: bool, yes: bool, force: bool) -> None:
    """Remove sweeps: all are looked at first, so that a wrong name removes nothing."""
    from cluster import retention
    from cluster.folders import UserError, find
    from sweeps import lease

    found = list(dict.fromkeys(each if each.is_symlink() else find(each) for each in typed))
    for folder in found:
        retention.refuse(folder, force)
        if lease.held(folder):
            raise UserError(f"{folder}: a driver is running this sweep; stop it first")
    made = table("sweep", "state", "size", right=("size",))
    for folder in found:
        made.add_row(plain(str(folder)), retention.facts(folder).state, text.size(retention.size(folder)))
    out = console()
    out.print(made)
    runs = ", with its MLflow runs" if mlflow else ""
    if not yes and not _agrees(f"remove {text.plural(len(found), 'sweep')}{runs} for good?"):
        print("nothing was removed")
        return
    with _bar(out) as bar:
        for folder in found:
            deleted = retention.delete_runs(folder, bar(f"MLflow runs of {folder.name}")) if mlflow else 0
            retention.remove(folder, force)
            print(f"removed {folder}{f' and {deleted} MLflow runs' if deleted else ''}")
    if mlflow:
        print("MLflow hides deleted runs; `mlflow gc` frees their space")


def collect(
    root: Path, options: Mapping[str, Any], models: int | None, path: Path | None, mlflow: bool, yes: bool
) -> None:
    """Show what the rules would remove, and with `yes` do it."""
    from cluster import retention
    from cluster.folders import UserError

    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the one that holds your sweeps")
    rules, source = retention.load_rules(path, root)
    rules = rules.model_copy(update={name: value for name, value in options.items() if value is not None})
    if models is not None:
        thin = (rules.thin or retention.Thin()).model_copy(update={"models": models})
        rules = rules.model_copy(update={"thin": thin})
    given = [f"--{name} {value:g}" for name, value in {**options, "models": models}.items() if value is not None]
    if given:
        source = ("" if source.startswith("no ") else f"{source}, with ") + " ".join(given)
    out = console()
    with console(stderr=True).status("looking at the sweeps"):
        plan = retention.plan(root, rules)
    print(f"rules: {source}")
    if plan.steps:
        made = table("sweep", "what", "size", "why", right=("size",))
        for step in plan.steps:
            what = f"[red]{step.what}[/]" if step.whole else step.what
            made.add_row(plain(step.folder.name), what, text.size(step.size) if step.size else "-", plain(step.why))
        out.print(made)
    kept = Counter(plan.kept.values())
    if kept:
        print(f"kept: {'; '.join(f'{count} ({why})' for why, count in kept.most_common())}")
    if not plan.steps:
        print("nothing to remove")
        return
    if not yes:
        print(f"{text.size(plan.size)} would be freed; nothing was changed: --yes does it")
        return
    _carry_out(plan, mlflow, out)


def _carry_out(plan: Plan, mlflow: bool, out: Console) -> None:
    from cluster import retention
    from cluster.folders import UserError
    from sweeps.lease import LeaseHeld

    freed = 0
    with _bar(out) as bar:
        advance = bar("removing")
        for done, step in enumerate(plan.steps, 1):
            try:
                if step.whole and mlflow:
                    retention.delete_runs(step.folder, bar(f"MLflow runs of {step.folder.name}"))
                retention.carry_out(step)
            except (LeaseHeld, UserError) as refused:
                print(f"left alone: {refused}")
            else:
                freed += step.size
            advance(done, len(plan.steps))
    print(f"freed {text.size(freed)}")
    if mlflow:
        print("MLflow hides deleted runs; `mlflow gc` frees their space")


def _agrees(question: str) -> bool:
    """Ask on a terminal; where nobody can answer, the answer is no."""
    from cluster.folders import UserError

    if not sys.stdin.isatty():
        raise UserError(f"{question} there is nobody to ask here: give --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


@contextlib.contextmanager
def _bar(out: Console) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """A place for progress bars, gone at the end; a bar is shown from its first step on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=out, transient=True
    ) as all_:

        def bar(words: str) -> Callable[[int, int], None]:
            tasks: list[TaskID] = []

            def advance(done: int, of: int) -> None:
                if not tasks:
                    tasks.append(all_.add_task(plain(words), total=of))
                all_.update(tasks[0], completed=done, total=of)

            return advance

        yield bar


def show_machine(repair: bool) -> None:
    """What this machine has and lacks."""
    from cluster import doctor
    from cluster.folders import UserError

    if repair:
        raise UserError("--repair and --salvage are for a sweep: give its folder, as in musweep doctor DIR --repair")
    with console(stderr=True).status("looking at this machine"):
        findings = doctor.examine()
    console().print(doctor.table(findings))


def show_folder(typed: Path, repair: bool, salvage: bool) -> None:
    """Whether a sweep folder is consistent; exit code 2 if something is to be done."""
    from cluster import consistency, doctor
    from cluster.driving import write_report
    from cluster.folders import UserError, find

    folder = find(typed)
    if salvage and not repair:
        raise UserError("--salvage gives something up, so it goes with --repair only")
    if repair:
        with console(stderr=True).status(f"repairing {plain(str(folder))}"):
            done = list(consistency.repair(folder, write_report, salvage))
        for line in done:
            print(line)
        print("" if done else "nothing was repaired")
    with console(stderr=True).status(f"looking at {plain(str(folder))}"):
        found = [each.finding for each in consistency.examine(folder, write_report)]
    console().print(doctor.table(found))
    bad = sum(each.state == doctor.BAD for each in found)
    if bad:
        print(f"{folder}: {text.plural(bad, 'finding')} to be seen to")
        raise typer.Exit(EXIT_USER)
    print(f"{folder}: consistent")


def export_study(typed: Path, url: str) -> None:
    """Write a sweep as an Optuna study and say how to look at it."""
    from cluster.folders import UserError, find
    from sweeps import lease, study_view, tracked

    folder = find(typed)
    place = study_view.default_url(folder) if url == "file" else url
    if "://" not in place:
        raise UserError(f"--study={url}: a database such as sqlite:///optuna.db or postgresql://..., or file")
    with _bar(console()) as bar:
        try:
            _, changed = study_view.export(folder, place, living=lease.held(folder), progress=bar("trials"))
        except study_view.StudyBusy as busy:
            raise UserError(str(busy)) from None
        except (OSError, ValueError, KeyError):
            raise
        except Exception as error:  # whatever the database does
            said = str(error).splitlines()[0] if str(error) else ""
            raise UserError(tracked.redact(f"{place}: {type(error).__name__}: {said}")) from error
    shown = tracked.redact(place)
    print(f"{text.plural(changed, 'trial')} written to {shown}")
    print(f"look at it with: optuna-dashboard {shown}")
