"""Heads of HTTP/1.1 messages, from the twin that this process runs.

What it is: the names of ``heads_py``, the specification. What it must never do: add
anything of its own.
"""

from typing import TYPE_CHECKING

from mcpx._speedups import twin

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

if TYPE_CHECKING:
    from mcpx._speedups.heads_py import (
        NEVER_FORWARDED,
        TOKEN,
        VALUE,
        Headers,
        after,
        forwarded_request_headers,
        forwarded_response_headers,
        request_head,
        response_head,
    )
else:
    _chosen = twin("heads")
    NEVER_FORWARDED = _chosen.NEVER_FORWARDED
    TOKEN = _chosen.TOKEN
    VALUE = _chosen.VALUE
    Headers = _chosen.Headers
    after = _chosen.after
    forwarded_request_headers = _chosen.forwarded_request_headers
    forwarded_response_headers = _chosen.forwarded_response_headers
    request_head = _chosen.request_head
    response_head = _chosen.response_head
