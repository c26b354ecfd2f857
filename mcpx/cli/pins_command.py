"""The command ``mcpx pins``: look at pinned tools, approve what changed, forget pins.

What it is: what a person, or a script, does with ``data_dir/pins.sqlite``. It works on the
file beside a running gateway, which takes over what was approved or forgotten when it
reloads.

What it must never do: approve anything but the definition that was shown, or the one that
a digest names; let a name or a definition, which a server writes freely, speak to the
terminal or pass for something else on it; make anything only by looking.

Names that would not show as themselves, or hold a blank, are written as JSON strings
(``"get\\u202eit"``). No two names are written alike, and each is taken as it is written.

Exit codes: 0 all went well, 1 something waits (``diff``) or could not be done, 2 the command
line is wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple, NoReturn, TypeVar

import click

from mcpx.cli.pin_views import (
    DIGEST_CHARS,
    approval,
    counted,
    difference_json,
    err,
    named,
    out,
    pin_json,
    print_difference,
    print_summary,
    print_table,
    short,
    shown,
)
from mcpx.config.faults import nearest
from mcpx.core.definition_diff import printable
from mcpx.errors import ConfigError
from mcpx.store.pin_file import FILE_NAME, PendingChanged, PinFile, StoredPin

__all__ = ["pins"]

_DIGEST: Final = re.compile(rf"[0-9a-f]{{{DIGEST_CHARS},64}}\Z")
_TAKEN_OVER: Final = "A running gateway takes this over with a reload: kill -HUP PID"

_Command = TypeVar("_Command", bound=Callable[..., object])


class _Source(NamedTuple):
    """Which pins are meant: those of the configuration at ``path``, unless there is a folder."""

    path: str
    data_dir: str | None

    def flags(self) -> str:
        """How to name it on the command line."""
        if self.data_dir is not None:
            return f" --data-dir {shlex.quote(self.data_dir)}"
        return "" if self.path == "mcpx.yaml" else f" -c {shlex.quote(self.path)}"


class _Place(NamedTuple):
    """Where the pins are. ``servers`` are those configured; ``None`` if that was not read."""

    data_dir: str
    servers: frozenset[str] | None
    keeps_pins: bool
    flags: str


# -- The command line


def _source_options(command: _Command) -> _Command:
    folder = click.option(
        "--data-dir",
        default=None,
        metavar="DIR",
        help="The folder that holds the pins. No configuration is read then.",
    )
    config = click.option(
        "--config", "-c", "path", default=None, metavar="FILE", help="The configuration."
    )
    return config(folder(command))


_AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_SERVER: Final = click.argument("server", required=False)
_TOOL: Final = click.argument("tool", required=False)


@click.group()
@_source_options
@click.pass_context
def pins(ctx: click.Context, path: str | None, data_dir: str | None) -> None:
    """Look at pinned tools, and approve what changed.

    With inspection.tool_integrity on, each tool's definition is pinned when it is first
    seen, in data_dir/pins.sqlite. A definition that is another one later waits there
    until a person approves it; with "enforce", the tool can't be called meanwhile.

    \b
    mcpx pins list                       what is pinned, and what waits
    mcpx pins diff                       what exactly changed
    mcpx pins approve SERVER TOOL        show it once more, ask, and pin it
    mcpx pins reset SERVER TOOL          forget it: what is seen next is pinned
    kill -HUP PID                        a running gateway takes it over

    A name that holds blanks, or what does not show as itself, is written as a JSON
    string; give it as it is written there, in single quotes. Put -- before a name that
    begins with a dash.

    Exit status: 0 all went well; 1 something waits (diff), or it could not be done; 2 the
    command line is wrong.
    """
    ctx.obj = _Source(path or ctx.obj or "mcpx.yaml", data_dir)


@pins.command("list")
@_source_options
@_AS_JSON
@_SERVER
@click.pass_context
def list_(
    ctx: click.Context, path: str | None, data_dir: str | None, *, as_json: bool, server: str | None
) -> None:
    """List the tools of SERVER, or of all.

    \b
    pinned    its definition is as it was pinned
    changed   another definition than the pinned one waits to be approved
    waits     it was never approved, and waits for it
    reset     its pin was forgotten; what is seen next is pinned

    Times are UTC. In a pipe the columns are server, tool, state, first seen, pinned at,
    last changed, and "unconfigured" for a server that is not in the configuration.

    Exit status: 0, also when nothing is pinned yet; 1 the pins can't be read; 2 the
    command line is wrong.
    """
    with _told():
        place = _place(ctx, path, data_dir)
        with _opened(place, missing=0) as file:
            rows = file.list()
            wanted = _find_server(ctx, place, file, rows, server)
        rows = [pin for pin in rows if wanted in (None, pin.server)]
        if as_json:
            for pin in rows:
                out(pin_json(pin, place.servers))
        else:
            print_table(rows, place.servers)
        print_summary(rows, place.flags)


@pins.command()
@_source_options
@_AS_JSON
@_SERVER
@_TOOL
@click.pass_context
def diff(
    ctx: click.Context,
    path: str | None,
    data_dir: str | None,
    *,
    as_json: bool,
    server: str | None,
    tool: str | None,
) -> None:
    """Show what changed, field by field, in all that waits to be approved.

    A tool that was never approved is shown whole. Long values are cut around their first
    difference; --json has both definitions whole.

    Exit status: 0 nothing waits; 1 something does, or the pins can't be read; 2 the
    command line is wrong.
    """
    with _told():
        place = _place(ctx, path, data_dir)
        with _opened(place, missing=1) as file:
            rows = file.list()
            server = _find_server(ctx, place, file, rows, server)
            tool = _find_tool(ctx, rows, server, tool)
        count = 0
        for pin in _waiting(place, rows, server, tool):
            count += 1
            if as_json:
                out(difference_json(pin))
                continue
            print_difference(pin)
            out(f"  approve with: {approval(pin, place.flags)}\n")
    if not count:
        err("Nothing waits to be approved.")
        return
    err(f"{counted(count, 'tool waits', 'tools wait')} to be approved.")
    sys.exit(1)


def _read_digest(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not _DIGEST.match(value.lower()):
        raise click.BadParameter(
            f"give {DIGEST_CHARS} to 64 hexadecimal digits, as `mcpx pins diff` shows them"
        )
    return value.lower()


@pins.command()
@_source_options
@click.option(
    "--digest",
    default=None,
    metavar="HEX",
    callback=_read_digest,
    help="Approve this definition, as `diff` showed it, and no other; without a question.",
)
@click.option("--all", "every", is_flag=True, help="All tools of SERVER that wait.")
@click.option("--yes", is_flag=True, help="Don't ask: approve what waits, whatever it is.")
@click.argument("server")
@_TOOL
@click.pass_context
def approve(
    ctx: click.Context,
    path: str | None,
    data_dir: str | None,
    *,
    digest: str | None,
    every: bool,
    yes: bool,
    server: str,
    tool: str | None,
) -> None:
    """Pin what waits of TOOL of SERVER, or of all its tools with --all.

    Shows the difference and asks. What changes between the two is not approved. Scripts
    name the definition with --digest, or say --yes.

    Exit status: 0 it is pinned; 1 it is not; 2 the command line is wrong.
    """
    if every and (tool is not None or digest is not None):
        raise click.UsageError("--all goes with neither a TOOL nor --digest", ctx)
    if not every and tool is None:
        raise click.UsageError("name a TOOL, or say --all", ctx)
    if not yes and digest is None:
        _refuse_without_terminal(ctx, "--digest HEX, as `mcpx pins diff` shows it, or --yes")
    with _told():
        place = _place(ctx, path, data_dir)
        with _opened(place, missing=1) as file:
            rows = file.list()
            server = _find_server(ctx, place, file, rows, server) or server
            tool = _find_tool(ctx, rows, server, tool)
            waiting = list(_waiting(place, rows, server, tool))
            if digest is not None:
                _refuse_other_digest(file, server, tool, waiting, digest)
            if not waiting:
                err("Nothing waits to be approved.")
                sys.exit(0 if every else 1)
            for pin in waiting:
                print_difference(pin)
            if not yes and digest is None:
                _ask(f"Approve {counted(len(waiting), 'definition', 'definitions')}?")
            missed = _approve(file, waiting)
    approved = len(waiting) - missed
    if approved:
        err(f"{counted(approved, 'tool', 'tools')} approved. {_TAKEN_OVER}")
    if missed:
        sys.exit(1)


@pins.command()
@_source_options
@click.option("--all", "every", is_flag=True, help="The pins of all servers.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@_SERVER
@_TOOL
@click.pass_context
def reset(
    ctx: click.Context,
    path: str | None,
    data_dir: str | None,
    *,
    every: bool,
    yes: bool,
    server: str | None,
    tool: str | None,
) -> None:
    """Forget the pin of TOOL, the pins of SERVER, or with --all those of all servers.

    What is seen next is pinned without a word, so reset what you trust as it is now.
    What waits is forgotten too.

    Exit status: 0 it is forgotten; 1 it is not; 2 the command line is wrong.
    """
    if every == (server is not None):
        raise click.UsageError("name a SERVER, or say --all for all servers", ctx)
    if not yes:
        _refuse_without_terminal(ctx, "--yes")
    with _told():
        place = _place(ctx, path, data_dir)
        with _opened(place, missing=1) as file:
            rows = file.list()
            server = _find_server(ctx, place, file, rows, server)
            tool = _find_tool(ctx, rows, server, tool)
            chosen = [p for p in rows if server in (None, p.server) and tool in (None, p.tool)]
            if not yes:
                whose = "all servers" if server is None else f"server {short(server)}"
                what = f"tool {short(tool)} of {whose}" if tool is not None else whose
                count = counted(len(chosen), "pin", "pins")
                _ask(f"Forget {count} of {what}? What is seen next is pinned unseen.")
            count = counted(file.reset(server, tool), "pin", "pins")
    err(f"{count} forgotten. {_TAKEN_OVER}")


# -- Finding the file and what is meant in it


def _place(ctx: click.Context, path: str | None, data_dir: str | None) -> _Place:
    """Where the pins are; leaves if the configuration can't be used."""
    source: _Source = ctx.obj
    source = _Source(path or source.path, data_dir or (source.data_dir if path is None else None))
    if source.data_dir is not None:
        return _Place(source.data_dir, None, keeps_pins=True, flags=source.flags())
    from mcpx.config.load import parse, read_file

    try:
        config = parse(read_file(source.path), filename=source.path, environ=os.environ)
    except ConfigError as exc:
        _fail(source.path, exc, "or name the folder of the pins with --data-dir")
    return _Place(
        config.data_dir,
        frozenset(server.name for server in config.servers),
        keeps_pins=config.inspection.tool_integrity in ("warn", "enforce"),
        flags=source.flags(),
    )


