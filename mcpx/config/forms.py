"""The forms of single texts: addresses, URLs, names of headers and servers, origins.

Each function takes one text of the configuration and returns what it means, or raises
``FormError`` with what is wrong. None looks anything up, and none quotes a URL, whose
user part or query may hold a credential.

Texts that reach a wire (URLs, hosts, header names) are plain ASCII without blanks and
control characters, so that nothing can be smuggled into a request by a setting.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

__all__ = [
    "FRAMING_HEADERS",
    "FormError",
    "Listen",
    "UpstreamUrl",
    "check_allowed_host",
    "check_claim",
    "check_file",
    "check_glob_path",
    "check_header",
    "check_host_port",
    "check_issuer",
    "check_method",
    "check_origin",
    "check_server_name",
    "check_target",
    "is_loopback",
    "is_ours",
    "is_public_host",
    "parse_listen",
    "parse_network",
    "parse_secure_url",
    "parse_upstream_url",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 9110 section 5.6.2
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SERVER_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_LONGEST_NAME: Final = 64
_LABELS: Final = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)
_LONGEST_HOST: Final = 253  # RFC 1035 section 2.3.4, less the root label
_NUMERIC_END: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)((?:\?[^#]*)?)((?:#.*)?)")
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#@]+)")
_LONGEST_SOCKET_PATH: Final = 103  # bytes; the shortest sun_path of the systems we run on, less NUL
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LONGEST_ASKED: Final = 2048  # characters of a URL that the gateway itself asks
_LONGEST_CLAIM: Final = 128
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^#]+")
_PRIVATE_SUFFIXES: Final = (
    ".internal", ".intranet", ".lan", ".local", ".localhost", ".home.arpa", ".svc", ".test",
)  # fmt: skip
# Claims (RFC 7519 section 4.1, RFC 8693 section 4.2) that say nothing about who it is.
_NO_IDENTITY: Final = frozenset({"aud", "exp", "iat", "iss", "jti", "nbf", "scope", "scp"})

FRAMING_HEADERS: Final = frozenset(
    {
        "connection", "content-encoding", "content-length", "expect", "host", "http2-settings",
        "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that say how a message is carried (RFC 9110 section 7.6.1 and RFC 9112)."""

_OUR_HEADERS: Final = frozenset({"forwarded", "x-real-ip", "x-request-id"})
_OUR_PREFIXES: Final = ("mcp-", "proxy-", "x-forwarded-")


