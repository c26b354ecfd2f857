"""The command ``mcpx``: run a gateway, check its configuration, or see to its pins.

What it is: the command line and what a person sees at start. Flags may be written with
one dash or two, and with ``=``, as programs of the Go family take them. What it must
never do: serve, or know more of the gateway than ``app`` offers.

Exit codes: 0 all went well, 1 the configuration or the address can't be used, 2 the
command line is wrong.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Final

import click

from mcpx import __version__
from mcpx.config.durations import parse_duration
from mcpx.errors import ConfigError

__all__ = ["go_flags", "main"]

log = logging.getLogger("mcpx")

_GO_FLAG: Final = re.compile(
    r"--?(c|config|watch|watch-interval|version|v|help|h|data-dir|json|digest|all|yes)(?:=(.*))?\Z"
)
_LONG: Final = {"c": "config", "v": "version", "h": "help"}
_SWITCHES: Final = frozenset({"watch", "version", "help", "json", "all", "yes"})
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def go_flags(arguments: list[str]) -> list[str]:
    """``arguments`` with every known flag in its two-dash form."""
    written: list[str] = []
    for argument in arguments:
        # What follows two dashes is a name, whatever it looks like.
        flag = None if "--" in written else _GO_FLAG.match(argument)
        if flag is None:
            written.append(argument)
            continue
        name = _LONG.get(flag[1], flag[1])
        value = flag[2]
        if name in _SWITCHES and value in _TRUE:
            value = None
        elif name in _SWITCHES and value in _FALSE:
            continue
        written.append(f"--{name}" if value is None else f"--{name}={value}")
    return written


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = float(parse_duration(str(value)))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if seconds < 0:
            self.fail("a time can't be negative", param, ctx)
        return seconds


class _Group(click.Group):
    """The commands; ``pins`` is loaded when it is wanted, which a gateway's start is not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "pins"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "pins":
            from mcpx.cli.pins_command import pins

            return pins
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
@click.option(
    "--config",
    "-c",
    "path",
    default="mcpx.yaml",
    show_default=True,
    metavar="FILE",
    help="The configuration.",
)
@click.option("--watch", is_flag=True, help="Reload when the file changes.")
@click.option(
    "--watch-interval",
    type=_Duration(),
    default="2s",
    show_default=True,
    metavar="TIME",
    help="How often to look at it.",
)
@click.option(
    "--version",
    "-v",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _version(ctx) if wanted else None,
    help="Show the version and which twins run, and leave.",
)
@click.pass_context
def cli(ctx: click.Context, path: str, watch: bool, watch_interval: float) -> None:  # noqa: FBT001 - click passes flags so
    """Run a gateway for MCP servers.

    SIGHUP reloads the configuration; SIGINT and SIGTERM let what is in flight end, then
    stop.
    """
    ctx.obj = path
    if ctx.invoked_subcommand is not None:
        return
    from mcpx import app

    try:
        app.run(path, watch_interval_s=(watch_interval or 2.0) if watch else None)
    except ConfigError as exc:
        _fail(path, exc)
    except KeyboardInterrupt:
        sys.exit(130)


@cli.command()
@click.option("--config", "-c", "path", default=None, metavar="FILE", help="The configuration.")
@click.pass_context
def check(ctx: click.Context, path: str | None) -> None:
    """Check a configuration and print what would run."""
    import os

    from mcpx.app import check_snapshot
    from mcpx.config.describe import describe

    path = path or ctx.obj
    try:
        snapshot = check_snapshot(path, os.environ)
    except ConfigError as exc:
        _fail(path, exc)
    click.echo(describe(snapshot))


def _version(ctx: click.Context) -> None:
    # Programs read the one line on standard output; the rest is for people.
    from mcpx._speedups import described

    click.echo(f"mcpx v{__version__}")
    click.echo(described(), err=True)
    ctx.exit()


def _fail(path: str, exc: ConfigError) -> None:
    click.echo(f"mcpx: {path} can't be used:", err=True)
    for problem in exc.problems:
        click.echo(f"  {problem}", err=True)
    sys.exit(1)


def main() -> None:
    """The entry point."""
    cli(args=go_flags(sys.argv[1:]), prog_name="mcpx")
