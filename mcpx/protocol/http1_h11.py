"""Heads of HTTP/1.1 read by h11: the pure-Python twin.

What it is: the parsers of ``http1_parsers`` for an interpreter without httptools, and the
second opinion in the tests. What it must never do: see a body, or more than one head. A
connection of h11 is made for each head, as its state machine would else have to be told
of answers that are written elsewhere.

h11 repairs some values (``content-length: 5,5`` becomes 5); the grammar in
``http1_messages`` has refused those before.
"""

from __future__ import annotations

import h11

from mcpx.errors import RemoteProtocolError
from mcpx.protocol import http1_parsers
from mcpx.protocol.headers import Headers

__all__ = ["RequestParser", "ResponseParser"]


class RequestParser(http1_parsers.RequestParser):
    """See ``http1_parsers.RequestParser``."""

    __slots__ = ()

    def _fields(self, raw: bytes) -> Headers:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(raw))
        try:
            connection.receive_data(raw)
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            raise RemoteProtocolError(f"the head of the request is malformed: {exc}") from None
        if not isinstance(event, h11.Request):
            raise RemoteProtocolError("the head of the request is malformed")
        return list(event.headers)


class ResponseParser(http1_parsers.ResponseParser):
    """See ``http1_parsers.ResponseParser``."""

    __slots__ = ()

    def _fields(self, raw: bytes) -> Headers:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(raw))
        # h11 reads an answer only to a request.
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "upstream")]))
        connection.send(h11.EndOfMessage())
        try:
            connection.receive_data(raw)
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            raise RemoteProtocolError(f"the head of the answer is malformed: {exc}", 502) from None
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise RemoteProtocolError("the head of the answer is malformed", 502)
        return list(event.headers)
