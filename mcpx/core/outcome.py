"""What an answer says, in one word, for the audit and the metrics.

``ok``, ``tool_error`` (a result with ``isError``), ``rpc_error`` (a JSON-RPC error),
``http_error`` (a status of 400 or more without either), ``unread`` (no JSON-RPC
response, or too large to look into). It judges nothing and refuses nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["classify"]

#: Looking into an answer costs about a nanosecond a byte; past this it isn't worth it.
MAX_BYTES: Final = 1024 * 1024


class _Result(msgspec.Struct):
    isError: bool = False  # noqa: N815 - the protocol's name


class _Response(msgspec.Struct):
    result: _Result | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Response).decode


def classify(body: bytes, status: int) -> str | None:
    """The word for a message, ``None`` if it is a request or notification of the server's."""
    if body and len(body) <= MAX_BYTES:
        try:
            response = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # The last: nested so deep that no reader of it is in sight.
            return "http_error" if status >= 400 else "unread"
        if response.method is not msgspec.UNSET:
            return None
        if response.error is not msgspec.UNSET:
            return "rpc_error"
        if response.result is not msgspec.UNSET:
            return "tool_error" if response.result.isError else "ok"
    if status >= 400:
        return "http_error"
    return "unread" if body else "ok"
