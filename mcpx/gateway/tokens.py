"""Whom a signed token stands for, and what it may be used for.

What it is: the meeting of the authorization server's keys, the rules for tokens and the
memory of those that were found good. What it must never do: take a token for one endpoint
at another, or let somebody in because nobody could say whether the token is good.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mcpx.config.snapshot import Oauth
from mcpx.core.jwt import KeySet, TokenRules, verify
from mcpx.core.oauth import (
    Claims,
    ProtectedResource,
    TokenRefused,
    UnknownKey,
    VerifiedTokens,
    could_be_jwt,
)
from mcpx.services.jwks import JwksKeys

__all__ = ["TokenCheck"]


class TokenCheck:
    """Verifies tokens by one set of rules.

    Args:
        oauth: the rules; another configuration of them needs another object.
        identity_claim: the claim that names the principal.
        keys: the authorization server's keys.
        clock: the time of day in seconds.
    """

    def __init__(
        self,
        oauth: Oauth,
        identity_claim: str,
        keys: JwksKeys,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys
        self._rules = TokenRules(
            issuer=oauth.settings.issuer,
            identity_claim=identity_claim,
            leeway_s=oauth.settings.leeway,
            reserved=oauth.reserved,
        )
        self._seen = VerifiedTokens(max_age_s=oauth.settings.token_cache_age)
        self._clock = clock

    def begin(self) -> None:
        """Be the one that is told of new keys: what withdrawn ones signed is forgotten."""
        self.keys.changed = self._withdraw

    def _withdraw(self, keys: KeySet) -> None:
        self._seen.keep_only(keys.thumbprints)

    async def claims(self, token: bytes, resource: ProtectedResource) -> Claims:
        """What a good token for ``resource`` says.

        Raises:
            Unauthorized: it is none; the challenge says why.
            KeysUnavailable: nobody can say at the moment.
        """
        if not could_be_jwt(token):
            raise resource.refused(TokenRefused("unknown", "it is not known here"))
        now = self._clock()
        try:
            known = self._seen.get(token, resource.accepted, now)
            if known is not None:
                return known
            claims = await self._verified(token, resource.accepted, now)
        except TokenRefused as error:
            raise resource.refused(error) from error
        self._seen.put(token, claims, now)
        return claims

    async def _verified(self, token: bytes, accepted: frozenset[str], now: float) -> Claims:
        keys = await self.keys.current()
        try:
            return verify(token, keys, self._rules, accepted, now)
        except UnknownKey:
            newer = await self.keys.newer(keys)
            if newer is None:
                raise
            return verify(token, newer, self._rules, accepted, now)