@contextlib.contextmanager
def _opened(place: _Place, *, missing: int) -> Iterator[PinFile]:
    """The file, its definitions read as digests alone; leaves with ``missing`` without one.

    Raises:
        ConfigError: it can't be used.
    """
    path = os.path.join(os.path.abspath(place.data_dir), FILE_NAME)
    try:
        os.lstat(path)
    except FileNotFoundError:
        if place.keeps_pins:
            why = "no gateway that pins tools has run with this folder"
            if place.servers is not None and not os.path.isabs(place.data_dir):
                why += "; data_dir is relative to where the gateway is started"
        else:
            why = "inspection.tool_integrity is off in the configuration"
        err(f"Nothing is pinned yet: there is no {printable(path)} ({why}).")
        sys.exit(missing)
    except OSError as exc:
        raise ConfigError([f"{path}: can't be read: {exc.strerror}"]) from None
    with PinFile(place.data_dir, create=False, max_loaded_bytes=0) as file:
        yield file


def _waiting(
    place: _Place, rows: Iterable[StoredPin], server: str | None, tool: str | None
) -> Iterator[StoredPin]:
    """What waits, with the definitions; a server at a time, for they may be large."""
    names = dict.fromkeys(
        pin.server
        for pin in rows
        if pin.pending is not None and server in (None, pin.server) and tool in (None, pin.tool)
    )
    if not names:
        return
    with PinFile(place.data_dir, create=False) as file:
        for name in names:
            for pin in file.list(name):
                if pin.pending is not None and tool in (None, pin.tool):
                    yield pin


