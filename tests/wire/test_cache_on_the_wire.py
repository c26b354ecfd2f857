"""A result is given again to whom it was made for, as long as it holds, and to nobody else."""

import json
import time

import pytest
import trio
from support.client import call, message
from support.inprocess import running

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
CLIENTS = {
    "enabled": True,
    "type": "bearer",
    "clients": [
        {"name": "alice", "token": "alice-token-0123456789"},
        {"name": "bob", "token": "bob-token-0123456789ab"},
    ],
}


def settings(server=None, **more):
    cache = {"tools": {"echo": {}}} if server is None else server
    return {"cache": {"enabled": True}, "servers": [{"name": "demo", "cache": cache}], **more}


def modern(name="echo", arguments=None, id=1):
    request = call(name, arguments, id)
    request["params"]["_meta"] = META
    return request


def result(seen, value, **more):
    body = {"content": [{"type": "text", "text": value}], **more}
    return {"jsonrpc": "2.0", "id": seen.message["id"], "result": body}


class Counting:
    """An upstream that numbers its answers."""

    def __init__(self, gateway, **more):
        self.calls = 0
        self.more = more
        gateway.upstream.answer = self

    async def __call__(self, seen, reply):
        if seen.message.get("method") != "tools/call":
            await reply.json({"jsonrpc": "2.0", "id": seen.message.get("id"), "result": {}})
            return
        self.calls += 1
        await reply.json(result(seen, str(self.calls), **self.more))


def text(response):
    return response.json["result"]["content"][0]["text"]


def bearer(who):
    tokens = {client["name"]: client["token"] for client in CLIENTS["clients"]}
    return [("Authorization", f"Bearer {tokens[who]}")]


async def test_the_same_call_is_answered_from_the_cache_with_its_own_id(tmp_path):
    async with running(tmp_path, settings()) as gateway:
        upstream = Counting(gateway)
        first = await gateway.post(call("echo", {"a": 1, "b": 2}, id=1))
        assert first.header("x-mcpx-cache") == "miss"
        assert first.header("age") is None
        again = b'{"id":"x\\u0041","method":"tools/call","params":{"arguments":{"b" : 2,"a":1},"name":"echo"},"jsonrpc":"2.0"}'
        second = await gateway.post(again)
        assert second.header("x-mcpx-cache") == "hit"
        assert second.header("age") == "0"
        assert second.header("content-type") == "application/json"
        assert b'"id": "x\\u0041"' in second.body
        assert (text(first), text(second), upstream.calls) == ("1", "1", 1)
        lines = await gateway.audit(2)
        assert [line["cache"] for line in lines] == ["miss", "hit"]
        assert [line["outcome"] for line in lines] == ["ok", "ok"]
        page = await gateway.metrics()
        lookups = 'mcpx_cache_lookups_total{result="%s",server="demo",tool="other"} 1.0'
        assert lookups % "hit" in page
        assert lookups % "miss" in page
        assert "mcpx_cache_entries 1.0" in page


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, ["a", 1]),
        ({"n": 9007199254740993}, {"n": 9007199254740992}),
        ({"n": 1}, {"n": "1"}),
        ({"n": 1}, {"n": True}),
        ({"s": "é"}, {"s": "e\u0301"}),
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({}, {"a": None}),
        ({"a": [1, [2]]}, {"a": [[1], 2]}),
    ],
)
async def test_calls_that_differ_are_two_calls(tmp_path, one, other):
    async with running(tmp_path, settings()) as gateway:
        upstream = Counting(gateway)
        for arguments in (one, other):
            request = call("echo")
            request["params"]["arguments"] = arguments
            await gateway.post(json.dumps(request).encode())
        # What is no object may be refused; it is not answered with the other's result.
        assert upstream.calls == (2 if isinstance(other, dict) else upstream.calls)
        assert upstream.calls >= 1


