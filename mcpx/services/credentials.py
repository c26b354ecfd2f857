"""What the gateway shows to the servers behind it.

What it is: one ``Credential`` for each server, which gives the headers to send: fixed
ones, or a token that is got by OAuth client credentials (RFC 6749 section 4.4). What it
must never do: send anything of a client's, put a secret into a log, an error or a repr,
or ask the authorization server once for each request, in good times or bad.

A token is kept until shortly before it expires. Within the last fifth of its life a new
one is got beside the requests, which go on with the one there is; only when there is
none do requests wait, all for the same asking. After a failure nothing is asked for a
second, then for twice as long with each further failure, up to a minute.

A server that refuses a token with 401 may be right (it was withdrawn) or wrong (it
refuses them all). So a refused token is dropped and the request may be sent once more,
but a token that is refused right after it was got is kept: asking again would give one
like it.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import stat
import string
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote_plus

import trio

from mcpx.errors import ConfigError, GatewayError
from mcpx.protocol.headers import NEVER_FORWARDED
from mcpx.secret import Secret
from mcpx.services.errand import Errand, Errands, Pauses
from mcpx.services.log import event
from mcpx.services.outbound import Answer, OutboundError, place

__all__ = [
    "ClientCredentials",
    "Credential",
    "CredentialUnavailable",
    "FixedCredential",
    "Grant",
    "Post",
    "api_key",
    "bearer",
    "read_secret",
    "static_headers",
]

log = logging.getLogger("mcpx.credentials")

Headers = list[tuple[bytes, bytes]]

_LONGEST_SECRET: Final = 16_384
_LONGEST_TOKEN: Final = 16_384
#: The life of a token whose server doesn't tell it.
_UNTOLD_S: Final = 300.0
_LONGEST_LIFE_S: Final = 86_400.0
_LONGEST_SKEW_S: Final = 30.0

_TOKEN: Final = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")
_VISIBLE: Final = frozenset(map(chr, range(0x21, 0x7F)))
# What a fixed header may not be: of framing, of the connection, of the gateway's own.
# Credentials are what this is for, so these two may.
_NOT_FIXED: Final = (NEVER_FORWARDED - {b"authorization", b"cookie", b"x-api-key"}) | {
    b"accept",
    b"content-type",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
}
#: The errors that are shown (RFC 6749 section 5.2, RFC 8707 section 2); any other text
#: could be one that the server was sent.
_ERRORS: Final = frozenset(
    {
        "access_denied",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)


class Credential(Protocol):
    """What is shown to one server."""

    async def headers(self) -> Headers:
        """The headers to send, names in lower case. Raises CredentialUnavailable."""

    def rejected(self, shown: Headers) -> bool:
        """The server answered 401 to ``shown``; whether sending once more makes sense."""


class CredentialUnavailable(GatewayError):
    """There is no credential for the server now; nothing was sent to it."""

    code, status, outcome = "upstream_unavailable", 503, "upstream_error"
    rpc_code = -32000

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(
            "the gateway has no credential for this server at the moment; try again later",
            reason=f"no credential for the server: {reason}",
            headers=((b"Retry-After", b"%d" % math.ceil(wait_s)),),
        )


class FixedCredential:
    """Headers that stay the same."""

    __slots__ = ("_headers", "_names")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._headers = tuple(headers)
        self._names = tuple(name.decode("ascii") for name, _ in self._headers)

    def __repr__(self) -> str:
        return f"FixedCredential({', '.join(self._names)})"

    async def headers(self) -> Headers:
        """The headers."""
        return list(self._headers)

    def rejected(self, shown: Headers) -> bool:  # noqa: ARG002  the interface's
        """Nothing else could be shown."""
        return False


def static_headers(headers: Mapping[str, Secret]) -> FixedCredential:
    """Headers of any names. Raises ConfigError, which shows no value."""
    found: dict[bytes, bytes] = {}
    for name, value in headers.items():
        lower = name.lower().encode("utf-8", "replace")
        if not name or not _TOKEN.issuperset(name) or lower in _NOT_FIXED or lower[:4] == b"mcp-":
            raise ConfigError([f"header {name!r} can't be set; leave it out"])
        if lower in found:
            raise ConfigError([f"header {name!r} is there twice; leave one out"])
        found[lower] = _value(value, f"header {name}")
    return FixedCredential(found.items())


def bearer(token: Secret) -> FixedCredential:
    """``Authorization: Bearer …`` (RFC 6750 section 2.1). Raises ConfigError."""
    value = _value(token, "the bearer token")
    if b" " in value:
        raise ConfigError(["the bearer token contains a blank; write the token alone"])
    return FixedCredential([(b"authorization", b"Bearer " + value)])


def api_key(header: str, key: Secret) -> FixedCredential:
    """A key in a header of the server's choice. Raises ConfigError."""
    return static_headers({header: key})