def _find_server(
    ctx: click.Context, place: _Place, file: PinFile, rows: list[StoredPin], wanted: str | None
) -> str | None:
    if wanted is None:
        return None
    known = dict.fromkeys([*sorted(place.servers or ()), *(pin.server for pin in rows)])
    found = _find(ctx, wanted, known)
    if found is None:
        # A server without tools has no row, and yet a baseline to forget.
        known |= dict.fromkeys(file.load())
        found = _find(ctx, wanted, known)
    return found if found is not None else _unknown(ctx, "server", wanted, known)


def _find_tool(
    ctx: click.Context, rows: list[StoredPin], server: str | None, wanted: str | None
) -> str | None:
    if wanted is None:
        return None
    known = dict.fromkeys(pin.tool for pin in rows if pin.server == server)
    found = _find(ctx, wanted, known)
    return found if found is not None else _unknown(ctx, "tool", wanted, known)


def _find(ctx: click.Context, wanted: str, known: Collection[str]) -> str | None:
    found = named(wanted, known)
    if len(found) > 1:
        forms = " or ".join(f"'{shown(name)}'" for name in found)
        raise click.UsageError(f"there is more than one such name: write {forms}", ctx)
    return found[0] if found else None


def _unknown(ctx: click.Context, kind: str, wanted: str, known: Iterable[str]) -> NoReturn:
    meant = nearest(wanted, known)
    hint = f"did you mean {short(meant)}?" if meant is not None else "`mcpx pins list` has them all"
    raise click.UsageError(f"there is no pinned {kind} {short(wanted)}; {hint}", ctx)


