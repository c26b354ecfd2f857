"""The gateway as an OAuth 2.1 resource server: what it asks for and what it has seen.

What it is: identifiers of endpoints and their metadata (RFC 9728, RFC 8707), challenges
(RFC 6750 section 3), the scopes that an operation needs, and a bounded memory of tokens
that were found good. Signatures are ``jwt``'s. What it must never do: keep a token's
text, take a token for one endpoint at another, or write a text that came from outside
into a challenge.

Each endpoint ``/mcp/{server}`` is a resource of its own: a token must name it, or the
gateway as a whole where that is accepted, as its audience. The audience is checked
wherever claims are handed out, from the memory too.

Scopes are told apart by when they are told. A 401 names those that the whole endpoint
needs, so that a first token is no broader than it must be; a 403 names all that the
operation at hand needs, so that one more step is enough.
"""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

from mcpx.core.globs import Glob, GlobSet, fold, parse_glob
from mcpx.errors import GatewayError, McpxError, Unauthorized

__all__ = [
    "LONGEST_TOKEN_BYTES",
    "WELL_KNOWN",
    "Claims",
    "InsufficientScope",
    "KeysUnavailable",
    "ProtectedResource",
    "ScopeRule",
    "ScopeRules",
    "TokenRefused",
    "UnknownKey",
    "VerifiedTokens",
    "canonical_uri",
    "challenge",
    "check_audience",
    "could_be_jwt",
    "is_scope",
    "metadata_url",
    "resource_for",
]

#: A longer token isn't looked at.
LONGEST_TOKEN_BYTES: Final = 8192

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
#: A client asks its authorization server for it; no resource needs it (MCP 2026-07-28,
#: "Authorization").
_OFFLINE: Final = "offline_access"
# RFC 6749 section 3.3: visible ASCII without the quote and the backslash.
_SCOPE_CHARACTERS: Final = frozenset(map(chr, range(0x21, 0x7F))) - {'"', "\\"}
_LONGEST_SCOPE: Final = 256
# RFC 7230's quoted-string could hold more; nothing that is written here does.
_QUOTABLE: Final = frozenset(map(chr, range(0x20, 0x7F)))
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class TokenRefused(McpxError):
    """A token that proves nothing. ``reason_code`` is stable, ``message`` a sentence's end.

    The message begins with "it" and quotes nothing of the token.
    """

    error = "invalid_token"

    def __init__(self, reason_code: str, message: str) -> None:
        super().__init__(message)
        self.reason_code = reason_code
        self.message = message


class UnknownKey(TokenRefused):
    """The key that the token names (None if it names none) is not known, yet."""

    def __init__(self, kid: str | None) -> None:
        super().__init__("unknown_key", "it is signed with a key that is not trusted")
        self.kid = kid


class InsufficientScope(GatewayError):
    """The token is good, and the operation needs scopes that it lacks."""

    code, status, rpc_code, outcome = "insufficient_scope", 403, -32600, "denied"


