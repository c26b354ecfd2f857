"""Bytes over a socket: no turn is given away in vain, and an end is always seen."""

import socket
import ssl
import struct

import pytest
import trio
import trio.testing
import trustme

from mcpx.transport.readiness import Readiness
from mcpx.transport.wire import Broken, PlainWire, TlsWire

WAYS = [
    "trio",
    pytest.param("shared", marks=pytest.mark.skipif(not Readiness.here, reason="no epoll")),
]


@pytest.fixture(params=WAYS)
async def readiness(request, nursery):
    """How wires wait: trio's own way, or together."""
    if request.param == "trio":
        return None
    readiness = Readiness()
    await nursery.start(readiness.run)
    readiness.share()
    return readiness


@pytest.fixture
async def pair(readiness):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    wires = PlainWire(ours, readiness), PlainWire(theirs, readiness)
    yield wires
    for wire in wires:
        wire.close()
    assert not readiness, "a closed socket is still registered"


async def test_what_is_there_is_read_without_giving_way(pair):
    a, b = pair
    await a.send(b"hello")
    ran = False

    async def other():
        nonlocal ran
        ran = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert bytes(await b.receive()) == b"hello"
        assert not ran


async def test_a_flood_gives_other_tasks_their_turn(pair):
    a, b = pair
    turns = 0
    done = False

    async def other():
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(100):
            await a.send(b"x")
            assert len(await b.receive()) == 1
        done = True
    assert turns


async def test_a_wait_ends_when_bytes_come(pair):
    a, b = pair
    async with trio.open_nursery() as nursery:
        received = []

        async def read():
            received.append(bytes(await b.receive(wait_first=True)))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await a.send(b"later")
    assert received == [b"later"]


async def test_the_end_is_no_bytes(pair):
    a, b = pair
    a.close()
    assert bytes(await b.receive()) == b""


async def test_sending_to_nobody_is_broken(pair):
    a, b = pair
    b.close()
    with pytest.raises(Broken):
        for _ in range(10):
            await a.send(b"x" * 100_000)


async def test_more_than_the_kernel_takes_is_sent_whole(pair):
    a, b = pair
    data = bytes(range(256)) * 20_000
    received = bytearray()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.send, data)
        while len(received) < len(data):
            received += await b.receive()
    assert received == data


async def test_closing_wakes_who_waits(pair):
    _, b = pair
    async with trio.open_nursery() as nursery:

        async def read():
            with pytest.raises(Broken):
                await b.receive(wait_first=True)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        b.close()


async def test_a_stale_connection_is_told_from_an_idle_one(pair):
    a, b = pair
    assert not b.stale()
    await a.send(b"out of turn")
    assert b.stale()
    await b.receive()
    assert not b.stale()
    a.close()
    assert b.stale()
    assert b.hung_up()


async def test_a_peer_that_hangs_up_behind_unread_bytes_is_seen(pair):
    a, b = pair
    await a.send(b"unread")
    assert not b.hung_up()
    a.close()
    assert b.hung_up()
    await b.until_gone()


async def test_a_wire_that_is_closed_says_that_it_is_of_no_use(pair):
    a, b = pair
    number = b.socket.fileno()
    assert not b.stale()
    b.close()
    # Another socket has its number now, and is asked nothing in its place.
    other, its_peer = socket.socketpair()
    with other, its_peer:
        assert other.fileno() == number
        assert b.stale()
        assert b.waiting()
        assert b.hung_up()


async def test_what_the_kernel_can_not_say_is_taken_for_an_end(pair):
    class Exhausted:
        def poll(self, _timeout):
            raise OSError(12, "Cannot allocate memory")

    _, b = pair
    b._poll = Exhausted()
    assert b.stale()


@pytest.mark.parametrize("act", ["bytes", "end", "reset"])
async def test_what_came_a_moment_ago_makes_a_connection_stale(readiness, act):
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    wire = PlainWire(ours, readiness)
    async with trio.open_nursery() as nursery:

        async def read():
            assert bytes(await wire.receive(wait_first=True)) == b"answer"

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        peer.send(b"answer")
    assert not wire.stale()
    # No task has run since: nobody but the kernel can know.
    if act == "bytes":
        peer.send(b"of nobody's request")
    else:
        if act == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
    assert wire.stale()
    assert wire.hung_up() == (act != "bytes")
    wire.close()
    peer.close()


async def test_until_gone_outlasts_bytes_of_a_next_request(pair, autojump_clock):
    a, b = pair
    gone = trio.Event()

    async def watch():
        await b.until_gone()
        gone.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await a.send(b"next")
        await trio.sleep(3)
        assert not gone.is_set()
        a.close()
        await trio.sleep(3)
        assert gone.is_set()


async def test_tls_carries_bytes_both_ways_and_sees_the_end():
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    a, b = socket.socketpair()
    for sock in (a, b):
        sock.setblocking(False)

    def wire(sock, context, **kwargs):
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        return TlsWire(trio.SSLStream(stream, context, https_compatible=True, **kwargs), sock)

    ours = wire(a, client, server_hostname="localhost")
    theirs = wire(b, server, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.stream.do_handshake)
        await theirs.stream.do_handshake()
    await ours.send(b"question")
    assert await theirs.receive() == b"question"
    await theirs.send(b"answer")
    assert await ours.receive() == b"answer"
    assert not ours.hung_up()
    theirs.close()
    await ours.until_gone()
    assert ours.hung_up()
    assert ours.send_now(b"x") == 0
    ours.close()
