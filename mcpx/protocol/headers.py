"""Header fields: which travel on, which may stand once, and how values are read.

What it is: tables of lower-case field names and functions over lists of ``(name,
value)`` pairs as the HTTP parsers give them (names lower-case, values without white
space around them). What it must never do: pass on a credential of the client, a cookie,
a field of the connection, or a client's claim of where it comes from.

Both directions are allowlists: a field that nobody thought of stays here. Each list is
walked once and each name looked up in a frozenset. ``mcp-session-id`` crosses the
gateway under another value than it came with, so both directions leave it to the caller.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

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

Headers = list[tuple[bytes, bytes]]

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

# What no list of extra fields can open: credentials, the fields of one connection
# (RFC 9110 section 7.6.1) and of framing, what the gateway says of itself, and claims
# about the client's address.
NEVER_FORWARDED: Final = frozenset(
    {
        b"accept-encoding",
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"cookie",
        b"cookie2",
        b"expect",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"mcp-session-id",
        b"origin",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"referer",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"x-api-key",
        b"x-real-ip",
        b"x-request-id",
    }
)

_REQUEST: Final = frozenset(
    {
        b"accept",
        b"accept-language",
        b"baggage",
        b"content-type",
        b"last-event-id",
        b"traceparent",
        b"tracestate",
        b"user-agent",
    }
)
# No etag or last-modified: conditional requests do not go up, and a list that was
# filtered here is not the one that its validator describes.
_RESPONSE: Final = frozenset(
    {
        b"allow",
        b"cache-control",
        b"content-language",
        b"content-type",
        b"retry-after",
        b"traceresponse",
        b"x-accel-buffering",
    }
)

_NO_NAMES: Final[frozenset[bytes]] = frozenset()
# Values of Connection that name no field.
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close", b""})

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


def forwarded_request_headers(headers: Headers, extra: frozenset[bytes] = _NO_NAMES) -> Headers:
    """The fields of a client's request that go to the server, in their order.

    ``extra`` are further names in lower case that the configuration lets through; none
    of ``NEVER_FORWARDED``, of ``x-forwarded-*`` or of the names that the request's own
    ``Connection`` lists goes up, whatever it says.
    """
    kept: Headers = []
    named: set[bytes] | None = None
    for pair in headers:
        name = pair[0]
        if (
            name in _REQUEST
            or (name[:4] == b"mcp-" and name != b"mcp-session-id")
            or (
                name in extra
                and name not in NEVER_FORWARDED
                and not name.startswith(b"x-forwarded-")
            )
        ):
            kept.append(pair)
        elif name == b"connection" and pair[1] not in _PLAIN_CONNECTION:
            named = _names(pair[1], named)
    return _without(kept, named)


def forwarded_response_headers(headers: Headers) -> Headers:
    """The fields of a server's answer that go to the client, in their order."""
    kept: Headers = []
    named: set[bytes] | None = None
    for pair in headers:
        name = pair[0]
        if name in _RESPONSE or (name[:4] == b"mcp-" and name != b"mcp-session-id"):
            kept.append(pair)
        elif name == b"connection" and pair[1] not in _PLAIN_CONNECTION:
            named = _names(pair[1], named)
    return _without(kept, named)


def _names(connection: bytes, named: set[bytes] | None) -> set[bytes]:
    """The field names that a value of ``Connection`` lists, with those of earlier ones."""
    found = {option.strip(b" \t").lower() for option in connection.split(b",")}
    return found if named is None else found | named


def _without(kept: Headers, named: Iterable[bytes] | None) -> Headers:
    return kept if named is None else [pair for pair in kept if pair[0] not in named]


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
