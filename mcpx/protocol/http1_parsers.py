"""Parsers of HTTP/1.1 connections: requests at a server, answers at a client.

What it is: two machines that are fed what a connection receives and give out messages.
They cut the stream into heads and bodies themselves, after the rules of
``http1_messages``; ``_fields``, which a subclass fills in, reads the fields of one whole
head that the grammar has taken already, with a library of its own. So one message's
bytes never reach a library that could carry on into the next, and a head passes two
readers that must agree.

What it must never do: keep a view of what it was fed (the caller's buffer is used
again), wait, or read on after a fault.

A fault ends the stream: where the next message would start is not known. Requests that
were whole before it are still given out; ``RequestParser.fault`` tells of it meanwhile,
and the next call of ``feed`` or ``eof`` raises it. So what a client sees does not depend
on how its bytes were cut into packets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final

from mcpx.errors import LocalProtocolError, RemoteProtocolError
from mcpx.protocol.headers import Headers
from mcpx.protocol.http1_messages import (
    METHODS,
    REQUEST,
    RESPONSE,
    ChunkReader,
    HeadReader,
    RequestHead,
    ResponseHead,
    judge_request,
    judge_response,
    why_no_request,
    why_not_method,
)

__all__ = ["RequestParser", "ResponseParser"]

_MAX_BLANKS: Final = 4
_MAX_INFORMATIONAL: Final = 16
_BAD: Final = 400
_TOO_LONG: Final = 431
_BAD_ANSWER: Final = 502


class RequestParser(ABC):
    """Reads the requests of one connection.

    Args:
        max_header_bytes: of one head, with its empty line, and of trailers; else 431.
        max_header_count: fields of one head; else 431.
        max_body_bytes: of one body, declared or come; else 413.

    ``head`` is the head of the request that is being read, from the moment it is whole
    to the moment its body is. ``fault`` is the message and the status of the fault that
    ended the stream, None while there is none. After a request that closes the
    connection, further bytes are dropped.
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_closed",
        "_heads",
        "_last_head",
        "_last_raw",
        "_left",
        "_max_body",
        "_max_count",
        "_max_head",
        "_ready",
        "fault",
        "head",
    )

    def __init__(
        self, *, max_header_bytes: int, max_header_count: int, max_body_bytes: int
    ) -> None:
        self._max_head = max_header_bytes
        self._max_count = max_header_count
        self._max_body = max_body_bytes
        self._heads = HeadReader(
            limit_bytes=max_header_bytes,
            max_blanks=_MAX_BLANKS,
            malformed=_BAD,
            too_long=_TOO_LONG,
        )
        # A client repeats its head to the letter; what it means is then known.
        self._last_raw = b""
        self._last_head: RequestHead | None = None
        self._ready: deque[tuple[RequestHead, bytes]] = deque()
        self._body = bytearray()
        self._left = 0
        self._chunks: ChunkReader | None = None
        self._closed = False
        self.head: RequestHead | None = None
        self.fault: tuple[str, int] | None = None

    @abstractmethod
    def _fields(self, raw: bytes) -> Headers:
        """The fields of a head that matches the grammar; RemoteProtocolError if it is refused."""

    @property
    def idle(self) -> bool:
        """Whether no byte of a further request has come."""
        return self.head is None and self._heads.empty and self.fault is None

    def feed(self, data: bytes | memoryview) -> None:
        """Take what the connection has received.

        Raises:
            RemoteProtocolError: the bytes are not HTTP, or over a limit; ``status`` is
                what to answer before closing.
        """
        if self.fault is not None:
            raise RemoteProtocolError(*self.fault)
        try:
            self._advance(data)
        except RemoteProtocolError as exc:
            self.fault = (exc.message, exc.status)
            self.head = self._chunks = None
            self._body = bytearray()
            self._heads.clear()
            if not self._ready:
                raise

    def eof(self) -> None:
        """The client sends no more.

        Raises:
            RemoteProtocolError: in the middle of a request, or after a fault.
        """
        if self.fault is not None:
            raise RemoteProtocolError(*self.fault)
        if not self.idle:
            raise RemoteProtocolError("the connection ended in the middle of a request")

    def take(self) -> tuple[RequestHead, bytes] | None:
        """The oldest whole request that has not been taken, with its body.

        Requests are read as far as they have come, so what waits here is bounded by what
        was fed since this last gave None.
        """
        return self._ready.popleft() if self._ready else None

    def _advance(self, data: bytes | memoryview) -> None:
        while data:
            if self.head is None:
                if self._closed:
                    return
                found = self._heads.push(data, self._last_raw)
                if found is None:
                    return
                raw, rest = found
                head = self._read_head(raw)
                if len(rest) == head.content_length:
                    # As a rule one piece is one request.
                    self._ready.append((head, rest))
                    self._closed = not head.keep_alive
                    return
                self._begin(head)
                data = rest
            elif self._chunks is not None:
                pieces: list[bytes] = []
                after = self._chunks.feed(data, pieces)
                for piece in pieces:
                    self._body += piece
                if after is None:
                    return
                data = after
                self._finish(bytes(self._body))
            else:
                missing = self._left
                if len(data) < missing:
                    self._body += data
                    self._left = missing - len(data)
                    return
                last = data[:missing]
                data = data[missing:]
                if self._body:
                    self._body += last
                    self._finish(bytes(self._body))
                else:
                    self._finish(bytes(last))

    def _read_head(self, raw: bytes) -> RequestHead:
        """The head in ``raw``. Who is given it must not change it: it may be given again."""
        if raw == self._last_raw and self._last_head is not None:
            return self._last_head
        self._last_head = head = self._read_new_head(raw)
        self._last_raw = raw
        return head

    def _read_new_head(self, raw: bytes) -> RequestHead:
        match = REQUEST.match(raw)
        if match is None:
            self._heads.refuse_bare_lf(raw)
            raise why_no_request(raw)
        method, target, minor = match.groups()
        # The grammar has seen to it that every LF ends a line.
        count = raw.count(b"\n") - 2
        if count > self._max_count:
            raise RemoteProtocolError(f"more than {self._max_count} headers", _TOO_LONG)
        name = METHODS.get(method)
        if name is None:
            raise why_not_method(method)
        headers = self._fields(raw)
        if len(headers) != count:
            raise RemoteProtocolError("the head of the request is ambiguous")
        return judge_request(name, target, minor, headers, self._max_body)

    def _begin(self, head: RequestHead) -> None:
        self.head = head
        if head.chunked:
            self._chunks = ChunkReader(
                max_body_bytes=self._max_body,
                max_trailer_bytes=self._max_head,
                malformed=_BAD,
                too_long=_TOO_LONG,
            )
        elif head.content_length:
            self._left = head.content_length
        else:
            self._finish(b"")

    def _finish(self, body: bytes) -> None:
        head = self.head
        assert head is not None
        self._ready.append((head, body))
        self._closed = not head.keep_alive
        self.head = self._chunks = None
        if self._body:
            self._body = bytearray()


