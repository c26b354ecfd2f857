"""Connections to a server are bounded, used again when that is safe, and never lost.

It is long because each way in which a server can fail is a test of its own.
"""

import gc
import os
import ssl

import pytest
import trio
import trio.testing
from support.recorder import Recorder, plain_mcp

from mcpx.config.forms import parse_upstream_url
from mcpx.config.snapshot import Timeouts
from mcpx.errors import Overloaded, UpstreamError
from mcpx.protocol.http1 import ResponseParser, request_head
from mcpx.transport.deadlines import Watch
from mcpx.transport.readiness import Readiness
from mcpx.transport.upstream import IDLE_S, WAITING_PER_CONNECTION, UpstreamPool

CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}'


def watch():
    return Watch(trio.CancelScope())


def parser():
    return ResponseParser(max_header_bytes=65536, max_header_count=100)


def pool_to(url, *, connections=4, tls=None, server_name="localhost", readiness=None):
    timeouts = Timeouts(connect_s=5, head_s=5, idle_s=5, stream_idle_s=5, total_s=5)
    return UpstreamPool(
        parse_upstream_url(url), timeouts, max_connections=connections, tls=tls,
        server_name=server_name, parser=parser, readiness=readiness,
    )  # fmt: skip


def request(body=CALL):
    return request_head("POST", b"/mcp", [(b"host", b"localhost")], length=len(body)) + body


async def ask(pool, *, repeatable=False, body=CALL):
    """One whole exchange; the answer's status and body."""
    with await pool.exchange("POST", request(body), watch(), repeatable=repeatable) as answer:
        data = b""
        while more := await answer.chunk():
            data += more
        return answer.head.status, data


@pytest.fixture
async def recorder(nursery):
    return await nursery.start(Recorder().run)


@pytest.fixture
def pool(recorder):
    with closing(pool_to(recorder.url)) as pool:
        yield pool


class closing:
    def __init__(self, pool):
        self.pool = pool

    def __enter__(self):
        return self.pool

    def __exit__(self, *_):
        self.pool.close()


async def serve(nursery, handler):
    """A server whose every connection ``handler(stream)`` serves; its URL."""

    async def forgiving(stream):
        try:
            await handler(stream)
        except trio.BrokenResourceError:
            pass

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(
        lambda task_status: trio.serve_listeners(forgiving, listeners, task_status=task_status)
    )
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/mcp"


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def head_of(stream):
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some(65536)
        if not more:
            return b""
        data += more
    return data


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_connection_is_used_again(pool, recorder):
    for _ in range(5):
        assert (await ask(pool))[0] == 200
    assert recorder.connections == 1
    assert pool.in_use == 0


async def test_the_bound_holds_and_everybody_is_served(nursery):
    now = most = 0

    async def answer(seen, reply):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(0.001)
        now -= 1
        await plain_mcp(seen, reply)

    recorder = await nursery.start(Recorder().run)
    recorder.answer = answer
    statuses = []
    with closing(pool_to(recorder.url, connections=13)) as pool:

        async def one():
            statuses.append((await ask(pool))[0])

        with trio.fail_after(20):
            async with trio.open_nursery() as clients:
                for _ in range(200):
                    clients.start_soon(one)
        assert statuses == [200] * 200
        assert 1 < most <= 13
        assert recorder.connections <= 13
        assert pool.in_use == 0


async def test_too_many_that_wait_are_told_to_come_back(pool, recorder, nursery):
    recorder.answer = lambda seen, reply: trio.sleep_forever()
    async with trio.open_nursery() as clients:
        for _ in range(4 + 4 * WAITING_PER_CONNECTION):
            clients.start_soon(ask, pool)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded) as refused:
            await ask(pool)
        assert (b"retry-after", b"1") in refused.value.headers
        clients.cancel_scope.cancel()
    assert pool.in_use == 0


async def test_who_waits_and_is_cancelled_takes_no_place(recorder, nursery):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    recorder.answer = answer
    with closing(pool_to(recorder.url, connections=1)) as pool:
        done = []

        async def one(name, scope):
            with scope:
                await ask(pool)
                done.append(name)

        scopes = {name: trio.CancelScope() for name in "abc"}
        async with trio.open_nursery() as clients:
            for name, scope in scopes.items():
                clients.start_soon(one, name, scope)
                await trio.testing.wait_all_tasks_blocked()
            # "b" is first in the queue and goes; then the one who has the place.
            scopes["b"].cancel()
            await trio.testing.wait_all_tasks_blocked()
            release.set()
        assert done == ["a", "c"]
        assert pool.in_use == 0
        assert (await ask(pool))[0] == 200


