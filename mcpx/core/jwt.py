"""Signed tokens: which key signed one, and whether what it says may be believed.

What it is: the only module that imports joserfc. ``parse_keys`` reads a key set
(RFC 7517), ``verify`` reads a compact JWS (RFC 7515) that holds the claims of an access
token (RFC 7519, RFC 9068). What it must never do: fetch anything, follow an address
that a token names (``jku``, ``x5u``, ``jwk``), take a symmetric key or an algorithm that
is not in the table, or believe a claim before the signature was found good.

The order is the defence. A token is measured before anything of it is decoded; its head,
which nobody has signed for yet, may only choose an algorithm of the table and name a key
of the set; the key must be of the kind that the algorithm needs, so that a public key
can't be taken for a shared secret; the signature is verified over the bytes as they
came; then the claims are read. RFC 8725 gives the reasons one by one.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from mcpx.core.oauth import (
    LONGEST_TOKEN_BYTES,
    Claims,
    TokenRefused,
    UnknownKey,
    check_audience,
    is_scope,
)

__all__ = ["ALGORITHMS", "KeyFault", "KeySet", "TokenRules", "parse_keys", "verify"]

# Name in the token: the kind of key and, for curves, which. ``EdDSA`` is the older name of
# what RFC 9864 calls ``Ed25519``; the other curve of that name is not taken.
_RSA: Final = ("RSA", "")
_TABLE: Final[dict[str, tuple[str, str]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), _RSA),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
#: The algorithms that a token may be signed with (RFC 7518 section 3.1, RFC 8037, RFC 9864).
ALGORITHMS: Final = frozenset(_TABLE)
_MODELS: Final = {
    name: JWSRegistry.algorithms["Ed25519" if name == "EdDSA" else name] for name in _TABLE
}

# RFC 8725 section 3.11: a token of another type, such as a logout token, is no access token.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})

_PUBLIC_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_IMPORTS: Final[dict[str, Callable[[Any], Key]]] = {
    "RSA": RSAKey.import_key,
    "EC": ECKey.import_key,
    "OKP": OKPKey.import_key,
}
# Any of these makes it a private or a symmetric key, which has no business in a key set
# that is published (RFC 7518 section 6).
_SECRET_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

#: Bits of an RSA modulus: fewer are weak (RFC 7518 section 3.3), more take too long.
_RSA_BITS: Final = range(2048, 8193)
_LONGEST_MEMBER: Final = 2048
_LONGEST_KID: Final = 256
_LONGEST_HEAD: Final = 2048
_LONGEST_NAME: Final = 256
#: Keys that are tried for a token that names none.
_TRIED: Final = 4
#: Times beyond this are no times; 2**53 is where a double stops counting by one.
_LAST_TIME: Final = float(2**53)


class KeyFault(ValueError):
    """A text that is no key set. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class _VerifyingKey:
    kid: str | None
    kind: tuple[str, str]
    #: The only algorithm that it is for; None where the key says nothing.
    algorithm: str | None
    thumbprint: str
    key: Key

    def serves(self, algorithm: str) -> bool:
        if self.kind != _TABLE[algorithm]:
            return False
        return self.algorithm is None or _MODELS[self.algorithm] is _MODELS[algorithm]


class KeySet:
    """The public keys of an authorization server, by their ``kid``.

    ``thumbprints`` (RFC 7638) tell the keys themselves apart. ``ignored`` counts the
    entries that can't verify a signature here: symmetric, private, for encryption, of
    an unknown kind, too weak or too large.
    """

    __slots__ = ("_all", "_by_kid", "ignored", "thumbprints")

    def __init__(self, keys: tuple[_VerifyingKey, ...], ignored: int) -> None:
        self._all = keys
        self._by_kid: dict[str, list[_VerifyingKey]] = {}
        for key in keys:
            if key.kid is not None:
                self._by_kid.setdefault(key.kid, []).append(key)
        self.thumbprints = frozenset(key.thumbprint for key in keys)
        self.ignored = ignored

    def __len__(self) -> int:
        return len(self._all)

    def has(self, kid: str) -> bool:
        """Whether there is a key of that name."""
        return kid in self._by_kid

    def candidates(self, kid: str | None, algorithm: str) -> list[_VerifyingKey]:
        """The keys that may have signed a token with this head; at most four."""
        named = self._all if kid is None else self._by_kid.get(kid, ())
        return [key for key in named if key.serves(algorithm)][:_TRIED]


