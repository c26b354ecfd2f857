"""The rules of HTTP/1.1 messages (RFC 9112), apart from any parser of their heads.

What it is: the grammar that a head must match before a parser sees it, what a head says
of the body after it, the reader of chunked bodies, and the search for the end of a head.
Both parsers of heads stand behind these rules, so both give the same verdicts. What it
must never do: repair a message, or take one that another reader could cut elsewhere.

The grammar is one compiled expression over the whole head, all of its quantifiers
possessive, so that it looks at each byte a bounded number of times. It is narrower than
RFC 9112 where senders differ from attackers:

* lines end in CR LF; a bare CR or LF, a folded line, white space before the colon and
  control characters are refused;
* a request's target is a path with or without a query, in the letters of RFC 3986;
* ``Content-Length`` is 1 to 18 digits and ``Transfer-Encoding`` is ``chunked`` in small
  letters, with one space before it or none. Values that a lenient reader would trim,
  fold or split at commas do not exist here.

Chunk extensions are refused: nothing uses them and readers differ over them. Trailers
are checked, bounded and dropped.
"""

from __future__ import annotations

import re
from typing import Final

from mcpx._speedups.heads import TOKEN, VALUE, after
from mcpx.errors import RemoteProtocolError
from mcpx.protocol.headers import SINGLE_IN_REQUESTS, SINGLE_IN_RESPONSES, Headers, repeated

__all__ = [
    "FIELDS",
    "METHODS",
    "REQUEST",
    "RESPONSE",
    "TOKEN",
    "VALUE",
    "ChunkReader",
    "HeadReader",
    "RequestHead",
    "ResponseHead",
    "judge_request",
    "judge_response",
    "why_no_request",
]

# The methods that are read at all. Others get 501, and those that ask for something else
# than an answer (RFC 9110 sections 9.3.6 and 9.3.8) get 405.
METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_TUNNELS: Final = frozenset({b"CONNECT", b"TRACE"})


def _any_case(word: bytes) -> bytes:
    """An expression for ``word`` in any case; faster than a flag, as it starts with a set."""
    return b"".join(
        b"[%c%c]" % (letter - 32, letter) if 97 <= letter <= 122 else b"%c" % letter
        for letter in word
    )


_LENGTH: Final = _any_case(b"content-length")
_CODING: Final = _any_case(b"transfer-encoding")

FIELDS: Final = (
    rb"(?:(?!" + _LENGTH + rb":|" + _CODING + rb":)" + TOKEN + rb":" + VALUE + rb"\r\n"
    rb"|" + _LENGTH + rb": ?[0-9]{1,18}\r\n"
    rb"|" + _CODING + rb": ?chunked\r\n)*+"
)
# request-line = method SP request-target SP HTTP-version (RFC 9112 section 3), the target
# in origin-form: absolute-path [ "?" query ].
REQUEST: Final = re.compile(
    rb"("
    + TOKEN
    + rb") (/[A-Za-z0-9\-._~%!$&'()*+,;=:@/?]*+) HTTP/1\.([01])\r\n"
    + FIELDS
    + rb"\r\n\Z"
)
# status-line = HTTP-version SP status-code SP [ reason-phrase ] (RFC 9112 section 4);
# servers that leave out the second space as well are common.
RESPONSE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: (" + VALUE + rb"))?+\r\n" + FIELDS + rb"\r\n\Z"
)
_TRAILERS: Final = re.compile(FIELDS + rb"\r\n\Z")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_REQUEST_LINE: Final = re.compile(
    rb"(" + TOKEN + rb") ([^\x00-\x20\x7f]++) (HTTP/[0-9]\.[0-9])\r\n"
)

_HEAD_END: Final = b"\r\n\r\n"


