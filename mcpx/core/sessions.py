"""Session ids that are worth nothing to anybody else.

A client never sees an upstream's own session id. It sees a sealed one: the upstream's
id, a dot and a MAC over it, the principal and the endpoint. Such an id needs no
table, survives a restart, holds on every replica that has the key, and another
principal, or another endpoint, can't use it (MCP security best practices, "Session
Hijacking": a session is bound to a user, and is no authentication).

Sealing hides nothing: the upstream's id is there to be read. It must never be taken
for a credential, and nothing is opened that isn't exactly what was sealed.

The MAC is keyed BLAKE2b (RFC 7693) of 16 bytes. What it covers begins with the lengths
of principal and endpoint, so that no two different triples make the same text. The
MAC's text is compared, not what it decodes to: the last base64 letter has bits to
spare, and an id must have one spelling.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import blake2b

from mcpx.errors import RemoteProtocolError
from mcpx.secret import Secret

__all__ = ["LONGEST_SEALED_ID", "SessionSealer", "key_from_secret"]

_MAC_BYTES = 16
# Sixteen bytes are 22 letters of base64; its "==" says nothing.
_MAC_LETTERS = 22
_SUFFIX = 1 + _MAC_LETTERS
_LONGEST_UPSTREAM_ID = 512
LONGEST_SEALED_ID = _LONGEST_UPSTREAM_ID + _SUFFIX
_VISIBLE = bytes(range(0x21, 0x7F))
_SHORTEST_KEY, _LONGEST_KEY = 32, 64
_SHORTEST_SECRET = 32


def key_from_secret(secret: Secret) -> bytes:
    """The sealer's key, from the secret that all replicas share.

    Raises ValueError where the secret is shorter than 32 characters: whoever has one
    sealed id could try short ones at leisure.
    """
    text = secret.reveal()
    if len(text) < _SHORTEST_SECRET:
        raise ValueError(f"a session key must have {_SHORTEST_SECRET} or more characters")
    return blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=32, person=b"mcpx session key"
    ).digest()


class SessionSealer:
    """Seals and opens session ids under one key of 32 to 64 bytes (else ValueError)."""

    __slots__ = ("_hasher",)

    def __init__(self, key: bytes) -> None:
        if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
            raise ValueError(f"a key must have {_SHORTEST_KEY} to {_LONGEST_KEY} bytes")
        self._hasher = blake2b(key=key, digest_size=_MAC_BYTES)

    def seal(self, upstream_id: bytes, principal: str, endpoint: str) -> bytes:
        """The id for a client to hold, of visible ASCII characters.

        Raises RemoteProtocolError (502) where the upstream's id is empty, longer than
        512 bytes, or has other characters than 0x21 to 0x7E (MCP 2025-11-25,
        "Session Management").
        """
        if not upstream_id or len(upstream_id) > _LONGEST_UPSTREAM_ID:
            raise RemoteProtocolError(
                f"the server's session id must have 1 to {_LONGEST_UPSTREAM_ID} bytes", 502
            )
        if upstream_id.translate(None, _VISIBLE):
            raise RemoteProtocolError("the server's session id isn't visible ASCII", 502)
        return b"%b.%b" % (upstream_id, self._mac(upstream_id, principal, endpoint))

    def open(self, sealed: bytes, principal: str, endpoint: str) -> bytes | None:
        """The upstream's id, or None for anything not sealed for these two."""
        if not _SUFFIX < len(sealed) <= LONGEST_SEALED_ID:
            return None
        upstream_id = sealed[:-_SUFFIX]
        expected = b".%b" % self._mac(upstream_id, principal, endpoint)
        return upstream_id if hmac.compare_digest(expected, sealed[-_SUFFIX:]) else None

    def _mac(self, upstream_id: bytes, principal: str, endpoint: str) -> bytes:
        who = principal.encode("utf-8", "surrogatepass")
        where = endpoint.encode("utf-8", "surrogatepass")
        hasher = self._hasher.copy()
        hasher.update(
            b"%b%b%b%b%b"
            % (len(who).to_bytes(8, "big"), len(where).to_bytes(8, "big"), who, where, upstream_id)
        )
        return urlsafe_b64encode(hasher.digest())[:_MAC_LETTERS]
