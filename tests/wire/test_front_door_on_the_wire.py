"""What can't be understood is refused, and never reaches a server."""

import gzip
import json
import zlib

import pytest
from support.client import call, message
from support.inprocess import running

DENY = {"servers": [{"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}}]}
FORBIDDEN = call("dangerous_delete", {"path": "/"})
JSON = json.dumps(FORBIDDEN).encode()

REFUSED = {
    "a batch with a forbidden call": (json.dumps([FORBIDDEN]).encode(), 400, -32600),
    "a batch of harmless calls": (json.dumps([message("ping")]).encode(), 400, -32600),
    "an empty batch": (b"[]", 400, -32600),
    "a byte order mark": (b"\xef\xbb\xbf" + JSON, 400, -32700),
    "UTF-16": (json.dumps(FORBIDDEN).encode("utf-16"), 400, -32700),
    "text after the message": (JSON + b" x", 400, -32700),
    "a second message after the first": (JSON + JSON, 400, -32700),
    "no JSON at all": (b"method=tools/call&name=dangerous_delete", 400, -32700),
    "an empty body": (b"", 400, -32700),
    "the method twice": (JSON[:-1] + b',"method":"ping"}', 400, -32700),
    "the method twice, the other order": (b'{"method":"ping",' + JSON[1:], 400, -32700),
    "the name twice": (JSON.replace(b'"name":', b'"name": "echo", "name":'), 400, -32700),
    "the name twice, once escaped": (
        JSON.replace(b'"name":', b'"n\\u0061me": "echo", "name":'),
        400,
        -32700,
    ),
    "an argument twice": (JSON.replace(b'"path":', b'"path": 1, "path":'), 400, -32700),
    "a method in capitals beside it": (JSON[:-1] + b',"METHOD":"ping"}', 400, -32600),
    "a name in capitals beside it": (
        JSON.replace(b'"name":', b'"NAME": "echo", "name":'),
        400,
        -32602,
    ),
    "arguments in capitals": (JSON.replace(b'"arguments"', b'"Arguments"'), 400, -32602),
    "params with a long s": (
        JSON.replace(b'"params"', '"param\u017f"'.encode()),
        400,
        -32600,
    ),
    "arguments that are a list": (
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
            b'"params":{"name":"dangerous_delete","arguments":[]}}'
        ),
        400,
        -32602,
    ),
    "arguments that are a string": (
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
            b'"params":{"name":"dangerous_delete","arguments":"x"}}'
        ),
        400,
        -32602,
    ),
    "a name that is a number": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}',
        400,
        -32602,
    ),
    "a call without params": (b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', 400, -32602),
    "params that are a list": (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["dangerous_delete"]}',
        400,
        -32602,
    ),
    "nesting without end": (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, -32700),
    "an id of null": (JSON.replace(b'"id": 1', b'"id": null'), 400, -32600),
    "a completion that names nothing": (
        json.dumps(message("completion/complete", {"ref": {"type": "ref/other"}})).encode(),
        400,
        -32602,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_is_refused_and_reaches_no_server(tmp_path, name):
    body, status, code = REFUSED[name]
    async with running(tmp_path, DENY) as gateway:
        response = await gateway.post(body)
        assert (response.status, response.error["code"]) == (status, code), response
        assert gateway.upstream.seen == []
        (line,) = await gateway.audit(1)
        assert (line["status"], line["allowed"], line["outcome"]) == (status, False, "refused")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([("Content-Encoding", "gzip")], gzip.compress(JSON), 415),
        ([("Content-Encoding", "deflate")], zlib.compress(JSON), 415),
        ([("Content-Encoding", "br")], JSON, 415),
        ([("Content-Type", "text/plain")], JSON, 415),
        ([("Content-Type", "application/x-www-form-urlencoded")], JSON, 415),
        ([("Content-Type", "application/json; charset=utf-16")], JSON, 415),
        ([("Content-Type", "application/json; charset=utf-7")], JSON, 415),
        ([("Content-Type", None)], JSON, 415),
        ([("Mcp-Method", "ping")], JSON, 400),
        ([("Mcp-Name", "echo")], JSON, 400),
        ([("Mcp-Name", "=?base64?ZWNobw==?=")], JSON, 400),
        ([("Mcp-Name", "=?base64?!!!?=")], JSON, 400),
    ],
)
async def test_headers_that_change_what_the_body_means_are_refused(tmp_path, headers, body, status):
    async with running(tmp_path) as gateway:
        response = await gateway.post(body, headers=headers)
        assert response.status == status, response
        assert gateway.upstream.seen == []


async def test_a_header_that_differs_from_the_message_is_a_header_mismatch(tmp_path):
    async with running(tmp_path) as gateway:
        response = await gateway.post(call("echo"), headers=[("Mcp-Name", "other")])
        assert response.error["code"] == -32020
        meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
        response = await gateway.post(
            message("tools/list", meta), headers=[("MCP-Protocol-Version", "2025-11-25")]
        )
        assert response.error["code"] == -32020
        assert gateway.upstream.seen == []