def parse_keys(text: bytes, *, max_keys: int = 64, max_bytes: int = 256 * 1024) -> KeySet:
    """The key set in ``text``, JSON as RFC 7517 section 5 has it.

    Entries that can't be used are left out and counted: a server may publish kinds of
    keys that nobody here knows.

    Raises KeyFault when it is no key set, is too long, or holds no usable key.
    """
    if len(text) > max_bytes:
        raise KeyFault(f"the key set is longer than {max_bytes} bytes")
    document = _json_object(text)
    entries = document.get("keys") if document is not None else None
    if not isinstance(entries, list):
        raise KeyFault("this is no key set: a JSON object with a list called keys is one")
    if len(entries) > max_keys:
        raise KeyFault(f"the key set holds more than {max_keys} keys")
    keys = tuple(key for key in map(_usable, entries) if key is not None)
    if not keys:
        raise KeyFault(f"the key set holds no key for signatures, of {len(entries)} in all")
    return KeySet(keys, len(entries) - len(keys))


def _usable(entry: object) -> _VerifyingKey | None:
    if not isinstance(entry, dict) or not _SECRET_MEMBERS.isdisjoint(entry):
        return None
    kty, kid, algorithm = entry.get("kty"), entry.get("kid"), entry.get("alg")
    if not isinstance(kty, str) or kty not in _PUBLIC_MEMBERS or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if kid is not None and not (isinstance(kid, str) and len(kid) <= _LONGEST_KID):
        return None
    if algorithm is not None and not (isinstance(algorithm, str) and algorithm in _TABLE):
        return None
    # joserfc sees these members and no other: the rest has been judged here.
    public: dict[str, Any] = {"kty": kty}
    public.update((name, entry.get(name)) for name in _PUBLIC_MEMBERS[kty])
    if not all(isinstance(v, str) and 0 < len(v) <= _LONGEST_MEMBER for v in public.values()):
        return None
    kind = (kty, "" if kty == "RSA" else public["crv"])
    if kind not in _TABLE.values() or (kty == "RSA" and not _sound_rsa(public)):
        return None
    if algorithm is not None and _TABLE[algorithm] != kind:
        return None
    try:
        key = _IMPORTS[kty](public)
        return _VerifyingKey(kid, kind, algorithm, key.thumbprint(), key)
    except (JoseError, ValueError, TypeError):
        return None  # a point that is on no curve, say


def _sound_rsa(public: Mapping[str, Any]) -> bool:
    try:
        modulus = int.from_bytes(_decoded(public["n"].encode()), "big")
        exponent = int.from_bytes(_decoded(public["e"].encode()), "big")
    except ValueError:
        return False
    return modulus.bit_length() in _RSA_BITS and exponent % 2 == 1 and 3 <= exponent < 2**32


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say, whichever endpoint it is for.

    ``issuer`` is compared as it is written (RFC 8414 section 2); None asks for none.
    ``identity_claim`` names the claim that holds the principal's name. A name in
    ``reserved`` is refused: it belongs to a client with a credential of its own, which
    an authorization server must not be able to name.
    """

    issuer: str | None
    identity_claim: str = "sub"
    leeway_s: float = 30.0
    reserved: frozenset[str] = frozenset()


def verify(
    token: bytes, keys: KeySet, rules: TokenRules, accepted: frozenset[str], now: float
) -> Claims:
    """The claims of ``token``, for an endpoint whose identifiers are ``accepted``.

    ``now`` is the time of day in seconds. Costs 70 to 600 µs, by algorithm.

    Raises:
        UnknownKey: the set has no key of that name; a newer set may have it.
        TokenRefused: anything else; the message quotes nothing of the token.
    """
    if len(token) > LONGEST_TOKEN_BYTES:
        raise TokenRefused("too_long", f"it is longer than {LONGEST_TOKEN_BYTES} bytes")
    parts = token.split(b".")
    if len(parts) != 3 or not all(parts):
        raise TokenRefused("malformed", "it is no signed token")
    algorithm, kid = _head(parts[0])
    try:
        signature = _decoded(parts[2])
        payload = _decoded(parts[1])
    except ValueError:
        raise TokenRefused("malformed", "it is no signed token") from None
    key = _signer(keys, kid, algorithm, token[: -len(parts[2]) - 1], signature)
    document = _json_object(payload)
    if document is None:
        raise TokenRefused("malformed", "its claims are no JSON object without repeated names")
    claims = _claims(document, rules, now, kid, key.thumbprint)
    check_audience(claims, accepted)
    return claims


def _head(part: bytes) -> tuple[str, str | None]:
    """The algorithm and the key's name. Nothing else of the head has a say."""
    try:
        head = _json_object(_decoded(part)) if len(part) <= _LONGEST_HEAD else None
    except ValueError:
        head = None
    if head is None:
        raise TokenRefused("malformed", "its header is not one of a signed token")
    algorithm, kid, typ = head.get("alg"), head.get("kid"), head.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in _TABLE:
        raise TokenRefused("algorithm", "it is signed with an algorithm that is not accepted")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        raise TokenRefused("type", "it is a token of another type")
    # An extension that must be understood, and none is (RFC 7515 section 4.1.11); claims
    # inside another token (cty) or unencoded (b64) would be read otherwise than here.
    if "crit" in head or "cty" in head or "zip" in head or head.get("b64", True) is not True:
        raise TokenRefused("header", "its header asks for an extension that is not supported")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= _LONGEST_KID):
        raise TokenRefused("header", "its key identifier can't be used")
    return algorithm, kid


