"""Connections are accepted up to a bound, served whatever others do, and ended in order."""

import contextlib
import errno
import os
import socket
import ssl

import pytest
import trio
import trio.testing

from mcpx.errors import ConfigError
from mcpx.transport import listener as module
from mcpx.transport.connection import Bounds
from mcpx.transport.deadlines import Deadlines
from mcpx.transport.http import Budget
from mcpx.transport.listener import Listener, open_socket, server_context
from mcpx.transport.readiness import Readiness

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
TEXT = [(b"content-type", b"text/plain")]


async def admit_all(*_):
    return None


async def hello(request, reply):
    await reply.answer(200, TEXT, b"hello " + request.peer.encode())


@pytest.fixture
async def listen(nursery):
    """``await listen(sock, …)`` is a running listener."""

    async def start(sock, handler=hello, *, connections=100, **kwargs):
        deadlines = Deadlines()
        await nursery.start(deadlines.run)
        listener = Listener(
            sock,
            handler=handler,
            admit=admit_all,
            unread=lambda peer, scheme, reply, status, message: (TEXT, message.encode()),
            budget=Budget(1_000_000),
            bounds=Bounds(header_bytes=9999, header_count=99, body_bytes=9999,
                          keep_alive_s=60, read_s=10, write_s=10),
            deadlines=deadlines,
            max_connections=connections,
            **kwargs,
        )  # fmt: skip
        await nursery.start(listener.run)
        return listener

    return start


@pytest.fixture
def sock():
    return open_socket("127.0.0.1:0")


async def connect(listener):
    host, _, port = listener.address.rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))


async def answer(stream, *, within_s=5):
    """What the gateway answers to one request; empty when it says nothing in time."""
    received = b""
    with trio.move_on_after(within_s):
        await stream.send_all(GET)
        while b"hello" not in received:
            more = await stream.receive_some(9999)
            if not more:
                break
            received += more
    return received


async def test_every_connection_is_served(listen, sock):
    listener = await listen(sock)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(20):
            stream = await stack.enter_async_context(await connect(listener))
            assert (await answer(stream)).endswith(b"hello 127.0.0.1")
            assert listener.connections == number + 1
    with trio.fail_after(5):
        while listener.connections:
            await trio.sleep(0.01)


async def test_past_the_bound_a_client_waits_and_is_served_when_another_leaves(listen, sock):
    release = trio.Event()

    async def waits(request, reply):
        await release.wait()
        await hello(request, reply)

    listener = await listen(sock, waits, connections=3)
    async with contextlib.AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(await connect(listener)) for _ in range(3)]
        for stream in busy:
            await stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked(0.01)
        late = await stack.enter_async_context(await connect(listener))
        await late.send_all(GET)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert listener.connections == 3
        release.set()
        for stream in busy:
            with trio.fail_after(5):
                assert b"hello" in await stream.receive_some(9999)
        await busy[0].aclose()
        with trio.fail_after(5):
            assert b"hello" in await late.receive_some(9999)
        assert listener.connections <= 3


async def test_connections_that_do_nothing_make_room_for_one_that_does(listen, sock):
    listener = await listen(sock, connections=3)
    async with contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(await connect(listener)) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked(0.01)
        late = await stack.enter_async_context(await connect(listener))
        assert b"hello" in await answer(late)
        # The oldest had to go, and no other.
        assert await idle[0].receive_some(1) == b""
        assert b"hello" in await answer(idle[1])


async def test_a_smaller_bound_after_a_reload_holds_for_those_who_come(listen, sock):
    listener = await listen(sock, connections=10)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await answer(await stack.enter_async_context(await connect(listener)))
        listener.max_connections = 2
        late = await stack.enter_async_context(await connect(listener))
        assert b"hello" in await answer(late)
        assert listener.connections <= 5


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_running_out_of_descriptors_is_survived(listen, sock, caplog, number):
    class Exhausted(socket.socket):
        left = 1

        def accept(self):
            if self.left:
                self.left -= 1
                raise OSError(number, os.strerror(number))
            return super().accept()

    listener = await listen(Exhausted(fileno=sock.detach()))
    async with await connect(listener) as stream:
        assert b"hello" in await answer(stream)
    assert "no descriptors left" in caplog.text


async def test_a_connection_that_is_gone_before_it_is_accepted_is_survived(listen, sock):
    class Gone(socket.socket):
        left = 1

        def accept(self):
            if self.left:
                self.left -= 1
                raise ConnectionAbortedError(errno.ECONNABORTED, "gone")
            return super().accept()

    listener = await listen(Gone(fileno=sock.detach()))
    async with await connect(listener) as stream:
        assert b"hello" in await answer(stream)


async def test_a_fault_in_one_connection_does_not_end_the_others(listen, sock, caplog):
    async def faulty(request, reply):
        raise KeyError("a bug")

    listener = await listen(sock, faulty)
    async with await connect(listener) as stream:
        assert await answer(stream) == b""
    async with await connect(listener) as stream:
        assert await answer(stream) == b""
    assert "a fault of the gateway" in caplog.text
    assert not listener.ended.is_set()


async def test_stopping_ends_idle_connections_lets_busy_ones_finish_and_accepts_no_more(
    listen, sock
):
    release = trio.Event()

    async def waits(request, reply):
        await release.wait()
        await hello(request, reply)

    listener = await listen(sock, waits)
    idle, busy = await connect(listener), await connect(listener)
    async with idle, busy:
        await busy.send_all(GET)
        await trio.testing.wait_all_tasks_blocked(0.01)
        address = listener.address
        listener.stop()
        assert await idle.receive_some(1) == b""
        assert not listener.ended.is_set()
        host, _, port = address.rpartition(":")
        with pytest.raises(OSError):
            await trio.open_tcp_stream(host, int(port))
        release.set()
        assert b"hello" in await busy.receive_some(9999)
        with trio.fail_after(5):
            await listener.ended.wait()