async def test_a_tool_that_is_not_named_and_other_methods_are_not_cached(tmp_path):
    async with running(tmp_path, settings()) as gateway:
        upstream = Counting(gateway)
        for _ in range(2):
            assert (await gateway.post(call("other"))).header("x-mcpx-cache") is None
            assert (await gateway.post(message("tools/list"))).header("x-mcpx-cache") is None
        assert upstream.calls == 2


async def test_nothing_is_cached_where_the_cache_is_off(tmp_path):
    config = settings()
    config["cache"]["enabled"] = False
    async with running(tmp_path, config) as gateway:
        upstream = Counting(gateway)
        for _ in range(2):
            assert (await gateway.post(call("echo"))).header("x-mcpx-cache") is None
        assert upstream.calls == 2


async def test_one_clients_result_is_not_anothers_unless_it_is_public(tmp_path):
    async with running(tmp_path, settings(auth=CLIENTS)) as gateway:
        upstream = Counting(gateway)
        for who in ("alice", "bob", "alice", "bob"):
            await gateway.post(modern(), headers=bearer(who))
        assert upstream.calls == 2
        upstream.more = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}
        for who in ("alice", "bob"):
            await gateway.post(modern(arguments={"p": 1}), headers=bearer(who))
        assert upstream.calls == 3
        upstream.more = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "private"}
        for who in ("alice", "bob", "alice"):
            await gateway.post(modern(arguments={"p": 2}), headers=bearer(who))
        assert upstream.calls == 5


async def test_the_configuration_may_vouch_for_a_tool(tmp_path):
    config = settings({"tools": {"echo": {"shared": True}}}, auth=CLIENTS)
    async with running(tmp_path, config) as gateway:
        upstream = Counting(gateway)
        for who in ("alice", "bob"):
            await gateway.post(call("echo"), headers=bearer(who))
        assert upstream.calls == 1
        upstream.more = {"cacheScope": "private"}
        for who in ("alice", "bob"):
            await gateway.post(call("echo", {"p": 1}), headers=bearer(who))
        assert upstream.calls == 3


async def test_a_session_keeps_its_results_for_itself(tmp_path):
    async def answer(seen, reply):
        headers = []
        if seen.message["method"] == "initialize":
            answer.sessions += 1
            headers = [("mcp-session-id", f"session-{answer.sessions}")]
        await reply.json(result(seen, seen.header("mcp-session-id") or ""), headers=headers)

    answer.sessions = 0
    async with running(tmp_path, settings()) as gateway:
        gateway.upstream.answer = answer
        ids = [
            (await gateway.post(message("initialize", {}))).header("mcp-session-id")
            for _ in range(2)
        ]
        seen = [
            text(await gateway.post(call("echo"), headers=[("Mcp-Session-Id", id)]))
            for id in (*ids, *ids)
        ]
        assert seen == ["session-1", "session-2"] * 2
        assert len(gateway.upstream.seen) == 4


async def test_the_policy_is_asked_before_the_cache(tmp_path):
    async with running(tmp_path, settings()) as gateway:
        Counting(gateway)
        await gateway.post(call("echo"))
        denied = settings()
        denied["servers"][0]["policy"] = {"deny_tools": ["echo"]}
        assert await gateway.reload(denied)
        assert (await gateway.post(call("echo"))).status == 403


@pytest.mark.parametrize(
    "more",
    [
        {"isError": True},
        {"resultType": "input_required", "inputRequests": {}},
        {"ttlMs": 0},
        {"task": {"taskId": "1"}},
        {"IsError": True},
    ],
)
async def test_what_must_not_be_given_again_is_not(tmp_path, more):
    async with running(tmp_path, settings()) as gateway:
        upstream = Counting(gateway, **more)
        for _ in range(2):
            assert (await gateway.post(call("echo"))).header("x-mcpx-cache") == "miss"
        assert upstream.calls == 2


@pytest.mark.parametrize("status", [200, 500])
async def test_errors_are_not_kept(tmp_path, status):
    async def answer(seen, reply):
        error = {"code": -32000, "message": "no"}
        await reply.json({"jsonrpc": "2.0", "id": seen.message["id"], "error": error}, status)

    async with running(tmp_path, settings()) as gateway:
        gateway.upstream.answer = answer
        for _ in range(2):
            assert (await gateway.post(call("echo"))).status == status
        assert len(gateway.upstream.seen) == 2


