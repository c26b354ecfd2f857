"""Results of tools, kept for a while and given again.

Pure: the caller passes the time of a monotonic clock in seconds. Nothing here waits,
reads a clock or decides whether a call is allowed: the policy is asked first, each time.
What it must never do: give a result to anybody for whom it was not made, give one after
its time, or keep more than it may.

**Who gets what.** A key is the SHA-256 of its parts, each with its length before it:
server, tool, identity, the whole call in canonical form, and whatever else went up with
it. Identity is part of every key, unless a key is made for ``EVERYBODY`` in so many
words. ``Keys`` holds a caller's own key and, only where sharing was asked for, the common
one. Which of the two a result is kept under is decided when it has come, from what the
server says of it (``cacheScope``, MCP 2026-07-28, "Caching"): a result that is private is
never under the common key, and one that says nothing is only there if the
configuration vouches for it. A cryptographic hash, since callers choose what goes in.

**What is the same call.** Two calls are the same if their params are the same JSON
value: order of keys, blanks and spelling of strings don't matter. Numbers are compared by
their text, so that ``9007199254740993`` is itself and not its neighbour; ``1`` and ``1.0``
are taken for two values, which costs a miss and is never wrong.

**How long.** Exactly to the moment: a result is gone at ``now + ttl_s``. The server's
``ttlMs`` can make that shorter, never longer. A result that was asked for before a purge
and comes after it is not kept: ``tags`` notes, before the request goes out, which purges
there have been.

**How much.** At most ``max_entries`` and ``max_bytes``, a fixed overhead for each entry
included; what was used least recently goes.
"""

from __future__ import annotations

import enum
import json
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256
from math import inf, isfinite
from typing import Final, NamedTuple

from mcpx._speedups.frames import Frame, members, scan, string
from mcpx.errors import FrameError

__all__ = [
    "EVERYBODY",
    "Entry",
    "Everybody",
    "Identity",
    "Keys",
    "ResponseCache",
    "Sharing",
    "Statistics",
    "Storable",
    "Tags",
    "cache_key",
    "cacheable",
    "canonical_call",
    "keys_for",
    "retargeted",
]

#: What an entry costs beside its text: its key, its object, its places in the tables.
ENTRY_OVERHEAD_BYTES: Final = 512

_RELATED_TASK: Final = "io.modelcontextprotocol/related-task"
#: Members of ``_meta`` that differ with each request and tell a server nothing about what
#: is asked. ``baggage`` is not among them: people put tenants into it.
_NOISE: Final = ("progressToken", "traceparent", "tracestate")
_CALL: Final = frozenset({"name", "arguments", "_meta"})
#: Members of a result that say whether it may be given again, and those that only a
#: result has that is not whole (MCP 2026-07-28 "Multi Round-Trip Requests", 2025-11-25
#: "Tasks").
_JUDGING: Final = frozenset({"isError", "resultType", "ttlMs", "cacheScope", "_meta"})
_UNFINISHED: Final = frozenset({"inputRequests", "requestState", "task", "taskId"})
_FOLDED: Final = frozenset(key.casefold() for key in _JUDGING | _UNFINISHED)

# Half a surrogate pair: the front door lets none in, so no string of a client's can be
# taken for a number that is marked with it.
_mark_number = "\ud800".__add__
_read_exactly = json.JSONDecoder(parse_int=_mark_number, parse_float=_mark_number).decode
_write_sorted = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, check_circular=False
).encode


class Identity(NamedTuple):
    """For whom a result is made: a principal, and the upstream's session if there is one."""

    principal: str
    authenticated: bool
    session: bytes | None


class Everybody(enum.Enum):
    """The identity of a key that all principals share."""

    EVERYBODY = "everybody"


EVERYBODY: Final = Everybody.EVERYBODY


class Sharing(enum.Enum):
    """Which results of a tool different principals may be given.

    ``NEVER``: none. ``IF_PUBLIC``: those that the server calls public.
    ``UNLESS_PRIVATE``: also those of which it says nothing, since whoever wrote the
    configuration knows that they are the same for all.
    """

    NEVER = "never"
    IF_PUBLIC = "if public"
    UNLESS_PRIVATE = "unless private"


