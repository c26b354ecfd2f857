"""An authorization server for tests: it signs, rotates its keys, and fails on demand.

``Signer`` makes keys and tokens and needs no network. ``AuthorizationServer`` publishes
its keys and gives tokens over HTTP/1.1 on a loopback port, one request a connection.
"""

from __future__ import annotations

import base64
import functools
import hmac
import json
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import h11
import trio
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

KINDS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
    "Ed25519": "Ed25519",
}


def private_key(kind, number=0):
    """A key that is made once for all tests; ``number`` tells several of a kind apart."""
    return _private_key(kind, number)


@functools.cache
def _private_key(kind, _number):
    if kind == "RSA":
        return RSAKey.generate_key(2048)
    if kind in ("Ed25519", "Ed448", "X25519"):
        return OKPKey.generate_key(kind)
    return ECKey.generate_key(kind)


def encoded(data):
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def compact(head, payload, key):
    """A compact JWS of any header and payload; ``key`` is None for an empty signature."""
    signed = encoded(json.dumps(head).encode()) + b"." + encoded(payload)
    if key is None:
        return signed + b"."
    model = JWSRegistry.algorithms["Ed25519" if head["alg"] == "EdDSA" else head["alg"]]
    return signed + b"." + encoded(model.sign(signed, key))


def mac_signed(head, payload, secret):
    """The same with a shared secret: HS256, HS384 or HS512."""
    signed = encoded(json.dumps(head).encode()) + b"." + encoded(payload)
    return signed + b"." + encoded(hmac.digest(secret, signed, "sha" + head["alg"][2:]))


class Signer:
    """Signs tokens with its newest key; ``jwks`` publishes all of them."""

    def __init__(self, issuer="https://as.example", algorithm="ES256"):
        self.issuer = issuer
        self.keys = []
        self.add("k1", algorithm)

    def add(self, kid, algorithm="ES256", number=0):
        self.keys.append((kid, algorithm, private_key(KINDS[algorithm], number)))

    def rotate(self, kid, algorithm="ES256", number=1):
        """A new key in place of all others."""
        self.keys.clear()
        self.add(kid, algorithm, number)

    def jwks(self):
        entries = []
        for kid, algorithm, key in self.keys:
            entry = {**key.as_dict(private=False), "use": "sig", "alg": algorithm}
            if kid is not None:
                entry["kid"] = kid
            entries.append(entry)
        return json.dumps({"keys": entries}).encode()

    def token(self, now, *, head=None, without=(), **claims):
        kid, algorithm, key = self.keys[-1]
        header = {"alg": algorithm, "typ": "at+jwt"}
        if kid is not None:
            header["kid"] = kid
        header.update(head or {})
        document = {
            "iss": self.issuer,
            "sub": "alice",
            "aud": "https://gw.example/mcp/files",
            "iat": now,
            "exp": now + 300,
            "scope": "mcp:read mcp:write",
            **claims,
        }
        for claim in without:
            del document[claim]
        return compact(header, json.dumps(document).encode(), key)


class AuthorizationServer(Signer):
    """A signer on a loopback port.

    ``asked`` lists (method, path, headers, form) of every request. ``answers`` maps a path
    to ``(status, headers, body)`` in place of the usual answer. While ``gate`` is an
    event, requests wait for it.
    """

    def __init__(self, **more):
        super().__init__(**more)
        self.asked = []
        self.answers = {}
        self.gate = None
        self.lifetime_s = 300
        self.given = 0
        self.port = 0
        self.scheme = "http"

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self, tls=None):
        self.scheme = "https" if tls else "http"
        async with trio.open_nursery() as nursery:
            listeners = (
                await trio.open_ssl_over_tcp_listeners(0, tls, host="127.0.0.1")
                if tls
                else await trio.open_tcp_listeners(0, host="127.0.0.1")
            )
            first = listeners[0]
            self.port = getattr(first, "transport_listener", first).socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, self._serve, listeners)
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, stream):
        try:
            async with stream:
                await self._exchange(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has left, or distrusts the certificate

    async def _exchange(self, stream):
        connection = h11.Connection(h11.SERVER)
        head, body = None, b""
        while True:
            match connection.next_event():
                case h11.NEED_DATA:
                    data = await stream.receive_some(65536)
                    connection.receive_data(data)
                    if not data and head is None:
                        return
                case h11.Request() as head:
                    pass
                case h11.Data() as piece:
                    body += piece.data
                case h11.EndOfMessage():
                    break
                case _:
                    return
        path = head.target.decode()
        self.asked.append(
            (head.method.decode(), path, dict(head.headers), dict(parse_qsl(body.decode())))
        )
        if self.gate is not None:
            await self.gate.wait()
        status, headers, text = self.answers.get(path) or self._answer(path, body)
        headers = [("content-length", str(len(text))), ("connection", "close"), *headers]
        await stream.send_all(connection.send(h11.Response(status_code=status, headers=headers)))
        await stream.send_all(connection.send(h11.Data(data=text)))

    def _answer(self, path, body):
        if path == "/jwks":
            return 200, [], self.jwks()
        if path == "/token":
            self.given += 1
            answer = {
                "access_token": f"given-{self.given}",
                "token_type": "Bearer",
                "expires_in": self.lifetime_s,
            }
            return 200, [], json.dumps(answer).encode()
        return 404, [], b"{}"
