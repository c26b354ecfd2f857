"""Attacks: on the decisions, on what is hidden, on memory and time, on the records."""

import contextlib
import json
import os
import signal
import ssl
import time

import pytest
import trio
import trustme
from support.client import Client, call, message
from support.inprocess import running
from support.recorder import TOOLS, plain_mcp, result

DENY = {"servers": [{"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}}]}
FORBIDDEN = json.dumps(call("dangerous_delete", {"path": "/"})).encode()
MODERN = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
LISTED = {"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}
LIST = json.dumps(LISTED).encode()
HEAD = b"POST /mcp/demo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def policy(**keys):
    return {"servers": [{"name": "demo", "policy": keys}]}


def says(data, *, close=False):
    """An answer function that writes ``data`` as it is."""

    async def answer(seen, reply):
        if seen.message.get("id") == "well-behaved":
            await plain_mcp(seen, reply)
            return
        await reply.raw(data)
        if close:
            await reply.hang_up()

    return answer


def http(body, *headers, status=b"200 OK", version=b"1.1"):
    lines = b"".join(b"%b\r\n" % line for line in headers)
    return (
        b"HTTP/%b %b\r\n%bContent-Length: %d\r\n\r\n" % (version, status, lines, len(body)) + body
    )


async def raw(gateway, data):
    """Everything that the gateway says to ``data`` on a connection of its own."""
    async with await gateway.connect() as client:
        with contextlib.suppress(trio.BrokenResourceError):
            await client.raw(data)
        with trio.fail_after(10):
            return await client.ends()


async def waits_during(gateway, attack):
    """How long somebody else had to wait for each answer while ``attack`` ran, in seconds."""
    waits = []
    done = trio.Event()

    async def somebody_else():
        async with await gateway.connect() as client:
            while not done.is_set():
                started = time.perf_counter()
                assert (await client.get("/health/live")).status == 200
                waits.append(time.perf_counter() - started)
                await trio.sleep(0.002)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(somebody_else)
        await attack()
        done.set()
    return waits


# -- getting a forbidden message to a server ----------------------------------------


@pytest.mark.parametrize(
    "ref",
    [
        {"type": "ref/prompt", "name": "fine", "NAME": "secret"},
        {"type": "ref/prompt", "name": "fine", "Name": "secret"},
        {"type": "ref/prompt", "name": "fine", "na\u200bme": "secret"},
        {"type": "ref/prompt", "name": "fine", "uri": "file:///etc/passwd"},
        {"type": "ref/prompt", "Type": "ref/resource", "name": "fine"},
        {"type": "ref/resource", "uri": "file:///data/x", "URI": "file:///etc/passwd"},
        {"type": "ref/prompt", "name": "fine", "x" * 300: "secret"},
        {"type": "ref/prompt", "name": "secret"},
        {"type": "ref/prompt", "name": ["secret"]},
        {"type": ["ref/prompt"], "name": "secret"},
    ],
)
async def test_a_completion_says_in_one_way_only_what_it_is_about(tmp_path, ref):
    config = policy(deny_prompts=["secret"], deny_resources=["file:///etc/*"])
    async with running(tmp_path, config) as gateway:
        response = await gateway.post(message("completion/complete", {"ref": ref, "argument": {}}))
        assert response.status in (400, 403), response
        assert gateway.upstream.seen == []


async def test_a_subscription_says_in_one_way_only_what_it_is_about(tmp_path):
    async with running(tmp_path, policy(deny_resources=["file:///etc/*"])) as gateway:
        for key in ("ResourceSubscriptions", "RESOURCESUBSCRIPTIONS", "resource\u017fubscriptions"):
            wanted = {"resourceSubscriptions": ["file:///a"], key: ["file:///etc/passwd"]}
            response = await gateway.post(
                message("subscriptions/listen", {"notifications": wanted})
            )
            assert response.status == 400, key
        assert gateway.upstream.seen == []
        wanted = {"resourceSubscriptions": ["file:///a"], "toolsListChanged": True, "acme": 1}
        response = await gateway.post(message("subscriptions/listen", {"notifications": wanted}))
        assert response.status == 200


async def test_a_response_carries_no_headers_of_a_request(tmp_path):
    async with running(tmp_path, DENY) as gateway:
        response = {"jsonrpc": "2.0", "id": 1, "result": {}}
        for header in (("Mcp-Method", "tools/call"), ("Mcp-Name", "dangerous_delete")):
            refused = await gateway.post(response, headers=[header])
            assert (refused.status, refused.error["code"]) == (400, -32020)
        assert gateway.upstream.seen == []


@pytest.mark.parametrize(
    "body",
    [
        FORBIDDEN.replace(b'"name":', b'"name\\u0000": "x", "name":'),
        FORBIDDEN.replace(b'"name": "dangerous_delete"', b'"name\\u0000x": "dangerous_delete", "name": "echo"'),
        FORBIDDEN.replace(b'"method"', b'"method\\u0000": "ping", "method"'),
        FORBIDDEN.replace(b'dangerous_delete"', b'dangerous_delete\\u0000x"'),
        FORBIDDEN.replace(b'dangerous_delete"', b'dangerous_delete\\t"'),
        FORBIDDEN.replace(b'dangerous_delete"', b'dangerous_delete\\u00ad"'),
        FORBIDDEN.replace(b'dangerous_delete"', b'dangerous_delete\\ufe0f"'),
        FORBIDDEN.replace(b'dangerous_delete"', b'dangerous_delete\\ud800"'),
        FORBIDDEN.replace(b'"id": 1', b'"id": 1e0'),
        FORBIDDEN.replace(b'"id": 1', b'"id": NaN'),
        FORBIDDEN.replace(b'"id": 1', b'"id": 1, "result": {}'),
        FORBIDDEN.replace(b"dangerous", b"dangerous\xc0\x80"),
        FORBIDDEN.replace(b'"jsonrpc"', b'/**/"jsonrpc"'),
        b"\x1e" + FORBIDDEN,
        FORBIDDEN + b"\x00",
        b'{"jsonrpc":"2.0","id":1,"result":{},"params":{"name":"dangerous_delete"}}',
        b'{"jsonrpc":"2.0","id":1,"error":{},"metho\xc5\xa4":"tools/call"}'.replace(b"\xc5\xa4", b"D"),
    ],
)  # fmt: skip
async def test_what_two_parsers_read_differently_reaches_no_server(tmp_path, body):
    async with running(tmp_path, DENY) as gateway:
        response = await gateway.post(body)
        assert response.status in (400, 403), response
        assert gateway.upstream.seen == []


@pytest.mark.parametrize(
    "below",
    ["..;/admin", "..;a=b/admin", "%2e%2e/admin", "%2e.;/admin", "..%3b/admin", "%252e%252e/admin",
     "..%00/x", "..%09/x", "..%20/x", "%c0%ae%c0%ae/x", "..%5cx", "...;/x", "a//b", "a/./b",
     "%2f..%2fx", "x%0d%0aY:z", ".;/x"],
)  # fmt: skip
async def test_a_path_that_servers_read_differently_is_not_forwarded(tmp_path, below):
    async with running(tmp_path, {"servers": [{"name": "demo", "paths": ["/v1/*"]}]}) as gateway:
        assert (await gateway.post(call("echo"), f"/mcp/demo/v1/{below}")).status == 404
        assert gateway.upstream.seen == []
        for fine in ("a/b", "a.b", "..a", "a;v=1", "%7Ea", ""):
            assert (await gateway.post(call("echo"), f"/mcp/demo/v1/{fine}")).status == 200, fine


async def test_a_query_leaves_alone_what_the_operator_has_set(tmp_path):
    async with running(tmp_path) as gateway:
        url = gateway.upstream.url + "?role=reader&key=k"
        assert await gateway.reload(
            {"servers": [{"name": "demo", "url": url, "forward_query": True}]}
        )
        for query in ("role=admin", "x=1&role=admin", "ROLE=admin", "r%6fle=a", "role[]=a", "x;key=1",
                      "role%00=a", "+role=a"):  # fmt: skip
            assert (await gateway.post(call("echo"), f"/mcp/demo?{query}")).status == 400, query
        assert gateway.upstream.seen == []
        assert (await gateway.post(call("echo"), "/mcp/demo?tenant=1")).status == 200
        assert gateway.upstream.seen[0].target == b"/mcp?role=reader&key=k&tenant=1"


HIDDEN = HEAD + b"Content-Length: %d\r\n\r\n" % len(FORBIDDEN) + FORBIDDEN
SMUGGLED = {
    "both lengths": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
    "a list of lengths": HEAD + b"Content-Length: 0, 0\r\n\r\n" + HIDDEN,
    "a signed length": HEAD + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a length in hex": HEAD + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "a space before the colon": HEAD + b"Content-Length : 0\r\n\r\n" + HIDDEN,
    "a folded line": HEAD + b"X-A: b\r\n Content-Length: 0\r\n\r\n" + HIDDEN,
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a bare LF": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + HIDDEN,
    "a bare CR": HEAD + b"X-A: b\rContent-Length: 0\r\n\r\n" + HIDDEN,
    "a NUL": HEAD + b"X-A: b\x00c\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "another coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding in capitals": HEAD + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding with a tab": HEAD + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding of HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding with an underscore": HEAD + b"Transfer_Encoding: chunked\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n" + HIDDEN,
    "an absolute target": HIDDEN.replace(b"/mcp/demo", b"http://evil/mcp/demo"),
    "an authority as the target": HIDDEN.replace(b"POST /mcp/demo", b"CONNECT localhost:80"),
    "two hosts": HIDDEN.replace(b"Host: localhost\r\n", b"Host: localhost\r\nHost: evil\r\n"),
    "no host": HIDDEN.replace(b"Host: localhost\r\n", b""),
    "a fragment": HIDDEN.replace(b"/mcp/demo", b"/mcp/demo#x"),
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /mcp/demo\r\n" + HIDDEN,
    "HTTP/1.2": HIDDEN.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "a chunk longer than it says": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + HIDDEN,
    "a chunk extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0;a=b\r\n\r\n" + HIDDEN,
    "a chunk size that overflows": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + HIDDEN,
    "a chunk size with a sign": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n" + HIDDEN,
    "a chunk that ends in LF": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\n\n" + HIDDEN,
    "a length in the trailers": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1,2\r\n\r\n" + HIDDEN,
    "an unknown expectation": HEAD + b"Expect: 200-ok\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLED)
async def test_nothing_is_smuggled_behind_a_request_that_is_read_in_two_ways(tmp_path, name):
    # Without a policy: what is hidden behind must not even be seen.
    async with running(tmp_path) as gateway:
        said = await raw(gateway, SMUGGLED[name])
        assert said.startswith(b"HTTP/1.1 "), said
        assert said[9:10] in (b"4", b"5"), said
        assert said.count(b"HTTP/1.1 ") == 1
        assert gateway.upstream.seen == []
        assert (await gateway.post(call("echo"))).status == 200


async def test_a_refusal_ends_the_requests_sent_after_it_or_leaves_them_whole(tmp_path):
    async with running(tmp_path, DENY) as gateway, await gateway.connect() as client:
        fine = client.render("POST", "/mcp/demo", call("echo", id=2))
        await client.raw(HIDDEN + fine + HIDDEN)
        assert [(await client.response()).status for _ in range(3)] == [403, 200, 403]
        assert [seen.message["params"]["name"] for seen in gateway.upstream.seen] == ["echo"]


async def test_a_request_half_sent_ahead_is_answered_as_if_it_came_alone(tmp_path):
    async with running(tmp_path) as gateway:
        async with await gateway.connect() as client:
            body = json.dumps(call("echo")).encode()
            waits = client.render("POST", "/mcp/demo", body, [("Expect", "100-continue")])
            await client.raw(client.render("POST", "/mcp/demo", body) + waits[: -len(body)])
            with trio.fail_after(3):
                assert (await client.response()).status == 200
                said = client._parser.trailing_data[0] or await client.stream.receive_some(100)
            assert said.startswith(b"HTTP/1.1 100 ")
        async with await gateway.connect() as client:
            await client.raw(client.render("POST", "/mcp/demo", body) + b"NONSENSE\r\n\r\n")
            with trio.fail_after(3):
                said = await client.ends()
            assert said.count(b"HTTP/1.1 200 ") == said.count(b"HTTP/1.1 400 ") == 1


# -- secrets and addresses ----------------------------------------------------------


@pytest.mark.parametrize("header", ["User-Agent", "Baggage", "Mcp-Key", "Last-Event-ID", "Accept"])
async def test_a_key_can_not_be_asked_for_in_a_header_that_goes_upstream(tmp_path, header):
    async with running(tmp_path) as gateway:
        auth = {"enabled": True, "type": "api_key", "header": header, "token": "t" * 20}
        assert not await gateway.reload({"auth": auth})
        auth["header"] = "X-Team-Key"
        servers = [{"name": "demo", "forward_headers": ["X-Team-Key"]}]
        assert not await gateway.reload({"auth": auth, "servers": servers})


@pytest.mark.parametrize("session", [b"", b"\xe4", b"x" * 600, b"a b"])
async def test_a_session_id_that_no_server_may_give_is_the_servers_fault(tmp_path, session):
    async with running(tmp_path) as gateway:
        answer = http(b"{}", b"Content-Type: application/json", b"Mcp-Session-Id: " + session)
        gateway.upstream.answer = says(answer)
        response = await gateway.post(call("echo"))
        assert response.status == 502
        assert response.header("mcp-session-id") is None
        assert (await gateway.audit(1))[0]["outcome"] == "upstream_error"


BROKEN_ANSWERS = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6 internal-host-7\r\n",
    "a redirect": http(b"", b"Location: http://internal-host-7/", status=b"302 Found"),
    "a challenge": http(b"", b'WWW-Authenticate: Basic realm="internal-host-7"', status=b"401 No"),
    "a protocol switched": b"HTTP/1.1 101 Switching\r\nUpgrade: internal-host-7\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: internal-host-7\r\n folded\r\nContent-Length: 0\r\n\r\n",
    "a coded body": http(b"x", b"Content-Encoding: br", b"X-Host: internal-host-7"),
    "a bare LF": b"HTTP/1.1 200 OK\nX: internal-host-7\n\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ninternal-host-7\r\n",
    "no byte": b"",
}


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
async def test_a_broken_answer_is_a_502_that_tells_nothing_of_the_inside(tmp_path, name):
    async with running(tmp_path) as gateway:
        gateway.upstream.answer = says(BROKEN_ANSWERS[name], close=True)
        async with await gateway.connect() as client:
            response = await client.post(call("echo", id="mine"))
            assert (response.status, response.json["id"]) == (502, "mine")
            shown = response.body + repr(response.headers).encode()
            for secret in (b"internal-host-7", b"127.0.0.1", gateway.upstream.url.encode()):
                assert secret not in shown
            # The client's connection is as good as before.
            gateway.upstream.answer = plain_mcp
            assert (await client.post(call("echo"))).status == 200
        assert [line["status"] for line in await gateway.audit(2)] == [502, 200]
        assert gateway.app.state.pools["demo"].in_use == 0


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(tmp_path):
    unasked = http(b'{"poisoned":true}', b"Content-Type: application/json")

    async def together(seen, reply):
        body = json.dumps(result(seen, {})).encode()
        await reply.raw(http(body, b"Content-Type: application/json") + unasked)

    async def later(seen, reply):
        await reply.json(result(seen, {}))
        await trio.sleep(0.02)
        await reply.raw(unasked)

    async with running(tmp_path) as gateway, await gateway.connect() as client:
        for answer in (together, later):
            gateway.upstream.answer = answer
            assert (await client.post(message("ping", id=7))).json["id"] == 7
            await trio.sleep(0.05)
            gateway.upstream.answer = plain_mcp
            assert (await client.post(message("ping", id=8))).json["id"] == 8


async def test_an_answer_to_one_who_left_is_given_to_nobody(tmp_path):
    async def slow(seen, reply):
        if seen.message["id"] == "left":
            await trio.sleep(0.6)
        await reply.json(result(seen, {"tools": []}))

    async with running(tmp_path, {"servers": [{"name": "demo", "max_connections": 1}]}) as gateway:
        gateway.upstream.answer = slow
        client = await gateway.connect()
        arrived = gateway.upstream.arrived
        await client.raw(client.render("POST", "/mcp/demo", message("tools/list", MODERN, "left")))
        await arrived.wait()
        await client.aclose()
        assert (await gateway.post(message("ping", id="other"))).json["id"] == "other"


# -- lists that hide nothing --------------------------------------------------------


def events(*lines):
    return b"".join(lines)


def chunked(*parts):
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


SSE = b"Content-Type: text/event-stream"
CODED = b"HTTP/1.1 200 OK\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: " + LIST + b"\n\n"
HALF = LIST.index(b'"tools"')
SHOWN = {
    "JSON with status 201": http(LIST, b"Content-Type: application/json", status=b"201 Created"),
    "JSON with status 206": http(LIST, b"Content-Type: application/json", status=b"206 Partial"),
    "JSON with status 400": http(LIST, b"Content-Type: application/json", status=b"400 Bad"),
    "JSON without a type": http(LIST),
    "JSON as text": http(LIST, b"Content-Type: text/plain"),
    "JSON as something else": http(LIST, b"Content-Type: application/x-ndjson"),
    "JSON in chunks": CODED % b"Content-Type: application/json" + chunked(LIST[:HALF], LIST[HALF:]),
    "JSON of HTTP/1.0": http(LIST, b"Content-Type: application/json", version=b"1.0"),
    "JSON until the end": b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + LIST,
    "a type in capitals": http(EVENT, b"Content-Type: Text/Event-Stream; Charset=utf-8"),
    "a type with a space": http(EVENT, b"Content-Type: text/event-stream ;x"),
    "events of HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + SSE + b"\r\n\r\n" + EVENT,
    "events ended by CR": http(EVENT.replace(b"\n", b"\r"), SSE),
    "events ended by CR LF": http(EVENT.replace(b"\n", b"\r\n"), SSE),
    "a byte order mark": http(b"\xef\xbb\xbf" + EVENT, SSE),
    "comments between": http(b": a\n\n:\n" + EVENT, SSE),
    "data in lines": http(
        b"data:" + LIST[:HALF] + b"\nid: 3\ndata: " + LIST[HALF:] + b"\nretry: 1\n\n", SSE
    ),
    "a field of another name": http(b"event: list\ndatax: y\n" + EVENT, SSE),
    "two lists in a stream": http(EVENT + EVENT, SSE),
    "bytes one by one": CODED % SSE + chunked(*[EVENT[n : n + 1] for n in range(len(EVENT))]),
    "a chunk that ends in CR": CODED % SSE + chunked(b"data: " + LIST + b"\r", b"\n\r", b"\n"),
}
UNSHOWN = {
    "text after it": http(LIST + b"\nx", b"Content-Type: application/json"),
    "two lists": http(LIST + b"\n" + LIST, b"Content-Type: application/x-ndjson"),
    "a byte order mark": http(b"\xef\xbb\xbf" + LIST, b"Content-Type: application/json"),
    "a batch": http(b"[" + LIST + b"]", b"Content-Type: application/json"),
    "no result": http(
        LIST.replace(b'"result"', b'"RESULT": {}, "result"'), b"Content-Type: application/json"
    ),
    "the list twice": http(
        LIST.replace(b'"tools"', b'"tools":[],"tools"'), b"Content-Type: application/json"
    ),
    "events without a type": http(EVENT),
    "events as JSON": http(EVENT, b"Content-Type: application/json"),
    "an event without an end": http(EVENT[:-1], SSE),
    "an event cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n" + SSE + b"\r\n\r\n" + EVENT[:-1],
    "an event that is no JSON": http(b"data: x\ndata: " + LIST + b"\n\n", SSE),
    "an event with a batch": http(b"data: [" + LIST + b"]\n\n", SSE),
    "JSON cut short": b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + LIST[:-1],
    "a list that is too long": http(
        LIST + b" " * 300_000, b"Content-Type: application/json"
    ),
    "an event that is too long": http(b"data: " + LIST + b" " * 300_000 + b"\n\n", SSE),
}  # fmt: skip
FILTERING = {**DENY, "limits": {"max_listing_bytes": 200_000}}


@pytest.mark.parametrize("name", SHOWN)
async def test_a_list_is_filtered_in_whatever_form_it_comes(tmp_path, name):
    async with running(tmp_path, FILTERING) as gateway:
        gateway.upstream.answer = says(SHOWN[name], close=True)
        said = await raw(gateway, ask(gateway, message("tools/list")))
        assert b"dangerous_delete" not in said
        assert b"read_file" in said, said


@pytest.mark.parametrize("name", UNSHOWN)
async def test_a_list_that_could_be_read_otherwise_is_not_shown(tmp_path, name):
    async with running(tmp_path, FILTERING) as gateway:
        gateway.upstream.answer = says(UNSHOWN[name], close=True)
        said = await raw(gateway, ask(gateway, message("tools/list")))
        assert b"dangerous_delete" not in said
        assert b"read_file" not in said


def ask(gateway, value, *headers):
    body = json.dumps(value).encode()
    lines = b"".join(b"%b\r\n" % line for line in (b"Connection: close", *headers))
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def test_a_list_is_filtered_wherever_it_can_come_again(tmp_path):
    async def answer(seen, reply):
        await reply.json(LISTED)

    async with running(tmp_path, DENY) as gateway:
        gateway.upstream.answer = answer
        for said in (
            await raw(gateway, ask(gateway, message("ping"), b"Last-Event-ID: 3")),
            await raw(gateway, ask(gateway, message("tasks/result", {"taskId": "t"}))),
            await raw(gateway, b"GET /mcp/demo HTTP/1.0\r\nHost: localhost\r\n\r\n"),
        ):
            assert b"read_file" in said
            assert b"dangerous_delete" not in said


# -- memory, time, descriptors ------------------------------------------------------


async def test_many_requests_sent_ahead_hold_up_nobody_else(tmp_path):
    async with running(tmp_path) as gateway:

        async def attack():
            async with await gateway.connect() as client, trio.open_nursery() as nursery:
                one = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
                nursery.start_soon(client.raw, one * 10_000)
                answers = 0
                with trio.fail_after(20):
                    while answers < 10_000:
                        answers += (await client.stream.receive_some(1 << 20)).count(b" 404 ")

        waits = await waits_during(gateway, attack)
        assert max(waits) < 1
        assert len(waits) > 40


async def test_a_large_message_holds_up_nobody_else(tmp_path):
    numbers = b",".join([b"1"] * 1_000_000)
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        b'"params":{"name":"echo","arguments":{"a":[' + numbers + b"]}}}"
    )
    rules = {"echo": {"args": {"b": {"equals": "x"}}}}
    async with running(tmp_path, policy(tool_rules=rules)) as gateway:

        async def attack():
            assert (await gateway.post(body)).status == 200

        assert max(await waits_during(gateway, attack)) < 0.5
        assert gateway.upstream.seen[0].body == body


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_large_list_holds_up_nobody_else(tmp_path, streamed):
    entries = b",".join(b'{"name":"t%d","x":[1,1,1,1]}' % n for n in range(40_000))
    body = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[' + entries + b"]}}"
    answer = http(b"data: " + body + b"\n\n", SSE) if streamed else http(body)

    async with running(tmp_path, policy(deny_tools=["t7"])) as gateway:
        gateway.upstream.answer = says(answer, close=True)

        async def attack():
            response = await gateway.post(message("tools/list"))
            assert b'"t7"' not in response.body
            assert b'"t39999"' in response.body

        assert max(await waits_during(gateway, attack)) < 0.5


async def test_a_stranger_can_not_make_the_gateway_read_a_large_message(tmp_path):
    auth = {"enabled": True, "type": "bearer", "token": "t" * 20}
    config = {"auth": auth, "limits": {"max_unauthenticated_bytes": 1000}}
    async with running(tmp_path, config) as gateway:
        # It comes in one piece, with the head; what it says is not looked at.
        refused = await gateway.post(call("echo", {"x": "y" * 20_000}, id="read?"))
        assert refused.status == 401
        assert refused.json["id"] is None
        # A refusal reaches even who has not yet sent everything.
        refused = await gateway.post(call("echo", {"x": "y" * 3_000_000}))
        assert refused.status == 401
        assert [line["method"] for line in await gateway.audit(2)] == ["POST", "POST"]


async def test_one_message_asks_for_a_bounded_number_of_judgements(tmp_path):
    async with running(tmp_path, policy(deny_resources=["file:///etc/*"])) as gateway:
        uris = [f"f://a/%2525{n}/../b" for n in range(20_000)]
        wanted = message("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})
        assert (await gateway.post(wanted)).status == 400
        assert gateway.upstream.seen == []


async def test_connections_without_a_request_keep_nobody_out(tmp_path):
    async with running(tmp_path, {"limits": {"max_connections": 8}}) as gateway:
        held = [await gateway.connect() for _ in range(12)]
        with trio.fail_after(5):
            for _ in range(5):
                assert (await gateway.post(call("echo"))).status == 200
        for client in held:
            await client.aclose()


async def test_streams_that_stay_open_keep_nobody_out(tmp_path):
    async def answer(seen, reply):
        if seen.method == "POST":
            await plain_mcp(seen, reply)
            return
        await reply.start_events()
        while True:
            await reply.event(b": x\n\n", raw=True)
            await trio.sleep(0.05)

    config = {"servers": [{"name": "demo", "max_connections": 2}], "timeouts": {"connect": "1s"}}
    async with running(tmp_path, config) as gateway, contextlib.AsyncExitStack() as held:
        gateway.upstream.answer = answer
        for _ in range(6):
            client = await held.enter_async_context(await gateway.connect())
            await client.raw(client.render("GET", "/mcp/demo"))
            assert (await client.head("GET")).status == 200
        assert (await gateway.post(call("echo"))).status == 200


async def test_over_tls_a_slow_server_is_a_504_and_a_silent_client_keeps_nobody_out(tmp_path):
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "server.pem"
    )
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)

    async def answer(seen, reply):
        if seen.message["id"] == "slow":
            await trio.sleep_forever()
        await plain_mcp(seen, reply)

    config = {
        "tls": {"cert": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.pem")},
        "servers": [{"name": "demo", "timeouts": {"head": "300ms"}}],
        "timeouts": {"read": "500ms"},
    }
    async with running(tmp_path, config) as gateway, contextlib.AsyncExitStack() as held:
        gateway.upstream.answer = answer

        async def connected():
            stream = await trio.open_ssl_over_tcp_stream(
                gateway.host, gateway.port, ssl_context=trusted
            )
            return await held.enter_async_context(Client(stream, "localhost"))

        # One never begins to shake hands, one talks something else, one sends half a request.
        await held.enter_async_context(await gateway.connect())
        plain = await held.enter_async_context(await gateway.connect())
        await plain.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        half = await connected()
        await half.raw(HEAD)
        client = await connected()
        with trio.fail_after(5):
            assert (await client.post(call("echo", id="slow"))).status == 504
            assert (await half.response()).status == 408
            assert (await (await connected()).post(call("echo"))).status == 200


TROUBLE = {
    "silence": (b"", 504),
    "half a head": (b"HTTP/1.1 200 OK\r\nX: ", 504),
    "endless 1xx": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, 502),
    "endless headers": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000, 502),
    "an endless header": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, 502),
    "an endless chunk size": (CODED % b"X: y" + b"0" * 1000, 502),
    "chunk extensions": (CODED % b"X: y" + b"1;" + b"x" * 1000, 502),
}


@pytest.mark.parametrize("name", TROUBLE)
async def test_a_server_that_stalls_or_never_ends_is_cut_and_others_are_served(tmp_path, name):
    data, status = TROUBLE[name]

    async def answer(seen, reply):
        if seen.message["id"] == "well-behaved":
            await plain_mcp(seen, reply)
            return
        await reply.raw(data)
        await trio.sleep_forever()

    config = {"timeouts": {"head": "300ms", "idle": "300ms"}}
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        async with await gateway.connect() as client:
            await client.raw(client.render("POST", "/mcp/demo", call("echo")))
            assert (await gateway.post(call("echo", id="well-behaved"))).status == 200
            with trio.fail_after(5):
                said = await client.response()
        assert said.status == status
        with trio.fail_after(2):
            while gateway.app.state.pools["demo"].in_use:
                await trio.sleep(0.01)


async def test_an_endless_list_in_tiny_chunks_is_cut(tmp_path):
    async def answer(seen, reply):
        await reply.raw(CODED % b"Content-Type: application/json")
        while True:
            await reply.raw(b"1\r\n \r\n" * 5000)

    config = {**DENY, "limits": {"max_listing_bytes": 50_000}}
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        with trio.fail_after(5):
            assert (await gateway.post(message("tools/list"))).status == 502


async def test_an_answer_nested_without_end_is_passed_on_or_refused(tmp_path):
    body = b'{"jsonrpc":"2.0","id":1,"result":{"x":' + b"[" * 5000 + b"]" * 5000 + b"}}"
    async with running(tmp_path, DENY) as gateway:
        gateway.upstream.answer = says(http(body, b"Content-Type: application/json"))
        passed = await gateway.post(call("echo"))
        assert (passed.status, passed.body) == (200, body)
        gateway.upstream.answer = says(http(b"data: " + body + b"\n\n", SSE))
        assert body in (await gateway.post(call("echo"))).body
        gateway.upstream.answer = says(http(body, b"Content-Type: application/json"))
        assert (await gateway.post(message("tools/list"))).status == 502
        outcomes = [line["outcome"] for line in await gateway.audit(3)]
        assert outcomes == ["unread", "unread", "upstream_error"]


async def test_whatever_clients_do_nothing_of_it_stays(tmp_path):
    async def answer(seen, reply):
        if seen.method == "GET" or seen.message["params"]["name"] == "stream":
            await reply.start_events()
            while True:
                await reply.event(b": x\n\n", raw=True)
                await trio.sleep(0.05)
        if seen.message["params"]["name"] == "slow":
            await trio.sleep(0.3)
        await plain_mcp(seen, reply)

    async def abuse(gateway, number):
        client = await gateway.connect()
        whole = client.render("POST", "/mcp/demo", call("slow", id=number))
        pieces = (
            b"",
            whole[:20],
            whole[:-5],
            whole,
            whole * 3,
            client.render("GET", "/mcp/demo"),
            client.render("POST", "/mcp/demo", call("stream")),
            b"\x16\x03\x01\x02\x00",
            whole.replace(b"HTTP/1.1", b"HTTP/1.0"),
        )
        with contextlib.suppress(trio.BrokenResourceError):
            await client.raw(pieces[number % len(pieces)])
            if number % 2:
                await client.stream.send_eof()
            await trio.sleep(0.01 * (number % 7))
        await client.aclose()

    async with running(tmp_path, {"timeouts": {"read": "1s", "total": "2s"}}) as gateway:
        gateway.upstream.answer = answer
        assert (await gateway.post(call("echo"))).status == 200
        before = len(os.listdir("/proc/self/fd"))
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(abuse, gateway, number)
        pool = gateway.app.state.pools["demo"]
        with trio.fail_after(10):
            while pool.in_use or gateway.app._listener.connections:
                await trio.sleep(0.02)
        pool.reap(trio.current_time() + 1000)
        with trio.fail_after(5):
            while gateway.upstream.open or len(os.listdir("/proc/self/fd")) > before:
                await trio.sleep(0.02)
        assert gateway.app.state.open_streams == set()
        assert "mcpx_requests_in_flight 1.0" in await gateway.metrics()
        assert (await gateway.post(call("echo"))).status == 200


# -- the records --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000, 431),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", 413),
        (HEAD + b"Expect: x\r\nContent-Length: 1\r\n\r\n", 417),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (HEAD + b"Content-Length: 5\r\n\r\n{", 408),
    ],
)
async def test_what_is_no_request_is_answered_counted_and_recorded(tmp_path, data, status):
    async with running(tmp_path, {"timeouts": {"read": "200ms"}}) as gateway:
        said = await raw(gateway, data)
        assert said.startswith(b"HTTP/1.1 %d " % status)
        (line,) = await gateway.audit(1)
        assert (line["status"], line["allowed"]) == (status, False)
        assert (line["outcome"], line["client_ip"]) == ("refused", "127.0.0.1")
        assert b"x-request-id: " + line["request_id"].encode() in said
        family = f'method="other",server="other",status_code="{status // 100}xx"'
        assert family in await gateway.metrics()


