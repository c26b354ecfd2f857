"""Which names and which web pages a gateway answers: Host, Origin and CORS.

A web page that a user visits can make that user's browser call a gateway on the same
machine, and by DNS rebinding it can do so under its own name (MCP, Streamable HTTP,
"Security Warning"). Two checks stop it. They must never depend on anything but the
request's head, and what can't be parsed is refused.

Host. A listener on a loopback address, or on a unix socket, serves ``localhost``,
``127.0.0.0/8`` and ``[::1]`` with any port, and what ``allowed_hosts`` names. Any other
listener serves every name unless ``allowed_hosts`` names some.

Origin. Only browsers send one. It is let in if it is listed, or ``*`` is; if it is the
same authority as Host; or, on a loopback listener, if it is a page of this machine.
``null``, which any page can make itself have, must be listed by that name.

CORS (Fetch Standard, "CORS protocol") lets those pages read answers. Credentials in
its sense (cookies) are never allowed: the gateway's own travel in headers that a page
sets itself. ``*`` is answered only where it is listed.

Answers are remembered in small maps that are emptied when they are full, since most
requests come with the same few values.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeVar

from mcpx.errors import OriginRefused

__all__ = ["Origins"]

_T = TypeVar("_T")
HeaderPairs = tuple[tuple[bytes, bytes], ...]

_METHODS = ("GET", "POST", "DELETE", "OPTIONS")
_HEADERS = (
    "Content-Type",
    "Authorization",
    "X-API-Key",
    "X-Request-ID",
    "Mcp-Session-Id",
    "MCP-Protocol-Version",
    "Last-Event-ID",
    "Mcp-Method",
    "Mcp-Name",
)
_EXPOSED = b"Mcp-Session-Id, X-Request-ID, Retry-After, MCP-Protocol-Version, WWW-Authenticate"
_PARAMETER = b"mcp-param-"

_REMEMBERED = 256
# A DNS name has 253 characters at most, a scheme and a port come on top.
_LONGEST_AUTHORITY = 262
_LONGEST_ORIGIN = 300
_MOST_PARAMETERS = 64
_LONGEST_PARAMETER = 128

_NAME_CHARACTERS = frozenset(string.ascii_lowercase + string.digits + "-._")
_SCHEME_CHARACTERS = frozenset(string.ascii_lowercase + string.digits + "+-.")
_TOKEN = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()
_DEFAULT_PORTS = {"http": 80, "https": 443}

_VARY = (b"Vary", b"Origin")
_VARY_PREFLIGHT = (
    b"Vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
)


class _Authority(NamedTuple):
    """A host in its one spelling, and a port if one was written."""

    host: str
    port: int | None


class _Origin(NamedTuple):
    """A parsed origin. ``port`` is the scheme's own where none was written."""

    scheme: str
    host: str
    port: int | None


