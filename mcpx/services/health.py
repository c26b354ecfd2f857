"""How the servers behind the gateway are: asked together, told to many.

What it is: one round of probes, its finding kept for a while, and the report made of it.
``verdict`` says what an answer to a probe means. What it must never do: let whoever asks
for ``/health`` make the gateway ask its servers more often than once in ``cache_ttl_s``,
or tell somebody without a credential more than one word.

A server is healthy if it speaks MCP to the gateway, which a status below 500 alone does
not show: a login page, a redirect or another program's 404 has that too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import trio

from mcpx.config.describe import masked_url
from mcpx.errors import RemoteProtocolError
from mcpx.protocol.sse import EventParser
from mcpx.services.audit_record import timestamp
from mcpx.services.recent import Recent

if TYPE_CHECKING:
    from mcpx.config.snapshot import Route

__all__ = ["Health", "ProbeResult", "duration_text", "verdict"]

MAX_PROBES: Final = 16
#: An error text is cut here: part of it may come from a server.
MAX_ERROR: Final = 300


class ProbeResult(NamedTuple):
    """What a probe found: an empty ``error`` is a healthy server."""

    error: str
    latency_s: float | None = None


class _Finding(NamedTuple):
    result: ProbeResult
    checked_at: str


class Health:
    """Findings about servers.

    ``probe`` asks one server and raises or returns; it is given ``timeout_s``. ``clock``
    is monotonic and counts the uptime from the construction on, ``now`` is the time of
    day; both in seconds.
    """

    def __init__(
        self,
        probe: Callable[[Route], Awaitable[ProbeResult]],
        *,
        cache_ttl_s: float,
        timeout_s: float,
        version: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._probe = probe
        self._timeout_s = timeout_s
        self._version = version
        self._clock = clock
        self._now = now
        self._started = clock()
        self._recent: Recent[list[_Finding]] = Recent(cache_ttl_s)

    def configure(self, *, cache_ttl_s: float, timeout_s: float) -> None:
        """Other settings, from the next round of probes on."""
        self._recent.ttl_s = cache_ttl_s
        self._timeout_s = timeout_s

    async def report(self, routes: Sequence[Route]) -> dict[str, Any]:
        """Everything about every server, ready for JSON; for those who may know it.

        ``status`` is ``healthy`` (all are, or there are none), ``unhealthy`` (none is) or
        ``degraded``. ``error`` texts may name internal addresses.
        """
        findings = await self._find(routes)
        return {
            "status": _status(findings),
            "version": self._version,
            "uptime": duration_text(self._clock() - self._started),
            "servers": [_entry(r, f) for r, f in zip(routes, findings, strict=True)],
            "timestamp": timestamp(self._now()),
        }

    async def public_report(self, routes: Sequence[Route]) -> dict[str, Any]:
        """The status and nothing else, for everybody."""
        return {"status": _status(await self._find(routes))}

    async def _find(self, routes: Sequence[Route]) -> list[_Finding]:
        return await self._recent.get(routes, lambda: self._round(routes))

    async def _round(self, routes: Sequence[Route]) -> list[_Finding]:
        """Probe every server, ``MAX_PROBES`` of them at one time."""
        findings: dict[int, _Finding] = {}
        left = iter(enumerate(routes))

        async def work() -> None:
            for index, route in left:
                findings[index] = await self._one(route)

        async with trio.open_nursery() as nursery:
            for _ in range(min(MAX_PROBES, len(routes))):
                nursery.start_soon(work)
        return [findings[index] for index in range(len(routes))]

    async def _one(self, route: Route) -> _Finding:
        started = trio.current_time()
        error = f"unreachable: no answer within {self._timeout_s:g} s"
        latency_s: float | None = None
        with trio.move_on_after(self._timeout_s):
            try:
                result = await self._probe(route)
            except Exception as exc:
                error = f"unreachable: {getattr(exc, 'reason', None) or type(exc).__name__}"
            else:
                error, latency_s = result
                if latency_s is None:
                    latency_s = trio.current_time() - started
        return _Finding(ProbeResult(error[:MAX_ERROR], latency_s), timestamp(self._now()))


def _status(findings: Sequence[_Finding]) -> str:
    failed = sum(1 for finding in findings if finding.result.error)
    if not failed:
        return "healthy"
    return "unhealthy" if failed == len(findings) else "degraded"


def _entry(route: Route, finding: _Finding) -> dict[str, Any]:
    error, latency_s = finding.result
    entry: dict[str, Any] = {
        "name": route.name,
        "url": masked_url(route.server),
        "healthy": not error,
    }
    if latency_s is not None:
        entry["latency_ms"] = round(latency_s * 1000, 3)
    if error:
        entry["error"] = error
    entry["checked_at"] = finding.checked_at
    policy = route.policy.describe()
    if any(policy.values()):
        entry["policy"] = policy
    return entry


def duration_text(seconds: float) -> str:
    """``1d 2h 3m 4s``, without the units in front that are nought."""
    minutes, s = divmod(int(max(seconds, 0)), 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    parts = [(d, "d"), (h, "h"), (m, "m"), (s, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{count}{unit}" for count, unit in parts)


class _Response(msgspec.Struct):
    """A JSON-RPC 2.0 response as far as its shape goes (section 5)."""

    jsonrpc: str
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Response).decode


def verdict(status: int, content_type: bytes, body: bytes) -> str:
    """What an HTTP answer to a probe says about the server; empty if it speaks MCP.

    ``body`` is JSON, or the beginning of an event stream. A JSON-RPC error is as good as
    a result: the server understood the question. That holds for 403 too, where a gateway
    behind this one may refuse a method and serve the rest; a 401 refuses everything.
    """
    if status >= 500:
        return f"server error: {status}"
    if 300 <= status < 400:
        return "answers with a redirect"
    if status == 401:
        return "refuses the gateway's credentials"
    if _speaks(content_type, body):
        return ""
    if status == 403:
        return "refuses the gateway's credentials"
    if status in (404, 405):
        return "no MCP endpoint at this URL"
    return "does not speak MCP"


def _speaks(content_type: bytes, body: bytes) -> bool:
    if content_type.lower().startswith(b"text/event-stream"):
        try:
            # What was read may end before the blank line of its last event.
            events = EventParser(len(body) + 4).feed(body + b"\n\n")
        except RemoteProtocolError:
            return False
        return any(event.data and _is_response(event.data) for event in events)
    return _is_response(body)


def _is_response(text: bytes) -> bool:
    try:
        response = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    answered = response.result is not msgspec.UNSET or response.error is not msgspec.UNSET
    return response.jsonrpc == "2.0" and answered
