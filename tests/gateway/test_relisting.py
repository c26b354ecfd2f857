"""A list asked for before a call: once for all, in the caller's words, within its bounds."""

import json

import pytest
import trio
from support.client import call
from support.inprocess import running
from support.scripted_tools import Server, answer, config, refusing, tool

from mcpx.core.integrity import LISTING_NEEDED, Mode
from mcpx.errors import Overloaded, ToolRefused, UpstreamError
from mcpx.gateway import relisting
from mcpx.gateway.front_door import find_route, read_message
from mcpx.gateway.relisting import check_tool


@pytest.fixture
async def gateway(tmp_path):
    async with running(tmp_path, config(tmp_path)) as started:
        started.server = Server(tool(), tool("two", description="Another."))
        started.upstream.answer = started.server.answer
        yield started


def calling(gateway, exchange, name="echo", meta=None, **more):
    """An exchange that has come as far as ``check_tool``."""
    sent = call(name)
    if meta is not None:
        sent["params"]["_meta"] = meta
    ex = exchange(sent, **more)
    ex.snapshot, ex.pools = gateway.app.state.snapshot, gateway.app.state.pools
    read_message(ex)
    find_route(ex)
    return ex


async def test_a_tool_is_listed_and_may_be_called(gateway, exchange):
    state = gateway.app.state
    await check_tool(calling(gateway, exchange), state)
    await check_tool(calling(gateway, exchange, "two"), state)
    assert gateway.server.lists == 1
    assert state.relisting.statistics.keys == 0


async def test_what_calls_no_tool_lists_nothing(gateway, exchange):
    ex = calling(gateway, exchange)
    ex.method = "tools/list"
    await check_tool(ex, gateway.app.state)
    assert gateway.server.lists == 0


async def test_a_refusal_names_tool_server_and_setting(gateway, exchange):
    state = gateway.app.state
    await check_tool(calling(gateway, exchange), state)
    gateway.server.tools[0] = tool(description="x")
    state.tools_changed("demo")
    ex = calling(gateway, exchange)
    with pytest.raises(ToolRefused, match='"echo" is refused on server "demo": tool schema'):
        await check_tool(ex, state)
    assert ex.rule == "inspection.tool_integrity"
    with pytest.raises(ToolRefused, match="not listed"):
        await check_tool(calling(gateway, exchange, "ghost"), state)


async def test_what_is_seen_of_a_list_that_ends_badly_counts(gateway, exchange):
    state = gateway.app.state
    first = [tool("first", description="First.")]

    async def broken(seen, reply):
        if "cursor" in seen.message["params"]:
            await reply.send(200, [])
        else:
            await reply.json(answer(seen, {"tools": first, "nextCursor": "c"}))

    gateway.server.listing = broken
    await check_tool(calling(gateway, exchange, "first"), state)
    with pytest.raises(UpstreamError):
        await check_tool(calling(gateway, exchange, "second"), state)
    # Not asked again at once.
    with pytest.raises(UpstreamError, match="so the call was not made"):
        await check_tool(calling(gateway, exchange, "second"), state)
    assert gateway.server.lists == 2


@pytest.mark.parametrize(
    ("status", "told"), [(400, 400), (404, 404), (401, 502), (403, 502), (429, 502), (500, 502)]
)
async def test_a_refused_list_is_told_to_its_caller_alone(gateway, exchange, status, told):
    gateway.server.listing = refusing(status)
    for number in range(1, 3):
        with pytest.raises(UpstreamError) as caught:
            await check_tool(calling(gateway, exchange), gateway.app.state)
        assert caught.value.status == told
        assert gateway.server.lists == number


async def test_a_list_in_time_or_none(gateway, exchange, monkeypatch):
    monkeypatch.setattr(relisting, "LISTING_S", 0.2)

    async def dribbles(seen, reply):
        await reply.start_events()
        for _ in range(1000):
            await reply.event(b": still here\n\n", raw=True)
            await trio.sleep(0.02)

    gateway.server.listing = dribbles
    with trio.fail_after(3), pytest.raises(UpstreamError, match="could not be listed"):
        await check_tool(calling(gateway, exchange), gateway.app.state)
    integrity = gateway.app.state.watcher.servers["demo"].integrity
    assert integrity.decide_call("echo", gateway.app.state.watcher.clock()) != LISTING_NEEDED


async def test_no_free_connection_is_no_fault_of_the_servers(gateway, exchange, monkeypatch):
    monkeypatch.setattr(relisting, "LISTING_S", 0.2)
    pool = gateway.app.state.pools["demo"]
    taken, pool._in_use = pool._in_use, pool._limit
    with trio.fail_after(3), pytest.raises(Overloaded):
        await check_tool(calling(gateway, exchange), gateway.app.state)
    # With one free again, nothing is held against the server.
    pool._in_use = taken
    await check_tool(calling(gateway, exchange), gateway.app.state)


async def test_who_waits_too_long_is_told_that_nothing_was_done(gateway, monkeypatch):
    monkeypatch.setattr(relisting, "LISTING_S", 0.2)

    async def hangs(seen, reply):
        await trio.sleep_forever()

    gateway.server.listing = hangs
    # A leader that never ends, so that the one who follows runs out of time.
    state = gateway.app.state
    integrity = state.watcher.servers["demo"].integrity
    async with state.relisting.join(("demo", integrity.generation)):
        with trio.fail_after(5):
            response = await gateway.post(call("echo"))
    assert response.status == 504
    assert "the call was not made" in response.error["message"]
    assert gateway.server.calls == 0


