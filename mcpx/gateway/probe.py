"""Asking a server whether it speaks MCP.

What it is: one harmless request, ``server/discover``, which a modern server answers with
a result and a legacy one with a JSON-RPC error; either says that MCP is spoken there. It
makes no session and changes nothing. What it must never do: use a client's credential.
"""

from __future__ import annotations

from typing import Final

import msgspec
import trio

from mcpx.config.snapshot import Route
from mcpx.errors import GatewayError, UpstreamError
from mcpx.gateway.forward import asked
from mcpx.gateway.state import State
from mcpx.services.health import ProbeResult, verdict
from mcpx.transport.deadlines import Watch

__all__ = ["probe"]

_VERSION: Final = "2026-07-28"
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": _VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "mcpx-health", "version": "1"},
}
_BODY: Final = msgspec.json.encode(
    {"jsonrpc": "2.0", "id": "health", "method": "server/discover", "params": {"_meta": _META}}
)
_MAX_BYTES: Final = 64 * 1024


async def probe(state: State, route: Route) -> ProbeResult:
    """What the server at ``route`` answers. The caller bounds the time.

    Raises:
        UpstreamError: it can't be reached, or doesn't answer in HTTP.
        CredentialUnavailable: nothing can be shown to it now.
    """
    pool = state.pools.get(route.name)
    if pool is None or route.url is None:
        raise UpstreamError("stdio servers are not served by this version")
    headers = [
        (b"host", route.url.authority),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        (b"accept-encoding", b"identity"),
        (b"mcp-protocol-version", _VERSION.encode()),
        (b"mcp-method", b"server/discover"),
        (b"user-agent", b"mcpx-health"),
    ]
    watch = Watch(trio.CancelScope())
    started = trio.current_time()
    credential = state.trust.credentials.get(route.name)
    with await asked(pool, watch, route.url.target, headers, _BODY, credential) as answer:
        parts: list[bytes] = []
        size = 0
        content_type = b""
        for name, value in answer.head.headers:
            if name == b"content-type":
                content_type = value
        try:
            # A stream may stay open after its answer: what came by then is enough.
            while size < _MAX_BYTES and (data := await answer.chunk()):
                parts.append(data)
                size += len(data)
                if content_type.startswith(b"text/event-stream") and b"\n\n" in data:
                    break
        except GatewayError:
            pass
        return ProbeResult(
            error=verdict(answer.head.status, content_type, b"".join(parts)),
            latency_s=trio.current_time() - started,
        )
