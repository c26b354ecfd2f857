"""Header fields: which travel on, which may stand once, and how values are read.

What it is: tables of lower-case field names and functions over lists of ``(name,
value)`` pairs as the HTTP parsers give them (names lower-case, values without white
space around them). What it must never do: pass on a credential of the client, a cookie,
a field of the connection, or a client's claim of where it comes from.

Both directions are allowlists: a field that nobody thought of stays here. The lists
stand in ``_speedups.heads_py``, with what walks them. ``mcp-session-id`` crosses the
gateway under another value than it came with, so both directions leave it to the caller.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from mcpx._speedups.heads import (
    NEVER_FORWARDED,
    Headers,
    forwarded_request_headers,
    forwarded_response_headers,
)

__all__ = [
    "NEVER_FORWARDED",
    "SINGLE_IN_REQUESTS",
    "SINGLE_IN_RESPONSES",
    "Headers",
    "decode_value",
    "forwarded_request_headers",
    "forwarded_response_headers",
    "is_event_stream",
    "is_json_content_type",
    "repeated",
]

# Fields whose value is one thing. Two of them, and two readers may take different ones
# (RFC 9110 section 5.3). Every mcp-* field counts as such too.
SINGLE_IN_REQUESTS: Final = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"last-event-id",
        b"origin",
        b"transfer-encoding",
        b"x-api-key",
        b"x-request-id",
    }
)
SINGLE_IN_RESPONSES: Final = frozenset(
    {
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"location",
        b"retry-after",
        b"transfer-encoding",
    }
)

_SENTINEL: Final = re.compile(rb"=\?base64\?(.*)\?=", re.DOTALL)
_PLAIN: Final = re.compile(rb"[\t\x20-\x7e]*+")
_JSON: Final = re.compile(
    rb'(?i:application/json)(?:[ \t]*+;[ \t]*+(?i:charset=(?:utf-8|"utf-8")))?+'
)
_EVENT_STREAM: Final = re.compile(rb"(?i:text/event-stream)[ \t]*+(?:;.*+)?+", re.DOTALL)


def repeated(headers: Headers, single: frozenset[bytes]) -> bytes | None:
    """The first name of ``single``, or of the form ``mcp-*``, that stands more than once."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and (name in single or name.startswith(b"mcp-")):
            return name
        seen.add(name)
    return None


def decode_value(value: bytes) -> str:
    """The text that ``Mcp-Name`` or an ``Mcp-Param-*`` carries (MCP 2026-07-28, headers).

    A value of the form ``=?base64?…?=`` is UTF-8 in base64; every other one is the text
    itself, in printable ASCII. The sentinel is lower-case; in other letters it is text.

    Raises:
        ValueError: base64 that is not canonical, bytes that are not UTF-8, or a plain
            value with other characters than printable ASCII, space and tab.
    """
    sentinel = _SENTINEL.fullmatch(value)
    if sentinel is None:
        if _PLAIN.fullmatch(value) is None:
            raise ValueError("the header's value is not printable ASCII")
        return value.decode("ascii")
    payload = sentinel.group(1)
    try:
        raw = base64.b64decode(payload, validate=True)
    except binascii.Error:
        raise ValueError("the header's value is not base64") from None
    # The decoder lets unused bits of the last letter be anything; one text, one form.
    if base64.b64encode(raw) != payload:
        raise ValueError("the header's value is not canonical base64")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the header's value is not UTF-8") from None


def is_json_content_type(value: bytes) -> bool:
    """Whether a ``Content-Type`` says JSON: ``application/json``, UTF-8 if it names a charset."""
    return value == b"application/json" or _JSON.fullmatch(value) is not None


def is_event_stream(value: bytes) -> bool:
    """Whether a ``Content-Type`` says server-sent events, with parameters or without."""
    return value == b"text/event-stream" or _EVENT_STREAM.fullmatch(value) is not None