async def test_who_is_given_a_place_and_cancelled_in_the_same_moment_hands_it_on(recorder):
    with closing(pool_to(recorder.url, connections=1)) as pool:
        done = []

        async def one(name, scope):
            with scope:
                await ask(pool)
                done.append(name)

        first = await pool.exchange("POST", request(), watch(), repeatable=False)
        scope = trio.CancelScope()
        with trio.fail_after(5):
            async with trio.open_nursery() as clients:
                clients.start_soon(one, "b", scope)
                await trio.testing.wait_all_tasks_blocked()
                clients.start_soon(one, "c", trio.CancelScope())
                await trio.testing.wait_all_tasks_blocked()
                with first:
                    while await first.chunk():
                        pass
                # "b" has the place now, and has not yet run.
                scope.cancel()
        assert done == ["c"]
        assert pool.in_use == 0


async def test_a_cancelled_exchange_closes_its_connection_and_frees_its_place(pool, recorder):
    recorder.answer = lambda seen, reply: trio.sleep_forever()
    await trio.testing.wait_all_tasks_blocked()
    before = descriptors()
    for _ in range(10):
        arrived = recorder.arrived
        async with trio.open_nursery() as clients:
            clients.start_soon(ask, pool)
            await arrived.wait()
            clients.cancel_scope.cancel()
    assert pool.in_use == 0
    recorder.answer = plain_mcp
    assert (await ask(pool))[0] == 200
    pool.close()
    with trio.fail_after(5):
        # A recorder that sleeps for ever sees nothing; only our ends count: at most its own.
        assert descriptors() <= before + 11


async def test_a_cancelled_handshake_leaks_neither_place_nor_socket(nursery, certificate):
    async def silent(stream):
        await trio.sleep_forever()

    url = (await serve(nursery, silent)).replace("http:", "https:")
    with closing(pool_to(url, tls=certificate.client())) as pool:
        await trio.testing.wait_all_tasks_blocked()
        before = descriptors()
        for _ in range(8):
            with trio.move_on_after(0.02):
                await ask(pool)
        assert pool.in_use == 0
        # The server, which does nothing, keeps its end of each.
        assert descriptors() == before + 8


async def test_a_connection_that_nobody_accepts_leaks_neither_place_nor_socket(monkeypatch):
    async def never(*_, **__):
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    with closing(pool_to("http://127.0.0.1:9/mcp")) as pool:
        for _ in range(10):
            with trio.move_on_after(0.001):
                await ask(pool)
        assert pool.in_use == 0


async def test_a_server_that_is_not_there_is_a_502_that_names_no_address():
    with closing(pool_to("http://127.0.0.1:9/mcp")) as pool:
        for _ in range(10):
            with pytest.raises(UpstreamError) as failed:
                await ask(pool)
            assert failed.value.status == 502
            assert "127.0.0.1" not in failed.value.message
            assert "connect" in failed.value.reason
        assert pool.in_use == 0


async def test_a_server_that_does_not_speak_tls_is_a_502(nursery, certificate):
    async def plain(stream):
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    url = (await serve(nursery, plain)).replace("http:", "https:")
    with closing(pool_to(url, tls=certificate.client())) as pool:
        with pytest.raises(UpstreamError, match="TLS"):
            await ask(pool)
        assert pool.in_use == 0


async def test_tls_is_spoken_to_the_name_that_is_verified(nursery, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)

    async def secure(stream):
        stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            while await head_of(stream):
                await stream.send_all(OK)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    url = (await serve(nursery, secure)).replace("http:", "https:")
    with closing(pool_to(url, tls=certificate.client())) as pool:
        assert await ask(pool) == (200, b"ok")
        assert await ask(pool) == (200, b"ok")
    with closing(pool_to(url, tls=certificate.client(), server_name="other.example")) as pool:
        with pytest.raises(UpstreamError, match="TLS"):
            await ask(pool)


class Closing:
    """Answers once on each connection, then closes at the next request's head."""

    def __init__(self):
        self.requests = 0
        self.connections = 0

    async def __call__(self, stream):
        self.connections += 1
        async with stream:
            if await head_of(stream):
                self.requests += 1
                await stream.send_all(OK)
            if await head_of(stream):
                self.requests += 1


