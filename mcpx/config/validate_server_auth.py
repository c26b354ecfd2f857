"""What must hold of the credentials that the gateway shows to its servers.

What it is: the checks of ``servers[].auth``. What ``services/credentials.py`` would
refuse when the gateway starts is refused here, where the place in the file is known,
save for what stands in files. What it must never do: open a file, or quote a secret.

A setting that another type reads is a fault: whoever wrote it counts on it. So is a
credential on its way over the internet without TLS; in one's own network it is a notice
(``notices.py``).
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Final

from mcpx.config import forms
from mcpx.config.faults import Fault, Path, quote
from mcpx.config.form_faults import form_faults, of_server
from mcpx.config.model import ServerAuth, ServerConfig
from mcpx.core.oauth import is_scope
from mcpx.protocol.headers import NEVER_FORWARDED
from mcpx.secret import Secret

__all__ = ["CONTENT_HEADERS", "PASSED_ON_HEADERS", "server_auth_faults", "shown_headers"]

CONTENT_HEADERS: Final = frozenset({"accept", "content-type", "origin"})
"""Headers that are written anew for each hop, from what was judged."""
PASSED_ON_HEADERS: Final = frozenset(
    {"accept-language", "baggage", "last-event-id", "traceparent", "tracestate", "user-agent"}
)
"""Headers of the client's that travel upstream, and so can't hold a credential."""

_LONGEST_SECRET: Final = 16_384
_FILE: Final = "file:"
_VISIBLE: Final = frozenset(map(chr, range(0x21, 0x7F)))

# The settings of each type, and which of them it can't do without.
_READ_BY: Final = {
    "headers": "headers",
    "token": "bearer",
    "header": "api_key",
    "key": "api_key",
    **dict.fromkeys(
        (
            "token_url", "client_id", "client_secret", "client_auth", "scopes", "resource",
            "audience", "parameters", "ca",
        ),
        "client_credentials",
    ),
}  # fmt: skip
_NEEDED: Final = {
    "none": (),
    "headers": ("headers",),
    "bearer": ("token",),
    "api_key": ("key",),
    "client_credentials": ("token_url", "client_id", "client_secret"),
}
_DEFAULTS: Final = ServerAuth()
# Headers that may be set though they are never forwarded: credentials are what this is for.
_SETTABLE: Final = frozenset({b"authorization", b"cookie", b"x-api-key"})
_REFUSED: Final = NEVER_FORWARDED - _SETTABLE
# What the grant itself sets in the form (RFC 6749 section 4.4.2, RFC 8707).
_GRANTS_OWN: Final = {
    "audience": "audience",
    "client_id": "client_id",
    "client_secret": "client_secret",
    "grant_type": "",
    "resource": "resource",
    "scope": "scopes",
}


def shown_headers(auth: ServerAuth) -> frozenset[str]:
    """The headers, in lower case, that carry what the gateway shows to a server."""
    match auth.type:
        case "none":
            return frozenset()
        case "headers":
            return frozenset(map(str.lower, auth.headers))
        case "api_key":
            return frozenset((auth.header.lower(),))
        case "bearer" | "client_credentials":
            return frozenset(("authorization",))


def server_auth_faults(server: ServerConfig, path: Path) -> Iterator[Fault]:
    """What is wrong with the ``auth`` of the server at ``path``."""
    auth = server.auth
    path = (*path, "auth")
    if auth == _DEFAULTS:
        return
    if server.transport == "stdio":
        yield Fault(
            path,
            of_server(server, "auth has no place with transport: stdio"),
            "give the child its credentials in env",
        )
        return
    yield from _fields(server, path)
    match auth.type:
        case "headers":
            yield from _headers(server, path)
        case "bearer":
            yield from _secret(server, auth.token, (*path, "token"), blanks=False)
        case "api_key":
            yield from _header(server, auth.header, (*path, "header"))
            yield from _secret(server, auth.key, (*path, "key"))
        case "client_credentials":
            yield from _grant(server, path)
        case "none":
            return
    yield from _in_the_clear(server, path)


def _fields(server: ServerConfig, path: Path) -> Iterator[Fault]:
    """Every setting of the type, and none of another."""
    auth = server.auth
    for name, reader in _READ_BY.items():
        if reader != auth.type and getattr(auth, name) != getattr(_DEFAULTS, name):
            yield Fault(
                (*path, name),
                of_server(server, f"{name} has no effect with type: {auth.type}"),
                f"write type: {reader}, or remove it",
            )
    for name in _NEEDED[auth.type]:
        value = getattr(auth, name)
        if value is None or value == {}:
            yield Fault(
                (*path, name), of_server(server, f"{name} is missing; type: {auth.type} needs it")
            )


def _headers(server: ServerConfig, path: Path) -> Iterator[Fault]:
    first: dict[str, str] = {}
    for name, value in server.auth.headers.items():
        here: Path = (*path, "headers", name)
        yield from _header(server, name, here, at_key=True)
        other = first.setdefault(name.lower(), name)
        if other != name:
            yield Fault(
                here,
                of_server(server, f"differs from {quote(other)} in case alone"),
                "a header is set once; remove one",
                at_key=True,
            )
        yield from _secret(server, value, here)


def _header(
    server: ServerConfig, text: str, path: Path, *, at_key: bool = False
) -> Iterator[Fault]:
    """A header that the gateway may set: none that it writes anyway, none of the client's."""
    try:
        name = forms.check_header(text)
    except forms.FormError as error:
        yield Fault(path, of_server(server, error.message), error.hint, at_key)
        return
    if forms.is_ours(name) or name in CONTENT_HEADERS or name.encode() in _REFUSED:
        yield Fault(
            path,
            of_server(server, f"{name} has another meaning in HTTP and can't be set"),
            "remove it",
            at_key,
        )
    elif name in PASSED_ON_HEADERS:
        yield Fault(
            path,
            of_server(server, f"{name} is passed on from the client and can't hold a credential"),
            "choose another header",
            at_key,
        )


