"""Giving a result again: the cache around one call.

What it is: for a call of a tool that is cached, the look into the cache, the waiting for
a like call that is under way, and the keeping of what the server answers. The policies
were asked before, for this very request. What it must never do: keep an answer that is not
whole, is not the answer to this call, or was on its way while the server said that its
tools changed.

Calls whose text is longer than ``LARGE_BYTES`` go by the cache: their canonical form would
have others wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from mcpx.core.response_cache import (
    Identity,
    Keys,
    ResponseCache,
    Sharing,
    Storable,
    Tags,
    cacheable,
    canonical_call,
    keys_for,
    retargeted,
)
from mcpx.errors import GatewayError
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.single_flight import Role, Turn
from mcpx.gateway.state import LARGE_BYTES, State
from mcpx.protocol.headers import forwarded_request_headers

__all__ = ["Caching", "answered", "caching_of"]

#: Fields that differ with each request and have no say in a tool's result. Those that mirror
#: the message are in its canonical form.
_NO_SAY: Final = frozenset(
    {
        b"accept",
        b"content-type",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"traceparent",
        b"tracestate",
        b"user-agent",
    }
)


class Caching:
    """One call that may be answered from the cache, and whose answer may be kept."""

    __slots__ = ("_cache", "_message", "_several", "_tags", "_ttl_s", "_turn", "keys")

    def __init__(self, cache: ResponseCache, keys: Keys, tags: Tags, ttl_s: float) -> None:
        self.keys = keys
        self._cache = cache
        self._tags = tags
        self._ttl_s = ttl_s
        self._turn: Turn[Storable] | None = None
        self._message: bytes | None = None
        self._several = False

    @property
    def flight(self) -> tuple[bytes, int]:
        """Calls that have the same may wait for one of them."""
        return self.keys.own, self._tags.purges

    @property
    def limit_bytes(self) -> int:
        """The largest answer that is kept."""
        return self._cache.max_body_bytes

    def goes(self, turn: Turn[Storable]) -> None:
        """This call goes to the server, by ``turn``."""
        self._turn = turn

    def message(self, text: bytes) -> None:
        """A message of the answer. More than one can't be given again."""
        if self._message is None and not self._several:
            self._message = text
        else:
            self._several = True
            self.declines()

    def ends(self, ex: Exchange, status: int) -> None:
        """The answer has been read to its end: keep it, and share it, if that may be."""
        turn, text, request_id = self._turn, self._message, ex.id
        self._message = None
        if turn is None or text is None or request_id is None:
            self.declines()
            return
        limit = self._cache.max_body_bytes
        found = cacheable(
            text, status, b"application/json", request_id=request_id, limit_bytes=limit
        )
        if not isinstance(found, Storable):
            self.declines()
            return
        self._turn = None
        self._cache.keep(self.keys, found, self._ttl_s, trio.current_time(), self._tags)
        turn.share(found)

    def declines(self) -> None:
        """What the server answers is for this call alone."""
        self._message = None
        if self._turn is not None:
            self._turn.decline()
            self._turn = None


def caching_of(ex: Exchange, state: State) -> Caching | None:
    """The caching of this call; ``None`` if it goes by the cache."""
    cache, route, frame, tool = state.cache, ex.route, ex.frame, ex.tool
    if cache is None or ex.method != "tools/call" or tool is None or frame is None:
        return None
    assert route is not None
    settings = route.server.cache
    own = settings.tools.get(tool)
    if own is None and not (settings.read_only_tools and _only_reads(state, route.name, tool)):
        return None
    if len(ex.request.body) > LARGE_BYTES or not _takes_json(ex.headers.get(b"accept")):
        return None
    form = canonical_call(ex.request.body, frame)
    if form is None:
        return None
    ttl_s = own.ttl if own is not None and own.ttl is not None else _default_ttl_s(ex)
    if not ttl_s > 0:
        return None
    keys = keys_for(
        route.name,
        tool,
        Identity(ex.principal.name, ex.principal.authenticated, ex.session),
        form,
        _extras(ex),
        sharing=Sharing.UNLESS_PRIVATE if own is not None and own.shared else Sharing.IF_PUBLIC,
    )
    return Caching(cache, keys, cache.tags(route.name, tool), ttl_s)


def _only_reads(state: State, server: str, tool: str) -> bool:
    tools = state.watcher.servers.get(server)
    return tools is not None and tool in tools.read_only


def _default_ttl_s(ex: Exchange) -> float:
    return ex.snapshot.config.cache.default_ttl


def _takes_json(accept: bytes | None) -> bool:
    """Whether an answer in JSON may be given, whatever form the server's had."""
    if accept is None:
        return True
    kinds = {part.partition(b";")[0].strip().lower() for part in accept.split(b",")}
    return not kinds.isdisjoint((b"application/json", b"application/*", b"*/*"))


def _extras(ex: Exchange) -> tuple[bytes, ...]:
    """What else goes up with the call, and may change its result."""
    route = ex.route
    assert route is not None
    extras = [b"path", ex.upstream_path or b"", b"query", ex.query or b""]
    for name, value in forwarded_request_headers(ex.request.headers, route.forward_headers):
        if name not in _NO_SAY:
            extras += (name, value)
    return tuple(extras)


async def answered(
    ex: Exchange, state: State, caching: Caching, upstream: Callable[[], Awaitable[None]]
) -> None:
    """Answer from the cache, or with what a like call brings, or by ``upstream``.

    Raises:
        Overloaded: as many as may wait for such a call do.
        GatewayError: what ``upstream`` raises.
    """
    assert state.cache is not None
    route, watch = ex.route, ex.reply.watch
    assert route is not None
    now = trio.current_time()
    entry = state.cache.find(caching.keys, now)
    if entry is not None:
        await _again(ex, retargeted(entry, ex.id or b"null"), entry.age_s(now))
        return
    watch.until(now + route.timeouts.total_s, "the answer to a like call")
    watch.gone = ex.reply.hung_up
    async with state.flight.join(caching.flight) as turn:
        watch.gone = None
        if turn.role is Role.SHARED:
            await _again(ex, retargeted(turn.value, ex.id or b"null"), 0.0)
            return
        caching.goes(turn)
        ex.caching, ex.cache = caching, "miss"
        try:
            await upstream()
        except GatewayError:
            # The others would meet the same one after the other.
            caching.declines()
            raise


async def _again(ex: Exchange, body: bytes, age_s: float) -> None:
    ex.cache, ex.status, ex.outcome = "hit", 200, "ok"
    headers = ex.common_headers()
    headers += [
        (b"content-type", b"application/json"),
        (b"x-mcpx-cache", b"hit"),
        (b"age", b"%d" % age_s),
    ]
    await ex.reply.answer(200, headers, body)
