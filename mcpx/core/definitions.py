"""A tool's definition, and which server had it first.

What it is: a tool's definition is its whole object in a listing, in canonical form; two
are the same if their digests are. ``Shadows`` knows the names and descriptions of all
servers' tools, to tell when a server comes with one that another server has already: a
way to be called in that one's place, or to be taken for it.

What it must never do: blame the tool that was there first. Whoever was seen later is told
of; of two seen at one moment, the server whose name comes later.

Names are compared exactly, descriptions without regard to blanks and case, and only those
of ``TELLING_CHARS`` characters or more: two servers may well both say "Adds two numbers."
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, NamedTuple, TypeVar

from mcpx._speedups.canon import canonical
from mcpx._speedups.frames import members, string

__all__ = ["ANY", "Definition", "Shadows", "read_definition"]

MAX_DEFINITION_BYTES: Final = 1024 * 1024
TELLING_CHARS: Final = 40
#: How many definitions' descriptions are remembered, so that they are not looked up again.
REMEMBERED: Final = 20_000

NAME_REASON: Final = "tool has the name of a tool of another server"
DESCRIPTION_REASON: Final = "tool has the description of a tool of another server"

_Key = TypeVar("_Key")


class Definition(NamedTuple):
    """A tool's definition: the SHA-256 of its canonical text, and the text.

    ``canonical`` is empty where the text was too large to keep.
    """

    digest: bytes
    canonical: bytes


#: A pin that holds no definition yet: whatever is seen next is pinned without a word.
ANY: Final = Definition(b"", b"")


def read_definition(raw: bytes) -> Definition:
    """The definition whose JSON text is ``raw``.

    Raises:
        FrameError: it is no JSON text, or nests too deep to be compared.
    """
    text = canonical(raw)
    return Definition(
        hashlib.sha256(text).digest(), text if len(text) <= MAX_DEFINITION_BYTES else b""
    )


class Shadows:
    """Which servers have which tool names and descriptions, and since when.

    One is shared by all servers of a gateway.
    """

    __slots__ = ("_by_server", "_descriptions", "_keys", "_names")

    def __init__(self) -> None:
        self._names: dict[str, dict[str, float]] = {}
        self._descriptions: dict[bytes, dict[str, float]] = {}
        self._by_server: dict[str, list[tuple[str, bytes | None]]] = {}
        self._keys: dict[bytes, bytes | None] = {}

    def claim(self, server: str, tool: str, definition: Definition, since: float) -> None:
        """``server`` has that tool since then (epoch seconds)."""
        description = self._description(definition)
        _hold(self._names, tool, server, since)
        if description is not None:
            _hold(self._descriptions, description, server, since)
        self._by_server.setdefault(server, []).append((tool, description))

    def drop(self, server: str) -> None:
        """Forget what ``server`` has."""
        for tool, description in self._by_server.pop(server, ()):
            _let_go(self._names, tool, server)
            if description is not None:
                _let_go(self._descriptions, description, server)

    def rivals(self, server: str, tool: str, definition: Definition) -> list[tuple[str, str]]:
        """(reason, other server) for what another server had before ``server``."""
        if not self._by_server or self._by_server.keys() == {server}:
            return []
        found = []
        rival = _earlier(self._names.get(tool), server)
        if rival is not None:
            found.append((NAME_REASON, rival))
        description = self._description(definition)
        if description is not None:
            rival = _earlier(self._descriptions.get(description), server)
            if rival is not None:
                found.append((DESCRIPTION_REASON, rival))
        return found

    def _description(self, definition: Definition) -> bytes | None:
        """What stands for the description; ``None`` if it has none that tells it apart."""
        try:
            return self._keys[definition.digest]
        except KeyError:
            pass
        if len(self._keys) >= REMEMBERED:
            self._keys.clear()
        key = self._keys[definition.digest] = _description_key(definition.canonical)
        return key


def _description_key(text: bytes) -> bytes | None:
    if not text:
        return None
    for key, start, end in members(text, 0):
        if key == "description":
            folded = " ".join((string(text, (start, end)) or "").split()).casefold()
            if len(folded) >= TELLING_CHARS:
                return hashlib.sha256(folded.encode()).digest()
    return None


def _hold(held: dict[_Key, dict[str, float]], key: _Key, server: str, since: float) -> None:
    holders = held.setdefault(key, {})
    holders[server] = min(since, holders.get(server, math.inf))


def _let_go(held: dict[_Key, dict[str, float]], key: _Key, server: str) -> None:
    holders = held.get(key)
    if holders is not None:
        holders.pop(server, None)
        if not holders:
            del held[key]


def _earlier(holders: dict[str, float] | None, server: str) -> str | None:
    """The first of the holders, if that is another one than ``server``."""
    if not holders:
        return None
    since, first = min((since, name) for name, since in holders.items())
    own = (holders.get(server, math.inf), server)
    return first if first != server and (since, first) < own else None