class RequestHead:
    """The head of a request.

    Names in ``headers`` are lower-case, values have no white space around them.
    ``content_length`` is None if the field is absent; then there is no body, unless
    ``chunked``. ``keep_alive`` is False for HTTP/1.0: its way of keeping a connection is
    not offered. ``expect_continue`` says that the client waits for 100 before the body.
    """

    __slots__ = (
        "chunked",
        "content_length",
        "expect_continue",
        "headers",
        "keep_alive",
        "method",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        version: tuple[int, int],
        keep_alive: bool,  # noqa: FBT001
        content_length: int | None,
        chunked: bool,  # noqa: FBT001
        expect_continue: bool,  # noqa: FBT001
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        self.content_length = content_length
        self.chunked = chunked
        self.expect_continue = expect_continue

    def __repr__(self) -> str:
        # Neither the query nor the values: both may hold credentials.
        return f"RequestHead({self.method} {self.target.partition(b'?')[0]!r})"


class ResponseHead:
    """The head of an answer.

    ``content_length`` is what the field says, also where no body follows (HEAD, 304); a
    body without it is chunked, or lasts until the connection's end. ``keep_alive`` is
    False for HTTP/1.0.
    """

    __slots__ = ("chunked", "content_length", "headers", "keep_alive", "reason", "status")

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: Headers,
        content_length: int | None,
        chunked: bool,  # noqa: FBT001
        keep_alive: bool,  # noqa: FBT001
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.content_length = content_length
        self.chunked = chunked
        self.keep_alive = keep_alive

    def __repr__(self) -> str:
        return f"ResponseHead({self.status})"


_HTTP10: Final = (1, 0)
_HTTP11: Final = (1, 1)


def judge_request(
    method: str, target: bytes, minor: bytes, headers: Headers, max_body_bytes: int
) -> RequestHead:
    """What a head that the grammar and a parser took says of its message.

    Raises:
        RemoteProtocolError: a single-valued field twice, no ``Host`` (HTTP/1.1), two
            ways of framing or a coded body of HTTP/1.0 (400), a body over the limit
            (413), an expectation other than 100-continue (417).
    """
    fields = dict(headers)
    if len(fields) != len(headers):
        name = repeated(headers, SINGLE_IN_REQUESTS)
        if name is not None:
            raise RemoteProtocolError(f"the header {name.decode()} stands more than once")
    keep_alive = modern = minor == b"1"
    if modern:
        if b"host" not in fields:
            raise RemoteProtocolError("the header host is missing")
        if b"connection" in fields:
            keep_alive = not _closes(headers, fields)
    length, chunked = _framing(fields, modern, 400)
    if length is not None and length > max_body_bytes:
        raise RemoteProtocolError(f"the body is longer than {max_body_bytes} bytes", 413)
    expects = False
    if b"expect" in fields:
        if fields[b"expect"].lower() != b"100-continue":
            raise RemoteProtocolError("the expectation is not one that can be met", 417)
        # RFC 9110 section 10.1.1: from HTTP/1.0 it is to be ignored.
        expects = modern
    version = _HTTP11 if modern else _HTTP10
    return RequestHead(method, target, headers, version, keep_alive, length, chunked, expects)


def judge_response(minor: bytes, status: bytes, reason: bytes, headers: Headers) -> ResponseHead:
    """What an answer's head says of its message.

    Raises:
        RemoteProtocolError: status 502; a single-valued field twice, two ways of framing,
            or a coded body of HTTP/1.0.
    """
    fields = dict(headers)
    if len(fields) != len(headers):
        name = repeated(headers, SINGLE_IN_RESPONSES)
        if name is not None:
            raise RemoteProtocolError(f"the header {name.decode()} stands more than once", 502)
    modern = minor == b"1"
    keep_alive = modern and (b"connection" not in fields or not _closes(headers, fields))
    length, chunked = _framing(fields, modern, 502)
    return ResponseHead(int(status), reason, headers, length, chunked, keep_alive)


def _framing(
    fields: dict[bytes, bytes],
    modern: bool,  # noqa: FBT001
    status: int,
) -> tuple[int | None, bool]:
    """Content-Length, and whether the body is chunked (RFC 9112 section 6.3)."""
    length = fields.get(b"content-length")
    if b"transfer-encoding" not in fields:
        return (None if length is None else int(length)), False
    if length is not None:
        raise RemoteProtocolError("content-length and transfer-encoding exclude each other", status)
    if not modern:
        raise RemoteProtocolError("HTTP/1.0 has no transfer-encoding", status)
    return None, True


def _closes(headers: Headers, fields: dict[bytes, bytes]) -> bool:
    """Whether ``Connection``, which may stand more than once, says close."""
    if len(fields) == len(headers) and fields[b"connection"] == b"keep-alive":
        return False
    return any(
        option.strip(b" \t").lower() == b"close"
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    )


def why_no_request(raw: bytes) -> RemoteProtocolError:
    """The refusal of a head that the grammar of requests does not take."""
    line = _REQUEST_LINE.match(raw)
    if line is None:
        return RemoteProtocolError("the request line is malformed")
    method, target, version = line.groups()
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        return RemoteProtocolError("the HTTP version is not 1.0 or 1.1", 505)
    if method not in METHODS:
        return why_not_method(method)
    if not target.startswith(b"/"):
        return RemoteProtocolError("the request target is not a path")
    return RemoteProtocolError("the head of the request is malformed")


def why_not_method(method: bytes) -> RemoteProtocolError:
    """The refusal of a method that is not read."""
    return RemoteProtocolError("the method is not supported", 405 if method in _TUNNELS else 501)


class HeadReader:
    """Finds the end of a head, within a bound, whatever pieces it comes in.

    ``push`` gives the head's bytes with the empty line, and what came after them, as soon
    as the head is whole. Before it, up to ``max_blanks`` empty lines are dropped (RFC
    9112 section 2.2). A bare LF is refused at once: who ends lines so never sends the end
    that is waited for.

    Errors have the status ``malformed``, and ``too_long`` for a head over ``limit_bytes``.
    """

    __slots__ = ("_blanks", "_buffer", "_limit", "_malformed", "_max_blanks", "_seen", "_too_long")

    def __init__(self, *, limit_bytes: int, max_blanks: int, malformed: int, too_long: int) -> None:
        self._limit = limit_bytes
        self._max_blanks = max_blanks
        self._malformed = malformed
        self._too_long = too_long
        self._buffer = bytearray()
        self._blanks = 0
        self._seen = 0

    @property
    def empty(self) -> bool:
        """Whether nothing of a head has come."""
        return not self._buffer

    def push(self, data: bytes | memoryview, known: bytes = b"") -> tuple[bytes, bytes] | None:
        """The next head and the bytes after it; None if it is not whole.

        ``known`` is a head that this has given before and the grammar has taken. If the
        same comes again, it need not be searched for its end: that it has one alone, and
        begins with no empty line, is known.
        """
        text: bytes | bytearray
        if known and not self._buffer:
            rest = after(data, known)
            if rest is not None:
                self._seen = self._blanks = 0
                return known, rest
        if self._buffer:
            self._buffer += data
            text = self._buffer
        else:
            text = bytes(data)
        if text[:1] == b"\r":
            text = self._without_blanks(text)
        seen = self._seen
        end = text.find(_HEAD_END, seen - 3 if seen > 3 else 0)
        if end < 0:
            self._keep(text)
            return None
        end += 4
        if end > self._limit:
            self.refuse_bare_lf(text)
            raise self._long()
        raw, rest = bytes(text[:end]), bytes(text[end:])
        if self._buffer:
            self._buffer = bytearray()
        self._seen = self._blanks = 0
        return raw, rest

    def clear(self) -> None:
        """Drop what has come of a head."""
        self._buffer = bytearray()
        self._seen = 0

    def _without_blanks(self, text: bytes | bytearray) -> bytes | bytearray:
        begin = 0
        while text.startswith(b"\r\n", begin):
            begin += 2
            self._blanks += 1
            if self._blanks > self._max_blanks:
                raise RemoteProtocolError("empty lines before the message", self._malformed)
        if begin:
            self._seen = 0
        return text[begin:] if begin else text

    def _keep(self, text: bytes | bytearray) -> None:
        self.refuse_bare_lf(text)
        if len(text) >= self._limit:
            raise self._long()
        if text is not self._buffer:
            self._buffer = bytearray(text)
        self._seen = len(text)

    def refuse_bare_lf(self, text: bytes | bytearray) -> None:
        """Raise if a line of what has come of a head ends in LF alone."""
        if _BARE_LF.search(text, self._seen, self._limit) is not None:
            raise RemoteProtocolError("a line ends in a bare LF", self._malformed)

    def _long(self) -> RemoteProtocolError:
        return RemoteProtocolError(f"the head is longer than {self._limit} bytes", self._too_long)


# chunk-size = 1*HEXDIG (RFC 9112 section 7.1), at most 15, so that no reader overflows.
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15}+)\r\n")
_CHUNK_SIZE_BEGUN: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,15}+\r?+)?+\Z")
_SIZE, _DATA, _DATA_END, _TRAILER = range(4)


