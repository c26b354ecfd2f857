"""Heads of HTTP/1.1 messages: how one is written, and which fields travel on (the specification).

What it is: the writers of both kinds of heads (RFC 9112), the two allowlists of fields
that cross the gateway, and the look whether a head is the one that came before. Fields are
lists of ``(name, value)`` pairs in bytes. What it must never do: write a line that a name
or a value brought along, or let a field on that no list names.

The algorithm: a head is put together and then matched whole against a grammar, all of its
quantifiers possessive, and its lines are counted: a value that held a line end would make
one too many. The fields that say how a message is cut, and whether the connection lives
on, are written here and nowhere else; among the fields that are given they are refused. A
list of fields is walked once, and each name looked up in a frozenset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from mcpx.errors import LocalProtocolError

__all__ = [
    "NEVER_FORWARDED",
    "TOKEN",
    "VALUE",
    "Headers",
    "after",
    "forwarded_request_headers",
    "forwarded_response_headers",
    "request_head",
    "response_head",
]

Headers = list[tuple[bytes, bytes]]

# token = 1*tchar (RFC 9110 section 5.6.2)
TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# field-value without line folding: VCHAR, obs-text, SP and HTAB (RFC 9110 section 5.5)
VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"

_LINES: Final = (
    rb"(?:(?!(?i:connection|content-length|transfer-encoding):)"
    + TOKEN
    + rb": "
    + VALUE
    + rb"\r\n)*+\Z"
)
_FIELDS: Final = re.compile(_LINES)
_REQUEST: Final = re.compile(TOKEN + rb" /[\x21-\x7e]*+ HTTP/1\.1\r\n" + _LINES)

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
_TO_SERVERS: Final = frozenset(
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
_TO_CLIENTS: Final = frozenset(
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


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


_STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, _phrase(status)) for status in range(100, 600)
}


def response_head(
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    length: int | None,
    chunked: bool,
    close: bool,
) -> bytes:
    """The head of an answer, with its empty line.

    ``length`` writes Content-Length, ``chunked`` Transfer-Encoding; with neither the body
    is empty (1xx, 204, 304, an answer to HEAD) or lasts until the connection's end.
    ``close`` writes ``connection: close``.

    Raises:
        LocalProtocolError: a name that is no token, a value that would not stay in its
            line, a field of framing among ``headers``, both or a wrong way of framing, or
            a status outside 100 to 599.
    """
    line = _STATUS_LINES.get(status)
    if line is None:
        raise LocalProtocolError(f"{status} is not a status")
    block, ends = _block(headers)
    if _FIELDS.match(block) is None or block.count(b"\n") != ends:
        raise LocalProtocolError("a header can't be written")
    if chunked or length is not None:
        bodiless = status == 204 or status < 200
        if (chunked and length is not None) or (bodiless and (chunked or length)):
            raise LocalProtocolError(f"an answer {status} can't be framed so")
        if chunked:
            block += b"transfer-encoding: chunked\r\n"
        elif not bodiless:
            block += b"content-length: %d\r\n" % _length(length)
    return line + block + (b"connection: close\r\n\r\n" if close else b"\r\n")


def request_head(
    method: str,
    target: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    length: int | None,
) -> bytes:
    """The head of a request, with its empty line. ``headers`` holds ``host``.

    ``length`` writes Content-Length; None is for a request without a body.

    Raises:
        LocalProtocolError: as for ``response_head``, a method that is no token, or a
            target that is not a path of printable ASCII.
    """
    block, ends = _block(headers)
    try:
        head = b"%b %b HTTP/1.1\r\n%b" % (method.encode("ascii"), target, block)
    except UnicodeEncodeError:
        raise LocalProtocolError("a request's method is ASCII") from None
    if _REQUEST.match(head) is None or head.count(b"\n") != ends + 1:
        raise LocalProtocolError("a request's head can't be written")
    if length is None:
        return head + b"\r\n"
    return b"%bcontent-length: %d\r\n\r\n" % (head, _length(length))


def _block(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int]:
    """The lines of fields, and how many line ends they must have; -1 if one can't be right."""
    fields = list(headers)
    block = b"".join([b"%b: %b\r\n" % field for field in fields])
    # A colon in a name would make it another name to who reads it.
    colons = b":" in b"".join([name for name, _ in fields])
    return block, -1 if colons else len(fields)


def _length(length: int | None) -> int:
    if length is None or length < 0:
        raise LocalProtocolError("a length is not negative")
    return length


def forwarded_request_headers(headers: Headers, extra: frozenset[bytes] = _NO_NAMES) -> Headers:
    """The fields of a client's request that go to the server, in their order.

    ``extra`` are further names in lower case that the configuration lets through; none
    of ``NEVER_FORWARDED``, of ``x-forwarded-*`` or of the names that the request's own
    ``Connection`` lists goes up, whatever it says.
    """
    return _forwarded(headers, _TO_SERVERS, extra)


def forwarded_response_headers(headers: Headers) -> Headers:
    """The fields of a server's answer that go to the client, in their order."""
    return _forwarded(headers, _TO_CLIENTS, _NO_NAMES)


def _forwarded(headers: Headers, always: frozenset[bytes], extra: frozenset[bytes]) -> Headers:
    kept: Headers = []
    named: set[bytes] = set()
    for pair in headers:
        name = pair[0]
        if (
            name in always
            or (name[:4] == b"mcp-" and name != b"mcp-session-id")
            or (name in extra and name not in NEVER_FORWARDED and name[:12] != b"x-forwarded-")
        ):
            kept.append(pair)
        elif name == b"connection" and pair[1] not in _PLAIN_CONNECTION:
            named.update(option.strip(b" \t").lower() for option in pair[1].split(b","))
    return [pair for pair in kept if pair[0] not in named] if named else kept


def after(data: bytes | memoryview, head: bytes) -> bytes | None:
    """What follows ``head`` in ``data``; None if ``data`` does not begin with it, or it is empty."""
    if not head or bytes(data[: len(head)]) != head:
        return None
    return bytes(data[len(head) :])
