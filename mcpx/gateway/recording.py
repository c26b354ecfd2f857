"""What is written of an exchange when it is over: metrics, spans, the audit line.

What it is: one function that is called once for every exchange, whatever became of it.
What it must never do: wait, or fail.
"""

from __future__ import annotations

import time

import trio

from mcpx._speedups.frames import members, string
from mcpx.core.policy import Kind
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.state import State
from mcpx.services.audit import AuditRecord
from mcpx.services.tracing import Facts, Trace

__all__ = ["record", "trace_of_message"]


def record(ex: Exchange, state: State) -> None:
    """Count ``ex``, trace it, and put it into the audit."""
    now = trio.current_time()
    state.metrics.observe(ex, now - ex.started_s)
    if ex.outcome == "page":
        return
    if ex.trace is not None and ex.trace.sampled:
        _trace(ex, ex.trace, state, now)
    if state.audit is None:
        return
    state.audit.put(
        AuditRecord(
            time=time.time(),
            server=ex.route.name if ex.route is not None else "",
            http_method=ex.request.method,
            method=ex.method,
            tool=ex.tool or "",
            target=ex.name if ex.kind is not Kind.TOOL else None,
            client=ex.principal.name,
            client_ip=ex.client_ip,
            session=ex.session or b"",
            request_id=ex.request_id.decode("ascii"),
            allowed=ex.allowed,
            reason=ex.reason,
            rule=ex.rule,
            status=ex.status,
            outcome=ex.outcome,
            duration_s=now - ex.started_s,
            arguments=_arguments(ex),
            cache=ex.cache,
        )
    )


def _trace(ex: Exchange, trace: Trace, state: State, now: float) -> None:
    if state.tracer is None:
        # Tracing was switched off meanwhile.
        return
    state.tracer.finish(
        trace,
        Facts(
            started_s=ex.started_s,
            ended_s=now,
            http_method=ex.request.method,
            path=ex.path,
            status=ex.status,
            outcome=ex.outcome,
            allowed=ex.allowed,
            request_id=ex.request_id,
            server=ex.route.name if ex.route is not None else "",
            method=ex.method,
            tool=ex.tool or "",
            client=ex.principal.name,
        ),
    )


def trace_of_message(ex: Exchange) -> tuple[str | None, str | None]:
    """The ``traceparent`` and the ``tracestate`` of the message's ``_meta``."""
    frame, body = ex.frame, ex.request.body
    if frame is None or frame.meta is None or body.find(b'"traceparent"', *frame.meta) < 0:
        return None, None
    found: dict[str, str | None] = {}
    for key, start, end in members(body, frame.meta[0]):
        if key in ("traceparent", "tracestate"):
            found[key] = string(body, (start, end))
    return found.get("traceparent"), found.get("tracestate")


def _arguments(ex: Exchange) -> bytes | None:
    frame = ex.frame
    if not ex.snapshot.config.audit.arguments or frame is None or frame.arguments is None:
        return None
    return ex.request.body[frame.arguments[0] : frame.arguments[1]]