async def test_a_kept_connection_that_breaks_is_replaced_for_what_may_be_repeated(nursery):
    server = Closing()
    with closing(pool_to(await serve(nursery, server))) as pool:
        assert await ask(pool, repeatable=True) == (200, b"ok")
        assert await ask(pool, repeatable=True) == (200, b"ok")
        assert (server.connections, server.requests) == (2, 3)


async def test_a_call_is_never_sent_twice(nursery):
    server = Closing()
    with closing(pool_to(await serve(nursery, server))) as pool:
        assert await ask(pool) == (200, b"ok")
        with pytest.raises(UpstreamError) as failed:
            await ask(pool)
        assert failed.value.status == 502
        assert (server.connections, server.requests) == (1, 2)
        assert pool.in_use == 0


async def test_what_was_closed_while_it_idled_is_replaced_for_every_request(nursery):
    served = 0

    async def once(stream):
        nonlocal served
        async with stream:
            await head_of(stream)
            served += 1
            await stream.send_all(OK)

    with closing(pool_to(await serve(nursery, once))) as pool:
        for number in range(3):
            assert await ask(pool) == (200, b"ok")
            await trio.testing.wait_all_tasks_blocked()
            assert served == number + 1


async def test_nothing_is_repeated_once_a_byte_of_the_answer_has_come(nursery):
    requests = 0

    async def half(stream):
        nonlocal requests
        async with stream:
            await head_of(stream)
            requests += 1
            await stream.send_all(OK)
            await head_of(stream)
            requests += 1
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConte")

    with closing(pool_to(await serve(nursery, half))) as pool:
        assert await ask(pool, repeatable=True) == (200, b"ok")
        with pytest.raises(UpstreamError):
            await ask(pool, repeatable=True)
        assert requests == 2


async def test_a_new_connection_that_breaks_is_not_tried_again(nursery):
    connections = 0

    async def rude(stream):
        nonlocal connections
        connections += 1
        async with stream:
            await head_of(stream)

    with closing(pool_to(await serve(nursery, rude))) as pool:
        with pytest.raises(UpstreamError):
            await ask(pool, repeatable=True)
        assert connections == 1


async def test_an_early_answer_to_an_unfinished_upload_is_delivered(nursery):
    async def early(stream):
        async with stream:
            await head_of(stream)
            await stream.send_all(
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large"
            )
            # The rest is read, but not to its end: the client can't have sent it all.
            await trio.sleep(0.05)

    with closing(pool_to(await serve(nursery, early))) as pool:
        status, body = await ask(pool, body=b"x" * 30_000_000)
        assert (status, body) == (413, b"too large")
        assert pool.in_use == 0


async def test_an_answer_with_surplus_bytes_is_delivered_and_its_connection_closed(nursery):
    connections = 0

    async def generous(stream):
        nonlocal connections
        connections += 1
        async with stream:
            while await head_of(stream):
                await stream.send_all(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    with closing(pool_to(await serve(nursery, generous))) as pool:
        assert await ask(pool) == (200, b"ok")
        assert await ask(pool) == (200, b"ok")
        assert connections == 2


async def test_bytes_out_of_turn_on_an_idle_connection_are_never_an_answer(nursery):
    connections = 0

    async def talkative(stream):
        nonlocal connections
        connections += 1
        async with stream:
            while await head_of(stream):
                await stream.send_all(OK)
                await trio.sleep(0.01)
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    with closing(pool_to(await serve(nursery, talkative))) as pool:
        assert await ask(pool) == (200, b"ok")
        await trio.sleep(0.05)
        assert await ask(pool) == (200, b"ok")
        assert connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
)
async def test_a_connection_that_the_server_does_not_keep_is_not_kept(nursery, answer):
    connections = 0

    async def once(stream):
        nonlocal connections
        connections += 1
        async with stream:
            await head_of(stream)
            await stream.send_all(answer)

    with closing(pool_to(await serve(nursery, once))) as pool:
        assert await ask(pool) == (200, b"ok")
        assert await ask(pool) == (200, b"ok")
        assert connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000,
    ],
)
async def test_an_answer_that_is_not_http_is_a_502(nursery, answer):
    async def bad(stream):
        async with stream:
            await head_of(stream)
            await stream.send_all(answer)

    with closing(pool_to(await serve(nursery, bad))) as pool:
        with pytest.raises(UpstreamError) as failed:
            await ask(pool, repeatable=True)
        assert failed.value.status == 502
        assert pool.in_use == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
    ],
)
async def test_an_answer_that_is_cut_is_an_error_and_not_an_end(nursery, answer):
    async def cut(stream):
        async with stream:
            await head_of(stream)
            await stream.send_all(answer)

    with closing(pool_to(await serve(nursery, cut))) as pool:
        with pytest.raises(UpstreamError, match="cut short|not valid HTTP"):
            await ask(pool)
        assert pool.in_use == 0


