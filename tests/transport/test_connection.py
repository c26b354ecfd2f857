"""One client's connection: its requests in order, its bounds kept, its end always clear."""

import contextlib
import socket

import pytest
import trio
import trio.testing

from mcpx.errors import LocalProtocolError
from mcpx.transport.connection import LINGER_S, Bounds, Connection
from mcpx.transport.deadlines import Deadlines
from mcpx.transport.http import Budget
from mcpx.transport.wire import Broken, PlainWire

TEXT = [(b"content-type", b"text/plain")]


class Served:
    """A connection that is served, and the socket of its client."""

    def __init__(self, connection, client, requests, deadlines):
        self.connection = connection
        self.client = client
        self.requests = requests
        self.deadlines = deadlines
        self.refused = []
        self.over = trio.Event()

    async def send(self, data):
        await self.client.send_all(data)

    async def until(self, text):
        """What comes, up to and with ``text``."""
        received = b""
        with trio.fail_after(5000):
            while text not in received:
                more = await self.client.receive_some(65536)
                assert more, received
                received += more
        return received

    async def rest(self):
        """What comes until the gateway closes."""
        received = b""
        with trio.fail_after(5000), contextlib.suppress(trio.BrokenResourceError):
            while more := await self.client.receive_some(65536):
                received += more
        return received


async def admit_all(*_):
    return None


async def echo(request, reply):
    body = b"%s %s %s" % (request.method.encode(), request.target, request.body)
    await reply.answer(200, TEXT, body)


@pytest.fixture
async def serve(nursery):
    """``await serve(handler, …)`` serves one connection."""
    opened = []

    async def start(handler=echo, *, admit=admit_all, **changes):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        opened.append(theirs)
        bounds = Bounds(**{
            "header_bytes": 2000, "header_count": 20, "body_bytes": 1000, "keep_alive_s": 60,
            "read_s": 10, "write_s": 20, **changes,
        })  # fmt: skip
        requests = []

        async def handle(request, reply):
            requests.append(request)
            await handler(request, reply)

        def unread(peer, scheme, reply, status, message):
            served.refused.append((status, message))
            return TEXT, message.encode()

        deadlines = Deadlines()
        connection = Connection(
            PlainWire(ours), peer="192.0.2.1", scheme="http", bounds=bounds,
            budget=Budget(1_000_000),
            handler=handle, admit=admit, unread=unread,
        )  # fmt: skip
        client = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        served = Served(connection, client, requests, deadlines)

        async def run():
            await connection.run(deadlines)
            served.over.set()

        await nursery.start(deadlines.run)
        nursery.start_soon(run)
        return served

    yield start
    for sock in opened:
        sock.close()


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body, *headers):
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (
        len(body), lines, body,
    )  # fmt: skip


async def test_a_connection_serves_one_request_after_the_other(serve):
    served = await serve()
    for number in range(3):
        await served.send(post(b"%d" % number))
        assert (await served.until(b"POST /b %d" % number)).startswith(b"HTTP/1.1 200 ")
    assert not served.over.is_set()
    assert (served.requests[0].peer, served.requests[0].scheme) == ("192.0.2.1", "http")


async def test_requests_that_are_sent_ahead_are_answered_in_order_one_at_a_time(serve):
    now = 0

    async def handler(request, reply):
        nonlocal now
        now += 1
        assert now == 1
        await trio.lowlevel.checkpoint()
        await echo(request, reply)
        now -= 1

    served = await serve(handler)
    await served.send(b"".join(post(b"<%d>" % number) for number in range(10)))
    received = await served.until(b"<9>")
    assert [received.index(b"<%d>" % n) for n in range(10)] == sorted(
        received.index(b"<%d>" % n) for n in range(10)
    )


async def test_a_request_may_come_in_any_pieces(serve):
    served = await serve()
    for byte in post(b"in pieces"):
        await served.send(bytes([byte]))
        await trio.testing.wait_all_tasks_blocked()
    await served.until(b"POST /b in pieces")
    assert len(served.requests) == 1


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\n\r\n", False),
    ],
)
async def test_the_connection_is_kept_as_the_client_asks(serve, request_, kept):
    served = await serve()
    await served.send(request_)
    received = await served.until(b"GET /a ")
    assert (b"connection: close" in received.lower()) is not kept
    await trio.testing.wait_all_tasks_blocked()
    assert served.over.is_set() is not kept


async def test_a_head_request_gets_the_head_alone(serve):
    async def in_parts(request, reply):
        await reply.start(200, TEXT, 5)
        await reply.write(b"hello")
        await reply.finish()

    for handler in (echo, in_parts):
        served = await serve(handler)
        await served.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        received = await served.until(b"GET /a " if handler is echo else b"hello")
        first, _, second = received.partition(b"\r\n\r\n")
        assert b"content-length: " in first.lower()
        assert second.startswith(b"HTTP/1.1 200")


