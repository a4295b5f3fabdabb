"""The commands that `musweep --server URL` knows: the same words, done by a service through its client."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.app import EXIT_USER, Protocol, Set, Spec, remote
from cluster.commands_queue import tell
from cluster.commands_submit import EXITS

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.service.models import Summary, TrialRow
    from cluster.service.models_acts import Known, ScheduleInfo

Sweep = Annotated[str, typer.Argument(metavar="SWEEP", help="As `ls` calls it.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a schedule.")]
POLL_S = 2.0


def _client(context: typer.Context) -> Client:
    from cluster.client import Client

    return Client(context.find_root().params["server"])


@remote.command()
def check(context: typer.Context, spec: Spec, set_: Set = None, protocol: Protocol = None) -> None:
    """Say whether a spec can be run there; every mistake in one line."""
    found = _client(context).check(_spec(spec), set_ or (), protocol)
    print(f"ok: {spec}: {found.summary}")
    for words in found.warnings:
        print(f"warning: {words}", file=sys.stderr)


def _spec(typed: Path) -> str | Path:
    """A file, or the name of a shipped spec, which the service has, too.

    Raises:
        UserError: it is neither.
    """
    from cluster.driving import is_shipped
    from cluster.folders import UserError

    if typed.is_file():
        return typed
    if is_shipped(typed):
        return str(typed)
    raise UserError(f"{typed}: no such file, and no shipped spec has this name")


@remote.command()
def submit(
    context: typer.Context,
    spec: Spec,
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="Of the service's.")] = "local",
    set_: Set = None,
    protocol: Protocol = None,
    again: Annotated[bool, typer.Option("--again", help="A new sweep, though this spec is there already.")] = False,
    priority: Annotated[int, typer.Option("--priority", metavar="N", help="In a queue; higher goes first.")] = 0,
) -> None:
    """Send a sweep through the service; sending it twice is safe, and goes on with one that was stopped."""
    made = _client(context).submit(
        _spec(spec), to, set=set_ or (), protocol=protocol, again=again, priority=priority
    )  # fmt: skip
    for words in made.notes:
        print(f"note: {words}", file=sys.stderr)
    if made.new:
        print(f"{made.id} is {made.state} on {made.target}; it lies in {made.folder}")
    else:
        print(f"{made.id} is there already: {made.state} on {made.target}; --again starts a new one")


@remote.command()
def ls(context: typer.Context) -> None:
    """List the service's sweeps, the last changed first."""
    from cluster import text
    from cluster.show import console, table

    found = _client(context).sweeps()
    made = table("sweep", "state", "trials", "best", "objective", "changed", right=("trials", "best", "changed"))
    for each in found:
        made.add_row(
            text.plain(each.id), each.state, "being read" if each.reading else f"{each.ended}/{each.budget}",
            text.value(each.best) if each.best is not None else "-", text.plain(each.objective),
            f"{text.span(max(0.0, time.time() - each.updated_at))} ago",
        )  # fmt: skip
    if found:
        console().print(made)
    else:
        print("no sweeps there yet; start one with: musweep --server URL submit SPEC")


@remote.command()
def show(
    context: typer.Context,
    sweep: Sweep,
    trial: Annotated[str | None, typer.Argument(metavar="[TRIAL]", help="12, t00012 or best.")] = None,
) -> None:
    """Show a sweep: how it stands, its best trials; or one trial: why it ended, its curves."""
    from cluster import text
    from cluster.show import console

    client, out = _client(context), console()
    sheet = client.sweep(sweep)
    if trial is not None:
        found = client.trial(sweep, _number(trial, sheet.summary))
        _trials([found.row], sheet.names, sheet.summary.objective)
        for words in filter(None, [found.row.why, found.doomed, found.traceback.rstrip()]):
            print(words)
        for curve in found.curves:
            out.print(text.plain(f"{curve.metric:32} {text.sparkline(curve.values)} {text.value(curve.values[-1])}"))
        return
    print(_line(sheet.summary))
    print("stages: " + " · ".join(f"{each.name} {each.ended} of {each.size}" for each in sheet.stages))
    print(f"cost {sheet.cost}; it lies in {sheet.folder}")
    if sheet.best:
        _trials(sheet.best, sheet.names, sheet.summary.objective)
    for words in filter(None, [sheet.summary.verdict, sheet.note, sheet.waiting, *sheet.summary.troubles]):
        print(words)