def _value(secret: Secret, what: str) -> bytes:
    text = secret.reveal()
    if not text or len(text) > _LONGEST_SECRET or not _VISIBLE.issuperset(text.replace(" ", "")):
        fault = f"{what} is empty, too long, or has characters that no header can carry"
        raise ConfigError([f"{fault}; write visible ASCII"])
    if text != text.strip(" "):
        raise ConfigError([f"{what} begins or ends with a blank; leave it out"])
    return text.encode("ascii")


def read_secret(written: Secret) -> Secret:
    """The secret itself; one that is written ``file:/path`` is read from that file.

    A line break at the end is not part of it. Read anew with every reload.

    Raises ConfigError: the file can't be read, is empty, or is no short text. It names
    the file and shows nothing of it.
    """
    text = written.reveal()
    if not text.startswith("file:"):
        return written
    path = text.removeprefix("file:")
    if not os.path.isabs(path) or "\0" in path:
        raise ConfigError(["file: needs an absolute path; write file:/run/secrets/name"])
    try:
        # Without waiting: a named pipe would keep the gateway from starting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(_LONGEST_SECRET + 3) if regular else b""
    except OSError as exc:
        raise ConfigError(
            [f"{path}: {exc.strerror}; the gateway must be able to read it"]
        ) from None
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if not regular or not content or len(content) > _LONGEST_SECRET:
        raise ConfigError(
            [f"{path}: a file with a secret has 1 to {_LONGEST_SECRET} bytes; this one has not"]
        )
    try:
        return Secret(content.decode())
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8; write the secret as text"]) from None


class Post(Protocol):
    """Sends a form: ``Outbound.post``. Raises OutboundError."""

    def __call__(
        self, url: str, form: Mapping[str, str], *, headers: Sequence[tuple[str, str]] = ()
    ) -> Awaitable[Answer]:
        """The answer, whatever its status."""


@dataclass(frozen=True, slots=True)
class Grant:
    """How a token is got by client credentials.

    ``client_auth`` is how the client shows who it is (RFC 6749 section 2.3.1): ``basic``
    in a header, ``post`` in the form. ``resource`` is the server's own URI (RFC 8707),
    ``audience`` what some authorization servers have for it, ``extra`` further parameters.
    """

    token_url: str
    client_id: str
    client_secret: Secret
    client_auth: Literal["basic", "post"] = "basic"
    scopes: tuple[str, ...] = ()
    resource: str | None = None
    audience: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def form(self) -> dict[str, str]:
        """The form's fields."""
        form = dict(self.extra)
        form["grant_type"] = "client_credentials"
        if self.scopes:
            form["scope"] = " ".join(self.scopes)
        if self.resource is not None:
            form["resource"] = self.resource
        if self.audience is not None:
            form["audience"] = self.audience
        if self.client_auth == "post":
            form["client_id"] = self.client_id
            form["client_secret"] = self.client_secret.reveal()
        return form

    def headers(self) -> list[tuple[str, str]]:
        """The headers that go with it."""
        if self.client_auth != "basic":
            return []
        # Both are form-encoded before they are joined, or a colon would part them wrongly.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret.reveal())}"
        return [("authorization", "Basic " + base64.b64encode(pair.encode()).decode("ascii"))]


class _Token:
    """A token and its times, of the monotonic clock."""

    __slots__ = ("expires_at", "got_at", "header", "renew_at")

    def __init__(self, header: bytes, got_at: float, life_s: float) -> None:
        self.header = header
        self.got_at = got_at
        self.renew_at = got_at + life_s * 0.8
        self.expires_at = got_at + life_s - min(_LONGEST_SKEW_S, life_s * 0.1)


