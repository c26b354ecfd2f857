"""Giving the upstream's answer to the client.

What it is: the last part of an exchange. A small answer leaves in one write; a large
one as it comes, no faster than the client takes it; an event stream event by event, for
as long as both sides hold. What it must never do: finish a body that was cut short, or
pass on a redirect, a compressed body or a refusal of the gateway's own credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from mcpx.core.integrity import Mode
from mcpx.core.outcome import read_answer
from mcpx.errors import GatewayError, Overloaded, RemoteProtocolError, UpstreamError
from mcpx.gateway.breaking import Trial
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.inspection import Inspection, answers_another
from mcpx.gateway.server_tools import mode_of
from mcpx.gateway.shares import Share
from mcpx.gateway.state import LARGE_BYTES, State
from mcpx.protocol.headers import forwarded_response_headers, is_event_stream
from mcpx.protocol.mcp import LISTS
from mcpx.transport.http import Headers
from mcpx.transport.upstream import UpstreamAnswer
from mcpx.transport.wire import Broken

__all__ = ["relay"]

#: An answer that arrives in parts is looked into up to this size.
COPY_BYTES: Final = 256 * 1024
_REFUSED: Final = {
    401: "the server refuses the gateway's credentials",
    407: "a proxy before the server refuses the gateway's credentials",
}


async def relay(
    ex: Exchange, state: State, answer: UpstreamAnswer, share: Share, trial: Trial
) -> None:
    """Pass on ``answer``; fills in the exchange's status and outcome.

    Raises:
        UpstreamError: the answer can't be passed on, or ended too early.
        Broken: the client has gone.
    """
    head = answer.head
    content_type, headers = _judged_head(ex, state, answer)
    ex.status = head.status
    if ex.caching is not None:
        headers.append((b"x-mcpx-cache", b"miss"))
        if head.status != 200:
            ex.caching.declines()
    first = answer.arrived()
    if answer.complete and _is_ordinary(ex, content_type):
        first += answer.arrived()
        outcome, astray = read_answer(first, head.status, ex.id)
        if outcome is not None:
            if astray:
                raise answers_another()
            # Most answers: small, whole, and with nothing in them that has to be looked at.
            ex.outcome = outcome
            await ex.reply.answer(head.status, headers, first)
            return
    inspection = _inspection(ex, state, head.status)
    try:
        if is_event_stream(content_type):
            share.becomes_stream()
            if ex.trace is not None:
                ex.trace.stream_begins()
            answer.streams()
            trial.streams()
            await _events(ex, state, answer, headers, inspection, first)
        elif inspection.filters:
            await _filtered(ex, state, answer, headers, inspection, first)
        else:
            await _plain(ex, answer, headers, inspection, first)
    finally:
        inspection.learn()
        if inspection.outcome is not None:
            ex.outcome = inspection.outcome
    if inspection.outcome is None:
        ex.outcome = "ok" if head.status < 400 else "http_error"


def _judged_head(ex: Exchange, state: State, answer: UpstreamAnswer) -> tuple[bytes, Headers]:
    """The content type, and the headers that the client gets."""
    status = answer.head.status
    if 300 <= status < 400 and status != 304:
        raise UpstreamError(
            "the server answers with a redirect, which is not followed; "
            "its operator should put the final address in `url`",
            reason=f"redirect: status {status}",
        )
    if status in _REFUSED:
        raise UpstreamError(_REFUSED[status], reason=f"upstream status {status}")
    assert ex.route is not None
    content_type = b""
    headers = ex.common_headers()
    for name, value in answer.head.headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise UpstreamError(
                "the server compressed its answer although that was not asked for",
                reason="unasked content-encoding",
            )
        elif name == b"mcp-session-id":
            try:
                sealed = state.sealer.seal(value, ex.principal.name, ex.route.name)
            except RemoteProtocolError as exc:
                raise UpstreamError(
                    "the server's session id is not one that MCP knows", reason=exc.message
                ) from exc
            headers.append((name, sealed))
            ex.session = value
    headers += forwarded_response_headers(answer.head.headers)
    return content_type, headers


def _is_ordinary(ex: Exchange, content_type: bytes) -> bool:
    """Whether nothing but the outcome has to be found out of the answer."""
    return (
        ex.caching is None
        and ex.method not in LISTS
        and not _replays(ex)
        and not is_event_stream(content_type)
    )


def _inspection(ex: Exchange, state: State, status: int) -> Inspection:
    config, policy = ex.snapshot.config, ex.policy
    hides = policy is not None and policy.restricts_lists and config.inspection.filter_tools_list
    looks = hides or mode_of(config.inspection) is not Mode.OFF
    assert ex.route is not None
    return Inspection(
        ex,
        state,
        ex.route.name,
        status,
        policy=policy if hides else None,
        listing=ex.method in LISTS or (looks and _replays(ex)),
        replayed=ex.method not in LISTS,
        limit_bytes=config.limits.max_listing_bytes,
    )


def _replays(ex: Exchange) -> bool:
    """Whether an answer to an earlier list request may come again."""
    return (
        ex.request.method == "GET" or ex.method == "tasks/result" or b"last-event-id" in ex.headers
    )


async def _plain(
    ex: Exchange, answer: UpstreamAnswer, headers: Headers, inspection: Inspection, data: bytes
) -> None:
    reply, status = ex.reply, answer.head.status
    if not data and not answer.complete:
        data = await answer.chunk()
    if answer.complete:
        body = inspection.message(data + answer.arrived())
        inspection.ends()
        await reply.answer(status, headers, body)
        return
    if ex.caching is not None:
        # Read whole first: others may wait for it, and this client may be slow.
        parts, size, limit = [data], len(data), ex.caching.limit_bytes
        while data and size <= limit:
            data = await answer.chunk()
            parts.append(data)
            size += len(data)
        data = b"".join(parts)
        if size <= limit:
            body = inspection.message(data)
            inspection.ends()
            await reply.answer(status, headers, body)
            return
        ex.caching.declines()
    # What it says is found out from a copy of its parts, up to a bound, while the last of
    # them is held back: an answer that must not pass is cut.
    copy: list[bytes] = []
    size = 0
    await reply.start(status, headers, answer.head.content_length)
    while data:
        size += len(data)
        if size <= COPY_BYTES:
            copy.append(data)
        else:
            copy.clear()
        following = await _next(ex, answer)
        if not following:
            break
        await reply.write(data)
        data = following
    if copy:
        inspection.message(b"".join(copy))
    elif size:
        inspection.outcome = "unread" if status < 400 else "http_error"
    await reply.write(data)
    await reply.finish()


async def _next(ex: Exchange, answer: UpstreamAnswer) -> bytes:
    """The next bytes of an answer that has begun to leave."""
    try:
        return await answer.chunk()
    except GatewayError:
        # The client has half of it: only the end of the connection can tell.
        ex.reply.abort()
        raise


async def _filtered(
    ex: Exchange,
    state: State,
    answer: UpstreamAnswer,
    headers: Headers,
    inspection: Inspection,
    first: bytes,
) -> None:
    limit = ex.snapshot.config.limits.max_listing_bytes
    parts: list[bytes] = []
    size = 0
    data = first or await answer.chunk()
    while data:
        parts.append(data)
        size += len(data)
        if size > limit:
            raise UpstreamError(
                "the server's list is too large to be filtered", reason=f"list over {limit} bytes"
            )
        data = await answer.chunk()
    body = await _read(state, inspection, inspection.message, b"".join(parts))
    inspection.ends()
    await ex.reply.answer(answer.head.status, headers, body)


async def _read(
    state: State, inspection: Inspection, read: Callable[[bytes], bytes], data: bytes
) -> bytes:
    """What ``read`` makes of ``data``; on a thread where that takes long."""
    if inspection.filters and inspection.held + len(data) > LARGE_BYTES:
        return await trio.to_thread.run_sync(read, data, limiter=state.aside)
    return read(data)


async def _events(
    ex: Exchange,
    state: State,
    answer: UpstreamAnswer,
    headers: Headers,
    inspection: Inspection,
    data: bytes,
) -> None:
    reply, status = ex.reply, answer.head.status
    if answer.complete:
        # The whole stream came at once, as many servers answer quick calls.
        data += answer.arrived()
        passed = await _read(state, inspection, inspection.events, data)
        inspection.ends()
        await reply.answer(status, headers, passed)
        return
    if ex.request.method == "GET" and state.stopping:
        raise Overloaded("the gateway stops")
    left = finished = False
    failure: GatewayError | Broken | None = None
    scope = trio.CancelScope()
    if ex.request.method == "GET":
        # It has no end of its own: when the gateway stops, it ends at once.
        state.open_streams.add(scope)

    async def leave_with_the_client() -> None:
        nonlocal left
        await reply.until_gone()
        left = True
        scope.cancel(reason="the client has left")

    try:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave_with_the_client)
                try:
                    await reply.start(status, headers, None)
                    while True:
                        if data:
                            data = await _read(state, inspection, inspection.events, data)
                        if data:
                            await reply.write(data)
                        data = await answer.chunk()
                        if not data:
                            break
                    inspection.ends()
                    await reply.finish()
                    finished = True
                except (GatewayError, Broken) as exc:
                    # Carried out of the nursery by hand, which would wrap it in a group.
                    failure = exc
                nursery.cancel_scope.cancel(reason="the stream has ended")
    except* trio.Cancelled:
        # Both tasks tell of it, which makes a group; it is told once, just below.
        pass
    finally:
        state.open_streams.discard(scope)
    await trio.lowlevel.checkpoint_if_cancelled()
    if failure is not None:
        reply.abort()
        raise failure
    if left:
        reply.abort()
        raise Broken("the client left the stream")
    if not finished:
        await reply.finish()
