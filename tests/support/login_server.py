"""An authorization server at which a user logs in: codes with PKCE, for registered clients.

It does what OAuth 2.1 asks of one, and refuses what it must refuse: a client that it
doesn't know, a redirect elsewhere, a code without or with a wrong verifier, a code that
was used, another resource than the code was given for. Its tokens are signed, and their
audience is the ``resource`` that the client named (RFC 8707).
"""

import base64
import hashlib
import json
import secrets
import time
from urllib.parse import parse_qs, urlencode, urlsplit

from support.authorization_server import AuthorizationServer

__all__ = ["LoginServer"]


class RefusedError(Exception):
    """An error of the token endpoint, by its name (RFC 6749 section 5.2)."""


class LoginServer(AuthorizationServer):
    """``user`` logs in, and grants those of the scopes asked for that are in ``may``.

    ``logins`` lists (scope, resource) of each, ``grants`` each way that a token was got.
    ``audience`` overrides what the tokens are for. ``registers`` tells whether clients
    may register themselves.
    """

    def __init__(self, may, **more):
        super().__init__(**more)
        self.may = set(may)
        self.user = "alice"
        self.audience = None
        self.registers = True
        self.clients = {}
        self.logins = []
        self.grants = []
        self._codes = {}
        self._refreshing = {}

    def register(self, redirect_uris):
        """A client, registered; its id."""
        client = f"client-{len(self.clients) + 1}"
        self.clients[client] = list(redirect_uris)
        return client

    def _answer(self, path, body):
        place, _, query = path.partition("?")
        if place == "/.well-known/oauth-authorization-server":
            return 200, JSON, self._metadata()
        if place == "/register" and self.registers:
            return self._registered(json.loads(body))
        if place == "/authorize":
            return self._authorized(_single(query))
        if place == "/token":
            try:
                return 200, JSON, self._token(_single(body.decode()))
            except RefusedError as error:
                return 400, JSON, json.dumps({"error": str(error)}).encode()
        return super()._answer(path, body)

    def _metadata(self):
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": True,
        }
        if self.registers:
            document["registration_endpoint"] = f"{self.url}/register"
        return json.dumps(document).encode()

    def _registered(self, asked):
        client = self.register(asked["redirect_uris"])
        told = {**asked, "client_id": client, "token_endpoint_auth_method": "none"}
        return 201, JSON, json.dumps(told).encode()

    def _authorized(self, asked):
        """The user's browser comes, and is sent back with a code."""
        redirect = asked.get("redirect_uri")
        if redirect not in self.clients.get(asked.get("client_id"), ()):
            return 400, [], b"this client is not known, or not at this place"
        told = {"state": asked["state"], "iss": self.issuer}
        challenge = asked.get("code_challenge", "")
        if (
            asked.get("response_type") != "code"
            or asked.get("code_challenge_method") != "S256"
            or len(challenge) != 43
        ):
            told["error"] = "invalid_request"
        elif not urlsplit(asked.get("resource", "")).scheme:
            told["error"] = "invalid_target"
        else:
            self.logins.append((asked.get("scope", ""), asked["resource"]))
            code = told["code"] = secrets.token_urlsafe(16)
            granted = self.may.intersection(asked.get("scope", "").split())
            self._codes[code] = {**asked, "granted": " ".join(sorted(granted))}
        return 302, [("location", f"{redirect}?{urlencode(told)}")], b""

    def _token(self, asked):
        kind = asked.get("grant_type")
        if kind == "authorization_code":
            given = self._codes.pop(asked.get("code"), None)
            digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if given is None or challenge != given["code_challenge"]:
                raise RefusedError("invalid_grant")
            if asked.get("redirect_uri") != given["redirect_uri"]:
                raise RefusedError("invalid_grant")
        elif kind == "refresh_token":
            # It is good once.
            given = self._refreshing.pop(asked.get("refresh_token"), None)
            if given is None:
                raise RefusedError("invalid_grant")
        else:
            raise RefusedError("unsupported_grant_type")
        if asked.get("client_id") != given["client_id"]:
            raise RefusedError("invalid_client")
        if asked.get("resource") != given["resource"]:
            raise RefusedError("invalid_target")
        self.grants.append(kind)
        again = secrets.token_urlsafe(16)
        self._refreshing[again] = given
        now = int(time.time())
        token = self.token(
            now,
            sub=self.user,
            aud=self.audience or given["resource"],
            scope=given["granted"],
            client_id=given["client_id"],
            jti=secrets.token_urlsafe(8),
        )
        return json.dumps(
            {
                "access_token": token.decode(),
                "token_type": "Bearer",
                "expires_in": self.lifetime_s,
                "scope": given["granted"],
                "refresh_token": again,
            }
        ).encode()


JSON = [("content-type", "application/json"), ("cache-control", "no-store")]


def _single(query):
    """The fields of a form, none of which may be there twice."""
    fields = parse_qs(query, keep_blank_values=True)
    assert all(len(values) == 1 for values in fields.values()), fields
    return {name: values[0] for name, values in fields.items()}
