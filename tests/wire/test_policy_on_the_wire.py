"""Policies hold for everything that a server offers, however it is asked for."""

import json

import pytest
from support.client import call, message
from support.inprocess import running
from support.recorder import TOOLS, result


def policy(**keys):
    return {"servers": [{"name": "demo", "policy": keys}]}


async def test_a_denied_tool_is_403_with_its_name_and_the_id(tmp_path):
    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        response = await gateway.post(call("dangerous_delete", id="abc"))
        assert response.status == 403
        assert response.json["id"] == "abc"
        assert response.error["code"] == -32600
        assert response.error["message"] == 'tool "dangerous_delete" is denied on server "demo"'
        assert gateway.upstream.seen == []


@pytest.mark.parametrize(
    "name",
    ["Dangerous_Delete", "dangerous_delete ", " dangerous_delete", "dangerous\u200b_delete",
     "\uff44angerous_delete", "DANGEROUS_DELETE", "dangerous_delete\n", "dangerou\u017f_delete"],
)  # fmt: skip
async def test_a_look_alike_of_a_denied_tool_is_denied(tmp_path, name):
    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        assert (await gateway.post(call(name))).status == 403
        assert gateway.upstream.seen == []


async def test_globs_allow_and_deny(tmp_path):
    rules = policy(allow_tools=["read_*", "echo"], deny_tools=["*_secret"])
    async with running(tmp_path, rules) as gateway:
        assert (await gateway.post(call("read_file"))).status == 200
        assert (await gateway.post(call("read_secret"))).status == 403
        assert (await gateway.post(call("write_file"))).status == 403


async def test_the_list_shows_what_may_be_called_and_nothing_else(tmp_path):
    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        response = await gateway.post(message("tools/list"))
        assert response.json["result"]["tools"] == TOOLS[:2]
    async with running(tmp_path, policy(read_only=True)) as gateway:
        response = await gateway.post(message("tools/list"))
        assert response.json["result"]["tools"] == []


async def test_entries_that_stay_are_the_servers_own_bytes(tmp_path):
    kept = b'{"name":"a" , "n":12345678901234567890, "x":1.0,"\\u0079":{}}'
    listing = (
        b'{"jsonrpc":"2.0","id":1,"result":{ "nextCursor":"c" ,"tools":[ '
        + kept
        + b' , {"name":"dangerous_delete"}], "_meta":{"k":1.50}}}'
    )

    async def answer(seen, reply):
        await reply.json(listing)

    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(message("tools/list"))
        assert kept in response.body
        assert b"dangerous_delete" not in response.body
        assert b'"_meta":{"k":1.50}' in response.body
        assert b'"nextCursor":"c"' in response.body
        assert response.header("content-length") == str(len(response.body))


async def test_a_list_in_an_event_stream_is_filtered_too(tmp_path):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event(b": hello\n\nid: 4\n", raw=True)
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}
        await reply.event(note)
        await reply.event(result(seen, {"tools": TOOLS}))
        await reply.end()

    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(message("tools/list"))
        assert b"dangerous_delete" not in response.body
        assert b"notifications/progress" in response.body
        assert b'"echo"' in response.body
        assert b"id: 4" in response.body


async def test_a_list_replayed_on_a_get_stream_is_filtered_too(tmp_path):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}})
        await reply.end()

    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.get("/mcp/demo", [("Last-Event-ID", "3")])
        assert b"dangerous_delete" not in response.body
        assert b'"echo"' in response.body


@pytest.mark.parametrize(
    "body", [b"not json", b'{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[]}}', b"[]"]
)
async def test_a_list_that_can_not_be_read_is_not_passed_on(tmp_path, body):
    async def answer(seen, reply):
        await reply.json(body)

    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(message("tools/list"))
        assert (response.status, response.json["id"]) == (502, 1)


async def test_a_compressed_list_is_not_passed_on(tmp_path):
    async def answer(seen, reply):
        assert seen.header("accept-encoding") == "identity"
        await reply.json(b"\x1f\x8b", headers=[("content-encoding", "gzip")])

    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        gateway.upstream.answer = answer
        assert (await gateway.post(message("tools/list"))).status == 502