def _secret(
    server: ServerConfig, secret: Secret | None, path: Path, *, blanks: bool = True
) -> Iterator[Fault]:
    """A secret that a header can carry, or the name of a file that holds it."""
    if secret is None:
        return
    text = secret.reveal()
    if text.startswith(_FILE):
        yield from _file(server, text.removeprefix(_FILE), path)
    elif len(text) > _LONGEST_SECRET:
        yield Fault(path, of_server(server, f"is longer than {_LONGEST_SECRET} characters"))
    elif not _VISIBLE.issuperset(text.replace(" ", "")) or text != text.strip(" "):
        yield Fault(
            path,
            of_server(
                server,
                "it can't be sent: only visible ASCII characters can, without blanks around them",
            ),
            "look for blanks and line ends around it",
        )
    elif " " in text and not blanks:
        yield Fault(
            path,
            of_server(server, "has a blank, which no token has"),
            "write the token alone, without `Bearer` before it",
        )


def _file(server: ServerConfig, name: str, path: Path) -> Iterator[Fault]:
    # The name is not shown: a secret may begin with "file:" by mistake.
    if not name.startswith("/") or "\0" in name:
        yield Fault(
            path,
            of_server(server, "file: needs an absolute path"),
            "write file:/run/secrets/name",
        )


def _grant(server: ServerConfig, path: Path) -> Iterator[Fault]:
    """What is sent to the authorization server."""
    auth = server.auth
    if auth.ca is not None:
        yield from form_faults((*path, "ca"), forms.check_file, auth.ca, server)
    if auth.token_url is not None:
        yield from form_faults((*path, "token_url"), forms.parse_secure_url, auth.token_url, server)
    if auth.client_id is not None:
        yield from _client_id(server, auth.client_id, (*path, "client_id"))
    yield from _secret(server, auth.client_secret, (*path, "client_secret"))
    for index, scope in enumerate(auth.scopes):
        if not is_scope(scope):
            yield Fault(
                (*path, "scopes", index),
                of_server(server, f"{quote(scope)} is no scope"),
                "write each one on its own, without blanks, quotes and backslashes",
            )
    if auth.resource is not None:
        yield from form_faults((*path, "resource"), forms.check_target, auth.resource, server)
    if auth.audience is not None and not (auth.audience and auth.audience.isprintable()):
        yield Fault(
            (*path, "audience"),
            of_server(server, "is empty or has a control character"),
            "write the audience as the authorization server knows it, or remove it",
        )
    for name, value in auth.parameters.items():
        yield from _parameter(server, name, value, (*path, "parameters", name))


def _client_id(server: ServerConfig, text: str, path: Path) -> Iterator[Fault]:
    # RFC 6749 appendix A.1
    if not text or not _VISIBLE.issuperset(text.replace(" ", "")):
        yield Fault(
            path,
            of_server(server, "is empty or has other than visible ASCII characters"),
            "write the name that the authorization server gave to the gateway",
        )


def _parameter(server: ServerConfig, name: str, value: str, path: Path) -> Iterator[Fault]:
    setting = _GRANTS_OWN.get(name.lower())
    if setting is not None:
        yield Fault(
            path,
            of_server(server, f"the grant itself sets {name.lower()}"),
            f"write it as auth.{setting}" if setting else "remove it",
            at_key=True,
        )
    elif not name or not set(string.printable).issuperset(name) or not name.isprintable():
        yield Fault(
            path, of_server(server, "is no name of a form's field"), "remove it", at_key=True
        )
    elif not value.isprintable():
        yield Fault(path, of_server(server, "has a control character"), "look for line ends")


def _in_the_clear(server: ServerConfig, path: Path) -> Iterator[Fault]:
    """Whoever reads a credential on its way can use it."""
    try:
        url = forms.parse_upstream_url(server.url or "")
    except forms.FormError:
        return  # told where the URL is checked
    if url.scheme == "http" and forms.is_public_host(url.host):
        yield Fault(
            path,
            of_server(
                server, "the credential would travel over the internet without TLS, for all to read"
            ),
            "write https in url",
        )