async def test_a_record_names_what_was_read_and_got(tmp_path):
    async with running(tmp_path, policy(deny_prompts=["secret"])) as gateway:
        await gateway.post(message("resources/read", {"uri": "file:///data/x"}))
        await gateway.post(message("prompts/get", {"name": "secret"}))
        await gateway.post(call("echo"))
        lines = await gateway.audit(3)
        assert [line.get("target") for line in lines] == ["file:///data/x", "secret", None]


async def test_no_name_ends_a_line_or_says_something_else_in_it(tmp_path):
    evil = 'x\n{"time":"forged"}\x1b[2J\u2028\u202e\x9b31m","allowed":true,"tool":"y'
    async with running(tmp_path) as gateway:
        await gateway.post(call(evil))
        await gateway.post(message("resources/read", {"uri": evil}))
        await gateway.post(message(evil[:100]))
        await gateway.post(
            call("echo"), headers=[("User-Agent", "a\x1b[2J"), ("X-Request-ID", "e")]
        )
        await gateway.post(call("z" * 100_000))
        lines = await gateway.audit(5)
        assert len(lines) == 5
        assert [line["allowed"] for line in lines] == [False] * 3 + [False, False]
        text = (tmp_path / "audit.jsonl").read_text()
        for character in "\x1b\u2028\u202e\x9b\x7f":
            assert character not in text
        assert max(map(len, text.splitlines())) < 10_000