async def test_a_modern_caller_is_named_as_it_named_itself(gateway, exchange):
    own = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": 'quo"te', "version": "1", "n": 1e400},
    }
    text = json.dumps(own).replace("Infinity", "1e400").replace("quo", "\\u0071uo")
    sent = json.dumps(call("echo")).replace(
        '"arguments"', '"_meta": ' + text[:-1] + ', "secret": 1}, "arguments"'
    )
    ex = exchange(sent.encode(), headers=[(b"mcp-protocol-version", b"2026-07-28")])
    ex.snapshot, ex.pools = gateway.app.state.snapshot, gateway.app.state.pools
    read_message(ex)
    find_route(ex)
    await check_tool(ex, gateway.app.state)
    (seen,) = gateway.upstream.seen
    assert b"1e400" in seen.body
    assert b"secret" not in seen.body
    assert seen.message["params"]["_meta"].keys() == own.keys()
    assert seen.header("mcp-method") == "tools/list"


async def test_modes_that_change_while_it_is_listed_are_heeded(gateway, exchange, tmp_path):
    async def reloads(seen, reply):
        assert await gateway.reload(config(tmp_path, "off"))
        await gateway.server.list(seen, reply)

    gateway.server.listing = reloads
    await check_tool(calling(gateway, exchange), gateway.app.state)
    assert gateway.app.state.watcher.servers["demo"].integrity is None
    assert gateway.server.lists == 1


async def test_in_warn_nothing_is_refused_for_want_of_a_list(gateway, exchange, tmp_path):
    assert await gateway.reload(config(tmp_path, "warn"))
    assert gateway.app.state.watcher.servers["demo"].integrity.mode is Mode.WARN
    gateway.server.listing = refusing(404)
    for _ in range(3):
        await check_tool(calling(gateway, exchange), gateway.app.state)


async def test_a_list_is_asked_for_with_an_id_of_its_own_each_time(gateway, exchange):
    for _ in range(3):
        gateway.app.state.tools_changed("demo")
        await check_tool(calling(gateway, exchange), gateway.app.state)
    ids = {seen.message["id"] for seen in gateway.upstream.seen}
    assert len(ids) == 3
    assert all(each.startswith("mcpx-") for each in ids)


@pytest.mark.parametrize("unit", [b":\n\n", b"data: {}\n\n"])
@pytest.mark.parametrize("count", [900, 1100])
async def test_the_answer_is_looked_for_among_so_many_events(gateway, exchange, unit, count):
    async def chatters(seen, reply):
        await reply.start_events()
        await reply.event(unit * count, raw=True)
        await reply.event(answer(seen, {"tools": gateway.server.tools}))
        await reply.end()

    gateway.server.listing = chatters
    ex = calling(gateway, exchange)
    if count < relisting.MAX_EVENTS:
        await check_tool(ex, gateway.app.state)
    else:
        with pytest.raises(UpstreamError, match="could not be listed"):
            await check_tool(ex, gateway.app.state)


@pytest.mark.parametrize("mode", ["warn", "enforce"])
async def test_a_server_that_a_reload_removed_is_judged_as_it_was(
    gateway, exchange, tmp_path, mode
):
    assert await gateway.reload(config(tmp_path, mode))
    ex = calling(gateway, exchange)
    del gateway.app.state.watcher.servers["demo"]
    if mode == "warn":
        await check_tool(ex, gateway.app.state)
    else:
        with pytest.raises(UpstreamError, match="was not made"):
            await check_tool(ex, gateway.app.state)
    assert gateway.server.lists == 0


async def test_a_server_that_is_removed_while_it_is_listed_is_not_called(
    gateway, exchange, tmp_path
):
    async def goes(seen, reply):
        elsewhere = [{"name": "other", "url": "http://127.0.0.1:9/mcp"}]
        assert await gateway.reload(config(tmp_path, servers=elsewhere))
        await gateway.server.list(seen, reply)

    gateway.server.listing = goes
    with pytest.raises(UpstreamError, match="was not made"):
        await check_tool(calling(gateway, exchange), gateway.app.state)
    assert gateway.server.lists == 1
    assert not gateway.app.state.watcher.store._waiting


@pytest.mark.parametrize("count", [3, 12])
async def test_the_answer_is_looked_for_among_so_many_bytes(gateway, exchange, tmp_path, count):
    limits = {"max_listing_bytes": 200_000}
    assert await gateway.reload(config(tmp_path, limits=limits))

    async def chatters(seen, reply):
        await reply.start_events()
        for _ in range(count):
            await reply.event(b"data: " + b"x" * 60_000 + b"\n\n", raw=True)
        await reply.event(answer(seen, {"tools": gateway.server.tools}))
        await reply.end()

    gateway.server.listing = chatters
    ex = calling(gateway, exchange)
    if count == 3:
        await check_tool(ex, gateway.app.state)
    else:
        with pytest.raises(UpstreamError, match="could not be listed"):
            await check_tool(ex, gateway.app.state)