async def test_an_answer_to_another_request_is_not_kept(tmp_path):
    async def answer(seen, reply):
        await reply.json({"jsonrpc": "2.0", "id": 999, "result": {}})

    async with running(tmp_path, settings()) as gateway:
        gateway.upstream.answer = answer
        for _ in range(2):
            await gateway.post(call("echo"))
        assert len(gateway.upstream.seen) == 2


async def test_a_result_is_kept_from_an_event_stream_that_holds_nothing_else(tmp_path):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event(b"id: 1\ndata:\n\n", raw=True)
        if seen.message["params"]["arguments"].get("progress"):
            params = {"progressToken": 1, "progress": 1}
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
            await reply.event(note)
        await reply.event(result(seen, "streamed"))
        await reply.end()

    async with running(tmp_path, settings()) as gateway:
        gateway.upstream.answer = answer
        first = await gateway.post(call("echo"))
        assert first.header("content-type") == "text/event-stream"
        second = await gateway.post(call("echo", id=7))
        assert second.header("content-type") == "application/json"
        assert second.header("x-mcpx-cache") == "hit"
        assert (second.json["id"], text(second)) == (7, "streamed")
        for _ in range(2):
            assert (await gateway.post(call("echo", {"progress": 1}))).header(
                "x-mcpx-cache"
            ) == "miss"
        # Who takes no JSON goes by the cache.
        third = await gateway.post(call("echo"), headers=[("Accept", "text/event-stream")])
        assert third.header("x-mcpx-cache") is None


async def test_a_result_past_the_bound_passes_and_is_not_kept(tmp_path):
    config = settings()
    config["cache"]["max_body_bytes"] = 1000
    big = "x" * 200_000

    async def answer(seen, reply):
        await reply.json(result(seen, big))

    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        for _ in range(2):
            assert text(await gateway.post(call("echo"))) == big
        assert len(gateway.upstream.seen) == 2


async def test_a_result_that_comes_in_parts_is_kept_whole(tmp_path):
    big = "x" * 200_000

    async def answer(seen, reply):
        await reply.json(result(seen, big))

    async with running(tmp_path, settings()) as gateway:
        gateway.upstream.answer = answer
        assert text(await gateway.post(call("echo"))) == big
        second = await gateway.post(call("echo"))
        assert (text(second), second.header("x-mcpx-cache")) == (big, "hit")


async def test_a_result_ends_at_its_time(tmp_path):
    config = settings({"tools": {"echo": {"ttl": "1h"}}})
    async with running(tmp_path, config) as gateway:
        upstream = Counting(gateway, ttlMs=1)
        await gateway.post(call("echo"))
        entries = gateway.app.state.cache._entries
        kept = [entry.expires_s - entry.stored_s for entry in entries.values()]
        assert kept == [pytest.approx(0.001)]
        with trio.fail_after(5):
            while upstream.calls < 2:
                await gateway.post(call("echo"))


async def test_tools_that_say_that_they_only_read_are_cached_where_that_is_wanted(tmp_path):
    tools = [
        {"name": "look", "inputSchema": {}, "annotations": {"readOnlyHint": True}},
        {"name": "touch", "inputSchema": {}, "annotations": {"readOnlyHint": False}},
    ]

    async def answer(seen, reply):
        if seen.message["method"] == "tools/list":
            body = {"jsonrpc": "2.0", "id": seen.message["id"], "result": {"tools": tools}}
            await reply.json(body)
        else:
            answer.calls += 1
            await reply.json(result(seen, str(answer.calls)))

    answer.calls = 0
    async with running(tmp_path, settings({"read_only_tools": True})) as gateway:
        gateway.upstream.answer = answer
        await gateway.post(call("look"))
        assert answer.calls == 1
        await gateway.post(message("tools/list"))
        for tool in ("look", "look", "touch", "touch"):
            await gateway.post(call(tool))
        assert answer.calls == 4
        tools[0]["annotations"] = {}
        await gateway.post(message("tools/list"))
        await gateway.post(call("look"))
        assert answer.calls == 5