async def test_a_body_of_unknown_length_is_chunked_and_for_http_1_0_ends_with_the_connection(serve):
    async def parts(request, reply):
        await reply.start(200, TEXT, None)
        for part in (b"one", b"", b"two"):
            await reply.write(part)
        await reply.finish()

    served = await serve(parts)
    await served.send(GET)
    received = await served.until(b"\r\n0\r\n\r\n")
    assert received.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    served = await serve(parts)
    await served.send(b"GET /a HTTP/1.0\r\n\r\n")
    received = await served.rest()
    assert b"chunked" not in received.lower()
    assert received.endswith(b"\r\n\r\nonetwo")


async def test_an_answer_without_content_has_no_length(serve):
    async def nothing(request, reply):
        await reply.answer(204, [], b"")

    served = await serve(nothing)
    await served.send(GET)
    assert b"length" not in (await served.until(b"\r\n\r\n")).lower()


async def test_a_body_that_is_cut_is_seen_to_be_cut(serve):
    async def cut(request, reply):
        await reply.start(200, TEXT, None)
        await reply.write(b"half")
        reply.abort()

    served = await serve(cut)
    await served.send(GET)
    received = await served.rest()
    assert received.endswith(b"4\r\nhalf\r\n")
    assert served.over.is_set()


@pytest.mark.parametrize("written", [b"short", b"much too long"])
async def test_a_body_that_is_not_of_its_declared_length_ends_the_connection(serve, written):
    raised = []

    async def wrong(request, reply):
        await reply.start(200, TEXT, 10)
        try:
            await reply.write(written)
            await reply.finish()
        except LocalProtocolError as exc:
            raised.append(exc)
            raise

    served = await serve(wrong)
    await served.send(GET + GET)
    received = await served.rest()
    assert len(raised) == len(served.requests) == 1
    assert len(received.partition(b"\r\n\r\n")[2]) < 10


async def test_a_header_that_would_split_the_answer_is_never_sent(serve):
    async def split(request, reply):
        await reply.answer(200, [(b"a", b"b\r\nset-cookie: x")], b"")

    served = await serve(split)
    await served.send(GET)
    assert await served.rest() == b""


async def test_a_handler_that_answers_nothing_ends_the_connection(serve):
    async def mute(request, reply):
        pass

    served = await serve(mute)
    await served.send(GET)
    assert await served.rest() == b""


async def test_a_request_that_does_not_come_in_time_is_told_so(serve, autojump_clock):
    served = await serve(read_s=10)
    await trio.sleep(30)  # silence before it costs nothing
    await served.send(post(b"whole")[:-1])
    began = trio.current_time()
    received = await served.rest()
    assert received.startswith(b"HTTP/1.1 408 ")
    assert 10 <= trio.current_time() - began <= 12
    assert served.refused[0][0] == 408
    assert served.requests == []


