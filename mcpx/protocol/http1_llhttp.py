"""Heads of HTTP/1.1 read by llhttp, through httptools.

What it is: the parsers of ``http1_parsers`` with a reader of fields in C. What it must
never do: see a body, or more than one head. A parser of httptools is made for each head
(0.4 µs) and thrown away: it has no way to stop at the end of a message, and after
``Upgrade`` or an error it is of no further use.
"""

from __future__ import annotations

from httptools import (
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from mcpx.errors import RemoteProtocolError
from mcpx.protocol import http1_parsers
from mcpx.protocol.headers import Headers

__all__ = ["RequestParser", "ResponseParser"]


class _Fields:
    """What httptools calls back: the fields of one head."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found.append((name.lower(), value.strip(b" \t")))


class RequestParser(http1_parsers.RequestParser):
    """See ``http1_parsers.RequestParser``."""

    __slots__ = ()

    def _fields(self, raw: bytes) -> Headers:
        fields = _Fields()
        try:
            HttpRequestParser(fields).feed_data(raw)
        except HttpParserUpgrade:
            # The head is whole by then. An offer to upgrade may be passed over (RFC 9110
            # section 7.8), and is.
            pass
        except HttpParserError as exc:
            raise RemoteProtocolError(f"the head of the request is malformed: {exc}") from None
        return fields.found


class ResponseParser(http1_parsers.ResponseParser):
    """See ``http1_parsers.ResponseParser``."""

    __slots__ = ()

    def _fields(self, raw: bytes) -> Headers:
        fields = _Fields()
        try:
            HttpResponseParser(fields).feed_data(raw)
        except HttpParserUpgrade:
            pass
        except HttpParserError as exc:
            raise RemoteProtocolError(f"the head of the answer is malformed: {exc}", 502) from None
        return fields.found