async def test_list_changed_empties_the_servers_part(tmp_path):
    note = b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications\\/tools\\/list_changed"}\n\n'

    async def answer(seen, reply):
        if seen.method == "GET":
            await reply.start_events()
            await reply.event(note, raw=True)
            await reply.end()
        else:
            answer.calls += 1
            await reply.json(result(seen, str(answer.calls)))

    answer.calls = 0
    async with running(tmp_path, settings()) as gateway:
        gateway.upstream.answer = answer
        await gateway.post(call("echo"))
        stream = await gateway.get("/mcp/demo", [("Accept", "text/event-stream")])
        assert note in stream.body
        assert text(await gateway.post(call("echo"))) == "2"


async def test_a_result_that_was_under_way_while_the_tools_changed_is_not_kept(tmp_path):
    gate = trio.Event()

    async def answer(seen, reply):
        if not gate.is_set():
            await gate.wait()
        await reply.json(result(seen, "old"))

    async with running(tmp_path, settings()) as gateway, trio.open_nursery() as nursery:
        gateway.upstream.answer = answer
        arrived = gateway.upstream.arrived
        nursery.start_soon(gateway.post, call("echo"))
        await arrived.wait()
        gateway.app.state.tools_changed("demo")
        gate.set()
        await gateway.audit(1)
        assert len(gateway.app.state.cache) == 0


async def test_reloads_keep_results_unless_they_may_be_wrong_by_now(tmp_path):
    async with running(tmp_path, settings()) as gateway:
        upstream = Counting(gateway)
        await gateway.post(call("echo"))
        assert await gateway.reload(settings())
        assert text(await gateway.post(call("echo"))) == "1"
        other = settings()
        other["servers"][0]["forward_headers"] = ["X-Tenant"]
        assert await gateway.reload(other)
        assert text(await gateway.post(call("echo"))) == "2"
        emptied = settings()
        emptied["servers"][0]["forward_headers"] = ["X-Tenant"]
        emptied["cache"]["purge_on_reload"] = True
        assert await gateway.reload(emptied)
        assert text(await gateway.post(call("echo"))) == "3"
        assert upstream.calls == 3


async def test_headers_that_go_up_tell_calls_apart(tmp_path):
    config = settings()
    config["servers"][0]["forward_headers"] = ["X-Tenant"]
    async with running(tmp_path, config) as gateway:
        upstream = Counting(gateway)
        for tenant in ("a", "b", "a"):
            await gateway.post(call("echo"), headers=[("X-Tenant", tenant)])
        assert upstream.calls == 2
        await gateway.post(call("echo"), headers=[("X-Tenant", "a"), ("User-Agent", "other")])
        await gateway.post(call("echo"), headers=[("X-Tenant", "a"), ("X-Not-Forwarded", "x")])
        assert upstream.calls == 2
        version = [("X-Tenant", "a"), ("MCP-Protocol-Version", "2025-06-18")]
        await gateway.post(call("echo"), headers=version)
        assert upstream.calls == 3


async def test_what_is_kept_is_given_while_the_server_is_left_alone(tmp_path):
    config = settings()
    config["circuit_breaker"] = {"enabled": True, "failure_threshold": 1, "cooldown": "1h"}

    async def broken(seen, reply):
        await reply.send(500, [], b"")

    async with running(tmp_path, config) as gateway:
        Counting(gateway)
        await gateway.post(call("echo"))
        gateway.upstream.answer = broken
        await gateway.post(call("other"))
        assert (await gateway.post(call("other"))).status == 503
        assert (await gateway.post(call("echo"))).header("x-mcpx-cache") == "hit"