async def test_the_filter_can_be_turned_off_and_calls_stay_denied(tmp_path):
    config = policy(deny_tools=["dangerous_delete"])
    config["inspection"] = {"filter_tools_list": False}
    async with running(tmp_path, config) as gateway:
        response = await gateway.post(message("tools/list"))
        assert response.json["result"]["tools"] == TOOLS
        assert (await gateway.post(call("dangerous_delete"))).status == 403


async def test_resources_and_prompts_are_governed_like_tools(tmp_path):
    rules = policy(
        deny_resources=["file:///etc/*"], allow_prompts=["hello"], deny_methods=["logging/*"]
    )

    async def answer(seen, reply):
        if seen.message["method"] == "resources/list":
            found = {"resources": [{"uri": "file:///etc/passwd"}, {"uri": "file:///data/x"}]}
        elif seen.message["method"] == "prompts/list":
            found = {"prompts": [{"name": "hello"}, {"name": "secret"}]}
        else:
            found = {}
        await reply.json(result(seen, found))

    async with running(tmp_path, rules) as gateway:
        gateway.upstream.answer = answer
        for uri in ("file:///etc/passwd", "file:///data/../etc/passwd", "file:///%65tc/passwd"):
            for method in ("resources/read", "resources/subscribe"):
                assert (await gateway.post(message(method, {"uri": uri}))).status == 403, uri
        assert (
            await gateway.post(message("resources/read", {"uri": "file:///data/x"}))
        ).status == 200
        assert (await gateway.post(message("prompts/get", {"name": "secret"}))).status == 403
        assert (await gateway.post(message("prompts/get", {"name": "hello"}))).status == 200
        refs = {"type": "ref/prompt", "name": "secret"}
        complete = message("completion/complete", {"ref": refs, "argument": {}})
        assert (await gateway.post(complete)).status == 403
        listen = message(
            "subscriptions/listen",
            {"notifications": {"resourceSubscriptions": ["file:///data/x", "file:///etc/passwd"]}},
        )
        assert (await gateway.post(listen)).status == 403
        assert (await gateway.post(message("logging/setLevel", {"level": "debug"}))).status == 403
        listed = await gateway.post(message("resources/list"))
        assert [r["uri"] for r in listed.json["result"]["resources"]] == ["file:///data/x"]
        listed = await gateway.post(message("prompts/list"))
        assert [p["name"] for p in listed.json["result"]["prompts"]] == ["hello"]


async def test_methods_outside_the_protocol_are_refused_unless_allowed(tmp_path):
    async with running(tmp_path) as gateway:
        for method in ("acme/steal", "tools/Call", "rpc.discover", "notifications/acme"):
            response = await gateway.post(message(method))
            assert response.status == 403, method
            assert method in response.error["message"]
        assert gateway.upstream.seen == []
    async with running(tmp_path, policy(allow_methods=["acme/*"])) as gateway:
        assert (await gateway.post(message("acme/fine"))).status == 200


async def test_a_modern_client_is_told_that_such_a_method_does_not_exist(tmp_path):
    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    async with running(tmp_path) as gateway:
        response = await gateway.post(message("acme/steal", meta))
        assert (response.status, response.error["code"]) == (404, -32601)
        (line,) = await gateway.audit(1)
        assert (line["decision"], line["outcome"]) == ("deny", "denied")
        assert line["rule"] == "allow_methods"
        assert gateway.upstream.seen == []


