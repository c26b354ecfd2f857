"""Who asks: from the credential in a request's head to a principal.

Identity comes from a credential that was verified and from nothing else. This module
must never keep a credential's text, echo what a request presented, or take longer
for one client than for another.

Credentials are kept as digests under a key that is made at random with each
authenticator (BLAKE2b, RFC 7693). What a request presents is hashed in the same way
and looked up. An attacker who doesn't know the key can't choose digests, so that
neither the dictionary's own comparing nor its order tells anything; the digest found
is compared once more in constant time, and one that stands for nobody is compared
where none is found. The work is one hash and one lookup, however many clients there
are.

``bearer`` reads ``Authorization: Bearer <token>`` (RFC 6750 section 2.1): exactly one
such header, the scheme in any case (RFC 9110 section 11.1), spaces and then a token68.
``api_key`` reads a header of a name that is configured, exactly one, visible ASCII.
``oauth`` reads what ``bearer`` does; a token that is nobody's here is handed back, for
whoever can verify it.
"""

from __future__ import annotations

import hmac
import os
import string
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NoReturn

from mcpx.errors import Unauthorized
from mcpx.secret import Secret

__all__ = ["ANONYMOUS", "Authenticator", "Kind", "Principal"]

Kind = Literal["bearer", "api_key", "oauth"]
Headers = list[tuple[bytes, bytes]]

# RFC 9110 section 5.6.2 (token) and 11.2 (token68, whose "=" come last).
_TOKEN = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()
_TOKEN68 = (string.ascii_letters + string.digits + "-._~+/").encode()
_VISIBLE = bytes(range(0x21, 0x7F))

# Nobody's secret is longer; what is longer isn't worth a hash.
_LONGEST_CREDENTIAL = 4096

