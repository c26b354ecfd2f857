"""A server is asked one harmless question, and its answer says whether it speaks MCP."""

import pytest
import trio
from support.inprocess import running

from mcpx.errors import GatewayError
from mcpx.gateway.probe import probe


async def probed(gateway):
    state = gateway.app.state
    return await probe(state, state.snapshot.routes["demo"])


@pytest.mark.parametrize(
    ("answer", "sound"),
    [
        ({"jsonrpc": "2.0", "id": "health", "result": {}}, True),
        ({"jsonrpc": "2.0", "id": "health", "error": {"code": -32601, "message": "x"}}, True),
        ({"hello": "world"}, False),
        (b"<html>", False),
    ],
)
async def test_whether_mcp_is_spoken_is_told(tmp_path, answer, sound):
    async def said(seen, reply):
        await reply.json(answer)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = said
        found = await probed(gateway)
        assert (not found.error) is sound
        assert found.latency_s >= 0
        (seen,) = gateway.upstream.seen
        assert seen.message["method"] == "server/discover"
        assert seen.header("mcp-method") == "server/discover"
        assert seen.header("authorization") is None


async def test_a_stream_that_stays_open_is_not_waited_for(tmp_path):
    async def stream(seen, reply):
        await reply.start_events()
        await reply.event({"jsonrpc": "2.0", "id": "health", "result": {}})
        await trio.sleep_forever()

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = stream
        with trio.fail_after(5):
            assert not (await probed(gateway)).error
        assert gateway.app.state.pools["demo"].in_use == 0


async def test_an_endless_answer_is_read_to_a_bound(tmp_path):
    async def endless(seen, reply):
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while True:
            await reply.raw(b"x" * 10_000)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = endless
        with trio.fail_after(5):
            assert (await probed(gateway)).error


async def test_a_server_that_is_not_there_is_an_error(tmp_path):
    config = {"servers": [{"name": "demo", "url": "http://127.0.0.1:9/mcp"}]}
    async with running(tmp_path, config) as gateway:
        with pytest.raises(GatewayError):
            await probed(gateway)