class ResponseParser(ABC):
    """Reads the answers of one connection, one exchange after another.

    Args:
        max_header_bytes: of one head, and of trailers.
        max_header_count: fields of one head.

    ``expect`` opens an exchange. Then ``head`` is None until the final answer's head is
    whole; informational answers (1xx) before it are dropped, up to 16. The body is not
    collected: ``take_body`` gives what has come. ``complete`` is True once its end has
    come. All errors have the status 502.
    """

    __slots__ = (
        "_begun",
        "_chunks",
        "_faulty",
        "_heads",
        "_informational",
        "_last_head",
        "_last_raw",
        "_left",
        "_max_count",
        "_max_head",
        "_method",
        "_pieces",
        "_surplus",
        "_until_close",
        "complete",
        "head",
    )

    def __init__(self, *, max_header_bytes: int, max_header_count: int) -> None:
        self._max_head = max_header_bytes
        self._max_count = max_header_count
        self._heads = HeadReader(
            limit_bytes=max_header_bytes,
            max_blanks=0,
            malformed=_BAD_ANSWER,
            too_long=_BAD_ANSWER,
        )
        self._last_raw = b""
        self._last_head: ResponseHead | None = None
        self._method: str | None = None
        self._pieces: list[bytes] = []
        self._chunks: ChunkReader | None = None
        self._left = 0
        self._informational = 0
        self._begun = False
        self._until_close = False
        self._surplus = False
        self._faulty = False
        self.head: ResponseHead | None = None
        self.complete = False

    @abstractmethod
    def _fields(self, raw: bytes) -> Headers:
        """The fields of a head that matches the grammar; RemoteProtocolError if it is refused."""

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and the connection can carry another."""
        head = self.head
        return (
            self.complete
            and head is not None
            and head.keep_alive
            and not self._surplus
            and not self._until_close
        )

    def expect(self, method: str) -> None:
        """A request with ``method`` goes out: an answer to it may come.

        Raises:
            LocalProtocolError: the exchange before is not over, or ended the connection.
        """
        if self._surplus or self._faulty or (self._method is not None and not self.reusable):
            raise LocalProtocolError("this connection can't carry another exchange")
        self._method = method
        self.head = None
        self.complete = False
        self._informational = 0
        self._begun = False
        if self._pieces:
            self._pieces = []

    def feed(self, data: bytes | memoryview) -> None:
        """Take what the connection has received.

        Bytes after the end of the answer make the connection unusable for another; the
        answer itself stands.

        Raises:
            RemoteProtocolError: the bytes are not HTTP, or over a limit.
        """
        if self._faulty:
            raise RemoteProtocolError("the answer was malformed before", _BAD_ANSWER)
        try:
            self._advance(data)
        except RemoteProtocolError:
            self._faulty = True
            raise

    def take_body(self) -> bytes:
        """What has come of the body since this was last asked."""
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def eof(self) -> None:
        """The server sends no more. Completes a body that lasts until then.

        If no byte of an answer has come, nothing is raised and ``head`` stays None: what
        that means, and whether the request may be sent again, is for the caller to say.

        Raises:
            RemoteProtocolError: in the middle of an answer.
        """
        if self._until_close:
            self.complete = True
        if self._faulty or (self._begun and not self.complete):
            self._faulty = True
            raise RemoteProtocolError(
                "the connection ended in the middle of an answer", _BAD_ANSWER
            )

    def _advance(self, data: bytes | memoryview) -> None:
        while data:
            if self.complete or self._method is None:
                self._surplus = True
                return
            self._begun = True
            if self.head is None:
                found = self._heads.push(data, self._last_raw)
                if found is None:
                    return
                raw, data = found
                self._begin(self._read_head(raw))
            elif self._chunks is not None:
                after = self._chunks.feed(data, self._pieces)
                if after is None:
                    return
                data = after
                self._chunks = None
                self.complete = True
            elif self._until_close:
                self._pieces.append(bytes(data))
                return
            elif len(data) == self._left:
                self._pieces.append(bytes(data))
                self.complete = True
                return
            else:
                part = data[: self._left]
                data = data[self._left :]
                self._pieces.append(bytes(part))
                self._left -= len(part)
                self.complete = not self._left

    def _read_head(self, raw: bytes) -> ResponseHead:
        """The head in ``raw``. Who is given it must not change it: it may be given again."""
        if raw == self._last_raw and self._last_head is not None:
            return self._last_head
        self._last_head = head = self._read_new_head(raw)
        self._last_raw = raw
        return head

    def _read_new_head(self, raw: bytes) -> ResponseHead:
        match = RESPONSE.match(raw)
        if match is None:
            raise RemoteProtocolError("the head of the answer is malformed", _BAD_ANSWER)
        minor, status, reason = match.groups()
        # The grammar has seen to it that every LF ends a line.
        count = raw.count(b"\n") - 2
        if count > self._max_count:
            raise RemoteProtocolError(f"more than {self._max_count} headers", _BAD_ANSWER)
        headers = self._fields(raw)
        if len(headers) != count:
            raise RemoteProtocolError("the head of the answer is ambiguous", _BAD_ANSWER)
        return judge_response(minor, status, reason or b"", headers)

    def _begin(self, head: ResponseHead) -> None:
        """Decide what follows the head (RFC 9112 section 6.3)."""
        status = head.status
        if status < 200:
            self._informational += 1
            if status == 101 or self._informational > _MAX_INFORMATIONAL:
                raise RemoteProtocolError(
                    "the server switched protocols unasked"
                    if status == 101
                    else "too many informational answers",
                    _BAD_ANSWER,
                )
            return
        self.head = head
        if status in (204, 304) or self._method == "HEAD" or head.content_length == 0:
            self.complete = True
        elif head.chunked:
            self._chunks = ChunkReader(
                max_body_bytes=None,
                max_trailer_bytes=self._max_head,
                malformed=_BAD_ANSWER,
                too_long=_BAD_ANSWER,
            )
        elif head.content_length is not None:
            self._left = head.content_length
        else:
            self._until_close = True
