"""Limits, the audit, the metrics and the pages for operators."""

import json

import pytest
import trio
from support.client import call, message
from support.inprocess import running
from support.recorder import plain_mcp

AUTH = {
    "enabled": True,
    "type": "bearer",
    "clients": [{"name": "a", "token": "a" * 20}, {"name": "b", "token": "b" * 20}],
}
A, B = [[("Authorization", "Bearer " + letter * 20)] for letter in "ab"]


async def test_one_noisy_client_starves_nobody(tmp_path):
    config = {
        "auth": AUTH,
        "rate_limit": {
            "enabled": True, "rps": 1000, "burst": 1000, "client_rps": 0.01, "client_burst": 3,
        },
    }  # fmt: skip
    async with running(tmp_path, config) as gateway:
        answers = [(await gateway.post(call("echo"), headers=A)) for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 3 + [429] * 3
        assert (await gateway.post(call("echo"), headers=B)).status == 200
        limited = answers[-1]
        assert 90 <= int(limited.header("retry-after")) <= 100
        assert limited.json["id"] == 1
        assert limited.error["data"]["code"] == "rate_limited"


async def test_each_tool_of_each_server_has_its_own_limit(tmp_path):
    config = {
        "servers": [{"name": "demo"}, {"name": "other"}],
        "rate_limit": {
            "enabled": True, "rps": 1000, "burst": 1000,
            "per_tool": True, "tool_rps": 0.01, "tool_burst": 1,
        },
    }  # fmt: skip
    async with running(tmp_path, config) as gateway:
        assert (await gateway.post(call("echo"))).status == 200
        limited = await gateway.post(call("echo"))
        assert limited.status == 429
        assert limited.error["message"] == "rate limit exceeded for tool: echo"
        assert limited.error["code"] == -32000
        assert (await gateway.post(call("read_file"))).status == 200
        assert (await gateway.post(call("echo"), "/mcp/other")).status == 200
        # A reload gives nobody a fresh burst.
        config["servers"][0]["policy"] = {"deny_tools": ["x"]}
        assert await gateway.reload(config)
        assert (await gateway.post(call("echo"))).status == 429


async def test_notifications_pages_and_nonsense_are_limited_too(tmp_path):
    config = {"rate_limit": {"enabled": True, "rps": 0.01, "burst": 2}}
    async with running(tmp_path, config) as gateway:
        note = message("notifications/initialized", id=None)
        assert (await gateway.post(note)).status == 202
        assert (await gateway.post(b"nonsense")).status == 400
        assert (await gateway.post(note)).status == 429
        assert (await gateway.post(b"nonsense")).status == 429
        # The pages have buckets of their own: the traffic of clients can't hide them.
        assert (await gateway.get("/servers")).status == 200
        assert (await gateway.get("/health")).status == 200
        assert (await gateway.get("/servers")).status == 429
        assert (await gateway.get("/health")).status == 429
        assert (await gateway.get("/metrics")).status == 429


async def test_whether_the_gateway_lives_can_always_be_asked(tmp_path):
    config = {"auth": AUTH, "rate_limit": {"enabled": True, "rps": 0.01, "burst": 1}}
    async with running(tmp_path, config) as gateway:
        for _ in range(5):
            assert (await gateway.get("/health/live")).status == 200


async def test_who_keeps_guessing_credentials_is_limited_by_address(tmp_path):
    config = {"auth": AUTH, "rate_limit": {"enabled": True, "rps": 0.01, "burst": 3}}
    async with running(tmp_path, config) as gateway:
        guesses = [[("Authorization", f"Bearer guess-{number}")] for number in range(6)]
        statuses = [(await gateway.post(call("echo"), headers=guess)).status for guess in guesses]
        assert statuses == [401] * 3 + [429] * 3
        # And costs those who have one nothing.
        assert (await gateway.post(call("echo"), headers=A)).status == 200


async def test_every_decision_has_its_line_whatever_the_outcome(tmp_path):
    config = {
        "auth": AUTH,
        "servers": [
            {"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}},
            {"name": "down", "url": "http://127.0.0.1:9/mcp"},
            {"name": "local", "transport": "stdio", "command": "true"},
        ],
    }
    async with running(tmp_path, config) as gateway:
        await gateway.post(call("echo"))
        await gateway.post(call("echo"), headers=A)
        await gateway.post(call("dangerous_delete"), headers=A)
        await gateway.post(call("echo"), "/mcp/none", A)
        await gateway.post(call("echo"), "/mcp/down", A)
        await gateway.post(call("echo"), "/mcp/local", A)
        await gateway.post(b"[]", headers=A)
        await gateway.request("PUT", "/mcp/demo", None, A)
        await gateway.post(call("echo"), headers=[*A, ("Mcp-Session-Id", "forged.x")])
        lines = await gateway.audit(9)
        assert [(line["status"], line["decision"]) for line in lines] == [
            (401, "deny"),
            (200, "allow"),
            (403, "deny"),
            (404, "deny"),
            (502, "allow"),
            (503, "allow"),
            (400, "deny"),
            (405, "deny"),
            (404, "deny"),
        ]
        served = lines[1]
        assert served["client"] == "a"
        assert served["client_ip"] == "127.0.0.1"
        assert served["server"] == "demo"
        assert served["method"] == "tools/call"
        assert served["tool"] == "echo"
        assert served["outcome"] == "ok"
        assert served["msg"] == "mcp.request"
        assert served["duration_ms"] > 0
        assert len(served["request_id"]) == 16
        assert "dangerous_delete" in lines[2]["reason"]
        assert "connect" in lines[4]["reason"]


async def test_arguments_are_recorded_only_when_asked_for_and_redacted(tmp_path):
    arguments = {"path": "/data/x", "password": "hunter2", "note": "mail bob@example.com"}
    async with running(tmp_path) as gateway:
        await gateway.post(call("echo", arguments))
        assert "arguments" not in (await gateway.audit(1))[0]
    audit = {
        "enabled": True,
        "output": "file",
        "path": str(tmp_path / "audit.jsonl"),
        "arguments": True,
        "redact": {"patterns": [r"[a-z]+@example\.com"], "tools": ["secret_*"]},
    }
    (tmp_path / "audit.jsonl").unlink()
    async with running(tmp_path, {"audit": audit}) as gateway:
        await gateway.post(call("echo", arguments))
        await gateway.post(call("secret_tool", {"x": "visible?"}))
        first, second = await gateway.audit(2)
        assert first["arguments"] == {"path": "/data/x", "password": "***", "note": "mail ***"}
        assert "visible?" not in json.dumps(second)


async def test_the_audit_file_belongs_to_its_owner_alone(tmp_path):
    async with running(tmp_path) as gateway:
        await gateway.post(call("echo"))
        await gateway.audit()
        assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


async def test_names_that_clients_invent_make_no_metrics(tmp_path):
    config = {"servers": [{"name": "demo", "policy": {"allow_tools": ["echo"]}}]}
    async with running(tmp_path, config) as gateway:
        before = await gateway.metrics()
        for number in range(30):
            await gateway.post(call(f"made_up_{number}"))
            await gateway.post(call("echo"), f"/mcp/made_up_{number}")
            await gateway.post(message(f"made/up{number}"))
            await gateway.post(call("echo"), headers=[("X-MCP-Method", f"made_up_{number}")])
        with trio.fail_after(5):
            while (after := await gateway.metrics()) == before or "echo" not in after:
                await trio.sleep(0.1)
        assert "made_up" not in after
        assert len(after.splitlines()) < len(before.splitlines()) + 80
        assert 'tool="echo"' in after
        assert 'tool="other"' in after
        assert 'server="other"' in after


async def test_what_a_server_refuses_is_not_counted_as_the_gateways_refusal(tmp_path):
    async def answer(seen, reply):
        status = {"1": 401, "2": 429}[seen.message["id"]]
        await reply.json({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}, status)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        await gateway.post(message("ping", id="1"))
        await gateway.post(message("ping", id="2"))
        text = await gateway.metrics()
        assert "mcpx_auth_failures_total 0.0" in text
        assert "mcpx_rate_limit_hits_total 0.0" in text


async def test_errors_inside_a_200_are_visible(tmp_path):
    async def answer(seen, reply):
        if seen.message["id"] == 1:
            error = {"code": -32602, "message": "no such tool"}
            await reply.json({"jsonrpc": "2.0", "id": 1, "error": error})
        else:
            found = {"content": [], "isError": True}
            await reply.json({"jsonrpc": "2.0", "id": 2, "result": found})

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        await gateway.post(call("echo", id=1))
        await gateway.post(call("echo", id=2))
        assert [line["outcome"] for line in await gateway.audit(2)] == ["rpc_error", "tool_error"]
        text = await gateway.metrics()
        assert 'result="rpc_error"' in text
        assert 'result="tool_error"' in text


async def test_pages_need_a_credential_where_clients_do(tmp_path):
    async with running(tmp_path, {"auth": AUTH}) as gateway:
        for path in ("/servers", "/metrics"):
            assert (await gateway.get(path)).status == 401
            assert (await gateway.get(path, A)).status == 200
        anonymous = await gateway.get("/health")
        assert set(anonymous.json) == {"status"}
        assert set((await gateway.get("/health", A)).json) >= {"status", "servers", "version"}
        assert (await gateway.get("/health/live")).json == {"status": "alive"}


async def test_pages_can_be_made_public_and_health_still_tells_strangers_one_word(tmp_path):
    config = {"auth": {**AUTH, "public": ["health", "metrics", "servers"]}}
    async with running(tmp_path, config) as gateway:
        assert set((await gateway.get("/health")).json) == {"status"}
        assert (await gateway.get("/metrics")).status == 200
        assert (await gateway.get("/servers")).status == 200


async def test_servers_are_listed_as_json_without_what_a_url_may_hide(tmp_path):
    config = {
        "servers": [
            {"name": "demo", "url": "http://127.0.0.1:9/mcp?key=hidden&quote=%22"},
            {"name": "local", "transport": "stdio", "command": 'say "hi"'},
        ]
    }
    async with running(tmp_path, config) as gateway:
        listed = (await gateway.get("/servers")).json["servers"]
        assert [server["name"] for server in listed] == ["demo", "local"]
        assert "hidden" not in json.dumps(listed)
        assert listed[1]["url"] == 'stdio:say "hi"'


async def test_health_asks_servers_in_mcp_and_remembers_the_answer(tmp_path):
    config = {"servers": [{"name": "demo"}, {"name": "down", "url": "http://127.0.0.1:9/mcp"}]}
    async with running(tmp_path, config) as gateway:
        responses = []
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(lambda: ask(gateway, responses))
        assert {response.status for response in responses} == {200}
        report = responses[0].json
        assert report["status"] == "degraded"
        demo, down = report["servers"]
        assert demo["healthy"] is True
        assert down["healthy"] is False
        assert len(gateway.upstream.seen) == 1
        assert gateway.upstream.seen[0].message["method"] == "server/discover"


async def ask(gateway, responses):
    responses.append(await gateway.get("/health"))


@pytest.mark.parametrize("status", [200, 401, 403, 404, 405, 500])
async def test_a_page_that_is_no_mcp_server_is_not_healthy(tmp_path, status):
    async def answer(seen, reply):
        await reply.send(status, [("content-type", "text/html")], b"<html>hello</html>")

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.get("/health")
        assert response.status == 503
        assert response.json["servers"][0]["healthy"] is False


async def test_a_legacy_servers_refusal_of_a_modern_probe_is_healthy(tmp_path):
    async def answer(seen, reply):
        error = {"code": -32000, "message": "Bad Request: Server not initialized"}
        await reply.json({"jsonrpc": "2.0", "error": error, "id": None}, 400)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        assert (await gateway.get("/health")).json["status"] == "healthy"
        gateway.upstream.answer = plain_mcp


async def test_what_an_answer_says_does_not_depend_on_how_it_arrives(tmp_path):
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "result": {"content": ["x" * 5000], "isError": True}}
    ).encode()

    async def answer(seen, reply):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        await reply.raw(head % len(body) + body[:100])
        await trio.sleep(0.05)
        await reply.raw(body[100:])
        await reply.hang_up()

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        assert (await gateway.post(call("echo"))).body == body
        assert (await gateway.audit(1))[0]["outcome"] == "tool_error"


