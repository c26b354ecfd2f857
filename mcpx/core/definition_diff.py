"""What changed in a tool's definition, field by field, and how to show it to a person.

What it is: ``differences`` compares two canonical JSON texts and names each place where
they differ by its JSON pointer (RFC 6901). ``render`` turns that into lines for a
terminal: ``~ /description: "old" -> "new"``, ``+ /inputSchema/properties/x: {...}``,
``- /annotations: {...}``.

What it must never do: let a definition, which its server writes freely, speak to the
terminal or hide from the reader. Whatever does not show as itself (control and format
characters, writing direction, blanks that are no space, invisible selectors and tags)
is shown as an escape. A value that is too long is cut around its first difference, never
before it.

The algorithm: equal parts have equal canonical texts, so that only what differs is
looked into. The walk is a loop with a stack of its own. It goes ``MAX_LEVELS`` deep at
the most, and gives a deeper difference as a change of the whole part at that level;
after ``limit`` differences it stops and says so.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mcpx._speedups.frames import elements, members

__all__ = ["Difference", "Differences", "differences", "printable", "render"]

MAX_DIFFERENCES: Final = 100
MAX_LEVELS: Final = 24
MAX_VALUE_CHARS: Final = 200
MAX_PATH_CHARS: Final = 300
#: How much of what is equal is shown before the first difference of a value that is cut.
_LEAD_CHARS: Final = 24

_OBJECT, _ARRAY = 0x7B, 0x5B

#: Characters that Unicode counts among letters and marks and that nobody sees: fillers,
#: the braille blank, joiners, and the variation selectors, which can carry hidden text.
_UNSEEN: Final = frozenset(
    map(
        chr,
        (
            0x034F,
            0x115F,
            0x1160,
            0x17B4,
            0x17B5,
            0x180B,
            0x180C,
            0x180D,
            0x180F,
            0x2800,
            0x3164,
            0xFFA0,
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)


class Difference(NamedTuple):
    """A place that differs.

    ``path`` is a JSON pointer, ``""`` for the whole. ``old`` and ``new`` are canonical
    JSON texts; ``None`` where the place did not exist before, or does not any more.
    """

    path: str
    old: bytes | None
    new: bytes | None


class Differences(NamedTuple):
    """``complete`` is false if there are more than ``found`` holds."""

    found: tuple[Difference, ...]
    complete: bool


def differences(old: bytes, new: bytes, *, limit: int = MAX_DIFFERENCES) -> Differences:
    """Where two canonical texts differ, in the order in which they stand.

    An element of an array is compared with the one at the same place.
    """
    found: list[Difference] = []
    stack: list[tuple[str, int, bytes | None, bytes | None]] = [("", 0, old, new)]
    while stack:
        path, level, before, after = stack.pop()
        if before == after:
            continue
        if before is None or after is None or level >= MAX_LEVELS or not _alike(before, after):
            if len(found) == limit:
                return Differences(tuple(found), complete=False)
            found.append(Difference(path, before, after))
            continue
        befores, afters = _parts(before), _parts(after)
        keys = sorted(befores.keys() | afters.keys(), reverse=True)
        if before[0] == _ARRAY:
            keys.sort(key=int, reverse=True)
        stack += [
            (f"{path}/{name}", level + 1, befores.get(name), afters.get(name))
            for name in keys
            if befores.get(name) != afters.get(name)
        ]
    return Differences(tuple(found), complete=True)


def _alike(before: bytes, after: bytes) -> bool:
    return before[0] == after[0] and before[0] in (_OBJECT, _ARRAY)


def _parts(text: bytes) -> dict[str, bytes]:
    """The members or elements of a container, by the pointer's word for them."""
    if text[0] == _OBJECT:
        return {
            key.replace("~", "~0").replace("/", "~1"): text[start:end]
            for key, start, end in members(text, 0)
        }
    return {str(at): text[start:end] for at, (start, end) in enumerate(elements(text, 0))}


def render(changes: Differences, *, limit_chars: int = MAX_VALUE_CHARS) -> list[str]:
    """One line a difference, safe to print; values are cut to ``limit_chars``."""
    lines = []
    for path, old, new in changes.found:
        place = _cut(printable(path or "/"), 0, MAX_PATH_CHARS)
        before = None if old is None else printable(old.decode())
        after = None if new is None else printable(new.decode())
        if before is None:
            lines.append(f"+ {place}: {_cut(after or '', 0, limit_chars)}")
        elif after is None:
            lines.append(f"- {place}: {_cut(before, 0, limit_chars)}")
        else:
            at = max(0, _common(before, after) - _LEAD_CHARS)
            if len(before) <= limit_chars and len(after) <= limit_chars:
                at = 0
            lines.append(
                f"~ {place}: {_cut(before, at, limit_chars)} -> {_cut(after, at, limit_chars)}"
            )
    if not changes.complete:
        lines.append("… and more")
    return lines


def printable(text: str) -> str:
    """``text`` with an escape (``\\u202e``) for every character that does not show as itself."""
    if text.isprintable() and _UNSEEN.isdisjoint(text):
        return text
    return "".join(
        char if char.isprintable() and char not in _UNSEEN else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _common(one: str, other: str) -> int:
    """How many characters both begin with, by halving: the parts are compared in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, start: int, limit_chars: int) -> str:
    if start == 0 and len(text) <= limit_chars:
        return text
    shown = text[start : start + limit_chars]
    head = "…" if start else ""
    tail = "…" if start + limit_chars < len(text) else ""
    return f"{head}{shown}{tail} ({len(text)} characters)"
