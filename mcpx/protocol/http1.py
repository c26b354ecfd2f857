"""HTTP/1.1 (RFC 9112): the parsers of this process, and the writers.

What it is: the one place that the rest imports HTTP/1.1 from. The parsers are those on
llhttp where httptools can be imported, and else those on h11; ``MCPX_NO_EXTENSIONS=1`` in
the environment chooses h11 all the same. Both give the same verdicts. The writers of heads
are those of ``_speedups.heads``. What it must never do: write a chunk that ends the body.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from mcpx._speedups.heads import request_head, response_head
from mcpx.errors import LocalProtocolError
from mcpx.protocol.http1_messages import RequestHead, ResponseHead

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


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk (RFC 9112 section 7.1). No data would be the last chunk.

    Raises:
        LocalProtocolError: ``data`` is empty.
    """
    if not data:
        raise LocalProtocolError("an empty chunk ends the body; write LAST_CHUNK")
    return b"%x\r\n%b\r\n" % (len(data), data)