async def test_the_time_to_read_is_for_the_whole_and_not_for_each_piece(serve, autojump_clock):
    served = await serve(read_s=10)
    began = trio.current_time()

    async def dribble():
        with contextlib.suppress(trio.BrokenResourceError):
            for byte in post(b"x" * 100):
                await served.send(bytes([byte]))
                await trio.sleep(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        assert b" 408 " in await served.rest()
        assert trio.current_time() - began <= 12
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_closed_without_a_word(serve, autojump_clock):
    served = await serve(keep_alive_s=60)
    assert await served.rest() == b""
    assert 60 <= trio.current_time() <= 61
    served = await serve(keep_alive_s=60)
    await served.send(GET)
    await served.until(b"GET /a")
    began = trio.current_time()
    assert await served.rest() == b""
    assert 60 <= trio.current_time() - began <= 61
    assert served.refused == []


async def test_a_handler_takes_as_long_as_it_likes(serve, autojump_clock):
    async def slow(request, reply):
        await trio.sleep(1000)
        await echo(request, reply)

    served = await serve(slow)
    await served.send(GET)
    await served.until(b"GET /a")
    assert trio.current_time() >= 1000


async def test_a_client_that_takes_nothing_is_cut(serve, autojump_clock):
    ended = []

    async def large(request, reply):
        try:
            await reply.answer(200, TEXT, b"x" * 5_000_000)
        except trio.Cancelled:
            ended.append(reply.watch.phase)
            raise

    served = await serve(large, write_s=20)
    await served.send(GET)
    with trio.fail_after(100):
        await served.over.wait()
    assert ended == ["client"]
    assert 20 <= trio.current_time() <= 22


async def test_the_last_words_are_said_when_time_is_over_and_nothing_was_said(
    serve, autojump_clock
):
    async def waits(request, reply):
        reply.watch.until(trio.current_time() + 5, "upstream answer")
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            assert reply.watch.expired
            reply.last_words(504, TEXT, b"too slow")
            raise

    served = await serve(waits)
    await served.send(GET)
    received = await served.rest()
    assert received.startswith(b"HTTP/1.1 504 ")
    assert received.endswith(b"too slow")


async def test_no_last_words_follow_half_an_answer(serve, autojump_clock):
    async def waits(request, reply):
        await reply.start(200, TEXT, None)
        await reply.write(b"half")
        reply.watch.until(trio.current_time() + 5, "upstream body")
        reply.last_words(504, TEXT, b"too slow")
        await trio.sleep_forever()

    served = await serve(waits)
    await served.send(GET)
    assert (await served.rest()).endswith(b"4\r\nhalf\r\n")


async def test_a_retired_connection_ends_at_once_when_it_idles(serve):
    served = await serve()
    await served.send(GET)
    await served.until(b"GET /a")
    await trio.testing.wait_all_tasks_blocked()
    served.connection.retire()
    assert await served.rest() == b""


async def test_a_retired_connection_finishes_its_request_and_takes_no_other(serve):
    release = trio.Event()

    async def waits(request, reply):
        await release.wait()
        await echo(request, reply)

    served = await serve(waits)
    await served.send(GET + GET)
    await trio.testing.wait_all_tasks_blocked()
    served.connection.retire()
    await trio.testing.wait_all_tasks_blocked()
    assert not served.over.is_set()
    release.set()
    received = await served.rest()
    assert received.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in received.lower()
    assert len(served.requests) == 1


async def test_a_request_that_has_come_when_the_connection_is_retired_is_served(serve):
    served = await serve()
    await trio.testing.wait_all_tasks_blocked()
    await served.send(GET)
    served.connection.retire()
    assert b"GET /a" in await served.rest()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a HTTP/9.1\r\nHost: x\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"BREW /a HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 3000, 431),
        (b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST /b HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n", 417),
    ],
)
async def test_what_can_not_be_read_is_refused_once_and_ends_the_connection(serve, data, status):
    served = await serve()
    await served.send(data + GET)
    received = await served.until(b"\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in received.lower()
    assert (b"allow: " in received.lower()) is (status == 405)
    await served.client.send_eof()
    await served.over.wait()
    assert served.requests == []
    assert [each[0] for each in served.refused] == [status]


async def test_what_was_whole_before_the_fault_is_answered(serve):
    served = await serve()
    await served.send(GET + b"nonsense\r\n\r\n")
    received = await served.until(b"HTTP/1.1 400 ")
    assert b"GET /a" in received
    assert len(served.requests) == 1


async def test_a_client_that_goes_on_after_its_refusal_is_not_waited_for(serve, autojump_clock):
    served = await serve()
    await served.send(b"nonsense\r\n\r\n")
    await served.until(b"HTTP/1.1 400 ")
    began = trio.current_time()
    await served.rest()
    await served.over.wait()
    assert trio.current_time() - began <= LINGER_S + 1


@pytest.mark.parametrize("data", [b"GET /a HT", post(b"whole")[:-1]])
async def test_a_client_that_leaves_in_mid_request_is_not_served(serve, data):
    served = await serve()
    await served.send(data)
    await served.client.send_eof()
    await served.rest()
    assert served.requests == []


async def test_a_client_that_leaves_without_a_request_leaves_no_trace(serve):
    served = await serve()
    await served.client.aclose()
    await served.over.wait()
    assert (served.requests, served.refused) == ([], [])
    assert len(served.deadlines) == 0


async def test_a_client_that_leaves_in_mid_answer_breaks_the_next_write(serve):
    broken = []

    async def endless(request, reply):
        await reply.start(200, TEXT, None)
        try:
            while True:
                await reply.write(b"x" * 10_000)
        except Broken:
            broken.append(reply.hung_up())
            raise

    served = await serve(endless)
    await served.send(GET)
    await served.until(b"xxx")
    await served.client.aclose()
    await served.over.wait()
    assert broken == [True]


async def test_until_gone_returns_when_the_client_leaves(serve):
    gone = trio.Event()

    async def waits(request, reply):
        await reply.until_gone()
        gone.set()

    served = await serve(waits)
    await served.send(GET)
    await trio.testing.wait_all_tasks_blocked()
    assert not gone.is_set()
    await served.client.aclose()
    with trio.fail_after(5):
        await gone.wait()


async def test_a_body_may_be_refused_before_it_has_come(serve):
    asked = []

    async def admit(request, reply, length):
        asked.append((request.target, length))
        return 401, TEXT, b"who are you"

    served = await serve(admit=admit)
    await served.send(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
    received = await served.until(b"who are you")
    assert received.startswith(b"HTTP/1.1 401 ")
    assert asked == [(b"/b", 900)]
    assert served.requests == []


async def test_a_client_that_asks_is_told_to_go_on_once_it_is_admitted(serve):
    asked = []

    async def admit(request, reply, length):
        asked.append(length)

    served = await serve(admit=admit)
    whole = post(b"after", b"Expect: 100-continue")
    await served.send(whole[:-5])
    assert await served.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await served.send(b"aft")
    await served.send(b"er")
    await served.until(b"POST /b after")
    assert asked == [5]


async def test_a_whole_request_is_not_asked_about(serve):
    async def admit(*_):
        raise AssertionError

    served = await serve(admit=admit)
    await served.send(post(b"whole", b"Expect: 100-continue"))
    assert b" 100 " not in await served.until(b"POST /b whole")