class KeysUnavailable(GatewayError):
    """No token can be verified now. It is not the client's fault, so it is no 401."""

    code, status, outcome = "auth_unavailable", 503, "error"
    rpc_code = -32000

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(
            "tokens can't be verified at the moment; try again later",
            reason=f"no keys to verify tokens with: {reason}",
            headers=((b"Retry-After", b"%d" % math.ceil(wait_s)),),
        )


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says.

    ``expires_at`` is the time of day in seconds. ``kid`` is the name of the key, as the
    token has it, and ``thumbprint`` the key itself (RFC 7638).
    """

    name: str
    scopes: frozenset[str]
    audiences: frozenset[str]
    expires_at: float
    kid: str | None
    thumbprint: str


def check_audience(claims: Claims, accepted: frozenset[str]) -> None:
    """Raise TokenRefused unless the token was made for one of ``accepted``."""
    if accepted.isdisjoint(claims.audiences):
        said = "it is for another resource" if claims.audiences else "it names no audience"
        raise TokenRefused("audience", said)


def could_be_jwt(token: bytes) -> bool:
    """Whether it is worth a look: three parts, the first the beginning of a JSON object."""
    return token.startswith(b"ey") and token.count(b".") == 2


class VerifiedTokens:
    """Claims of tokens that were found good, under a keyed digest of the token.

    The key is made at random, and kept nowhere: neither a token nor a digest that means
    anything elsewhere can be read out of it. An entry is good until its token expires,
    and no longer than ``max_age_s``, so that a key which was withdrawn is noticed; the
    one used least recently goes first when there are ``max_entries``.
    """

    __slots__ = ("_by_digest", "_hasher", "max_age_s", "max_entries")

    def __init__(self, *, max_entries: int = 10_000, max_age_s: float = 300.0) -> None:
        self.max_entries = max_entries
        self.max_age_s = max_age_s
        self._hasher = blake2b(key=os.urandom(32), digest_size=32)
        self._by_digest: OrderedDict[bytes, tuple[float, Claims]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_digest)

    def get(self, token: bytes, accepted: frozenset[str], now: float) -> Claims | None:
        """The claims of a token that was seen before.

        Raises TokenRefused when it was made for another resource.
        """
        if len(token) > LONGEST_TOKEN_BYTES:
            return None
        digest = self._digest(token)
        entry = self._by_digest.get(digest)
        if entry is None:
            return None
        since, claims = entry
        # A clock that was set back makes the entry's age unknown.
        if not (since <= now < since + self.max_age_s and now < claims.expires_at):
            del self._by_digest[digest]
            return None
        self._by_digest.move_to_end(digest)
        check_audience(claims, accepted)
        return claims

    def put(self, token: bytes, claims: Claims, now: float) -> None:
        """Remember a token that ``jwt.verify`` has found good."""
        if now >= claims.expires_at:
            return
        digest = self._digest(token)
        self._by_digest[digest] = (now, claims)
        self._by_digest.move_to_end(digest)
        while len(self._by_digest) > self.max_entries:
            self._by_digest.popitem(last=False)

    def keep_only(self, thumbprints: Collection[str]) -> None:
        """Forget the tokens that other keys have signed: those keys were withdrawn."""
        gone = [
            digest
            for digest, (_, claims) in self._by_digest.items()
            if claims.thumbprint not in thumbprints
        ]
        for digest in gone:
            del self._by_digest[digest]

    def _digest(self, token: bytes) -> bytes:
        hasher = self._hasher.copy()
        hasher.update(token)
        return hasher.digest()


class ScopeRule(Protocol):
    """One rule: what it is about, and the scopes that this needs. An empty list is all."""

    @property
    def servers(self) -> Sequence[str]:
        """Globs of servers' names."""

    @property
    def methods(self) -> Sequence[str]:
        """Globs of methods, such as ``tools/*``."""

    @property
    def tools(self) -> Sequence[str]:
        """Globs of tools' names."""

    @property
    def scopes(self) -> Sequence[str]:
        """The scopes that are needed, all of them."""


class _Matcher:
    """A list of globs; look-alikes match too, because a match asks for more."""

    __slots__ = ("_alike", "_exact")

    def __init__(self, patterns: Sequence[str]) -> None:
        globs = [parse_glob(pattern) for pattern in patterns]
        self._exact = GlobSet(globs) if globs else None
        self._alike = GlobSet(Glob(fold(glob)) for glob in globs) if globs else None

    def __bool__(self) -> bool:
        return self._exact is not None

    def matches(self, text: str | None) -> bool:
        if self._exact is None or self._alike is None:
            return True
        if text is None:
            return False
        return self._exact.matches(text) or self._alike.matches(fold(text))