_CHALLENGE = b'Bearer realm="mcpx"'
_INVALID = ((b"WWW-Authenticate", _CHALLENGE + b', error="invalid_token"'),)
_MISSING = ((b"WWW-Authenticate", _CHALLENGE),)
# RFC 9110 section 15.5.2 asks for a challenge with every 401, and no scheme is
# registered for keys in headers; who doesn't know this one reads on.
_API_KEY = ((b"WWW-Authenticate", b'ApiKey realm="mcpx"'),)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from.

    ``name`` is the client's name in policy, limits, metrics and audit, and empty for
    somebody who showed no credential because none is asked for.
    """

    name: str
    authenticated: bool


ANONYMOUS = Principal("", authenticated=False)


class Authenticator:
    """Tells the principal of a request, or refuses it.

    With ``oauth`` among its kinds it needs no clients, and a bearer token that is none of
    theirs comes back as it is.

    ``kind`` is the sort of credential that is read, or several of them: a request must
    then show exactly one. ``header`` is where ``api_key`` is read, ``clients`` are
    names with their credentials. ``credential_headers`` names, in lower case, what is
    read here and must never go upstream.

    Raises ValueError for credentials that are empty, shared by two clients or can't
    be sent in such a header. It names the client, never the credential.
    """

    __slots__ = (
        "_api_key_header",
        "_bearer_clients",
        "_bearer_header",
        "_by_digest",
        "_hasher",
        "_nobody",
        "_told_header",
        "credential_headers",
        "oauth",
    )

    def __init__(
        self,
        kind: Kind | Collection[Kind],
        header: str = "X-API-Key",
        clients: Iterable[tuple[str, Secret]] = (),
    ) -> None:
        kinds = frozenset((kind,) if isinstance(kind, str) else kind)
        if not kinds or not kinds <= {"bearer", "api_key", "oauth"}:
            raise ValueError("kind must be bearer, api_key or oauth")
        #: Whether tokens that are nobody's here may be somebody's elsewhere.
        self.oauth = "oauth" in kinds
        if not _consists_of(header.encode(), _TOKEN):
            raise ValueError(f"not the name of a header: {header!r}")
        # A name that no header has stands for a kind that isn't read.
        self._bearer_header = b"authorization" if kinds & {"bearer", "oauth"} else b""
        self._bearer_clients = "bearer" in kinds
        self._api_key_header = header.lower().encode() if "api_key" in kinds else b""
        if self._bearer_header == self._api_key_header:
            raise ValueError("bearer reads Authorization: api_key needs another header")
        self._told_header = "Authorization" if self._bearer_header else header
        self.credential_headers = frozenset((self._bearer_header, self._api_key_header)) - {b""}
        self._hasher = blake2b(key=os.urandom(32), digest_size=32)
        self._nobody = (os.urandom(32), ANONYMOUS)
        self._by_digest: dict[bytes, tuple[bytes, Principal]] = {}
        names: set[str] = set()
        for name, secret in clients:
            if not name:
                raise ValueError("a client has no name")
            if name in names:
                raise ValueError(f"two clients are called {name!r}")
            names.add(name)
            digest = self._digest(_sendable(name, secret, bearer=self._bearer_clients))
            if digest in self._by_digest:
                other = self._by_digest[digest][1].name
                raise ValueError(f"clients {other!r} and {name!r} have the same credential")
            self._by_digest[digest] = (digest, Principal(name, authenticated=True))
        if not names and kinds != {"oauth"}:
            raise ValueError("no credential: nobody could ever be let in")

    def identify(self, headers: Headers) -> Principal | bytes:
        """The principal whose credential is in ``headers`` (lower-case names).

        A token instead, with ``oauth``: it is nobody's here, and was not verified.

        Raises Unauthorized, with a challenge in ``WWW-Authenticate``.
        """
        header = found = b""
        wanted = self.credential_headers
        for name, value in headers:
            if name in wanted:
                if header:
                    self._refuse_several(header, name)
                header, found = name, value
        if not header:
            raise Unauthorized(f"missing {self._told_header} header", headers=self._challenge())
        if header == self._bearer_header:
            return self._bearer(found)
        principal = self._known(found)
        if principal is None:
            raise Unauthorized("invalid API key", headers=_API_KEY)
        return principal

    def _bearer(self, value: bytes) -> Principal | bytes:
        scheme, _, token = value.partition(b" ")
        token = token.lstrip(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise Unauthorized("missing bearer token", headers=_MISSING)
        principal = self._known(token) if self._bearer_clients else None
        if principal is not None:
            return principal
        if self.oauth:
            return token
        raise Unauthorized("invalid token", headers=_INVALID)

    def _known(self, credential: bytes) -> Principal | None:
        if len(credential) > _LONGEST_CREDENTIAL:
            return None
        digest = self._digest(credential)
        entry = self._by_digest.get(digest, self._nobody)
        if hmac.compare_digest(digest, entry[0]) and entry is not self._nobody:
            return entry[1]
        return None

    def _digest(self, credential: bytes) -> bytes:
        hasher = self._hasher.copy()
        hasher.update(credential)
        return hasher.digest()

    def _refuse_several(self, one: bytes, other: bytes) -> NoReturn:
        what = f"{self._told_header} header" if one == other else "credential"
        raise Unauthorized(f"more than one {what}", headers=self._challenge())

    def _challenge(self) -> tuple[tuple[bytes, bytes], ...]:
        return _MISSING if self._bearer_header else _API_KEY


def _sendable(name: str, secret: Secret, *, bearer: bool) -> bytes:
    """The secret's text as bytes that a request can carry; else ValueError."""
    text = secret.reveal().encode("utf-8", "surrogatepass")
    if not text:
        raise ValueError(f"the credential of client {name!r} is empty")
    if len(text) > _LONGEST_CREDENTIAL:
        raise ValueError(
            f"the credential of client {name!r} is longer than {_LONGEST_CREDENTIAL} bytes"
        )
    if bearer and not _consists_of(text.rstrip(b"="), _TOKEN68):
        raise ValueError(
            f"the credential of client {name!r} can't be a Bearer token: it must be of"
            " letters, digits and -._~+/, with = at its end alone"
        )
    if not _consists_of(text, _VISIBLE):
        raise ValueError(
            f"the credential of client {name!r} can't be sent in a header: it must be of"
            " visible ASCII characters without blanks"
        )
    return text


def _consists_of(text: bytes, alphabet: bytes) -> bool:
    return bool(text) and not text.translate(None, alphabet)
