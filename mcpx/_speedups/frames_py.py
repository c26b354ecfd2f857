"""The strict front door: one scan of a JSON-RPC text (the specification).

What it is: ``scan`` reads a text once, refuses everything that two parsers could
read differently, and tells where the parts lie that the gateway judges or rewrites.
The bytes themselves are never changed: what was judged is what is forwarded.

What it must never do: repair, guess, or accept a text because a part of it could not
be read. It knows no policy and no transport.

What is refused, and why:

* text that is not UTF-8, or starts with a byte order mark; lone surrogates written
  as escapes, which have no UTF-8 form and come out differently everywhere;
* anything outside RFC 8259's grammar: NaN, trailing commas, comments, text after the
  value, control characters in strings;
* a key twice in one object, at any depth, however it is written (``"a"`` and
  ``"\\u0061"`` are one key): some parsers keep the first, some the last;
* a key of the envelope, of ``params`` or of ``_meta`` in another case or in letters that
  fold to it (``METHOD``, ``paramſ``): some parsers take it for the real one;
* arrays at the top (batches), nesting past ``max_depth``, ids that are no string or
  whole number, ``params`` that is no object, a call without a name to judge.

The algorithm: one loop over tokens with a stack of open containers. A compiled
expression takes a key with its colon, or a value, at a time. All quantifiers are
possessive, so every byte is looked at a bounded number of times: the scan is linear
in the length of the text.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Final, Literal, NoReturn

from mcpx.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, FrameError

__all__ = ["Frame", "elements", "members", "scan", "string"]

Span = tuple[int, int]
Kind = Literal["request", "notification", "response"]

_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_WS = rb"[ \t\n\r]*+"
_KEY = re.compile(_WS + rb"(" + _STRING + rb")" + _WS + rb":" + _WS)
_VALUE = re.compile(_WS + rb"(?:(" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)|([{\[]))")
_NEXT = re.compile(_WS + rb"([,}\]])" + _WS)
_CLOSED = re.compile(_WS + rb"([}\]])")
_END = re.compile(_WS + rb"\Z")
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*+)\Z")

_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_META_PREFIX: Final = "io.modelcontextprotocol/"
_META: Final = frozenset(
    {
        "progressToken",
        *(
            _META_PREFIX + name
            for name in (
                "protocolVersion",
                "clientCapabilities",
                "clientInfo",
                "logLevel",
                "subscriptionId",
                "related-task",
            )
        ),
    }
)
_PARAMS: Final = frozenset(
    {
        "_meta",
        "argument",
        "arguments",
        "capabilities",
        "clientInfo",
        "context",
        "cursor",
        "inputResponses",
        "level",
        "name",
        "notifications",
        "progressToken",
        "protocolVersion",
        "ref",
        "requestId",
        "requestState",
        "task",
        "taskId",
        "uri",
    }
)
_LONGEST: Final = max(map(len, _ENVELOPE | _PARAMS | _META))
_NAMED: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
}
MAX_METHOD_CHARS: Final = 128
MAX_ID_BYTES: Final = 1024


class Frame:
    """A JSON-RPC message that was understood; spans are (start, end) into its text.

    ``id`` is the raw text of the id (``b'"a"'``, ``b"7"``), ``None`` for a notification.
    ``name``, ``uri`` and ``protocol_version`` are decoded strings; a span of a string
    includes its quotes. ``None`` means that the message has no such part.
    """

    __slots__ = (
        "arguments",
        "error",
        "id",
        "id_span",
        "kind",
        "meta",
        "method",
        "name",
        "name_span",
        "notifications",
        "params",
        "progress_token",
        "protocol_version",
        "ref",
        "result",
        "uri",
        "uri_span",
    )

    def __init__(self) -> None:
        self.kind: Kind = "request"
        self.id: bytes | None = None
        self.id_span: Span | None = None
        self.method: str | None = None
        self.params: Span | None = None
        self.name: str | None = None
        self.name_span: Span | None = None
        self.uri: str | None = None
        self.uri_span: Span | None = None
        self.arguments: Span | None = None
        self.meta: Span | None = None
        self.progress_token: Span | None = None
        self.protocol_version: str | None = None
        self.ref: Span | None = None
        self.notifications: Span | None = None
        self.result: Span | None = None
        self.error: Span | None = None


Members = list[tuple[str, int, int]]


def scan(body: bytes, max_depth: int = 64, *, of_server: bool = False) -> Frame:
    """The message in ``body``.

    ``of_server``: it comes from a server, whose ``params`` nobody judges: they are not
    looked into.

    Raises:
        FrameError: the text is refused; nothing may be forwarded.
    """
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FrameError("the message is not UTF-8", PARSE_ERROR, exc.start) from None
    if body.startswith(b"\xef\xbb\xbf"):
        raise FrameError("the message starts with a byte order mark", PARSE_ERROR, 0)
    kept = _validate(body, max_depth)
    top = kept.get(())
    if top is None:
        if body.lstrip(b" \t\n\r").startswith(b"["):
            raise FrameError(
                "batches are not accepted: send one message at a time", INVALID_REQUEST
            )
        raise FrameError("a JSON-RPC message is an object", INVALID_REQUEST)
    return _envelope(body, top, kept, of_server=of_server)


def _validate(body: bytes, max_depth: int) -> dict[tuple[str, ...], Members]:
    """Check the whole text; keep the members of the objects that the envelope needs.

    Kept are the objects at ``()``, ``("params",)`` and ``("params", "_meta")``.
    """
    kept: dict[tuple[str, ...], Members] = {}
    # One entry for each open container: its keys (None for an array), the member list if
    # it is kept, its path if kept, and the key and start of the value that is being read.
    keys: set[str] | None = None
    members_here: Members | None = None
    path: tuple[str, ...] | None = None
    key = ""
    start = 0
    stack: list[tuple[set[str] | None, Members | None, tuple[str, ...] | None, str, int]] = []
    pos = 0
    while True:
        # A value begins at pos.
        found = _VALUE.match(body, pos)
        if found is None:
            _refuse(body, pos, "a value")
        opened = found[2]
        if opened is None:
            pos = found.end()
            start = found.start(1)
            if b"\\u" in found[1]:
                _decoded(body, start, pos)
        else:
            if len(stack) >= max_depth:
                raise FrameError(f"nesting is deeper than {max_depth}", PARSE_ERROR, found.start(2))
            stack.append((keys, members_here, path, key, found.start(2)))
            pos = found.end()
            if opened == b"{":
                child = _kept_path(path, key, at_top=len(stack) == 1)
                keys, path = set(), child
                members_here = [] if child is not None else None
                if child is not None and members_here is not None:
                    kept[child] = members_here
            else:
                keys, members_here, path = None, None, None
            closed = _CLOSED.match(body, pos)
            if closed is None:
                if keys is not None:
                    key, pos = _key(body, pos, keys)
                continue
            if (closed[1] == b"}") != (keys is not None):
                _refuse(body, closed.start(1), "a value")
            pos = closed.end()
            keys, members_here, path, key, start = stack.pop()
        # A value ended at pos: give it to its container, then close what closes here.
        while True:
            if members_here is not None:
                members_here.append((key, start, pos))
            if not stack:
                if _END.match(body, pos) is None:
                    raise FrameError("text follows the message", PARSE_ERROR, pos)
                return kept
            follows = _NEXT.match(body, pos)
            if follows is None:
                _refuse(body, pos, "`,` or the container's end")
            mark = follows[1]
            if mark == b",":
                pos = follows.end()
                if keys is not None:
                    key, pos = _key(body, pos, keys)
                break
            if (mark == b"}") != (keys is not None):
                _refuse(body, follows.start(1), "the other bracket")
            pos = follows.end(1)
            keys, members_here, path, key, start = stack.pop()


def _kept_path(path: tuple[str, ...] | None, key: str, *, at_top: bool) -> tuple[str, ...] | None:
    if at_top:
        return ()
    if path == () and key == "params":
        return ("params",)
    if path == ("params",) and key == "_meta":
        return ("params", "_meta")
    return None


def _key(body: bytes, pos: int, keys: set[str]) -> tuple[str, int]:
    """The key at ``pos`` and where its value begins."""
    found = _KEY.match(body, pos)
    if found is None:
        _refuse(body, pos, "a key and `:`")
    key = _decoded(body, found.start(1), found.end(1))
    if key in keys:
        raise FrameError(f"the key {_shown(key)} stands twice in one object", PARSE_ERROR, pos)
    keys.add(key)
    return key, found.end()


def _decoded(body: bytes, start: int, end: int) -> str:
    """The string whose text, quotes included, lies at (start, end)."""
    if body.find(b"\\", start, end) < 0:
        return body[start + 1 : end - 1].decode()
    text: str = json.loads(body[start:end])
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FrameError("a string holds half a surrogate pair", PARSE_ERROR, start) from None
    return text


def _refuse(body: bytes, pos: int, wanted: str) -> NoReturn:
    while pos < len(body) and body[pos] in b" \t\n\r":
        pos += 1
    if pos >= len(body):
        raise FrameError("the message ends too early", PARSE_ERROR, pos)
    raise FrameError(f"not JSON: {wanted} expected at byte {pos}", PARSE_ERROR, pos)


def _shown(key: str) -> str:
    return json.dumps(key if len(key) <= 64 else key[:64] + "…")


def _fold(key: str) -> str:
    # What is written in C may take a NUL for the key's end.
    return unicodedata.normalize("NFKC", key.partition("\0")[0]).casefold()


_ENVELOPE_FOLDED: Final = {_fold(key): key for key in _ENVELOPE}
_PARAMS_FOLDED: Final = {_fold(key): key for key in _PARAMS}
_META_FOLDED: Final = {_fold(key): key for key in _META}


def _no_variants(
    members_here: Members, known: frozenset[str], folded: dict[str, str], frame: Frame, code: int
) -> None:
    for key, start, _ in members_here:
        # No letters fold to fewer of ASCII, and to fold n marks takes n * n steps.
        if key not in known and len(key.partition("\0")[0]) <= _LONGEST:
            real = folded.get(_fold(key))
            if real is not None:
                raise FrameError(
                    f"the key {_shown(key)} can be taken for {_shown(real)}", code, start, frame.id
                )


def _envelope(
    body: bytes, top: Members, kept: dict[tuple[str, ...], Members], *, of_server: bool
) -> Frame:
    frame = Frame()
    spans = {key: (start, end) for key, start, end in top}
    id_span = spans.get("id")
    if id_span is not None:
        raw = body[id_span[0] : id_span[1]]
        null_error = raw == b"null" and "error" in spans and "method" not in spans
        if not (raw.startswith(b'"') or _INTEGER.match(raw) or null_error):
            raise FrameError("an id is a string or a whole number", INVALID_REQUEST, id_span[0])
        if len(raw) > MAX_ID_BYTES:
            raise FrameError(f"an id has at most {MAX_ID_BYTES} bytes", INVALID_REQUEST, id_span[0])
        frame.id, frame.id_span = raw, id_span
    _no_variants(top, _ENVELOPE, _ENVELOPE_FOLDED, frame, INVALID_REQUEST)

    version = spans.get("jsonrpc")
    if version is None or body[version[0] : version[1]] != b'"2.0"':
        raise FrameError('"jsonrpc" must be "2.0"', INVALID_REQUEST, 0, frame.id)
    frame.result, frame.error = spans.get("result"), spans.get("error")
    method = spans.get("method")
    if method is None:
        if (frame.result is None) == (frame.error is None) or frame.id is None:
            raise FrameError(
                'a message has "method", or "id" and one of "result" and "error"',
                INVALID_REQUEST,
                0,
                frame.id,
            )
        if "params" in spans:
            raise FrameError('"params" without "method"', INVALID_REQUEST, 0, frame.id)
        frame.kind = "response"
        return frame
    if frame.result is not None or frame.error is not None:
        raise FrameError(
            'a message has "method" or a result, not both', INVALID_REQUEST, 0, frame.id
        )
    frame.kind = "notification" if frame.id is None else "request"
    frame.method = _name(body, method, frame, '"method"', INVALID_REQUEST)
    if len(frame.method) > MAX_METHOD_CHARS:
        raise FrameError(
            f'"method" has at most {MAX_METHOD_CHARS} characters',
            INVALID_REQUEST,
            method[0],
            frame.id,
        )
    if not of_server:
        _params(body, spans.get("params"), kept, frame)
    return frame


def _params(
    body: bytes, span: Span | None, kept: dict[tuple[str, ...], Members], frame: Frame
) -> None:
    params: Members = []
    if span is not None:
        if body[span[0]] != 0x7B:
            raise FrameError('"params" must be an object', INVALID_PARAMS, span[0], frame.id)
        frame.params = span
        params = kept[("params",)]
        _no_variants(params, _PARAMS, _PARAMS_FOLDED, frame, INVALID_PARAMS)
    spans = {key: (start, end) for key, start, end in params}
    needed = _NAMED.get(frame.method or "")
    if needed is not None and needed not in spans:
        raise FrameError(
            f'"params.{needed}" is missing: {frame.method} needs it',
            INVALID_PARAMS,
            span[0] if span else 0,
            frame.id,
        )
    for key in ("name", "uri"):
        at = spans.get(key)
        if at is None:
            continue
        if body[at[0]] == 0x22:
            text = _decoded(body, *at)
            if key == "name":
                frame.name, frame.name_span = text, at
            else:
                frame.uri, frame.uri_span = text, at
        if key == needed:
            _name(body, at, frame, f'"params.{key}"', INVALID_PARAMS)
    frame.arguments = _object(body, spans, "arguments", frame)
    frame.ref = _object(body, spans, "ref", frame)
    frame.notifications = _object(body, spans, "notifications", frame)
    frame.meta = _object(body, spans, "_meta", frame)
    if frame.meta is not None:
        meta = kept[("params", "_meta")]
        _no_variants(meta, _META, _META_FOLDED, frame, INVALID_PARAMS)
        for key, start, end in meta:
            if key == "progressToken":
                frame.progress_token = (start, end)
            elif key == "io.modelcontextprotocol/protocolVersion":
                frame.protocol_version = _name(
                    body, (start, end), frame, f'"_meta.{key}"', INVALID_PARAMS
                )


def _object(body: bytes, spans: dict[str, Span], key: str, frame: Frame) -> Span | None:
    span = spans.get(key)
    if span is not None and body[span[0]] != 0x7B:
        raise FrameError(f'"params.{key}" must be an object', INVALID_PARAMS, span[0], frame.id)
    return span


def _name(body: bytes, span: Span, frame: Frame, what: str, code: int) -> str:
    """A string that is not empty."""
    if body[span[0]] != 0x22 or span[1] - span[0] <= 2:
        raise FrameError(f"{what} must be a string that is not empty", code, span[0], frame.id)
    return _decoded(body, *span)


def string(body: bytes, span: Span) -> str | None:
    """The string at ``span`` of an accepted text; ``None`` where another value stands."""
    return _decoded(body, *span) if body[span[0]] == 0x22 else None


def members(body: bytes, start: int) -> list[tuple[str, int, int]]:
    """The members (key, start, end of the value) of the object at ``start``.

    ``body`` must be a text that ``scan`` accepted; other values have no members.
    """
    if body[start] != 0x7B:
        return []
    found: list[tuple[str, int, int]] = []
    pos = start + 1
    while (key := _KEY.match(body, pos)) is not None:
        value = key.end()
        end = _skip(body, value)
        found.append((_decoded(body, key.start(1), key.end(1)), value, end))
        follows = _NEXT.match(body, end)
        if follows is None or follows[1] != b",":
            break
        pos = follows.end()
    return found


def elements(body: bytes, start: int) -> list[Span]:
    """The elements' spans of the array at ``start`` of an accepted text."""
    if body[start] != 0x5B:
        return []
    found: list[Span] = []
    value = _VALUE.match(body, start + 1)
    while value is not None:
        begin = value.start(1) if value[2] is None else value.start(2)
        end = _skip(body, begin)
        found.append((begin, end))
        follows = _NEXT.match(body, end)
        if follows is None or follows[1] != b",":
            break
        value = _VALUE.match(body, follows.end())
    return found


_SKIP = re.compile(rb'[^"{}\[\]]*+(?:(' + _STRING + rb")|([{\[])|([}\]]))")


def _skip(body: bytes, start: int) -> int:
    """Where the value that begins at ``start`` ends. The text was accepted before."""
    value = _VALUE.match(body, start)
    assert value is not None
    if value[2] is None:
        return value.end()
    depth, pos = 1, value.end()
    while depth:
        token = _SKIP.match(body, pos)
        assert token is not None
        if token[2] is not None:
            depth += 1
        elif token[3] is not None:
            depth -= 1
        pos = token.end()
    return pos