# -- Approving


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _refuse_without_terminal(ctx: click.Context, instead: str) -> None:
    if not _at_terminal():
        raise click.UsageError(f"there is no terminal to ask at; say {instead}", ctx)


def _refuse_other_digest(
    file: PinFile, server: str, tool: str | None, waiting: list[StoredPin], digest: str
) -> None:
    """Leave if ``digest`` is not that of what waits."""
    if any(pin.pending and pin.pending.digest.hex().startswith(digest) for pin in waiting):
        return
    for pin in file.list(server):
        if pin.tool == tool and pin.pinned and pin.pinned.digest.hex().startswith(digest):
            err("That definition is pinned already.")
            sys.exit(0)
    if waiting:
        err("Another definition waits than that one; look again with `mcpx pins diff`.")
    else:
        err("Nothing waits to be approved.")
    sys.exit(1)


def _approve(file: PinFile, waiting: list[StoredPin]) -> int:
    """Pin the definitions that were shown; gives how many were not to be had any more."""
    missed = 0
    for pin in waiting:
        assert pin.pending is not None
        what = f"{short(pin.server)} {short(pin.tool)}"
        try:
            if file.approve(pin.server, pin.tool, time.time(), digest=pin.pending.digest):
                continue
            err(f"{what} was not approved: it waits no more.")
        except PendingChanged:
            err(
                f"{what} was not approved: it has changed again since it was shown; look once more."
            )
        missed += 1
    return missed


def _ask(question: str) -> None:
    if not click.confirm(question, err=True):
        err("Nothing was changed.")
        sys.exit(1)


# -- What is wrong


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say what is wrong with the file, and leave."""
    try:
        yield
    except ConfigError as exc:
        _fail("the file of pinned tools", exc)


def _fail(what: str, exc: ConfigError, hint: str = "") -> NoReturn:
    err(f"mcpx: {what} can't be used:")
    for problem in [*exc.problems, *([hint] if hint else [])]:
        err(f"  {problem}")
    sys.exit(1)
