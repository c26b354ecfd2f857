"""Streams, slow peers, reloads and the end of the gateway."""

import contextlib
import json

import pytest
import trio
from support.client import Client, call, message
from support.inprocess import Gateway, running, write
from support.recorder import Recorder, plain_mcp, result

from mcpx.app import App


async def test_each_event_arrives_when_it_is_sent(tmp_path):
    step = [trio.Event() for _ in range(3)]

    async def answer(seen, reply):
        await reply.start_events()
        for number in range(3):
            await step[number].wait()
            await reply.event({"jsonrpc": "2.0", "method": "notifications/progress",
                               "params": {"progressToken": 1, "progress": number}})  # fmt: skip
        await reply.event(result(seen, {"content": []}))
        await reply.end()

    async with running(tmp_path) as gateway, await gateway.connect() as client:
        gateway.upstream.answer = answer
        await client.raw(client.render("POST", "/mcp/demo", call("slow")))
        for number in range(3):
            # The next event is only sent once the last one has arrived here.
            step[number].set()
            if number == 0:
                head = await client.head()
                assert head.header("content-type") == "text/event-stream"
            text = await client.chunk()
            assert f'"progress": {number}'.encode() in text
        # The last event may have come together with the end.
        while more := await client.chunk():
            text += more
        assert b'"content"' in text
        assert (await gateway.audit(1))[0]["outcome"] == "ok"


async def test_a_get_stream_ends_when_its_client_leaves(tmp_path):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event(b": open\n\n", raw=True)
        await trio.sleep_forever()

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        client = await gateway.connect()
        await client.raw(client.render("GET", "/mcp/demo"))
        await client.head("GET")
        assert gateway.app.state.pools["demo"].in_use == 1
        await client.aclose()
        with trio.fail_after(5):
            while gateway.app.state.pools["demo"].in_use:
                await trio.sleep(0.01)
        lines = await gateway.audit(1)
        assert lines[0]["outcome"] == "client_gone"


async def test_a_modern_client_that_leaves_cancels_its_call(tmp_path):
    async def answer(seen, reply):
        await trio.sleep_forever()

    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        client = await gateway.connect()
        arrived = gateway.upstream.arrived
        await client.raw(client.render("POST", "/mcp/demo", message("tools/list", meta)))
        await arrived.wait()
        await client.aclose()
        lines = await gateway.audit(1)
        assert lines[0]["outcome"] == "client_gone"
        assert gateway.app.state.pools["demo"].in_use == 0


async def test_a_legacy_client_that_leaves_does_not_cancel(tmp_path):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        client = await gateway.connect()
        arrived = gateway.upstream.arrived
        await client.raw(client.render("POST", "/mcp/demo", call("echo")))
        await arrived.wait()
        await client.aclose()
        await trio.sleep(0.6)  # two ticks of the deadlines
        assert await gateway.audit() == []
        release.set()
        lines = await gateway.audit(1)
        assert lines[0]["status"] == 200


async def test_an_answer_that_is_cut_is_seen_to_be_cut(tmp_path):
    async def sized(seen, reply):
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Content-Length: 100000\r\n\r\n" + b"x" * 70000)  # fmt: skip
        await reply.hang_up()

    async def chunked(seen, reply):
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n")  # fmt: skip
        await trio.sleep(0.05)
        await reply.hang_up()

    async with running(tmp_path) as gateway:
        for answer in (sized, chunked):
            gateway.upstream.answer = answer
            client = await gateway.connect()
            await client.raw(client.render("POST", "/mcp/demo", call("echo")))
            data = await client.ends()
            assert data.startswith(b"HTTP/1.1 200") or b" 502 " in data
            assert not data.endswith(b"\r\n0\r\n\r\n")
            await client.aclose()
        assert [line["outcome"] for line in await gateway.audit(2)] == ["upstream_error"] * 2