async def test_five_hundred_like_calls_at_once_reach_the_server_once(tmp_path):
    config = settings(limits={"max_calls_per_client": 1000})
    gate = trio.Event()
    answers = []

    async def answer(seen, reply):
        await gate.wait()
        await reply.json(result(seen, "once"))

    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer

        async def ask(number):
            answers.append((number, await gateway.post(call("echo", {"q": 1}, id=number))))

        flight = gateway.app.state.flight
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(500):
                    nursery.start_soon(ask, number)
                while flight.statistics.waiting < 499:
                    await trio.sleep(0.01)
                gate.set()
        assert len(gateway.upstream.seen) == 1
        assert len(answers) == 500
        assert all(reply.json["id"] == number for number, reply in answers)
        assert {text(reply) for _, reply in answers} == {"once"}
        found = [reply.header("x-mcpx-cache") for _, reply in answers]
        assert (found.count("miss"), found.count("hit")) == (1, 499)


async def test_followers_of_an_error_go_a_few_at_a_time_and_all_are_answered(tmp_path):
    config = settings(limits={"max_calls_per_client": 1000})
    gate = trio.Event()
    together = 0
    most = 0

    async def answer(seen, reply):
        nonlocal together, most
        together += 1
        most = max(most, together)
        await gate.wait()
        await reply.json(result(seen, "bad", isError=True))
        together -= 1

    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        statuses = []

        async def ask(number):
            statuses.append((await gateway.post(call("echo", id=number))).status)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(ask, number)
                while gateway.app.state.flight.statistics.waiting < 199:
                    await trio.sleep(0.01)
                gate.set()
        assert statuses == [200] * 200
        assert len(gateway.upstream.seen) == 200
        assert most <= 65


async def test_a_leader_that_leaves_hands_its_place_on(tmp_path):
    gate = trio.Event()

    async def answer(seen, reply):
        if len(gateway.upstream.seen) == 1:
            await trio.sleep_forever()
        await gate.wait()
        await reply.json(result(seen, "second"))

    async with running(tmp_path, settings()) as gateway:
        gateway.upstream.answer = answer
        arrived = gateway.upstream.arrived
        leader = await gateway.connect()
        await leader.raw(leader.render("POST", "/mcp/demo", modern()))
        await arrived.wait()
        replies = []

        async def ask():
            replies.append(await gateway.post(modern(id=2)))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                while gateway.app.state.flight.statistics.waiting < 1:
                    await trio.sleep(0.01)
                await leader.aclose()
                gate.set()
        assert text(replies[0]) == "second"
        assert len(gateway.upstream.seen) == 2


async def test_a_follower_whose_client_leaves_waits_no_longer(tmp_path):
    async def answer(seen, reply):
        await trio.sleep_forever()

    async with running(tmp_path, settings()) as gateway:
        gateway.upstream.answer = answer
        arrived = gateway.upstream.arrived
        leader, follower = await gateway.connect(), await gateway.connect()
        await leader.raw(leader.render("POST", "/mcp/demo", modern()))
        await arrived.wait()
        await follower.raw(follower.render("POST", "/mcp/demo", modern(id=2)))
        flight = gateway.app.state.flight
        with trio.fail_after(30):
            while flight.statistics.waiting < 1:
                await trio.sleep(0.01)
            await follower.aclose()
            while flight.statistics.waiting:
                await trio.sleep(0.01)
        await leader.aclose()
        outcomes = {line["outcome"] for line in await gateway.audit(2)}
        assert outcomes == {"client_gone"}


async def test_followers_of_a_server_that_hangs_are_told_in_time(tmp_path):
    config = settings()
    config["servers"][0]["timeouts"] = {"total": "500ms"}

    async def answer(seen, reply):
        await trio.sleep_forever()

    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        replies = []

        async def ask(number):
            replies.append(await gateway.post(call("echo", id=number)))

        started = time.monotonic()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(ask, number)
        assert {reply.status for reply in replies} == {504}
        assert sorted(reply.json["id"] for reply in replies) == list(range(5))
        assert time.monotonic() - started < 10
