"""What the gateway trusts and what it shows: keys of others, credentials of its own.

What it is: for one configuration, the check of clients' tokens and the credential for each
server, built before the configuration is put in place. What is the same as before is kept:
keys that were fetched and tokens that were got outlive a reload. What it must never do:
ask anybody anything while it builds, or show a secret.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from mcpx.config.faults import quote
from mcpx.config.model import OauthConfig, ServerAuth
from mcpx.config.snapshot import Snapshot
from mcpx.errors import ConfigError
from mcpx.secret import Secret
from mcpx.services.credentials import (
    ClientCredentials,
    Credential,
    Grant,
    api_key,
    bearer,
    read_secret,
    static_headers,
)
from mcpx.services.errand import Errands
from mcpx.services.outbound import Outbound

if TYPE_CHECKING:
    from mcpx.gateway.tokens import TokenCheck

__all__ = ["Trust"]


class Trust:
    """The trust of one configuration.

    ``tokens`` is ``None`` where no signed tokens are taken; ``credentials`` has the servers
    that are shown something.
    """

    __slots__ = ("_grants", "_key_settings", "_outbounds", "credentials", "tokens")

    def __init__(self) -> None:
        self.tokens: TokenCheck | None = None
        self.credentials: dict[str, Credential] = {}
        #: What tokens are asked for with, and whom to trust with it.
        self._grants: dict[str, tuple[Grant, str | None]] = {}
        #: One for each set of authorities: loading those takes tens of milliseconds.
        self._outbounds: dict[str | None, Outbound] = {}
        self._key_settings: tuple[object, ...] = ()

    @classmethod
    def of(cls, snapshot: Snapshot, errands: Errands, before: Trust | None) -> Trust:
        """The trust that ``snapshot`` asks for. Blocks: files are read, libraries loaded.

        Raises:
            ConfigError: a file with a secret or a certificate can't be used.
        """
        made = cls()
        before = before if before is not None else made
        for server in snapshot.config.servers:
            try:
                made._add(server.name, server.auth, errands, before)
            except ConfigError as error:
                raise ConfigError(
                    [f"servers: {quote(server.name)}: auth: {text}" for text in error.problems]
                ) from error
        if snapshot.oauth is not None:
            made._check_tokens(snapshot, errands, before)
        return made

    def _add(
        self,
        server: str,
        auth: ServerAuth,
        errands: Errands,
        before: Trust,
    ) -> None:
        if auth.type == "headers":
            self.credentials[server] = static_headers(
                {name: read_secret(value) for name, value in auth.headers.items()}
            )
        elif auth.type == "bearer":
            self.credentials[server] = bearer(_given(auth.token))
        elif auth.type == "api_key":
            self.credentials[server] = api_key(auth.header, _given(auth.key))
        elif auth.type == "client_credentials":
            asks = (_grant(auth), auth.ca)
            same = before._grants.get(server) == asks
            self._grants[server] = asks
            if same:
                self.credentials[server] = before.credentials[server]
                return
            if auth.ca not in self._outbounds:
                self._outbounds[auth.ca] = _outbound("ca", auth.ca)
            post = self._outbounds[auth.ca].post
            self.credentials[server] = ClientCredentials(asks[0], post, errands)

    def _check_tokens(self, snapshot: Snapshot, errands: Errands, before: Trust) -> None:
        # Loading the signatures' library takes a tenth of a second, for those who need it.
        from mcpx.gateway.tokens import TokenCheck
        from mcpx.services.jwks import JwksKeys

        oauth, auth = snapshot.oauth, snapshot.config.auth
        assert oauth is not None
        settings = oauth.settings
        self._key_settings = _key_settings(settings)
        if before.tokens is not None and before._key_settings == self._key_settings:
            keys = before.tokens.keys
        else:
            keys = JwksKeys(
                settings.jwks_uri,
                _outbound(
                    "auth.oauth.ca",
                    settings.ca,
                    allow_private=settings.allow_private_addresses,
                ).fetch,
                errands,
                issuer=settings.issuer,
                max_age_s=settings.jwks_max_age,
                max_stale_s=settings.jwks_max_stale,
            )
        self.tokens = TokenCheck(oauth, auth.identity_claim, keys)


#: Requests to authorization servers are few and small.
_TIMEOUT_S: Final = 5.0


def _outbound(setting: str, ca: str | None, *, allow_private: bool = False) -> Outbound:
    """What asks an authorization server, loaded and ready. ``setting`` is where ``ca`` stands."""
    tls = None
    if ca is not None:
        try:
            tls = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                [f"{setting}: {ca} holds no certificates that can be read: {exc}"]
            ) from exc
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
    made = Outbound(timeout_s=_TIMEOUT_S, allow_private=allow_private, tls=tls)
    made.prepare()
    return made


def _key_settings(settings: OauthConfig) -> tuple[object, ...]:
    """All that decides where keys come from and how long they are used."""
    return (
        settings.jwks_uri,
        settings.issuer,
        settings.jwks_max_age,
        settings.jwks_max_stale,
        settings.allow_private_addresses,
        settings.ca,
    )


def _grant(auth: ServerAuth) -> Grant:
    assert auth.token_url is not None, "validate asks for it"
    assert auth.client_id is not None, "validate asks for it"
    return Grant(
        auth.token_url,
        auth.client_id,
        _given(auth.client_secret),
        auth.client_auth,
        tuple(auth.scopes),
        auth.resource,
        auth.audience,
        dict(auth.parameters),
    )


def _given(secret: Secret | None) -> Secret:
    assert secret is not None, "validate asks for it"
    return read_secret(secret)