class Keys(NamedTuple):
    """A caller's own key and, if results may be shared at all, the common one."""

    own: bytes
    shared: bytes | None
    sharing: Sharing

    def place(self, storable: Storable) -> bytes:
        """The key to keep ``storable`` under."""
        if self.shared is None or storable.scope == "private":
            return self.own
        if storable.scope == "public" or self.sharing is Sharing.UNLESS_PRIVATE:
            return self.shared
        return self.own


class Storable(NamedTuple):
    """A result that may be kept: a JSON-RPC response and where its id stands.

    ``ttl_s`` is how long the server lets it be kept (``inf`` if it says nothing) and
    ``scope`` its ``cacheScope``, ``None`` if it says nothing. An unknown scope counts as
    private.
    """

    text: bytes
    id_start: int
    id_end: int
    ttl_s: float = inf
    scope: str | None = None


class Tags(NamedTuple):
    """Whose result it is, and how many purges there had been when it was asked for."""

    server: str
    tool: str
    purges: int


class Entry:
    """A result that is kept. ``text`` is the response with the id of who asked first."""

    __slots__ = ("expires_s", "id_end", "id_start", "server", "stored_s", "text", "tool")

    def __init__(self, body: Storable, tags: Tags, stored_s: float, expires_s: float) -> None:
        self.text = body.text
        self.id_start = body.id_start
        self.id_end = body.id_end
        self.server = tags.server
        self.tool = tags.tool
        self.stored_s = stored_s
        self.expires_s = expires_s

    @property
    def weight_bytes(self) -> int:
        """What it counts against ``max_bytes``."""
        return len(self.text) + len(self.server) + len(self.tool) + ENTRY_OVERHEAD_BYTES

    def age_s(self, now: float) -> float:
        """How long it has been kept: the value of ``Age``, rounded down by the caller."""
        return max(0.0, now - self.stored_s)


class Statistics(NamedTuple):
    """Counts since the start, and what is kept now. ``bytes`` includes the overhead."""

    hits: int
    misses: int
    evictions: int
    expirations: int
    entries: int
    bytes: int


def retargeted(entry: Entry | Storable, id_raw: bytes) -> bytes:
    """The response as an answer to the request whose id has the JSON text ``id_raw``."""
    text = memoryview(entry.text)
    return b"".join((text[: entry.id_start], id_raw, text[entry.id_end :]))


def canonical_call(body: bytes, frame: Frame) -> bytes | None:
    """The params of a ``tools/call`` in canonical form, for ``cache_key``.

    ``frame`` is what the front door found in ``body``. ``None``: the answer depends on
    more than is said here (a task, answers to questions, members that are not known),
    so the cache must be left out altogether.
    """
    if frame.kind != "request" or frame.method != "tools/call" or frame.params is None:
        return None
    params = _read_exactly(body[frame.params[0] : frame.params[1]].decode())
    if not _CALL.issuperset(params):
        return None
    meta = params.get("_meta")
    if meta is not None:
        if _RELATED_TASK in meta:
            return None
        for name in _NOISE:
            meta.pop(name, None)
        if not meta:
            del params["_meta"]
    return _write_sorted(params).encode("ascii")


def cache_key(
    server: str,
    tool: str,
    identity: Identity | Everybody,
    canonical_args: bytes,
    extras: Iterable[bytes] = (),
) -> bytes:
    """The key of a call, 32 bytes.

    ``extras`` is what else went up and may change the answer: the protocol version, the
    values of forwarded headers with their names, a query. Their order counts.
    """
    if identity is EVERYBODY:
        whose: tuple[bytes, ...] = (b"everybody",)
    else:
        assert isinstance(identity, Identity)
        session = identity.session
        whose = (
            b"authenticated" if identity.authenticated else b"anonymous",
            identity.principal.encode("utf-8", "surrogatepass"),
            b"no session" if session is None else b"session",
            session or b"",
        )
    parts = [
        server.encode("utf-8", "surrogatepass"),
        tool.encode("utf-8", "surrogatepass"),
        # Its own length tells an identity of one part from one of four.
        b"".join(_prefixed(part) for part in whose),
        canonical_args,
        *extras,
    ]
    return sha256(b"".join([_prefixed(part) for part in parts])).digest()