async def test_an_answer_that_is_left_unread_closes_its_connection(pool, recorder):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event(b": x\n\n", raw=True)
        await trio.sleep_forever()

    recorder.answer = answer
    with await pool.exchange("POST", request(), watch(), repeatable=False) as answered:
        assert await answered.chunk() == b": x\n\n"
        assert not answered.complete
        assert pool.in_use == 1
    assert pool.in_use == 0
    recorder.answer = plain_mcp
    assert (await ask(pool))[0] == 200
    assert recorder.connections == 2


async def test_a_stream_holds_no_place_that_others_wait_for(recorder):
    async def answer(seen, reply):
        await reply.start_events()
        await trio.sleep_forever()

    recorder.answer = answer
    with closing(pool_to(recorder.url, connections=1)) as pool:
        streams = []
        for number in range(3):
            stream = await pool.exchange("POST", request(), watch(), repeatable=False)
            stream.streams()
            streams.append(stream)
            assert pool.in_use == number + 1
        recorder.answer = plain_mcp
        assert (await ask(pool))[0] == 200
        for stream in streams:
            with stream:
                pass
        assert pool.in_use == 0
        # The bound still holds for what is no stream.
        with await pool.exchange("POST", request(), watch(), repeatable=False):
            with trio.move_on_after(0.05) as waited:
                await ask(pool)
            assert waited.cancelled_caught


async def test_what_idles_too_long_is_closed_and_what_does_not_is_kept(pool, recorder):
    await ask(pool)
    pool.reap(trio.current_time() + IDLE_S - 1)
    await ask(pool)
    assert recorder.connections == 1
    pool.reap(trio.current_time() + IDLE_S + 1)
    await ask(pool)
    assert recorder.connections == 2


async def test_a_pool_that_is_closed_while_in_use_finishes_and_keeps_nothing(pool, recorder):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    await ask(pool)
    recorder.answer = answer
    async with trio.open_nursery() as clients:
        statuses = []

        async def one():
            statuses.append((await ask(pool))[0])

        arrived = recorder.arrived
        clients.start_soon(one)
        await arrived.wait()
        pool.close()
        release.set()
    assert statuses == [200]
    with trio.fail_after(5):
        while recorder.open:
            await trio.sleep(0.01)


async def test_those_who_wait_at_a_pool_that_closes_are_served_all_the_same(recorder):
    with closing(pool_to(recorder.url, connections=1)) as pool:
        first = await pool.exchange("POST", request(), watch(), repeatable=False)
        statuses = []

        async def one():
            statuses.append((await ask(pool))[0])

        with trio.fail_after(5):
            async with trio.open_nursery() as clients:
                clients.start_soon(one)
                await trio.testing.wait_all_tasks_blocked()
                pool.close()
                with first:
                    while await first.chunk():
                        pass
        assert statuses == [200]
        assert pool.in_use == 0


async def test_each_wait_has_its_deadline(pool, recorder):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    recorder.answer = answer
    looked_at = watch()
    async with trio.open_nursery() as clients:

        async def one():
            with await pool.exchange("POST", request(), looked_at, repeatable=False):
                pass

        arrived = recorder.arrived
        clients.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        await arrived.wait()
        assert looked_at.phase == "upstream answer"
        assert 4 < looked_at.deadline - trio.current_time() <= 5
        release.set()


@pytest.mark.skipif(not Readiness.here, reason="this system has no epoll")
async def test_connections_wait_as_the_pool_was_told(recorder, nursery):
    readiness = Readiness()
    await nursery.start(readiness.run)
    readiness.share()
    with closing(pool_to(recorder.url, readiness=readiness)) as pool:
        for _ in range(3):
            assert (await ask(pool))[0] == 200
        assert len(readiness) == 1
    assert len(readiness) == 0