def _signer(
    keys: KeySet, kid: str | None, algorithm: str, signed: bytes, signature: bytes
) -> _VerifyingKey:
    candidates = keys.candidates(kid, algorithm)
    model = _MODELS[algorithm]
    for candidate in candidates:
        try:
            model.check_key(candidate.key)
            if model.verify(signed, signature, candidate.key):
                return candidate
        except (JoseError, ValueError):
            continue
    if kid is None or not keys.has(kid):
        # Without a name a newer key may fit as well as under a new name.
        raise UnknownKey(kid)
    if not candidates:
        raise TokenRefused("algorithm", "its algorithm does not belong to the key that it names")
    raise TokenRefused("signature", "its signature is not good")


def _claims(
    document: Mapping[str, Any], rules: TokenRules, now: float, kid: str | None, thumbprint: str
) -> Claims:
    expires_at = _time(document, "exp")
    if expires_at is None:
        raise TokenRefused("expired", "it does not say when it expires")
    if now >= expires_at + rules.leeway_s:
        raise TokenRefused("expired", "it has expired")
    for claim in ("nbf", "iat"):
        begins = _time(document, claim)
        if begins is not None and begins > now + rules.leeway_s:
            raise TokenRefused("not_yet_valid", "it is not valid yet")
    if rules.issuer is not None and document.get("iss") != rules.issuer:
        raise TokenRefused("issuer", "it is from another issuer")
    return Claims(
        name=_name(document, rules),
        scopes=_scopes(document),
        audiences=_audiences(document),
        expires_at=expires_at,
        kid=kid,
        thumbprint=thumbprint,
    )


def _time(document: Mapping[str, Any], claim: str) -> float | None:
    """A NumericDate (RFC 7519 section 2): seconds, perhaps with a fraction."""
    value = document.get(claim)
    if value is None and claim not in document:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _malformed(claim)
    if not 0 <= value <= _LAST_TIME or not math.isfinite(value):
        _malformed(claim)
    return float(value)


def _name(document: Mapping[str, Any], rules: TokenRules) -> str:
    name = document.get(rules.identity_claim)
    if not isinstance(name, str) or not name:
        raise TokenRefused(
            "identity", f"it has no claim {rules.identity_claim} that names its user"
        )
    # The name goes into the audit, the log and the policy; half a surrogate pair, a line
    # break or a blank at an end would make two names look like one.
    if len(name) > _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise TokenRefused("identity", f"its claim {rules.identity_claim} can't be used as a name")
    if name in rules.reserved:
        raise TokenRefused("identity", "its user has the name of a client with its own credential")
    return name


def _scopes(document: Mapping[str, Any]) -> frozenset[str]:
    """RFC 8693 section 4.2 has ``scope``, one text; some servers have ``scp``, or a list."""
    claim = "scope" if "scope" in document else "scp"
    value = document.get(claim, "")
    given = value.split(" ") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(scope, str) for scope in given):
        _malformed(claim)
    return frozenset(filter(is_scope, given))


def _audiences(document: Mapping[str, Any]) -> frozenset[str]:
    value = document.get("aud", [])
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(audience, str) for audience in given):
        _malformed("aud")
    return frozenset(given)


def _malformed(claim: str) -> NoReturn:
    raise TokenRefused("malformed", f"its claim {claim} can't be read")


def _decoded(part: bytes) -> bytes:
    """Base64url without padding (RFC 7515 section 2), in its one canonical form."""
    try:
        decoded = base64.b64decode(part + b"=" * (-len(part) % 4), b"-_", validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64url") from exc
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise ValueError("not base64url")
    return decoded


def _json_object(text: bytes) -> dict[str, Any] | None:
    """The JSON object in ``text``; None if it is none, or says a thing twice."""
    try:
        value = json.loads(
            text.decode(), object_pairs_hook=_without_repeats, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name is repeated")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