class FormError(ValueError):
    """A text of the wrong form. ``hint`` says what to write instead, where that is known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Listen:
    """Where to listen: ``path`` for a Unix socket, else ``host`` (empty: all) and ``port``."""

    __slots__ = ("host", "path", "port")

    def __init__(self, host: str, port: int, path: str | None) -> None:
        self.host = host
        self.port = port
        self.path = path

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.path is not None or is_loopback(self.host)

    def __repr__(self) -> str:
        return f"Listen({self})"

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class UpstreamUrl:
    """A server's endpoint. ``target`` and ``authority`` go on the wire as they are."""

    __slots__ = ("authority", "host", "port", "scheme", "target")

    def __init__(self, scheme: str, host: str, port: int, target: bytes, authority: bytes) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.target = target
        self.authority = authority

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UpstreamUrl):
            return NotImplemented
        return (self.scheme, self.port, self.target, self.authority) == (
            other.scheme,
            other.port,
            other.target,
            other.authority,
        )

    def __hash__(self) -> int:
        return hash((self.scheme, self.port, self.target, self.authority))

    def __repr__(self) -> str:
        return f"UpstreamUrl({self})"

    def __str__(self) -> str:
        """The URL for people: a query is left out, for it may hold a key."""
        path, question, _ = self.target.decode().partition("?")
        return f"{self.scheme}://{self.authority.decode()}{path}{'?…' if question else ''}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address without brackets) is this machine, to itself."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def is_public_host(host: str) -> bool:
    """Whether ``host`` is beyond this machine and its network, as far as its text tells."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        name = host.lower().rstrip(".")
        return "." in name and not name.endswith(_PRIVATE_SUFFIXES)


def parse_listen(text: str) -> Listen:
    """``host:port``, ``:port`` or ``unix:/path``."""
    if not text:
        raise FormError("is empty", "write host:port, :port or unix:/path")
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if not path.startswith("/"):
            raise FormError("a Unix socket needs an absolute path", "write unix:/run/mcpx.sock")
        check_file(path)
        if len(path.encode()) > _LONGEST_SOCKET_PATH:
            raise FormError(f"a Unix socket's path has at most {_LONGEST_SOCKET_PATH} bytes")
        return Listen("", 0, path)
    _check_wire_text(text)
    if "://" in text:
        raise FormError("is a URL", "write host:port alone; tls has a section of its own")
    if text.isdigit():
        raise FormError("has no `:` before the port", f'write ":{text}"')
    host, port = _host_and_port(text, wildcard=True)
    if port is None:
        raise FormError("has no port", "write host:port or :port")
    return Listen(host, port, None)


def parse_upstream_url(text: str) -> UpstreamUrl:
    """An ``http`` or ``https`` URL without user part and fragment, taken as it is written."""
    if not text:
        raise FormError(
            "is empty", "write the server's endpoint, such as http://localhost:3001/mcp"
        )
    _check_wire_text(text)
    if "\\" in text:
        raise FormError("has a backslash", "write / or %5C")
    found = _URL.fullmatch(text)
    if found is None:
        raise FormError("is no URL", "write something like http://localhost:3001/mcp")
    scheme, authority, path, query, fragment = found.groups()
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise FormError("has a scheme that is neither http nor https")
    if "@" in authority:
        raise FormError(
            "has a user name or password in it", "credentials in URLs end up in logs; remove them"
        )
    if fragment:
        raise FormError("has a fragment", "remove # and what follows")
    if not authority or authority.startswith(":"):
        raise FormError("has no host")
    host, port = _host_and_port(authority, wildcard=False)
    if port == 0:
        raise FormError("has port 0", "ports are 1 to 65535")
    target = (path or "/") + query
    return UpstreamUrl(
        scheme, host, port or _DEFAULT_PORTS[scheme], target.encode(), authority.encode()
    )


def parse_secure_url(text: str) -> UpstreamUrl:
    """A URL that credentials or keys travel to: ``https``, or ``http`` on this machine."""
    if "://" not in text:
        raise FormError("is no URL", "write something like https://auth.example.com")
    url = parse_upstream_url(text)
    if url.scheme == "http" and not is_loopback(url.host):
        raise FormError(
            "is plain http to another machine",
            "write https; http is taken for loopback addresses alone",
        )
    if len(text) > _LONGEST_ASKED:
        raise FormError(f"is longer than {_LONGEST_ASKED} characters")
    return url


def check_issuer(text: str) -> None:
    """An authorization server's identifier (RFC 8414 section 2), taken exactly as it is written."""
    parse_secure_url(text)
    if "?" in text or "#" in text:
        raise FormError("has a query or a fragment, which no issuer has", "leave it out")


def check_target(text: str) -> None:
    """A resource that a token is asked for: an absolute URI without a fragment (RFC 8707)."""
    _check_wire_text(text)
    if "#" in text:
        raise FormError("has a fragment", "remove # and what follows")
    if not _ABSOLUTE_URI.fullmatch(text):
        raise FormError("is no absolute URI", "write something like https://mcp.example.com")


def check_claim(text: str) -> None:
    """The name of a claim that says who it is. A URI may be one."""
    if not text:
        raise FormError("is empty", "write sub, or the claim that names the client")
    if not (text.isascii() and text.isprintable()) or " " in text or len(text) > _LONGEST_CLAIM:
        raise FormError(
            f"is no claim's name: visible ASCII without blanks, at most {_LONGEST_CLAIM} characters",
            "write the name alone, such as sub or client_id",
        )
    if text in _NO_IDENTITY:
        raise FormError(f"{text} does not say who it is", "write sub, or client_id")


def check_host_port(text: str) -> None:
    """``host:port``, both given."""
    _check_wire_text(text)
    if "://" in text:
        raise FormError("is a URL", "write host:port alone")
    host, port = _host_and_port(text, wildcard=False)
    if not host or not port:
        raise FormError("needs a host and a port", "write something like localhost:4318")


def check_allowed_host(text: str) -> None:
    """A name or address as a ``Host`` header has it, with or without port."""
    _check_wire_text(text)
    if "*" in text:
        raise FormError("has a `*`", "write names in full; an empty list lets every name pass")
    if "://" in text or "/" in text:
        raise FormError("is more than a host", "write the name alone, with its port if it has one")
    host, _ = _host_and_port(text, wildcard=False)
    if not host:
        raise FormError("has no host")


