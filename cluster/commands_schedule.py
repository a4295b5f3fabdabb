"""Commands for sweeps that nobody starts by hand: schedule, and the scheduler that fires them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.app import Protocol, Set, Spec, app

if TYPE_CHECKING:
    from cluster.schedule import Firing, Schedules

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a schedule.")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]

schedule_app = typer.Typer(
    help="Sweeps that start by the clock, and what became of their nights.", no_args_is_help=True
)
app.add_typer(schedule_app, name="schedule")


@schedule_app.command()
def add(
    name: Name,
    spec: Spec,
    cron: Annotated[str, typer.Option("--cron", metavar="EXPR", help='Five fields, as in "30 2 * * *".')],
    zone: Annotated[str, typer.Option("--zone", metavar="TZ", help="Whose clock, as Europe/London.")] = "UTC",
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="As `musweep clusters` lists them.")] = "local",
    set_: Set = None,
    protocol: Protocol = None,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="skip|queue|replace", help="While an earlier night is active.")
    ] = "skip",
    catch_up: Annotated[
        str, typer.Option("--catch-up", metavar="latest|all|none", help="Of nights missed while no scheduler ran.")
    ] = "latest",
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="TIME", help="A night is stopped so long after its time: 7h.")
    ] = None,
    jitter: Annotated[
        str | None, typer.Option("--jitter", metavar="TIME", help="Each night begins up to so much later: 10m.")
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="NAME", help="Default: you.")] = None,
    notify: Annotated[
        list[str] | None,
        typer.Option("--notify", metavar="env:NAME|file:PATH", help="Where a URL of apprise is kept; repeatable."),
    ] = None,
    notify_when: Annotated[
        str,
        typer.Option("--notify-when", metavar="change|always", help="Messages only when it matters, or each night."),
    ] = "change",
    ping: Annotated[
        str | None,
        typer.Option(
            "--ping", metavar="env:NAME|file:PATH", help="Where a URL is kept that is asked for after each night."
        ),
    ] = None,
) -> None:
    """Have a sweep start by the clock; a scheduler must run (musweep scheduler)."""
    from cluster.driving import is_shipped, load, warn
    from cluster.queue import login
    from cluster.schedule import Schedule, check
    from cluster.schedule_show import show_one
    from cluster.schedule_work import place
    from cluster.show import console
    from cluster.targets import refuse_code

    checked = load(spec, set_, protocol)
    warn(checked)
    where = str(spec) if is_shipped(spec) and not spec.exists() else str(spec.absolute())
    made = check(
        Schedule(
            name, cron, zone, where, to, str(Path.cwd()), tuple(set_ or ()), protocol, overlap, catch_up,
            _seconds("deadline", deadline), _seconds("jitter", jitter) or 0.0, owner or login(), tuple(notify or ()),
            notify_when, ping,
        )
    )  # fmt: skip
    refuse_code(checked, place(made))
    made = _schedules().add(made)
    show_one(made, [], console())
    if checked.night is None:
        print(
            "note: its spec has no `night`, so only whether a night ends is judged; see docs/nights.md", file=sys.stderr
        )


def _seconds(what: str, given: str | None) -> float | None:
    """Seconds from text such as 7h.

    Raises:
        UserError: it is none.
    """
    from pydantic_core import PydanticCustomError

    from cluster.folders import UserError
    from sweeps.schema_values import duration

    try:
        value: float | None = duration(given)
    except (ValueError, PydanticCustomError):
        raise UserError(f"--{what} {given}: not a duration; legal: text such as 90s, 5m, 1h30m, 2d") from None
    return value


@schedule_app.command("ls")
def ls(json_: Json = False) -> None:
    """List schedules: when they are due, how their last night was."""
    from dataclasses import asdict

    from cluster.schedule_show import show_all
    from cluster.show import console

    store = _schedules()
    found = store.all()
    if json_:
        print(json.dumps([asdict(each) for each in found], indent=1))
    elif found:
        show_all([(each, store.firings(each.name, 20)) for each in found], console())
    else:
        print('no schedules yet; add one: musweep schedule add NAME SPEC --cron "30 2 * * *" --zone Europe/London')


@schedule_app.command()
def show(name: Name, json_: Json = False) -> None:
    """Show a schedule: what it says, when it is due next, its last nights."""
    from dataclasses import asdict

    from cluster.schedule_show import next_due, show_one
    from cluster.show import console

    store = _schedules()
    found = store.get(name)
    if json_:
        import time

        print(json.dumps(asdict(found) | {"next": next_due(found, time.time(), 3)}, indent=1))
    else:
        show_one(found, store.firings(name, 10), console())


@schedule_app.command()
def pause(name: Name) -> None:
    """Let a schedule no longer be due; a night under way goes on."""
    print(f"{_schedules().pause(name).name} is paused; go on with: musweep schedule resume {name}")


@schedule_app.command()
def resume(name: Name) -> None:
    """Let a paused schedule be due again; what passed meanwhile is not made up for."""
    import time

    from cluster import schedule_times
    from cluster.schedule_show import next_due

    found = _schedules().resume(name)
    print(f"{name} is due {schedule_times.shown(next_due(found, time.time())[0], found.zone)}")


@schedule_app.command("run-now")
def run_now(
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Be the scheduler until it is judged; exit code by result.")
    ] = False,
) -> None:
    """Have a schedule fire now. With --wait exit code 0 if ok or better, 3 if worse, 4 if broken."""
    from cluster.schedule_show import EXITS, word

    store = _schedules()
    firing = store.run_now(name)
    if not wait:
        print(f"{firing.sweep} is due; a scheduler begins it: musweep scheduler")
        return
    ended = _waited(store, firing)
    print(f"{firing.sweep}: {word(ended)}: {ended.sentence or ended.why}")
    if code := EXITS.get(word(ended), 4):
        raise typer.Exit(code)


def _waited(store: Schedules, firing: Firing) -> Firing:
    """Make the steps of a firing until it is over."""
    import time

    from cluster.schedule import OVER
    from cluster.scheduler import Scheduler

    scheduler = Scheduler(store, say=_say)
    while True:
        scheduler.tick()
        there = next((each for each in store.firings(firing.schedule) if each.at == firing.at), None)
        if there is None or there.state in OVER:
            return there or firing
        time.sleep(1.0)


@schedule_app.command()
def history(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of a schedule; default: all.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The last so many.")] = 30,
    json_: Json = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Write a strip chart of the nights.")
    ] = None,
) -> None:
    """List the nights of a schedule: when, what came of each, in words."""
    from dataclasses import asdict

    from cluster.folders import UserError
    from cluster.schedule_show import show_history
    from cluster.show import console

    store = _schedules()
    found = [store.get(name)] if name is not None else store.all()
    if json_:
        print(json.dumps([asdict(each) for each in store.firings(name, limit)], indent=1))
        return
    for each in found:
        firings = store.firings(each.name, limit)
        if len(found) > 1:
            print(f"{each.name}:")
        if firings:
            show_history(each, firings, console())
        else:
            print(f"{each.name} has not been due yet")
    if picture is not None:
        from cluster.schedule_work import Sweeps

        if name is None:
            raise UserError("--picture: name one schedule")
        drawn = Sweeps().picture(store.firings(name, limit, ["done"])[::-1])
        if drawn is None:
            raise UserError(f"--picture: no night of {name} has been judged yet")
        picture.write_bytes(drawn)
        print(f"written: {picture}")


@schedule_app.command()
def accept(
    name: Name,
    sweep: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="Of the night; default: the last one.")] = None,
) -> None:
    """Say that a night's results are right: the nights after it are held against it."""
    from cluster.schedule_work import accepted

    firing = accepted(_schedules(), name, sweep)
    print(f"{firing.sweep} is accepted: later nights of {name} are held against it")


