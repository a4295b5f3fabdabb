"""The command line's application and what its commands share; `cli.py` and `commands_*.py` add the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

EXIT_USER, EXIT_FAULT, EXIT_INTERRUPTED = 2, 1, 130


class _Group(TyperGroup):
    """The commands; with `--server` those of the same names that a service does."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant.

        Raises:
            UserError: it is done on this machine only.
        """
        server = ctx.params.get("server")
        if not server:
            return super().resolve_command(ctx, args)
        from cluster import commands_remote  # noqa: F401 - its commands come with the import
        from cluster.folders import UserError

        there: Any = typer.main.get_command(remote)
        if args[0] in self.commands and args[0] not in there.commands:
            known = ", ".join(sorted(there.commands))
            raise UserError(f"{args[0]} is done on this machine only: leave out --server {server}; it knows {known}")
        return there.resolve_command(ctx, args)


remote = typer.Typer(add_completion=False)
"""What `--server` knows."""
app = typer.Typer(
    name="musweep",
    cls=_Group,
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
    server: Annotated[  # noqa: ARG001 - the group looks at it
        str | None,
        typer.Option("--server", metavar="URL", envvar="MUSWEEP_SERVER", help="Have a service do it (musweep serve)."),
    ] = None,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
