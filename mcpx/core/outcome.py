"""What an answer says, in one word, for the audit and the metrics.

``ok``, ``tool_error`` (a result with ``isError``), ``rpc_error`` (a JSON-RPC error),
``http_error`` (a status of 400 or more without either), ``unread`` (no JSON-RPC
response, or too large to look into). It judges nothing and refuses nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["read_answer"]

#: Looking into an answer costs about a nanosecond a byte; past this it isn't worth it.
MAX_BYTES: Final = 1024 * 1024


class _Result(msgspec.Struct):
    isError: bool = False  # noqa: N815 - the protocol's name


class _Response(msgspec.Struct):
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: _Result | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Response).decode


def read_answer(body: bytes, status: int, asked: bytes | None) -> tuple[str | None, bool]:
    """The word for a message, and whether it brings a result to another request.

    The word is ``None`` for a request or a notification of the server's.
    ``asked`` is the JSON text of the request's id, ``None`` if it has none. Errors may
    come without an id, or with one of the server's own; results may not.
    """
    if body and len(body) <= MAX_BYTES:
        try:
            response = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # The last: nested so deep that no reader of it is in sight.
            return ("http_error" if status >= 400 else "unread"), False
        if response.method is not msgspec.UNSET:
            return None, False
        if response.error is not msgspec.UNSET:
            return "rpc_error", False
        if response.result is not msgspec.UNSET:
            word = "tool_error" if response.result.isError else "ok"
            return word, not _same_id(response.id, asked)
    if status >= 400:
        return "http_error", False
    return ("unread" if body else "ok"), False


def _same_id(found: msgspec.Raw | msgspec.UnsetType, asked: bytes | None) -> bool:
    """Whether two ids are one, however each is written."""
    if asked is None or isinstance(found, msgspec.UnsetType):
        return False
    raw = bytes(found)
    if raw == asked:
        return True
    try:
        one, other = msgspec.json.decode(raw), msgspec.json.decode(asked)
    except msgspec.MsgspecError:
        return False
    return isinstance(one, str) == isinstance(other, str) and bool(one == other)