class ChunkReader:
    """Reads one chunked body (RFC 9112 section 7.1).

    ``max_body_bytes`` bounds the sum of the chunks (status 413; None is no bound),
    ``max_trailer_bytes`` the trailers (``too_long``). Other errors have the status
    ``malformed``.
    """

    __slots__ = (
        "_carry",
        "_left",
        "_malformed",
        "_max_body",
        "_max_trailer",
        "_state",
        "_too_long",
        "_total",
        "_trailer",
    )

    def __init__(
        self,
        *,
        max_body_bytes: int | None,
        max_trailer_bytes: int,
        malformed: int,
        too_long: int,
    ) -> None:
        self._max_body = max_body_bytes
        self._max_trailer = max_trailer_bytes
        self._malformed = malformed
        self._too_long = too_long
        self._state = _SIZE
        self._left = 0
        self._total = 0
        self._carry = b""
        self._trailer = bytearray()

    def feed(self, data: bytes | memoryview, pieces: list[bytes]) -> bytes | memoryview | None:
        """Append the body's bytes to ``pieces``; what follows the message, None if it goes on."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        position, size = 0, len(data)
        while True:
            if self._state == _DATA:
                if position == size:
                    return None
                taken = min(self._left, size - position)
                pieces.append(bytes(data[position : position + taken]))
                position += taken
                self._left -= taken
                if self._left:
                    return None
                self._state = _DATA_END
            elif self._state == _DATA_END:
                mark = data[position : position + 2]
                if mark != b"\r\n":
                    if mark not in (b"", b"\r"):
                        raise self._wrong("a chunk is longer than its size says")
                    self._carry = bytes(mark)
                    return None
                position += 2
                self._state = _SIZE
            elif self._state == _SIZE:
                line = _CHUNK_SIZE.match(data, position)
                if line is None:
                    if _CHUNK_SIZE_BEGUN.match(data, position) is None:
                        raise self._wrong("the size of a chunk is malformed")
                    self._carry = bytes(data[position:])
                    return None
                position = line.end()
                self._begin(int(line.group(1), 16))
            else:
                return self._end(data[position:])

    def _begin(self, size: int) -> None:
        self._left = size
        self._total += size
        if self._max_body is not None and self._total > self._max_body:
            raise RemoteProtocolError(f"the body is longer than {self._max_body} bytes", 413)
        if size:
            self._state = _DATA
        else:
            self._state = _TRAILER
            # With the line end of the last chunk before it, an empty trailer section ends
            # as any other does.
            self._trailer += b"\r\n"

    def _end(self, data: bytes | memoryview) -> bytes | memoryview | None:
        """Read the trailer section, which ends at an empty line."""
        trailer = self._trailer
        before = len(trailer)
        trailer += data
        end = trailer.find(_HEAD_END, max(0, before - 3))
        if end < 0:
            if len(trailer) - 2 >= self._max_trailer:
                raise self._long()
            return None
        end += 4
        if end - 2 > self._max_trailer:
            raise self._long()
        if _TRAILERS.match(bytes(trailer[2:end])) is None:
            raise self._wrong("the trailers are malformed")
        return data[end - before :]

    def _wrong(self, message: str) -> RemoteProtocolError:
        return RemoteProtocolError(message, self._malformed)

    def _long(self) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"the trailers are longer than {self._max_trailer} bytes", self._too_long
        )
