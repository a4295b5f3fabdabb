"""Commands of the service: serve, token."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.app import app


@app.command()
def serve(
    root: Annotated[Path, typer.Argument(metavar="[ROOT]", help="A folder of sweeps.")] = Path("runs"),
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="To listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="P", min=0, max=65535, help="0: any that is free.")] = 8321,
    allowed: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="That it may be called by; repeatable."),
    ] = None,
    require_token: Annotated[bool, typer.Option("--require-token", help="Ask for tokens on loopback, too.")] = False,
    proxy: Annotated[
        str | None, typer.Option("--proxy", metavar="ADDRESS", help="A proxy whose X-Forwarded-* are believed.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", metavar="N", min=1, help="Requests a second of a client.")] = 100.0,
    nice: Annotated[int, typer.Option("--nice", metavar="N", min=0, max=19, help="Let sweeps go first.")] = 19,
) -> None:
    """Show the sweeps of a folder as web pages and answer a REST API, to this machine or to whoever has a token."""
    from cluster.service import serving
    from cluster.service.tokens import Tokens

    tokens = Tokens()
    settings = serving.settings_of(host, tuple(allowed or ()), proxy, require_token, rate, tokens)
    serving.serve(root, host, port, settings, tokens, proxy, nice, lambda words: print(words, flush=True))


token_app = typer.Typer(help="Who may use the service.", no_args_is_help=True)
app.add_typer(token_app, name="token")


@token_app.command("add")
def token_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; shown beside all that it does.")],
    role: Annotated[str, typer.Option("--role", metavar="reader|operator|admin", help="What it may do.")] = "reader",
    days: Annotated[float | None, typer.Option("--days", metavar="N", help="Until it expires; else never.")] = None,
) -> None:
    """Make a token and print it, this once."""
    import sys

    from cluster.service.tokens import Tokens

    made, secret = Tokens().add(name, role, days)
    _note("token add", made.name, token=made.id, role_given=made.role)
    until = f", for {days:g} days" if days is not None else ""
    print(f"{made.id}: {made.role} for {made.name}{until}; keep it, it is not shown again:", file=sys.stderr)
    print(secret)


@token_app.command("ls")
def token_ls() -> None:
    """List the tokens, without their secrets."""
    import time

    from cluster import text
    from cluster.service.tokens import Tokens
    from cluster.show import console, table

    made, now = table("token", "name", "role", "state", "age", "expires in", "last used"), time.time()
    found = Tokens().all()
    for each in found:
        left = "never" if each.expires is None else text.span(max(0.0, each.expires - now))
        used = "never" if each.used is None else f"{text.span(now - each.used)} ago"
        made.add_row(each.id, text.plain(each.name), each.role, each.state(now), text.span(now - each.made), left, used)
    if found:
        console().print(made)
    else:
        print("no tokens yet; make one with: musweep token add NAME --role reader")


@token_app.command("revoke")
def token_revoke(
    id_: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, how that begins, or its name.")],
) -> None:
    """Have a token open nothing any more; a running service follows within seconds."""
    from cluster.service.tokens import Tokens

    gone = Tokens().revoke(id_)
    _note("token revoke", gone.name, token=gone.id)
    print(f"{gone.id} ({gone.name}) opens nothing any more")


@token_app.command("audit")
def token_audit(
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, help="Lines.")] = 50,
    json_: Annotated[bool, typer.Option("--json", help="As it is in the file.")] = False,
) -> None:
    """Print what was done through the service lately, and by whom."""
    import json
    import time

    from cluster.service import audit

    path = audit.place()
    for told in audit.read(path, last):
        if json_:
            print(json.dumps(told, separators=(",", ":")))
            continue
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(told.get("time", 0.0))))
        known = ("time", "who", "role", "from", "what", "status")
        more = " ".join(f"{name}={value}" for name, value in told.items() if name not in known)
        who = f"{told.get('who') or '-'} ({told.get('role') or 'nobody'})"
        print(f"{at}  {told.get('status')}  {who}  {told.get('from')}  {told.get('what')}  {more}".rstrip())


def _note(what: str, name: str, **more: str) -> None:
    """Write to the audit log what was done on the command line."""
    from cluster.queue import login
    from cluster.service import audit

    audit.Audit(audit.place()).write(login(), "command line", "here", what, 200, name=name, **more)
