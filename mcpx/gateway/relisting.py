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
    Overloaded,
    RemoteProtocolError,
    ToolRefused,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mcpx.gateway.breaking import Trial
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.forward import own_request
from mcpx.gateway.server_tools import Observed, ServerTools, mode_of
from mcpx.gateway.single_flight import Role
from mcpx.gateway.state import LARGE_BYTES, State
from mcpx.protocol.headers import is_event_stream
from mcpx.protocol.sse import EventParser
from mcpx.services.log import Sparingly, event
from mcpx.transport.deadlines import Watch
from mcpx.transport.upstream import UpstreamAnswer

__all__ = ["WAITING", "check_tool"]

log = logging.getLogger("mcpx.tools")

#: How long all pages together may take.
LISTING_S: Final = 15.0
MAX_PAGES: Final = 256
#: Events of a stream that may come before the answer: each is looked into.
MAX_EVENTS: Final = 1000
#: How often a call asks for a list, where each time something says that it no longer counts.
ATTEMPTS: Final = 3
#: What the exchange's watch says meanwhile. Nothing of the call has been sent then.
WAITING: Final = "the server's list of tools"
_failures: Final = Sparingly(30.0)


class _Unlisted(UpstreamError):
    """The server answered, and not with a list: a session that has ended, say.

    It may be the fault of what the caller sent, so it is told to the caller alone.
    """


class _Failed(UpstreamError):
    """The server answered that it has failed. That, too, can be brought about by a caller."""


async def check_tool(ex: Exchange, state: State) -> None:
    """Whether the tool that is called is still the one that was pinned.

    Raises:
        ToolRefused: it is not.
        UpstreamError, UpstreamUnavailable: the server can't be asked, so nobody can say.
        Overloaded: there is no room to ask it now.
    """
    route, tool = ex.route, ex.tool
    if tool is None or ex.method != "tools/call":
        return
    assert route is not None
    reason = None
    # A server may say that its tools changed while they are listed, and a reload may put
    # other pins in place: then it is asked anew, a bounded number of times.
    for _ in range(ATTEMPTS):
        tools = state.watcher.servers.get(route.name)
        if tools is None:
            # A reload has removed the server since this exchange began; it goes on as it began.
            enforced = mode_of(ex.snapshot.config.inspection) is Mode.ENFORCE
            reason = UNVERIFIED_REASON if enforced else None
            break
        integrity = tools.integrity
        if integrity is None:
            return
        reason = integrity.decide_call(tool, state.watcher.clock())
        if reason != LISTING_NEEDED:
            break
        generation = integrity.generation
        asked_at = await _listed(ex, state, tools, integrity)
        reason = integrity.decide_listed(tool, asked_at)
        if generation == integrity.generation and tools.integrity is integrity:
            break
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
    """List the server's tools, once for all who ask for it now; gives when it was asked.

    Raises:
        UpstreamUnavailable, Overloaded, UpstreamError: in ``enforce``; see ``check_tool``.
    """
    watch = ex.reply.watch
    watch.within(2 * LISTING_S, WAITING)
    async with state.relisting.join((integrity.server, integrity.generation)) as turn:
        if turn.role is Role.SHARED:
            return turn.value
        asked_at = state.watcher.clock()
        try:
            await _list(ex, state, tools, integrity, asked_at)
        except GatewayError as error:
            own = isinstance(error, _Unlisted | _Failed | Overloaded | UpstreamUnavailable)
            if not own:
                _has_failed(state, integrity, error)
            if not own or integrity.mode is not Mode.ENFORCE:
                turn.share(asked_at)
                return asked_at
            if not isinstance(error, _Unlisted):
                # The others may well meet the same, and needn't one after the other.
                turn.decline()
            raise
        turn.share(asked_at)
        return asked_at


def _has_failed(state: State, integrity: ToolIntegrity, error: GatewayError) -> None:
    # A breaker, where there is one, sees to it that the server isn't asked again and again.
    retry_s = 0.0 if integrity.server in state.breakers else None
    integrity.listing_failed(state.watcher.clock(), retry_s=retry_s)
    if _failures.turn(integrity.server, trio.current_time()) is not None:
        event(log, logging.WARNING, "a server's tools can't be listed",
              server=integrity.server, reason=error.reason)  # fmt: skip