async def test_arguments_are_judged_exactly(tmp_path):
    rules = policy(
        tool_rules={
            "read_file": {"args": {"path": {"path_within": "/data", "required": True}}},
            "pay": {"args": {"amount": {"one_of": ["9007199254740992"]}}},
            "query": {"args": {"opts.sql": {"full_match": "SELECT [a-z ]+"}}},
        }
    )
    async with running(tmp_path, rules) as gateway:

        async def status(tool, arguments):
            return (await gateway.post(call(tool, arguments))).status

        assert await status("read_file", {"path": "/data/x"}) == 200
        for path in ("/data/../etc/passwd", "/database", "data/x", "/data/%2e%2e/etc", "/etc", 7,
                     "/data/..\\..\\etc", ["/data/x"], None, "/data/x\x00"):  # fmt: skip
            assert await status("read_file", {"path": path}) == 403, path
        assert await status("read_file", {}) == 403
        assert await status("read_file", {"path": "/data/x", "PATH": "/etc/passwd"}) == 403
        assert await status("pay", {"amount": 9007199254740992}) == 200
        assert await status("pay", {"amount": 9007199254740993}) == 403
        assert await status("query", {"opts": {"sql": "SELECT a from b"}}) == 200
        assert await status("query", {"opts": {"sql": "SELECT a; DROP TABLE b"}}) == 403
        assert await status("query", {"opts": {"sql": "SELECT a"}, "opts.sql": "DROP"}) == 403


async def test_a_client_override_only_takes_away(tmp_path):
    config = {
        "auth": {
            "enabled": True,
            "type": "bearer",
            "clients": [{"name": "ci", "token": "c" * 20}, {"name": "dev", "token": "d" * 20}],
        },
        "servers": [{"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}}],
        "clients": {"ci": {"servers": {"demo": {"allow_tools": ["echo", "dangerous_delete"]}}}},
    }
    async with running(tmp_path, config) as gateway:
        ci = [("Authorization", "Bearer " + "c" * 20)]
        dev = [("Authorization", "Bearer " + "d" * 20)]
        assert (await gateway.post(call("echo"), headers=ci)).status == 200
        refused = await gateway.post(call("read_file"), headers=ci)
        assert (
            refused.error["message"] == 'client "ci": tool "read_file" not in allow list for "demo"'
        )
        assert (await gateway.post(call("dangerous_delete"), headers=ci)).status == 403
        assert (await gateway.post(call("read_file"), headers=dev)).status == 200
        listed = await gateway.post(message("tools/list"), headers=ci)
        assert [tool["name"] for tool in listed.json["result"]["tools"]] == ["echo"]
        listed = await gateway.post(message("tools/list"), headers=dev)
        assert len(listed.json["result"]["tools"]) == 2
        assert json.dumps(listed.json).count("dangerous") == 0


async def test_streams_ends_of_sessions_and_responses_can_be_denied(tmp_path):
    answer = {"jsonrpc": "2.0", "id": 1, "result": {}}
    async with running(tmp_path, policy(deny_methods=["*"])) as gateway:
        assert (await gateway.get("/mcp/demo")).status == 403
        assert (await gateway.request("DELETE", "/mcp/demo")).status == 403
        assert (await gateway.post(answer)).status == 403
        assert (await gateway.post(message("ping"))).status == 403
        assert gateway.upstream.seen == []
    async with running(tmp_path, policy(deny_methods=["DELETE"])) as gateway:
        assert (await gateway.request("DELETE", "/mcp/demo")).status == 403
        assert (await gateway.get("/mcp/demo")).status == 200
        assert (await gateway.post(answer)).status == 202


async def test_a_refused_list_keeps_its_status_for_who_may_not_see_all(tmp_path):
    async def answer(seen, reply):
        await reply.send(404, [("content-type", "text/plain")], b"Session not found")

    async with running(tmp_path, policy(deny_tools=["x"])) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(message("tools/list"))
        assert (response.status, response.json["id"]) == (404, 1)


async def test_an_event_that_can_not_be_read_is_withheld_and_the_stream_goes_on(tmp_path):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event({"jsonrpc": "2.0", "method": "notifications/message",
                           "params": {"Name": "odd", "data": "kept"}})  # fmt: skip
        await reply.event(b"data: not json\n\n", raw=True)
        await reply.event({"jsonrpc": "2.0", "method": "notifications/x", "params": [1]})
        await reply.event({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}})
        await reply.end()

    async with running(tmp_path, policy(deny_tools=["dangerous_delete"])) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.get("/mcp/demo")
        assert b"kept" in response.body
        assert b"notifications/x" in response.body
        assert b"not json" not in response.body
        assert b'"echo"' in response.body
        assert b"dangerous_delete" not in response.body
        assert (await gateway.audit(1))[0]["outcome"] == "ok"
