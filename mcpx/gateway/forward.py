"""Sending a judged request upstream.

What it is: the request's head as the upstream gets it, and the exchange on its pool.
The body goes as it came: what was judged is what is sent. What it must never do: pass
on the client's credentials, cookies, ``Host`` or ``Origin``, or follow a redirect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from mcpx.core.trace_context import FIELDS
from mcpx.errors import Misconfigured, SessionNotFound
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.state import State
from mcpx.protocol.headers import forwarded_request_headers
from mcpx.protocol.http1 import request_head
from mcpx.services.credentials import Credential
from mcpx.transport.deadlines import Watch
from mcpx.transport.http import Headers
from mcpx.transport.upstream import UpstreamAnswer, UpstreamPool

__all__ = ["asked", "forward", "open_session", "own_request"]

_WANTED: Final = (b"accept", b"application/json, text/event-stream")
_WANTED_STREAM: Final = (b"accept", b"text/event-stream")
#: Answers must be readable here: the policy has a say in lists.
_READABLE: Final = (b"accept-encoding", b"identity")
_MIRRORS: Final = frozenset(
    {b"accept", b"content-type", b"last-event-id", b"mcp-method", b"mcp-name"}
)
#: Methods that change nothing on a server, and may be sent twice.
_REPEATABLE: Final = frozenset(
    {
        "GET",
        "ping",
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "completion/complete",
    }
)


def open_session(ex: Exchange, state: State) -> None:
    """The upstream's session id, from the sealed one that the client sent.

    Raises:
        SessionNotFound: it was not given to this client for this server. The status 404
            tells the client to begin a new session.
    """
    sealed = ex.headers.get(b"mcp-session-id")
    if sealed is None:
        return
    assert ex.route is not None
    session = state.sealer.open(sealed, ex.principal.name, ex.route.name)
    if session is None:
        raise SessionNotFound("no such session; send initialize to begin one")
    ex.session = session


async def forward(ex: Exchange, credential: Credential | None = None) -> UpstreamAnswer:
    """The upstream's answer, its head read. ``credential`` is what the server is shown.

    A credential that the server refuses is renewed, once, and the request sent again:
    a server that refuses a request has not executed it.

    Raises:
        UpstreamError, Overloaded: there is no usable answer.
        CredentialUnavailable: nothing can be shown to the server now.
        Misconfigured: the server has no HTTP endpoint.
    """
    route, watch = ex.route, ex.reply.watch
    assert route is not None
    pool = ex.pools.get(route.name)
    if pool is None or route.url is None:
        raise Misconfigured(
            "this server runs over stdio, which this version does not serve",
            reason="stdio server",
        )
    watch.limit = trio.current_time() + route.timeouts.total_s
    if ex.modern or ex.request.method == "GET":
        # Leaving is cancelling, here; a legacy client may leave and resume.
        watch.gone = ex.reply.hung_up
    method, body = ex.request.method, ex.request.body
    target = _target(ex, route.url.target)
    headers = _headers(ex, route.url.authority, route.forward_headers)
    repeatable = ex.method in _REPEATABLE
    if credential is None:
        message = _message(method, target, headers, body)
        return await pool.exchange(method, message, watch, repeatable=repeatable)
    send = partial(_send, pool, watch, repeatable, method, target, headers, body)
    return await _shown_to(credential, watch, send)


async def own_request(
    ex: Exchange, body: bytes, method: str, credential: Credential | None, watch: Watch
) -> UpstreamAnswer:
    """The answer to a message of the gateway's own, sent in the session of ``ex``.

    It must be one that changes nothing, for it may be sent twice. The caller bounds the
    time.

    Raises: as ``forward``.
    """
    route = ex.route
    assert route is not None
    pool = ex.pools.get(route.name)
    if pool is None or route.url is None:
        raise Misconfigured("this server has no HTTP endpoint", reason="stdio server")
    target = _target(ex, route.url.target)
    headers = [
        (name, value)
        for name, value in _headers(ex, route.url.authority, route.forward_headers)
        # These mirror the message that they came with.
        if name not in _MIRRORS and not name.startswith(b"mcp-param-")
    ]
    headers += [(b"content-type", b"application/json"), _WANTED]
    if ex.modern:
        headers.append((b"mcp-method", method.encode()))

    return await asked(pool, watch, target, headers, body, credential)


async def asked(
    pool: UpstreamPool,
    watch: Watch,
    target: bytes,
    headers: Headers,
    body: bytes,
    credential: Credential | None,
) -> UpstreamAnswer:
    """The answer to a message of the gateway's own, which changes nothing.

    Raises: as ``forward``.
    """
    send = partial(_send, pool, watch, True, "POST", target, headers, body)
    return await (send([]) if credential is None else _shown_to(credential, watch, send))


async def _send(
    pool: UpstreamPool,
    watch: Watch,
    repeatable: bool,  # noqa: FBT001
    method: str,
    target: bytes,
    headers: Headers,
    body: bytes,
    shown: Headers,
) -> UpstreamAnswer:
    message = _message(method, target, headers + shown, body)
    return await pool.exchange(method, message, watch, repeatable=repeatable)


def _message(method: str, target: bytes, headers: Headers, body: bytes) -> bytes:
    length = len(body) if method == "POST" else None
    return request_head(method, target, headers, length=length) + body


async def _shown_to(
    credential: Credential, watch: Watch, send: Callable[[Headers], Awaitable[UpstreamAnswer]]
) -> UpstreamAnswer:
    """The answer to what ``send`` sends with the credential's headers; twice at the most."""
    shown = await _headers_of(credential, watch)
    answer = await send(shown)
    if answer.head.status != 401 or not credential.rejected(shown):
        return answer
    with answer:
        shown = await _headers_of(credential, watch)
    return await send(shown)


async def _headers_of(credential: Credential, watch: Watch) -> Headers:
    # It bounds its wait itself; the exchange's own limit holds as well.
    watch.until(watch.limit, "a credential")
    return await credential.headers()


def _target(ex: Exchange, target: bytes) -> bytes:
    if ex.upstream_path is None and not ex.query:
        return target
    path, mark, own_query = target.partition(b"?")
    if ex.upstream_path is not None:
        path = path.rstrip(b"/") + ex.upstream_path
    query = own_query + (b"&" if own_query and ex.query else b"") + (ex.query or b"")
    return path + (b"?" if mark or query else b"") + query


def _headers(ex: Exchange, authority: bytes, extra: frozenset[bytes]) -> Headers:
    request, received = ex.request, ex.headers
    headers: Headers = [(b"host", authority), *forwarded_request_headers(request.headers, extra)]
    if ex.trace is not None:
        # Its own place in the trace instead of its client's.
        if not FIELDS.isdisjoint(received):
            headers = [pair for pair in headers if pair[0] not in FIELDS]
        headers += ex.trace.outgoing()
    if b"accept" not in received:
        headers.append(_WANTED if request.method == "POST" else _WANTED_STREAM)
    headers.append(_READABLE)
    if ex.session is not None:
        headers.append((b"mcp-session-id", ex.session))
    headers.append((b"x-request-id", ex.request_id))
    if ex.client_ip != "unix":
        headers.append((b"x-forwarded-for", ex.client_ip.encode("ascii", "replace")))
    headers.append((b"x-forwarded-proto", request.scheme.encode()))
    host = received.get(b"host")
    if host is not None:
        headers.append((b"x-forwarded-host", host))
    return headers
