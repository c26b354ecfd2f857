"""How pinned tools are shown: to a person at a terminal, in a pipe, and as JSON.

What it is: tables, differences and names, printed. At a terminal they have colours (unless
``NO_COLOR`` is set) and a headline; in a pipe each line is whole and stands for itself.

What it must never do: print what a server wrote as it wrote it. Whatever does not show as
itself is an escape; a table's cell is one word; a line that is too long for the terminal is
folded here, so that none of its parts can pass for a line of ours; what is cut says so.

Names that would not show as themselves, or hold a blank, are written as JSON strings
(``"get\\u202eit"``). No two names are written alike.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Collection, Iterator
from typing import Final

import click

from mcpx.core.definition_diff import (
    MAX_VALUE_CHARS,
    Difference,
    Differences,
    differences,
    printable,
    render,
)
from mcpx.store.pin_file import StoredPin

__all__ = [
    "DIGEST_CHARS",
    "approval",
    "counted",
    "difference_json",
    "err",
    "named",
    "out",
    "pin_json",
    "print_difference",
    "print_summary",
    "print_table",
    "short",
    "shown",
    "state_of",
]

#: Digests are shown, and taken, with 128 bits: a server writes both of its definitions, so
#: that for a short digest it can make two that agree.
DIGEST_CHARS: Final = 32
#: Of a name, in a table or a headline. JSON has the whole.
MAX_SHOWN_CHARS: Final = 160
WIDEST_COLUMN: Final = 40
#: Of a value in a definition that nothing is compared with.
MAX_NEW_VALUE_CHARS: Final = 4000

_NOT_PLAIN: Final = re.compile(r"[^ -~]")
_STATES: Final = {"pinned": "green", "changed": "red", "waits": "yellow", "reset": "cyan"}
_SIGNS: Final = {"+": "green", "-": "red", "~": "yellow"}


def shown(name: str) -> str:
    """``name`` if it shows as itself, in one word; otherwise as a JSON string without blanks.

    No two names are written alike.
    """
    if name and printable(name) == name and not any(char in name for char in ' "\\'):
        return name
    return printable(json.dumps(name, ensure_ascii=False)).replace(" ", "\\u0020")


def named(wanted: str, known: Collection[str]) -> list[str]:
    """Which of ``known`` is meant: as it is, or as ``shown`` writes it, also without its quotes.

    More than one where it can be read in two ways; what ``shown`` wrote never can.
    """
    if wanted in known and shown(wanted) == wanted:
        return [wanted]
    as_written = _unquoted(wanted)
    if as_written is not None and as_written in known:
        return [as_written]
    readings = (wanted, _unquoted(f'"{wanted}"'))
    return [name for name in dict.fromkeys(readings) if name is not None and name in known]


def _unquoted(text: str) -> str | None:
    if not text.startswith('"'):
        return None
    try:
        read = json.loads(text)
    except ValueError:
        return None
    return read if isinstance(read, str) else None


def short(name: str) -> str:
    """``shown``, cut where it is long."""
    text = shown(name)
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[:MAX_SHOWN_CHARS]}…({len(name)}_characters)"


def state_of(pin: StoredPin) -> str:
    """The word for it: pinned, changed, waits (never approved) or reset."""
    if pin.pending is not None:
        return "changed" if pin.pinned is not None else "waits"
    return "pinned" if pin.pinned is not None else "reset"


def _pinned_at(pin: StoredPin) -> float | None:
    return pin.pinned_at if pin.pinned is not None else None


def _time(at: float | None, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    if at is None:
        return "-"
    try:
        return dt.datetime.fromtimestamp(at, dt.UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return "?"


def counted(count: int, one: str, more: str) -> str:
    """``3 tools``."""
    return f"{count} {one if count == 1 else more}"


def print_table(rows: list[StoredPin], servers: Collection[str] | None) -> None:
    """A line for each tool; ``servers`` are those configured, if that is known."""
    terminal = sys.stdout.isatty()
    form = "%Y-%m-%d %H:%M" if terminal else "%Y-%m-%dT%H:%M:%SZ"
    cells = [
        (
            short(pin.server),
            short(pin.tool),
            state_of(pin),
            *(_time(at, form) for at in (pin.first_seen, _pinned_at(pin), pin.last_changed)),
            "" if servers is None or pin.server in servers else "unconfigured",
        )
        for pin in rows
    ]
    if terminal and cells:
        cells.insert(0, ("SERVER", "TOOL", "STATE", "FIRST SEEN (UTC)", "PINNED AT",
                         "LAST CHANGED", ""))  # fmt: skip
    widths = [min(WIDEST_COLUMN, max(map(_width, column))) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [
            cell + " " * max(0, width - _width(cell))
            for cell, width in zip(row, widths, strict=True)
        ]
        padded[2] = _coloured(padded[2], _STATES.get(row[2]))
        out("  ".join(padded).rstrip())


def print_summary(rows: list[StoredPin], flags: str) -> None:
    """How many there are, on standard error: a pipe gets the table alone."""
    if not rows:
        err("No tool is pinned.")
        return
    states = [state_of(pin) for pin in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in _STATES if state in states)
    of = counted(len({pin.server for pin in rows}), "server", "servers")
    err(f"{counted(len(rows), 'tool', 'tools')} of {of}: {counts}")
    if "changed" in states or "waits" in states:
        err(f"See what waits to be approved: mcpx pins diff{printable(flags)}")


def print_difference(pin: StoredPin) -> None:
    """What waits of a tool, against what is pinned of it."""
    assert pin.pending is not None
    since = f"seen {_time(pin.last_changed)}"
    if pin.pinned is None:
        state = f"never approved, {since}"
    else:
        state = f"changed, {since}; pinned {_time(pin.pinned_at)}"
    out(_coloured(f"{short(pin.server)} {short(pin.tool)}", "bold") + f": {state}")
    out(f"  digest: {pin.pending.digest.hex()[:DIGEST_CHARS]}")
    new = pin.pending.canonical
    if not new:
        out("  The definition is too large to be kept, and can't be shown.")
        return
    found, limit_chars = _compared(pin), MAX_VALUE_CHARS
    if found is None:
        if pin.pinned is not None:
            out("  The pinned definition is too large to be kept. What waits, whole:")
        found, limit_chars = _whole(new), MAX_NEW_VALUE_CHARS
    for line in render(found, limit_chars=limit_chars):
        for part in _folded(f"  {line}"):
            out(_coloured(part, _SIGNS.get(line[0])))
    values = (value for change in found.found for value in (change.old, change.new) if value)
    if not found.complete or any(_is_cut(value, limit_chars) for value in values):
        out("  Not all is shown; `mcpx pins diff --json` has both definitions whole.")


def _compared(pin: StoredPin) -> Differences | None:
    """``None`` where there is nothing to compare with, or not the texts."""
    if pin.pinned is None or pin.pending is None:
        return None
    if not pin.pinned.canonical or not pin.pending.canonical:
        return None
    return differences(pin.pinned.canonical, pin.pending.canonical)


def _whole(text: bytes) -> Differences:
    if text.startswith(b"{") and text != b"{}":
        return differences(b"{}", text)
    return Differences((Difference("", None, text),), complete=True)


def _is_cut(value: bytes, limit_chars: int) -> bool:
    text = value.decode()
    return len(text) > limit_chars or len(printable(text)) > limit_chars


def approval(pin: StoredPin, flags: str) -> str:
    """The command that approves what was shown and nothing else."""
    assert pin.pending is not None
    names = [shown(pin.server), shown(pin.tool)]
    if any(len(name) > MAX_SHOWN_CHARS for name in names):
        return "mcpx pins approve, with the names as --json gives them"
    dashes = " --" if any(name.startswith("-") for name in names) else ""
    return (
        f"mcpx pins approve{printable(flags)} --digest "
        f"{pin.pending.digest.hex()[:DIGEST_CHARS]}{dashes} {shlex.join(names)}"
    )


# -- JSON


def pin_json(pin: StoredPin, servers: Collection[str] | None) -> str:
    """A tool as one line of JSON, in ASCII."""
    line = json.dumps(
        {
            "server": pin.server,
            "tool": pin.tool,
            "state": state_of(pin),
            "first_seen": _json_time(pin.first_seen),
            "pinned_at": _json_time(_pinned_at(pin)),
            "last_changed": _json_time(pin.last_changed),
            "digest": pin.pinned.digest.hex() if pin.pinned is not None else None,
            "pending_digest": pin.pending.digest.hex() if pin.pending is not None else None,
            "configured": None if servers is None else pin.server in servers,
        },
        ensure_ascii=False,
    )
    return _ascii(line)


def difference_json(pin: StoredPin) -> str:
    """What waits of a tool, as one line of JSON, in ASCII."""
    # The definitions are canonical JSON already, and are put in as they are.
    assert pin.pending is not None
    head = json.dumps(
        {
            "server": pin.server,
            "tool": pin.tool,
            "state": state_of(pin),
            "digest": pin.pending.digest.hex(),
            "seen": _json_time(pin.last_changed),
            "pinned_at": _json_time(_pinned_at(pin)),
        },
        ensure_ascii=False,
    )
    found = _compared(pin)
    changes = "null"
    if found is not None:
        changes = ", ".join(_change_json(change) for change in found.found)
        changes = f"[{changes}]"
    pinned = pin.pinned.canonical.decode() if pin.pinned is not None else ""
    pending = pin.pending.canonical.decode()
    complete = "true" if found is None or found.complete else "false"
    return _ascii(
        f'{head[:-1]}, "differences": {changes}, "complete": {complete}, '
        f'"pinned": {pinned or "null"}, "pending": {pending or "null"}}}'
    )


def _change_json(change: Difference) -> str:
    members = [f'"path": {json.dumps(change.path, ensure_ascii=False)}']
    for word, value in (("old", change.old), ("new", change.new)):
        if value is not None:
            members.append(f'"{word}": {value.decode()}')
    return "{" + ", ".join(members) + "}"


def _ascii(text: str) -> str:
    """A JSON text, that has such characters in strings alone, with escapes for all but ASCII."""
    return _NOT_PLAIN.sub(lambda found: _json_escape(found[0]), text)


def _json_escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if char < "\x80" else json.dumps(char)[1:-1]


def _json_time(at: float | None) -> str | None:
    text = _time(at)
    return None if text in ("-", "?") else text


# -- The terminal


def _coloured(text: str, colour: str | None) -> str:
    if colour is None or not sys.stdout.isatty():
        return text
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    if colour == "bold":
        return click.style(text, bold=True)
    return click.style(text, fg=colour)


def _width(text: str) -> int:
    """How many columns ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _folded(line: str) -> Iterator[str]:
    """``line`` in parts that a terminal does not fold, so that none can pass for another line."""
    if not sys.stdout.isatty():
        yield line
        return
    room = max(20, shutil.get_terminal_size().columns - 1)
    start = used = 0
    indent = ""
    for at, char in enumerate(line):
        columns = _columns(char)
        if used + columns > room:
            yield indent + line[start:at]
            indent = "      "
            start, used = at, len(indent)
        used += columns
    yield indent + line[start:]


def out(text: str) -> None:
    """Print a line, which holds nothing but what is safe to show."""
    _print(text, err=False)


def err(text: str) -> None:
    """The same, on standard error."""
    _print(text, err=True)


def _print(text: str, *, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    encoding = stream.encoding or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)
