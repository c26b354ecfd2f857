"""What goes up is what was judged, without what was meant for the gateway alone."""

import pytest
import trio
from support.client import call, message
from support.inprocess import running
from support.recorder import plain_mcp

from mcpx.gateway.forward import _target


@pytest.mark.parametrize(
    ("target", "below", "query", "sent"),
    [
        (b"/mcp", None, None, b"/mcp"),
        (b"/mcp?k=v", None, None, b"/mcp?k=v"),
        (b"/mcp", None, b"a=1", b"/mcp?a=1"),
        (b"/mcp?k=v", None, b"a=1", b"/mcp?k=v&a=1"),
        (b"/mcp/", b"/x", None, b"/mcp/x"),
        (b"/mcp?k=v", b"/x", b"a=1", b"/mcp/x?k=v&a=1"),
        (b"/", b"/x", None, b"/x"),
    ],
)
def test_the_target_is_the_servers_own_with_what_may_be_added(exchange, target, below, query, sent):
    ex = exchange()
    ex.upstream_path, ex.query = below, query
    assert _target(ex, target) == sent


async def test_credentials_cookies_and_origin_stay_here(tmp_path):
    auth = {"enabled": True, "type": "bearer", "token": "t" * 20}
    async with running(tmp_path, {"auth": auth}) as gateway:
        headers = [("Authorization", "Bearer " + "t" * 20), ("Cookie", "a=b"),
                   ("Proxy-Authorization", "x"), ("Connection", "x-hop"), ("X-Hop", "1"),
                   ("Mcp-Param-Region", "eu")]  # fmt: skip
        assert (await gateway.post(call("echo"), headers=headers)).status == 200
        (seen,) = gateway.upstream.seen
        for name in ("authorization", "cookie", "proxy-authorization", "connection", "x-hop"):
            assert seen.header(name) is None, name
        assert seen.header("mcp-param-region") == "eu"
        assert seen.header("accept-encoding") == "identity"
        assert seen.header("host") == gateway.upstream.url.split("/")[2]
        assert seen.header("x-forwarded-for") == "127.0.0.1"
        assert seen.header("x-forwarded-proto") == "http"


@pytest.mark.parametrize(("body", "status"), [(message("tools/list"), 200), (call("echo"), 502)])
async def test_a_list_is_asked_again_and_a_call_is_not(tmp_path, body, status):
    dropped = 0

    async def drops_the_second(seen, reply):
        nonlocal dropped
        if len(gateway.upstream.seen) == 2:
            dropped += 1
            await reply.hang_up()
        else:
            await plain_mcp(seen, reply)

    async with running(tmp_path) as gateway, await gateway.connect() as client:
        gateway.upstream.answer = drops_the_second
        assert (await client.post(message("ping"))).status == 200
        assert (await client.post(body)).status == status
        assert dropped == 1
        assert len(gateway.upstream.seen) == (3 if status == 200 else 2)


async def test_a_session_of_another_server_is_not_opened(tmp_path):
    async def with_session(seen, reply):
        result = {"jsonrpc": "2.0", "id": 1, "result": {}}
        await reply.json(result, headers=[("mcp-session-id", "s1")])

    async with running(tmp_path, {"servers": [{"name": "demo"}, {"name": "other"}]}) as gateway:
        gateway.upstream.answer = with_session
        sealed = (await gateway.post(message("initialize"))).header("mcp-session-id")
        assert sealed != "s1"
        headers = [("Mcp-Session-Id", sealed)]
        assert (await gateway.post(call("echo"), headers=headers)).status == 200
        assert gateway.upstream.seen[-1].header("mcp-session-id") == "s1"
        assert (await gateway.post(call("echo"), "/mcp/other", headers)).status == 404
        for forged in ("s1", sealed[:-1], sealed + "a", ""):
            answer = await gateway.post(call("echo"), headers=[("Mcp-Session-Id", forged)])
            assert answer.status == 404, forged
        assert gateway.upstreams["other"].seen == []


async def test_a_whole_exchange_has_its_bound(tmp_path):
    async def slow(seen, reply):
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Content-Length: 1000\r\n\r\n")  # fmt: skip
        while True:
            await trio.sleep(0.05)
            await reply.raw(b" ")

    config = {"servers": [{"name": "demo", "timeouts": {"total": "400ms"}}]}
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = slow
        async with await gateway.connect() as client:
            await client.raw(client.render("POST", "/mcp/demo", call("echo")))
            with trio.fail_after(5):
                await client.ends()
        assert (await gateway.audit(1))[0]["outcome"] == "timeout"
