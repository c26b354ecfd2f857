"""The gateway's own pages: ``/health``, ``/servers``, ``/metrics``.

What it is: one function for each page. They are for operators: where clients must
authenticate, so must whoever reads these, unless ``auth.public`` names them. Without a
credential ``/health`` tells its status and nothing else; ``/health/live`` tells that the
process runs, whatever its servers do. What the gateway asks of OAuth clients (RFC 9728)
is for everybody, since nobody has a token yet who reads it. What it must never do: show a credential, or the
parts of a URL that may hold one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from mcpx.config.describe import masked_url
from mcpx.core.oauth import KeysUnavailable
from mcpx.errors import BadRequest, PolicyDenied, Unauthorized, UnknownServer
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.pipeline import METADATA, identify, limit_stranger
from mcpx.gateway.state import State
from mcpx.services.health import Health
from mcpx.services.metrics import CONTENT_TYPE

__all__ = ["pages"]


def pages(state: State, health: Health) -> dict[bytes, Callable[[Exchange], Awaitable[None]]]:
    """Path to page."""

    async def show_health(ex: Exchange) -> None:
        _readable(ex)
        routes = list(ex.snapshot.routes.values())
        try:
            await identify(ex, state)
        except (Unauthorized, KeysUnavailable):
            # What a load balancer needs is no secret; who the servers are is.
            report = await health.public_report(routes)
        else:
            limit_stranger(ex, state)
            known = _is_operator(ex)
            report = await (health.report if known else health.public_report)(routes)
        status = 503 if report["status"] == "unhealthy" else 200
        body = msgspec.json.format(msgspec.json.encode(report), indent=2)
        await _page(ex, status, b"application/json", body)

    async def show_live(ex: Exchange) -> None:
        # Without any limit: who restarts a gateway that doesn't answer must not be told
        # so by the load of others.
        _readable(ex)
        await _page(ex, 200, b"application/json", b'{"status":"alive"}')

    async def show_servers(ex: Exchange) -> None:
        _readable(ex)
        await _authorized(ex, state, "servers")
        listed = [
            {"name": route.name, "url": masked_url(route.server)}
            for route in ex.snapshot.routes.values()
        ]
        await _page(ex, 200, b"application/json", msgspec.json.encode({"servers": listed}))

    async def show_metrics(ex: Exchange) -> None:
        _readable(ex)
        await _authorized(ex, state, "metrics")
        body = await state.metrics.exposition()
        await _page(ex, 200, CONTENT_TYPE, body)

    async def show_metadata(ex: Exchange) -> None:
        _readable(ex)
        oauth = ex.snapshot.oauth
        resource = oauth.documents.get(ex.path) if oauth is not None else None
        if resource is None:
            raise UnknownServer("no protected resource is described at this path")
        limit_stranger(ex, state)
        await _page(ex, 200, b"application/json", resource.metadata)

    return {
        b"/health": show_health,
        b"/health/live": show_live,
        b"/servers": show_servers,
        b"/metrics": show_metrics,
        METADATA: show_metadata,
    }


def _readable(ex: Exchange) -> None:
    if ex.request.method not in ("GET", "HEAD"):
        raise BadRequest("this page is read with GET", status=405, headers=((b"allow", b"GET"),))


async def _authorized(ex: Exchange, state: State, page: str) -> None:
    """Pages are limited by address alone: the traffic of clients can't hide them."""
    if page not in ex.snapshot.public:
        await identify(ex, state)
        if not _is_operator(ex):
            raise PolicyDenied("this page is for operators; `auth.operators` names them")
    limit_stranger(ex, state)


def _is_operator(ex: Exchange) -> bool:
    operators = ex.snapshot.config.auth.operators
    return not operators or ex.principal.name in operators


async def _page(ex: Exchange, status: int, content_type: bytes, body: bytes) -> None:
    ex.outcome, ex.status, ex.allowed = "page", status, True
    headers = ex.common_headers()
    headers += [(b"content-type", content_type), (b"cache-control", b"no-store")]
    await ex.reply.answer(status, headers, body)