class Origins:
    """The checks and the CORS headers of one listener. Pure but for what it remembers.

    ``loopback`` is true for a listener on a loopback address or a unix socket. Lists
    are as their author wrote them; ValueError says which entry can't be used.
    """

    __slots__ = (
        "_any_origin",
        "_checks_host",
        "_cors_enabled",
        "_cors_known",
        "_hosts",
        "_hosts_known",
        "_loopback",
        "_null_origin",
        "_origins",
        "_pairs_known",
        "_preflight_headers",
        "_preflight_rest",
        "_tells_parameters",
    )

    def __init__(
        self,
        *,
        loopback: bool,
        allowed_hosts: Iterable[str] = (),
        cors_enabled: bool = False,
        allowed_origins: Iterable[str] = (),
        allowed_methods: Iterable[str] = (),
        allowed_headers: Iterable[str] = (),
        max_age: str | int = 86400,
    ) -> None:
        self._loopback = loopback
        self._hosts = frozenset(_host_entry(entry) for entry in allowed_hosts)
        self._checks_host = loopback or bool(self._hosts)
        written = set(allowed_origins)
        self._any_origin = "*" in written
        self._null_origin = "null" in written
        self._origins = frozenset(_origin_entry(entry) for entry in written - {"*", "null"})
        self._cors_enabled = cors_enabled
        methods = tuple(allowed_methods) or _METHODS
        headers = tuple(allowed_headers)
        self._tells_parameters = not headers
        self._preflight_headers = _token_list(headers or _HEADERS, "header")
        self._preflight_rest = (
            (b"Access-Control-Allow-Methods", _token_list(methods, "method")),
            (b"Access-Control-Max-Age", _seconds(max_age)),
        )
        self._hosts_known: set[bytes | None] = set()
        self._pairs_known: set[tuple[bytes | None, bytes]] = set()
        self._cors_known: dict[bytes | None, HeaderPairs] = {}

    def check(self, host: bytes | None, origin: bytes | None) -> None:
        """Let a request of these two headers in, or raise OriginRefused.

        Both are values as they came; None where there is no such header. A request
        with several of one of them is the HTTP layer's to refuse.
        """
        if origin is None:
            if not self._checks_host or host in self._hosts_known:
                return
            self._check_host(host)
            _remember(self._hosts_known, host)
            return
        pair = (host, origin)
        if pair in self._pairs_known:
            return
        if self._checks_host:
            self._check_host(host)
        parsed = _parse_origin(origin)
        if not (self._is_listed(origin, parsed) or self._is_own(parsed, host)):
            raise OriginRefused("this Origin may not call this gateway")
        if host is None or len(host) <= _LONGEST_AUTHORITY:
            _remember(self._pairs_known, pair)

    def cors_headers(self, origin: bytes | None) -> HeaderPairs:
        """What an answer to a request from ``origin`` carries; nothing without CORS."""
        if not self._cors_enabled:
            return ()
        known = self._cors_known.get(origin)
        if known is None:
            known = self._cors(origin)
            if len(self._cors_known) >= _REMEMBERED:
                self._cors_known.clear()
            if origin is None or len(origin) <= _LONGEST_ORIGIN:
                self._cors_known[origin] = known
        return known

    def preflight(
        self, origin: bytes | None, method: bytes | None, headers: bytes | None
    ) -> HeaderPairs | None:
        """The headers of the 204 that answers an OPTIONS request.

        ``method`` and ``headers`` are its ``Access-Control-Request-Method`` and
        ``-Headers``. None where it is no preflight, or CORS is off: then it is a
        request like others. Raises OriginRefused for a page that may not call.
        """
        if not self._cors_enabled or origin is None or method is None:
            return None
        if not self._is_listed(origin, _parse_origin(origin)):
            raise OriginRefused("this Origin may not call this gateway")
        told = self._preflight_headers
        if self._tells_parameters and headers is not None:
            told = b", ".join((told, *_parameters(headers)))
        return (
            (b"Access-Control-Allow-Origin", b"*" if self._any_origin else origin),
            _VARY_PREFLIGHT,
            *self._preflight_rest,
            (b"Access-Control-Allow-Headers", told),
        )

    def _cors(self, origin: bytes | None) -> HeaderPairs:
        exposed = (b"Access-Control-Expose-Headers", _EXPOSED)
        if self._any_origin:
            return ((b"Access-Control-Allow-Origin", b"*"), exposed)
        if origin is None or not self._is_listed(origin, _parse_origin(origin)):
            # Said in each answer, or a cache gives one page's answer to another.
            return (_VARY,)
        return ((b"Access-Control-Allow-Origin", origin), _VARY, exposed)

    def _check_host(self, host: bytes | None) -> None:
        authority = None if host is None else _parse_authority(host)
        if authority is None or not self._serves(authority):
            raise OriginRefused("this Host is not served here")

    def _serves(self, authority: _Authority) -> bool:
        if self._loopback and _is_loopback(authority.host):
            return True
        hosts, (host, port) = self._hosts, authority
        if (host, None) in hosts or authority in hosts:
            return True
        return port is None and ((host, 80) in hosts or (host, 443) in hosts)

    def _is_own(self, origin: _Origin | None, host: bytes | None) -> bool:
        """Whether the page came from the authority that it calls.

        Where ``Host`` was not checked, a name proves nothing: a page of any site can have
        its own name point here. An address can't be made to.
        """
        if origin is None or host is None or origin.scheme not in _DEFAULT_PORTS:
            return False
        authority = _parse_authority(host)
        if authority is None:
            return False
        if not (self._checks_host or _is_loopback(authority.host) or _is_address(authority.host)):
            return False
        port = _DEFAULT_PORTS[origin.scheme] if authority.port is None else authority.port
        return (authority.host, port) == (origin.host, origin.port)

    def _is_listed(self, origin: bytes, parsed: _Origin | None) -> bool:
        """Whether ``origin`` is one that lists or the listener's place let in."""
        if parsed is None:
            return self._null_origin and origin == b"null"
        if self._any_origin or parsed in self._origins:
            return True
        return self._loopback and parsed.scheme in _DEFAULT_PORTS and _is_loopback(parsed.host)


