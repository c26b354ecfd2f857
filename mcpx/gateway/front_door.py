"""Reading the request: what the client asks, from whom and for what.

What it is: the steps before anything is decided. They turn a request into a message
that was understood, or into the refusal to give. What it must never do: forward
something, or let a request pass because it could not be read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import unquote

from mcpx._speedups.frames import elements, members, scan, string
from mcpx.config.snapshot import Route
from mcpx.core.globs import GlobSet, fold, piles_marks
from mcpx.core.listing import member_text
from mcpx.core.policy import Kind
from mcpx.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    BadRequest,
    FrameError,
    HeaderMismatch,
    UnknownServer,
)
from mcpx.gateway.exchange import Exchange
from mcpx.protocol.headers import decode_value, is_json_content_type
from mcpx.protocol.mcp import MIRRORED_MEMBERS, TARGETS, is_modern

__all__ = ["find_route", "more_targets", "named_route", "read_message"]

_KINDS: Final = {"tool": Kind.TOOL, "prompt": Kind.PROMPT, "resource": Kind.RESOURCE}
_PREFIX: Final = b"/mcp/"
_ALLOWED: Final = ("POST", "GET", "DELETE")
#: What ``completion/complete`` refers to, and the member of ``params.ref`` that names it.
_REFERRED: Final = {"ref/prompt": "name", "ref/resource": "uri"}
_REF_MEMBERS: Final = frozenset({"type", "name", "uri", "title"})
_SUBSCRIPTIONS: Final = "resourceSubscriptions"
_NOTIFICATIONS: Final = frozenset({_SUBSCRIPTIONS})
#: URIs in one subscription. Each is judged, and the loop waits for it.
_MOST_SUBSCRIPTIONS: Final = 512
#: Members of an object that are looked through for look-alikes, and characters of one.
_MOST_MEMBERS: Final = 64
_LONGEST_KEY: Final = 256


def read_message(ex: Exchange) -> None:
    """Understand the request's body.

    Only POST carries a message. A body on GET or DELETE is refused: a server might read
    what nobody judged.

    Raises:
        GatewayError: it can't be understood; nothing may be forwarded.
    """
    request = ex.request
    if request.method == "POST":
        _read_post(ex)
        return
    if request.method not in _ALLOWED:
        raise BadRequest(
            f"{request.method} is not served here",
            status=405,
            headers=((b"allow", b"GET, POST, DELETE"),),
        )
    if request.body:
        raise BadRequest(f"{request.method} has no body; send messages with POST")
    ex.modern = is_modern(ex.headers.get(b"mcp-protocol-version"), None)


def _read_post(ex: Exchange) -> None:
    headers = ex.headers
    if not is_json_content_type(headers.get(b"content-type", b"")):
        raise BadRequest("send application/json, in UTF-8", status=415)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise BadRequest("send the body without a content-encoding", status=415)
    try:
        frame = scan(ex.request.body, ex.snapshot.config.limits.max_depth)
    except FrameError as exc:
        # The id, where it was understood, makes the refusal reach the one who waits.
        ex.modern = is_modern(headers.get(b"mcp-protocol-version"), None)
        raise _frame_refusal(exc) from exc
    ex.frame = frame
    ex.modern = is_modern(headers.get(b"mcp-protocol-version"), frame.protocol_version)
    if frame.method is None:
        ex.method = "response"
        if b"mcp-method" in headers or b"mcp-name" in headers:
            raise HeaderMismatch("Mcp-Method and Mcp-Name have no place on a response")
        return
    ex.method = frame.method
    target = TARGETS.get(frame.method)
    if target is not None:
        ex.kind = _KINDS[target]
        ex.name = frame.uri if target == "resource" else frame.name
        if target == "tool":
            ex.tool = ex.name
    _same_in_headers(ex)


def _frame_refusal(exc: FrameError) -> BadRequest:
    refusal = BadRequest(exc.message, rpc_code=exc.rpc_code)
    refusal.id = exc.id
    return refusal


def _same_in_headers(ex: Exchange) -> None:
    """Headers that mirror the body must say what the body says.

    A server, or a proxy before it, may go by the header: what was judged would then not
    be what is done. MCP 2026-07-28, Streamable HTTP, "Standard request headers".
    """
    frame, headers = ex.frame, ex.headers
    assert frame is not None
    method = headers.get(b"mcp-method")
    if method is not None and method.decode("latin-1") != frame.method:
        raise HeaderMismatch("Mcp-Method differs from the message's method")
    named = headers.get(b"mcp-name")
    if named is not None:
        try:
            text = decode_value(named)
        except ValueError as exc:
            raise HeaderMismatch(f"Mcp-Name can't be read: {exc}") from exc
        expected = ex.name if ex.kind is not None else _task_id(ex)
        if text != expected:
            raise HeaderMismatch("Mcp-Name differs from the name in the message")
    version = headers.get(b"mcp-protocol-version")
    if (
        version is not None
        and frame.protocol_version is not None
        and version.decode("latin-1") != frame.protocol_version
    ):
        raise HeaderMismatch("MCP-Protocol-Version differs from the message's _meta")


def _task_id(ex: Exchange) -> str | None:
    frame = ex.frame
    assert frame is not None
    if MIRRORED_MEMBERS.get(frame.method or "") != "taskId" or frame.params is None:
        return None
    return member_text(ex.request.body, frame.params[0], "taskId")


def more_targets(ex: Exchange) -> list[tuple[Kind, str]]:
    """What else a message names that a policy has a say in.

    ``completion/complete`` names a prompt or a template; ``subscriptions/listen`` names
    resources.

    Raises:
        BadRequest: it names them in a way that can't be judged.
    """
    frame, body = ex.frame, ex.request.body
    assert frame is not None
    if frame.method == "completion/complete":
        if frame.ref is None:
            raise BadRequest('"params.ref" is missing', rpc_code=INVALID_PARAMS)
        ref = {key: string(body, (start, end)) for key, start, end in members(body, frame.ref[0])}
        _no_look_alike(ref, _REF_MEMBERS, "params.ref")
        kind = ref.get("type") or ""
        if kind not in _REFERRED or not ref.get(_REFERRED[kind]):
            raise BadRequest('"params.ref" names no prompt or resource', rpc_code=INVALID_PARAMS)
        if "name" in ref and "uri" in ref:
            # A server may go by what is there instead of by the type.
            raise BadRequest('"params.ref" has "name" and "uri"', rpc_code=INVALID_PARAMS)
        return [
            (Kind.PROMPT if kind == "ref/prompt" else Kind.TEMPLATE, ref[_REFERRED[kind]] or ""),
        ]
    if frame.method == "subscriptions/listen" and frame.notifications is not None:
        return _subscribed(body, frame.notifications[0])
    return []


def _no_look_alike(keys: Collection[str], known: frozenset[str], where: str) -> None:
    """Refuse a key that a careless server may take for one of ``known``.

    An object with more or longer keys than any that is meant well is refused unread.
    """
    folded = {fold(key) for key in known}
    if len(keys) > _MOST_MEMBERS or any(
        key not in known and (len(key) > _LONGEST_KEY or piles_marks(key) or fold(key) in folded)
        for key in keys
    ):
        raise BadRequest(
            f'"{where}" has a key that can be taken for another, or too many of them',
            rpc_code=INVALID_PARAMS,
        )


def _subscribed(body: bytes, start: int) -> list[tuple[Kind, str]]:
    found = members(body, start)
    _no_look_alike([key for key, _, _ in found], _NOTIFICATIONS, "params.notifications")
    for key, value, _ in found:
        if key != _SUBSCRIPTIONS:
            continue
        spans = elements(body, value)
        if len(spans) > _MOST_SUBSCRIPTIONS:
            raise BadRequest(
                f'"resourceSubscriptions" has more than {_MOST_SUBSCRIPTIONS} URIs',
                rpc_code=INVALID_PARAMS,
            )
        uris = [string(body, span) for span in spans]
        if body[value] != 0x5B or None in uris:
            raise BadRequest(
                '"resourceSubscriptions" must be a list of URIs', rpc_code=INVALID_PARAMS
            )
        return [(Kind.RESOURCE, uri) for uri in uris if uri is not None]
    return []


def find_route(ex: Exchange) -> None:
    """The server that the path names.

    Raises:
        UnknownServer: there is none, or the path below it is not one to forward.
        BadRequest: a query string that would not be forwarded.
    """
    path = ex.path
    if not path.startswith(_PREFIX):
        raise UnknownServer("no endpoint at this path; servers are at /mcp/{name}")
    route = named_route(ex)
    if route is None:
        raise UnknownServer("no server of that name; GET /servers lists them")
    ex.route = route
    _, slash, below = path[len(_PREFIX) :].partition(b"/")
    if slash:
        ex.upstream_path = _below(route.paths, below)
    if ex.query and not route.server.forward_query:
        raise BadRequest(
            "a query string is not forwarded to this server; "
            "its operator can allow it with `forward_query: true`",
            rpc_code=INVALID_REQUEST,
        )
    if ex.query:
        _check_query(ex.query, route)


def _check_query(query: bytes, route: Route) -> None:
    given = _parameters(query)
    if "access_token" in given:
        # RFC 9700 section 4.3.2, and a client's credential never goes upstream.
        raise BadRequest("tokens are sent in the Authorization header, not in the query")
    if route.url is not None and not given.isdisjoint(
        _parameters(route.url.target.partition(b"?")[2])
    ):
        raise BadRequest("the query sets a parameter that this server's own URL sets")


def _parameters(query: bytes) -> set[str]:
    """The names in a query string, as the least exact of servers tells them apart."""
    parts = query.decode("latin-1").replace(";", "&").split("&")
    names = (unquote(part.partition("=")[0].replace("+", " "), "latin-1") for part in parts)
    return {fold(name.partition("[")[0].partition("\0")[0]) for name in names if name}


def named_route(ex: Exchange) -> Route | None:
    """The server that the path names, served or not."""
    if not ex.path.startswith(_PREFIX):
        return None
    name = ex.path[len(_PREFIX) :].partition(b"/")[0]
    return ex.snapshot.routes.get(name.decode("latin-1"))


def _below(allowed: GlobSet, below: bytes) -> bytes:
    path = "/" + below.decode("latin-1")
    if _is_plain(path) and allowed.matches(path):
        return path.encode("latin-1")
    raise UnknownServer("this path below the server is not served; use /mcp/{name} itself")


def _is_plain(path: str) -> bool:
    """Whether every server reads the path as it is written.

    Servers decode once or twice, and some leave out what follows ``;`` in a segment
    before they resolve dots (``/..;/``). So the path must come to rest after one round of
    decoding, in visible ASCII, and no segment may be of dots alone, parameters apart.
    """
    text = unquote(path, "latin-1")
    if not all("!" <= character <= "~" for character in text) or unquote(text) != text:
        return False
    segments = text.replace("\\", "/").split("/")[1:]
    return (
        all(segment.partition(";")[0].strip(".") or not segment for segment in segments)
        and "" not in segments[:-1]
    )
