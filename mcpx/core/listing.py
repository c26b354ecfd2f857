"""Leaving out of a listing what its reader may not use.

What it is: given the text of a JSON-RPC response to ``tools/list``, ``prompts/list``,
``resources/list`` or ``resources/templates/list``, cut out the entries that are not
visible. Everything else stays as the server wrote it, byte for byte.

What it must never do: rebuild an entry, or let one pass whose name it can't read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from mcpx._speedups.frames import elements, members, scan, string
from mcpx.core.policy import Kind

__all__ = ["Listing", "filter_listing", "listed_tools"]

#: The result's member that holds the list, the entry's member that names it, its kind.
_LISTS: Final = {
    "tools": ("name", Kind.TOOL),
    "prompts": ("name", Kind.PROMPT),
    "resources": ("uri", Kind.RESOURCE),
    "resourceTemplates": ("uriTemplate", Kind.TEMPLATE),
}
#: Schemas nest deeper than requests do.
MAX_DEPTH: Final = 256


class Listing:
    """A filtered message: its text, the tools that remain, how many entries were hidden."""

    __slots__ = ("body", "hidden", "tools")

    def __init__(self, body: bytes, tools: list[str], hidden: int) -> None:
        self.body = body
        self.tools = tools
        self.hidden = hidden


def filter_listing(body: bytes, visible: Callable[[Kind, str], bool]) -> Listing:
    """``body`` without the entries for which ``visible(kind, name)`` is false.

    A message that is no response, or an error, or whose result holds no list, comes
    back unchanged.

    Raises:
        FrameError: the text can't be read, so that nothing can be said about it.
    """
    frame = scan(body, MAX_DEPTH, of_server=True)
    tools: list[str] = []
    if frame.result is None:
        return Listing(body, tools, 0)
    parts: list[bytes] = []
    copied = hidden = 0
    for key, start, end in members(body, frame.result[0]):
        if key not in _LISTS:
            continue
        name_key, kind = _LISTS[key]
        kept: list[bytes] = []
        dropped = 0
        for entry_start, entry_end in elements(body, start):
            name = _named(body, entry_start, name_key)
            if name is None or not visible(kind, name):
                dropped += 1
                continue
            kept.append(body[entry_start:entry_end])
            if kind is Kind.TOOL:
                tools.append(name)
        if dropped:
            hidden += dropped
            parts += (body[copied:start], b"[", b",".join(kept), b"]")
            copied = end
    if not hidden:
        return Listing(body, tools, 0)
    parts.append(body[copied:])
    return Listing(b"".join(parts), tools, hidden)


def _named(body: bytes, start: int, name_key: str) -> str | None:
    for key, value, end in members(body, start):
        if key == name_key:
            return string(body, (value, end))
    return None


class _Tool(msgspec.Struct):
    name: str


class _Tools(msgspec.Struct):
    tools: list[_Tool] = []


class _Answer(msgspec.Struct):
    result: _Tools


_decode = msgspec.json.Decoder(_Answer).decode


def listed_tools(body: bytes) -> list[str]:
    """The tools that a list names, for labels of metrics; none where it can't be read.

    It hides nothing, so it need not be strict, and costs a fraction of ``filter_listing``.
    """
    try:
        return [tool.name for tool in _decode(body).result.tools]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
