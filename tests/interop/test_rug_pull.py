"""A server on the official SDK that changes its tools, and the official client behind a gateway."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from mcp.shared.exceptions import MCPError
from official_client import LEGACY, MODERN, connected
from support.gateway import running_gateway
from support.processes import free_port, running

HERE = Path(__file__).resolve().parent
KINDS = ["description", "schema", "annotations", "removed"]


@pytest.fixture(params=[LEGACY, MODERN])
def era(request):
    """The client's era."""
    return request.param


@pytest.fixture(scope="module")
def server():
    """The URL of ``rug_pull_server.py``."""
    port = free_port()
    command = [sys.executable, HERE / "rug_pull_server.py", "--port", str(port)]
    with running(command, name="the rug pull server", port=port):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture
async def puller(server):
    """The same, its tools as they were at first."""
    await pull(server, "back")
    return server


async def pull(puller, kind):
    """Change the tools behind everybody's back."""
    async with connected(puller, MODERN) as client:
        await client.call_tool("pull", {"kind": kind, "announce": False})


@contextmanager
def guarding(puller, data_dir, mode, **inspection):
    config = {
        "servers": [{"name": "sdk", "url": puller}],
        "data_dir": str(data_dir),
        "inspection": {"tool_integrity": mode, **inspection},
    }
    with running_gateway(config) as gateway:
        yield gateway


async def listed(client):
    return {tool.name for tool in (await client.list_tools()).tools}


async def said(client):
    result = await client.call_tool("weather", {"city": "Oslo"})
    return result.content[0].text


def findings(gateway):
    wanted = gateway.audit_until(lambda all_of: any(is_finding(each) for each in all_of))
    return [each for each in wanted if is_finding(each)]


def is_finding(record):
    return record["msg"] == "mcp.integrity"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_silent_rug_pull_is_refused(puller, tmp_path, era, kind):
    with guarding(puller, tmp_path, "enforce", max_age="0s") as gateway:
        async with connected(gateway.url("sdk"), era) as client:
            assert await listed(client) == {"weather", "pull"}
            assert await said(client) == "Oslo: rain"
            await pull(puller, kind)
            with pytest.raises(MCPError, match="weather") as refused:
                await said(client)
            assert refused.value.data["code"] == "tool_refused"
            assert await listed(client) == {"pull"}
            await pull(puller, "back")
            assert await said(client) == "Oslo: rain"
        (found,) = findings(gateway)
        assert found["tool"] == "weather"
        assert found["outcome"] == f"integrity_{'removed' if kind == 'removed' else 'changed'}"


async def test_in_warn_it_is_told_of_and_passes(puller, tmp_path, era):
    with guarding(puller, tmp_path, "warn", max_age="0s") as gateway:
        async with connected(gateway.url("sdk"), era) as client:
            assert await said(client) == "Oslo: rain"
            await pull(puller, "description")
            assert await said(client) == "Oslo: rain"
            assert await listed(client) == {"weather", "pull"}
        (found,) = findings(gateway)
        assert (found["tool"], found["allowed"]) == ("weather", True)


async def test_an_announced_rug_pull_is_refused_at_once(puller, tmp_path, era):
    # Within max_age, so that only what the server says can tell.
    with guarding(puller, tmp_path, "enforce", max_age="1h") as gateway:
        async with connected(gateway.url("sdk"), era) as client, trio.open_nursery() as nursery:
            if era == MODERN:
                await nursery.start(listening, client)
            assert await said(client) == "Oslo: rain"
            await client.call_tool("pull", {"kind": "schema", "announce": True})
            # The announcement has a stream of its own, and may come after the answer.
            with trio.fail_after(10):
                while not await is_refused(client):
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()


async def listening(client, *, task_status):
    async with client.listen(tools_list_changed=True) as subscription:
        task_status.started()
        async for _ in subscription:
            pass


async def is_refused(client):
    try:
        await said(client)
    except MCPError as error:
        assert error.data["code"] == "tool_refused"
        return True
    return False


async def test_a_rug_pull_while_the_gateway_was_down_is_refused(puller, tmp_path, era):
    with guarding(puller, tmp_path, "enforce") as gateway:
        async with connected(gateway.url("sdk"), era) as client:
            assert await said(client) == "Oslo: rain"
        assert gateway.stop() == 0
    await pull(puller, "annotations")
    with guarding(puller, tmp_path, "enforce") as gateway:
        async with connected(gateway.url("sdk"), era) as client:
            # It never lists: the gateway does.
            with pytest.raises(MCPError, match="rug-pull"):
                await said(client)
            assert await listed(client) == {"pull"}
