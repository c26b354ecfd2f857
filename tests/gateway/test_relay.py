"""An answer reaches its client whole, or is seen to be cut, or is refused with a reason."""

import json

import pytest
from support.client import call, message
from support.inprocess import running
from support.recorder import result


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
            "redirect",
        ),
        (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", "credentials"),
        (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "credentials"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "compressed"),
        (b"HTTP/1.1 200 OK\r\nMcp-Session-Id: a b\r\nContent-Length: 2\r\n\r\n{}", "session"),
    ],
)
async def test_what_may_not_be_passed_on_is_a_502(tmp_path, answer, words):
    async def odd(seen, reply):
        await reply.raw(answer)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = odd
        response = await gateway.post(call("echo", id="r"))
        assert (response.status, response.json["id"]) == (502, "r")
        assert words in response.error["message"]
        assert response.header("www-authenticate") is None
        assert response.header("location") is None
        assert (await gateway.audit(1))[0]["outcome"] == "upstream_error"


@pytest.mark.parametrize("status", [200, 202, 400, 404, 429, 500, 503])
async def test_a_status_and_a_body_pass_as_they_are(tmp_path, status):
    body = b' {"jsonrpc": "2.0", "id": 1, "error": {"code": -5, "message": "x", "y": 1e400}} '

    async def odd(seen, reply):
        await reply.json(body, status, headers=[("set-cookie", "a=b"), ("server", "x")])

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = odd
        response = await gateway.post(call("echo"))
        assert (response.status, response.body) == (status, body)
        assert response.header("set-cookie") is None
        assert (await gateway.audit(1))[0]["outcome"] == "rpc_error"


async def test_an_answer_without_a_length_passes_whole(tmp_path):
    text = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"x": "y" * 100_000}}).encode()

    async def chunked(seen, reply):
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        for start in range(0, len(text), 9000):
            part = text[start : start + 9000]
            await reply.raw(b"%x\r\n%s\r\n" % (len(part), part))
        await reply.raw(b"0\r\n\r\n")

    async def until_close(seen, reply):
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + text)
        await reply.hang_up()

    async with running(tmp_path) as gateway:
        for answer in (chunked, until_close):
            gateway.upstream.answer = answer
            assert (await gateway.post(call("echo"))).body == text


async def test_a_list_over_the_bound_is_refused_only_where_it_must_be_filtered(tmp_path):
    async def large(seen, reply):
        await reply.json(result(seen, {"tools": [{"name": "x" * 5000}]}))

    config = {"limits": {"max_listing_bytes": 1000}}
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = large
        assert (await gateway.post(message("tools/list"))).status == 200
        policy = {"servers": [{"name": "demo", "policy": {"deny_tools": ["b"]}}]}
        assert await gateway.reload({**config, **policy})
        refused = await gateway.post(message("tools/list"))
        assert refused.status == 502
        assert "too large" in refused.error["message"]


async def test_a_stream_that_comes_at_once_is_filtered_too(tmp_path):
    async def at_once(seen, reply):
        tools = result(seen, {"tools": [{"name": "a"}, {"name": "dangerous_delete"}]})
        body = b"data: " + json.dumps(tools).encode() + b"\n\n"
        await reply.send(200, [("content-type", "text/event-stream")], body)

    policy = {"servers": [{"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}}]}
    async with running(tmp_path, policy) as gateway:
        gateway.upstream.answer = at_once
        response = await gateway.post(message("tools/list"))
        assert b'"a"' in response.body
        assert b"dangerous" not in response.body