def _number(typed: str, summary: Summary) -> int:
    """The number of a trial as it was typed.

    Raises:
        UserError: it is none.
    """
    from cluster.folders import UserError, trial_number

    if typed == "best" and not summary.best_trial:
        raise UserError(f"{summary.id}: no trial is complete yet; name one, as in t00012")
    return trial_number(summary.best_trial if typed == "best" else typed)


def _trials(rows: list[TrialRow], names: list[str], objective: str) -> None:
    from cluster import text
    from cluster.show import console, table

    made = table("trial", "state", objective, *names, "updates", "time", right=(objective, *names, "updates", "time"))
    for row in rows:
        values = (text.value(row.params[name]) if name in row.params else "·" for name in names)
        made.add_row(row.id, row.state, text.value(row.objective), *map(text.plain, values), str(row.updates),
                     text.span(row.wall_s))  # fmt: skip
    console().print(made)


def _line(summary: Summary) -> str:
    """How a sweep stands, in a line."""
    from cluster import text

    counts = ", ".join(f"{number} {state}" for state, number in summary.counts.items())
    best = f"; best {text.value(summary.best)} ({summary.best_trial})" if summary.best is not None else ""
    left = f"; about {text.span(summary.eta_s)} left" if summary.eta_s is not None else ""
    told = f" ({counts})" if counts else ""
    return f"{summary.id}: {summary.state}; {summary.ended} of {summary.budget} trials ended{told}{best}{left}"


@remote.command()
def status(context: typer.Context, sweep: Sweep) -> None:
    """Say what has become of a sweep, and how far it is."""
    from cluster.client import ServiceError

    client = _client(context)
    try:
        print(_line(client.summary(sweep)))
    except ServiceError as error:
        if error.status != 404:
            raise
        print(_told(known := client.place(sweep)))  # it lies elsewhere, or waits
        if known.state == "unknown":
            raise typer.Exit(EXIT_USER) from None


def _told(known: Known) -> str:
    on = f" on {known.target}" if known.target else ""
    return f"{known.id}{on}: {known.state}{f'; {known.why}' if known.why else ''}"


@remote.command()
def logs(
    context: typer.Context,
    sweep: Sweep,
    trial: Annotated[str | None, typer.Argument(metavar="[TRIAL]", help="12, t00012 or best; else all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the sweep ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", metavar="N", min=1, max=10_000, help="The last so many.")] = 500,
) -> None:
    """Show the end of what a sweep's driver and groups printed, or of what a trial printed as it trained."""
    client = _client(context)
    number = None if trial is None else _number(trial, client.summary(sweep))
    shown: list[str] = []
    while True:
        over = not follow or client.summary(sweep).state != "running"  # asked before the last look
        found = client.log(sweep, number, 10_000 if follow else lines).lines
        for line in found[_overlap(shown, found) :]:
            print(line, flush=follow)
        shown = found
        if over:
            return
        time.sleep(POLL_S)


def _overlap(before: list[str], now: list[str]) -> int:
    """How many of the lines there are now were there before: the end of those may be the beginning of these."""
    if now[: len(before)] == before:
        return len(before)
    start = next((n for n in range(len(before)) if before[n:] == now[: len(before) - n]), len(before))
    return len(before) - start


@remote.command()
def stop(context: typer.Context, sweep: Sweep) -> None:
    """Have a sweep leave cleanly, so that it can go on later."""
    print(_told(_client(context).stop(sweep)))


@remote.command()
def resume(context: typer.Context, sweep: Sweep) -> None:
    """Go on with a sweep after any kind of end."""
    print(_told(_client(context).resume(sweep)))


@remote.command()
def wait(
    context: typer.Context,
    sweep: Sweep,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="S", min=0, help="Give up after it.")] = None,
) -> None:
    """Wait for the end of a sweep. Exit code 0 if it is finished, 1 if it failed, 130 if it was stopped."""
    from cluster.folders import UserError

    try:
        ended = _client(context).wait(sweep, timeout, lambda known: print(_told(known), flush=True))
    except TimeoutError as error:
        raise UserError(str(error)) from None
    if code := EXITS.get(ended.state, 0):
        raise typer.Exit(code)


# -- the queue and its places ----------------------------------------------------------------------------------------


@remote.command()
def clusters(context: typer.Context) -> None:
    """List the places that the service can send sweeps to."""
    for each in _client(context).targets():
        print(f"{each.name}  {each.kind}  {each.storage}{'  queue' if each.queue else ''}")


queue_app = typer.Typer(help="Show what waits for a place, and why; change its order.", invoke_without_command=True)
remote.add_typer(queue_app, name="queue")
Entry = Annotated[str, typer.Argument(metavar="ID", help="A queued sweep.")]