async def _list(
    ex: Exchange, state: State, tools: ServerTools, integrity: ToolIntegrity, asked_at: float
) -> None:
    """Ask for all pages and have them looked at.

    Raises:
        GatewayError: the server does not answer, or not with a list.
    """
    # The exchange's own deadline would end the exchange; this one ends the listing alone.
    watch = Watch(trio.CancelScope())
    deadline = trio.current_time() + LISTING_S
    generation = integrity.generation
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        listing = await _page(ex, state, cursor, watch, deadline)
        if not listing.has_tools:
            raise _Unlisted("the server does not list its tools", reason="no list")
        observed = Observed(cursor, generation, asked_at)
        if len(listing.body) > LARGE_BYTES:
            await trio.to_thread.run_sync(
                state.watcher.listed, ex, tools, listing, observed, limiter=state.aside
            )
        else:
            state.watcher.listed(ex, tools, listing, observed)
        # Some servers end their lists with an empty cursor.
        cursor = listing.next_cursor or None
        if cursor is None:
            return
        if cursor in seen:
            raise UpstreamError("the server's list of tools has no end", reason="cursor again")
        seen.add(cursor)
    raise UpstreamError(
        "the server's list of tools can't be had", reason=f"list: over {MAX_PAGES} pages"
    )


async def _page(
    ex: Exchange, state: State, cursor: str | None, watch: Watch, deadline: float
) -> Listing:
    route = ex.route
    assert route is not None
    message_id = b'"mcpx-%032x"' % random.getrandbits(128)
    body = _body(ex, message_id, cursor)
    breaker = state.breakers.get(route.name)
    with Trial(breaker, route.name, watch) as trial:
        credential = state.trust.credentials.get(route.name)
        with trio.move_on_at(deadline):
            with await own_request(ex, body, "tools/list", credential, watch) as answer:
                trial.answered(answer.head.status)
                text = await _answer(ex, state, answer, message_id)
            return await _read(state, text, message_id)
        # Told as what it is, for the breaker to count it, or not to.
        if watch.phase.startswith("upstream"):
            raise UpstreamTimeout(
                "the server did not list its tools in time", reason=f"list: {watch.phase}"
            )
        raise Overloaded("no connection to this server was free to list its tools")


async def _read(state: State, text: bytes, message_id: bytes) -> Listing:
    """The list that ``text`` holds; read on a thread where that takes long."""

    def read() -> Listing:
        if not _answers(text, message_id):
            raise _Unlisted("the server does not list its tools", reason="list: another id")
        return read_listing(text)

    try:
        if len(text) > LARGE_BYTES:
            return await trio.to_thread.run_sync(read, limiter=state.aside)
        return read()
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


async def _answer(ex: Exchange, state: State, answer: UpstreamAnswer, message_id: bytes) -> bytes:
    """The response to ``message_id``, whether it comes as JSON or on a stream."""
    limit = ex.snapshot.config.limits.max_listing_bytes
    status = answer.head.status
    if 400 <= status < 500:
        # 404 tells the client to begin a new session. Others speak of credentials, which are
        # the gateway's own.
        raise _Unlisted(
            "the server does not list its tools in this session",
            reason=f"list: status {status}",
            status=status if status in (400, 404) else None,
        )
    if status != 200:
        kind = _Failed if status >= 500 else UpstreamError
        raise kind("the server's list of tools can't be had", reason=f"list: status {status}")
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
        return await _on_stream(state, answer, message_id, limit)
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


async def _is_answer(state: State, text: bytes, message_id: bytes) -> bool:
    try:
        if len(text) > LARGE_BYTES:
            return await trio.to_thread.run_sync(_answers, text, message_id, limiter=state.aside)
        return _answers(text, message_id)
    except FrameError:
        return False


async def _on_stream(state: State, answer: UpstreamAnswer, message_id: bytes, limit: int) -> bytes:
    parser = EventParser(limit)
    size = events = 0
    try:
        while data := await answer.chunk():
            size += len(data)
            for each in parser.feed(data):
                events += 1
                if events > MAX_EVENTS:
                    raise UpstreamError(
                        "the server's list of tools can't be had", reason="list: too many events"
                    )
                if each.data and await _is_answer(state, each.data, message_id):
                    return each.data
            if size > 2 * limit:
                break
    except RemoteProtocolError as exc:
        raise UpstreamError(
            "the server's list of tools is too large", reason=f"list: {exc.message}"
        ) from exc
    raise UpstreamError("the server's list of tools can't be had", reason="no answer on its stream")


def _answers(text: bytes, message_id: bytes) -> bool:
    """Whether it is the response. Raises FrameError."""
    frame = scan(text, MAX_DEPTH, of_server=True)
    return frame.kind == "response" and frame.id == message_id
