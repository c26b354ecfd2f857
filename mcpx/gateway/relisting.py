"""Listing a server's tools before one of them is called.

What it is: the step that has a tool's definition looked at before the tool is called: by
what was listed before if that is recent, else by a list that the gateway asks for itself,
in the caller's own session, once for all who wait. What it must never do: let a call
through in ``enforce`` because the list could not be had, or pass anything of the list's
answer to a client.
"""

from __future__ import annotations

import logging
import random
from typing import Final

import msgspec
import trio

from mcpx._speedups.frames import members, scan
from mcpx.core.integrity import LISTING_NEEDED, UNVERIFIED_REASON, Mode, ToolIntegrity
from mcpx.core.listing import MAX_DEPTH, Listing, read_listing
from mcpx.errors import (
    FrameError,
    GatewayError,
    RemoteProtocolError,
    ToolRefused,
    UpstreamError,
    UpstreamUnavailable,
)
from mcpx.gateway.breaking import Trial
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.forward import own_request
from mcpx.gateway.server_tools import Observed, ServerTools
from mcpx.gateway.single_flight import Role
from mcpx.gateway.state import LARGE_BYTES, State
from mcpx.protocol.headers import is_event_stream
from mcpx.protocol.sse import EventParser
from mcpx.services.log import Sparingly, event
from mcpx.transport.deadlines import Watch
from mcpx.transport.upstream import UpstreamAnswer

__all__ = ["check_tool"]

log = logging.getLogger("mcpx.tools")

#: How long all pages together may take.
LISTING_S: Final = 15.0
MAX_PAGES: Final = 256
_failures: Final = Sparingly(30.0)


class _Unlisted(UpstreamError):
    """The server answered, and not with a list: a session that has ended, say."""


async def check_tool(ex: Exchange, state: State) -> None:
    """Whether the tool that is called is still the one that was pinned.

    Raises:
        ToolRefused: it is not.
        UpstreamError, UpstreamUnavailable: the server can't be asked, so nobody can say.
    """
    route, tool = ex.route, ex.tool
    if tool is None or ex.method != "tools/call":
        return
    assert route is not None
    tools = state.watcher.servers.get(route.name)
    integrity = tools.integrity if tools is not None else None
    if tools is None or integrity is None:
        return
    reason = integrity.decide_call(tool, state.watcher.clock())
    if reason == LISTING_NEEDED:
        listed_at = await _listed(ex, state, tools, integrity)
        reason = integrity.decide_call(tool, listed_at)
        if reason == LISTING_NEEDED:
            reason = UNVERIFIED_REASON if integrity.mode is Mode.ENFORCE else None
    if reason is None:
        return
    ex.rule = "inspection.tool_integrity"
    if reason == UNVERIFIED_REASON:
        raise UpstreamError(
            "the server's tools could not be listed, so the call was not made", reason=reason
        )
    raise ToolRefused(f'tool "{tool}" is refused on server "{route.name}": {reason}')


async def _listed(
    ex: Exchange, state: State, tools: ServerTools, integrity: ToolIntegrity
) -> float:
    """List the server's tools, once for all who ask for it now; gives when that was.

    Raises:
        UpstreamUnavailable, _Unlisted: in ``enforce``; see ``check_tool``.
    """
    watch = ex.reply.watch
    watch.until(trio.current_time() + 2 * LISTING_S, "upstream list of tools")
    async with state.relisting.join((integrity.server, integrity.generation)) as turn:
        if turn.role is Role.SHARED:
            return turn.value
        try:
            await _list(ex, state, tools, integrity)
        except _Unlisted as error:
            # It may be this session's fault: whoever comes next tries with their own.
            if integrity.mode is Mode.ENFORCE:
                raise
            log.debug("%s: no list of tools in this session: %s", integrity.server, error.reason)
            return state.watcher.clock()
        except GatewayError as error:
            integrity.listing_failed(state.watcher.clock())
            turn.share(state.watcher.clock())
            if _failures.turn(integrity.server, trio.current_time()) is not None:
                event(log, logging.WARNING, "a server's tools can't be listed",
                      server=integrity.server, reason=error.reason)  # fmt: skip
            if isinstance(error, UpstreamUnavailable) and integrity.mode is Mode.ENFORCE:
                raise
            return state.watcher.clock()
        listed_at = state.watcher.clock()
        turn.share(listed_at)
        return listed_at


