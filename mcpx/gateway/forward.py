"""Sending a judged request upstream.

What it is: the request's head as the upstream gets it, and the exchange on its pool.
The body goes as it came: what was judged is what is sent. What it must never do: pass
on the client's credentials, cookies, ``Host`` or ``Origin``, or follow a redirect.
"""

from __future__ import annotations

from typing import Final

import trio

from mcpx.errors import Misconfigured, SessionNotFound
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.state import State
from mcpx.protocol.headers import forwarded_request_headers
from mcpx.protocol.http1 import request_head
from mcpx.transport.http import Headers
from mcpx.transport.upstream import UpstreamAnswer

__all__ = ["forward", "open_session"]

_ACCEPT: Final = b"application/json, text/event-stream"
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


async def forward(ex: Exchange) -> UpstreamAnswer:
    """The upstream's answer, its head read.

    Raises:
        UpstreamError, Overloaded: there is no usable answer.
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
    head = request_head(
        ex.request.method,
        _target(ex, route.url.target),
        _headers(ex, route.url.authority, route.forward_headers),
        length=len(ex.request.body) if ex.request.method == "POST" else None,
    )
    return await pool.exchange(
        ex.request.method,
        head + ex.request.body,
        watch,
        repeatable=ex.method in _REPEATABLE,
    )


def _target(ex: Exchange, target: bytes) -> bytes:
    if ex.upstream_path is None and not ex.query:
        return target
    path, mark, own_query = target.partition(b"?")
    if ex.upstream_path is not None:
        path = path.rstrip(b"/") + ex.upstream_path
    query = own_query + (b"&" if own_query and ex.query else b"") + (ex.query or b"")
    return path + (b"?" if mark or query else b"") + query


def _headers(ex: Exchange, authority: bytes, extra: frozenset[bytes]) -> Headers:
    request = ex.request
    headers: Headers = [(b"host", authority)]
    headers += forwarded_request_headers(request.headers, extra)
    if b"accept" not in ex.headers:
        headers.append((b"accept", _ACCEPT if request.method == "POST" else b"text/event-stream"))
    # Answers must be readable here: the policy has a say in lists.
    headers.append((b"accept-encoding", b"identity"))
    if ex.session is not None:
        headers.append((b"mcp-session-id", ex.session))
    headers.append((b"x-request-id", ex.request_id))
    if ex.client_ip != "unix":
        headers.append((b"x-forwarded-for", ex.client_ip.encode("ascii", "replace")))
    headers.append((b"x-forwarded-proto", request.scheme.encode()))
    host = ex.headers.get(b"host")
    if host is not None:
        headers.append((b"x-forwarded-host", host))
    return headers
