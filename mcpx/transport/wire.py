"""A connection's bytes, with as few system calls and task switches as can be.

What it is: two ways to read and write one connection. ``PlainWire`` does it on a
non-blocking socket: it asks the kernel first and gives way to other tasks only when the
kernel says that there is nothing (a ``trio.SocketStream`` gives way at every call).
``TlsWire`` does it through ``trio.SSLStream``.

What it must never do: look at what the bytes mean, or keep any of them.

How a ``PlainWire`` waits for bytes is chosen when it is made: by the process's
``Readiness`` where it is given one, else in trio's own way.

All plain reads share one buffer: between the read and the parser that copies out what
it needs, no other task can run. An idle connection therefore holds no buffer at all.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

import trio

from mcpx.transport.readiness import Readiness

__all__ = ["Broken", "PlainWire", "TlsWire", "Wire"]

READ_BYTES: Final = 256 * 1024
#: After so many reads without a wait, other tasks get a turn.
READS_IN_A_ROW: Final = 8

#: Linux tells of a closed peer even behind unread bytes; elsewhere the reads tell.
_CLOSED_EVENTS: Final[int] = (
    select.POLLRDHUP | select.POLLHUP | select.POLLERR if hasattr(select, "POLLRDHUP") else 0
)

#: What tells that a connection is of no more use, of all that a poll may tell.
_GONE: Final[int] = _CLOSED_EVENTS | select.POLLHUP | select.POLLERR | select.POLLNVAL

#: On, for no second: closing resets the connection.
_NO_LINGERING: Final = struct.pack("ii", 1, 0)

_buffer = bytearray(READ_BYTES)
_view: memoryview[int] = memoryview(_buffer)


class Broken(Exception):
    """The peer reset the connection or stopped taking bytes."""


class Wire(Protocol):
    """What the HTTP layers need of a connection."""

    async def receive(self, *, wait_first: bool = False) -> memoryview[int] | bytes:
        """Bytes that arrived, none at the end.

        They are valid until the caller next awaits. ``wait_first`` says that nothing is
        expected to be there yet, which saves a call. Raises ``Broken``.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises ``Broken``."""
        ...

    def send_now(self, data: bytes) -> int:
        """Send what can be sent without waiting; how many bytes went."""
        ...

    def stale(self) -> bool:
        """Whether the peer has closed, or said something out of turn, while idle."""
        ...

    def waiting(self) -> bool:
        """Whether something lies unread in the kernel: bytes, or the end."""
        ...

    def hung_up(self) -> bool:
        """Whether the peer has closed its side; asks the kernel, waits for nothing."""
        ...

    async def until_gone(self) -> None:
        """Return when the peer has closed its side."""
        ...

    def close(self) -> None:
        """Close without waiting; whoever waits on it is woken with ``Broken``."""
        ...

    def end(self) -> None:
        """Say that nothing more will be sent, where the transport can say so at once."""
        ...

    def reset(self) -> None:
        """Close, and drop what the peer has not taken.

        After a plain close the kernel goes on offering it for minutes, and the peer
        decides how long megabytes are held for it.
        """
        ...


class PlainWire:
    """Bytes over a socket."""

    __slots__ = ("_channel", "_closed", "_in_a_row", "_poll", "_readable", "socket")

    def __init__(self, sock: socket.socket, readiness: Readiness | None = None) -> None:
        self.socket = sock
        self._channel = None if readiness is None else readiness.channel(sock)
        self._readable: Callable[[], Awaitable[None]] = (
            partial(trio.lowlevel.wait_readable, sock)
            if self._channel is None
            else self._channel.readable
        )
        #: Asks the kernel about this socket; made when that is first wanted.
        self._poll: select.poll | None = None
        self._in_a_row = 0
        self._closed = False

    async def receive(self, *, wait_first: bool = False) -> memoryview[int] | bytes:
        sock = self.socket
        try:
            if wait_first:
                await self._readable()
            elif self._in_a_row >= READS_IN_A_ROW:
                self._in_a_row = 0
                await trio.lowlevel.checkpoint()
            while True:
                try:
                    count = sock.recv_into(_buffer)
                except BlockingIOError:
                    self._in_a_row = 0
                    await self._readable()
                    continue
                self._in_a_row += 1
                return _view[:count]
        except (OSError, trio.ClosedResourceError) as exc:
            raise Broken from exc

    async def send(self, data: bytes) -> None:
        sock = self.socket
        try:
            try:
                sent = sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            rest = memoryview(data)[sent:]
            while rest:
                await trio.lowlevel.wait_writable(sock)
                try:
                    sent = sock.send(rest)
                except BlockingIOError:
                    continue
                rest = rest[sent:]
        except (OSError, trio.ClosedResourceError) as exc:
            raise Broken from exc

    def send_now(self, data: bytes) -> int:
        try:
            return self.socket.send(data)
        except OSError:
            return 0

    def stale(self) -> bool:
        # Either the end of the stream or bytes that nobody asked for. The kernel itself
        # is asked: what it has not told of yet would be taken for the next answer.
        return self._told() != 0

    def waiting(self) -> bool:
        return self._told() != 0

    def hung_up(self) -> bool:
        if _CLOSED_EVENTS:
            return self._told() & _GONE != 0
        return _hung_up(self.socket)

    def _told(self) -> int:
        """What the kernel says of the socket at this moment; 0 where there is nothing.

        A poll object that is kept answers in a third of the time that a read takes which
        finds nothing, and has to say so by an exception.
        """
        if self._closed:
            # Its number may be another socket's by now.
            return select.POLLNVAL
        try:
            if self._poll is None:
                self._poll = select.poll()
                self._poll.register(self.socket, select.POLLIN | _CLOSED_EVENTS)
            told = self._poll.poll(0)
        except OSError:
            return select.POLLERR
        return told[0][1] if told else 0

    async def until_gone(self) -> None:
        await _until_gone(self.socket)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Without this a task that waits on the socket would never wake.
        if self._channel is not None:
            self._channel.close()
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()

    def end(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            # The peer has gone; whoever reads next is told.
            pass

    def reset(self) -> None:
        if not self._closed:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
            self.close()


class TlsWire:
    """Bytes over TLS. ``sock`` is the socket beneath ``stream``, for asking the kernel."""

    __slots__ = ("_closed", "_socket", "stream")

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], sock: socket.socket) -> None:
        self.stream = stream
        self._socket = sock
        self._closed = False

    async def receive(self, *, wait_first: bool = False) -> memoryview[int] | bytes:
        del wait_first
        try:
            return bytes(await self.stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise Broken from exc

    async def send(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise Broken from exc

    def send_now(self, data: bytes) -> int:
        # A TLS record can't be taken back half-written: what might wait isn't sent.
        del data
        return 0

    def stale(self) -> bool:
        # Bytes may be there rightly: a server sends its session tickets when it likes.
        return _hung_up(self._socket)

    def waiting(self) -> bool:
        return _waiting(self._socket)

    def hung_up(self) -> bool:
        return _hung_up(self._socket)

    async def until_gone(self) -> None:
        await _until_gone(self._socket)

    def close(self) -> None:
        # No close_notify: it would have to wait for the peer, and HTTP frames its messages.
        if self._closed:
            return
        self._closed = True
        self.stream.transport_stream.socket.close()

    def end(self) -> None:
        # A close_notify would have to be waited for.
        pass

    def reset(self) -> None:
        if not self._closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
            self.close()


def _waiting(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _hung_up(sock: socket.socket) -> bool:
    """Whether the peer has closed its side, whatever it sent before."""
    try:
        if _CLOSED_EVENTS:
            poll = select.poll()
            poll.register(sock, _CLOSED_EVENTS)
            return bool(poll.poll(0))
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True


async def _until_gone(sock: socket.socket) -> None:
    try:
        await trio.lowlevel.wait_readable(sock)
        while not _hung_up(sock):  # noqa: ASYNC110 - the kernel has no event for it
            # Bytes of a next request lie in the kernel, which reports them for ever.
            await trio.sleep(1)
    except (OSError, trio.ClosedResourceError):
        return