async def test_large_answers_pass_whole_and_a_slow_reader_holds_back_the_server(tmp_path):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"x": "y" * 20_000_000}}).encode()
    sent = 0

    async def answer(seen, reply):
        nonlocal sent
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Content-Length: %d\r\n\r\n" % len(body))  # fmt: skip
        for start in range(0, len(body), 65536):
            await reply.raw(body[start : start + 65536])
            sent = start

    async with running(tmp_path) as gateway, await gateway.connect() as client:
        gateway.upstream.answer = answer
        await client.raw(client.render("POST", "/mcp/demo", call("echo")))
        head = await client.head()
        previous = -1
        with trio.fail_after(10):
            while sent != previous:
                previous = sent
                await trio.sleep(0.2)
        # The kernel's buffers are full on both hops; the gateway holds nothing more.
        assert 0 < sent < len(body) - 65536
        received = b""
        while data := await client.chunk():
            received += data
        assert head.header("content-length") == str(len(body))
        assert received == body


async def test_requests_that_are_sent_ahead_are_answered_in_order(tmp_path):
    async with running(tmp_path) as gateway, await gateway.connect() as client:
        requests = [
            client.render("POST", "/mcp/demo", call("echo", {"n": n}, n)) for n in range(20)
        ]
        await client.raw(b"".join(requests))
        for n in range(20):
            assert (await client.response()).json["id"] == n


async def test_a_slow_server_is_a_504_with_the_id(tmp_path):
    async def answer(seen, reply):
        await trio.sleep_forever()

    config = {"servers": [{"name": "demo", "timeouts": {"head": "300ms"}}]}
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(call("echo", id="slow"))
        assert response.status == 504
        assert response.json["id"] == "slow"
        (line,) = await gateway.audit(1)
        assert (line["status"], line["outcome"]) == (504, "timeout")


async def test_a_silent_server_in_mid_answer_is_cut(tmp_path):
    async def answer(seen, reply):
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Content-Length: 1000\r\n\r\n" + b"x" * 10)  # fmt: skip
        await trio.sleep_forever()

    config = {"servers": [{"name": "demo", "timeouts": {"idle": "300ms"}}]}
    async with running(tmp_path, config) as gateway, await gateway.connect() as client:
        gateway.upstream.answer = answer
        await client.raw(client.render("POST", "/mcp/demo", call("echo")))
        with trio.fail_after(5):
            await client.ends()


async def test_a_long_call_is_not_cut_by_a_write_timeout(tmp_path):
    async def answer(seen, reply):
        await trio.sleep(1.2)
        await plain_mcp(seen, reply)

    async with running(tmp_path, {"timeouts": {"write": "300ms", "read": "300ms"}}) as gateway:
        gateway.upstream.answer = answer
        headers = [("Accept", "application/json")]
        assert (await gateway.post(call("echo"), headers=headers)).status == 200


async def test_a_client_that_dribbles_is_cut_and_others_are_served(tmp_path):
    async with running(tmp_path, {"timeouts": {"read": "800ms"}}) as gateway:
        async with await gateway.connect() as client:
            with trio.fail_after(5):
                with contextlib.suppress(trio.BrokenResourceError):
                    for byte in client.render("POST", "/mcp/demo", call("echo")):
                        await client.raw(bytes([byte]))
                        await trio.sleep(0.05)
                        if byte % 7 == 0:
                            assert (await gateway.post(call("echo"))).status == 200
                assert b" 408 " in await client.ends()


async def test_a_client_that_never_reads_is_cut(tmp_path):
    body = b'{"x":"' + b"y" * 30_000_000 + b'"}'

    async def answer(seen, reply):
        await reply.json(body)

    async with running(tmp_path, {"timeouts": {"write": "500ms"}}) as gateway:
        gateway.upstream.answer = answer
        async with await gateway.connect() as client:
            await client.raw(client.render("POST", "/mcp/demo", call("echo")))
            lines = await gateway.audit(1)
        assert lines[0]["outcome"] == "client_stalled"
        gateway.upstream.answer = plain_mcp
        assert (await gateway.post(call("echo"))).status == 200


