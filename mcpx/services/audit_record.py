"""One decision, and the line of JSON that records it.

What it is: the value that a finished exchange hands to the audit log, and the pure
functions that turn it into a line. What it must never do: let anything through that a
reader of the log could take for something else. A line holds no raw control character,
no line or paragraph separator and no character that turns the direction of writing; a
session id is there only as the beginning of its hash, with which nobody can use the
session; arguments are there only as the redactor left them, and not at all without one.

A record that can't be written as it is (a lone surrogate in a name, a redactor that
fails) still gives a line: with the text escaped, with ``***`` for the arguments, or at
the very least with its request id and the word ``audit.unwritable``.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from mcpx.services.json_line import json_line

__all__ = ["AuditRecord", "Redacting", "line_of", "lost_line", "timestamp"]

#: A name or a reason longer than this is cut; the rest of it tells a reader nothing.
MAX_TEXT: Final = 1024
MASK: Final = "***"

#: Outcomes that are no trouble; every other one makes the line a warning.
_QUIET: Final = frozenset({"", "ok"})


class AuditRecord(msgspec.Struct, gc=False):
    """What was asked, by whom, what was decided and what became of it.

    ``time`` is in seconds since the epoch, ``arguments`` raw JSON as it was sent, and
    ``session`` the session id itself; the last two never reach the log as they are.
    ``target`` is the prompt or the URI that a message names.
    Empty texts and ``None`` mean absent.
    """

    time: float
    server: str = ""
    method: str = ""
    http_method: str = ""
    tool: str | None = None
    client: str | None = None
    client_ip: str | None = None
    session: bytes | str | None = None
    request_id: str = ""
    allowed: bool = True
    reason: str | None = None
    rule: str | None = None
    status: int = 0
    outcome: str = ""
    duration_s: float = 0.0
    arguments: bytes | None = None
    target: str | None = None
    cache: str = ""

    def weight(self) -> int:
        """About how many bytes the record keeps in memory."""
        size = 512 + len(self.method)
        if self.arguments is not None:
            size += len(self.arguments)
        if self.tool is not None:
            size += len(self.tool)
        if self.target is not None:
            size += len(self.target)
        if self.reason is not None:
            size += len(self.reason)
        return size


class Redacting(Protocol):
    """What masks secrets; ``mcpx.core.redaction.Redactor`` is one."""

    def arguments(self, tool: str, raw: bytes, /) -> object:
        """The arguments of a call, ready for JSON, without what must not be recorded."""
        ...

    def text(self, text: str, /) -> str:
        """A text without what must not be recorded."""
        ...


def timestamp(time_s: float) -> str:
    """Seconds since the epoch as RFC 3339 has them: UTC, milliseconds, ``Z``."""
    milliseconds = int(time_s * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=16)
def _second(time_s: int) -> str:
    """The part of a timestamp that a thousand others share."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def line_of(record: AuditRecord, redactor: Redacting | None) -> bytes:
    """The record as one line, its newline included. Never raises."""
    try:
        return json_line(_members(record, redactor))
    except Exception as exc:
        # Whatever is wrong with this record must not keep the others from being written.
        return json_line(
            {
                "level": "WARN",
                "msg": "audit.unwritable",
                "request_id": str(record.request_id),
                "error": type(exc).__name__,
            }
        )


def lost_line(count: int, time_s: float) -> bytes:
    """The line that says how many records there was no room for."""
    return json_line(
        {"time": timestamp(time_s), "level": "WARN", "msg": "audit.lost", "count": count}
    )


def _members(record: AuditRecord, redactor: Redacting | None) -> dict[str, object]:
    quiet = record.allowed and record.status < 400 and record.outcome in _QUIET
    line: dict[str, object] = {
        "time": timestamp(record.time),
        "level": "INFO" if quiet else "WARN",
        # A finding about a tool is no request, and would be counted as one.
        "msg": "mcp.integrity" if record.outcome.startswith("integrity_") else "mcp.request",
        "server": record.server,
        "method": _cut(record.method or record.http_method),
    }
    if record.tool:
        line["tool"] = _cut(_redacted(record.tool, redactor))
    if record.target:
        line["target"] = _cut(_redacted(record.target, redactor))
    line["allowed"] = record.allowed
    line["decision"] = "allow" if record.allowed else "deny"
    if record.client:
        line["client"] = _cut(record.client)
    if record.client_ip:
        line["client_ip"] = _cut(record.client_ip)
    if record.session:
        line["session"] = _digest(record.session)
    line["request_id"] = _cut(record.request_id)
    if record.reason:
        # What is said of a missing credential is the gateway's own text, and speaks of tokens.
        own = record.outcome == "unauthorized"
        line["reason"] = _cut(record.reason if own else _redacted(record.reason, redactor))
    if record.rule:
        line["rule"] = _cut(_redacted(record.rule, redactor))
    line["status"] = record.status
    line["outcome"] = record.outcome
    line["duration_ms"] = round(record.duration_s * 1000, 3)
    if record.cache:
        line["cache"] = record.cache
    if record.arguments is not None and redactor is not None:
        line["arguments"] = _arguments(record, redactor)
    return line


def _arguments(record: AuditRecord, redactor: Redacting) -> object:
    """What may be recorded of the arguments: a value that is known to become JSON."""
    assert record.arguments is not None
    try:
        return msgspec.Raw(
            msgspec.json.encode(redactor.arguments(record.tool or "", record.arguments))
        )
    except Exception:
        # What can't be masked is not shown.
        return MASK


def _redacted(text: str, redactor: Redacting | None) -> str:
    if redactor is None:
        return text
    try:
        return redactor.text(text)
    except Exception:
        return MASK


def _digest(session: bytes | str) -> str:
    raw = session if isinstance(session, bytes) else session.encode("utf-8", "backslashreplace")
    return hashlib.sha256(raw).hexdigest()[:8]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