async def test_strangers_can_not_use_up_what_clients_share(tmp_path):
    config = {
        "auth": {"enabled": True, "type": "bearer", "token": "t" * 20},
        "rate_limit": {
            "enabled": True, "rps": 0.01, "burst": 5, "client_rps": 0.01, "client_burst": 4,
        },
    }  # fmt: skip
    async with running(tmp_path, config) as gateway:
        for _ in range(10):
            assert (await gateway.get("/health")).status in (200, 429)
            assert (await gateway.get("/servers")).status in (401, 429)
            assert (await gateway.post(call("echo"))).status in (401, 429)
        headers = [("Authorization", "Bearer " + "t" * 20)]
        for status in (200, 200, 200, 200, 429):
            assert (await gateway.post(call("echo"), headers=headers)).status == status


async def test_a_claim_about_the_address_evades_no_limit(tmp_path):
    config = {
        "rate_limit": {
            "enabled": True, "rps": 1000, "burst": 1000, "client_rps": 0.01, "client_burst": 3,
        }
    }  # fmt: skip
    async with running(tmp_path, config) as gateway:
        statuses = []
        for number in range(6):
            headers = [
                ("X-Forwarded-For", f"203.0.113.{number}"),
                ("X-Real-IP", f"203.0.113.{number}"),
                ("Forwarded", f"for=203.0.113.{number}"),
                ("Mcp-Session-Id", f"s{number}.{'x' * 22}"),
            ]
            statuses.append((await gateway.post(call(f"t{number}"), headers=headers)).status)
        assert statuses == [404] * 3 + [429] * 3


