"""A gateway that takes signed tokens, with the authorization server that signs them."""

import re
import time
from contextlib import asynccontextmanager

from support.authorization_server import AuthorizationServer
from support.client import call
from support.inprocess import running

RESOURCE = "https://gw.example"
DEMO = f"{RESOURCE}/mcp/demo"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
METADATA = f"{RESOURCE}{WELL_KNOWN}/mcp/demo"

_PARAMETER = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"(?:, |\Z)')


def now():
    return int(time.time())


def bearer(token):
    """The header that shows ``token``."""
    return [("Authorization", "Bearer " + (token.decode() if isinstance(token, bytes) else token))]


def challenge(response):
    """The parameters of the one Bearer challenge in an answer."""
    (value,) = response.all("www-authenticate")
    scheme, _, rest = value.partition(" ")
    assert scheme == "Bearer", value
    found = _PARAMETER.findall(rest)
    # Nothing is left over between them, and none is there twice.
    assert ", ".join(f'{name}="{text}"' for name, text in found) == rest
    assert len(dict(found)) == len(found)
    return dict(found)


def settings(authority, oauth=None, auth=None, **more):
    """A configuration that takes the tokens of ``authority``."""
    signed = {"resource": RESOURCE, "issuer": authority.url, "jwks_uri": authority.url + "/jwks"}
    # None takes a setting away.
    signed = {k: v for k, v in {**signed, **(oauth or {})}.items() if v is not None}
    return {"auth": {"enabled": True, "type": "oauth", "oauth": signed, **(auth or {})}, **more}


class Rig:
    """The two of them, and what is asserted of every refusal."""

    def __init__(self, gateway, authority):
        self.gateway = gateway
        self.authority = authority

    def token(self, audience=DEMO, **more):
        return self.authority.token(now(), **{"aud": audience, **more})

    def headers(self, audience=DEMO, **more):
        return bearer(self.token(audience, **more))

    async def lines(self):
        return await self.gateway.audit()

    @property
    def upstream(self):
        return self.gateway.upstream.seen

    @property
    def fetches(self):
        """How often the keys were asked for."""
        return sum(path == "/jwks" for _, path, _, _ in self.authority.asked)

    async def refused(self, headers, *, code=None, status=401, body=None, path="/mcp/demo", **more):
        """Ask, be refused, and see that nothing else happened; the answer.

        ``code`` is what the audit calls the fault of a token; None if none was read.
        ``more`` are further parameters of the challenge.
        """
        reached, before = len(self.upstream), len(await self.lines())
        response = await self.gateway.post(body or call("echo"), path, headers)
        assert response.status == status, response
        assert response.json["id"] == 1
        assert len(self.upstream) == reached
        lines = await self.gateway.audit(before + 1)
        assert len(lines) == before + 1
        line = lines[-1]
        assert (line["status"], line["allowed"]) == (status, False)
        if status == 401:
            assert (line["outcome"], response.error["data"]["code"]) == ("unauthorized",) * 2
            assert "client" not in line
            told = challenge(response)
            assert told.pop("resource_metadata") == more.pop("metadata", METADATA)
            description = told.pop("error_description", None)
            if code is None:
                assert (told, description) == (more, None)
            else:
                assert told == {"error": "invalid_token", **more}
                assert description.startswith("the token is not accepted: it")
                assert line["reason"].startswith(f"invalid token ({code}): it"), line
                assert response.error["message"] == "invalid token"
        return response

    async def served(self, headers, *, body=None, path="/mcp/demo", client="alice"):
        """Ask, be served, and be recorded under one's name; the answer."""
        reached, before = len(self.upstream), len(await self.lines())
        response = await self.gateway.post(body or call("echo"), path, headers)
        assert response.status == 200, response
        assert len(self.upstream) == reached + 1 or path != "/mcp/demo"
        lines = await self.gateway.audit(before + 1)
        assert len(lines) == before + 1
        assert (lines[-1]["client"], lines[-1]["allowed"]) == (client, True)
        return response


@asynccontextmanager
async def guarded(tmp_path, oauth=None, auth=None, algorithm="ES256", **more):
    """A running ``Rig``. ``oauth`` and ``auth`` are settings of these sections."""
    async with AuthorizationServer(algorithm=algorithm).serving() as authority:
        authority.issuer = authority.url
        async with running(tmp_path, settings(authority, oauth, auth, **more)) as gateway:
            yield Rig(gateway, authority)
