"""Leaving out of a listing what its reader may not use.

What it is: it reads the text of a JSON-RPC response to ``tools/list``, ``prompts/list``,
``resources/list`` or ``resources/templates/list``, and cuts out of it the entries that
are not to be seen. Everything else stays as the server wrote it, byte for byte.

What it must never do: rebuild an entry, or let one pass whose name it can't read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from mcpx._speedups.frames import elements, members, scan, string
from mcpx.core.policy import Kind
from mcpx.errors import INVALID_REQUEST, FrameError

__all__ = ["Entry", "Listing", "listed_tools", "member_text", "read_listing"]

#: The result's member that holds the list, the entry's member that names it, its kind.
_LISTS: Final = {
    "tools": ("name", Kind.TOOL),
    "prompts": ("name", Kind.PROMPT),
    "resources": ("uri", Kind.RESOURCE),
    "resourceTemplates": ("uriTemplate", Kind.TEMPLATE),
}
#: Who reads keys without regard to case takes these for those.
_FOLDED: Final = frozenset(key.casefold() for key in _LISTS)
#: Schemas nest deeper than requests do.
MAX_DEPTH: Final = 256


class Entry(NamedTuple):
    """One entry of a list: its name if it has one, and where it stands."""

    name: str | None
    start: int
    end: int


class _List(NamedTuple):
    kind: Kind
    start: int
    end: int
    entries: list[Entry]


class Listing:
    """A message that was read: its text, and the entries of the lists that it holds.

    ``next_cursor`` is what the answer says its next page is, ``None`` for the last.
    """

    __slots__ = ("_lists", "body", "next_cursor")

    def __init__(self, body: bytes, lists: list[_List], next_cursor: str | None) -> None:
        self.body = body
        self.next_cursor = next_cursor
        self._lists = lists

    @property
    def has_tools(self) -> bool:
        """Whether there is a list of tools, be it an empty one."""
        return any(each.kind is Kind.TOOL for each in self._lists)

    def tools(self) -> list[tuple[str, bytes]]:
        """The tools that have a name, with the JSON texts of their objects."""
        return [
            (entry.name, self.body[entry.start : entry.end])
            for each in self._lists
            if each.kind is Kind.TOOL
            for entry in each.entries
            if entry.name is not None
        ]

    def only(self, keep: Callable[[Kind, str | None], bool]) -> bytes:
        """The text without the entries for which ``keep(kind, name)`` is false."""
        parts: list[bytes] = []
        copied = 0
        for kind, start, end, entries in self._lists:
            kept = [entry for entry in entries if keep(kind, entry.name)]
            if len(kept) != len(entries):
                texts = [self.body[entry.start : entry.end] for entry in kept]
                parts += (self.body[copied:start], b"[", b",".join(texts), b"]")
                copied = end
        if not parts:
            return self.body
        parts.append(self.body[copied:])
        return b"".join(parts)


def read_listing(body: bytes) -> Listing:
    """What a response lists. One that is an error or holds no list has no entries.

    Raises:
        FrameError: the text can't be read, so that nothing can be said about it.
    """
    frame = scan(body, MAX_DEPTH, of_server=True)
    lists: list[_List] = []
    next_cursor = None
    if frame.result is not None:
        for key, start, end in members(body, frame.result[0]):
            if key == "nextCursor":
                next_cursor = string(body, (start, end))
            elif key in _LISTS:
                name_key, kind = _LISTS[key]
                entries = [
                    Entry(member_text(body, at, name_key), at, until)
                    for at, until in elements(body, start)
                ]
                lists.append(_List(kind, start, end, entries))
            elif key.casefold() in _FOLDED:
                raise FrameError("a list's key in another case", INVALID_REQUEST, start, frame.id)
    return Listing(body, lists, next_cursor)


def member_text(body: bytes, start: int, key: str) -> str | None:
    """The text of a member of the object at ``start``; ``None`` if it has no such text."""
    for found, value, end in members(body, start):
        if found == key:
            return string(body, (value, end))
    return None


class _Annotations(msgspec.Struct):
    readOnlyHint: bool = False  # noqa: N815 - the protocol's name


class _Tool(msgspec.Struct):
    name: str
    annotations: _Annotations | None = None


class _Tools(msgspec.Struct):
    tools: list[_Tool] = []


class _Answer(msgspec.Struct):
    result: _Tools


_decode = msgspec.json.Decoder(_Answer).decode


def listed_tools(body: bytes) -> dict[str, bool]:
    """The tools that a list names, and whether they say that they only read.

    For labels of metrics and for the cache; none where it can't be read. It hides
    nothing, so it need not be strict, and costs a fraction of ``read_listing``.
    """
    try:
        tools = _decode(body).result.tools
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return {
        tool.name: tool.annotations is not None and tool.annotations.readOnlyHint for tool in tools
    }