@queue_app.callback()
def queue(
    context: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
) -> None:
    """List the queues of the service's targets."""
    if context.invoked_subcommand is not None:
        return
    for each in _client(context).queue(all_):
        print(each.summary)
        for entry in each.entries:
            print(f"  {entry.id}  {entry.state}  priority {entry.priority}  {entry.owner}  {entry.why}".rstrip())


def _order(context: typer.Context, id_: str, what: str, priority: int | None = None) -> None:
    tell(_client(context).order(id_, what, priority))


@queue_app.command("priority", context_settings={"ignore_unknown_options": True})  # -1 is a number
def queue_priority(
    context: typer.Context, id_: Entry, number: Annotated[int, typer.Argument(metavar="N", help="Higher goes first.")]
) -> None:
    """Give a sweep another priority."""
    _order(context, id_, "priority", number)


@queue_app.command("hold")
def queue_hold(context: typer.Context, id_: Entry) -> None:
    """Keep a sweep from starting; one that runs is stopped cleanly, and can go on."""
    _order(context, id_, "hold")


@queue_app.command("release")
def queue_release(context: typer.Context, id_: Entry) -> None:
    """Let a held sweep start again, at its old place."""
    _order(context, id_, "release")


@queue_app.command("cancel")
def queue_cancel(context: typer.Context, id_: Entry) -> None:
    """Take a sweep out; one that runs is stopped cleanly."""
    _order(context, id_, "cancel")


# -- schedules -------------------------------------------------------------------------------------------------------

schedule_app = typer.Typer(help="Sweeps that start by the clock.", no_args_is_help=True)
remote.add_typer(schedule_app, name="schedule")


def _say(schedule: ScheduleInfo) -> None:
    due = "paused" if schedule.paused else _clock(schedule.next[0]) if schedule.next else "never due"
    print(f"{schedule.name}  {schedule.cron} {schedule.zone}  {schedule.spec} on {schedule.target}  next: {due}")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


@schedule_app.command("ls")
def schedule_ls(context: typer.Context) -> None:
    """List the service's schedules."""
    for each in _client(context).schedules():
        _say(each)


@schedule_app.command("show")
def schedule_show(context: typer.Context, name: Name) -> None:
    """Show a schedule, and its last nights."""
    client = _client(context)
    _say(client.schedule(name))
    _nights(client, name, 10)


@schedule_app.command("history")
def schedule_history(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of a schedule; default: all.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="The last so many.")] = 30,
) -> None:
    """List the nights of a schedule: when, what came of each, in words."""
    _nights(_client(context), name, limit)


def _nights(client: Client, name: str | None, limit: int) -> None:
    for each in client.firings(name, limit):
        print(f"  {_clock(each.at)}  {each.sweep}  {each.result or each.state}  {each.sentence or each.why}".rstrip())


@schedule_app.command("add")
def schedule_add(
    context: typer.Context,
    name: Name,
    spec: Spec,
    cron: Annotated[str, typer.Option("--cron", metavar="EXPR", help='Five fields, as in "30 2 * * *".')],
    zone: Annotated[str, typer.Option("--zone", metavar="TZ", help="Whose clock, as Europe/London.")] = "UTC",
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="Of the service's.")] = "local",
    set_: Set = None,
    protocol: Protocol = None,
) -> None:
    """Have a sweep start by the clock; the service keeps the spec as it is now."""
    _say(_client(context).add_schedule(name, cron, _spec(spec), to, zone=zone, set=set_ or [], protocol=protocol))


@schedule_app.command("pause")
def schedule_pause(context: typer.Context, name: Name) -> None:
    """Let a schedule no longer be due; a night under way goes on."""
    _say(_client(context).pause_schedule(name))


@schedule_app.command("resume")
def schedule_resume(context: typer.Context, name: Name) -> None:
    """Let a paused schedule be due again; what passed meanwhile is not made up for."""
    _say(_client(context).resume_schedule(name))


@schedule_app.command("run-now")
def schedule_run(context: typer.Context, name: Name) -> None:
    """Have a schedule fire now; a scheduler begins it."""
    print(f"{_client(context).run_schedule(name).sweep} is due; a scheduler begins it")


@schedule_app.command("rm")
def schedule_rm(context: typer.Context, name: Name) -> None:
    """Forget a schedule and its history; folders of sweeps stay."""
    _client(context).remove_schedule(name)
    print(f"{name} is gone; its sweeps' folders stay")
