"""The official clients behind a gateway that authenticates, decides and records.

They get the gateway's refusals as what they are: errors with a code and a reason
that names the tool, in both eras.
"""

from __future__ import annotations

import subprocess

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST
from node_programs import program
from official_client import LEGACY, MODERN, connected
from support.gateway import running_gateway
from support.processes import clean_environment

TOKENS = {"ann": "token-of-ann-0123456789", "bob": "token-of-bob-0123456789"}


@pytest.fixture(scope="module")
def strict(sdk_server):
    """A gateway that knows two clients, keeps some things from both and more from ann."""
    config = {
        "servers": [
            {
                "name": "sdk",
                "url": sdk_server,
                "policy": {
                    "deny_tools": ["reject", "outcome_*"],
                    "deny_resources": ["image://*"],
                    "tool_rules": {"add": {"args": {"a": {"one_of": [1, 2]}}}},
                },
            }
        ],
        "auth": {
            "enabled": True,
            "type": "bearer",
            "clients": [
                {"name": "ann", "token": "${TOKEN_OF_ANN}"},
                {"name": "bob", "token": "${TOKEN_OF_BOB}"},
            ],
        },
        "clients": {"ann": {"servers": {"sdk": {"allow_tools": ["echo", "add", "outcome_of"]}}}},
    }
    environ = {f"TOKEN_OF_{name.upper()}": token for name, token in TOKENS.items()}
    with running_gateway(config, env=environ) as gateway:
        yield gateway


@pytest.fixture(params=[LEGACY, MODERN])
def mode(request):
    """The client's era."""
    return request.param


def as_client(name):
    return {"authorization": f"Bearer {TOKENS[name]}"}


async def test_a_client_sees_the_tools_and_resources_that_it_may_use(strict, mode):
    async with connected(strict.url("sdk"), mode, headers=as_client("ann")) as ann:
        assert {tool.name for tool in (await ann.list_tools()).tools} == {"echo", "add"}
        assert [found.name for found in (await ann.list_resources()).resources] == ["static"]
    async with connected(strict.url("sdk"), mode, headers=as_client("bob")) as bob:
        names = {tool.name for tool in (await bob.list_tools()).tools}
    assert {"echo", "add", "fail", "big"} <= names
    assert not names & {"reject", "outcome_of"}


async def test_a_refused_call_is_an_error_that_names_the_tool(strict, mode):
    async with connected(strict.url("sdk"), mode, headers=as_client("bob")) as bob:
        with pytest.raises(MCPError, match="outcome_of") as denied:
            await bob.call_tool("outcome_of", {"run": "denied"})
        with pytest.raises(MCPError, match='"a"') as ruled:
            await bob.call_tool("add", {"a": 3, "b": 1})
        with pytest.raises(MCPError, match="image://pixel"):
            await bob.read_resource("image://pixel")
        allowed = await bob.call_tool("add", {"a": 2, "b": 1})
    assert denied.value.code == ruled.value.code == INVALID_REQUEST
    assert allowed.structured_content == {"total": 3, "terms": [2, 1]}


async def test_what_one_client_may_another_may_not(strict, mode):
    async with connected(strict.url("sdk"), mode, headers=as_client("ann")) as ann:
        with pytest.raises(MCPError, match="fail"):
            await ann.call_tool("fail", {"reason": "none"})
    async with connected(strict.url("sdk"), mode, headers=as_client("bob")) as bob:
        assert (await bob.call_tool("fail", {"reason": "none"})).is_error


async def test_a_client_without_a_known_token_gets_nothing(strict, mode):
    for headers in ({}, {"authorization": "Bearer token-of-nobody-0123456789"}):
        with pytest.raises(BaseException) as refusal:
            async with connected(strict.url("sdk"), mode, headers=headers) as client:
                await client.list_tools()
        assert mcp_errors_in(refusal.value)


async def test_every_decision_is_recorded_with_the_client_and_the_tool(strict, mode):
    known = len(strict.audit())
    async with connected(strict.url("sdk"), mode, headers=as_client("ann")) as ann:
        await ann.call_tool("echo", {"text": "recorded"})
        with pytest.raises(MCPError):
            await ann.call_tool("release", {"run": "recorded"})
    wanted = {("echo", True), ("release", False)}

    def calls(records):
        return {
            (record["tool"], record["allowed"]): record
            for record in records[known:]
            if record["method"] == "tools/call"
        }

    found = calls(strict.audit_until(lambda records: wanted <= set(calls(records))))
    for record in (found[key] for key in wanted):
        assert (record["server"], record["client"]) == ("sdk", "ann")
    assert found["echo", True]["status"] == 200
    assert found["release", False]["status"] == 403
    assert "release" in found["release", False]["reason"]
    assert not any(token in line for token in TOKENS.values() for line in map(str, strict.audit()))


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_shows_what_its_token_allows_and_nothing_without_one(strict, era, tmp_path):
    def inspect(*arguments):
        command = [*program("@modelcontextprotocol/inspector", "mcp-inspector"), "--cli"]
        return subprocess.run(
            [*command, strict.url("sdk"), "--transport", "http", "--protocol-era", era]
            + ["--format", "json", "--stored-auth-only", "--method", "tools/list", *arguments],
            env=clean_environment({"HOME": str(tmp_path)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    seen = inspect("--header", f"Authorization: Bearer {TOKENS['ann']}")
    assert seen.returncode == 0, seen.stderr
    assert '"echo"' in seen.stdout
    assert '"big"' not in seen.stdout
    refused = inspect()
    assert refused.returncode != 0
    assert not refused.stdout


def mcp_errors_in(error):
    """The protocol's errors within an exception, which the client may have grouped."""
    if isinstance(error, BaseExceptionGroup):
        return [found for inner in error.exceptions for found in mcp_errors_in(inner)]
    return [error] if isinstance(error, MCPError) else []