@schedule_app.command()
def check(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of a schedule; default: all.")] = None,
) -> None:
    """Say how schedules stand; exit code 0 if all are well, 3 if one is worse, 4 if one is broken or did not run."""
    import time

    from cluster.schedule_show import EXITS, standing

    store, worst = _schedules(), 0
    for each in [store.get(name)] if name is not None else store.all():
        result, sentence = standing(each, store.firings(each.name, 20), time.time())
        print(f"{each.name}: {result or 'waiting'}: {sentence}")
        worst = max(worst, EXITS.get(result, 0))
    if worst:
        raise typer.Exit(worst)


@schedule_app.command("rm")
def rm(name: Name) -> None:
    """Forget a schedule and its history; folders of sweeps stay."""
    _schedules().remove(name)
    print(f"{name} is gone; its sweeps' folders stay")


@schedule_app.command("render")
def render(
    systemd: Annotated[bool, typer.Option("--systemd", help="A unit and a timer for this user, on this host.")] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="A CronJob; needs --image and --secret.")] = False,
    image: Annotated[str, typer.Option("--image", metavar="NAME", help="Container image with musweep.")] = "",
    secret: Annotated[
        str, typer.Option("--secret", metavar="NAME", help="With MUSWEEP_DATABASE and what --notify names.")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", metavar="NAME")] = "default",
    claim: Annotated[str, typer.Option("--claim", metavar="NAME", help="The volume of the sweeps' folders.")] = "",
    storage: Annotated[str, typer.Option("--storage", metavar="PATH", help="Where it is mounted.")] = "",
) -> None:
    """Print what starts a scheduler every minute, to look at and to apply."""
    from cluster import schedule_units
    from cluster.folders import UserError

    if systemd == kubernetes:
        raise UserError("schedule render: give --systemd or --kubernetes")
    if systemd:
        print(schedule_units.systemd(Path.cwd()), end="")
        return
    if not image or not secret:
        raise UserError("schedule render --kubernetes: --image and --secret are missing; see docs/schedules.md")
    print(schedule_units.kubernetes(image, secret, namespace, claim, storage), end="")


@app.command()
def scheduler(
    once: Annotated[bool, typer.Option("--once", help="One look, for timers.")] = False,
    poll: Annotated[float, typer.Option("--poll", metavar="SECONDS", min=0.05, help="Between two looks.")] = 10.0,
) -> None:
    """Start what is due, follow it, judge nights, send messages. Run it anywhere, as often as you like."""
    import signal
    import threading

    from cluster.scheduler import Scheduler, serve

    made = Scheduler(_schedules(), say=_say)
    if once:
        made.tick()
        return
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    found = made.schedules.all()
    _say(f"{len(found)} schedule{'' if len(found) == 1 else 's'} in {made.schedules.database}")
    serve(made, leave, poll)
    _say("left; sweeps under way run on")


def _schedules() -> Schedules:
    from cluster.schedule import Schedules

    return Schedules.open()


def _say(words: str) -> None:
    import time

    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)