async def test_headers_that_say_what_the_message_says_pass_and_go_upstream(tmp_path):
    async with running(tmp_path) as gateway:
        headers = [
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", "=?base64?ZWNobw==?="),
            ("Mcp-Param-Region", "eu"),
            ("MCP-Protocol-Version", "2025-11-25"),
            ("Last-Event-ID", "7"),
        ]
        response = await gateway.post(call("echo"), headers=headers)
        assert response.status == 200
        (seen,) = gateway.upstream.seen
        for name, value in headers:
            assert seen.header(name.lower()) == value


async def test_what_reaches_the_server_is_the_text_that_was_judged(tmp_path):
    odd = (
        b' {"id" : "\\u00e4", "jsonrpc":"2.0",\n"method":"tools/call","vendor":{"x":[1e400]},'
        b'"params":{"arguments":{"n":123456789012345678901234567890,"f":1.0}, "name":"echo"}} '
    )
    async with running(tmp_path) as gateway:
        response = await gateway.post(odd)
        assert response.status == 200
        assert gateway.upstream.seen[0].body == odd


async def test_a_get_or_delete_with_a_body_is_refused(tmp_path):
    async with running(tmp_path) as gateway:
        for method in ("GET", "DELETE"):
            response = await gateway.request(method, "/mcp/demo", JSON)
            assert response.status == 400, response
        assert gateway.upstream.seen == []


async def test_other_http_methods_are_refused_with_the_ones_that_are_served(tmp_path):
    async with running(tmp_path) as gateway:
        for method in ("PUT", "PATCH", "HEAD", "TRACE"):
            response = await gateway.request(method, "/mcp/demo")
            assert response.status == 405
            assert "POST" in response.header("allow")
        assert gateway.upstream.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/mcp/demo/admin",
        "/mcp/demo/admin/../mcp",
        "/mcp/demo/",
        "/mcp/demo//",
        "/mcp/demo/%2e%2e/secret",
        "/mcp/../mcp/demo",
        "/mcp/other",
        "/mcp/DEMO",
        "/mcp/demo%00",
        "/mcp/",
        "/mcp",
        "/",
        "/mcpx",
        "/MCP/demo",
    ],
)
async def test_only_the_servers_own_path_is_served(tmp_path, path):
    async with running(tmp_path) as gateway:
        response = await gateway.post(call("echo"), path)
        assert response.status == 404, response
        assert response.error["data"]["code"] == "unknown_server"
        assert gateway.upstream.seen == []


async def test_a_path_below_is_served_where_the_configuration_names_it(tmp_path):
    config = {"servers": [{"name": "demo", "paths": ["/messages", "/v1/*"]}]}
    async with running(tmp_path, config) as gateway:
        for path, target in (
            ("/mcp/demo/messages", b"/mcp/messages"),
            ("/mcp/demo/v1/x", b"/mcp/v1/x"),
        ):
            response = await gateway.post(call("echo"), path)
            assert response.status == 200
            assert gateway.upstream.seen[-1].target == target
        for path in ("/mcp/demo/messages/x", "/mcp/demo/v1/../x", "/mcp/demo/v1/%2e%2e/x"):
            assert (await gateway.post(call("echo"), path)).status == 404


async def test_a_query_string_is_refused_unless_the_configuration_forwards_it(tmp_path):
    async with running(tmp_path) as gateway:
        response = await gateway.post(call("echo"), "/mcp/demo?admin=1")
        assert response.status == 400
        assert "forward_query" in response.error["message"]
        assert gateway.upstream.seen == []
    config = {"servers": [{"name": "demo", "forward_query": True}]}
    async with running(tmp_path, config) as gateway:
        assert (await gateway.post(call("echo"), "/mcp/demo?tenant=1")).status == 200
        assert gateway.upstream.seen[0].target == b"/mcp?tenant=1"


async def test_the_url_is_used_exactly_as_it_is_written(tmp_path):
    async with running(tmp_path) as gateway:
        base = gateway.upstream.url.removesuffix("/mcp")
        for target in ("/mcp", "/mcp/", "/a/b?key=v&x", "/", "/%7Euser/;p"):
            await gateway.reload({"servers": [{"name": "demo", "url": base + target}]})
            assert (await gateway.post(call("echo"))).status == 200
            assert gateway.upstream.seen[-1].target == target.encode()


async def test_a_modern_request_gets_a_json_rpc_body_whatever_failed(tmp_path):
    modern = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    async with running(tmp_path) as gateway:
        response = await gateway.post(message("tools/list", modern, id="m"), "/mcp/none")
        assert response.status == 404
        assert response.json["id"] == "m"
        assert response.error["code"] == -32603
