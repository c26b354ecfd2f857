"""HTTP/1.1 (RFC 9112): the parsers of this process, and the writers.

What it is: the one place that the rest imports HTTP/1.1 from. The parsers are those on
llhttp where httptools can be imported, and else those on h11; ``MCPX_NO_EXTENSIONS=1`` in
the environment chooses h11 all the same. Both give the same verdicts. What the writers
must never do: write a line that a value brought along. A head is matched whole against a
grammar before it leaves, and its lines are counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from mcpx.errors import LocalProtocolError
from mcpx.protocol.http1_messages import TOKEN, VALUE, RequestHead, ResponseHead

__all__ = [
    "BACKEND",
    "LAST_CHUNK",
    "RequestHead",
    "RequestParser",
    "ResponseHead",
    "ResponseParser",
    "backend",
    "chunk",
    "request_head",
    "response_head",
]


def backend(environ: Mapping[str, str]) -> str:
    """The parser to use under ``environ``: ``"llhttp"`` or ``"h11"``."""
    if environ.get("MCPX_NO_EXTENSIONS") == "1" or find_spec("httptools") is None:
        return "h11"
    return "llhttp"


BACKEND: Final = backend(os.environ)

if TYPE_CHECKING or BACKEND == "llhttp":
    from mcpx.protocol.http1_llhttp import RequestParser, ResponseParser
else:
    from mcpx.protocol.http1_h11 import RequestParser, ResponseParser

LAST_CHUNK: Final = b"0\r\n\r\n"

# The fields that say how a message is cut are written here and nowhere else.
_LINES: Final = (
    rb"(?:(?!(?i:connection|content-length|transfer-encoding):)"
    + TOKEN
    + rb": "
    + VALUE
    + rb"\r\n)*+\Z"
)
_FIELDS: Final = re.compile(_LINES)
_REQUEST: Final = re.compile(TOKEN + rb" /[\x21-\x7e]*+ HTTP/1\.1\r\n" + _LINES)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


_STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, _phrase(status)) for status in range(100, 600)
}


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int]:
    lines = [b"%b: %b\r\n" % pair for pair in headers]
    return b"".join(lines), len(lines)


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
        LocalProtocolError: a name or a value that would not stay in its line, a field
            of framing among ``headers``, both or a wrong way of framing, or a status
            outside 100 to 599.
    """
    line = _STATUS_LINES.get(status)
    if line is None:
        raise LocalProtocolError(f"{status} is not a status")
    block, count = _lines(headers)
    if _FIELDS.match(block) is None or block.count(b"\n") != count:
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
    block, count = _lines(headers)
    try:
        head = b"%b %b HTTP/1.1\r\n%b" % (method.encode("ascii"), target, block)
    except UnicodeEncodeError:
        raise LocalProtocolError("a request's method is ASCII") from None
    if _REQUEST.match(head) is None or head.count(b"\n") != count + 1:
        raise LocalProtocolError("a request's head can't be written")
    if length is None:
        return head + b"\r\n"
    return b"%bcontent-length: %d\r\n\r\n" % (head, _length(length))


def _length(length: int | None) -> int:
    if length is None or length < 0:
        raise LocalProtocolError("a length is not negative")
    return length


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk (RFC 9112 section 7.1). No data would be the last chunk.

    Raises:
        LocalProtocolError: ``data`` is empty.
    """
    if not data:
        raise LocalProtocolError("an empty chunk ends the body; write LAST_CHUNK")
    return b"%x\r\n%b\r\n" % (len(data), data)
