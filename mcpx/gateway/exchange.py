"""One exchange: a request, what was found out about it, and what became of it.

What it is: the value that the pipeline's steps hand on. Each step fills in its part;
the audit line and the metrics are written from it at the end, whatever happened.
What it must never do: decide or wait.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from mcpx._speedups.frames import Frame
from mcpx.config.snapshot import Route, Snapshot
from mcpx.core.identity import ANONYMOUS, Principal
from mcpx.core.oauth import Claims
from mcpx.core.policy import Kind, Policy
from mcpx.services.spans import Trace
from mcpx.transport.http import Headers, Reply, Request
from mcpx.transport.upstream import UpstreamPool

if TYPE_CHECKING:
    from mcpx.gateway.caching import Caching

__all__ = ["Exchange"]

_MAX_REQUEST_ID = 128
_REQUEST_ID = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:/+=@")


class Exchange:
    """A request on its way. ``headers`` maps lower-case names to values."""

    __slots__ = (
        "allowed",
        "cache",
        "caching",
        "claims",
        "client_ip",
        "frame",
        "generation",
        "headers",
        "kind",
        "method",
        "modern",
        "name",
        "outcome",
        "path",
        "policy",
        "pools",
        "principal",
        "query",
        "reason",
        "refused_id",
        "reply",
        "request",
        "request_id",
        "route",
        "rule",
        "session",
        "snapshot",
        "started_s",
        "status",
        "tool",
        "trace",
        "upstream_path",
    )

    def __init__(
        self, request: Request, reply: Reply, snapshot: Snapshot, started_s: float
    ) -> None:
        self.request = request
        self.reply = reply
        self.snapshot = snapshot
        self.started_s = started_s
        self.headers: dict[bytes, bytes] = dict(request.headers)
        self.request_id = _request_id(self.headers.get(b"x-request-id"))
        path, mark, query = request.target.partition(b"?")
        self.path = path
        self.query = query if mark else None
        self.client_ip = request.peer
        #: Its place in a trace, where tracing is on.
        self.trace: Trace | None = None
        self.principal: Principal = ANONYMOUS
        #: What the principal's token says, where a signed token was shown.
        self.claims: Claims | None = None
        self.route: Route | None = None
        self.policy: Policy | None = None
        #: The connections to the servers, of the same moment as the snapshot.
        self.pools: dict[str, UpstreamPool] = {}
        #: What the front door understood, and the id of what it refused.
        self.frame: Frame | None = None
        self.refused_id: bytes | None = None
        self.modern = False
        #: The JSON-RPC method, or the HTTP method where there is no message.
        self.method = request.method
        #: What the request is about: a tool, a prompt, a resource.
        self.kind: Kind | None = None
        self.name: str | None = None
        #: The tool that is called, if one is.
        self.tool: str | None = None
        #: The session id that the upstream knows.
        self.session: bytes | None = None
        self.upstream_path: bytes | None = None
        #: That of the server's tools when a list of them was asked for.
        self.generation: int | None = None
        #: Where the answer is kept, if it may be, and whether it came from there.
        self.caching: Caching | None = None
        self.cache = ""
        # What became of it.
        self.allowed = False
        self.reason = ""
        #: The setting that refused it.
        self.rule = ""
        self.status = 0
        self.outcome = "error"

    @property
    def id(self) -> bytes | None:
        """The raw JSON text of the message's id, also where the message was refused."""
        return self.frame.id if self.frame is not None else self.refused_id

    def common_headers(self) -> Headers:
        """The headers that every answer carries."""
        headers: Headers = [(b"x-request-id", self.request_id)]
        headers += self.snapshot.origins.cors_headers(self.headers.get(b"origin"))
        return headers


def _request_id(given: bytes | None) -> bytes:
    """The client's own request id if it is harmless, else a new one of 16 hex characters."""
    if given and len(given) <= _MAX_REQUEST_ID and _REQUEST_ID.issuperset(given):
        return given
    return b"%016x" % random.getrandbits(64)
