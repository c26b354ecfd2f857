"""Further facts about refusals, limits, records and reloads that only a running gateway shows."""

import contextlib
import json
import os
import re

import pytest
import trio
from support.client import call, message
from support.inprocess import Gateway, running, write
from support.recorder import Recorder, plain_mcp

from mcpx.app import App

AUTH = {
    "enabled": True,
    "type": "bearer",
    "clients": [{"name": "a", "token": "a" * 20}, {"name": "b", "token": "b" * 20}],
}
A, B = [[("Authorization", "Bearer " + letter * 20)] for letter in "ab"]


# -- what is asked -----------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ['"METHOD":"ping"', '"param\u017f":{"name":"dangerous_delete"}', '"\uff49d":2'],
)
async def test_a_key_that_another_reader_takes_for_a_known_one_is_refused(tmp_path, key):
    body = json.dumps(call("echo"))[:-1] + f",{key}}}"
    async with running(tmp_path) as gateway:
        response = await gateway.post(body.encode())
        assert (response.status, response.error["code"]) == (400, -32600)
        assert gateway.upstream.seen == []


async def test_look_alike_keys_are_refused_in_params_and_in_meta(tmp_path):
    async with running(tmp_path) as gateway:
        for params in (
            {"name": "echo", "Name": "dangerous_delete"},
            {"name": "echo", "argument\u017f": {}},
            {"name": "echo", "_meta": {"progressTo\u212aen": 1}},
        ):
            response = await gateway.post(message("tools/call", params))
            assert (response.status, response.error["code"]) == (400, -32602), params
        assert gateway.upstream.seen == []


async def test_a_call_that_nests_too_deep_is_refused(tmp_path):
    nested = b'{"a":' * 100 + b"1" + b"}" * 100
    body = json.dumps(call("echo")).encode().replace(b'"arguments": {}', b'"arguments":' + nested)
    assert nested in body
    async with running(tmp_path) as gateway:
        response = await gateway.post(body)
        assert (response.status, response.error["code"]) == (400, -32700)
        assert gateway.upstream.seen == []


async def test_a_look_alike_of_a_method_is_refused_even_where_all_methods_are_allowed(tmp_path):
    config = {"servers": [{"name": "demo", "policy": {"allow_methods": ["*"]}}]}
    async with running(tmp_path, config) as gateway:
        assert (await gateway.post(message("acme/fine"))).status == 200
        for method in ("tools/Call", "TOOLS/CALL", "tool\u017f/call", "tools/call\u200b"):
            response = await gateway.post(message(method, {"name": "echo"}))
            assert response.status == 403, method
        assert len(gateway.upstream.seen) == 1


async def test_read_only_stops_every_call_and_nothing_else(tmp_path):
    config = {"servers": [{"name": "demo", "policy": {"read_only": True}}]}
    async with running(tmp_path, config) as gateway:
        assert (await gateway.post(call("echo"))).status == 403
        assert gateway.upstream.seen == []
        assert (await gateway.post(message("ping"))).status == 200


# -- who asks ----------------------------------------------------------------


async def test_a_token_that_nobody_has_is_called_invalid_and_a_missing_one_is_not(tmp_path):
    async with running(tmp_path, {"auth": AUTH}) as gateway:
        wrong = await gateway.post(call("echo"), headers=[("Authorization", "Bearer nobody")])
        assert 'error="invalid_token"' in wrong.header("www-authenticate")
        missing = await gateway.post(call("echo"))
        assert "error" not in missing.header("www-authenticate")


async def test_of_two_credentials_not_even_the_good_one_counts(tmp_path):
    async with running(tmp_path, {"auth": AUTH}) as gateway:
        for both in ([*A, ("Authorization", "Bearer x")], [("Authorization", "Bearer x"), *A]):
            assert (await gateway.post(call("echo"), headers=both)).status in (400, 401)
        assert gateway.upstream.seen == []


async def test_a_variable_in_a_token_stands_for_its_value_and_not_for_itself(tmp_path):
    config = {"auth": {"enabled": True, "type": "api_key", "token": "${GATEWAY_KEY}"}}
    async with running(tmp_path, config, {"GATEWAY_KEY": "k" * 20}) as gateway:
        for key, status in (("${GATEWAY_KEY}", 401), ("k" * 20, 200)):
            response = await gateway.post(call("echo"), headers=[("X-API-Key", key)])
            assert response.status == status


