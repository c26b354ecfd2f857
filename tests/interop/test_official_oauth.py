"""The official Python client logs its user in by itself, and gets through the gateway.

Nothing but the endpoint's address is told to it. It learns from the gateway's 401 where
the authorization server is, registers there, sends its user there, and comes back with a
token for this very endpoint.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import trio
from mcp import Client
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
)
from mcp.shared.exceptions import MCPError
from official_client import LEGACY, LIMIT_S, MODERN, PROBING, allowances
from support import inprocess
from support.login_server import LoginServer
from support.processes import free_port

REDIRECT = "http://127.0.0.1:1/callback"
SCOPES = {"scopes": ["mcp:read"], "scope_rules": [{"tools": ["add"], "scopes": ["math"]}]}


class Storage:
    """Where the client keeps what it got."""

    def __init__(self, client=None):
        self.tokens = None
        self.client = client

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


class Browser:
    """The user's browser: it goes where the client sends it, and tells where it came out."""

    def __init__(self):
        self.visits = 0
        self._came_to = ""

    async def go(self, url):
        self.visits += 1
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(url)
        assert answer.status_code == 302, answer.text
        self._came_to = answer.headers["location"]

    async def come_back(self):
        place, _, query = self._came_to.partition("?")
        assert place == REDIRECT
        told = {name: values[0] for name, values in parse_qs(query).items()}
        return AuthorizationCodeResult(code=told["code"], state=told["state"], iss=told["iss"])


class Setting:
    """A gateway before the SDK's server, and the authorization server that it trusts."""

    def __init__(self, gateway, authority):
        self.gateway = gateway
        self.authority = authority
        self.url = f"http://{gateway.address}/mcp/sdk"
        self.storage = Storage()
        self.browser = Browser()

    def provider(self):
        return OAuthClientProvider(
            self.url,
            OAuthClientMetadata(redirect_uris=[REDIRECT], client_name="a test"),
            self.storage,
            self.browser.go,
            self.browser.come_back,
        )

    @asynccontextmanager
    async def connected(self, mode, provider=None):
        with trio.fail_after(LIMIT_S), allowances():
            async with httpx2.AsyncClient(
                auth=provider or self.provider(), timeout=httpx2.Timeout(LIMIT_S), trust_env=False
            ) as http:
                transport = streamable_http_client(self.url, http_client=http)
                async with Client(transport, mode=mode, cache=None) as client:
                    yield client

    async def lines(self, tool):
        """What the audit says of the calls of a tool: status and client."""
        found = [line for line in await self.gateway.audit() if line.get("tool") == tool]
        return [(line["status"], line.get("client")) for line in found]

    def asked(self):
        """What the authorization server was asked by others than the gateway."""
        return [
            (method, urlsplit(path).path)
            for method, path, headers, _ in self.authority.asked
            if headers.get(b"user-agent") != b"mcpx"
        ]


@pytest.fixture
async def setting(sdk_server, tmp_path):
    async with LoginServer(may=["mcp:read", "math"]).serving() as authority:
        authority.issuer = authority.url
        listen = f"127.0.0.1:{free_port()}"
        oauth = {"resource": f"http://{listen}", "issuer": authority.url, **SCOPES}
        config = {
            "listen": listen,
            "auth": {"enabled": True, "type": "oauth", "oauth": oauth},
            "servers": [{"name": "sdk", "url": sdk_server}],
        }
        async with inprocess.running(tmp_path, config) as gateway:
            yield Setting(gateway, authority)