async def test_only_operators_read_the_pages_where_they_are_named(tmp_path):
    async with running(tmp_path, {"auth": {**AUTH, "operators": ["b"]}}) as gateway:
        for path in ("/servers", "/metrics"):
            assert (await gateway.get(path, A)).status == 403
            assert (await gateway.get(path, B)).status == 200
        assert set((await gateway.get("/health", A)).json) == {"status"}
        assert "servers" in (await gateway.get("/health", B)).json


async def test_one_clients_slow_calls_leave_room_for_others(tmp_path):
    async def answer(seen, reply):
        if seen.message["params"]["name"] == "slow":
            await trio.sleep_forever()
        await plain_mcp(seen, reply)

    config = {
        "auth": AUTH,
        "servers": [{"name": "demo", "max_connections": 4}],
        "limits": {"max_calls_per_client": 3},
    }
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        # A legacy client that leaves does not end its call.
        for _ in range(3):
            client = await gateway.connect()
            arrived = gateway.upstream.arrived
            await client.raw(client.render("POST", "/mcp/demo", call("slow"), A))
            await arrived.wait()
            await client.aclose()
        refused = await gateway.post(call("echo"), headers=A)
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert (await gateway.post(call("echo"), headers=B)).status == 200


async def test_one_clients_streams_are_bounded(tmp_path):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event(b": open\n\n", raw=True)
        await trio.sleep_forever()

    config = {"limits": {"max_streams_per_client": 2}}
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        clients = [await gateway.connect() for _ in range(2)]
        for client in clients:
            await client.raw(client.render("GET", "/mcp/demo"))
            assert (await client.head("GET")).status == 200
        assert (await gateway.get("/mcp/demo")).status == 503
        for client in clients:
            await client.aclose()
        with trio.fail_after(5):
            while gateway.app.state.shares.streams:
                await trio.sleep(0.01)
        assert not gateway.app.state.shares.calls


async def test_bodies_on_their_way_are_bounded_together(tmp_path):
    config = {"limits": {"max_bodies_bytes": 100_000}}
    async with running(tmp_path, config) as gateway:
        slow = [await gateway.connect() for _ in range(2)]
        for client in slow:
            await client.raw(client.render("POST", "/mcp/demo", b"", [("Content-Length", "50000")]))
        with trio.fail_after(5):
            while gateway.app._listener.budget.take(1):
                gateway.app._listener.budget.give(1)
                await trio.sleep(0.01)
        async with await gateway.connect() as client:
            head = client.render("POST", "/mcp/demo", b"", [("Content-Length", "50000")])
            await client.raw(head)
            assert (await client.response()).status == 503
        # What comes in one piece needs nothing set aside.
        assert (await gateway.post(call("echo"))).status == 200
        for client in slow:
            await client.aclose()
        with trio.fail_after(5):
            while not gateway.app._listener.budget.take(100_000):
                await trio.sleep(0.01)