def override(client, server):
    return {client: {"servers": {server: {"read_only": True}}}}


def api_key(**server):
    auth = {"enabled": True, "type": "api_key", "header": "X-Team-Key", "token": "k" * 20}
    return {"auth": auth, "servers": [{"name": "demo", **server}]}


WITHOUT_EFFECT = {
    "a policy for a server that is not there": {"auth": AUTH, "clients": override("a", "nowhere")},
    "a policy for a client that nobody is": {"auth": AUTH, "clients": override("c", "demo")},
    "a policy for clients that nobody tells apart": {"clients": override("a", "demo")},
    "a rule that asks for nothing": {
        "servers": [{"name": "demo", "policy": {"tool_rules": {"echo": {}}}}]
    },
    "tokens without a resource that they are for": {
        "auth": {"enabled": True, "type": "oauth", "oauth": {"issuer": "https://as.example"}}
    },
    "a variable that is not set": {
        "servers": [{"name": "demo", "url": "http://127.0.0.1:9/${MCPX_IS_NOT_SET}"}]
    },
    "credentials that would go upstream": {
        "servers": [{"name": "demo", "forward_headers": ["Authorization"]}]
    },
    "the key's own header that would go upstream": api_key(forward_headers=["X-Team-Key"]),
    "two names that differ in case": {
        "servers": [{"name": "demo"}, {"name": "Demo", "url": "http://127.0.0.1:9/"}]
    },
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
async def test_what_would_not_do_what_it_says_is_no_configuration(tmp_path, name):
    async with running(tmp_path) as gateway:
        before = gateway.app.state.snapshot
        assert not await gateway.reload(WITHOUT_EFFECT[name])
        assert gateway.app.state.snapshot is before
        assert (await gateway.post(call("echo"))).status == 200


# -- what comes back ---------------------------------------------------------


async def test_a_servers_own_cors_headers_do_not_stand_beside_the_gateways(tmp_path):
    async def answer(seen, reply):
        said = [("access-control-allow-origin", "*"), ("access-control-expose-headers", "X-Own")]
        await reply.json({"jsonrpc": "2.0", "id": 1, "result": {}}, headers=said)

    config = {"cors": {"enabled": True, "allowed_origins": ["https://app.example.com"]}}
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        origin = [("Origin", "https://app.example.com")]
        response = await gateway.post(message("ping"), headers=origin)
        assert response.all("access-control-allow-origin") == ["https://app.example.com"]
        assert len(response.all("access-control-expose-headers")) == 1


def long_list():
    tools = [{"name": f"tool_{number}", "inputSchema": {}} for number in range(200)]
    return {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}


BOUNDED_LISTS = {
    "servers": [{"name": "demo", "policy": {"deny_tools": ["x"]}}],
    "limits": {"max_listing_bytes": 2000},
}


async def test_a_list_past_the_bound_is_not_held_and_not_passed_on(tmp_path):
    async def answer(seen, reply):
        await reply.json(long_list())

    async with running(tmp_path, BOUNDED_LISTS) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(message("tools/list"))
        assert response.status == 502
        assert b"tool_1" not in response.body


async def test_an_event_past_the_bound_is_not_held_and_not_passed_on(tmp_path):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event(long_list())
        await reply.end()

    async with running(tmp_path, BOUNDED_LISTS) as gateway, await gateway.connect() as client:
        gateway.upstream.answer = answer
        headers = [("Connection", "close")]
        await client.raw(client.render("POST", "/mcp/demo", message("tools/list"), headers))
        assert b"tool_1" not in await client.ends()
        assert (await gateway.audit(1))[0]["outcome"] == "upstream_error"


async def test_a_fault_of_the_gateway_tells_clients_nothing_of_the_network(tmp_path, monkeypatch):
    async def fails(*_args, **_named):
        raise RuntimeError("no route to 10.0.0.7:8443")

    async with running(tmp_path) as gateway:
        monkeypatch.setattr(gateway.app.state.pools["demo"], "exchange", fails)
        response = await gateway.post(call("echo", id="x"))
        assert (response.status, response.json["id"]) == (500, "x")
        assert b"10.0.0.7" not in response.body
        assert (await gateway.audit(1))[0]["status"] == 500


# -- how much ----------------------------------------------------------------


async def test_what_is_refused_to_one_client_costs_the_others_nothing(tmp_path):
    config = {
        "auth": AUTH,
        "rate_limit": {
            "enabled": True, "rps": 0.01, "burst": 6, "client_rps": 0.01, "client_burst": 2,
        },
    }  # fmt: skip
    async with running(tmp_path, config) as gateway:
        statuses = [(await gateway.post(call("echo"), headers=A)).status for _ in range(10)]
        assert statuses == [200] * 2 + [429] * 8
        assert [(await gateway.post(call("echo"), headers=B)).status for _ in range(2)] == [200] * 2


async def test_an_address_that_is_claimed_gets_no_limit_of_its_own(tmp_path):
    limit = {"enabled": True, "rps": 100, "burst": 100, "client_rps": 0.01, "client_burst": 1}
    async with running(tmp_path, {"rate_limit": limit}) as gateway:
        statuses = []
        for number in range(3):
            claimed = [("X-Forwarded-For", f"10.0.0.{number}")]
            statuses.append((await gateway.post(call("echo"), headers=claimed)).status)
        assert statuses == [200, 429, 429]


async def test_invented_tools_and_clients_fill_no_memory_with_limits(tmp_path):
    limit = {
        "enabled": True, "rps": 1000, "burst": 1000, "client_rps": 1000, "per_tool": True,
        "max_keys": 5,
    }  # fmt: skip
    async with running(tmp_path, {"rate_limit": limit}) as gateway, await gateway.connect() as one:
        for number in range(30):
            assert (await one.post(call(f"made_up_{number}"))).status == 200
        assert len(gateway.app.state.limiter) <= 2 * 5


async def test_durations_are_told_in_fractions(tmp_path):
    async with running(tmp_path) as gateway:
        for _ in range(3):
            await gateway.post(call("echo"))
        await gateway.audit(3)
        text = await gateway.metrics()
        total = re.search(r'mcpx_request_duration_seconds_sum\{server="demo"\} (\S+)', text)
        assert 0 < float(total[1]) < 3


async def test_methods_that_clients_invent_make_no_label(tmp_path):
    async with running(tmp_path) as gateway:
        for number in range(3):
            assert (await gateway.post(message(f"acme/made_up_{number}"))).status == 403
        await gateway.audit(3)
        text = await gateway.metrics()
        assert "made_up" not in text
        assert 'mcpx_requests_total{method="other",server="demo",status_code="4xx"} 3.0' in text


# -- the record --------------------------------------------------------------


async def test_a_request_past_a_limit_has_its_line_too(tmp_path):
    limit = {"enabled": True, "rps": 0.01, "burst": 1}
    async with running(tmp_path, {"rate_limit": limit}) as gateway:
        assert [(await gateway.post(call("echo"))).status for _ in range(2)] == [200, 429]
        line = (await gateway.audit(2))[1]
        assert (line["status"], line["decision"], line["outcome"]) == (429, "deny", "limited")
        assert line["tool"] == "echo"


async def test_lines_of_one_session_can_be_told_from_others(tmp_path):
    async def answer(seen, reply):
        if seen.message["method"] == "initialize":
            session = [("mcp-session-id", f"s-{seen.message['id']}")]
            value = {"jsonrpc": "2.0", "id": seen.message["id"], "result": {}}
            await reply.json(value, headers=session)
        else:
            await plain_mcp(seen, reply)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        for number in (1, 2):
            opened = await gateway.post(message("initialize", {}, number))
            mine = [("Mcp-Session-Id", opened.header("mcp-session-id"))]
            assert (await gateway.post(call("echo"), headers=mine)).status == 200
        first, call_1, second, call_2 = [line["session"] for line in await gateway.audit(4)]
        assert first == call_1 != second == call_2
        assert len(first) == 8


async def test_the_audit_file_is_rotated_and_exactly_as_many_are_kept_as_asked_for(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit = {"enabled": True, "output": "file", "path": str(path), "max_bytes": 2000, "keep": 2}
    async with running(tmp_path, {"audit": audit}) as gateway, await gateway.connect() as client:
        for _ in range(5):
            for _ in range(10):
                assert (await client.post(call("echo"))).status == 200
            await gateway.audit()
        names = sorted(file.name for file in tmp_path.glob("audit.jsonl*"))
        assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
        for name in names:
            assert 0 < (tmp_path / name).stat().st_size <= 2000
            for line in (tmp_path / name).read_text().splitlines():
                json.loads(line)


def spoil(path):
    """A folder where the file was: nothing can be written, not even by root."""
    path.unlink()
    path.mkdir()


async def test_records_wait_for_a_file_that_can_not_be_written(tmp_path):
    async with running(tmp_path) as gateway:
        await gateway.post(call("echo"))
        await gateway.audit(1)
        spoil(tmp_path / "audit.jsonl")
        for number in range(5):
            assert (await gateway.post(call("echo", id=number))).status == 200
        with trio.fail_after(5):
            while gateway.app.state.audit.healthy:
                await trio.sleep(0.01)
        (tmp_path / "audit.jsonl").rmdir()
        assert len(await gateway.audit(5)) == 5


async def test_nothing_is_done_that_can_not_be_recorded(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit = {"enabled": True, "output": "file", "path": str(path), "queue": 4}
    async with running(tmp_path, {"audit": audit}) as gateway:
        await gateway.post(call("echo"))
        await gateway.audit(1)
        spoil(path)
        for _ in range(4):
            assert (await gateway.post(call("echo"))).status == 200
        statuses = []

        async def ask():
            statuses.append((await gateway.post(call("echo"))).status)

        async with trio.open_nursery() as nursery:
            arrived = gateway.upstream.arrived
            nursery.start_soon(ask)
            with trio.move_on_after(0.3) as held_back:
                await arrived.wait()
            assert held_back.cancelled_caught
            path.rmdir()
        assert statuses == [200]
        assert len(await gateway.audit(5)) == 5


async def test_a_reload_that_moves_the_audit_file_loses_no_line(tmp_path):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    moved = tmp_path / "moved.jsonl"
    async with running(tmp_path) as gateway, await gateway.connect() as client:
        for number in range(20):
            assert (await client.post(call("echo", id=number))).status == 200
        gateway.upstream.answer = answer
        arrived = gateway.upstream.arrived
        await client.raw(client.render("POST", "/mcp/demo", call("echo")))
        await arrived.wait()
        audit = {"enabled": True, "output": "file", "path": str(moved)}
        assert await gateway.reload({"audit": audit})
        with trio.fail_after(5):
            while len((tmp_path / "audit.jsonl").read_text().splitlines()) < 20:
                await trio.sleep(0.01)
        release.set()
        assert (await client.response()).status == 200
        with trio.fail_after(5):
            while not (moved.exists() and moved.read_text()):
                await trio.sleep(0.01)
        assert json.loads(moved.read_text())["outcome"] == "ok"


# -- watching the file -------------------------------------------------------


@contextlib.asynccontextmanager
async def watched(tmp_path):
    """A gateway that looks at its file twenty times a second."""
    path, audit = tmp_path / "mcpx.yaml", tmp_path / "audit.jsonl"
    async with trio.open_nursery() as nursery:
        recorder = await nursery.start(Recorder().run)
        write(path, denying("dangerous_delete"), {"demo": recorder}, audit)
        app = App(str(path), {}, watch_interval_s=0.05)
        address = await nursery.start(app.run)
        yield Gateway(app, address, recorder, {"demo": recorder}, path, audit)
        app.stop()
        app.stop()
        nursery.cancel_scope.cancel()


def denying(tool):
    return {"servers": [{"name": "demo", "policy": {"deny_tools": [tool]}}]}


async def becomes_denied(gateway, tool):
    with trio.fail_after(5):
        while (await gateway.post(call(tool))).status != 403:
            await trio.sleep(0.02)


async def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path):
    async with watched(tmp_path) as gateway:
        before = gateway.path.stat()
        fresh = gateway.path.read_text().replace("dangerous_delete", "harmless_delete_")
        gateway.path.write_text(fresh)
        os.utime(gateway.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = gateway.path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        await becomes_denied(gateway, "harmless_delete_")
        assert (await gateway.post(call("dangerous_delete"))).status == 200


async def test_a_file_that_is_gone_is_no_change_and_its_return_is_one(tmp_path, caplog):
    async with watched(tmp_path) as gateway:
        gateway.path.rename(tmp_path / "away.yaml")
        with trio.fail_after(5):
            while "can't be read" not in caplog.text:
                await trio.sleep(0.01)
        with trio.move_on_after(0.3):
            while "not reloaded" not in caplog.text:
                await trio.sleep(0.01)
        assert "not reloaded" not in caplog.text
        assert gateway.app.state.snapshot.generation == 1
        assert (await gateway.post(call("dangerous_delete"))).status == 403
        write(gateway.path, denying("echo"), gateway.upstreams, tmp_path / "audit.jsonl")
        await becomes_denied(gateway, "echo")
