"""Who a token stands for, with keys that change and clocks that are passed."""

import pytest
import yaml
from support.authorization_server import Signer

from mcpx.config.load import load_snapshot
from mcpx.core.jwt import parse_keys
from mcpx.errors import Unauthorized
from mcpx.gateway.tokens import TokenCheck

NOW = 1_700_000_000.0


class Keys:
    """The authorization server's keys, without a network."""

    def __init__(self, signer):
        self.signer = signer
        self.changed = None
        self.asked = self.again = 0
        self.set = parse_keys(signer.jwks())

    async def current(self):
        self.asked += 1
        return self.set

    async def newer(self, than):
        self.again += 1
        fresh = parse_keys(self.signer.jwks())
        if fresh.thumbprints == than.thumbprints:
            return None
        self.set = fresh
        self.changed(fresh)
        return fresh


class Check:
    def __init__(self, **auth):
        config = {
            "servers": [{"name": "files", "url": "http://127.0.0.1:9/mcp"}],
            "auth": {
                "enabled": True,
                "type": "oauth",
                "oauth": {"resource": "https://gw.example", "issuer": "https://as.example"},
                **auth,
            },
        }
        snapshot = load_snapshot(yaml.safe_dump(config), filename="x", environ={}, generation=1)
        self.now = NOW
        self.signer = Signer()
        self.keys = Keys(self.signer)
        self.oauth = snapshot.oauth
        self.check = TokenCheck(
            snapshot.oauth, snapshot.config.auth.identity_claim, self.keys, clock=lambda: self.now
        )
        self.check.begin()

    async def claims(self, token, server="files"):
        return await self.check.claims(token, self.oauth.servers[server])


async def test_a_good_token_is_verified_once():
    made = Check()
    token = made.signer.token(NOW)
    for _ in range(3):
        assert (await made.claims(token)).name == "alice"
    assert made.keys.asked == 1


async def test_a_token_that_ends_is_refused_though_it_was_known():
    made = Check()
    token = made.signer.token(NOW)
    await made.claims(token)
    made.now += 331
    with pytest.raises(Unauthorized) as caught:
        await made.claims(token)
    assert caught.value.reason.startswith("invalid token (expired)")


async def test_an_unknown_key_is_asked_for_and_withdrawn_ones_are_forgotten():
    made = Check()
    old = made.signer.token(NOW)
    await made.claims(old)
    made.signer.rotate("k2")
    assert (await made.claims(made.signer.token(NOW))).name == "alice"
    assert made.keys.again == 1
    with pytest.raises(Unauthorized):
        await made.claims(old)


async def test_a_token_for_another_endpoint_is_refused_whether_it_is_known_or_not():
    made = Check()
    token = made.signer.token(NOW, aud="https://gw.example/mcp/other")
    for _ in range(2):
        with pytest.raises(Unauthorized) as caught:
            await made.claims(token)
        assert b"resource_metadata" in dict(caught.value.headers)[b"WWW-Authenticate"]


async def test_what_is_no_signed_token_asks_nobody_anything():
    made = Check()
    with pytest.raises(Unauthorized):
        await made.claims(b"a-token-of-another-kind")
    assert made.keys.asked == 0