def test_a_port_that_is_taken_is_a_fault_that_says_what_to_do():
    with open_socket("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=r"listen: 127\.0\.0\.1:\d+: .*another `listen`"):
            open_socket(f"127.0.0.1:{port}")


@pytest.mark.parametrize("listen", ["192.0.2.1:8080", "no-such-name.invalid:8080"])
def test_an_address_that_can_not_be_had_is_a_fault_with_a_hint(listen):
    with pytest.raises(ConfigError, match="check `listen`"):
        open_socket(listen)


def test_a_port_without_a_host_listens_on_every_interface():
    with open_socket(":0") as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass


async def test_an_ipv4_client_of_a_listener_for_both_is_called_by_its_ipv4_address(listen):
    listener = await listen(open_socket(":0"))
    port = int(listener.address.rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        assert (await answer(stream)).endswith(b"hello 127.0.0.1")


async def test_a_unix_socket_is_made_for_owner_and_group_and_removed_at_the_end(listen, tmp_path):
    path = tmp_path / "s"
    before = os.umask(0)
    try:
        sock = open_socket(f"unix:{path}")
        # Others' files are made as they were.
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o660
    listener = await listen(sock)
    assert listener.address == f"unix:{path}"
    async with await trio.open_unix_socket(str(path)) as stream:
        assert (await answer(stream)).endswith(b"hello unix")
    listener.stop()
    await listener.ended.wait()
    assert not path.exists()


def test_a_unix_socket_that_a_dead_gateway_left_is_replaced(tmp_path):
    path = tmp_path / "s"
    open_socket(f"unix:{path}").close()
    assert path.exists()
    with open_socket(f"unix:{path}"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_unix_socket_that_is_in_use_is_left_alone(tmp_path):
    path = tmp_path / "s"
    with open_socket(f"unix:{path}") as live:
        with pytest.raises(ConfigError, match="another program listens there"):
            open_socket(f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            live.accept()[0].close()


def test_a_file_that_is_no_socket_is_never_removed(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ConfigError):
        open_socket(f"unix:{path}")
    assert path.read_text() == "data"


@pytest.fixture
def tls(certificate):
    return server_context(str(certificate.cert), str(certificate.key))


async def secure(listener, certificate, **kwargs):
    stream = trio.SSLStream(
        await connect(listener), certificate.client("http/1.1"),
        server_hostname="localhost", https_compatible=True,
    )  # fmt: skip
    await stream.do_handshake()
    return stream


async def test_tls_is_served_end_to_end(listen, sock, tls, certificate):
    schemes = []

    async def handler(request, reply):
        schemes.append(request.scheme)
        await hello(request, reply)

    listener = await listen(sock, handler, tls=tls)
    stream = await secure(listener, certificate)
    assert b"hello" in await answer(stream)
    assert b"hello" in await answer(stream)
    assert stream.selected_alpn_protocol() == "http/1.1"
    assert schemes == ["https"] * 2
    await trio.aclose_forcefully(stream)


async def test_a_client_that_never_completes_its_handshake_is_cut_and_holds_up_nobody(
    listen, sock, tls, certificate, monkeypatch
):
    monkeypatch.setattr(module, "HANDSHAKE_S", 0.3)
    listener = await listen(sock, tls=tls, connections=5)
    async with contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await connect(listener)) for _ in range(3)]
        await silent[1].send_all(b"\x16\x03\x01")
        stream = await secure(listener, certificate)
        assert b"hello" in await answer(stream)
        for each in silent:
            with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
                assert await each.receive_some(9999) == b""
        assert listener.connections == 1
        await trio.aclose_forcefully(stream)


async def test_what_is_no_tls_ends_its_own_connection_alone(listen, sock, tls, certificate):
    listener = await listen(sock, tls=tls)
    async with await connect(listener) as plain:
        with contextlib.suppress(trio.BrokenResourceError):
            assert b"HTTP" not in await answer(plain)
    stream = await secure(listener, certificate)
    assert b"hello" in await answer(stream)
    await trio.aclose_forcefully(stream)


async def test_last_words_are_said_over_tls_too(listen, sock, tls, certificate):
    async def slow(request, reply):
        reply.watch.until(trio.current_time(), "upstream answer")
        reply.last_words(504, TEXT, b"too slow, hello")
        await trio.sleep_forever()

    listener = await listen(sock, slow, tls=tls)
    stream = await secure(listener, certificate)
    assert (await answer(stream)).startswith(b"HTTP/1.1 504 ")
    await trio.aclose_forcefully(stream)


def test_old_versions_of_tls_are_not_offered(tls):
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_certificate_that_can_not_be_used_is_a_fault_that_names_it(tmp_path, certificate):
    with pytest.raises(ConfigError, match=r"none\.pem"):
        server_context(str(tmp_path / "none.pem"), str(certificate.key))
    with pytest.raises(ConfigError, match="PEM"):
        server_context(str(certificate.cert), str(certificate.cert))


@pytest.mark.skipif(not Readiness.here, reason="this system has no epoll")
async def test_connections_wait_as_the_listener_was_told(listen, sock, nursery):
    readiness = Readiness()
    await nursery.start(readiness.run)
    readiness.share()
    listener = await listen(sock, readiness=readiness)
    async with await connect(listener) as stream:
        await trio.testing.wait_all_tasks_blocked()
        assert len(readiness) == 1
        for _ in range(3):
            assert b"hello" in await answer(stream)
        assert len(readiness) == 1
    listener.stop()
    with trio.fail_after(5):
        await listener.ended.wait()
    assert len(readiness) == 0
