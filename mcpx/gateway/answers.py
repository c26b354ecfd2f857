"""The answers that the gateway gives itself.

What it is: an error of the tree, written for whoever asked. A POST carried a JSON-RPC
message and gets a JSON-RPC error with its id, whatever failed: to a client that speaks
both eras, a bare 4xx would mean that the server knows only the older one. Everything
else gets the plain envelope ``{"error": {"code", "message"}}``.

What it must never do: show a reason that is for the audit alone.
"""

from __future__ import annotations

import msgspec

from mcpx.errors import INTERNAL_ERROR, SERVER_ERROR, GatewayError
from mcpx.gateway.exchange import Exchange
from mcpx.protocol.mcp import error_body
from mcpx.transport.http import Headers

__all__ = ["refusal"]


def refusal(ex: Exchange, error: GatewayError) -> tuple[int, Headers, bytes]:
    """Status, headers and body of ``error`` for the request of ``ex``."""
    headers = ex.common_headers()
    headers.append((b"content-type", b"application/json"))
    headers += error.headers
    request_id = ex.request_id.decode("ascii")
    if ex.request.method != "POST":
        plain = {"code": error.code, "message": error.message, "request_id": request_id}
        return error.status, headers, msgspec.json.encode({"error": plain})
    code = error.rpc_code
    if code == SERVER_ERROR and ex.modern:
        # 2026-07-28 leaves -32000 to -32019 to older implementations.
        code = INTERNAL_ERROR
    data = {"code": error.code, "request_id": request_id, **(error.data or {})}
    message_id = ex.id if ex.id is not None else error.id
    return error.status, headers, error_body(message_id, code, error.message, data)