async def _list(ex: Exchange, state: State, tools: ServerTools, integrity: ToolIntegrity) -> None:
    """Ask for all pages and have them looked at.

    Raises:
        GatewayError: the server does not answer, or not with a list.
    """
    # The exchange's own deadline would end the exchange; this one ends the listing alone.
    watch = Watch(trio.CancelScope())
    generation = integrity.generation
    cursor: str | None = None
    seen: set[str] = set()
    with trio.move_on_after(LISTING_S) as scope:
        for _ in range(MAX_PAGES):
            listing = await _page(ex, state, cursor, watch)
            if not listing.has_tools:
                raise _Unlisted("the server does not list its tools", reason="no list")
            observed = Observed(cursor, generation)
            if len(listing.body) > LARGE_BYTES:
                await trio.to_thread.run_sync(
                    state.watcher.listed, ex, tools, listing, observed, limiter=state.aside
                )
            else:
                state.watcher.listed(ex, tools, listing, observed)
            cursor = listing.next_cursor
            if cursor is None:
                return
            if cursor in seen:
                raise UpstreamError("the server's list of tools has no end", reason="cursor again")
            seen.add(cursor)
    reason = f"more than {LISTING_S:g} s" if scope.cancelled_caught else f"over {MAX_PAGES} pages"
    raise UpstreamError("the server's list of tools can't be had", reason=f"list: {reason}")


async def _page(ex: Exchange, state: State, cursor: str | None, watch: Watch) -> Listing:
    route = ex.route
    assert route is not None
    message_id = b'"mcpx-%032x"' % random.getrandbits(128)
    body = _body(ex, message_id, cursor)
    breaker = state.breakers.get(route.name)
    with Trial(breaker, route.name, watch) as trial:
        credential = state.trust.credentials.get(route.name)
        with await own_request(ex, body, "tools/list", credential, watch) as answer:
            trial.answered(answer.head.status)
            text = await _answer(ex, answer, message_id)
    try:
        if len(text) > LARGE_BYTES:
            return await trio.to_thread.run_sync(read_listing, text, limiter=state.aside)
        return read_listing(text)
    except FrameError as exc:
        raise UpstreamError(
            "the server's list of tools can't be read", reason=f"list: {exc.message}"
        ) from exc


def _body(ex: Exchange, message_id: bytes, cursor: str | None) -> bytes:
    params: list[bytes] = []
    if cursor is not None:
        params.append(b'"cursor":' + msgspec.json.encode(cursor))
    meta = _modern_meta(ex)
    if meta:
        params.append(b'"_meta":' + meta)
    return b'{"jsonrpc":"2.0","id":%s,"method":"tools/list","params":{%s}}' % (
        message_id,
        b",".join(params),
    )


#: What a modern request must say of its sender; the caller's own words.
_SENDER: Final = frozenset(
    "io.modelcontextprotocol/" + name
    for name in ("protocolVersion", "clientInfo", "clientCapabilities")
)


def _modern_meta(ex: Exchange) -> bytes:
    frame, body = ex.frame, ex.request.body
    if not ex.modern or frame is None or frame.meta is None:
        return b""
    told = [
        msgspec.json.encode(key) + b":" + body[start:end]
        for key, start, end in members(body, frame.meta[0])
        if key in _SENDER
    ]
    return b"{" + b",".join(told) + b"}"


async def _answer(ex: Exchange, answer: UpstreamAnswer, message_id: bytes) -> bytes:
    """The response to ``message_id``, whether it comes as JSON or on a stream."""
    limit = ex.snapshot.config.limits.max_listing_bytes
    status = answer.head.status
    if status in (400, 404):
        # 404 tells the client to begin a new session.
        raise _Unlisted(
            "the server does not list its tools in this session",
            reason=f"list: status {status}",
            status=status,
        )
    if status != 200:
        raise UpstreamError(
            "the server's list of tools can't be had", reason=f"list: status {status}"
        )
    content_type = encoding = b""
    for name, value in answer.head.headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-encoding":
            encoding = value.lower()
    if encoding not in (b"", b"identity"):
        raise UpstreamError(
            "the server's list of tools can't be had", reason="unasked content-encoding"
        )
    if is_event_stream(content_type):
        return await _on_stream(answer, message_id, limit)
    parts: list[bytes] = []
    size = 0
    while data := await answer.chunk():
        parts.append(data)
        size += len(data)
        if size > limit:
            raise UpstreamError(
                "the server's list of tools is too large", reason=f"list over {limit} bytes"
            )
    return b"".join(parts)


async def _on_stream(answer: UpstreamAnswer, message_id: bytes, limit: int) -> bytes:
    parser = EventParser(limit)
    size = 0
    try:
        while data := await answer.chunk():
            size += len(data)
            for each in parser.feed(data):
                if each.data and _answers(each.data, message_id):
                    return each.data
            if size > 2 * limit:
                break
    except RemoteProtocolError as exc:
        raise UpstreamError(
            "the server's list of tools is too large", reason=f"list: {exc.message}"
        ) from exc
    raise UpstreamError("the server's list of tools can't be had", reason="no answer on its stream")


def _answers(text: bytes, message_id: bytes) -> bool:
    try:
        frame = scan(text, MAX_DEPTH, of_server=True)
    except FrameError:
        return False
    return frame.kind == "response" and frame.id == message_id