# -- reloads ------------------------------------------------------------------------


async def test_the_audit_moves_under_load_and_no_line_is_lost(tmp_path):
    async with running(tmp_path) as gateway:
        answered = []
        done = trio.Event()

        async def load():
            async with await gateway.connect() as client:
                while not done.is_set():
                    response = await client.post(call("echo", id=1))
                    answered.append(response.header("x-request-id"))

        paths = [tmp_path / f"audit{number}.jsonl" for number in range(3)]
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(load)
            for number in range(12):
                audit = {"enabled": True, "output": "file", "path": str(paths[number % 3])}
                assert await gateway.reload({"audit": audit})
            done.set()
        await gateway.app.state.audit.flush()
        written = [
            json.loads(line)["request_id"]
            for path in (tmp_path / "audit.jsonl", *paths)
            for line in path.read_text().splitlines()
        ]
        assert sorted(written) == sorted(answered)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\xff\xfe", b"\x00", b"[" * 100_000, b"a: &a [*a]", b"- " * 50_000, b"servers: 7",
     b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b]\n",
     "folder"],
)  # fmt: skip
async def test_a_file_that_is_gone_or_no_configuration_changes_nothing(tmp_path, content):
    async with running(tmp_path, DENY) as gateway:
        before = gateway.app.state.snapshot
        gateway.path.unlink()
        if content == "folder":
            gateway.path.mkdir()
        elif content is not None:
            gateway.path.write_bytes(content)
        with trio.fail_after(10):
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGHUP)
            reloaded = await gateway.app.reload("a test")
        if content != b"":
            assert not reloaded
            assert gateway.app.state.snapshot is before
            assert (await gateway.post(FORBIDDEN)).status == 403
            assert (await gateway.post(call("echo"))).status == 200
        assert (await gateway.get("/health/live")).status == 200
