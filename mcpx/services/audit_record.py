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
from msgspec import UNSET, UnsetType

from mcpx.services.json_line import json_line, shown

__all__ = ["AuditRecord", "Lines", "Redacting", "lost_line", "timestamp"]

#: A name or a reason longer than this is cut; the rest of it tells a reader nothing.
MAX_TEXT: Final = 1024
MASK: Final = "***"
#: How many texts, and how many sessions, are remembered; longer ones (characters) are not.
MOST_REMEMBERED: Final = 1024
LONGEST_REMEMBERED: Final = 256

_encode: Final = msgspec.json.Encoder().encode

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


class Lines:
    """Makes lines of records, with one redactor.

    Most records say what one before them said: what became of short texts, and of session
    ids, is remembered, ``MOST_REMEMBERED`` of each. A redactor is thus asked once for a text
    that comes again; another redactor needs another ``Lines``. For one thread at a time.
    """

    __slots__ = ("_at", "_digests", "_milliseconds", "_texts", "redactor")

    def __init__(self, redactor: Redacting | None) -> None:
        self.redactor = redactor
        self._texts: dict[str, str] = {}
        self._digests: dict[bytes | str, str] = {}
        self._milliseconds: int | None = None
        self._at = ""

    def line(self, record: AuditRecord) -> bytes:
        """The record as one line, its newline included. Never raises."""
        try:
            line = self._line(record)
            try:
                return shown(_encode(line))
            except UnicodeEncodeError:
                # A lone surrogate.
                members = msgspec.structs.asdict(line).items()
                return json_line({name: value for name, value in members if value is not UNSET})
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

    def _line(self, record: AuditRecord) -> _Line:
        milliseconds = int(record.time * 1000)
        if milliseconds != self._milliseconds:
            self._milliseconds, self._at = milliseconds, timestamp(record.time)
        allowed, status, outcome = record.allowed, record.status, record.outcome
        quiet = allowed and status < 400 and outcome in _QUIET
        tool, target, session = record.tool, record.target, record.session
        client, client_ip = record.client, record.client_ip
        reason, rule = record.reason, record.rule
        method = record.method or record.http_method
        texts = self._texts
        # By position, as there are so many: by name they would cost five times as much.
        return _Line(
            self._at,
            "INFO" if quiet else "WARN",
            "mcp.request" if quiet else _kind(outcome),
            record.server,
            method if len(method) <= MAX_TEXT else _cut(method),
            (texts.get(tool) or self._text(tool)) if tool else UNSET,
            (texts.get(target) or self._text(target)) if target else UNSET,
            allowed,
            "allow" if allowed else "deny",
            (client if len(client) <= MAX_TEXT else _cut(client)) if client else UNSET,
            (client_ip if len(client_ip) <= MAX_TEXT else _cut(client_ip)) if client_ip else UNSET,
            (self._digests.get(session) or self._digest(session)) if session else UNSET,
            _cut(record.request_id),
            self._reason(reason, outcome) if reason else UNSET,
            (texts.get(rule) or self._text(rule)) if rule else UNSET,
            status,
            outcome,
            round(record.duration_s * 1000, 3),
            record.cache or UNSET,
            UNSET if record.arguments is None else self._arguments(record),
        )

    def _text(self, text: str) -> str:
        """The text as the redactor leaves it, and cut; remembered if it is short."""
        shown_of_it = _cut(_redacted(text, self.redactor))
        if len(text) <= LONGEST_REMEMBERED:
            if len(self._texts) >= MOST_REMEMBERED:
                self._texts.clear()
            self._texts[text] = shown_of_it
        return shown_of_it

    def _reason(self, reason: str, outcome: str) -> str:
        # What is said of a missing credential is the gateway's own text, and speaks of tokens.
        if outcome == "unauthorized":
            return _cut(reason)
        return self._texts.get(reason) or self._text(reason)

    def _digest(self, session: bytes | str) -> str:
        digest = _digest(session)
        if len(session) <= LONGEST_REMEMBERED:
            if len(self._digests) >= MOST_REMEMBERED:
                self._digests.clear()
            self._digests[session] = digest
        return digest

    def _arguments(self, record: AuditRecord) -> object:
        """What may be recorded of the arguments: a value that is known to become JSON."""
        if self.redactor is None or record.arguments is None:
            return UNSET
        try:
            shown_of_them = self.redactor.arguments(record.tool or "", record.arguments)
            return msgspec.Raw(_encode(shown_of_them))
        except Exception:
            # What can't be masked is not shown.
            return MASK


class _Line(msgspec.Struct, gc=False):
    """The members of a line, in their order; what is ``UNSET`` is left out."""

    time: str
    level: str
    msg: str
    server: str
    method: str
    tool: str | UnsetType
    target: str | UnsetType
    allowed: bool
    decision: str
    client: str | UnsetType
    client_ip: str | UnsetType
    session: str | UnsetType
    request_id: str
    reason: str | UnsetType
    rule: str | UnsetType
    status: int
    outcome: str
    duration_ms: float
    cache: str | UnsetType
    #: Absent, the mask, or JSON that the redactor made.
    arguments: object


def lost_line(count: int, time_s: float) -> bytes:
    """The line that says how many records there was no room for."""
    return json_line(
        {"time": timestamp(time_s), "level": "WARN", "msg": "audit.lost", "count": count}
    )


def _kind(outcome: str) -> str:
    # A finding about a tool is no request, and would be counted as one.
    return "mcp.integrity" if outcome.startswith("integrity_") else "mcp.request"


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
