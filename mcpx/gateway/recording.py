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
    duration_s = now - ex.started_s
    state.metrics.observe(ex, duration_s)
    if ex.outcome == "page":
        return
    if ex.trace is not None and ex.trace.sampled:
        _trace(ex, ex.trace, state, now)
    audit = state.audit
    if audit is None:
        return
    route = ex.route
    # By position, in the order of its fields: by name they cost five times as much.
    audit.put(
        AuditRecord(
            time.time(),
            route.name if route is not None else "",
            ex.method,
            ex.request.method,
            ex.tool,
            ex.principal.name,
            ex.client_ip,
            ex.session,
            ex.request_id.decode("ascii"),
            ex.allowed,
            ex.reason,
            ex.rule,
            ex.status,
            ex.outcome,
            duration_s,
            _arguments(ex) if ex.snapshot.config.audit.arguments else None,
            ex.name if ex.kind is not Kind.TOOL else None,
            ex.cache,
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
    if frame is None or frame.arguments is None:
        return None
    return ex.request.body[frame.arguments[0] : frame.arguments[1]]
