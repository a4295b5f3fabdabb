"""Commands for sweeps that wait for a place: queue, queue run, priority, hold, release, cancel."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.app import app

if TYPE_CHECKING:
    from cluster.queue import Entry, Queue
    from cluster.service.models_acts import QueueEntry
    from cluster.targets import Target

To = Annotated[
    str | None, typer.Option("--to", metavar="TARGET", help="Default: the targets of clusters.yaml with queue: true.")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="A queued sweep, or how its id begins.")]

queue_app = typer.Typer(help="Show what waits for a place, and why; change its order.", invoke_without_command=True)
app.add_typer(queue_app, name="queue")


@queue_app.callback()
def queue(
    context: typer.Context,
    to: To = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print entries as JSON.")] = False,
) -> None:
    """List the queue: what runs, what waits and why, in the order in which it would start."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from cluster.queue import ENDED
    from cluster.queue_show import show, summary
    from cluster.show import console

    found = [(target, opened, opened.entries(target.name)) for target, opened in _queues(to)]
    shown = [[each for each in listed if all_ or each.state not in ENDED] for _, _, listed in found]
    if json_:
        print(json.dumps([asdict(each) for listed in shown for each in listed], indent=1))
        return
    for (target, opened, listed), entries in zip(found, shown, strict=True):
        print(summary(opened, target.name, listed))
        if entries:
            show(entries, console())


@queue_app.command("run")
def run(
    to: To = None,
    poll: Annotated[float, typer.Option("--poll", metavar="SECONDS", min=0.05, help="Between two looks.")] = 2.0,
    ttl: Annotated[
        float, typer.Option("--ttl", metavar="SECONDS", min=1.0, help="After which another replaces one that is gone.")
    ] = 20.0,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="Leave when nothing waits or runs.")] = False,
) -> None:
    """Start queued sweeps as there is room; run it anywhere, as often as you like: one leads, the others stand by."""
    import signal
    import threading
    import time

    from cluster.dispatcher import Dispatcher, serve
    from cluster.folders import UserError
    from cluster.launch import launcher_of
    from cluster.queue_lease import Leadership
    from cluster.sharing import capacity_of, jobs_of, rules_of

    found = _queues(to)
    if len(found) != 1:
        names = ", ".join(target.name for target, _ in found)
        raise UserError(f"queue run: {len(found)} targets have a queue: give --to with one of {names}")
    target, opened = found[0]

    def say(words: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)

    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    opened.database.notify = say
    dispatcher = Dispatcher(
        opened, target.name, launcher_of(target), capacity_of(target), rules_of(target), jobs_of(target), say=say
    )
    serve(dispatcher, Leadership(opened, target.name, ttl), leave, poll, until_empty)
    say("left; sweeps under way run on")


@queue_app.command("priority", context_settings={"ignore_unknown_options": True})  # -1 is a number
def priority(
    id_: Id, number: Annotated[int, typer.Argument(metavar="N", help="Higher goes first.")], to: To = None
) -> None:
    """Give a sweep another priority."""
    opened, entry = _found(id_, to)
    tell(opened.priority(entry.id, number))


@queue_app.command("hold")
def hold(id_: Id, to: To = None) -> None:
    """Keep a sweep from starting; one that runs is stopped cleanly, and can go on."""
    opened, entry = _found(id_, to)
    tell(opened.hold(entry.id))


@queue_app.command("release")
def release(id_: Id, to: To = None) -> None:
    """Let a held sweep start again, at its old place."""
    opened, entry = _found(id_, to)
    tell(opened.release(entry.id))


@queue_app.command("cancel")
def cancel(id_: Id, to: To = None) -> None:
    """Take a sweep out; one that runs is stopped cleanly, and `musweep resume` would go on with it."""
    opened, entry = _found(id_, to)
    tell(opened.cancel(entry.id))


def _queues(to: str | None) -> list[tuple[Target, Queue]]:
    """The targets that are meant, each with its queue.

    Raises:
        UserError: there is none.
    """
    from cluster import targets
    from cluster.folders import UserError
    from cluster.sharing import queue_of

    named = [targets.target(to)] if to else [*targets.load().values()]
    if to and named[0].kind == "debug":
        raise UserError(f"target {to} runs sweeps in the process that submits them: it has no queue")
    chosen = [each for each in named if each.queue]
    if not chosen:
        which = f"target {to} has no queue: set {to}.queue" if to else "no target has a queue: set queue"
        raise UserError(f"{which}: true in clusters.yaml")
    return [(each, queue_of(each)) for each in chosen]


def _found(typed: str, to: str | None) -> tuple[Queue, Entry]:
    """The entry whose id was typed, and its queue; the first queue that knows it counts."""
    from cluster.queue import QueueError

    queues, refused = _queues(to), None
    for target, opened in queues:
        try:
            entry = opened.find(typed, target.name)
        except QueueError as error:
            refused = refused or error
        else:
            return opened, entry
    assert refused is not None
    raise refused


def tell(entry: Entry | QueueEntry) -> None:
    """What has become of an entry, in a line."""
    leaving = f", to be {entry.wanted}" if entry.wanted else ""
    print(f"{entry.id}: {entry.state}{leaving}, priority {entry.priority}{': ' if entry.why else ''}{entry.why}")
    sys.stdout.flush()
