"""One tree of errors, each with a stable code, an HTTP status and what to do next.

Local and Remote are kept apart: a *local* error is a fault of this program, a
*remote* one is a fault of a peer. What a client may see is a ``GatewayError``;
its message never names an internal address, a path of this machine or a secret.

``code`` is the stable name that programs match on, ``status`` the HTTP status and
``rpc_code`` the JSON-RPC code (JSON-RPC 2.0 section 5.1; MCP 2026-07-28 "Error
Codes" for -32020 to -32022).
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "FrameError",
    "GatewayError",
    "LocalProtocolError",
    "McpxError",
    "RemoteProtocolError",
]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
HEADER_MISMATCH = -32020


class McpxError(Exception):
    """The root. Nothing raises it itself."""


class ConfigError(McpxError):
    """A configuration that can't be used, said so that its author can mend it.

    ``problems`` holds one finished line each: ``file:line:column: path: what is
    wrong; what to write instead``.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LocalProtocolError(McpxError):
    """This program broke a protocol's rules. Always a bug here."""


class RemoteProtocolError(McpxError):
    """A peer broke a protocol's rules. ``status`` is the HTTP answer it should get."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class FrameError(McpxError):
    """A JSON-RPC text that the front door refuses.

    ``rpc_code`` is -32700 (not JSON as RFC 8259 has it), -32600 (JSON, but no
    message) or -32602 (a message whose params can't be judged). ``id`` is the raw
    JSON text of the message's id where it was understood before the fault, so that
    the refusal can be told to the one who asked.
    """

    def __init__(
        self, message: str, rpc_code: int, offset: int = 0, id: bytes | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.rpc_code = rpc_code
        self.offset = offset
        self.id = id


class GatewayError(McpxError):
    """An answer that the gateway itself gives. Raised in the pipeline, written once.

    ``outcome`` is the word for it in the audit log and ``reason`` the audit's text,
    which may say more than ``message``, the client's.
    """

    code = "internal"
    status = 500
    rpc_code = INTERNAL_ERROR
    outcome = "error"
    #: What every answer of a kind carries.
    own_headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        rpc_code: int | None = None,
        status: int | None = None,
        data: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason if reason is not None else message
        self.headers = self.own_headers + headers
        self.data = data
        #: The id of the message that is refused, where only the refusal knows it.
        self.id: bytes | None = None
        if rpc_code is not None:
            self.rpc_code = rpc_code
        if status is not None:
            self.status = status


class Unauthorized(GatewayError):
    """No credential, or none that is known."""

    code, status, rpc_code, outcome = "unauthorized", 401, SERVER_ERROR, "unauthorized"


class PolicyDenied(GatewayError):
    """The policy says no."""

    code, status, rpc_code, outcome = "policy_denied", 403, INVALID_REQUEST, "denied"


class ToolRefused(PolicyDenied):
    """The tool is not the one that was pinned."""

    code = "tool_refused"


class MethodNotFound(GatewayError):
    """A method that this server's policy does not know, told as its era wants it told."""

    code, status, rpc_code, outcome = "method_not_found", 404, METHOD_NOT_FOUND, "denied"


class OriginRefused(GatewayError):
    """A browser page or a rebound name that has no business here."""

    code, status, rpc_code, outcome = "origin_refused", 403, INVALID_REQUEST, "refused"


class RateLimited(GatewayError):
    """Too many requests; ``Retry-After`` says when to come back."""

    code, status, rpc_code, outcome = "rate_limited", 429, SERVER_ERROR, "limited"


class BadRequest(GatewayError):
    """A request that can't be understood; nothing was forwarded."""

    code, status, rpc_code, outcome = "bad_request", 400, INVALID_REQUEST, "refused"


class HeaderMismatch(GatewayError):
    """A header says something else than the body that was judged."""

    code, status, rpc_code, outcome = "header_mismatch", 400, HEADER_MISMATCH, "refused"


class UnknownServer(GatewayError):
    """No server, or no endpoint, of that name."""

    code, status, rpc_code, outcome = "unknown_server", 404, SERVER_ERROR, "unknown"


class SessionNotFound(GatewayError):
    """A session id that this gateway did not give to this principal; start anew."""

    code, status, rpc_code, outcome = "session_not_found", 404, SERVER_ERROR, "refused"


class Overloaded(GatewayError):
    """No room now; nothing was forwarded."""

    code, status, rpc_code, outcome = "overloaded", 503, SERVER_ERROR, "shed"
    own_headers = ((b"retry-after", b"1"),)


class Misconfigured(GatewayError):
    """The configuration names something that can't be served."""

    code, status, rpc_code, outcome = "gateway_misconfigured", 503, SERVER_ERROR, "error"


class UpstreamUnavailable(GatewayError):
    """The server has failed too often and is left alone for now; nothing reached it."""

    code, status, rpc_code, outcome = "upstream_unavailable", 503, SERVER_ERROR, "unavailable"


class UpstreamError(GatewayError):
    """The server was reached and its answer can't be used."""

    code, status, rpc_code, outcome = "upstream_error", 502, SERVER_ERROR, "upstream_error"


class UpstreamBroken(UpstreamError):
    """The server could not be reached, broke off, or does not speak HTTP: its own failure."""


class UpstreamTimeout(GatewayError):
    """The server did not answer in time; the call may or may not have run."""

    code, status, rpc_code, outcome = "upstream_timeout", 504, SERVER_ERROR, "timeout"