def _is_address(host: str) -> bool:
    """Whether a host is an IP address, which no name server can point elsewhere."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host in {"localhost", "[::1]"}:
        return True
    if not host.startswith("127."):
        return False
    try:
        IPv4Address(host)
    except AddressValueError:
        return False
    return True


def _parse_origin(origin: bytes) -> _Origin | None:
    """``scheme://host[:port]`` (RFC 6454 section 6.2), or None for anything else."""
    if len(origin) > _LONGEST_ORIGIN:
        return None
    scheme_bytes, separator, rest = origin.partition(b"://")
    scheme = scheme_bytes.decode("latin-1").lower()
    if not separator or not scheme or not _SCHEME_CHARACTERS.issuperset(scheme):
        return None
    authority = _parse_authority(rest)
    if authority is None or not scheme[0].isalpha():
        return None
    port = _DEFAULT_PORTS.get(scheme) if authority.port is None else authority.port
    return _Origin(scheme, authority.host, port)


def _parse_authority(text: bytes) -> _Authority | None:
    """``host[:port]`` (RFC 3986 section 3.2) without user, or None for anything else."""
    if len(text) > _LONGEST_AUTHORITY:
        return None
    written = text.decode("latin-1").lower()
    if written.startswith("["):
        literal, bracket, rest = written[1:].partition("]")
        if not bracket or "%" in literal:
            return None
        try:
            host = f"[{IPv6Address(literal).compressed}]"
        except AddressValueError:
            return None
        if rest and rest[0] != ":":
            return None
        digits = rest[1:]
    else:
        host, _, digits = written.partition(":")
        if not host or not _NAME_CHARACTERS.issuperset(host):
            return None
    if not digits:
        return _Authority(host, None)
    if len(digits) > 5 or not (digits.isascii() and digits.isdigit()) or int(digits) > 65535:
        return None
    return _Authority(host, int(digits))


def _remember(known: set[_T], value: _T) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known.add(value)


def _parameters(requested: bytes) -> list[bytes]:
    """The ``Mcp-Param-*`` names among the headers that a page asks to send.

    The names are the tools' own (MCP 2026-07-28, "Standard Headers"), so that no list
    can hold them. A name that isn't a token, or is too long, is not told.
    """
    names = []
    for part in requested.split(b",", _MOST_PARAMETERS)[:_MOST_PARAMETERS]:
        name = part.strip(b" \t")
        if (
            len(_PARAMETER) < len(name) <= _LONGEST_PARAMETER
            and name.lower().startswith(_PARAMETER)
            and not name.translate(None, _TOKEN)
        ):
            names.append(name)
    return names


def _host_entry(entry: str) -> _Authority:
    authority = None
    if entry.isascii():
        bare_v6 = entry.count(":") > 1 and not entry.startswith("[")
        authority = _parse_authority(f"[{entry}]".encode() if bare_v6 else entry.encode())
    if authority is None:
        raise ValueError(
            f"allowed host {entry!r}: write a name or an address, with or without a port,"
            " such as mcp.example.com or [2001:db8::1]:8080"
        )
    return authority


def _origin_entry(entry: str) -> _Origin:
    origin = _parse_origin(entry.encode()) if entry.isascii() else None
    if origin is None:
        raise ValueError(
            f"allowed origin {entry!r}: write scheme://host or scheme://host:port without a"
            " path, such as https://app.example.com, or *"
        )
    return origin


def _token_list(names: Iterable[str], what: str) -> bytes:
    told = []
    for name in names:
        if not name or not name.isascii() or name.encode().translate(None, _TOKEN):
            raise ValueError(f"allowed {what} {name!r}: not the name of a {what}")
        told.append(name.encode())
    return b", ".join(told)


def _seconds(max_age: str | int) -> bytes:
    written = str(max_age).strip()
    if not (written.isascii() and written.isdigit()) or len(written) > 9:
        raise ValueError(f"max_age {max_age!r}: write a whole number of seconds, such as 86400")
    return str(int(written)).encode()