@pytest.mark.parametrize("mode", [LEGACY, MODERN, PROBING])
async def test_the_client_finds_its_way_from_the_first_401_to_a_tool(setting, mode):
    async with setting.connected(mode) as client:
        assert "echo" in {tool.name for tool in (await client.list_tools()).tools}
        said = await client.call_tool("echo", {"text": "through"})
        assert said.structured_content == {"result": "through"}
        seen = (await client.call_tool("seen_headers", {"colour": "red"})).content[0].text
    assert "authorization" not in seen
    assert setting.asked() == [
        ("GET", "/.well-known/oauth-authorization-server"),
        ("POST", "/register"),
        ("GET", "/authorize"),
        ("POST", "/token"),
    ]
    # No more than the endpoint needs, and for this endpoint alone.
    assert setting.authority.logins == [("mcp:read", setting.url)]
    lines = await setting.gateway.audit()
    assert (lines[0]["status"], lines[0].get("client")) == (401, None)
    assert {(line["allowed"], line.get("client")) for line in lines[1:]} == {(True, "alice")}


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_it_steps_up_when_a_tool_needs_more(setting, mode):
    async with setting.connected(mode) as client:
        await client.call_tool("echo", {"text": "x"})
        added = await client.call_tool("add", {"a": 1, "b": 2})
        assert added.structured_content["total"] == 3
        await client.call_tool("add", {"a": 2, "b": 2})
        await client.call_tool("echo", {"text": "y"})
    scopes = [set(scope.split()) for scope, _ in setting.authority.logins]
    assert scopes == [{"mcp:read"}, {"mcp:read", "math"}]
    assert await setting.lines("add") == [(403, "alice"), (200, "alice"), (200, "alice")]
    # It registered once.
    assert setting.asked().count(("POST", "/register")) == 1


async def test_a_user_who_grants_no_more_gets_no_further(setting):
    setting.authority.may = {"mcp:read"}
    async with setting.connected(MODERN) as client:
        await client.call_tool("echo", {"text": "x"})
        with pytest.raises(MCPError, match="the token lacks a scope"):
            await client.call_tool("add", {"a": 1, "b": 2})
        await client.call_tool("echo", {"text": "still here"})
    assert await setting.lines("add") == [(403, "alice"), (403, "alice")]
    assert setting.browser.visits == 2


async def test_it_renews_its_token_without_its_user(setting):
    provider = setting.provider()
    async with setting.connected(MODERN, provider) as client:
        await client.call_tool("echo", {"text": "x"})
        first = setting.storage.tokens.access_token
        provider.context.token_expiry_time = 1.0
        await client.call_tool("echo", {"text": "y"})
        assert setting.storage.tokens.access_token != first
    assert setting.authority.grants == ["authorization_code", "refresh_token"]
    assert setting.browser.visits == 1
    assert await setting.lines("echo") == [(401, None), (200, "alice"), (200, "alice")]


async def test_a_client_that_comes_again_needs_no_login(setting):
    for _ in range(2):
        async with setting.connected(MODERN) as client:
            await client.call_tool("echo", {"text": "x"})
    assert setting.browser.visits == 1


async def test_a_client_that_was_registered_before_need_not_register(setting):
    setting.authority.registers = False
    client_id = setting.authority.register([REDIRECT])
    setting.storage.client = OAuthClientInformationFull(
        client_id=client_id, redirect_uris=[REDIRECT], token_endpoint_auth_method="none"
    )
    async with setting.connected(LEGACY) as client:
        await client.call_tool("echo", {"text": "x"})
    assert ("POST", "/register") not in setting.asked()
    assert setting.browser.visits == 1


async def test_tokens_for_another_place_let_nobody_in(setting):
    setting.authority.audience = setting.url.replace("/mcp/sdk", "/mcp/other")
    with pytest.raises(Exception):  # noqa: B017  however the client says it
        async with setting.connected(LEGACY):
            pass
    assert setting.browser.visits >= 1
    lines = await setting.gateway.audit(2)
    assert {line["status"] for line in lines} == {401}
    assert lines[-1]["reason"] == "invalid token (audience): it is for another resource"


async def test_keys_that_change_are_noticed_while_it_is_connected(setting):
    async with setting.connected(MODERN) as client:
        await client.call_tool("echo", {"text": "x"})
        setting.authority.rotate("k2")
        # The token of the old key is good until the gateway hears of the new one, and
        # then the client logs in anew.
        await client.call_tool("add", {"a": 1, "b": 2})
        await client.call_tool("echo", {"text": "y"})
    assert setting.browser.visits == 2
    assert (await setting.lines("add"))[-1] == (200, "alice")


async def test_a_gateway_that_is_reached_elsewhere_than_it_says_is_not_trusted(setting):
    setting.url = setting.url.replace("127.0.0.1", "localhost")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with setting.connected(LEGACY):
            pass
    assert caught.group_contains(OAuthFlowError, match="does not match expected")
    assert setting.browser.visits == 0