@pytest.mark.parametrize(
    "start",
    [b"GET / HTTP/1.1\r\nX: ", b"GET /" + b"a" * 10, b"X-A: b\r\n" * 10, b"\r\n" * 10],
)
async def test_an_endless_head_is_cut(tmp_path, start):
    async with running(tmp_path) as gateway, await gateway.connect() as client:
        await client.raw(start)
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            for _ in range(4000):
                await client.raw(b"a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n" * 4)
        with trio.fail_after(5):
            assert (await client.ends())[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")
        assert (await gateway.post(call("echo"))).status == 200


async def test_a_body_past_the_bound_is_refused_before_it_is_read(tmp_path):
    async with running(tmp_path, {"limits": {"max_body_bytes": 10_000}}) as gateway:
        response = await gateway.post(b"{" + b" " * 20_000)
        assert response.status == 413
        async with await gateway.connect() as client:
            await client.raw(client.render("POST", "/mcp/demo", None, [
                ("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]))  # fmt: skip
            with contextlib.suppress(trio.BrokenResourceError):
                for _ in range(100):
                    await client.raw(b"3e8\r\n" + b" " * 1000 + b"\r\n")
            assert b" 413 " in await client.ends()
        assert gateway.upstream.seen == []


async def test_who_has_no_credential_can_not_make_the_gateway_hold_a_large_body(tmp_path):
    config = {"auth": {"enabled": True, "type": "bearer", "token": "t" * 20}}
    async with running(tmp_path, config) as gateway, await gateway.connect() as client:
        head = client.render("POST", "/mcp/demo", b"", [("Content-Length", "1000000")])
        await client.raw(head)
        response = await client.response()
        assert response.status == 401
        assert (await gateway.audit(1))[0]["status"] == 401


async def test_a_hundred_continue_is_answered(tmp_path):
    async with running(tmp_path) as gateway, await gateway.connect() as client:
        body = json.dumps(call("echo")).encode()
        whole = client.render("POST", "/mcp/demo", body, [("Expect", "100-continue")])
        await client.raw(whole[: -len(body)])
        assert await client.stream.receive_some(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.raw(body)
        assert (await client.response()).status == 200


# -- reloads -----------------------------------------------------------------


async def load(gateway, seconds, counts, stop):
    """Requests on one connection until told to stop; each must be answered with 200."""
    async with await gateway.connect() as client:
        while not stop.is_set():
            response = await client.post(call("echo", {"n": counts["sent"]}))
            counts["sent"] += 1
            if response.status == 200 and "content" in response.json["result"]:
                counts["good"] += 1


async def test_reloads_under_load_lose_no_request(tmp_path):
    counts = {"sent": 0, "good": 0}
    stop = trio.Event()
    async with running(tmp_path) as gateway:
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(load, gateway, 0, counts, stop)
            for number in range(100):
                config = {"servers": [{"name": "demo", "policy": {"deny_tools": [f"x{number}"]},
                                       "max_connections": 100 + number % 3}]}  # fmt: skip
                assert await gateway.reload(config)
                if number % 5 == 0:
                    broken = {"servers": [{"name": "demo", "polcy": {}}]}
                    assert not await gateway.reload(broken)
            stop.set()
        assert counts["sent"] == counts["good"] > 100
        assert gateway.app.state.snapshot.generation == 101
        assert len(await gateway.audit(counts["sent"])) == counts["sent"]


@pytest.mark.parametrize(
    "fault",
    [
        {"servers": [{"name": "demo", "url": "http://"}]},
        {"servers": [{"name": "demo", "url": "ftp://x/y"}]},
        {"servers": [{"name": "demo"}, {"name": "demo"}]},
        {"servers": [{"name": "demo", "policy": {"read-only": True}}]},
        {"clients": {"x": {"servers": {"nowhere": {"read_only": True}}}}},
        {"auth": {"enabled": True}},
        {"audit": {"enabled": True, "output": "file", "path": "/proc/no/such/file"}},
        {"servers": [{"name": "demo", "url": "https://x/", "tls": {"ca": "/no/such/ca.pem"}}]},
    ],
)
async def test_a_configuration_with_a_fault_changes_nothing(tmp_path, fault):
    config = {"servers": [{"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}}]}
    async with running(tmp_path, config) as gateway:
        before = gateway.app.state.snapshot
        assert not await gateway.reload(fault)
        assert gateway.app.state.snapshot is before
        assert (await gateway.post(call("echo"))).status == 200
        assert (await gateway.post(call("dangerous_delete"))).status == 403


async def test_what_is_in_flight_ends_under_the_policy_that_it_began_with(tmp_path):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        responses = []

        async def ask():
            responses.append(await gateway.post(call("echo")))

        async with trio.open_nursery() as nursery:
            arrived = gateway.upstream.arrived
            nursery.start_soon(ask)
            await arrived.wait()
            denied = {"servers": [{"name": "demo", "policy": {"deny_tools": ["echo"]}}]}
            assert await gateway.reload(denied)
            assert (await gateway.post(call("echo"))).status == 403
            release.set()
        assert responses[0].status == 200


async def test_stopping_finishes_what_is_in_flight_and_writes_every_line(tmp_path):
    async def answer(seen, reply):
        await trio.sleep(0.3)
        await plain_mcp(seen, reply)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        statuses = []

        async def ask(number):
            statuses.append((await gateway.post(call("echo", id=number))).status)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
            with trio.fail_after(5):
                while len(gateway.upstream.seen) < 50:
                    await trio.sleep(0.01)
            gateway.app.stop()
        assert statuses == [200] * 50
        text = (tmp_path / "audit.jsonl").read_text()
        with trio.fail_after(5):
            while len(text.splitlines()) < 50:
                await trio.sleep(0.05)
                text = (tmp_path / "audit.jsonl").read_text()
        assert len({json.loads(line)["request_id"] for line in text.splitlines()}) == 50


async def test_a_unix_socket_serves_too(tmp_path):
    path = tmp_path / "mcpx.sock"
    async with on_unix_socket(tmp_path, path) as gateway:
        stream = await trio.open_unix_socket(str(path))
        async with Client(stream, "localhost") as client:
            assert (await client.post(call("echo"))).status == 200
        assert path.stat().st_mode & 0o777 == 0o660
        assert (await gateway.audit(1))[0]["client_ip"] == "unix"
    assert not path.exists()


@contextlib.asynccontextmanager
async def on_unix_socket(tmp_path, path):
    async with trio.open_nursery() as nursery:
        recorder = await nursery.start(Recorder().run)
        config, audit = tmp_path / "mcpx.yaml", tmp_path / "audit.jsonl"
        write(config, {"listen": f"unix:{path}"}, {"demo": recorder}, audit)
        app = App(str(config), {})
        await nursery.start(app.run)
        yield Gateway(app, "localhost:0", recorder, {"demo": recorder}, config, audit)
        app.stop()
        with trio.fail_after(5):
            while path.exists():
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_open_streams_take_no_place_from_calls(tmp_path):
    async def answer(seen, reply):
        if seen.method == "POST":
            await plain_mcp(seen, reply)
            return
        await reply.start_events()
        await reply.event(b": open\n\n", raw=True)
        await trio.sleep_forever()

    config = {"servers": [{"name": "demo", "max_connections": 2}]}
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        clients = [await gateway.connect() for _ in range(5)]
        for client in clients:
            await client.raw(client.render("GET", "/mcp/demo"))
            await client.head("GET")
        with trio.fail_after(2):
            assert (await gateway.post(call("echo"))).status == 200
        assert gateway.app.state.pools["demo"].in_use == 5
        for client in clients:
            await client.aclose()
        with trio.fail_after(5):
            while gateway.app.state.pools["demo"].in_use:
                await trio.sleep(0.01)
        assert not gateway.app.state.open_streams


async def test_a_silent_stream_is_cut_recorded_and_forgotten(tmp_path):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event(b": open\n\n", raw=True)
        await trio.sleep_forever()

    config = {"servers": [{"name": "demo", "timeouts": {"stream_idle": "300ms"}}]}
    async with running(tmp_path, config) as gateway, await gateway.connect() as client:
        gateway.upstream.answer = answer
        await client.raw(client.render("GET", "/mcp/demo"))
        with trio.fail_after(5):
            await client.ends()
        (line,) = await gateway.audit(1)
        assert line["outcome"] == "timeout"
        assert not gateway.app.state.open_streams


async def test_an_upload_that_keeps_coming_is_not_cut(tmp_path):
    body = json.dumps(call("echo", {"text": "x" * 30_000})).encode()
    async with running(tmp_path, {"timeouts": {"read": "500ms"}}) as gateway:
        async with await gateway.connect() as client:
            whole = client.render("POST", "/mcp/demo", body)
            # Over a second in all: more than twice what a head may take.
            for start in range(0, len(whole), 2000):
                await client.raw(whole[start : start + 2000])
                await trio.sleep(0.08)
            assert (await client.response()).status == 200