def check_origin(text: str) -> None:
    """``*``, or a serialised origin (RFC 6454 section 6.2): scheme, host and port alone, or ``null``."""
    if text in ("*", "null"):
        return
    _check_wire_text(text)
    if text.endswith("/") and _ORIGIN.fullmatch(text.rstrip("/")):
        raise FormError("ends in /, which origins never do", f"write {text.rstrip('/')}")
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise FormError(
            "is no origin", "write scheme, host and port alone: https://app.example.com"
        )
    if "*" in text:
        raise FormError("has a `*`", "write origins in full, or `*` alone for all")
    if text.lower().startswith(("http:", "https:")):
        _host_and_port(found[1], wildcard=False)


def check_server_name(text: str) -> None:
    """A name that can stand in a path, a label and a file as it is."""
    if not text:
        raise FormError("is empty", "every server needs a name; it is reached at /mcp/{name}")
    if len(text) > _LONGEST_NAME:
        raise FormError(f"has more than {_LONGEST_NAME} characters")
    if not _SERVER_NAME.fullmatch(text):
        raise FormError(
            "has other characters than letters, digits, -, _ and .",
            "it stands in a path; begin it with a letter, digit or _",
        )
    if text.casefold() == "gateway":
        raise FormError("gateway is kept for the gateway's own endpoint", "choose another name")


def check_header(text: str) -> str:
    """A header's name (RFC 9110 section 5.1), in lower case."""
    if not _TOKEN.fullmatch(text):
        raise FormError("is no name of a header", "letters, digits and - are safe")
    return text.lower()


def check_method(text: str) -> None:
    """A method's name (RFC 9110 section 9.1)."""
    if not _TOKEN.fullmatch(text):
        raise FormError("is no name of a method", "GET, POST and DELETE are such names")


def is_ours(header: str) -> bool:
    """Whether the gateway itself writes or reads this header (given in lower case)."""
    return header in FRAMING_HEADERS or header in _OUR_HEADERS or header.startswith(_OUR_PREFIXES)


def check_glob_path(text: str) -> None:
    """A path below an endpoint, ``*`` and ``?`` being wildcards."""
    _check_wire_text(text)
    if not text.startswith("/"):
        raise FormError("does not begin with /")
    if "#" in text or "\\" in text:
        raise FormError("has a # or a backslash, which no path has")
    plain = re.sub("%2[eE]", ".", text)
    if re.search("%2[fF]|%5[cC]", text):
        raise FormError("has an encoded / or backslash", "servers disagree about what it means")
    if any(segment in (".", "..") for segment in plain.split("/")):
        raise FormError("has a dot segment", "write the path that it leads to")


def check_file(text: str) -> None:
    """A file's name that the system can take."""
    if not text:
        raise FormError("is empty")
    if not text.isprintable():
        raise FormError("has a control character")


def parse_network(text: str) -> Network:
    """``10.0.0.0/8``, ``fd00::/8``, or one address."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise FormError("is no network", "write something like 10.0.0.0/8 or 192.0.2.7") from None
    raise FormError("has bits set beyond its prefix", f"write {meant}, or the address without /…")


def _check_wire_text(text: str) -> None:
    if not text.isascii():
        raise FormError(
            "has characters beyond ASCII", "write names in punycode (xn--…), paths percent-encoded"
        )
    if not text.isprintable() or " " in text:
        raise FormError("has a blank or a control character")


def _host_and_port(text: str, *, wildcard: bool) -> tuple[str, int | None]:
    """``text`` as a host without brackets (empty only with ``wildcard``) and a port if it has one."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise FormError("has a [ without its ]")
        if not _is_ip(host, ipaddress.IPv6Address) or "%" in host:
            raise FormError("has no IPv6 address between its brackets")
        colon, port_text = rest[:1], rest[1:]
    else:
        if text.count(":") > 1:
            raise FormError("has too many colons", "an IPv6 address goes in brackets: [::1]:8080")
        host, colon, port_text = text.partition(":")
        if host or not wildcard:
            _check_name(host)
    if not colon:
        return host, None
    if not _PORT.fullmatch(port_text) or int(port_text) > 65535:
        raise FormError("has no valid port", "ports are numbers up to 65535")
    return host, int(port_text)


def _check_name(host: str) -> None:
    if len(host) > _LONGEST_HOST or not _LABELS.fullmatch(host):
        raise FormError("has no valid host name or address")
    # What ends in a number is an address to every resolver, and some read it as octal.
    if _NUMERIC_END.fullmatch(host) and not _is_ip(host, ipaddress.IPv4Address):
        raise FormError("has a host that looks like an IPv4 address and is none")


def _is_ip(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