class ClientCredentials:
    """A token by client credentials, kept and renewed.

    Args:
        grant: what to ask for, and of whom.
        post: sends the form.
        errands: where the asking runs.
        wait_s: how long one request waits for a token.
        again_s: a token that is refused sooner after it was got is not asked for again.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        grant: Grant,
        post: Post,
        errands: Errands,
        *,
        wait_s: float = 10.0,
        again_s: float = 10.0,
        negative_ttl_s: float = 60.0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._grant = grant
        self._post = post
        self._wait_s = wait_s
        self._again_s = again_s
        self._clock = clock
        self._errand = Errand(errands, self._renew)
        self._pauses = Pauses(negative_ttl_s)
        self._token: _Token | None = None
        self._fault = "it was not asked for yet"
        self.requests = 0

    def __repr__(self) -> str:
        return f"ClientCredentials({place(self._grant.token_url)})"

    async def headers(self) -> Headers:
        """The header with the token; waits for one if there is none."""
        now, token = self._clock(), self._token
        if token is None or now >= token.expires_at:
            if now >= self._pauses.until:
                await self._errand.finish(self._wait_s)
            token = self._token
            if token is None or self._clock() >= token.expires_at:
                raise self._unavailable()
        elif now >= token.renew_at and now >= self._pauses.until:
            self._errand.begin()
        return [(b"authorization", token.header)]

    def rejected(self, shown: Headers) -> bool:
        """Drop the token that ``shown`` has, unless it is hardly older than its refusal."""
        token = self._token
        if token is None or (b"authorization", token.header) not in shown:
            return True  # another one is there by now, or will be
        if self._clock() < token.got_at + self._again_s:
            return False
        self._token = None
        return True

    def _unavailable(self) -> CredentialUnavailable:
        fault = self._fault
        if self._errand.under_way:
            fault = f"asking for a token takes longer than {self._wait_s:g} s"
        return CredentialUnavailable(fault, max(1.0, self._pauses.until - self._clock()))

    async def _renew(self) -> None:
        """Get a token, or note why that failed."""
        self.requests += 1
        began = self._clock()
        grant = self._grant
        try:
            answer = await self._post(grant.token_url, grant.form(), headers=grant.headers())
            text, life_s = _granted(answer, place(grant.token_url))
            # Its life began before the answer was here.
            token = _Token(b"Bearer " + text, began, life_s)
            if self._clock() >= token.expires_at:
                raise OutboundError(f"{place(grant.token_url)} gave a token that is over already")
        except OutboundError as exc:
            self._fault = str(exc)
            self._pauses.failed(self._clock())
            event(log, logging.WARNING, "no token for a server", reason=str(exc))
            return
        self._pauses.succeeded()
        self._token = token
        event(log, logging.DEBUG, "token got", server=place(grant.token_url), life_s=life_s)


def _granted(answer: Answer, shown: str) -> tuple[bytes, float]:
    """The token and its life in seconds (RFC 6749 section 5.1). Raises OutboundError."""
    try:
        document: Any = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise OutboundError(f"{shown} answered {answer.status} without a JSON object")
    if answer.status != 200:
        raise OutboundError(f"{shown} answered {answer.status}{_error_code(document)}")
    token, kind = document.get("access_token"), document.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise OutboundError(f"{shown} gave a token that is no bearer token")
    if (
        not isinstance(token, str)
        or not 0 < len(token) <= _LONGEST_TOKEN
        or not _VISIBLE.issuperset(token)
    ):
        raise OutboundError(f"{shown} gave a token that no header can carry")
    return token.encode("ascii"), _life_s(document.get("expires_in"))


def _life_s(told: object) -> float:
    """``expires_in``; some servers tell it as a text."""
    if isinstance(told, str) and told.isdecimal() and len(told) < 16:
        told = int(told)
    if isinstance(told, bool) or not isinstance(told, int | float) or not told > 0:
        return _UNTOLD_S
    return float(min(told, _LONGEST_LIFE_S))


def _error_code(document: Mapping[str, Any]) -> str:
    code = document.get("error")
    return f" ({code})" if isinstance(code, str) and code in _ERRORS else ""