class ScopeRules:
    """Which scopes an operation needs: those of every rule that matches, together.

    Args:
        always: scopes that everything needs.
        rules: further ones; see ``ScopeRule``.
        implied: a scope to those that it includes, directly; who has ``admin`` may be
            held to have ``read``. Followed to the end.

    Raises ValueError for what is no scope, for ``offline_access``, and (GlobFault) for a
    pattern that can't be used.
    """

    __slots__ = ("_always", "_implied", "_rules")

    def __init__(
        self,
        always: Iterable[str] = (),
        rules: Iterable[ScopeRule] = (),
        implied: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self._always = frozenset(map(_needed, always))
        self._rules = tuple(
            (
                _Matcher(rule.servers),
                _Matcher(rule.methods),
                _Matcher(rule.tools),
                frozenset(map(_needed, rule.scopes)),
            )
            for rule in rules
        )
        self._implied = _closed({s: frozenset(more) for s, more in (implied or {}).items()})

    def required(self, server: str, method: str, tool: str | None) -> frozenset[str]:
        """All scopes that the operation needs; ``tool`` is None where none is called."""
        scopes = self._always
        for servers, methods, tools, needed in self._rules:
            if tools.matches(tool) and methods.matches(method) and servers.matches(server):
                scopes |= needed
        return scopes

    def satisfied(self, granted: frozenset[str], required: frozenset[str]) -> bool:
        """Whether the scopes of a token, and what they include, are all that is needed."""
        if required <= granted:
            return True
        if not self._implied:
            return False
        everything = set(granted)
        for scope in granted:
            everything |= self._implied.get(scope, frozenset())
        return required <= everything

    def initial(self, server: str) -> frozenset[str]:
        """The scopes that every operation on the server needs."""
        return self._of_server(server, whole=True)

    def supported(self, server: str) -> frozenset[str]:
        """Every scope that some operation on the server needs."""
        return self._of_server(server, whole=False)

    def _of_server(self, server: str, *, whole: bool) -> frozenset[str]:
        scopes = self._always
        for servers, methods, tools, needed in self._rules:
            if servers.matches(server) and not (whole and (methods or tools)):
                scopes |= needed
        return scopes


def is_scope(text: str) -> bool:
    """Whether it is a scope-token (RFC 6749 section 3.3)."""
    return 0 < len(text) <= _LONGEST_SCOPE and _SCOPE_CHARACTERS.issuperset(text)


def _needed(scope: str) -> str:
    if not is_scope(scope):
        raise ValueError(f"not a scope: {scope!r}; write one without blanks, quotes or backslashes")
    if scope == _OFFLINE:
        raise ValueError(
            f"{_OFFLINE} is between a client and its authorization server; leave it out"
        )
    return scope


def _closed(implied: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Each scope to everything that it includes, by however many steps."""
    closed: dict[str, frozenset[str]] = {}
    for start in implied:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            for scope in implied.get(waiting.pop(), ()):
                if not is_scope(scope):
                    raise ValueError(f"not a scope: {scope!r}")
                if scope not in found:
                    found.add(scope)
                    waiting.append(scope)
        closed[start] = frozenset(found)
    return closed


def canonical_uri(text: str) -> str:
    """A resource identifier in its canonical form (RFC 8707 section 2, RFC 9728 section 1.2).

    The scheme and the host in lower case, no default port, no slash at the end.

    Raises ValueError when it can't be one: it isn't http or https, or it has a user, a
    query, a fragment, blanks or characters that aren't ASCII.
    """
    if not text.isascii() or not text.isprintable() or set(' "<>\\^`{|}') & set(text):
        raise ValueError("has characters that an address can't have")
    parts, port = _split(text)
    host = parts.hostname or ""
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise ValueError("must begin with https:// (or http://) and a host's name")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or a password")
    if "?" in text or "#" in text:
        raise ValueError("must have no query and no fragment")
    name = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        name = f"{name}:{port}"
    return f"{parts.scheme}://{name}{parts.path.rstrip('/')}"


def _split(text: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(text)
        return parts, parts.port
    except ValueError:
        raise ValueError("is no address") from None


def resource_for(base: str, server: str) -> str:
    """The identifier of one server's endpoint: ``{base}/mcp/{server}``."""
    return f"{canonical_uri(base)}/mcp/{server}"


def metadata_url(resource: str) -> str:
    """Where the metadata of a resource is: the well-known path before its own.

    RFC 9728 section 3.1. ``https://host/mcp/files`` has it at
    ``https://host/.well-known/oauth-protected-resource/mcp/files``.
    """
    parts = urlsplit(canonical_uri(resource))
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path}"


def challenge(
    metadata: str, *, scopes: Iterable[str] = (), error: str = "", description: str = ""
) -> bytes:
    """The value of ``WWW-Authenticate`` (RFC 6750 section 3, RFC 9728 section 5.1)."""
    parameters = [("resource_metadata", metadata)]
    told = sorted(set(scopes) - {_OFFLINE})
    if told:
        parameters.append(("scope", " ".join(told)))
    if error:
        parameters.append(("error", error))
    if description:
        parameters.append(("error_description", description))
    return b"Bearer " + b", ".join(
        f"{name}={_quoted(value)}".encode("ascii") for name, value in parameters
    )


def _quoted(text: str) -> str:
    """A quoted-string (RFC 9110 section 5.6.4). What it can't hold is left out."""
    kept = "".join(filter(_QUOTABLE.__contains__, text))
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'


class ProtectedResource:
    """One endpoint as a resource: its identifiers, its metadata, its refusals.

    Args:
        identifier: its own URI; a token for it names this one.
        authorization_servers: their issuers, for the metadata.
        supported: the scopes that it may ask for, for the metadata.
        initial: the scopes that a 401 tells.
        also_accepted: further audiences that are accepted here, such as the gateway's own.
    """

    __slots__ = ("accepted", "identifier", "initial", "metadata", "metadata_path", "metadata_url")

    def __init__(
        self,
        identifier: str,
        *,
        authorization_servers: Sequence[str],
        supported: Collection[str] = (),
        initial: Collection[str] = (),
        also_accepted: Iterable[str] = (),
    ) -> None:
        self.identifier = canonical_uri(identifier)
        self.metadata_url = metadata_url(identifier)
        #: What the request's path is where the metadata is asked for.
        self.metadata_path = urlsplit(self.metadata_url).path.encode("ascii")
        self.initial = frozenset(initial)
        names = [self.identifier, *map(canonical_uri, also_accepted)]
        #: The audiences that are good here. Some clients put a slash at the end.
        self.accepted = frozenset(names) | frozenset(name + "/" for name in names)
        document: dict[str, object] = {
            "resource": self.identifier,
            "authorization_servers": list(authorization_servers),
            "bearer_methods_supported": ["header"],
        }
        scopes = sorted(set(supported) - {_OFFLINE})
        if scopes:
            document["scopes_supported"] = scopes
        #: The metadata document (RFC 9728 section 2), JSON.
        self.metadata = json.dumps(document, separators=(",", ":")).encode("ascii")

    def missing(self, message: str = "missing Authorization header") -> Unauthorized:
        """The refusal of a request that shows no token."""
        return self._unauthorized(
            message, message, challenge(self.metadata_url, scopes=self.initial)
        )

    def refused(self, error: TokenRefused) -> Unauthorized:
        """The refusal of a token. The client is told why in the challenge alone."""
        return self._unauthorized(
            "invalid token",
            f"invalid token ({error.reason_code}): {error.message}",
            challenge(
                self.metadata_url,
                scopes=self.initial,
                error=error.error,
                description=f"the token is not accepted: {error.message}",
            ),
        )

    def insufficient(self, required: frozenset[str]) -> InsufficientScope:
        """The refusal of a good token for an operation that needs ``required``, in all."""
        scopes = " ".join(sorted(required))
        value = challenge(self.metadata_url, scopes=required, error="insufficient_scope")
        return InsufficientScope(
            f"the token lacks a scope; this operation needs: {scopes}",
            headers=((b"WWW-Authenticate", value),),
            data={"required_scopes": sorted(required)},
        )

    @staticmethod
    def _unauthorized(message: str, reason: str, value: bytes) -> Unauthorized:
        return Unauthorized(message, reason=reason, headers=((b"WWW-Authenticate", value),))