def _prefixed(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + part


def keys_for(
    server: str,
    tool: str,
    identity: Identity,
    canonical_args: bytes,
    extras: tuple[bytes, ...] = (),
    *,
    sharing: Sharing = Sharing.NEVER,
) -> Keys:
    """The keys to look a call up under.

    Ask for sharing only where the policy is the same for all who may call.
    """
    own = cache_key(server, tool, identity, canonical_args, extras)
    if sharing is Sharing.NEVER:
        return Keys(own, None, sharing)
    return Keys(own, cache_key(server, tool, EVERYBODY, canonical_args, extras), sharing)


def cacheable(
    body: bytes, status: int, content_type: bytes, *, request_id: bytes, limit_bytes: int
) -> Storable | str:
    """The answer in ``body`` as something to keep, or why it can't be kept.

    ``request_id`` is the raw id of the request that it answers: a response to another one
    is not kept. Of an event stream, pass the one response that it consisted of, with the
    type ``application/json``; a stream that held anything else can't be given again.
    """
    if status != 200:
        return "status"
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        return "content type"
    if len(body) > limit_bytes:
        return "too large"
    try:
        frame = scan(body)
    except FrameError:
        return "not a message"
    if frame.kind != "response" or frame.id_span is None or frame.id is None:
        return "not a response"
    if frame.result is None:
        return "an error"
    if not _same_id(frame.id, request_id):
        return "another request's response"
    return _judged(body, frame.id_span, frame.result[0])


def _same_id(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    text = string(one, (0, len(one)))
    return text is not None and text == string(other, (0, len(other)))


def _judged(body: bytes, id_span: tuple[int, int], start: int) -> Storable | str:
    """What the result at ``start`` says about being kept."""
    if body[start] != 0x7B:
        return "not a result"
    ttl_s, scope = inf, None
    for key, begin, end in members(body, start):
        if key in _UNFINISHED:
            return "not complete"
        if key not in _JUDGING:
            if key.casefold() in _FOLDED:
                # Readers that don't mind the case would take it for the real one.
                return "an ambiguous key"
            continue
        raw = body[begin:end]
        if key == "isError":
            if raw != b"false":
                return "a tool's error"
        elif key == "resultType":
            if string(body, (begin, end)) != "complete":
                return "not complete"
        elif key == "ttlMs":
            ttl_s = _seconds(raw)
            if not ttl_s > 0:
                return "ttlMs"
        elif key == "cacheScope":
            scope = "public" if string(body, (begin, end)) == "public" else "private"
        elif any(name == _RELATED_TASK for name, _, _ in members(body, begin)):
            return "not complete"
    return Storable(body, id_span[0], id_span[1], ttl_s, scope)


def _seconds(raw: bytes) -> float:
    """Milliseconds as they stand in JSON; 0 for anything that is no number above 0."""
    if raw[:1] not in b"0123456789":
        return 0.0
    # ``inf`` for a number that no float holds, which is as good as saying nothing.
    return float(raw) / 1000


class ResponseCache:
    """The results that are kept, least recently used first.

    ``max_entries``, ``max_bytes`` (of all, overhead included) and ``max_body_bytes`` (of
    one response) must be 1 or more, else ValueError. Not for use from several threads.
    """

    __slots__ = (
        "_all_purged",
        "_by_tool",
        "_bytes",
        "_entries",
        "_evictions",
        "_expirations",
        "_hits",
        "_max_bytes",
        "_max_entries",
        "_misses",
        "_purged",
        "_purges",
        "max_body_bytes",
    )

    def __init__(self, max_entries: int, max_bytes: int, max_body_bytes: int) -> None:
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        #: Server to tool to keys, so that a purge costs what it removes and no more.
        self._by_tool: dict[str, dict[str, set[bytes]]] = {}
        self._bytes = 0
        self._hits = self._misses = self._evictions = self._expirations = 0
        #: Purges so far, and which of them was the last for all and for each server.
        self._purges = 0
        self._all_purged = 0
        self._purged: dict[str, int] = {}
        self.resize(max_entries, max_bytes, max_body_bytes)

    def __len__(self) -> int:
        """How many results are kept, those included whose end nobody has noticed yet."""
        return len(self._entries)

    @property
    def statistics(self) -> Statistics:
        """What has happened and what is kept."""
        return Statistics(
            self._hits,
            self._misses,
            self._evictions,
            self._expirations,
            len(self._entries),
            self._bytes,
        )

    def get(self, key: bytes, now: float) -> Entry | None:
        """The result under ``key``, or ``None``; counted as a hit or a miss."""
        entry = self._look(key, now)
        if entry is None:
            self._misses += 1
        else:
            self._hits += 1
        return entry

    def find(self, keys: Keys, now: float) -> Entry | None:
        """The caller's own result, else a shared one; one hit or one miss."""
        entry = self._look(keys.own, now)
        if entry is None and keys.shared is not None:
            entry = self._look(keys.shared, now)
        if entry is None:
            self._misses += 1
        else:
            self._hits += 1
        return entry

    def tags(self, server: str, tool: str) -> Tags:
        """What ``put`` wants to know. Take them before the request goes out."""
        return Tags(server, tool, self._purges)

    def put(self, key: bytes, body: Storable, ttl_s: float, now: float, tags: Tags) -> bool:
        """Keep ``body`` for ``ttl_s``, or for as long as its server allows if that is less.

        ``False`` if it is not kept: too large, no time left, or purged since ``tags``
        were taken. What stood under ``key`` before stays then, if anything did.
        """
        ttl_s = min(ttl_s, body.ttl_s)
        if not (ttl_s > 0 and isfinite(ttl_s)) or len(body.text) > self.max_body_bytes:
            return False
        if tags.purges < max(self._all_purged, self._purged.get(tags.server, 0)):
            return False
        entry = Entry(body, tags, now, now + ttl_s)
        if entry.weight_bytes > self._max_bytes or entry.expires_s <= now:
            return False
        if key in self._entries:
            self._remove(key)
        self._entries[key] = entry
        self._bytes += entry.weight_bytes
        self._by_tool.setdefault(tags.server, {}).setdefault(tags.tool, set()).add(key)
        self._forget_ended(now)
        self._fit()
        return True

    def keep(self, keys: Keys, body: Storable, ttl_s: float, now: float, tags: Tags) -> bool:
        """``put`` under the key that is right for ``body``."""
        return self.put(keys.place(body), body, ttl_s, now, tags)

    def purge(self) -> int:
        """Forget everything; gives how much that was."""
        count = len(self._entries)
        self._purges += 1
        self._all_purged = self._purges
        self._purged.clear()
        self._entries.clear()
        self._by_tool.clear()
        self._bytes = 0
        return count

    def purge_server(self, server: str) -> int:
        """Forget the results of one server; gives how many there were."""
        self._note_purge(server)
        tools = self._by_tool.get(server, {})
        return self._remove_all([key for keys in tools.values() for key in keys])

    def purge_tool(self, server: str, tool: str) -> int:
        """Forget the results of one tool; gives how many there were.

        What is under way for other tools of the server isn't kept either, when it comes.
        """
        self._note_purge(server)
        return self._remove_all(list(self._by_tool.get(server, {}).get(tool, ())))

    def resize(self, max_entries: int, max_bytes: int, max_body_bytes: int) -> None:
        """Take other limits; what doesn't fit any more goes, least recently used first."""
        if max_entries < 1 or max_bytes < 1 or max_body_bytes < 1:
            raise ValueError("a cache's limits must be 1 or more")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.max_body_bytes = max_body_bytes
        large = [key for key, entry in self._entries.items() if len(entry.text) > max_body_bytes]
        self._evictions += self._remove_all(large)
        self._fit()

    def _look(self, key: bytes, now: float) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.expires_s:
            self._remove(key)
            self._expirations += 1
            return None
        self._entries.move_to_end(key)
        return entry

    def _forget_ended(self, now: float) -> None:
        """Drop from the old end what has ended, so that it needn't be pushed out."""
        while now >= (oldest := next(iter(self._entries.items())))[1].expires_s:
            self._remove(oldest[0])
            self._expirations += 1

    def _fit(self) -> None:
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self._evictions += 1

    def _note_purge(self, server: str) -> None:
        self._purges += 1
        self._purged[server] = self._purges

    def _remove_all(self, keys: list[bytes]) -> int:
        for key in keys:
            self._remove(key)
        return len(keys)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        self._bytes -= entry.weight_bytes
        tools = self._by_tool[entry.server]
        keys = tools[entry.tool]
        keys.discard(key)
        if not keys:
            del tools[entry.tool]
            if not tools:
                del self._by_tool[entry.server]
